"""SIRST-V2: 514 images with targets and 510 without, masks and boxes.

``images/targets`` and ``images/backgrounds`` (or ``mixed/``), ``annotations/masks/NAME_pixels0.png``,
``annotations/bboxes/NAME.xml``, ``splits/PART_SCHEME.txt``. The XML boxes are half-open and shifted by one
(annotate's style ``sirst-v2``); backgrounds carry an object without box, which is no target. Misc_111's box was
drawn in the frame of its old 592x400 mask: it is known by its numbers and left out, so that the mask's box counts.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ...annotate.boxes import Boxes
from ...annotate.errors import IrstkitError
from ...annotate.formats.voc_files import parse_voc
from ..records import Dataset
from .lists import assign_splits, find_lists
from .probe import Builder, Match, Probe

NAME = "sirst-v2"
DEFAULT_SCHEME = "full"
FOLDERS = ("images/targets", "images/backgrounds")
MASKS, BOXES = "annotations/masks", "annotations/bboxes"
MISC_111 = [[260.0, 206.0, 274.0, 217.0]]


def match(probe: Probe) -> Match:
    """images/targets or mixed/, with annotations/masks/."""
    if not probe.has(MASKS):
        return Match(False, f"no {MASKS}/")
    if not probe.has("images/targets") and not probe.has("mixed"):
        return Match(False, f"{MASKS}/ without images/targets/ or mixed/")
    folders = [f for f in (*FOLDERS, "mixed") if probe.has(f)]
    return Match(True, f"{', '.join(f + '/' for f in folders)} and {MASKS}/")


def read(probe: Probe) -> Dataset:
    """The images by name; those without targets have the attribute ``background``."""
    builder = Builder(probe)
    folders = [f for f in FOLDERS if probe.has(f)] if probe.has("images/targets") else ["mixed"]
    images: dict[str, Path] = {}
    for folder in folders:
        for id, path in probe.images(folder).items():
            if id in images:
                builder.find("error", "duplicate-id", f"also {probe.show(images[id])}", path, record=id)
            else:
                images[id] = path
    splits, unions = assign_splits(builder, find_lists(probe), images)
    with_boxes = probe.has(BOXES)
    known = set(probe.entries(BOXES))

    def describe(id: str) -> dict:
        boxes = _boxes(builder, id, images[id]) if f"{id}.xml" in known else None
        if with_boxes and f"{id}.xml" not in known:
            builder.find("warning", "label-missing", f"no {BOXES}/{id}.xml", images[id], record=id)
        empty = images[id].parent.name == "backgrounds"
        return {"boxes": boxes, "attributes": {"background": True} if empty else {}}

    builder.add_pairs(images, probe.images(MASKS), splits=splits, describe=describe)
    for name in sorted(known):
        if name.endswith(".xml") and name[:-4] not in images:
            builder.find("error", "image-missing", "boxes without image", probe.root / BOXES / name)
    return Dataset(
        probe.root,
        NAME,
        tuple(builder.records),
        DEFAULT_SCHEME if any(DEFAULT_SCHEME in s for s in splits.values()) else None,
        tuple(builder.findings),
        unions,
    )


def _boxes(builder: Builder, id: str, image: Path) -> Boxes | None:
    path = builder.probe.root / BOXES / f"{id}.xml"
    try:
        found = parse_voc(path, style="sirst-v2")
    except IrstkitError as error:
        builder.find("error", "label-unreadable", error.message, path, where=error.where, record=id)
        return None
    builder.adopt(
        [replace(f, severity="info") if f.kind == "object-without-box" else f for f in found.findings], id
    )
    if id == "Misc_111" and found.boxes.tolist() == MISC_111:
        text = "the box is in the frame of the old 592x400 mask: left out, the mask's box counts"
        builder.find("warning", "wrong-frame", text, path, record=id)
        return None
    return found.boxes
