"""What a run is trained on and judged by: data sets, splits, mixing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..annotate.errors import IrstkitError
from ..datasets.mix import mix
from ..datasets.readers import open_dataset
from ..datasets.records import Dataset, Record, split_hash
from ..datasets.shard_batches import Shards
from ..datasets.shards import check_shards, read_indexes
from ..datasets.splits import train_val

VALIDATION = 0.1
"""The validation part: a tenth of the training list, whole twin groups, seed 0 (DESIGN)."""


@dataclass(frozen=True)
class Material:
    """Training and validation records, and ``about``: names, counts and split hashes (plain types)."""

    train: Sequence[Record]
    validation: Sequence[Record]
    about: dict[str, Any]
    paths: dict[str, str]
    ids: dict[str, list[str]]
    """Ids of all images that a run saw, for training or validation, by data set name (not of streamed ones)."""
    stream: Shards | None = None
    """Shards that are read while training; ``train`` are then the real images, ``real_share`` of all samples."""
    real_share: float = 0.0
    real: int = 0
    """Real images among ``train``: the first ones."""
    context: Sequence[Record] = ()
    """The rest of the sequences that training images are of, for networks of clips: neighbours, never key frames."""


def compose(
    real: str | Path | None,
    synthetic: str | Path | None,
    *,
    real_split: str | None = None,
    synthetic_split: str | None = None,
    fraction: float | str | None = None,
    total: int | None = None,
    seed: int = 0,
    masks: bool = True,
) -> Material:
    """Open the data sets, set the validation part aside and mix the rest.

    The validation part is of the real set where there is one, else of the synthetic one, also when no real
    image is trained on, so that all fractions of a comparison are judged by the same images. Without
    ``fraction`` both sets are used whole (or ``total`` images of the only one).

    Parameters
    ----------
    fraction
        Share of real images among ``total``, 0 to 1, or ``"real"``: all real images and no synthetic one.
    masks
        Every image needs a mask; False: boxes will do (networks of boxes).

    Raises
    ------
    IrstkitError
        For missing folders, unknown splits, test parts, or too few images (naming both numbers).
    """
    if real is None and synthetic is None:
        raise IrstkitError("nothing to train on", hint="give --real PATH, --synthetic PATH or both")
    if fraction is not None and fraction != "real" and total is None:
        raise IrstkitError("a real fraction needs the total number of images", hint="add --total N")
    sets: dict[str, tuple[Dataset, str]] = {}
    for source, path, split in (("real", real, real_split), ("synthetic", synthetic, synthetic_split)):
        if path is not None:
            data = open_dataset(path)
            sets[source] = (data, _training_split(data, split))
        elif split is not None:
            raise IrstkitError(f"a {source} split without a {source} data set", hint=f"add --{source} PATH")
    _not_one_set(sets)
    sets = _sequences_apart(sets)
    if total is not None and fraction is None:
        if len(sets) == 2:
            raise IrstkitError(
                "a total of two data sets needs the share of real images", hint="add --real-fraction F"
            )
        fraction = 1.0 if "real" in sets else 0.0
    judge = "real" if "real" in sets else "synthetic"
    pools: dict[str, list[Record]] = {"real": [], "synthetic": []}
    validation: list[Record] = []
    for source, (data, split) in sets.items():
        if source == judge:
            pools[source], validation = train_val(data, split, fraction=VALIDATION, seed=0)
        else:
            pools[source] = data.part(split)
        bare = [
            r
            for r in (*pools[source], *(validation if source == judge else ()))
            if r.mask is None and (masks or r.boxes is None)
        ]
        if bare:
            raise IrstkitError(
                f"{len(bare)} images of the split {split!r} have no mask{'' if masks else ' and no boxes'}, the first is {bare[0].id!r}",
                path=data.root,
            )
    if fraction is None:
        train = [*pools["real"], *pools["synthetic"]]
    else:
        train = mix(pools["real"], pools["synthetic"], fraction, total, seed)
    if not train:
        raise IrstkitError("no image is left to train on once the validation part is set aside")
    chosen = {id(r) for r in train}
    used = {source: sum(id(r) in chosen for r in pool) for source, pool in pools.items()}
    about: dict[str, Any] = {
        "images": len(train),
        "fraction": fraction,
        "total": total,
        "mix_seed": seed,
        "validation": {
            "of": judge,
            "images": len(validation),
            "split_hash": split_hash(r.id for r in validation),
        },
    }
    for source, (data, split) in sets.items():
        about[source] = {
            "name": data.root.resolve().name,
            "layout": data.layout,
            "split": split,
            "split_hash": split_hash(r.id for r in data.part(split)),
            "available": len(pools[source]),
            "used": used[source],
            "used_hash": split_hash(r.id for r in pools[source] if id(r) in chosen),
        }
    paths = {
        source: str(path) for source, path in (("real", real), ("synthetic", synthetic)) if path is not None
    }
    ids: dict[str, list[str]] = {}
    for source, (data, _) in sets.items():
        seen = chosen | ({id(r) for r in validation} if source == judge else set())
        name = data.root.resolve().name
        ids[name] = sorted({*ids.get(name, ()), *(r.id for r in data if id(r) in seen)})
    sequences = {r.sequence for r in train} - {None}
    context = [r for pool in pools.values() for r in pool if id(r) not in chosen and r.sequence in sequences]
    return Material(train, validation, about, paths, ids, real=used["real"], context=context)


def _not_one_set(sets: dict[str, tuple[Dataset, str]]) -> None:
    """Refuse images that are of both sources: as synthetic ones those of the validation part would be trained on."""
    if len({data.root.resolve() for data, _ in sets.values()}) == len(sets):
        return
    real, synthetic = ({r.id for r in data.part(split)} for data, split in sets.values())
    if both := len(real & synthetic):
        raise IrstkitError(
            f"--real and --synthetic are the same data set, and {both} images are in both lists",
            path=sets["real"][0].root,
            hint="name it once, or two lists of it with --real-split and --synthetic-split",
        )


def _sequences_apart(sets: dict[str, tuple[Dataset, str]]) -> dict[str, tuple[Dataset, str]]:
    """The sets with sequences of one name in both renamed: their frames are never neighbours."""
    names = [{r.sequence for r in data} - {None} for data, _ in sets.values()]
    if len(names) < 2 or not names[0] & names[1]:
        return sets
    out = {}
    for source, (data, split) in sets.items():
        records = tuple(
            r if r.sequence is None else replace(r, sequence=f"{source}/{r.sequence}") for r in data
        )
        out[source] = (replace(data, records=records), split)
    return out


def compose_stream(
    real: str | Path | None,
    synthetic: str | Path | None,
    *,
    real_split: str | None = None,
    synthetic_split: str | None = None,
    fraction: float | str | None = None,
    total: int | None = None,
    seed: int = 0,
) -> Material:
    """Synthetic images streamed from shards, alone or with a share of real ones (see :mod:`.shard_batches`).

    The validation part is a tenth of the real training list, where there is one; else the shards' part ``val``
    (at most 1000 images of it), which shares no background with the others; else there is none.

    Parameters
    ----------
    fraction
        Share of real samples, above 0 and below 1; needed where there is a real set.

    Raises
    ------
    IrstkitError
        Where ``synthetic`` is no folder of shards, or options do not go together.
    """
    if synthetic is None:
        raise IrstkitError("--stream reads shards", hint="name a folder of them with --synthetic")
    root = Path(synthetic)
    index = read_indexes(root)
    if total is not None:
        raise IrstkitError("a stream has no total: all its images are used", hint="leave --total away")
    share = float(fraction) if isinstance(fraction, (int, float)) else 0.0
    if (real is not None) != (0 < share < 1) or fraction == "real":
        raise IrstkitError(
            "with --stream, --real and --real-fraction (above 0, below 1) go together",
            hint="for example --real-fraction 0.16: every sixth sample is a real image",
        )
    scheme, _, part = (synthetic_split or f"{index['scheme']}/train").rpartition("/")
    rows = [row for row in index["shards"] if row["part"] == part or index["scheme"] is None]
    if not rows or (index["scheme"] is not None and scheme not in ("", index["scheme"])):
        known = ", ".join(sorted({f"{index['scheme']}/{row['part']}" for row in index["shards"]}))
        raise IrstkitError(
            f"no split {synthetic_split or 'train'!r} here", path=root, hint=f"there are: {known}"
        )
    if part == "test":
        raise IrstkitError("the part 'test' is never trained on", path=root)
    check_shards(root, rows)
    stream = Shards(root, rows)
    train: list[Record] = []
    validation: list[Record] = []
    about: dict[str, Any] = {"stream": True, "fraction": share or None, "total": None, "mix_seed": seed}
    ids: dict[str, list[str]] = {}
    if real is not None:
        data = open_dataset(real)
        split = _training_split(data, real_split)
        train, validation = train_val(data, split, fraction=VALIDATION, seed=0)
        name = data.root.resolve().name
        ids[name] = sorted(r.id for r in (*train, *validation))
        about["real"] = {
            "name": name, "layout": data.layout, "split": split, "available": len(train), "used": len(train),
            "split_hash": split_hash(r.id for r in data.part(split)), "used_hash": split_hash(r.id for r in train),
        }  # fmt: skip
    elif held := [row for row in index["shards"] if row["part"] == "val"]:
        validation = Shards(root, held[:1]).records([0])[:1000]
    bare = [r for r in (*train, *validation) if r.mask is None]
    if bare:
        raise IrstkitError(
            f"{len(bare)} images have no mask, the first is {bare[0].id!r}", path=bare[0].image
        )
    about["images"] = len(stream) + len(train)
    about["validation"] = {
        "of": "real" if real is not None else "synthetic",
        "images": len(validation),
        "split_hash": split_hash(r.id for r in validation),
    }
    about["synthetic"] = {
        "name": root.resolve().name, "layout": "webdataset", "split": f"{index['scheme']}/{part}",
        "shards": len(rows), "available": len(stream), "used": len(stream), "ids": index.get("ids"),
    }  # fmt: skip
    paths = {k: str(v) for k, v in (("real", real), ("synthetic", synthetic)) if v is not None}
    return Material(train, validation, about, paths, ids, stream, share, len(train))


def _training_split(data: Dataset, split: str | None) -> str:
    """The split named, or the default scheme's ``train``; ``all`` where there are none. Never test images."""
    parts = data.schemes()
    if split is None:
        if data.default_scheme is None and not parts:
            return "all"
        scheme = data.default_scheme or next(iter(parts))
        if "train" not in parts.get(scheme, {}):
            raise IrstkitError(
                f"no training part in the scheme {scheme!r}",
                path=data.root,
                hint=f"name one with --real-split or --synthetic-split: {', '.join(_names(data))}, all",
            )
        return f"{scheme}/train"
    if split != "all" and "/" not in split:
        split = f"{data.default_scheme}/{split}"
    chosen = {r.id for r in data.part(split)}
    of = data.default_scheme if split == "all" else split.rpartition("/")[0]
    test = f"{of}/test"
    if of is not None and "test" in parts.get(of, {}):
        shared = chosen & {r.id for r in data.part(test)}
        if shared:
            raise IrstkitError(
                f"{split!r} holds {len(shared)} images of the test list {test}, which is never trained on",
                path=data.root,
                hint="name another split",
            )
    return split


def _names(data: Dataset) -> list[str]:
    return [f"{scheme}/{part}" for scheme, parts in data.schemes().items() for part in parts]
