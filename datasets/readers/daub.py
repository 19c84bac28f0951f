"""DAUB as released: folders ``dataK/`` of frames ``0.bmp``, ``1.bmp``, ..., labels of target centre points.

Labels are looked for as ``dataK.txt`` beside the folder, in it, or in ``labels/``, ``label/``, ``annotations/``;
a line a frame, read by annotate's centre points. The boxes are squares of side 8 around the points, as in the
published conversion, cut to the image. Frames without label file have no boxes at all (``boxes`` None).
"""

from __future__ import annotations

import re
from pathlib import Path

from ...annotate.boxes import Boxes
from ...annotate.errors import IrstkitError
from ...annotate.files import natural_key
from ...annotate.formats.list_files import parse_centres
from ..records import Dataset
from .probe import Builder, Match, Probe
from .sequences import frame_number

NAME = "daub"
SIDE = 8.0
_FOLDER = re.compile(r"data\d+")
LABELS = ("{s}.txt", "{s}/{s}.txt", "{s}/label.txt", "{s}/labels.txt",
          "labels/{s}.txt", "label/{s}.txt", "annotations/{s}.txt")  # fmt: skip


def match(probe: Probe) -> Match:
    """Folders dataK with numbered frames."""
    base = _base(probe)
    if base is None:
        return Match(False, "no folders dataK/ with numbered frames")
    found = [f for f in probe.entries(base) if _FOLDER.fullmatch(f)]
    return Match(True, f"{len(found)} folders dataK/ of numbered frames")


def read(probe: Probe) -> Dataset:
    """Frames in the order of sequence and frame numbers; ids ``data5/0``."""
    builder = Builder(probe)
    base = _base(probe) or "."
    folders = sorted((f for f in probe.entries(base) if _FOLDER.fullmatch(f)), key=natural_key)
    without = []
    for folder in folders:
        images = probe.images(f"{base}/{folder}", deep=False)
        path = _label_file(probe, folder)
        boxes = {} if path is None else _boxes(builder, path, folder, list(images))
        if path is None:
            without.append(folder)
        for stem, image in images.items():
            builder.add(f"{folder}/{stem}", image, sequence=folder, frame=frame_number(stem))
            if path is not None:
                builder.set_boxes(boxes.get(stem, []), path=path)
    if without:
        text = f"no centre points for {', '.join(without)}: these frames have no boxes"
        builder.find("warning", "label-missing", text)
    return Dataset(probe.root, NAME, tuple(builder.records), None, tuple(builder.findings))


def _base(probe: Probe) -> str | None:
    for base in (".", "images"):
        folders = [f for f in probe.entries(base) if _FOLDER.fullmatch(f)]
        if any(all(stem.isdigit() for stem in probe.images(f"{base}/{f}", deep=False)) for f in folders):
            return base
    return None


def _label_file(probe: Probe, folder: str) -> Path | None:
    paths = (probe.root / place.format(s=folder) for place in LABELS)
    return next((path for path in paths if path.is_file()), None)


def _boxes(builder: Builder, path: Path, folder: str, stems: list[str]) -> dict[str, Boxes]:
    """``{stem: boxes}`` of one sequence's label file; its frames are names or numbers."""
    try:
        found = parse_centres(path)
    except IrstkitError as error:
        builder.find("error", "label-unreadable", error.message, path, where=error.where)
        return {}
    builder.adopt(found.findings)
    by_number = {frame_number(stem): stem for stem in stems}
    out = {}
    for frame, line, boxes in zip(found.frames, found.lines, found.boxes(SIDE), strict=True):
        stem = Path(frame).stem if Path(frame).stem in stems else by_number.get(frame_number(frame))
        if stem is None:
            text = f"no frame {frame!r} in {folder}/"
            builder.find("error", "image-missing", text, path, where=f"line {line}")
            continue
        out[stem] = boxes
    return out
