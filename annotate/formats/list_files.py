"""Lists: a text file with a line a frame.

* SSTNet's and DFAR's: ``path x1,y1,x2,y2,class x1,y1,x2,y2,class ...``, half-open, class from 0. Their paths
  are absolute ones of the authors' machine; frames restart at 0 in every sequence and need a numeric order.
* IRDST's official lists: names such as ``/41/1(297)`` (sequence 41, frame 297 of its first part), whose
  leading slash would make a careless join forget the root.
* Centre points (DAUB as released): a number pair a target; the box side is the reader's choice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from ..boxes import Boxes, as_boxes
from ..findings import Findings
from .numbers import number, plain, read_lines, whole

_PATH = re.compile(r"(.*?\.(?:bmp|png|jpe?g|tiff?|pgm))(?:\s+(.*))?", re.IGNORECASE)
_IRDST = re.compile(r"/?(?:(?P<folder>[^/\s]+)/)?(?P<name>(?P<part>\d+)(?:\((?P<frame>\d+)\))?)", re.ASCII)


@dataclass(frozen=True, eq=False)
class ListEntry:
    """One frame of a list: the path as written, (N, 4) half-open boxes, (N,) classes from 0, line from 1."""

    path: str
    boxes: Boxes
    classes: NDArray[np.int64]
    line: int

    @property
    def sequence(self) -> str:
        """Name of the folder that the frame lies in."""
        return PurePosixPath(self.path).parent.name

    @property
    def frame(self) -> int | None:
        """Number of the frame (its file's name), None when that is no number."""
        return whole(PurePosixPath(self.path).stem)

    def relative(self, marker: str = "images") -> str:
        """The part behind the last folder called ``marker`` (the whole path, without its root, otherwise)."""
        parts = [p for p in PurePosixPath(self.path).parts if p != "/"]
        if marker in parts[:-1]:
            parts = parts[len(parts) - parts[::-1].index(marker) :]
        return "/".join(parts)


@dataclass(frozen=True, eq=False)
class ListFile:
    """The good lines of a list, in the file's order."""

    entries: tuple[ListEntry, ...]
    findings: Findings

    def sequences(self) -> dict[str, list[ListEntry]]:
        """Entries by sequence (in the order of their first line), frames in numeric order."""
        out: dict[str, list[ListEntry]] = {}
        for entry in self.entries:
            out.setdefault(entry.sequence, []).append(entry)
        for entries in out.values():
            entries.sort(key=lambda e: (e.frame is None, e.frame or 0, e.line))
        return out


def parse_list(path: str | Path, *, size: tuple[int, int] | None = None) -> ListFile:
    """Read an SSTNet/DFAR list; every line that is not one is a finding with its number.

    A line without box is a frame without target. With ``size`` (height, width), boxes that leave the image
    are findings too (IRDST has some: take the size from the image).

    Raises
    ------
    IrstkitError
        When the file is missing or not text.
    """
    findings = Findings(path)
    entries: list[ListEntry] = []
    seen: dict[str, int] = {}
    last: dict[str, int] = {}
    for count, line in enumerate(read_lines(path), start=1):
        where = f"line {count}"
        if not line.strip():
            findings.note("empty-line", "an empty line", where)
            continue
        match = _PATH.fullmatch(line.strip())
        if match is None:
            findings.note(
                "bad-line", f"does not begin with the path of an image: {line.strip()[:80]!r}", where
            )
            continue
        name, rest = match.group(1), (match.group(2) or "").split()
        rows, classes = [], []
        for token in rest:
            row = _list_box(token, where, findings)
            if row is not None:
                rows.append(row[:4])
                classes.append(int(row[4]))
        for twice in sorted({tuple(r) for r in rows if rows.count(r) > 1}):
            findings.note("box-duplicate", f"the box {twice} stands twice", where)
        if size is not None:
            note_leaving(as_boxes(rows), size, where, findings)
        if name in seen:
            findings.note("duplicate-entry", f"the same frame as in line {seen[name]}", where)
            continue
        seen[name] = count
        entry = ListEntry(name, as_boxes(rows), np.array(classes, np.int64), count)
        if not rest:
            findings.note("frame-without-box", "a frame without box", where)
        frame = entry.frame
        if frame is not None:
            folder = str(PurePosixPath(name).parent)
            if frame < last.get(folder, frame):
                findings.note("order", f"frame {frame} stands after frame {last[folder]}", where)
            last[folder] = frame
        entries.append(entry)
    if not entries:
        findings.note("no-images", "the list has no frame")
    return ListFile(tuple(entries), findings)


def _list_box(token: str, where: str, findings: Findings) -> list[float] | None:
    fields = token.split(",")
    values = [number(f) for f in fields]
    if len(fields) != 5 or None in values:
        findings.note("bad-line", f"expected x1,y1,x2,y2,class, found {token[:60]!r}", where)
        return None
    x1, y1, x2, y2, kind = (float(v) for v in values if v is not None)
    if kind != int(kind) or not 0 <= kind <= 9999:
        findings.note("class-range", f"class {plain(kind)} (expected a whole number from 0)", where)
        return None
    if x2 <= x1 or y2 <= y1:
        empty = x2 == x1 or y2 == y1
        findings.note("box-empty" if empty else "box-inverted", f"a box without area: {token}", where)
        return None
    return [x1, y1, x2, y2, kind]


def note_leaving(boxes: Boxes, size: tuple[int, int], where: str, findings: Findings) -> None:
    """A finding for each half-open box that is not wholly inside an image of (height, width)."""
    height, width = size
    for x1, y1, x2, y2 in boxes.tolist():
        text = f"({plain(x1)}, {plain(y1)}, {plain(x2)}, {plain(y2)}) in an image of {width}x{height}"
        if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
            findings.note("box-outside", f"the box lies outside: {text}", where)
        elif x1 < 0 or y1 < 0 or x2 > width or y2 > height:
            findings.note("box-leaves", f"the box leaves the image: {text}", where)


def list_text(rows: Iterable[tuple[str, Boxes, Iterable[int]]]) -> str:
    """The text of a list: (path, half-open boxes, classes from 0) a frame. Whole numbers stay whole."""
    return "".join(
        " ".join(
            [
                path,
                *(
                    ",".join(plain(v) for v in (*b, c))
                    for b, c in zip(as_boxes(boxes).tolist(), kinds, strict=True)
                ),
            ]
        )
        + "\n"
        for path, boxes, kinds in rows
    )


# ------------------------------------------------------------------------------------ IRDST's own lists


@dataclass(frozen=True)
class NameEntry:
    """One line of an official IRDST list: ``name`` relative to the image folder, without suffix."""

    name: str
    sequence: str
    frame: int | None
    line: int


def parse_irdst_names(path: str | Path) -> tuple[list[NameEntry], Findings]:
    """Read an official IRDST list (``/41/1(297)``, ``/131/401``, ``1(3)``).

    The leading slash is dropped; the sequence is the folder, or the number before the bracket where there is
    no folder (the example that ships with the code); the frame is the bracket's number or the name itself.
    """
    findings = Findings(path)
    entries: list[NameEntry] = []
    seen: dict[str, int] = {}
    for count, line in enumerate(read_lines(path), start=1):
        text = line.strip()
        if not text:
            findings.note("empty-line", "an empty line", f"line {count}")
            continue
        match = _IRDST.fullmatch(text)
        if match is None or ".." in text:
            findings.note("bad-line", f"not a name such as /41/1(297): {text[:60]!r}", f"line {count}")
            continue
        name = text.lstrip("/")
        if name in seen:
            findings.note("duplicate-entry", f"the same name as in line {seen[name]}", f"line {count}")
            continue
        seen[name] = count
        sequence = match["folder"] or match["part"]
        entries.append(NameEntry(name, sequence, whole(match["frame"] or match["part"]), count))
    if not entries:
        findings.note("no-images", "the list has no name")
    return entries, findings


# ------------------------------------------------------------------------------------------ centre points


@dataclass(frozen=True, eq=False)
class CentrePoints:
    """Centres of one sequence: frame (number or name as written), (N, 2) float64 x, y, line numbers."""

    frames: tuple[str, ...]
    points: tuple[NDArray[np.float64], ...]
    lines: tuple[int, ...]
    findings: Findings

    def boxes(self, side: float, size: tuple[int, int] | None = None) -> list[Boxes]:
        """Boxes of ``side`` around the points, a list entry a frame, clipped to (height, width) if given.

        The corner is x - side / 2, as in the published boxes of DAUB (side 8).
        """
        if side <= 0:
            raise ValueError(f"the side of a box is positive, got {side}")
        out = []
        for points in self.points:
            box = np.concatenate([points - side / 2, points + side / 2], axis=1)
            if size is not None:
                box = box.clip(0, [size[1], size[0], size[1], size[0]])
            out.append(as_boxes(box))
        return out


def parse_centres(path: str | Path, *, columns: str = "auto") -> CentrePoints:
    """Read centre points, a line a frame, fields apart by spaces, tabs, commas or semicolons.

    ``columns``: ``frame,x,y`` (a frame's name or number, then one or more pairs), ``x,y`` (pairs; the frame
    is the line's index from 0), ``frame,id,x,y`` (a line a target), or ``auto``: an odd number of fields is
    ``frame,x,y``, an even one ``x,y``.
    """
    if columns not in ("auto", "frame,x,y", "x,y", "frame,id,x,y"):
        raise ValueError(f"no column layout {columns!r}: auto, frame,x,y or x,y or frame,id,x,y")
    findings = Findings(path)
    rows: dict[str, list[tuple[float, float]]] = {}
    lines: dict[str, int] = {}
    for count, line in enumerate(read_lines(path), start=1):
        where = f"line {count}"
        fields = re.split(r"[\s,;]+", line.strip())
        if fields == [""]:
            findings.note("empty-line", "an empty line", where)
            continue
        lead = {"frame,x,y": 1, "x,y": 0, "frame,id,x,y": 2, "auto": len(fields) % 2}[columns]
        values = [number(f) for f in fields[lead:]]
        if len(values) % 2 or None in values or (lead == 2 and len(values) != 2):
            findings.note("bad-line", f"not a frame and pairs of numbers: {line.strip()[:80]!r}", where)
            continue
        frame = fields[0] if lead else str(count - 1)
        if frame in rows and lead != 2:
            findings.note("duplicate-entry", f"frame {frame} stands in line {lines[frame]} already", where)
            continue
        lines.setdefault(frame, count)
        good = [float(v) for v in values if v is not None]
        rows.setdefault(frame, []).extend(zip(good[0::2], good[1::2], strict=True))
    return CentrePoints(
        tuple(rows),
        tuple(np.array(r, dtype=np.float64).reshape(-1, 2) for r in rows.values()),
        tuple(lines[f] for f in rows),
        findings,
    )
