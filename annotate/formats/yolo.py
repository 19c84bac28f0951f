"""YOLO: a folder with one text file an image (and, where there are classes, ``classes.txt``)."""

from __future__ import annotations

from pathlib import Path

from ..boxes import as_boxes
from ..errors import IrstkitError
from ..files import atomic_folder
from ..findings import Findings, refuse_errors
from ..labels import Format, Label, LabelledImage, LabelSet, ReadOptions, WriteOptions
from .image_folder import Images, files_below, key_of, stem_of
from .numbers import read_lines
from .yolo_files import YoloFile, parse_yolo, yolo_text

CLASSES = "classes.txt"


def label_files(path: Path) -> list[Path]:
    """The label files of a folder (or of its sub-folders) in natural order, or the one file given.

    Raises
    ------
    IrstkitError
        When there is none.
    """
    files = files_below(path, ".txt", "label file")
    files = [f for f in files if f.name != CLASSES]
    if not files:
        raise IrstkitError("no label file (*.txt) in this folder", path=path)
    return files


def read_classes(path: Path) -> list[str]:
    """The names in ``classes.txt``, empty without one."""
    file = path / CLASSES
    return [line.strip() for line in read_lines(file)] if file.is_file() else []


def _names(known: list[str], largest: int) -> tuple[str, ...]:
    names = known or ["target"]
    return (*names, *(f"class {k}" for k in range(len(names), largest + 1)))


def read(path: Path, options: ReadOptions) -> LabelSet:
    """Read a folder of label files; sizes (and file names) come from ``options.images`` or ``options.size``."""
    images = Images(options)
    findings = Findings(path)
    out = []
    largest = 0
    for file in label_files(path):
        parsed = parse_yolo(file)
        refuse_errors(parsed.findings, file)
        findings.extend(parsed.findings)
        name, size = images.name_and_size(key_of(file, path), file)
        if size is None:
            raise IrstkitError(
                "YOLO's boxes are fractions of the image: its size is needed",
                path=file,
                hint="--images DIR takes it from the files, --size WxH gives one for all",
            )
        boxes = parsed.boxes(size).tolist()
        labels = [Label(tuple(b), int(k)) for b, k in zip(boxes, parsed.classes.tolist(), strict=True)]
        largest = max([largest, *parsed.classes.tolist()])
        out.append(LabelledImage(name, size, labels))
    known = read_classes(path)
    if known and largest >= len(known):
        raise IrstkitError(f"class {largest} is used, {CLASSES} has {len(known)} names", path=path / CLASSES)
    return LabelSet(out, len(out), _names(known, largest), findings=findings)


def write(labels: LabelSet, out: Path, options: WriteOptions) -> None:
    """Write one text file an image (empty without target); ``classes.txt`` when there are several classes."""
    with atomic_folder(out, overwrite=options.overwrite) as temporary:
        for image in labels.images:
            kinds = [label.category for label in image.labels]
            boxes = as_boxes([label.box for label in image.labels])
            file = temporary / (stem_of(image.name) + ".txt")
            if file.exists():
                raise IrstkitError(f"two images would share the label file {file.name}", path=out)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(yolo_text(boxes, image.known_size(), kinds, digits=options.digits).encode())
        if len(labels.categories) > 1:
            (temporary / CLASSES).write_bytes("".join(f"{n}\n" for n in labels.categories).encode())


def check(path: Path, options: ReadOptions) -> Findings:
    """Every bad line, labels without image and images without label (with ``options.images``)."""
    findings = Findings(path)
    images = Images(options) if options.images is not None else None
    known = read_classes(path)
    seen = set()
    boxes = 0
    for file in label_files(path):
        try:
            parsed: YoloFile = parse_yolo(file)
        except IrstkitError as error:
            findings.note("encoding", error.message, error.where, path=file)
            continue
        findings.extend(parsed.findings)
        boxes += len(parsed.fractions)
        for kind, line in zip(parsed.classes.tolist(), parsed.lines.tolist(), strict=True):
            if known and kind >= len(known):
                message = f"class {kind}, {CLASSES} has {len(known)} names"
                findings.note("class-range", message, f"line {line}", path=file)
        if images is not None:
            key = images.find(key_of(file, path))
            if key is None:
                findings.note("label-without-image", f"no image in {images.folder}", path=file)
            elif key not in seen:
                seen.add(key)
                images.examine(key, findings)
    if images is not None:
        for image in images.without(seen):
            findings.note("image-without-label", "no label file", path=image)
    if not boxes:
        findings.note("no-targets", "no file holds a box")
    return findings


def recognise(path: Path) -> bool:
    """A folder of ``.txt`` files (or one) whose first lines are five numbers, or which are empty."""
    try:
        files = label_files(path)
    except IrstkitError:
        return False
    if path.is_file() and path.suffix.lower() != ".txt":
        return False
    for file in files[:50]:
        with file.open("rb") as stream:
            fields = stream.readline(200).split()
        if fields:
            return len(fields) == 5 and all(f.replace(b".", b"").isdigit() for f in fields)
    return path.is_dir()


FORMAT = Format(
    "yolo", "folder of STEM.txt: class cx cy w h, fractions of the image", read, write, check, recognise, True
)
