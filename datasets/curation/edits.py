"""What our operators do to labels in FiftyOne; each edit goes through the log and can be taken back (``log.undo``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...annotate.errors import IrstkitError
from . import changes, pixels, store
from .frames import Frame, find_samples, rectangle
from .log import Edit, commit
from .matching import DISTANCE, match_shapes
from .predictions import label_shape


def snap(dataset: Any, labels: Sequence[str]) -> Edit:
    """Masks and boxes to whole pixels; a label that is on them already stays as it is.

    A mask that was set aside comes back where the box is now; in a box of another size it is grown anew.
    """
    edit = Edit("snap to pixels")
    aside = store.masks_aside(dataset)
    for sample, found in find_samples(dataset, labels):
        frame = Frame(sample)
        base = store.baseline(dataset).find_one({"_id": f"{sample['set_name']}/{sample['record_id']}"}) or {}
        pushed = {row["id"]: row for row in base.get("labels", [])}
        for label in found:
            whole, regrow = changes.restore(
                label, pushed.get(str(label["_id"])), aside.get(label["_id"]), frame.size
            )
            regrow = regrow or changes.stretched(label, pushed.get(str(label["_id"])), frame.size)
            box = changes.pixel_box(whole["bounding_box"], frame.size)
            instance = (
                pixels.grow(frame.image, box, others=frame.others(label)) if regrow else frame.instance(whole)
            )
            if (regrow or whole.get("mask") is not None) and instance is None:
                edit.skipped += 1
                continue
            shape = instance or rectangle(pixels.snap_box(box, frame.size))
            near = max(abs(a - b) for a, b in zip(shape.box, box, strict=True)) < changes.SAME
            mask = store.unpack(label.get("mask"))
            same = store.hash_mask(mask) == (None if instance is None else store.hash_mask(shape.mask))
            if near and same:
                continue
            edit.replace(sample, label, frame.with_mask(label, shape, keep_mask=instance is not None))
            edit.done += 1
    return commit(dataset, edit)


def free(dataset: Any, labels: Sequence[str]) -> Edit:
    """Set masks aside, so that the App lets their boxes be moved and resized; ``snap`` and pull bring them back."""
    edit = Edit("move box")
    kept = []
    for sample, found in find_samples(dataset, labels):
        for label in found:
            if label.get("mask") is None:
                continue
            kept.append({"_id": label["_id"], "mask": label["mask"], "box": label["bounding_box"]})
            edit.replace(sample, label, {k: v for k, v in label.items() if k != "mask"})
            edit.done += 1
    with store.database_errors(edit.name):
        store.put_all(store.aside(dataset), kept)
    return commit(dataset, edit)


def mask_from_box(dataset: Any, labels: Sequence[str]) -> Edit:
    """Grow each label's mask anew inside its box; the box becomes the mask's."""
    edit = Edit("mask from box")
    for sample, found in find_samples(dataset, labels):
        frame = Frame(sample)
        for label in found:
            box = changes.pixel_box(label["bounding_box"], frame.size)
            instance = pixels.grow(frame.image, box, others=frame.others(label))
            if instance is None:
                edit.skipped += 1
                continue
            edit.replace(sample, label, frame.with_mask(label, instance))
            edit.done += 1
    return commit(dataset, edit)


def box_from_mask(dataset: Any, labels: Sequence[str]) -> Edit:
    """Each label's box becomes its mask's; labels without mask are skipped."""
    edit = Edit("box from mask")
    for sample, found in find_samples(dataset, labels):
        frame = Frame(sample)
        for label in found:
            instance = frame.instance(label)
            if instance is None:
                edit.skipped += 1
                continue
            new = frame.with_mask(label, instance)
            if new["bounding_box"] != label["bounding_box"]:
                edit.replace(sample, label, new)
                edit.done += 1
    return commit(dataset, edit)


def split(dataset: Any, labels: Sequence[str]) -> Edit:
    """Each label becomes its parts (see ``pixels.split``): the first takes its place, the others are new."""
    edit = Edit("split")
    for sample, found in find_samples(dataset, labels):
        frame = Frame(sample)
        for label in found:
            instance = frame.instance(label)
            parts = [] if instance is None else pixels.split(instance)
            if len(parts) < 2:
                edit.skipped += 1
                continue
            edit.replace(sample, label, frame.with_mask(label, parts[0]))
            for part in parts[1:]:
                edit.insert(sample, frame.with_mask(_copy(label), part))
            edit.done += 1
    return commit(dataset, edit)


def merge(dataset: Any, labels: Sequence[str]) -> Edit:
    """The labels of each image become one: the first, with all their pixels."""
    edit = Edit("merge")
    for sample, found in find_samples(dataset, labels):
        frame = Frame(sample)
        instances = [frame.instance(label) for label in found]
        if len(found) < 2 or any(i is None for i in instances):
            edit.skipped += len(found)
            continue
        whole = pixels.merge([i for i in instances if i is not None], frame.size)
        assert whole is not None
        edit.replace(sample, found[0], frame.with_mask(found[0], whole))
        for label in found[1:]:
            edit.delete(sample, label)
        edit.done += len(found)
    return commit(dataset, edit)


def accept(dataset: Any, predictions: Sequence[str], name: str) -> Edit:
    """Predictions of the field ``name`` become labels; where a label lies closer than 3 pixels, none is made."""
    edit = Edit("accept predictions")
    for sample, found in find_samples(dataset, predictions, name):
        frame = Frame(sample)
        taken = [label_shape(d, frame.size) for d in changes.detections(sample)]
        for prediction in found:
            shape = label_shape(prediction, frame.size)
            if match_shapes([shape], taken, distance=DISTANCE):
                edit.skipped += 1
                continue
            taken.append(shape)
            label = store.detection_document(list(prediction["bounding_box"]), None, {})
            box = pixels.snap_box(changes.pixel_box(prediction["bounding_box"], frame.size), frame.size)
            instance = shape.instance or pixels.grow(frame.image, shape.box, others=frame.others())
            label = frame.with_mask(label, instance or rectangle(box), keep_mask=instance is not None)
            label["tags"] = ["accepted"]
            edit.insert(sample, label)
            edit.done += 1
    return commit(dataset, edit)


def delete_below(
    dataset: Any, labels: Sequence[str], *, area: float | None = None, scr: float | None = None
) -> Edit:
    """Delete those of ``labels`` with fewer pixels than ``area`` or a lower SCR than ``scr``.

    A label whose SCR is undefined is never deleted for it.
    """
    edit = Edit("delete below")
    for sample, found in find_samples(dataset, labels):
        for label in found:
            small = area is not None and label.get("area") is not None and label["area"] < area
            faint = scr is not None and label.get("scr") is not None and label["scr"] < scr
            if small or faint:
                edit.delete(sample, label)
                edit.done += 1
    return commit(dataset, edit)


def carry(dataset: Any, label_id: str, *, frames: int = 10) -> Edit:
    """Carry a label along its sequence, frame by frame, by local correlation; ends where the target is lost.

    Frames that have a label closer than 3 pixels to where it is found are passed over.

    Raises
    ------
    IrstkitError
        When the label is in no sequence.
    """
    edit = Edit("carry along the sequence")
    ((sample, (label, *_)),) = find_samples(dataset, [label_id])
    if sample.get("sequence_id") is None or sample.get("frame_number") is None:
        raise IrstkitError("this image is in no sequence")
    wanted = {
        "set_name": sample["set_name"], "sequence_id": sample["sequence_id"],
        "frame_number": {"$gt": sample["frame_number"]},
    }  # fmt: skip
    rows = list(store.samples(dataset).find(wanted).sort("frame_number", 1).limit(frames))
    later = [Frame(row) for row in rows]
    first = Frame(sample)
    box = changes.pixel_box(label["bounding_box"], first.size)
    found = pixels.follow(first.image, box, [frame.image for frame in later])
    for frame, (place, _) in zip(later, found, strict=False):
        new = _copy(label)
        shape = rectangle(place)
        instance = None
        if label.get("mask") is not None:
            wide = (place[0] - 1.0, place[1] - 1.0, place[2] + 1.0, place[3] + 1.0)
            instance = pixels.grow(frame.image, wide, others=frame.others())
        new = frame.with_mask(new, instance or shape, keep_mask=instance is not None)
        taken = [label_shape(d, frame.size) for d in changes.detections(frame.sample)]
        if match_shapes([label_shape(new, frame.size)], taken):
            edit.skipped += 1
            continue
        edit.insert(frame.sample, new)
        edit.done += 1
    return commit(dataset, edit)


def review(dataset: Any, samples: Sequence[str], *, reviewed: bool = True) -> Edit:
    """Mark images as reviewed, or as not."""
    from bson import ObjectId

    edit = Edit("mark reviewed" if reviewed else "mark not reviewed")
    rows = store.samples(dataset).find({"_id": {"$in": [ObjectId(i) for i in samples]}}, {"reviewed": 1})
    for row in rows:
        if bool(row.get("reviewed")) != reviewed:
            edit.values.append(
                {"sample": row["_id"], "name": "reviewed", "before": row.get("reviewed"), "after": reviewed}
            )
            edit.done += 1
    return commit(dataset, edit)


def _copy(label: dict[str, Any]) -> dict[str, Any]:
    """A new label with the attributes of another: not its identity, its file's number or its match."""
    from bson import ObjectId

    kept = {
        k: v
        for k, v in label.items()
        if k not in ("mask", "ann_id", "suspicion", "doubt") and not k.startswith("match")
    }
    return {**kept, "_id": ObjectId(), "tags": []}
