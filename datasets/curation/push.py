"""Push data sets into FiftyOne; push again and only what changed is written.

Per image a baseline document is written before its sample, so that whatever a killed run left is either a sample
with its baseline or no sample at all; the next push finds the latter and adds them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...annotate.console import note, progress
from ...annotate.errors import IrstkitError
from ..service import load
from . import changes, fields, store, views
from .loading import Loaded, Loader
from .sources import Entry, Source

BATCH = 500
MAX_TWINS = 20_000


@dataclass
class Pushed:
    """What a push did, in images; ``kept`` were edited in FiftyOne and changed on disk: left as edited."""

    name: str
    images: int = 0
    added: int = 0
    changed: int = 0
    removed: int = 0
    unchanged: int = 0
    kept: int = 0
    labels: int = 0
    views: list[str] = field(default_factory=list)
    predictions: dict[str, dict[str, int]] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """For people."""
        parts = [
            f"{getattr(self, k)} {k}"
            for k in ("added", "changed", "removed", "unchanged")
            if getattr(self, k)
        ]
        out = [
            f"{self.name}: {self.images} images, {self.labels} labels ({', '.join(parts) or 'nothing new'})"
        ]
        if self.kept:
            out.append(
                f"{self.kept} images were edited in FiftyOne and changed on disk as well: left as edited "
                "(data pull --apply first, or --replace to take what is on disk)"
            )
        for name, row in self.predictions.items():
            out.append(
                f"{name}: {row['hits']} hits, {row['misses']} misses, {row['false_alarms']} false alarms "
                f"(centroids closer than {row['distance']} pixels)"
                + (f", {row['maps']} probability maps" if row.get("maps") else "")
            )
        return out


def push(
    sources: list[Source], name: str, *, replace: bool = False, workers: int = 2
) -> tuple[Any, Pushed, bool]:
    """Bring the sources' images and labels into the FiftyOne data set ``name``.

    Returns
    -------
    The data set, what was done, and whether anything was.

    Raises
    ------
    IrstkitError
        When the name belongs to something else, a file cannot be read, or the database is lost.
    """
    with store.database_errors("pushing"):
        store.sweep()
        dataset = _open(name)
        was_whole = bool(dataset.info[store.INFO].get("complete"))
        _remember(dataset, sources)
        types = _declare(dataset, sources)
        result = Pushed(name)
        before = _present(dataset)
        for source in sources:
            _push_source(dataset, source, types, before, result, replace=replace, workers=workers)
        touched = bool(result.added or result.changed or result.removed)
        if touched:
            _twins(dataset)
        result.images = dataset.count()
        result.labels = dataset.count(f"{store.FIELD}.detections")
        if touched or not was_whole:
            views.configure(dataset, sorted(types))
    return dataset, result, touched


def finish(dataset: Any) -> None:
    """Mark the push as whole: from now on the labels can be pulled."""
    info = dict(dataset.info[store.INFO])
    info["complete"] = True
    dataset.info[store.INFO] = info
    dataset.save()


def _open(name: str) -> Any:
    fo = load()
    if name in fo.list_datasets():
        dataset = fo.load_dataset(name)
        if store.INFO in (dataset.info or {}):
            return dataset
        if dataset.count():
            raise IrstkitError(
                f"FiftyOne has a data set {name!r} that irstkit did not make", hint="choose another --name"
            )
    else:
        dataset = fo.Dataset(name)
    if dataset.media_type is None:  # new, or its making was cut off here
        dataset.media_type = "image"
    dataset.persistent = True
    dataset.info[store.INFO] = {"sources": {}, "complete": False, "types": {}}
    dataset.save()
    return dataset


def _remember(dataset: Any, sources: list[Source]) -> None:
    """Write down the sources, and that a push is under way."""
    info = dict(dataset.info[store.INFO])
    known = dict(info["sources"])
    for source in sources:
        known[source.name] = source.as_dict()
    dataset.info[store.INFO] = {**info, "sources": known, "complete": False}
    dataset.save()


def _declare(dataset: Any, sources: list[Source]) -> dict[str, str]:
    """Fields first: inserting then needs no look at every sample. Returns the types of label attributes."""
    fo = load()
    kinds = {"str": fo.StringField, "int": fo.IntField, "float": fo.FloatField, "bool": fo.BooleanField}
    old = dict(dataset.info[store.INFO].get("types", {}))
    types = fields.attribute_types(sources)
    for name, kind in types.items():
        known = old.get(name, kind)
        if known != kind and {known, kind} != {"int", "float"}:
            raise IrstkitError(
                f"the label attribute {name!r} is {kind} here and {known} in the data set of this name",
                hint="push it under another --name",
            )
        types[name] = known
    types = {**old, **types}
    schema = dataset.get_field_schema(flat=True)
    for name, kind in fields.SAMPLE_FIELDS.items():
        if name not in schema:
            dataset.add_sample_field(name, kinds[kind])
    if store.FIELD not in schema:
        dataset.add_sample_field(store.FIELD, fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    for name, kind in {**fields.DERIVED, **types}.items():
        path = f"{store.FIELD}.detections.{name}"
        if path not in schema:
            dataset.add_sample_field(path, kinds[kind])
    dataset.info[store.INFO] = {**dataset.info[store.INFO], "types": types}
    dataset.save()
    return types


def _present(dataset: Any) -> dict[str, Any]:
    """``{key: sample id}`` of the samples there are."""
    rows = store.samples(dataset).find({}, {"set_name": 1, "record_id": 1})
    return {f"{r['set_name']}/{r['record_id']}": r["_id"] for r in rows}


def _push_source(
    dataset: Any, source: Source, types: dict[str, str], present: dict[str, Any], result: Pushed,
    *, replace: bool, workers: int,
) -> None:  # fmt: skip
    collection = store.baseline(dataset)
    known = {d["_id"]: d["fp"] for d in collection.find({"set": source.name}, {"fp": 1})}
    new, changed, unused = [], [], []
    for entry in source.entries:
        if entry.record is None:
            unused.append(entry)
        elif entry.key not in known or entry.key not in present:
            new.append(entry)
        elif known[entry.key] != entry.fingerprint():
            changed.append(entry)
        else:
            result.unchanged += 1
    clean, edited = _unedited(dataset, [e.key for e in changed], present, replace=replace)
    result.kept += len(edited)
    changed = [e for e in changed if e.key in clean]
    absent, edited = _unedited(
        dataset, sorted(set(known) - {e.key for e in source.entries}), present, replace=replace
    )
    result.kept += len(edited)
    store.reposition(collection, source.name, source.entries)
    store.put_all(collection, (_carried(source, e) for e in unused if known.get(e.key) != e.fingerprint()))
    loader = Loader(source, _previews(dataset) / source.name)
    todo = new + changed
    replaced = {e.key for e in changed}
    with progress(f"pushing {source.name}", len(todo)) as bar:
        batch: list[Loaded] = []
        for loaded in loader.load_all(todo, workers=workers):
            batch.append(loaded)
            if len(batch) == BATCH:
                _write(dataset, source, batch, types, present, replaced)
                bar.advance(len(batch))
                batch = []
        _write(dataset, source, batch, types, present, replaced)
        bar.advance(len(batch))
    gone = sorted(absent)
    if gone:
        dataset.delete_samples([str(present[key]) for key in gone if key in present])
        collection.delete_many({"_id": {"$in": gone}})
    result.added += len(new)
    result.changed += len(changed)
    result.removed += sum(key in present for key in gone)


def _unedited(
    dataset: Any, keys: list[str], present: dict[str, Any], *, replace: bool
) -> tuple[set[str], set[str]]:
    """(those of ``keys`` whose labels nobody touched in FiftyOne, the others)."""
    if replace or not keys:
        return set(keys), set()
    bases = {d["_id"]: d for d in store.baseline(dataset).find({"_id": {"$in": keys}})}
    ids = [present[key] for key in keys if key in present]
    found = {s["_id"]: s for s in store.samples(dataset).find({"_id": {"$in": ids}})}
    aside = store.masks_aside(dataset)
    edited = {
        key for key in keys if key in present and changes.edited(bases[key], found[present[key]], aside)
    }
    return set(keys) - edited, edited


def _previews(dataset: Any) -> Path:
    return Path(load().config.default_dataset_dir) / "irstkit-previews" / store.key_of(dataset)


def _carried(source: Source, entry: Entry) -> dict[str, Any]:
    """The baseline of an image that cannot be used: only carried along to the file that is pulled."""
    labels = [
        {"pos": p, "json": _json(a)} for p, a in zip(entry.positions, entry.annotations or (), strict=True)
    ]
    return {
        "_id": entry.key, "set": source.name, "order": entry.order, "fp": entry.fingerprint(), "at": entry.place(),
        "image": _json(entry.image), "labels": labels, "unused": True,
    }  # fmt: skip


def _write(
    dataset: Any, source: Source, batch: list[Loaded], types: dict[str, str], present: dict[str, Any],
    replaced: set[str],
) -> None:  # fmt: skip
    if not batch:
        return
    made = [sample_document(source, loaded, types) for loaded in batch]
    old = [str(present[loaded.entry.key]) for loaded in batch if loaded.entry.key in replaced]
    if old:
        dataset.delete_samples(old)
    store.put_all(store.baseline(dataset), (base for _, base in made))
    store.insert_samples(dataset, [document for document, _ in made])


def sample_document(
    source: Source, loaded: Loaded, types: dict[str, str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the sample as FiftyOne stores it, its baseline document)."""
    record, entry = loaded.entry.record, loaded.entry
    assert record is not None
    height, width = record.size
    detections, states = [], []
    for label, scr in zip(loaded.labels, loaded.scr, strict=True):
        x1, y1, x2, y2 = label.box if label.instance is None else label.instance.box
        mask = None if label.instance is None else label.instance.mask
        packed = store.pack(mask)
        box = [x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height]
        given = {n: fields.stored_value(v, types[n]) for n, v in _known(label.annotation, types)}
        derived = {
            "area": float((x2 - x1) * (y2 - y1) if label.instance is None else label.instance.area),
            "side": float(min(x2 - x1, y2 - y1)),
            "scr": None if scr is None else float(scr),
            "at_border": bool(x1 <= 0 or y1 <= 0 or x2 >= width or y2 >= height),
            "ann_id": _whole(label.annotation.get("id")),
        }
        detections.append(store.detection_document(box, packed, {**derived, **given}))
        states.append(
            {
                "id": str(detections[-1]["_id"]), "pos": label.position, "json": _json(label.annotation),
                "box": box, "mask": store.hash_mask(mask), "bytes": store.hash_bytes(packed), "attrs": given,
            }
        )  # fmt: skip
    scheme = source.default_scheme
    scrs = [s for s in loaded.scr if s is not None]
    document = {
        "filepath": str(loaded.file),
        "preview": str(loaded.preview),
        "tags": [f"{s}/{p}" for s, p in sorted(record.splits.items())],
        "metadata": {"_cls": "ImageMetadata", "width": width, "height": height, "num_channels": 1},
        "record_id": record.id,
        "set_name": source.name,
        "source": record.source,
        "scene": record.scene,
        "sequence_id": record.sequence,
        "frame_number": record.frame,
        "split": record.splits.get(scheme) if scheme else None,
        "targets": len(detections),
        "scr_min": float(min(scrs)) if scrs else None,
        "side_min": min((d["side"] for d in detections), default=None),
        "at_border": any(d["at_border"] for d in detections),
        "reviewed": False,
        store.FIELD: {"_cls": "Detections", "detections": detections},
    }
    base = {
        "_id": entry.key, "set": source.name, "order": entry.order, "fp": entry.fingerprint(), "at": entry.place(),
        "image": _json(entry.image), "labels": states, "splits": dict(record.splits),
        "mask": None if record.mask is None else str(record.mask.absolute()),
    }  # fmt: skip
    if loaded.thumb is not None:
        base["thumb"] = loaded.thumb
    return document, base


def _known(annotation: dict[str, Any], types: dict[str, str]) -> list[tuple[str, Any]]:
    return [(n, v) for n, v in fields.attributes_of(annotation) if n in types and v is not None]


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _twins(dataset: Any) -> None:
    """Groups of near-identical images, and whether a group lies in two parts of one scheme."""
    from ..twins import SIDE, twin_groups_of

    rows = list(store.baseline(dataset).find({"thumb": {"$exists": True}}, {"thumb": 1, "splits": 1}))
    if len(rows) < 2:
        return
    if len(rows) > MAX_TWINS:
        note(f"twins are looked for in sets of at most {MAX_TWINS} images, here are {len(rows)}: not done")
        return
    vectors = np.frombuffer(b"".join(bytes(r["thumb"]) for r in rows), np.float32).reshape(-1, SIDE * SIDE)
    groups = twin_groups_of(vectors.astype(np.float64))
    members: dict[int, list[dict[str, Any]]] = {}
    for group, row in zip(groups, rows, strict=True):
        members.setdefault(group, []).append(row)
    present = _present(dataset)
    number: dict[str, int | None] = {}
    across: dict[str, bool] = {}
    for k, found in members.items():
        if len(found) < 2:
            continue
        schemes = {s for r in found for s in r["splits"]}
        apart = any(len({r["splits"][s] for r in found if s in r["splits"]}) > 1 for s in schemes)
        for row in found:
            if row["_id"] in present:
                sample_id = str(present[row["_id"]])
                number[sample_id], across[sample_id] = k, apart
    ids = dataset.values("id")
    dataset.set_values("twin_group", [number.get(i) for i in ids])
    dataset.set_values("twins_across_splits", [across.get(i, False) for i in ids])
