"""Pascal VOC XML: the nominal 1-based inclusive corners, and SIRST-V2's shifted ones.

``voc``       (xmin, ymin, xmax, ymax) count pixels from 1 and xmax is the last one: a pixel at column 5 is
              (6, 6), half-open (5, 6).
``sirst-v2``  all four are the 0-based half-open box plus 1: the same pixel is (6, 7). Read as nominal, every
              box of SIRST-V2 would be one pixel too large to the right and below.

The numbers do not tell which of the two was meant, so the reader must be told.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.parsers import expat
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from ..boxes import Boxes, as_boxes
from ..errors import IrstkitError
from ..files import read_bytes
from ..findings import Findings
from .numbers import number, plain, whole

STYLES = {"voc": (-1.0, -1.0, 0.0, 0.0), "sirst-v2": (-1.0, -1.0, -1.0, -1.0)}
"""What is added to (xmin, ymin, xmax, ymax) to give the half-open box."""

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, eq=False)
class VocFile:
    """One VOC file.

    ``boxes`` (N, 4) half-open xyxy; ``names`` and ``lines`` one each; ``unboxed`` counts the objects without
    ``bndbox`` (SIRST-V2's backgrounds have one each: it is no target); ``size`` (height, width) or None.
    """

    filename: str
    size: tuple[int, int] | None
    boxes: Boxes
    names: tuple[str, ...]
    lines: NDArray[np.int64]
    unboxed: int
    findings: Findings


class _Node:
    __slots__ = ("children", "line", "name", "text")

    def __init__(self, name: str, line: int) -> None:
        self.name, self.line, self.text = name, line, ""
        self.children: list[_Node] = []

    def all(self, name: str) -> list[_Node]:
        return [c for c in self.children if c.name == name]

    def value(self, name: str) -> str:
        found = self.all(name)
        return found[0].text.strip() if found else ""


def parse_xml(data: bytes, path: str | Path) -> _Node:
    """A small tree with line numbers; document types and entities are refused (they can expand without end).

    Raises
    ------
    IrstkitError
        With the line, when it is not well-formed XML or has a document type.
    """
    parser = expat.ParserCreate()
    root = _Node("", 0)
    stack = [root]

    def start(name: str, _: dict[str, str]) -> None:
        node = _Node(name, parser.CurrentLineNumber)
        if len(stack) > 64:
            raise IrstkitError("nested too deeply", path=path, where=f"line {node.line}")
        stack[-1].children.append(node)
        stack.append(node)

    def text(value: str) -> None:
        stack[-1].text += value

    def refuse(*_: object) -> None:
        raise IrstkitError(
            "a document type or entity, which label files do not need",
            path=path,
            where=f"line {parser.CurrentLineNumber}",
        )

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: stack.pop()
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.buffer_text = True
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        reason = expat.errors.messages.get(error.code, "damaged")
        raise IrstkitError(
            f"not well-formed XML: {reason}", path=path, where=f"line {error.lineno}"
        ) from error
    except (ValueError, LookupError) as error:  # an encoding that Python does not know
        raise IrstkitError(f"cannot be read as XML: {error}", path=path) from error
    return root.children[0]


def parse_voc(path: str | Path, *, style: str = "voc") -> VocFile:
    """Read a VOC file; objects that give no box are findings with their line.

    Raises
    ------
    IrstkitError
        When the file is missing, not XML, or its root is not ``annotation``.
    """
    if style not in STYLES:
        raise ValueError(f"no VOC style {style!r}: choose from {', '.join(STYLES)}")
    root = parse_xml(read_bytes(path), path)
    if root.name != "annotation":
        raise IrstkitError(
            f"expected the root 'annotation', found {root.name[:40]!r}", path=path, where="line 1"
        )
    findings = Findings(path)
    size = _voc_size(root, findings)
    boxes: list[list[float]] = []
    names: list[str] = []
    lines: list[int] = []
    unboxed = 0
    for node in root.all("object"):
        where = f"line {node.line}"
        found = node.all("bndbox")
        if not found:
            unboxed += 1
            findings.note("object-without-box", "an object without 'bndbox': no target is made of it", where)
            continue
        if len(found) > 1:
            findings.note("bad-line", f"an object with {len(found)} 'bndbox'", where)
            continue
        box = _voc_box(found[0], style, size, findings)
        if box is None:
            continue
        if box in boxes:
            first = lines[boxes.index(box)]
            findings.note("box-duplicate", f"the same box as the object in line {first}", where)
        boxes.append(box)
        names.append(node.value("name") or "target")
        lines.append(node.line)
    return VocFile(
        root.value("filename"),
        size,
        as_boxes(boxes),
        tuple(names),
        np.array(lines, np.int64),
        unboxed,
        findings,
    )


def _voc_size(root: _Node, findings: Findings) -> tuple[int, int] | None:
    nodes = root.all("size")
    if not nodes:
        return None
    width, height = (whole(nodes[0].value(k)) for k in ("width", "height"))
    if width is None or height is None or width < 1 or height < 1:
        findings.note(
            "image-bad-size", "width and height are not positive whole numbers", f"line {nodes[0].line}"
        )
        return None
    return height, width


def _voc_box(node: _Node, style: str, size: tuple[int, int] | None, findings: Findings) -> list[float] | None:
    where = f"line {node.line}"
    values = []
    for key, shift in zip(_CORNERS, STYLES[style], strict=True):
        found = node.all(key)
        value = number(found[0].text.strip()) if len(found) == 1 else None
        if value is None:
            problem = "is missing" if not found else "is not one finite number"
            findings.note("bad-line", f"{key} {problem}", where)
            return None
        values.append(value + shift)
    x1, y1, x2, y2 = values
    if x2 <= x1 or y2 <= y1:
        findings.note("box-inverted", f"corners in the wrong order: {values}", where)
        return None
    if size is not None:
        height, width = size
        text = f"({plain(x1)}, {plain(y1)}, {plain(x2)}, {plain(y2)}) in an image of {width}x{height}"
        if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
            findings.note("box-outside", f"the box lies outside: {text}", where)
            return None
        if x1 < 0 or y1 < 0 or x2 > width or y2 > height:
            findings.note("box-leaves", f"the box leaves the image: {text}", where)
    return values


def voc_text(
    filename: str,
    size: tuple[int, int],
    boxes: Boxes,
    names: list[str] | None = None,
    *,
    style: str = "voc",
    folder: str = "images",
) -> str:
    """A VOC file for half-open boxes in an image of (height, width)."""
    height, width = size
    objects = []
    for box, name in zip(as_boxes(boxes).tolist(), names or ["target"] * len(boxes), strict=True):
        corners = (v - s for v, s in zip(box, STYLES[style], strict=True))
        text = "".join(f"      <{k}>{plain(v)}</{k}>\n" for k, v in zip(_CORNERS, corners, strict=True))
        objects.append(
            f"  <object>\n    <name>{escape(name)}</name>\n    <difficult>0</difficult>\n"
            f"    <bndbox>\n{text}    </bndbox>\n  </object>\n"
        )
    return (
        f"<annotation>\n  <folder>{escape(folder)}</folder>\n  <filename>{escape(filename)}</filename>\n"
        f"  <size>\n    <width>{width}</width>\n    <height>{height}</height>\n"
        "    <depth>1</depth>\n  </size>\n" + "".join(objects) + "</annotation>\n"
    )
