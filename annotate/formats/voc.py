"""Pascal VOC: a folder with one XML file an image, in the nominal or SIRST-V2's numbering."""

from __future__ import annotations

from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from ..boxes import as_boxes, mask_to_boxes
from ..errors import IrstkitError
from ..files import IMAGE_SUFFIXES, atomic_folder, read_mask
from ..findings import Findings, refuse_errors
from ..labels import Format, Label, LabelledImage, LabelSet, ReadOptions, WriteOptions
from .image_folder import Images, files_below, key_of, stem_of
from .voc_files import VocFile, parse_voc, voc_text


def voc_files(path: Path) -> list[Path]:
    """The XML files of a folder (or of its sub-folders) in natural order, or the one file given."""
    return files_below(path, ".xml", "VOC file")


def _image_name(voc: VocFile, key: str) -> str:
    """The image's file name: what ``filename`` says where it is a plain name of an image, else the stem."""
    name = PurePosixPath(voc.filename)
    plain = voc.filename and name.name == voc.filename and name.suffix.lower() in IMAGE_SUFFIXES
    return (PurePosixPath(key).parent / voc.filename).as_posix() if plain else f"{key}.png"


def read(path: Path, options: ReadOptions, *, style: str) -> LabelSet:
    """Read a folder of VOC files; objects without ``bndbox`` are no targets and stay findings."""
    images = Images(options)
    findings = Findings(path)
    out = []
    names: list[str] = []
    for file in voc_files(path):
        voc = parse_voc(file, style=style)
        refuse_errors(voc.findings, file)
        findings.extend(voc.findings)
        name, size = _image_name(voc, key_of(file, path)), voc.size or options.size
        if options.images is not None:
            name, size = images.name_and_size(key_of(file, path), file)
            if voc.size is not None and voc.size != size:
                raise IrstkitError(f"the labels are for {voc.size[::-1]}, the image is {size}", path=file)
        labels = []
        for box, kind in zip(voc.boxes.tolist(), voc.names, strict=True):
            if kind not in names:
                names.append(kind)
            labels.append(Label(tuple(box), names.index(kind)))
        out.append(LabelledImage(name, size, labels))
    return LabelSet(out, len(out), tuple(names or ["target"]), findings=findings)


def write(labels: LabelSet, out: Path, options: WriteOptions, *, style: str) -> None:
    """Write one XML file an image; without target it has no object."""
    with atomic_folder(out, overwrite=options.overwrite) as temporary:
        for image in labels.images:
            boxes = as_boxes([label.box for label in image.labels])
            kinds = [labels.categories[label.category] for label in image.labels]
            file = temporary / (stem_of(image.name) + ".xml")
            if file.exists():
                raise IrstkitError(f"two images would share the label file {file.name}", path=out)
            file.parent.mkdir(parents=True, exist_ok=True)
            name = PurePosixPath(image.name).name
            text = voc_text(name, image.known_size(), boxes, kinds, style=style)
            file.write_bytes(text.encode())


def check(path: Path, options: ReadOptions, *, style: str) -> Findings:
    """Every bad object; against the masks where they lie beside (``../masks/STEM_pixels0.png``), every box
    that is not its component's."""
    findings = Findings(path)
    images = Images(options) if options.images is not None else None
    origin = options.beside or path
    masks = (origin if origin.is_dir() else origin.parent).parent / "masks"
    seen = set()
    boxes = 0
    for file in voc_files(path):
        try:
            voc = parse_voc(file, style=style)
        except IrstkitError as error:
            findings.note("unreadable", error.message, error.where, path=file)
            continue
        findings.extend(voc.findings)
        boxes += len(voc.boxes)
        if images is not None:
            key = images.find(key_of(file, path))
            if key is None:
                findings.note("label-without-image", f"no image in {images.folder}", path=file)
            else:
                seen.add(key)
                size = images.examine(key, findings)
                if voc.size is not None and size is not None and voc.size != size:
                    message = (
                        f"the labels are for {voc.size[1]}x{voc.size[0]}, the file is {size[1]}x{size[0]}"
                    )
                    findings.note("image-size", message, path=file)
        for name in (f"{file.stem}_pixels0.png", f"{file.stem}.png"):
            if (masks / name).is_file():
                _against_mask(voc, masks / name, findings, file)
                break
    if images is not None:
        for image in images.without(seen):
            findings.note("image-without-label", "no label file", path=image)
    if not boxes:
        findings.note("no-targets", "no file holds a box")
    return findings


def _against_mask(voc: VocFile, mask_file: Path, findings: Findings, file: Path) -> None:
    try:
        mask = read_mask(mask_file)
    except IrstkitError as error:
        findings.note("image-damaged", error.message, path=mask_file)
        return
    if voc.size is not None and voc.size != mask.shape:
        message = f"the mask {mask_file.name} is {mask.shape[1]}x{mask.shape[0]}"
        findings.note("mask-size", f"{message}, the labels are for {voc.size[1]}x{voc.size[0]}", path=file)
    components = mask_to_boxes(mask)
    for box, line in zip(voc.boxes, voc.lines.tolist(), strict=True):
        if (components == box).all(axis=1).any():
            continue
        meets = (np.minimum(components[:, 2:], box[2:]) > np.maximum(components[:, :2], box[:2])).all(axis=1)
        x, y, x2, y2 = box.tolist()
        text = f"box x {x:g}..{x2:g}, y {y:g}..{y2:g}"
        if meets.any():
            near = components[int(np.argmax(meets))].tolist()
            message = (
                f"{text}; the target in the mask is x {near[0]:g}..{near[2]:g}, y {near[1]:g}..{near[3]:g}"
            )
            findings.note("box-against-mask", message, f"line {line}", path=file)
        else:
            message = f"{text}; the mask {mask_file.name} has no target there"
            findings.note("wrong-frame", message, f"line {line}", path=file)
    if len(components) > len(voc.boxes):
        findings.note(
            "missing-label", f"the mask has {len(components)} targets, the labels {len(voc.boxes)}", path=file
        )


def _is_voc(path: Path) -> bool:
    try:
        first = voc_files(path)[0]
    except IrstkitError:
        return False
    with first.open("rb") as stream:
        return b"<annotation" in stream.read(400)


def _is_sirst(path: Path) -> bool:
    folder = path if path.is_dir() else path.parent
    return folder.name == "bboxes" and any((folder.parent / "masks").glob("*_pixels0.png"))


NOMINAL = Format(
    "voc",
    "folder of Pascal VOC files: 1-based corners, the last pixel included",
    partial(read, style="voc"),
    partial(write, style="voc"),
    partial(check, style="voc"),
    lambda path: _is_voc(path) and not _is_sirst(path),
    True,
)
SHIFTED = Format(
    "sirst-v2",
    "folder of SIRST-V2's VOC files: the half-open box plus 1 on all four",
    partial(read, style="sirst-v2"),
    partial(write, style="sirst-v2"),
    partial(check, style="sirst-v2"),
    lambda path: _is_voc(path) and _is_sirst(path),
    True,
)
