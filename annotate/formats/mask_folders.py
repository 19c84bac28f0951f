"""Masks as images: binary (0 and 255) and instance masks (each target its own value)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..console import track
from ..decode import read_palette_index
from ..errors import IrstkitError
from ..files import (
    atomic_folder,
    decode_image,
    encode_png,
    read_header,
    read_image,
    read_mask_values,
)
from ..findings import Findings
from ..labels import Format, Label, LabelledImage, LabelSet, ReadOptions, WriteOptions
from ..masks import Instance, instances_to_labels, instances_to_mask, label_mask, labels_to_instances
from ..parallel import map_ordered
from ..scan import is_gray, scan_mask
from .image_folder import Images, images_below, key_of, stem_of

ABOUT = "about.json"
_NOT_MASKS = ("images", "image", "img", "imgs", "masks", "mask", "labels")


def list_masks(folder: Path) -> list[Path]:
    """The mask files of a folder and its sub-folders in natural order.

    Raises
    ------
    IrstkitError
        When there is none, two are of one stem (both would be one label), or the folder is a whole data set.
    """
    return [folder / name for name in mask_names(folder)]


def mask_names(folder: Path) -> list[str]:
    """As :func:`list_masks`, posix names relative to ``folder``."""
    names = images_below(folder)
    for parent in {name.rpartition("/")[0] for name in names}:
        inner = [p for p in parent.split("/") if p.lower() in _NOT_MASKS]
        if inner:
            raise IrstkitError(
                f"the folder holds {inner[0]!r}: it is a data set, not its masks",
                path=folder,
                hint="give the folder of the masks",
            )
    stems = {stem_of(name) for name in names}
    if len(stems) < len(names):
        for name in names:
            if stem_of(name) not in stems:
                other = next(n for n in names if stem_of(n) == stem_of(name))
                raise IrstkitError(f"two masks of one name: {other} and {name}", path=folder)
            stems.discard(stem_of(name))
    return names


def _scan_one(job: tuple[Path, str, Path | None], rule, rle: bool) -> LabelledImage:
    path, name, image = job
    return scan_mask(path, name, rule, image=image, rle=rle)


def _jobs(path: Path, options: ReadOptions) -> tuple[int, Iterator[tuple[Path, str, Path | None]]]:
    """How many masks there are, and (mask, name to write, image or None) of each as it is asked for."""
    names = mask_names(path)
    images = Images(options)
    if options.images is not None:
        lost = next((name for name in names if images.find(stem_of(name)) is None), None)
        if lost is not None:
            raise IrstkitError(f"no image of this mask in {options.images}", path=path / lost)

    def jobs() -> Iterator[tuple[Path, str, Path | None]]:
        for name in names:
            key = images.find(stem_of(name))
            if key is None:
                yield path / name, name, None
            else:
                yield path / name, images.name(key), images.path(key)

    return len(names), jobs()


def read_masks(path: Path, options: ReadOptions) -> LabelSet:
    """Read a folder of binary masks; the images are made as they are asked for, in worker processes."""
    count, jobs = _jobs(path, options)
    work = partial(_scan_one, rule=options.rule, rle=options.rle)
    return LabelSet(map_ordered(work, jobs, options.workers), count, info={"masks": options.rule.as_dict()})


def read_instances(path: Path, options: ReadOptions) -> LabelSet:
    """Read a folder of instance masks: 0 is background, each other value (or palette index) one target."""
    count, jobs = _jobs(path, options)

    def images() -> Iterator[LabelledImage]:
        for mask, name, image in jobs:
            values = read_label_image(mask)
            height, width = values.shape
            if image is not None:
                header = read_header(image)
                if (header.height, header.width) != (height, width):
                    raise IrstkitError(
                        f"the mask is {width}x{height}, its image {header.width}x{header.height}", path=mask
                    )
            yield LabelledImage(name, (height, width), [_whole_label(i) for i in labels_to_instances(values)])

    return LabelSet(images(), count, info={"masks": {"convention": "instances"}})


def _whole_label(instance: Instance) -> Label:
    x1, y1, x2, y2 = instance.box
    return Label((float(x1), float(y1), float(x2), float(y2)), instance=instance)


def read_label_image(path: Path) -> NDArray:
    """(H, W) label values: a gray image's own, a palette image's indices (the colours are for the eye).

    Raises
    ------
    IrstkitError
        Damaged, or in colour without a palette.
    """
    index = read_palette_index(path)
    return read_image(path) if index is None else index


# ------------------------------------------------------------------------------------------------ writing


def _mask_file(folder: Path, image: LabelledImage, out: Path) -> Path:
    file = folder / (stem_of(image.name) + ".png")
    if file.exists():
        raise IrstkitError(f"two images would share the mask {file.name}", path=out)
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def _pixels(image: LabelledImage, options: WriteOptions, out: Path) -> list[Instance]:
    """The instances of an image; boxes as rectangles if asked for, else an error."""
    width = image.known_size()[1]
    height = image.known_size()[0]
    found = []
    for label in image.labels:
        if label.instance is not None:
            found.append(label.instance)
            continue
        if not options.rectangles:
            raise IrstkitError(
                f"{image.name}: a box without pixels cannot become a mask",
                path=out,
                hint="--rectangles paints whole boxes (a target fills 0.8 of its box on average)",
            )
        x1, y1 = (max(int(np.floor(v + 0.5)), 0) for v in label.box[:2])
        x2, y2 = (int(np.floor(v + 0.5)) for v in label.box[2:])
        x2, y2 = min(max(x2, x1 + 1), width), min(max(y2, y1 + 1), height)
        if x2 > x1 and y2 > y1:
            found.append(Instance((x1, y1, x2, y2), np.ones((y2 - y1, x2 - x1), dtype=bool)))
    return found


def write_masks(labels: LabelSet, out: Path, options: WriteOptions) -> None:
    """Write one 8-bit PNG an image, 0 and 255: the union of its targets."""
    with atomic_folder(out, overwrite=options.overwrite) as temporary:
        for image in labels.images:
            mask = instances_to_mask(_pixels(image, options, out), image.known_size())
            file = _mask_file(temporary, image, out)
            file.write_bytes(encode_png(mask.astype(np.uint8) * 255))
        _about(temporary, labels, options)


def write_instances(labels: LabelSet, out: Path, options: WriteOptions) -> None:
    """Write one 16-bit PNG an image: 0, and 1..N in the labels' order. Boxes of holes are left out, since
    their pixels are another target's.

    Raises
    ------
    IrstkitError
        When two targets share a pixel: a label image holds one of them only.
    """
    with atomic_folder(out, overwrite=options.overwrite) as temporary:
        for image in labels.images:
            whole = LabelledImage(image.name, image.size, [x for x in image.labels if not x.hole])
            try:
                values = instances_to_labels(_pixels(whole, options, out), image.known_size())
            except ValueError as error:
                raise IrstkitError(
                    f"{image.name}: {error}",
                    path=out,
                    hint="--to masks or --to coco hold overlapping targets",
                ) from error
            _mask_file(temporary, image, out).write_bytes(encode_png(values))
        _about(temporary, labels, options)


def _about(folder: Path, labels: LabelSet, options: WriteOptions) -> None:
    """What a mask cannot say of itself: that it was painted from boxes, or by which rule it was made."""
    info = dict(labels.info)
    if options.rectangles:
        info["painted"] = "boxes without pixels are whole rectangles"
    if info:
        (folder / ABOUT).write_bytes((json.dumps(info, indent=2, ensure_ascii=False) + "\n").encode())


# ----------------------------------------------------------------------------------------------- checking


def check_masks(path: Path, options: ReadOptions) -> Findings:
    """Damaged, coloured, gray and empty masks, masks without image and of another size."""
    findings = Findings(path)
    images = Images(options) if options.images is not None else None
    seen = set()
    targets = 0
    for file in track(list_masks(path), "reading masks", unit="masks"):
        try:
            values = read_mask_values(file)
        except IrstkitError as error:
            findings.note(
                "mask-colour" if "colour" in error.message else "image-damaged", error.message, path=file
            )
            continue
        gray, ones = is_gray(values)
        count = len(label_mask(values > (0 if ones else options.rule.threshold))[1])
        targets += count
        if gray:
            other = len(label_mask(values > 0)[1])
            threshold = options.rule.threshold
            findings.note("mask-gray", f"> {threshold} gives {count} targets, > 0 gives {other}", path=file)
        if ones:
            findings.note("mask-binary-0-1", "the values are 0 and 1", path=file)
        if count == 0:
            findings.note("mask-empty", "a mask without target", path=file)
        if images is None:
            continue
        key = images.find(key_of(file, path))
        if key is None:
            findings.note("label-without-image", f"no image in {images.folder}", path=file)
            continue
        seen.add(key)
        shape = images.examine(key, findings)
        if shape is not None and shape != values.shape:
            size = f"{values.shape[1]}x{values.shape[0]}"
            findings.note("mask-size", f"the mask is {size}, its image {shape[1]}x{shape[0]}", path=file)
    if images is not None:
        for image in images.without(seen):
            findings.note("image-without-label", "no mask", path=image)
    if not targets:
        findings.note("no-targets", "no mask has a target")
    return findings


def check_instances(path: Path, options: ReadOptions) -> Findings:
    """Damaged and coloured label images, and targets whose pixels are not connected."""
    findings = Findings(path)
    for file in track(list_masks(path), "reading masks", unit="masks"):
        try:
            values = read_label_image(file)
        except IrstkitError as error:
            findings.note("image-damaged", error.message, path=file)
            continue
        found = labels_to_instances(values)
        if not found:
            findings.note("mask-empty", "a mask without target", path=file)
        for instance in found:
            pieces = len(label_mask(instance.mask)[1])
            if pieces > 1:
                findings.note("pieces", f"the target in {instance.box} has {pieces} pieces", path=file)
    return findings


def _looks_like(path: Path) -> str | None:
    """``masks`` or ``instances``, from up to 20 files spread over a folder; None when they are pictures.

    Binary masks are mostly 0 and 255, or 0 and 1; label images hold other small values, 16 bits or a palette.
    """
    if not path.is_dir():
        return None
    try:
        files = list_masks(path)
    except IrstkitError:
        return None
    found = None
    for file in files[:: max(1, len(files) // 20)]:
        try:
            decoded = decode_image(file)
            if not decoded.gray_equal:
                if read_palette_index(file) is not None:
                    return "instances"
                continue
        except IrstkitError:
            continue
        values = decoded.gray
        filled = values[values > 0]
        if len(filled) > values.size // 2:
            return None  # a picture
        if len(filled) == 0 or int(filled.max()) == 1 or (filled == np.iinfo(values.dtype).max).mean() > 0.5:
            found = found or "masks"
        elif int(filled.max()) < 128 or values.dtype == np.uint16:
            return "instances"
        else:
            found = found or "masks"  # soft edges
    return found


MASKS = Format(
    "masks",
    "folder of binary masks, 0 and 255 (gray values: > 127)",
    read_masks,
    write_masks,
    check_masks,
    lambda path: _looks_like(path) == "masks",
    True,
)
INSTANCES = Format(
    "instances",
    "folder of instance masks: 0 background, each other value (or palette index) one target",
    read_instances,
    write_instances,
    check_instances,
    lambda path: _looks_like(path) == "instances",
    True,
)
