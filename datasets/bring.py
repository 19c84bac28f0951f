"""One's own images with labels that lie elsewhere: what ``irstkit data import`` reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..annotate.boxes import Boxes
from ..annotate.errors import IrstkitError
from ..annotate.findings import Findings
from ..annotate.formats.list_files import parse_list
from ..annotate.formats.voc_files import parse_voc
from ..annotate.formats.yolo_files import parse_yolo
from .readers import coco_files, lists
from .readers.probe import Builder, Probe
from .readers.sequences import folder_parts, sequence_of
from .records import Dataset, Finding

FORMATS = ("coco", "yolo", "voc", "sirst-v2", "list")


def bring(
    images: str | Path,
    *,
    masks: str | Path | None = None,
    labels: str | Path | None = None,
    labels_format: str | None = None,
) -> Dataset:
    """The images in a folder (and below) with a folder of masks or with labels, as a data set.

    ``labels``: a COCO file, an SSTNet list, or a folder of YOLO or VOC files; the format is told by suffix unless
    named (``FORMATS``).

    Raises
    ------
    IrstkitError
        When a folder is missing or holds nothing, both masks and labels are given, or the format is unclear.
    """
    if masks is not None and labels is not None:
        raise IrstkitError("masks or labels, not both", hint="boxes follow from the masks")
    probe = Probe(_folder(images))
    found = probe.images(".")
    if not found:
        raise IrstkitError("no image in this folder or below", path=images)
    builder = Builder(probe)
    if labels is not None:
        kind = labels_format or _format_of(Path(labels))
        if kind == "coco":
            return _with_coco(probe, found, Path(labels))
        if kind not in FORMATS:
            raise IrstkitError(f"no label format {kind!r}", hint=f"there are: {', '.join(FORMATS)}")
        if kind == "list":
            _with_list(builder, found, Path(labels))
        else:
            _with_files(builder, found, Path(labels), kind)
    splits, unions = lists.assign_splits(builder, lists.find_lists(probe), found)
    for id, part in folder_parts(found).items():
        splits.setdefault(id, {})["folders"] = part

    def describe(id: str) -> dict[str, Any]:
        sequence, frame = sequence_of(id)
        return {"sequence": sequence, "frame": frame}

    if masks is not None:
        stored = Probe(_folder(masks)).images(".")
        if not stored:
            raise IrstkitError("no mask in this folder or below", path=masks)
        builder.add_pairs(found, stored, splits=splits, describe=describe)
    elif labels is None:
        for id, path in found.items():
            builder.add(id, path, splits=splits.get(id, {}), **describe(id))
    schemes = sorted({scheme for parts in splits.values() for scheme in parts})
    return Dataset(
        probe.root,
        "folder",
        tuple(builder.records),
        schemes[0] if len(schemes) == 1 else None,
        tuple(builder.findings),
        unions,
    )


def _with_coco(probe: Probe, images: Mapping[str, Path], file: Path) -> Dataset:
    data = coco_files.read_files(probe, [file])
    left = len(set(images.values()) - {r.image for r in data})
    if left:
        text = f"{left} images that this file does not list are left out"
        data = replace(data, findings=(*data.findings, Finding("warning", "image-unlisted", text, str(file))))
    return data


def _folder(path: str | Path) -> Path:
    path = Path(path)
    if not path.exists():
        raise IrstkitError("no such folder", path=path)
    if not path.is_dir():
        raise IrstkitError("is a file, a folder was expected", path=path)
    return path


def _format_of(path: Path) -> str:
    if not path.exists():
        raise IrstkitError("no such file or folder", path=path)
    if path.is_dir():
        suffixes = {p.suffix.lower() for p in path.iterdir() if not p.name.startswith(".")} & {".txt", ".xml"}
        if len(suffixes) == 1:
            return "yolo" if suffixes == {".txt"} else "voc"
    elif path.suffix.lower() == ".json":
        return "coco"
    elif path.suffix.lower() == ".txt":
        return "list"
    raise IrstkitError(
        "cannot tell the label format", path=path, hint=f"name it: --labels-format {'|'.join(FORMATS)}"
    )


def _with_files(builder: Builder, images: Mapping[str, Path], folder: Path, kind: str) -> None:
    """A label file an image, by name; images without one are errors (an empty file says: no target)."""
    suffix = ".txt" if kind == "yolo" else ".xml"
    base = _folder(folder)
    files = {
        p.relative_to(base).with_suffix("").as_posix(): p
        for p in sorted(base.rglob(f"*{suffix}"))
        if not p.name.startswith(".") and p.name not in ("classes.txt", "labels.txt")
    }
    if not files:
        raise IrstkitError(f"no {suffix} file in this folder or below", path=folder)
    read: Callable[[Path, tuple[int, int]], tuple[Boxes, Findings]]
    if kind == "yolo":

        def read(path: Path, size: tuple[int, int]) -> tuple[Boxes, Findings]:
            parsed = parse_yolo(path)
            return parsed.boxes(size), parsed.findings
    else:

        def read(path: Path, size: tuple[int, int]) -> tuple[Boxes, Findings]:
            voc = parse_voc(path, style=kind)
            return voc.boxes, voc.findings

    for id, image in images.items():
        sequence, frame = sequence_of(id)
        builder.add(id, image, sequence=sequence, frame=frame)
        path = files.pop(id, None) or files.pop(Path(id).name, None)
        if path is None:
            text = f"no label file {id}{suffix} (an empty file says: no target)"
            builder.find("error", "label-missing", text, image, record=id)
            continue
        try:
            boxes, findings = read(path, builder.records[-1].size)
        except IrstkitError as error:
            builder.find("error", "label-unreadable", error.message, path, where=error.where, record=id)
            continue
        builder.adopt(findings, id)
        builder.set_boxes(boxes, path=path)
    for path in files.values():
        builder.find("error", "image-missing", "labels without image", path)


def _with_list(builder: Builder, images: Mapping[str, Path], path: Path) -> None:
    """The images that an SSTNet list names, by the longest end of its paths that is an image here."""
    parsed = parse_list(path)
    builder.adopt(parsed.findings)
    seen: set[str] = set()
    for entry in parsed.entries:
        parts = Path(entry.path).with_suffix("").parts
        ends = ("/".join(parts[k:]) for k in range(len(parts)))
        id = next((end for end in ends if end in images), None)
        where = f"line {entry.line}"
        if id is None or id in seen:
            text = "no such image here" if id is None else "listed already"
            builder.find("error", "image-missing", f"{entry.path}: {text}", path, where=where)
            continue
        seen.add(id)
        builder.add(id, images[id], sequence=entry.sequence or None, frame=entry.frame)
        builder.set_boxes(entry.boxes, path=path)
    for id in (i for i in images if i not in seen):
        builder.find("error", "label-missing", "an image that the list does not name", images[id])
