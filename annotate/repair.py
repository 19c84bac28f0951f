"""Repairs that need no guess, for the formats besides COCO: into a new file or folder, each one listed."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np

from .errors import IrstkitError
from .files import atomic_folder, decode_image, encode_png, refuse_existing, write_atomic
from .formats.list_files import ListEntry, list_text, parse_list
from .formats.numbers import plain, read_lines
from .formats.voc_files import STYLES, parse_voc
from .labels import ReadOptions

Repairs = list[str]


def fix(path: Path, out: Path, kind: str, options: ReadOptions, *, overwrite: bool = False) -> Repairs:
    """Write a repaired copy of labels in the format ``kind``; the list of what was done.

    Raises
    ------
    IrstkitError
        When the format has no repairs, a file cannot be read, or the output exists.
    """
    if out.resolve() == path.resolve():
        raise IrstkitError("the output is the source: repairs go into a new place", path=out)
    if kind == "coco":
        from .formats.coco_fix import fix as fix_coco

        refuse_existing(out, overwrite=overwrite, folder=False)
        return fix_coco(path, out, options)
    if kind == "sstnet":
        refuse_existing(out, overwrite=overwrite, folder=False)
        return _fix_list(path, out, options)
    folders = {"yolo": _fix_yolo, "voc": _fix_voc, "sirst-v2": _fix_sirst, "masks": _fix_masks}
    if kind not in folders:
        raise IrstkitError(f"there are no repairs for the format {kind!r}", path=path)
    if not path.is_dir():
        raise IrstkitError("give the folder of the labels, not one of its files", path=path)
    with atomic_folder(out, overwrite=overwrite) as temporary:
        return folders[kind](path, temporary, options)


def _fix_yolo(path: Path, out: Path, options: ReadOptions) -> Repairs:
    """Empty lines, Windows line ends and repeated lines go; boxes over the border are clipped."""
    from .formats.yolo import CLASSES, label_files, read_classes

    repairs: Repairs = []
    for file in label_files(path):
        kept: list[str] = []
        if b"\r" in file.read_bytes():
            repairs.append(f"{file.name}: Windows line ends replaced")
        for count, line in enumerate(read_lines(file), start=1):
            text = line.strip()
            if not text:
                repairs.append(f"{file.name}: line {count}: an empty line removed")
            elif text in kept:
                repairs.append(f"{file.name}: line {count}: removed, it repeats an earlier line")
            else:
                new = _clip_fractions(text)
                if new != text:
                    repairs.append(f"{file.name}: line {count}: clipped to the image: {new}")
                kept.append(new)
        target = out / file.relative_to(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes("".join(f"{line}\n" for line in kept).encode())
    if names := read_classes(path):
        (out / CLASSES).write_bytes("".join(f"{n}\n" for n in names).encode())
    return repairs


def _clip_fractions(line: str) -> str:
    from .formats.numbers import number

    fields = line.split()
    values = [number(f) for f in fields[1:]]
    if len(fields) != 5 or None in values:
        return line
    cx, cy, w, h = (float(v) for v in values if v is not None)
    if w <= 0 or h <= 0:
        return line
    x1, y1, x2, y2 = cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2
    if min(x1, y1) >= -2e-6 and max(x2, y2) <= 1 + 2e-6:
        return line
    x1, y1, x2, y2 = max(x1, 0), max(y1, 0), min(x2, 1), min(y2, 1)
    if x2 <= x1 or y2 <= y1:
        return line
    return f"{fields[0]} " + " ".join(f"{v:.10f}" for v in ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1))


def _fix_voc(path: Path, out: Path, options: ReadOptions, style: str = "voc") -> Repairs:
    """Objects without box and repeated objects go; boxes over the border are clipped. All else stays."""
    from .formats.voc import voc_files

    repairs: Repairs = []
    for file in voc_files(path):
        voc = parse_voc(file, style=style)  # refuses document types: the tree below is safe to build
        root = ElementTree.fromstring(file.read_bytes())
        seen: set[tuple[str, ...]] = set()
        for index, node in enumerate(list(root.findall("object")), start=1):
            where = f"{file.name}: object {index}"
            box = node.find("bndbox")
            if box is None:
                root.remove(node)
                repairs.append(f"{where}: removed, it has no bndbox")
                continue
            corners = tuple((box.findtext(k) or "").strip() for k in ("xmin", "ymin", "xmax", "ymax"))
            if (node.findtext("name") or "", *corners) in seen:
                root.remove(node)
                repairs.append(f"{where}: removed, it repeats an earlier one")
                continue
            seen.add((node.findtext("name") or "", *corners))
            if voc.size is not None and (new := _clip_corners(corners, voc.size, style)):
                for key, value in zip(("xmin", "ymin", "xmax", "ymax"), new, strict=True):
                    element = box.find(key)
                    assert element is not None
                    element.text = value
                repairs.append(f"{where}: clipped to the image: {', '.join(new)}")
        target = out / file.relative_to(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(ElementTree.tostring(root, encoding="utf-8") + b"\n")
    return repairs


def _fix_sirst(path: Path, out: Path, options: ReadOptions) -> Repairs:
    return _fix_voc(path, out, options, "sirst-v2")


def _clip_corners(corners: tuple[str, ...], size: tuple[int, int], style: str) -> tuple[str, ...] | None:
    from .formats.numbers import number

    values = [number(c) for c in corners]
    if None in values:
        return None
    shift = STYLES[style]
    box = [float(v) + s for v, s in zip(values, shift, strict=True) if v is not None]
    x1, y1, x2, y2 = max(box[0], 0), max(box[1], 0), min(box[2], size[1]), min(box[3], size[0])
    if [x1, y1, x2, y2] == box or x2 <= x1 or y2 <= y1:
        return None
    return tuple(plain(v - s) for v, s in zip((x1, y1, x2, y2), shift, strict=True))


def _fix_list(path: Path, out: Path, options: ReadOptions) -> Repairs:
    """Empty lines and repeated frames go, frames are put in numeric order, boxes over the border clipped."""
    parsed = parse_list(path, size=options.size)
    repairs: Repairs = []
    for finding in parsed.findings:
        if finding.kind == "empty-line":
            repairs.append(f"{finding.where}: an empty line removed")
        elif finding.severity == "error" and finding.kind not in ("box-outside", "duplicate-entry"):
            raise IrstkitError(f"cannot be repaired: {finding.message}", path=path, where=finding.where)
    lines = read_lines(path)
    first = {entry.path: entry for entry in parsed.entries}
    for finding in parsed.findings:
        if finding.kind == "duplicate-entry" and finding.where:
            text = lines[int(finding.where.split()[1]) - 1].strip()
            entry = next((e for p, e in first.items() if text.startswith(p)), None)
            if entry is None or text != lines[entry.line - 1].strip():
                raise IrstkitError("one frame with two sets of boxes", path=path, where=finding.where)
            repairs.append(f"{finding.where}: removed, it repeats line {entry.line}")
    ordered = [entry for entries in parsed.sequences().values() for entry in entries]
    if [e.line for e in ordered] != [e.line for e in parsed.entries]:
        repairs.append("frames put in numeric order, sequence by sequence")
    write_atomic(
        out, list_text([(e.path, _clipped(e, options, repairs), e.classes.tolist()) for e in ordered])
    )
    return repairs


def _clipped(entry: ListEntry, options: ReadOptions, repairs: Repairs) -> np.ndarray:
    if options.size is None or not len(entry.boxes):
        return entry.boxes
    height, width = options.size
    new = entry.boxes.clip(0, [width, height, width, height])
    gone = (new[:, 2:] <= new[:, :2]).any(axis=1)
    new[gone] = entry.boxes[gone]  # wholly outside: which box was meant is a guess
    if not np.array_equal(new, entry.boxes):
        repairs.append(f"line {entry.line}: clipped to the image")
    return new


def _fix_masks(path: Path, out: Path, options: ReadOptions) -> Repairs:
    """0 and 1 become 0 and 255; palettes and equal channels become one channel. Gray values stay."""
    from .formats.mask_folders import list_masks
    from .scan import is_gray

    repairs: Repairs = []
    for file in list_masks(path):
        decoded = decode_image(file)
        name = file.relative_to(path)
        if not decoded.gray_equal:
            raise IrstkitError("a mask in colour cannot be repaired: which channel is it?", path=file)
        values = decoded.gray
        if decoded.channels != 1:
            repairs.append(f"{name}: {decoded.channels} channels became one")
        if values.dtype == np.uint8 and is_gray(np.asarray(values, dtype=np.uint8))[1]:
            values = np.asarray(values * 255, dtype=np.uint8)
            repairs.append(f"{name}: 0 and 1 became 0 and 255")
        target = out / name.with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(encode_png(values))
    return repairs
