"""Data sets as WebDataset shards: tar files of so many samples, for training from disks that hate small files.

    SHARDS/
      train-000000.tar   KEY.png (as it is, or gray), KEY.mask.png (0 or 255), KEY.json; KEY.* of a sample side by side
      ...
      index.json         the shards in order with samples, bytes and sha256, the split scheme; written last

KEY is the record's id below images/ with the dots of its last part made dashes, since WebDataset's keys end at the
first dot. The JSON holds everything that annotations.json says of the image, its annotations included, so that a data
set comes back equal. Same data set, same bytes, on any machine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..annotate.coco import add_box, add_image, add_instance, new_coco
from ..annotate.console import progress
from ..annotate.decode import check_bytes
from ..annotate.errors import IrstkitError
from ..annotate.files import atomic_path, encode_png, natural_key, read_bytes, read_json, write_json
from ..annotate.masks import instances_to_mask
from ..annotate.tars import write_tar
from .records import Dataset, Record, split_hash
from .targets import targets_of
from .write import ordered

FORMAT = "irstkit webdataset 1"
INDEX = "index.json"
PLAN = ".export.json"
PNG = b"\x89PNG\r\n\x1a\n"
KEPT = ("sequence", "frame", "scene")


@dataclass
class Sharded:
    """Counts of an export."""

    images: int = 0
    targets: int = 0
    shards: int = 0
    bytes: int = 0


def key_of(record: Record) -> str:
    """The name of a sample in its shard."""
    folder, slash, name = record.id.removeprefix("images/").rpartition("/")
    return folder + slash + name.replace(".", "-")


def members(record: Record) -> tuple[list[tuple[str, bytes]], int]:
    """The files of a sample, and its number of targets.

    Raises
    ------
    IrstkitError
        When its image, mask or annotations cannot be read.
    """
    key = key_of(record)
    about, targets = _describe(record)
    data = b"" if record.video_frame is not None else read_bytes(record.image)
    if data.startswith(PNG):
        check_bytes(data, record.image)
    else:
        data = encode_png(record.read_image())
    out = [(f"{key}.png", data)]
    if record.mask is not None:
        mask = record.read_mask()
    elif targets and all(t.instance is not None for t in targets):
        mask = instances_to_mask([t.instance for t in targets if t.instance], record.size)
    else:
        mask = None
    about["mask"] = mask is not None
    if mask is not None:
        out.append((f"{key}.mask.png", encode_png(mask.astype(np.uint8) * 255)))
    try:
        text = json.dumps(about, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise IrstkitError(
            f"something known of {record.id!r} cannot be written as JSON: {error}", path=record.image
        ) from error
    out.append((f"{key}.json", text.encode()))
    return out, len(targets or ())


def _describe(record: Record) -> tuple[dict[str, Any], list[Any] | None]:
    """What the JSON says, and the targets (None: not labelled)."""
    extra: dict[str, Any] = {"source": record.source}
    extra.update({k: getattr(record, k) for k in KEPT if getattr(record, k) is not None})
    extra.update(
        {k: v for k, v in record.attributes.items() if k not in ("targets", "annotations", "mask_size")}
    )
    coco = new_coco()
    name = record.id.removeprefix("images/")
    add_image(coco, f"images/{name}.png", record.size, **extra)
    targets = targets_of(record)
    if record.attributes.get("annotations") is not None:
        annotations = [
            {k: v for k, v in a.items() if k not in ("id", "image_id")}
            for a in record.attributes["annotations"]
        ]
    else:
        for target in targets or ():
            if target.instance is None:
                add_box(coco, 1, target.box, **target.extra)
            else:
                add_instance(coco, 1, target.instance, record.size, **target.extra)
        annotations = [
            {k: v for k, v in a.items() if k not in ("id", "image_id")} for a in coco["annotations"]
        ]
    image = {k: v for k, v in coco["images"][0].items() if k != "id"}
    about = {
        "id": record.id, "bit_depth": record.bit_depth, "splits": dict(record.splits), "image": image,
        "annotations": annotations if targets is not None else None,
    }  # fmt: skip
    return about, targets


def export_shards(
    dataset: Dataset, out: str | Path, *, scheme: str | None = None, size: int = 1000, overwrite: bool = False
) -> Sharded:
    """Write a data set as shards of ``size`` samples, the parts of a split scheme apart.

    A run that was killed and is run again trusts the whole shards that are there and ends with the same bytes.

    Parameters
    ----------
    scheme
        The split scheme whose parts get shards of their own (default: the data set's); images in none of its
        parts are left out. Without any scheme everything is the part ``all``.

    Raises
    ------
    IrstkitError
        When something cannot be read, two keys are equal, or ``out`` holds something else.
    """
    if size < 1:
        raise IrstkitError(f"a shard holds at least 1 sample, got {size}")
    root = Path(out)
    scheme = scheme or dataset.default_scheme
    if scheme is not None and scheme not in dataset.schemes():
        known = ", ".join(dataset.schemes()) or "none"
        raise IrstkitError(f"no split scheme {scheme!r} here", path=dataset.root, hint=f"there are: {known}")
    chosen = [r for r in dataset.records if scheme is None or scheme in r.splits]
    dataset.require_clean(chosen)
    _check_keys(chosen)
    parts: dict[str, list[Record]] = {}
    for record in chosen:
        parts.setdefault("all" if scheme is None else record.splits[scheme], []).append(record)
    shards = [
        (f"{part}-{k // size:06d}", part, records[k : k + size])
        for part, records in parts.items()
        for k in range(0, len(records), size)
    ]
    _claim(root, shards, scheme, size, overwrite)
    done = Sharded()
    rows = []
    with progress("writing", len(chosen)) as bar:
        for name, part, records in shards:
            row = _trusted(root, name, len(records))
            if row is None:
                row = _write(root, name, part, records)
            rows.append(row)
            bar.advance(len(records), f"{done.bytes / 2**20:.0f} MiB")
            done.images += len(records)
            done.targets += row["targets"]
            done.bytes += row["bytes"]
    done.shards = len(rows)
    index = {
        "format": FORMAT, "name": dataset.root.resolve().name, "scheme": scheme, "samples": len(chosen),
        "ids": split_hash(r.id for r in chosen), "shards": rows,
    }  # fmt: skip
    write_json(root / INDEX, index, indent=1)
    for name, _, _ in shards:
        (root / f".{name}.json").unlink(missing_ok=True)
    (root / PLAN).unlink(missing_ok=True)
    return done


def _check_keys(records: Sequence[Record]) -> None:
    changed = {key_of(r) for r in records if "." in r.id.rpartition("/")[2]}
    if not changed:
        return
    seen: dict[str, str] = {}
    for record in records:
        key = key_of(record)
        if key in changed and key in seen:
            raise IrstkitError(f"the images {seen[key]!r} and {record.id!r} would have one key, {key!r}")
        seen[key] = record.id


def _claim(
    root: Path, shards: list[tuple[str, str, list[Record]]], scheme: str | None, size: int, overwrite: bool
) -> None:
    """Make the folder this export's own, or refuse it."""
    digest = hashlib.sha256()
    for name, _, records in shards:
        for r in records:
            files = [p.stat().st_size if p and p.is_file() else 0 for p in (r.image, r.mask)]
            digest.update(f"{name} {r.id} {files} {r.video_frame}".encode())
            digest.update(repr(r.attributes.get("annotations", r.boxes)).encode())
    plan = {"format": FORMAT, "scheme": scheme, "size": size, "digest": digest.hexdigest()}
    if root.exists() and not root.is_dir():
        raise IrstkitError("is a file, a folder was expected", path=root)
    if root.is_dir() and any(root.iterdir()):
        if (root / INDEX).is_file():
            if not overwrite:
                raise IrstkitError("the output exists already", path=root, hint="--overwrite replaces it")
            for row in read_index(root)["shards"]:
                (root / row["name"]).unlink(missing_ok=True)
            (root / INDEX).unlink()
        elif not (root / PLAN).is_file():
            raise IrstkitError("the folder is not empty", path=root, hint="choose another --out")
        elif read_json(root / PLAN) != plan:
            raise IrstkitError(
                "here lies the beginning of another export: another data set, scheme or shard size",
                path=root,
                hint="choose another --out, or remove the folder",
            )
        for left in root.iterdir():  # what a killed run was writing
            if left.name.startswith(("..", ".index-")) or (left.name[0] == "." and left.suffix == ".tar"):
                left.unlink()
    write_json(root / PLAN, plan)


def _trusted(root: Path, name: str, samples: int) -> dict[str, Any] | None:
    """The row of a shard that an earlier run wrote whole."""
    tar, known = root / f"{name}.tar", root / f".{name}.json"
    if not tar.is_file() or not known.is_file():
        return None
    row = read_json(known)
    if row.get("samples") != samples or row.get("bytes") != tar.stat().st_size:
        return None
    return row


def _write(root: Path, name: str, part: str, records: list[Record]) -> dict[str, Any]:
    targets = 0

    def files() -> Iterator[tuple[str, bytes]]:
        nonlocal targets
        for found, number in ordered(members, records):
            targets += number
            yield from found

    path = root / f"{name}.tar"
    with atomic_path(path) as temporary:
        size = write_tar(temporary, files())
        with temporary.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    row = {
        "name": path.name, "part": part, "samples": len(records), "targets": targets, "bytes": size,
        "sha256": digest,
    }  # fmt: skip
    write_json(root / f".{name}.json", row)
    return row


def read_index(root: Path) -> dict[str, Any]:
    """index.json, checked.

    Raises
    ------
    IrstkitError
        Naming the place in it that is not as irstkit writes it.
    """
    path = root / INDEX
    index = read_json(path)
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise IrstkitError(f"not an index of shards (format {FORMAT!r} expected)", path=path)
    if not isinstance(index.get("shards"), list) or not index["shards"]:
        raise IrstkitError("no list of shards", path=path, where="$.shards")
    for k, row in enumerate(index["shards"]):
        where = f"$.shards[{k}]"
        if not isinstance(row, dict):
            raise IrstkitError("expected an object", path=path, where=where)
        name = row.get("name")
        if not isinstance(name, str) or not name.endswith(".tar") or Path(name).name != name:
            raise IrstkitError(
                f"a file name ending in .tar was expected, got {name!r}", path=path, where=f"{where}.name"
            )
        if not isinstance(row.get("part"), str):
            raise IrstkitError("expected a text", path=path, where=f"{where}.part")
        for key in ("samples", "bytes"):
            if not isinstance(row.get(key), int) or isinstance(row[key], bool) or row[key] < 0:
                raise IrstkitError("expected a whole number", path=path, where=f"{where}.{key}")
    if index.get("samples") != sum(row["samples"] for row in index["shards"]):
        raise IrstkitError("is not the sum of the shards' samples", path=path, where="$.samples")
    if not (index.get("scheme") is None or isinstance(index["scheme"], str)):
        raise IrstkitError("expected a text or null", path=path, where="$.scheme")
    return index


def check_shards(root: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Refuse missing shards and those of another size than the index says, before a run that opens them one by one.

    Raises
    ------
    IrstkitError
        Naming the first.
    """
    for row in rows:
        path = root / row["name"]
        size = path.stat().st_size if path.is_file() else None
        if size != row["bytes"]:
            told = "no such shard" if size is None else f"{size} bytes"
            raise IrstkitError(f"{told}, {INDEX} says {row['bytes']} bytes", path=path)


def read_indexes(root: Path) -> dict[str, Any]:
    """index.json of a folder of shards, or those of its sub-folders joined: one stream of several exports.

    Raises
    ------
    IrstkitError
        Where neither is there, or the sub-folders' split schemes differ.
    """
    if (root / INDEX).is_file():
        return read_index(root)
    folders = sorted((f.parent for f in root.glob(f"*/{INDEX}")), key=lambda f: natural_key(f.name))
    if not folders:
        raise IrstkitError(
            f"no folder with an {INDEX}, nor a folder of such folders",
            path=root,
            hint="irstkit data export SET --to webdataset --out SHARDS makes one",
        )
    found = [read_index(folder) for folder in folders]
    for folder, index in zip(folders, found, strict=True):
        if index["scheme"] != found[0]["scheme"]:
            text = (
                f"the split scheme is {index['scheme']!r}, in {folders[0].name}/ it is {found[0]['scheme']!r}"
            )
            raise IrstkitError(text, path=folder / INDEX, where="$.scheme")
    rows = [
        {**row, "name": f"{folder.name}/{row['name']}"}
        for folder, index in zip(folders, found, strict=True)
        for row in index["shards"]
    ]
    ids = split_hash(str(index.get("ids")) for index in found)
    samples = sum(index["samples"] for index in found)
    return {**found[0], "name": root.resolve().name, "samples": samples, "ids": ids, "shards": rows}
