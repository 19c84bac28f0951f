"""Folders of images, with or without masks: one's own data, and what follows no published layout.

``pairs``: images in one sub-folder, masks under the same names (or with a customary ending such as ``_mask``)
in another. ``images``: only images, directly in the folder or below it: backgrounds, unlabelled data.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..records import Dataset
from .lists import Splits, assign_splits, find_lists
from .probe import Builder, Match, Probe
from .sequences import folder_parts, sequence_of

PAIRS = "pairs"
IMAGES = "images"
FOLDERS = tuple(
    (image, mask)
    for image in ("images", "image", "imgs", "img", "Images")
    for mask in ("masks", "mask", "labels", "label", "gt", "Masks")
)


def match_pairs(probe: Probe) -> Match:
    """A folder of images beside a folder of masks, under one of the customary names."""
    pair = _pair(probe)
    if pair is None:
        return Match(False, "no images/ and masks/ with images in both")
    return Match(True, f"{pair[0]}/ and {pair[1]}/")


def read_pairs(probe: Probe) -> Dataset:
    """A record an image, the mask found by name."""
    pair = _pair(probe) or ("images", "masks")
    builder = Builder(probe)
    images, masks = probe.images(pair[0]), probe.images(pair[1])
    splits, unions = _parts(builder, images)
    builder.add_pairs(images, masks, splits=splits, describe=_place)
    return Dataset(
        probe.root, PAIRS, tuple(builder.records), _only_scheme(builder), tuple(builder.findings), unions
    )


def match_images(probe: Probe) -> Match:
    """Images in the folder itself, in images/, or in any folder below."""
    labels = next((mask for _, mask in FOLDERS if probe.has(mask)), None)
    if labels:
        return Match(False, f"there are labels in {labels}/")
    where = _image_folder(probe)
    if where is None:
        return Match(False, "no image in this folder or below")
    names = {mask for _, mask in FOLDERS}
    for id in probe.images("."):
        parents = id.split("/")[:-1]
        if inner := names.intersection(parents):
            below = "/".join(parents[: parents.index(inner.pop())]) or "."
            return Match(False, f"{below}/ looks like a data set of its own: name it instead")
    return Match(True, "images only" if where == "." else f"images only, in {where}/")


def read_images(probe: Probe) -> Dataset:
    """A record an image, without masks."""
    builder = Builder(probe)
    images = probe.images(_image_folder(probe) or ".")
    splits, unions = _parts(builder, images)
    beside = probe.root.resolve().parent / "masks"
    if beside.is_dir() and beside != probe.root.resolve():
        text = "this is the image folder of a data set: its masks and lists beside it are not seen from here"
        builder.find("warning", "inner-folder", text)
    for id, path in images.items():
        builder.add(id, path, splits=dict(splits.get(id, {})), **_place(id))
    return Dataset(
        probe.root, IMAGES, tuple(builder.records), _only_scheme(builder), tuple(builder.findings), unions
    )


def _pair(probe: Probe) -> tuple[str, str] | None:
    return next(
        (pair for pair in FOLDERS if probe.has(*pair) and all(probe.images(folder) for folder in pair)), None
    )


def _parts(builder: Builder, images: dict[str, Path]) -> tuple[Splits, dict[str, tuple[str, ...]]]:
    """Parts by lists and, as the scheme ``folders``, by folders called train, val and test."""
    splits, unions = assign_splits(builder, find_lists(builder.probe), images)
    for id, part in folder_parts(images).items():
        splits.setdefault(id, {})["folders"] = part
    return splits, unions


def _place(id: str) -> dict[str, Any]:
    sequence, frame = sequence_of(id)
    return {} if sequence is None else {"sequence": sequence, "frame": frame}


def _image_folder(probe: Probe) -> str | None:
    """The sub-folder that images are relative to: images/ only where the rest holds none."""
    everything = probe.images(".")
    if not everything:
        return None
    for folder in ("images", "image", "imgs", "img", "Images"):
        if probe.has(folder) and all(id.startswith(folder + "/") for id in everything):
            return folder
    return "."


def _only_scheme(builder: Builder) -> str | None:
    schemes = sorted({scheme for record in builder.records for scheme in record.splits})
    return schemes[0] if len(schemes) == 1 else None
