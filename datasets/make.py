"""New data sets from old ones, in irstkit's layout: import, merge, tile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..annotate.errors import IrstkitError
from ..annotate.files import GrayImage
from ..annotate.masks import Instance, instances_to_mask, mask_to_instances
from .records import Dataset, Record
from .targets import Target, targets_of
from .write import Item, Written, write_dataset


def item_of(
    record: Record, *, prefix: str = "", splits: Mapping[str, str] | None = None, **extra: Any
) -> Item:
    """A record as it is written: gray in its depth, all labels, everything known of it."""
    known: dict[str, Any] = {
        "sequence": None if record.sequence is None else prefix + record.sequence,
        "frame": record.frame,
        "scene": record.scene,
    }
    entry = {key: value for key, value in known.items() if value is not None}
    for key in ("background_id", "original", "set", "tile"):
        if key in record.attributes:
            entry[key] = record.attributes[key]
    return Item(
        name=prefix + record.id.removeprefix("images/"),
        image=record.read_image(),
        targets=targets_of(record),
        splits=record.splits if splits is None else splits,
        extra={"source": record.source, **entry, **extra},
    )


def _info(command: str, **known: Any) -> dict[str, Any]:
    return {"made_by": f"irstkit data {command}", **{k: v for k, v in known.items() if v is not None}}


def import_dataset(dataset: Dataset, out: str | Path, *, overwrite: bool = False) -> Written:
    """Write any data set in irstkit's layout: names, lists, boxes, tracks and attributes kept."""
    dataset.require_clean()
    return write_dataset(
        out,
        dataset.records,
        item_of,
        total=len(dataset),
        info=_info("import", layout=dataset.layout, default_scheme=dataset.default_scheme),
        overwrite=overwrite,
    )


def set_names(datasets: Sequence[Dataset], names: Sequence[str] | None = None) -> list[str]:
    """A name a data set: the given ones, or the folders' names, numbered where they are the same."""
    if names is not None:
        if len(names) != len(datasets) or len(set(names)) < len(names):
            raise IrstkitError(f"expected {len(datasets)} different names, got {', '.join(names)}")
        if bad := [n for n in names if not n or "/" in n or n.startswith(".")]:
            raise IrstkitError(f"not a folder name: {bad[0]!r}")
        return list(names)
    plain = [d.root.resolve().name or "set" for d in datasets]
    counts = Counter(plain)
    seen: Counter[str] = Counter()
    out = []
    for name in plain:
        seen[name] += 1
        out.append(name if counts[name] == 1 else f"{name}-{seen[name]}")
    return out


def merge_datasets(
    datasets: Sequence[Dataset],
    out: str | Path,
    *,
    names: Sequence[str] | None = None,
    overwrite: bool = False,
) -> Written:
    """Several data sets as one: ``images/SET/...``, every scheme kept as it is.

    The parts of the sets' default schemes are joined as the scheme ``merged`` besides (all training lists in
    ``merged/train``). Exact repetitions over the sets are counted (``Written.repeated``), not dropped.
    """
    called = set_names(datasets, names)
    rows: list[tuple[str, Dataset, Record]] = []
    for name, dataset in zip(called, datasets, strict=True):
        dataset.require_clean()
        rows += [(name, dataset, record) for record in dataset.records]

    def make(row: tuple[str, Dataset, Record]) -> Item:
        name, dataset, record = row
        splits = dict(record.splits)
        if dataset.default_scheme in splits:
            splits["merged"] = splits[dataset.default_scheme]
        return item_of(record, prefix=f"{name}/", splits=splits, set=name)

    info = _info(
        "merge",
        sets={n: {"layout": d.layout, "images": len(d)} for n, d in zip(called, datasets, strict=True)},
        default_scheme="merged" if any(d.default_scheme for d in datasets) else None,
    )
    return write_dataset(out, rows, make, total=len(rows), info=info, overwrite=overwrite)


# ------------------------------------------------------------------------------------------------- tiles


@dataclass(frozen=True)
class Tile:
    """Where a tile lies in its image: first column and row, and size."""

    x: int
    y: int
    width: int
    height: int

    @property
    def name(self) -> str:
        """``x000256_y000000``."""
        return f"x{self.x:06d}_y{self.y:06d}"


def tile_starts(length: int, side: int, overlap: int) -> list[int]:
    """Where tiles of ``side`` begin so that they cover ``length``: evenly spread, overlapping at least so much."""
    if length <= side:
        return [0]
    count = -(-(length - overlap) // (side - overlap))
    return [round(k * (length - side) / (count - 1)) for k in range(count)]


def tiles_of(size: tuple[int, int], side: tuple[int, int], overlap: int) -> list[Tile]:
    """The tiles of an image of (height, width); images smaller than ``side`` give one tile of their size."""
    height, width = size
    return [
        Tile(x, y, min(side[1], width), min(side[0], height))
        for y in tile_starts(height, side[0], overlap)
        for x in tile_starts(width, side[1], overlap)
    ]


def cut_targets(targets: Sequence[Target], tile: Tile, size: tuple[int, int]) -> list[Target]:
    """What of the targets lies in a tile, with its pixels; a target that is cut apart gives its pieces."""
    out = []
    for target in targets:
        x1, y1, x2, y2 = target.box
        left, top = max(x1, tile.x), max(y1, tile.y)
        right, bottom = min(x2, tile.x + tile.width), min(y2, tile.y + tile.height)
        if left >= right or top >= bottom:
            continue
        cut = (left, top, right, bottom) != target.box
        extra = {**target.extra, "cut": True} if cut else target.extra
        if target.instance is None:
            box = (left - tile.x, top - tile.y, right - tile.x, bottom - tile.y)
            out.append(Target(box, None, extra))
            continue
        pieces = [_shifted(target.instance, tile)] if not cut else _pieces(target.instance, tile, size)
        for piece in pieces:
            a, b, c, d = (float(v) for v in piece.box)
            out.append(Target((a, b, c, d), piece, extra))
    return out


def _shifted(instance: Instance, tile: Tile) -> Instance:
    x1, y1, x2, y2 = instance.box
    return Instance((x1 - tile.x, y1 - tile.y, x2 - tile.x, y2 - tile.y), instance.mask)


def _pieces(instance: Instance, tile: Tile, size: tuple[int, int]) -> list[Instance]:
    full = instances_to_mask([instance], size)
    return mask_to_instances(full[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width])


def tile_dataset(
    dataset: Dataset,
    out: str | Path,
    *,
    side: tuple[int, int],
    overlap: int = 0,
    keep_empty: bool = True,
    overwrite: bool = False,
) -> Written:
    """Cut every image into tiles of ``side`` (height, width) that cover it, overlapping by at least ``overlap``.

    Masks are cut with their images, to the pixel; a target at a tile's edge is what of it lies inside, marked
    ``cut``. Tiles keep their image's splits; tiles of a sequence form one sequence a place. Without
    ``keep_empty`` tiles without target are left out.
    """
    if min(side) < 1 or not 0 <= overlap < min(side):
        raise IrstkitError(f"the overlap {overlap} lies between 0 and the tile's side {min(side)}")
    dataset.require_clean()
    jobs: list[tuple[Record, Tile]] = []
    for record in dataset.records:
        for tile in tiles_of(record.size, side, overlap):
            jobs.append((record, tile))
    if not keep_empty:
        jobs = _with_targets(dataset, jobs)
    last: dict[str, tuple[GrayImage, list[Target] | None]] = {}

    def make(job: tuple[Record, Tile]) -> Item:
        record, tile = job
        known = last.get(record.id)
        if known is None:
            known = (record.read_image(), targets_of(record))
            last.clear()  # tiles of one image follow each other
            last[record.id] = known
        image, targets = known
        name = record.id.removeprefix("images/")
        part: Any = np.ascontiguousarray(image[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width])
        extra: dict[str, Any] = {
            "source": record.source,
            "tile": {"image": name, "x": tile.x, "y": tile.y},
        }
        if record.scene is not None:
            extra["scene"] = record.scene
        if record.sequence is not None:
            extra |= {"sequence": f"{record.sequence}/{tile.name}", "frame": record.frame}
        return Item(
            name=f"{name}/{tile.name}",
            image=part,
            targets=None if targets is None else cut_targets(targets, tile, record.size),
            splits=record.splits,
            extra=extra,
        )

    info = _info(
        "tile",
        tile={"height": side[0], "width": side[1], "overlap": overlap, "empty": keep_empty},
        default_scheme=dataset.default_scheme,
    )
    return write_dataset(out, jobs, make, total=len(jobs), info=info, overwrite=overwrite)


def _with_targets(dataset: Dataset, jobs: list[tuple[Record, Tile]]) -> list[tuple[Record, Tile]]:
    """The jobs whose tile holds something of a target."""
    targets = {r.id: targets_of(r) for r in dataset.records}
    kept = []
    for record, tile in jobs:
        found = targets[record.id]
        if found is None:
            raise IrstkitError("not labelled: which tiles are empty cannot be told", path=record.image)
        if cut_targets(found, tile, record.size):
            kept.append((record, tile))
    if not kept:
        raise IrstkitError("no tile holds a target", path=dataset.root)
    return kept


def with_sequences(dataset: Dataset) -> Dataset:
    """The same data set with each folder of images as a sequence, its files in natural order as the frames."""
    numbers: Counter[str] = Counter()
    records = []
    for record in dataset.records:
        folder = record.id.removeprefix("images/").rpartition("/")[0] or "."
        records.append(replace(record, sequence=folder, frame=numbers[folder]))
        numbers[folder] += 1
    return replace(dataset, records=tuple(records))
