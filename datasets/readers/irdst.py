"""IRDST as originally released for single frames: images/ and masks/ of BMP files, names such as ``41/1(297)``.

List entries start with a slash (``/41/1(297)``), which must not be taken for the root of the disk. Real frames are
called ``SEQUENCE/1(FRAME)`` with frames from 1 and gaps; simulated ones ``SCENE/FRAME``. The published random
division puts neighbouring frames of one sequence into both parts. The sequence version is ``sstnet.py``'s.
"""

from __future__ import annotations

import re

from ..records import Dataset
from .lists import assign_splits, find_lists, read_list
from .probe import Builder, Match, Probe, missing_folders, stems_like
from .sequences import frame_number

NAME = "irdst"
_REAL = re.compile(r"(?:(\d+)/)?(\d+)\((\d+)\)")
_SIMULATED = re.compile(r"\d+/\d+")


def match(probe: Probe) -> Match:
    """images/ and masks/ with names N(FRAME), or SCENE/FRAME and lists whose entries start with a slash."""
    if lost := missing_folders(probe, ("images", "masks")):
        return Match(False, lost)
    images = probe.images("images")
    if not images:
        return Match(False, "no image in images/")
    real, total = stems_like(images, lambda s: bool(_REAL.fullmatch(s)))
    if real == total:
        return Match(True, "images/ and masks/, images SEQUENCE/1(FRAME)")
    known, _ = stems_like(images, lambda s: bool(_REAL.fullmatch(s) or _SIMULATED.fullmatch(s)))
    if known == total and _slashed(probe):
        return Match(True, "images/ and masks/, images SCENE/FRAME, list entries with a leading slash")
    return Match(False, f"{real} of {total} images are called N(FRAME)")


def read(probe: Probe) -> Dataset:
    """The frames in the order of sequence and frame numbers."""
    builder = Builder(probe)
    images = probe.images("images")
    splits, unions = assign_splits(builder, find_lists(probe), images)

    def describe(id: str) -> dict:
        real = _REAL.fullmatch(id)
        folder, _, stem = id.rpartition("/")
        if real:
            return {"sequence": real[1] or real[2], "frame": int(real[3])}
        return {"sequence": folder or None, "frame": frame_number(stem), "source": "synthetic"}

    builder.add_pairs(images, probe.images("masks"), splits=splits, describe=describe)
    schemes = sorted({scheme for record in builder.records for scheme in record.splits})
    default = schemes[0] if len(schemes) == 1 else None
    return Dataset(probe.root, NAME, tuple(builder.records), default, tuple(builder.findings), unions)


def _slashed(probe: Probe) -> bool:
    lists = [path for parts in find_lists(probe).values() for path in parts.values()]
    return any(entry.startswith("/") for path in lists for entry in read_list(path)[:1])
