"""Shards that irstkit wrote (``irstkit data export --to webdataset``), read where they lie, without unpacking.

A record's image is ``SHARD.tar/KEY.png``, a path that every reader of irstkit follows into the tar file. Opening
reads the headers and the JSON of every sample; pixels are read when they are asked for, a shard after another.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...annotate.boxes import as_boxes
from ...annotate.errors import IrstkitError
from ...annotate.files import inside
from ...annotate.tars import list_tar
from ..records import Dataset, Record
from ..shards import INDEX, read_index
from .coco_files import Targets, collect_targets
from .probe import Builder, Match, Probe

NAME = "webdataset"
STANDARD = ("file_name", "width", "height", "source", "scene", "sequence", "frame")


def match(probe: Probe) -> Match:
    """index.json beside tar files."""
    if INDEX not in probe.entries():
        return Match(False, f"no {INDEX}")
    tars = [name for name in probe.entries() if name.endswith(".tar")]
    if not tars:
        return Match(False, f"{INDEX} without .tar files")
    return Match(True, f"{INDEX} and {len(tars)} shards")


def read(probe: Probe) -> Dataset:
    """A record a sample, in the shards' order."""
    index = read_index(probe.root)
    builder = Builder(probe)
    seen: set[str] = set()
    for row in index["shards"]:
        read_shard(builder, row, seen)
    listed = {row["name"] for row in index["shards"]}
    for name in probe.entries():
        if name.endswith(".tar") and name not in listed:
            text = f"a shard that {INDEX} does not list"
            builder.find("error", "annotation-missing", text, probe.root / name)
    schemes = {scheme for record in builder.records for scheme in record.splits}
    default = index["scheme"] if index["scheme"] in schemes else None
    return Dataset(probe.root, NAME, tuple(builder.records), default, tuple(builder.findings))


def read_shard(builder: Builder, row: dict[str, Any], seen: set[str]) -> None:
    """Append the records of one shard; ``seen`` are the ids of those before.

    Raises
    ------
    IrstkitError
        When the shard is missing, damaged, or not the one that the index describes.
    """
    path = builder.probe.root / row["name"]
    listing = list_tar(path)
    if path.stat().st_size != row["bytes"]:
        raise IrstkitError(f"{path.stat().st_size} bytes, {INDEX} says {row['bytes']}", path=path)
    samples: dict[str, dict[str, tuple[int, int]]] = {}
    for name, place in listing.items():
        folder, slash, base = name.rpartition("/")
        key, _, suffix = base.partition(".")
        samples.setdefault(folder + slash + key, {})[suffix] = place
    if len(samples) != row["samples"]:
        raise IrstkitError(f"{len(samples)} samples, {INDEX} says {row['samples']}", path=path)
    with path.open("rb") as stream:
        for key, files in samples.items():
            where = path / f"{key}.json"
            if "json" not in files:
                raise IrstkitError(f"the sample {key!r} has no {key}.json", path=path)
            stream.seek(files["json"][0])
            try:
                about = json.loads(stream.read(files["json"][1]))
            except (ValueError, RecursionError) as error:
                raise IrstkitError(f"not valid JSON: {error}", path=where) from error
            record = _record(builder, path / key, where, about, seen)
            wanted = {"json", "png", "mask.png"} if about["mask"] else {"json", "png"}
            for suffix in sorted(wanted - set(files)):
                text = f"the sample {key!r} has no {key}.{suffix}"
                builder.find("error", f"{suffix.split('.')[0]}-missing", text, path, record=record.id)
            for suffix in sorted(set(files) - wanted):
                text = f"an unexpected member {key}.{suffix}"
                builder.find("error", "annotation", text, path, record=record.id)


def _record(builder: Builder, stem: Path, where: Path, about: Any, seen: set[str]) -> Record:
    """The record that a sample's JSON describes, appended."""
    entry = _checked(builder.probe.root, where, about)
    id = about["id"]
    if id in seen:
        raise IrstkitError(f"the id {id!r} is there twice", path=where, where="$.id")
    seen.add(id)
    labelled = about["annotations"] is not None
    coco = {"images": [{"id": 1}], "annotations": about["annotations"] or []}
    if not all(isinstance(a, dict) for a in coco["annotations"]):
        raise IrstkitError("expected a list of objects", path=where, where="$.annotations")
    coco["annotations"] = [{**a, "image_id": 1} for a in coco["annotations"]]
    found = collect_targets(builder, coco, where).get(1, Targets())
    frame = entry.get("frame")
    known = {k: v for k, v in entry.items() if k not in STANDARD}
    builder.records.append(
        Record(
            id=id,
            image=stem.with_name(f"{stem.name}.png"),
            mask=stem.with_name(f"{stem.name}.mask.png") if about["mask"] else None,
            boxes=as_boxes(found.boxes) if labelled else None,
            track_ids=found.track_ids(),
            size=(entry["height"], entry["width"]),
            bit_depth=about["bit_depth"],
            sequence=None if entry.get("sequence") is None else str(entry["sequence"]),
            frame=frame if isinstance(frame, int) else None,
            splits=dict(about["splits"]),
            source=entry["source"] if entry.get("source") in ("real", "synthetic") else "real",
            scene=entry["scene"] if isinstance(entry.get("scene"), str) else None,
            attributes={**known, **found.known()} if labelled else known,
        )
    )
    if labelled:
        builder.set_boxes(found.boxes, path=where)
    return builder.records[-1]


def _checked(root: Path, where: Path, about: Any) -> dict[str, Any]:
    """The image's entry of a sample's JSON, once all of it has the expected types."""

    def need(good: bool, key: str, expected: str) -> None:
        if not good:
            raise IrstkitError(f"expected {expected}", path=where, where=key)

    need(isinstance(about, dict), "$", "an object")
    need(isinstance(about.get("id"), str) and bool(about["id"]), "$.id", "a text")
    inside(root, about["id"])
    need(about.get("bit_depth") in (8, 16), "$.bit_depth", "8 or 16")
    need(isinstance(about.get("mask"), bool), "$.mask", "true or false")
    need(
        "annotations" in about and isinstance(about["annotations"], (list, type(None))),
        "$.annotations",
        "a list or null",
    )
    splits = about.get("splits")
    need(
        isinstance(splits, dict) and all(isinstance(v, str) for v in splits.values()),
        "$.splits",
        "{scheme: part}",
    )
    entry = about.get("image")
    need(isinstance(entry, dict), "$.image", "an object")
    for key in ("width", "height"):
        value = entry.get(key)
        need(type(value) is int and 0 < value < 1 << 20, f"$.image.{key}", "a whole number of pixels")
    return entry
