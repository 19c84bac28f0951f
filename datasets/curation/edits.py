"""What our operators do to labels in FiftyOne, each with its inverse in a log, so that it can be taken back.

An edit is a list of changes, one a label: as stored before and after. It is written to the log first and applied
label by label; taking it back puts the former labels where they were, unless somebody changed them since.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ...annotate.errors import IrstkitError
from ...annotate.files import GrayImage, read_image
from ...annotate.masks import Instance
from ...annotate.scr import measure_contrast
from . import changes, pixels, store
from .matching import DISTANCE, match_shapes
from .predictions import label_shape

LOGGED = 200
"""Edits that are remembered a data set; older ones cannot be taken back any more."""


@dataclass
class Edit:
    """Changes that belong together. ``done`` counts labels (or images), ``skipped`` those that could not be."""

    name: str
    changes: list[dict[str, Any]] = field(default_factory=list)
    values: list[dict[str, Any]] = field(default_factory=list)
    done: int = 0
    skipped: int = 0

    def replace(self, sample: dict[str, Any], old: dict[str, Any], new: dict[str, Any]) -> None:
        """A label in the place of another."""
        self._add(sample, old["_id"], old, new)

    def delete(self, sample: dict[str, Any], old: dict[str, Any]) -> None:
        """Remove a label."""
        self._add(sample, old["_id"], old, None)

    def insert(self, sample: dict[str, Any], new: dict[str, Any]) -> None:
        """A new label behind the others."""
        self._add(sample, new["_id"], None, new)

    def _add(self, sample: dict[str, Any], label: Any, before: Any, after: Any) -> None:
        place = [d["_id"] for d in changes.detections(sample)].index(label) if before else None
        self.changes.append(
            {"sample": sample["_id"], "label": label, "place": place, "before": before, "after": after}
        )


def commit(dataset: Any, edit: Edit) -> Edit:
    """Write the edit to the log and apply it."""
    if not edit.changes and not edit.values:
        return edit
    with store.database_errors(edit.name):
        log = store.edit_log(dataset)
        log.insert_one(
            {
                "name": edit.name,
                "time": datetime.now(UTC),
                "changes": edit.changes,
                "values": edit.values,
                "undone": False,
            }
        )
        old = [row["_id"] for row in log.find({}, {"_id": 1}).sort("_id", -1).skip(LOGGED)]
        if old:
            log.delete_many({"_id": {"$in": old}})
        for change in edit.changes:
            _put(dataset, change["sample"], change["label"], change["before"], change["after"], None)
        for value in edit.values:
            _set(dataset, value["sample"], {value["name"]: value["after"]})
        _count(dataset, {c["sample"] for c in edit.changes})
    return edit


def undo(dataset: Any) -> str:
    """Take back the last edit that was not taken back yet; its name.

    Raises
    ------
    IrstkitError
        When there is none, or one of its labels was changed since (nothing is done then).
    """
    with store.database_errors("taking an edit back"):
        log = store.edit_log(dataset)
        entry = log.find_one({"undone": False}, sort=[("_id", -1)])
        if entry is None:
            raise IrstkitError("there is no edit to take back")
        ids = {c["sample"] for c in entry["changes"]}
        rows = {
            row["_id"]: row
            for row in store.samples(dataset).find({"_id": {"$in": list(ids)}}, {store.FIELD: 1})
        }
        todo = []
        for change in entry["changes"]:
            now = next(
                (
                    d
                    for d in changes.detections(rows.get(change["sample"], {}))
                    if d["_id"] == change["label"]
                ),
                None,
            )
            if _equal(now, change["before"]):
                continue  # the edit was cut off before it came to this one
            if not _equal(now, change["after"]):
                raise IrstkitError(
                    f"a label of the last edit ({entry['name']}) was changed since",
                    hint="undo that change first",
                )
            todo.append(change)
        for change in reversed(todo):
            _put(
                dataset, change["sample"], change["label"], change["after"], change["before"], change["place"]
            )
        for value in entry["values"]:
            _set(dataset, value["sample"], {value["name"]: value["before"]})
        _count(dataset, ids)
        log.update_one({"_id": entry["_id"]}, {"$set": {"undone": True}})
    return str(entry["name"])


def _equal(a: dict[str, Any] | None, b: dict[str, Any] | None) -> bool:
    """Whether two stored labels are the same; None and missing are one, and so is what follows from others."""
    if a is None or b is None:
        return a is b

    def known(label: dict[str, Any]) -> dict[str, Any]:
        skipped = ("scr", "suspicion", "area", "side", "at_border")
        return {
            k: v for k, v in label.items() if v is not None and k not in skipped and not k.startswith("match")
        }

    return known(a) == known(b)


def _put(dataset: Any, sample: Any, label: Any, old: Any, new: Any, place: int | None) -> None:
    path = f"{store.FIELD}.detections"
    now = {"$currentDate": {"last_modified_at": True}}
    if old is not None and new is not None:
        store.samples(dataset).update_one(
            {"_id": sample, f"{path}._id": label}, {"$set": {f"{path}.$": new}, **now}
        )
    elif new is None:
        store.samples(dataset).update_one({"_id": sample}, {"$pull": {path: {"_id": label}}, **now})
    else:
        item: dict[str, Any] = {"$each": [new]}
        if place is not None:
            item["$position"] = place
        store.samples(dataset).update_one({"_id": sample}, {"$push": {path: item}, **now})


def _set(dataset: Any, sample: Any, values: dict[str, Any]) -> None:
    update = {"$set": values, "$currentDate": {"last_modified_at": True}}
    store.samples(dataset).update_one({"_id": sample}, update)


def _count(dataset: Any, ids: Iterable[Any]) -> None:
    rows = store.samples(dataset).find({"_id": {"$in": list(ids)}}, {f"{store.FIELD}.detections._id": 1})
    for row in rows:
        store.samples(dataset).update_one(
            {"_id": row["_id"]}, {"$set": {"targets": len(changes.detections(row))}}
        )


# ------------------------------------------------------------------------------------- finding labels


def find_samples(
    dataset: Any, labels: Iterable[str], name: str = store.FIELD
) -> list[tuple[dict, list[dict]]]:
    """``(sample, its labels among these ids)``, as stored, in the data set's order."""
    from bson import ObjectId

    wanted = {ObjectId(i) for i in labels}
    rows = store.samples(dataset).find({f"{name}.detections._id": {"$in": list(wanted)}}).sort("_id", 1)
    return [(row, [d for d in row[name]["detections"] if d["_id"] in wanted]) for row in rows]


class Frame:
    """The image of a sample and the pixels of its labels."""

    def __init__(self, sample: dict[str, Any]) -> None:
        self.sample, self.size = sample, changes.size_of(sample)
        self._image: GrayImage | None = None

    @property
    def image(self) -> GrayImage:
        """Read when it is asked for."""
        if self._image is None:
            self._image = read_image(Path(self.sample["filepath"]))
        return self._image

    def instance(self, label: dict[str, Any]) -> Instance | None:
        """A label's mask on whole pixels."""
        mask = store.unpack(label.get("mask"))
        box = changes.pixel_box(label["bounding_box"], self.size)
        return None if mask is None else pixels.snap_mask(mask, box, self.size)

    def others(self, *labels: dict[str, Any]) -> list[Instance]:
        """The pixels of the sample's other labels."""
        ids = {label["_id"] for label in labels}
        found = (self.instance(d) for d in changes.detections(self.sample) if d["_id"] not in ids)
        return [instance for instance in found if instance is not None]

    def with_mask(
        self, label: dict[str, Any], instance: Instance, *, keep_mask: bool = True
    ) -> dict[str, Any]:
        """A label with these pixels, and what follows from them."""
        x1, y1, x2, y2 = instance.box
        height, width = self.size
        contrast = measure_contrast(self.image, [instance, *self.others(label)])[0].scr
        new = {
            **label,
            "bounding_box": [x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height],
            "area": float(instance.area), "side": float(min(x2 - x1, y2 - y1)),
            "scr": None if contrast is None else abs(contrast),
            "at_border": x1 <= 0 or y1 <= 0 or x2 >= width or y2 >= height,
        }  # fmt: skip
        if keep_mask:
            new["mask"] = store.pack(instance.mask)
        return new


def rectangle(box: tuple[int, int, int, int]) -> Instance:
    """All pixels of a box."""
    return Instance(box, np.ones((box[3] - box[1], box[2] - box[0]), dtype=bool))


# ------------------------------------------------------------------------------------------- operators


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
        if k not in ("mask", "ann_id", "suspicion") and not k.startswith("match")
    }
    return {**kept, "_id": ObjectId(), "tags": []}
