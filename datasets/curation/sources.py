"""What is pushed: every image of a data set with its COCO entry and its labels as COCO annotations.

A data set whose truth is a COCO file (irstkit's own, or a published COCO file) keeps that file's entries as they
are, unknown keys too; of any other the entries are made from masks or boxes. Labels that nobody touches therefore
come back as what was read.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from ...annotate.coco import CATEGORY, read_coco
from ...annotate.console import note
from ...annotate.errors import IrstkitError
from ...annotate.masks import Instance, mask_to_instances
from ...annotate.rle import encode_instance, rle_to_instance
from ..readers import open_dataset
from ..records import Dataset, Record

ImageEntry = dict[str, Any]
Annotation = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Entry:
    """One image: its record (None: it cannot be used and is only carried along) and its COCO entries.

    ``annotations`` is None where they are made from the mask or the boxes when the image is loaded (then they
    carry no ids: these are given on the way out). ``positions`` are the annotations' places in their file.
    """

    key: str
    order: int
    record: Record | None
    image: ImageEntry
    annotations: tuple[Annotation, ...] | None
    positions: tuple[int, ...] = ()

    def fingerprint(self) -> str:
        """Changes with the image file, the mask file and everything read about them (files by size and time)."""
        record = self.record
        digest = hashlib.sha1(_json([self.image, self.annotations]).encode())
        if record is not None:
            for path in (record.image, record.mask):
                if path is not None:
                    stat = path.stat()
                    digest.update(f"{path}|{stat.st_size}|{stat.st_mtime_ns}".encode())
            about = [
                record.size, record.bit_depth, record.sequence, record.frame, record.source, record.scene,
                dict(record.splits), record.track_ids,
                None if record.boxes is None else record.boxes.tolist(),
            ]  # fmt: skip
            digest.update(_json(about).encode())
        return digest.hexdigest()

    def place(self) -> list[int]:
        """Where it stands in its data set, and its annotations in their file."""
        return [self.order, *self.positions]


@dataclass(eq=False)
class Source:
    """One data set (or one of its COCO files).

    ``head``: the COCO file's keys but for images and annotations. ``box_only``: its labels have no masks.
    """

    name: str
    root: Path
    layout: str
    entries: list[Entry]
    document: Path | None = None
    head: dict[str, Any] = field(default_factory=dict)
    default_scheme: str | None = None
    box_only: bool = False
    left_out: int = 0

    def as_dict(self) -> dict[str, Any]:
        """What is remembered of it with the pushed data set."""
        return {
            "name": self.name,
            "root": str(self.root),
            "layout": self.layout,
            "document": None if self.document is None else str(self.document),
            "head": _json(self.head),
            "box_only": self.box_only,
        }


def open_sources(paths: list[Path]) -> list[Source]:
    """Read the data sets in ``paths``; their names differ (the folder's, with its parent's where needed).

    Images that cannot be used are counted and said, and left out.
    """
    found: list[Source] = []
    with _uncollected():
        for path in paths:
            data = open_dataset(path)
            if data.layout == "webdataset":
                raise IrstkitError(
                    "these are shards, and what FiftyOne shows are files",
                    path=path,
                    hint=f"irstkit data import {path} --out FOLDER unpacks them",
                )
            found += _sources(data)
    names = [source.name for source in found]
    for source in found:
        if names.count(source.name) > 1:
            source.name = f"{source.root.resolve().parent.name}-{source.name}"
    if len({source.name for source in found}) < len(found):
        raise IrstkitError("the same data set is named twice", path=found[0].root)
    for source in found:
        source.entries = [_prefixed(source.name, e) for e in source.entries]
        if source.left_out:
            note(
                f"{source.name}: {source.left_out} images with errors are left out "
                f"(irstkit data info {source.root} lists them)"
            )
    return found


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Python's collector of cycles rests: records hold none, but each of its rounds looks at all of them."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _prefixed(name: str, e: Entry) -> Entry:
    return Entry(f"{name}/{e.key}", e.order, e.record, e.image, e.annotations, e.positions)


def _sources(data: Dataset) -> list[Source]:
    bad = {f.record for f in data.findings if f.severity == "error" and f.record is not None}
    good = {r.id: r for r in data.records if r.id not in bad and r.size != (0, 0)}
    if not good:
        data.require_clean()
        raise IrstkitError("no image that can be used", path=data.root)
    left_out = len(data.records) - len(good)
    name = data.root.resolve().name
    documents = _documents(data)
    if not documents:
        entries = [_made_entry(data, record, k) for k, record in enumerate(good.values())]
        labelled = [r for r in good.values() if r.mask is not None or r.boxes is not None]
        box_only = bool(labelled) and all(r.mask is None for r in labelled)
        return [
            Source(
                name, data.root, data.layout, entries, default_scheme=data.default_scheme,
                head={"info": {"source": name}, "licenses": [], "categories": [dict(CATEGORY)]},
                box_only=box_only, left_out=left_out,
            )
        ]  # fmt: skip
    out = []
    for document in documents:
        label = name if len(documents) == 1 else f"{name}-{document.stem}"
        out.append(_from_document(label, data, document, good))
        out[-1].left_out = left_out
        left_out = 0
    return out


def _documents(data: Dataset) -> list[Path]:
    if data.layout == "irstkit":
        return [data.root / "annotations.json"]
    if data.layout == "coco":
        from ..readers.coco_files import coco_files
        from ..readers.probe import Probe

        return list(coco_files(Probe(data.root)))
    return []


def _made_entry(data: Dataset, record: Record, order: int) -> Entry:
    name = record.id + record.suffix
    if record.video_frame is None and record.image.is_relative_to(data.root):
        name = record.image.relative_to(data.root).as_posix()
    height, width = record.size
    known = {
        "sequence": record.sequence, "frame": record.frame, "source": record.source, "scene": record.scene,
    }  # fmt: skip
    image = {"file_name": name, "width": width, "height": height}
    image |= {key: value for key, value in known.items() if value is not None}
    return Entry(record.id, order, record, image, None)


def _from_document(name: str, data: Dataset, document: Path, good: dict[str, Record]) -> Source:
    coco = read_coco(document)
    by_end: dict[str, Record | None] = {}
    below = f"{data.root.as_posix()}/"
    for record in good.values():
        end = record.image.as_posix().removeprefix(below)
        by_end[end] = record  # the whole path always counts
        while (cut := end.find("/")) >= 0:
            end = end[cut + 1 :]
            by_end[end] = None if end in by_end else record
    labels: dict[Any, list[tuple[int, Annotation]]] = {}
    for position, annotation in enumerate(coco["annotations"]):
        image_id = annotation.get("image_id") if isinstance(annotation, dict) else None
        labels.setdefault(_hashable(image_id), []).append((position, annotation))
    entries, masks, boxes = [], 0, 0
    for order, image in enumerate(coco["images"]):
        file_name = image.get("file_name") if isinstance(image, dict) else None
        known = by_end.get(file_name) if isinstance(file_name, str) else None
        found = labels.pop(_hashable(image.get("id") if isinstance(image, dict) else None), [])
        key = known.id if known is not None else f"(unused {order})"
        entries.append(
            Entry(key, order, known, image, tuple(a for _, a in found), tuple(p for p, _ in found))
        )
        for _, annotation in found:
            masks += has_mask(annotation)
            boxes += not has_mask(annotation)
    if labels:
        position = next(iter(labels.values()))[0][0]
        raise IrstkitError("an annotation of no image", path=document, where=f"$.annotations[{position}]")
    head = {key: value for key, value in coco.items() if key not in ("images", "annotations")}
    return Source(
        name, data.root, data.layout, entries, document, head, data.default_scheme, boxes > 0 and masks == 0
    )


def _hashable(value: Any) -> Any:
    return value if isinstance(value, (int, str)) else None


# ------------------------------------------------------------------------------------------- labels


@dataclass(frozen=True, eq=False)
class Label:
    """One target: its annotation, its half-open box, and its pixels where it has a mask."""

    annotation: Annotation
    position: int
    box: tuple[float, float, float, float]
    instance: Instance | None


def has_mask(annotation: Annotation) -> bool:
    """Whether its segmentation is one, not a rectangle made from its box."""
    return bool(annotation.get("segmentation")) and annotation.get("segmentation_source") != "box"


def labels_of(entry: Entry, where: Path) -> list[Label]:
    """The labels of an entry; made from its mask or its boxes where it brings none.

    Raises
    ------
    IrstkitError
        For a mask that cannot be read or a damaged segmentation, naming file and annotation.
    """
    record = entry.record
    assert record is not None
    if entry.annotations is None:
        return list(_made(record))
    out = []
    for position, annotation in zip(entry.positions, entry.annotations, strict=True):
        instance = None
        try:
            x, y, w, h = (float(v) for v in annotation["bbox"])
            if has_mask(annotation):
                instance = to_instance(annotation["segmentation"], record.size)
        except (ValueError, TypeError, KeyError) as error:
            raise IrstkitError(
                f"not a label: {error}", path=where, where=f"$.annotations[{position}]"
            ) from error
        out.append(Label(annotation, position, (x, y, x + w, y + h), instance))
    return out


def to_instance(segmentation: Any, size: tuple[int, int]) -> Instance | None:
    """The pixels of an RLE or of polygons in an image of (height, width); None when there are none.

    Raises
    ------
    ValueError
        When it is neither, is damaged, or an RLE is of another size.
    """
    if isinstance(segmentation, dict):
        if list(segmentation.get("size", ())) != list(size):
            raise ValueError(f"its RLE is of size {segmentation.get('size')}, the image of {list(size)}")
        return rle_to_instance(segmentation)
    if not isinstance(segmentation, list) or not all(isinstance(p, list) for p in segmentation):
        raise ValueError("its segmentation is neither an RLE nor a list of polygons")
    polygons = [[float(v) for v in p] for p in segmentation if p]
    if any(len(p) < 6 or len(p) % 2 for p in polygons):
        raise ValueError("a polygon has at least three points")
    if not polygons:
        return None
    packed = coco_mask.merge(coco_mask.frPyObjects(polygons, *size))
    return whole_instance(np.asarray(coco_mask.decode(packed), dtype=bool))


def whole_instance(mask: np.ndarray) -> Instance | None:
    """All pixels of a (H, W) mask as one instance, connected or not; None when it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        return None
    x1, y1, x2, y2 = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    return Instance((x1, y1, x2, y2), np.ascontiguousarray(mask[y1:y2, x1:x2]))


def _made(record: Record) -> Iterator[Label]:
    if record.mask is not None:
        for k, instance in enumerate(mask_to_instances(record.read_mask())):
            x1, y1, x2, y2 = (float(v) for v in instance.box)
            yield Label(mask_annotation(instance, record.size), k, (x1, y1, x2, y2), instance)
    elif record.boxes is not None:
        tracks = record.track_ids or (None,) * len(record.boxes)
        for k, ((x1, y1, x2, y2), track) in enumerate(zip(record.boxes.tolist(), tracks, strict=True)):
            extra = {} if track is None else {"track_id": track}
            yield Label(box_annotation((x1, y1, x2, y2), **extra), k, (x1, y1, x2, y2), None)


def mask_annotation(instance: Instance, size: tuple[int, int], **extra: Any) -> Annotation:
    """A COCO annotation with RLE, without ids."""
    x1, y1, x2, y2 = instance.box
    return {
        "category_id": 1, "iscrowd": 0, "bbox": [x1, y1, x2 - x1, y2 - y1], "area": instance.area,
        "segmentation": encode_instance(instance, size), **extra,
    }  # fmt: skip


def box_annotation(box: tuple[float, float, float, float], **extra: Any) -> Annotation:
    """A COCO annotation of a box alone, without ids: its segmentation is the rectangle, marked as derived."""
    x1, y1, x2, y2 = box
    return {
        "category_id": 1, "iscrowd": 0, "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1),
        "segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]], "segmentation_source": "box", **extra,
    }  # fmt: skip


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
