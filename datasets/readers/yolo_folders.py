"""YOLO folders: images/ and labels/ with a ``STEM.txt`` an image, flat or in train/, val/ and test/.

An image without label file is one without targets, as in every YOLO trainer; how many there are is said. Some
published label sets number their files otherwise than their images (EFLNet: ``0001.txt`` for ``000001.png``,
``000000.txt`` for ``000000_1.png``): where no name agrees, files are paired by number, and that is said too.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from ...annotate.errors import IrstkitError
from ...annotate.files import natural_key
from ...annotate.formats.yolo_files import parse_yolo
from ..records import Dataset
from .lists import PARTS, assign_splits, find_lists
from .probe import Builder, Match, Probe
from .sequences import folder_parts, sequence_of

NAME = "yolo"
NOT_LABELS = ("classes.txt", "labels.txt", "readme.txt", "notes.txt")


def match(probe: Probe) -> Match:
    """images/ and labels/ with text files, or PART/images and PART/labels."""
    if probe.has("images", "labels"):
        if _labels(probe, "labels"):
            return Match(True, "images/ and labels/ with text files")
        return Match(False, "no text file in labels/")
    parts = [p for p in PARTS if probe.has(f"{p}/images", f"{p}/labels")]
    if parts:
        return Match(True, ", ".join(f"{p}/images and {p}/labels" for p in parts))
    return Match(False, "no images/ and labels/")


def read(probe: Probe) -> Dataset:
    """A record an image; ids relative to images/ (or ``PART/...``)."""
    builder = Builder(probe)
    images, labels = {}, {}
    if probe.has("images", "labels"):
        images, labels = dict(probe.images("images")), _labels(probe, "labels")
    else:
        for part in PARTS:
            if probe.has(f"{part}/images", f"{part}/labels"):
                images |= {f"{part}/{id}": path for id, path in probe.images(f"{part}/images").items()}
                labels |= {f"{part}/{id}": path for id, path in _labels(probe, f"{part}/labels").items()}
    if images and labels and not images.keys() & labels.keys():
        labels = _by_number(builder, images, labels)
    splits, unions = assign_splits(builder, find_lists(probe), images)
    for id, part in folder_parts(images).items():
        splits.setdefault(id, {})["folders"] = part
    bare = [id for id in images if id not in labels]
    if bare:
        text = f"{len(bare)} images without label file, taken for images without targets (first: {bare[0]})"
        builder.find("warning", "label-missing", text)
    for id, image in images.items():
        sequence, frame = sequence_of(id)
        builder.add(id, image, splits=splits.get(id, {}), sequence=sequence, frame=frame)
        if id not in labels:
            builder.set_boxes([])
            continue
        path = labels.pop(id)
        try:
            found = parse_yolo(path)
        except IrstkitError as error:
            builder.find("error", "label-unreadable", error.message, path, where=error.where, record=id)
            continue
        builder.adopt(found.findings, id)
        builder.set_boxes(found.boxes(builder.records[-1].size), path=path)
    for path in labels.values():
        builder.find("error", "image-missing", "labels without image", path)
    schemes = sorted({scheme for record in builder.records for scheme in record.splits})
    default = schemes[0] if len(schemes) == 1 else None
    return Dataset(probe.root, NAME, tuple(builder.records), default, tuple(builder.findings), unions)


def _labels(probe: Probe, folder: str) -> dict[str, Path]:
    base = probe.root / folder
    found = [
        path.relative_to(base).as_posix()
        for path in base.rglob("*.txt")
        if not path.name.startswith(".") and path.name.lower() not in NOT_LABELS
    ]
    return {name.removesuffix(".txt"): base / name for name in sorted(found, key=natural_key)}


def _by_number(builder: Builder, images: dict[str, Path], labels: dict[str, Path]) -> dict[str, Path]:
    """Labels under the ids of the images with the same number and folder; unchanged where that is not clear."""

    def number(id: str) -> tuple[str, int] | None:
        path = PurePosixPath(id)
        digits = path.name.removesuffix("_1") if path.name.endswith("_1") else path.name
        return (path.parent.as_posix(), int(digits)) if digits.isdigit() else None

    of_image = {number(id): id for id in images}
    of_label = {number(id): id for id in labels}
    clear = None not in of_image and None not in of_label
    if (
        not clear
        or len(of_image) < len(images)
        or len(of_label) < len(labels)
        or not of_label.keys() & of_image
    ):
        return labels
    first = next(iter(labels))
    text = f"labels and images are named differently ({first}.txt): paired by their numbers"
    builder.find("info", "label-names", text, labels[first])
    return {of_image.get(key, id): labels[id] for key, id in of_label.items()}
