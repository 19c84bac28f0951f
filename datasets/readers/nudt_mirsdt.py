"""NUDT-MIRSDT: 120 sequences of 100 frames, ``SequenceN/{images,masks,masks_centroid,Mix}/00001``.

Frames are read from ``images/``; the ``Mix/*.mat`` stacks of five frames are the published code's copy of them.
``masks_centroid`` (one pixel a target) goes into the record's attributes. The published division by sequence
number is known here as the scheme ``dtum`` (80 sequences to train on, 20 to test, 20 in neither), its low-SNR
(at most 3) test sequences as a part of their own.
"""

from __future__ import annotations

import re

from ...annotate.files import natural_key
from ..records import Dataset
from .lists import assign_splits, find_lists
from .probe import Builder, Match, Probe
from .sequences import frame_number

NAME = "nudt-mirsdt"
DEFAULT_SCHEME = "dtum"
LOW_SNR = frozenset((47, 56, 59, 76, 92, 101, 105, 119))
TEST = frozenset((47, 56, 59, 76, *range(85, 98), 101, 105, 119))
TRAIN = frozenset(range(1, 85)) - TEST
_FOLDER = re.compile(r"Sequence(\d+)")


def match(probe: Probe) -> Match:
    """Folders SequenceN with images/ and masks/."""
    folders = _folders(probe)
    if not folders:
        return Match(False, "no folders SequenceN/")
    whole = [f for f in folders if probe.has(f"{f}/images", f"{f}/masks")]
    if not whole:
        return Match(False, "SequenceN/ without images/ and masks/")
    return Match(True, f"{len(whole)} folders SequenceN/ with images/ and masks/")


def read(probe: Probe) -> Dataset:
    """The frames in the order of sequence and frame numbers; ids ``Sequence1/00001``."""
    builder = Builder(probe)
    rows = []
    for folder in _folders(probe):
        masks = dict(probe.images(f"{folder}/masks"))
        centroids = probe.images(f"{folder}/masks_centroid")
        for stem, image in probe.images(f"{folder}/images").items():
            rows.append((f"{folder}/{stem}", folder, stem, image, masks.pop(stem, None), centroids.get(stem)))
        for path in masks.values():
            builder.find("error", "image-missing", "a mask without image", path)
        for name in probe.entries(f"{folder}/Mix"):
            if name.endswith(".mat") and name[:-4] not in probe.images(f"{folder}/images"):
                path = probe.root / folder / "Mix" / name
                builder.find("error", "image-missing", "a Mix stack without its frame in images/", path)
    ids = {id: None for id, *_ in rows}
    aliases = {id.replace("/", "/Mix/", 1) + ".mat": id for id in ids}
    splits, unions = assign_splits(builder, find_lists(probe), ids, aliases)
    for id, folder, stem, image, mask, centroid in rows:
        if mask is None:
            builder.find("error", "mask-missing", "a frame without mask", image, record=id)
        part = _part(int(folder.removeprefix("Sequence")))
        builder.add(
            id,
            image,
            mask,
            sequence=folder,
            frame=frame_number(stem),
            source="synthetic",
            splits={**splits.get(id, {}), **({DEFAULT_SCHEME: part} if part else {})},
            attributes={} if centroid is None else {"centroid_mask": centroid},
        )
    unions[f"{DEFAULT_SCHEME}/test"] = ("test_low_snr", "test_other")
    return Dataset(probe.root, NAME, tuple(builder.records), DEFAULT_SCHEME, tuple(builder.findings), unions)


def _folders(probe: Probe) -> list[str]:
    return sorted((name for name in probe.entries() if _FOLDER.fullmatch(name)), key=natural_key)


def _part(number: int) -> str | None:
    if number in LOW_SNR:
        return "test_low_snr"
    if number in TEST:
        return "test_other"
    return "train" if number in TRAIN else None
