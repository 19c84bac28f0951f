"""IRSTD-1k: 1001 real images of 512x512, ``IRSTD1k_Img/XDU0.png`` and ``IRSTD1k_Label/``, or images/, masks/.

85 of its masks hold gray values; they are decided at > 127 (``annotate.files.binarise``), as everywhere. No
list ships with the release; lists beside the images are read where there are any.
"""

from __future__ import annotations

import re

from ..records import Dataset
from .lists import assign_splits, find_lists
from .probe import Builder, Match, Probe, stems_like

NAME = "irstd-1k"
FOLDERS = (("IRSTD1k_Img", "IRSTD1k_Label"), ("images", "masks"))
_STEM = re.compile(r"XDU\d+")


def match(probe: Probe) -> Match:
    """One of the two folder namings, with images called XDUn."""
    pair = next((pair for pair in FOLDERS if probe.has(*pair)), None)
    if pair is None:
        return Match(False, "neither IRSTD1k_Img/ and IRSTD1k_Label/ nor images/ and masks/")
    named, total = stems_like(probe.images(pair[0]), lambda s: bool(_STEM.fullmatch(s)))
    if not total:
        return Match(False, f"no image in {pair[0]}/")
    if named < total:
        return Match(False, f"{named} of {total} images are called XDUn")
    return Match(True, f"{pair[0]}/ and {pair[1]}/, images XDUn")


def read(probe: Probe) -> Dataset:
    """The records, in the order of their numbers."""
    builder = Builder(probe)
    image_folder, mask_folder = next(pair for pair in FOLDERS if probe.has(*pair))
    images = probe.images(image_folder)
    splits, unions = assign_splits(builder, find_lists(probe), images)
    builder.add_pairs(images, probe.images(mask_folder), splits=splits)
    schemes = sorted({scheme for parts in splits.values() for scheme in parts})
    default = schemes[0] if len(schemes) == 1 else None
    return Dataset(probe.root, NAME, tuple(builder.records), default, tuple(builder.findings), unions)
