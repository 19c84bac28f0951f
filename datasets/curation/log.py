"""The log of our operators' edits: each is written down with its inverse before it is applied, and can be taken back.

An edit is a list of changes, one a label: as stored before and after. It is applied label by label; taking it back
puts the former labels where they were, unless somebody changed them since.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ...annotate.errors import IrstkitError
from . import changes, store

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
        skipped = ("scr", "suspicion", "doubt", "area", "side", "at_border")
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
