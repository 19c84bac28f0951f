"""The targets of a record with everything known of them: pixels where there are any, box, label keys."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from ..annotate.errors import IrstkitError
from ..annotate.masks import Instance, mask_to_instances
from ..annotate.polygons import polygons_to_instance
from ..annotate.rle import rle_to_instance
from .records import Record

STANDARD = ("id", "image_id", "category_id", "iscrowd", "bbox", "area", "segmentation", "segmentation_source")


@dataclass(frozen=True, eq=False)
class Target:
    """One target: half-open xyxy ``box``, its pixels or None, and further keys of its annotation."""

    box: tuple[float, float, float, float]
    instance: Instance | None = None
    extra: dict[str, Any] = field(default_factory=dict)


def targets_of(record: Record) -> list[Target] | None:
    """The targets of a record; None when it is not labelled at all.

    From its COCO annotations where it has them (``attributes["annotations"]``: RLE or polygons, every further
    key kept); else the mask's 8-connected components, each with the track id of the label box that is its
    own; else the boxes alone.

    Raises
    ------
    IrstkitError
        When the mask cannot be read or a segmentation cannot be decoded.
    """
    annotations = record.attributes.get("annotations")
    if annotations is not None:
        found = [_from_annotation(record, a) for a in annotations]
        targets = [t for t in found if t is not None]
        if record.mask is None or all(t.instance is not None for t in targets):
            return targets
        known = {t.box: t.extra for t in targets}
    else:
        boxes = [] if record.boxes is None else record.boxes.tolist()
        tracks = record.track_ids or ()
        known = {tuple(b): {"track_id": t} for b, t in zip(boxes, tracks, strict=False)}
    if record.mask is not None:
        out = []
        for instance in mask_to_instances(record.read_mask()):
            x1, y1, x2, y2 = (float(v) for v in instance.box)
            box = (x1, y1, x2, y2)
            out.append(Target(box, instance, known.get(box, {})))
        return out
    if record.boxes is None:
        return None
    return [Target((b[0], b[1], b[2], b[3]), None, known.get(tuple(b), {})) for b in record.boxes.tolist()]


def _from_annotation(record: Record, annotation: dict[str, Any]) -> Target | None:
    """None where nothing of the box lies in the image (the reader has listed it)."""
    extra = {key: value for key, value in annotation.items() if key not in STANDARD}
    segmentation = annotation.get("segmentation")
    instance = None
    if segmentation and annotation.get("segmentation_source") != "box":
        instance = _instance(record, segmentation)
    if instance is not None:
        x1, y1, x2, y2 = (float(v) for v in instance.box)
        return Target((x1, y1, x2, y2), instance, extra)
    x, y, w, h = (float(v) for v in annotation["bbox"])
    height, width = record.size
    box = (max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height)))
    return Target(box, None, extra) if box[0] < box[2] and box[1] < box[3] else None


def _instance(record: Record, segmentation: Any) -> Instance | None:
    where = f"annotation of {record.id}"
    if isinstance(segmentation, dict):
        try:
            instance = rle_to_instance(segmentation)
        except ValueError as error:
            raise IrstkitError(str(error), path=record.image, where=where) from error
        if tuple(segmentation["size"]) != record.size:
            text = f"the RLE is of an image of {segmentation['size']}, this one is {list(record.size)}"
            raise IrstkitError(text, path=record.image, where=where)
        return instance
    if segmentation == [[]]:  # SSTNet's box-only files
        return None
    if not isinstance(segmentation, list) or not all(_is_numbers(p) for p in segmentation):
        raise IrstkitError("the segmentation is neither an RLE nor polygons", path=record.image, where=where)
    try:
        return polygons_to_instance(segmentation, record.size)
    except ValueError as error:
        raise IrstkitError(str(error), path=record.image, where=where) from error


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, (int, float)) and math.isfinite(v) for v in value)
