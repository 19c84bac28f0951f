"""NUDT-SIRST: 1327 images of 256x256 with synthetic targets, ``images/000001.png`` ... and masks."""

from __future__ import annotations

import re

from ..records import Dataset
from .lists import assign_splits, find_lists
from .probe import Builder, Match, Probe, missing_folders, stems_like

NAME = "nudt-sirst"
DEFAULT_SCHEME = "50_50"
_STEM = re.compile(r"\d{6}")


def match(probe: Probe) -> Match:
    """images/ and masks/ with six-digit names from 1 to 1327, and DNA-Net's lists or the set's name."""
    if lost := missing_folders(probe, ("images", "masks")):
        return Match(False, lost)
    named, total = stems_like(
        probe.images("images"), lambda s: bool(_STEM.fullmatch(s)) and 1 <= int(s) <= 1327
    )
    if not total:
        return Match(False, "no image in images/")
    if named < total:
        return Match(False, f"{named} of {total} images are called 000001 to 001327")
    lists = probe.has("50_50")
    if not lists and "nudt" not in probe.root.resolve().name.lower():
        return Match(False, "neither 50_50/ lists nor 'NUDT' in the folder's name")
    told = "50_50/ lists" if lists else "the folder's name"
    return Match(True, f"images/ and masks/, images 000001 to 001327, {told}")


def read(probe: Probe) -> Dataset:
    """The records, in the order of their numbers. They are synthetic targets on real backgrounds."""
    builder = Builder(probe)
    images = probe.images("images")
    splits, unions = assign_splits(builder, find_lists(probe), images)
    builder.add_pairs(
        images, probe.images("masks"), splits=splits, describe=lambda id: {"source": "synthetic"}
    )
    return Dataset(probe.root, NAME, tuple(builder.records), DEFAULT_SCHEME, tuple(builder.findings), unions)
