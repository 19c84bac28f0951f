"""Lists of frames with boxes (SSTNet, DFAR), IRDST's official name lists, DAUB's centre points."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

from ..boxes import Boxes, as_boxes
from ..errors import IrstkitError
from ..files import IMAGE_SUFFIXES, list_images, natural_key, read_header, refuse_existing, write_atomic
from ..findings import Findings, refuse_errors
from ..labels import Format, Label, LabelledImage, LabelSet, ReadOptions, WriteOptions
from ..scan import scan_mask
from .image_folder import tree
from .list_files import list_text, note_leaving, parse_centres, parse_irdst_names, parse_list
from .numbers import read_lines


def _frame_size(name: str, options: ReadOptions) -> tuple[int, int] | None:
    """(height, width) of a frame: from its file below ``options.images`` where it lies there."""
    if options.images is not None:
        parts = PurePosixPath(name).parts
        for start in range(len(parts)):  # lists name folders that a download may not have
            file = options.images.joinpath(*parts[start:])
            if file.is_file():
                header = read_header(file)
                return header.height, header.width
        raise IrstkitError(f"no frame {name!r} below this folder", path=options.images)
    return options.size


# ----------------------------------------------------------------------------------------------- SSTNet


def read_sstnet(path: Path, options: ReadOptions) -> LabelSet:
    """Read a list; names are those behind ``images/``, frames of each sequence in numeric order."""
    parsed = parse_list(path, size=options.size)
    refuse_errors([f for f in parsed.findings if f.kind != "box-outside"], path)
    out = []
    largest = 0
    for sequence, entries in parsed.sequences().items():
        for entry in entries:
            kinds = entry.classes.tolist()
            largest = max([largest, *kinds])
            labels = [Label(tuple(b), k) for b, k in zip(entry.boxes.tolist(), kinds, strict=True)]
            extra = {"sequence": sequence} | ({} if entry.frame is None else {"frame": entry.frame})
            name = entry.relative()
            out.append(LabelledImage(name, _frame_size(name, options), labels, extra))
    names = ("target", *(f"class {k}" for k in range(1, largest + 1)))
    return LabelSet(out, len(out), names, findings=parsed.findings)


def write_sstnet(labels: LabelSet, out: Path, options: WriteOptions) -> None:
    """Write a list. Whole numbers stay whole; others are written in full (SSTNet's own loader reads whole
    numbers only)."""
    refuse_existing(out, overwrite=options.overwrite, folder=False)
    rows = []
    for image in labels.images:
        if "\n" in image.name or PurePosixPath(image.name).suffix.lower() not in IMAGE_SUFFIXES:
            raise IrstkitError(f"the name {image.name!r} cannot stand in a list of image files", path=out)
        kinds = [label.category for label in image.labels]
        rows.append((options.prefix + image.name, as_boxes([b.box for b in image.labels]), kinds))
    write_atomic(out, list_text(rows))


def check_sstnet(path: Path, options: ReadOptions) -> Findings:
    """Every bad line, and boxes that leave the image where sizes are known."""
    parsed = parse_list(path, size=options.size)
    findings = parsed.findings
    if options.images is not None:
        for entry in parsed.entries:
            where = f"line {entry.line}"
            try:
                size = _frame_size(entry.relative(), options)
            except IrstkitError as error:
                findings.note("image-missing", error.message, where)
                continue
            if size is not None:
                note_leaving(entry.boxes, size, where, findings)
    return findings


def _head(path: Path) -> list[bytes]:
    if not path.is_file() or path.suffix.lower() != ".txt":
        return []
    with path.open("rb") as stream:
        return stream.read(4000).splitlines()[:5]


def is_sstnet(path: Path) -> bool:
    """A ``.txt`` whose first line is an image's path, alone or followed by boxes."""
    fields = b"".join(_head(path)[:1]).split()
    return bool(fields) and fields[0].decode("latin-1").lower().endswith(IMAGE_SUFFIXES)


# ------------------------------------------------------------------------------------------------ IRDST


def read_irdst(path: Path, options: ReadOptions) -> LabelSet:
    """Read an official list with the masks beside it (``masks/NAME.bmp``)."""
    entries, findings = parse_irdst_names(path)
    refuse_errors(findings, path)
    root = path.parent / "masks"
    if not root.is_dir():
        raise IrstkitError(
            "an IRDST list names images only: their masks were expected in the folder 'masks' beside it",
            path=path,
        )
    stems = {f.relative_to(root).with_suffix("").as_posix(): f for f in tree(root, IMAGE_SUFFIXES)}
    out = []
    for entry in entries:
        mask = stems.get(entry.name)
        if mask is None:
            raise IrstkitError(f"no mask of {entry.name!r} in {root}", path=path, where=f"line {entry.line}")
        image = scan_mask(mask, mask.relative_to(root).as_posix(), options.rule)
        image.extra = {"sequence": entry.sequence, "frame": entry.frame}
        out.append(image)
    return LabelSet(out, len(out), info={"masks": options.rule.as_dict()}, findings=findings)


def check_irdst(path: Path, options: ReadOptions) -> Findings:
    """Every line that is no name, every name without image or mask where folders lie beside."""
    entries, findings = parse_irdst_names(path)
    for folder, kind in (("images", "image-missing"), ("masks", "missing-label")):
        root = path.parent / folder
        if not root.is_dir():
            continue
        stems = {f.relative_to(root).with_suffix("").as_posix() for f in tree(root, IMAGE_SUFFIXES)}
        for entry in entries:
            if entry.name not in stems:
                findings.note(kind, f"{entry.name!r} is not in {root}", f"line {entry.line}")
    return findings


def is_irdst(path: Path) -> bool:
    """A ``.txt`` whose first lines are names such as ``/41/1(297)``."""
    head = b"\n".join(_head(path)).decode("latin-1")
    return "(" in head and not any(s in head.lower() for s in IMAGE_SUFFIXES) and "," not in head


# ------------------------------------------------------------------------------------------ centre points


def read_centres(path: Path, options: ReadOptions) -> LabelSet:
    """Boxes of ``options.side`` around centre points: a file a sequence (its stem), or a folder of them."""
    files = sorted(path.glob("*.txt"), key=lambda f: natural_key(f.name)) if path.is_dir() else [path]
    if not files:
        raise IrstkitError("no file of centre points (*.txt) in this folder", path=path)
    out = []
    findings = Findings(path)
    for file in files:
        parsed = parse_centres(file, columns=options.columns)
        refuse_errors(parsed.findings, file)
        findings.extend(parsed.findings)
        frames = _frames(file.stem, options)
        boxes: Boxes
        for frame, boxes, line in zip(parsed.frames, parsed.boxes(options.side), parsed.lines, strict=True):
            stem = PurePosixPath(frame).stem if "." in frame else frame
            name, size = f"{file.stem}/{stem}.bmp", options.size
            if frames is not None:
                if stem not in frames:
                    raise IrstkitError(f"no frame {stem!r} in the images", path=file, where=f"line {line}")
                header = read_header(frames[stem])
                name, size = f"{file.stem}/{frames[stem].name}", (header.height, header.width)
            if size is not None:
                boxes = as_boxes(boxes.clip(0, [size[1], size[0], size[1], size[0]]))
            extra = {"sequence": file.stem} | ({"frame": int(stem)} if stem.isdigit() else {})
            out.append(LabelledImage(name, size, [Label(tuple(b)) for b in boxes.tolist()], extra))
    return LabelSet(
        out, len(out), info={"boxes": {"from": "centre points", "side": options.side}}, findings=findings
    )


def _frames(sequence: str, options: ReadOptions) -> dict[str, Path] | None:
    if options.images is None:
        return None
    folder = options.images / sequence
    return {f.stem: f for f in list_images(folder if folder.is_dir() else options.images)}


def check_centres(path: Path, options: ReadOptions) -> Findings:
    """Every line that is not a frame and pairs of numbers; points outside the image where the size is known."""
    files = sorted(path.glob("*.txt"), key=lambda f: natural_key(f.name)) if path.is_dir() else [path]
    findings = Findings(path)
    for file in files:
        parsed = parse_centres(file, columns=options.columns)
        findings.extend(parsed.findings)
        if options.size is None:
            continue
        height, width = options.size
        for points, line in zip(parsed.points, parsed.lines, strict=True):
            for x, y in points.tolist():
                if not (0 <= x < width and 0 <= y < height):
                    message = f"the point ({x:g}, {y:g}) lies outside {width}x{height}"
                    findings.note("box-outside", message, f"line {line}", path=file)
    return findings


def is_centres(path: Path) -> bool:
    """A ``.txt`` of two to four numbers a line, none a fraction of 1."""
    if not path.is_file() or path.suffix.lower() != ".txt":
        return False
    try:
        lines = read_lines(path)[:5]
    except IrstkitError:
        return False
    fields = [line.replace(",", " ").replace(";", " ").split() for line in lines]
    return bool(fields) and all(
        2 <= len(f) <= 4 and all(v.replace(".", "").isdigit() for v in f[-2:]) for f in fields
    )


def record_info(out: Path, info: dict) -> None:
    """Write ``info`` beside an output that has no place for it."""
    write_atomic(out, json.dumps(info, indent=2) + "\n")


SSTNET = Format(
    "sstnet",
    "SSTNet/DFAR list: path x1,y1,x2,y2,class ...",
    read_sstnet,
    write_sstnet,
    check_sstnet,
    is_sstnet,
)
IRDST = Format(
    "irdst", "IRDST's official name list, masks beside it", read_irdst, None, check_irdst, is_irdst
)
CENTRES = Format(
    "centres", "centre points a frame (DAUB as released)", read_centres, None, check_centres, is_centres
)
