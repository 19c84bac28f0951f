"""NUAA-SIRST (SIRST v1): 427 real images of 381 sizes, as released or with DNA-Net's mask names.

Layout: ``images/Misc_N.png``; masks ``masks/Misc_N.png`` (DNA-Net) or ``masks/Misc_N_pixels0.png`` (as
released; the ``.xml`` files beside them hold one box around all targets of an image and are not read); lists
``50_50/``, ``idx_427/``, ``idx_320/``. The one published defect, Misc_111's 592x400 mask for a 325x220 image,
is known here by name; any other mask of another size is an error.
"""

from __future__ import annotations

import re

from ..records import Dataset
from .lists import assign_splits, find_lists
from .probe import Builder, Match, Probe, missing_folders, stems_like

NAME = "nuaa-sirst"
DEFAULT_SCHEME = "50_50"
_STEM = re.compile(r"Misc_\d+")


def match(probe: Probe) -> Match:
    """images/ and masks/ whose images are all called Misc_N."""
    if lost := missing_folders(probe, ("images", "masks")):
        return Match(False, lost)
    named, total = stems_like(probe.images("images"), lambda s: bool(_STEM.fullmatch(s)))
    if not total:
        return Match(False, "no image in images/")
    if named < total:
        return Match(False, f"{named} of {total} images are called Misc_N")
    raw = any(s.endswith("_pixels0") for s in probe.images("masks"))
    naming = "masks Misc_N_pixels0 (as released)" if raw else "masks Misc_N (DNA-Net's naming)"
    return Match(True, f"images/ and masks/, images Misc_N, {naming}")


def read(probe: Probe) -> Dataset:
    """The records, in the order of their numbers."""
    builder = Builder(probe)
    images = probe.images("images")
    splits, unions = assign_splits(builder, find_lists(probe), images)
    builder.add_pairs(images, probe.images("masks"), known_mask_size=_misc_111, splits=splits)
    return Dataset(probe.root, NAME, tuple(builder.records), DEFAULT_SCHEME, tuple(builder.findings), unions)


def _misc_111(id: str, size: tuple[int, int], mask_size: tuple[int, int]) -> bool:
    return id == "Misc_111" and size == (220, 325) and mask_size == (400, 592)
