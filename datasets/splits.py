"""Parts of a data set that do not leak into each other: the validation part of a training list.

What belongs together stays together: frames of one sequence, and twins (``twins.py``). The draw goes by a
hash of the ids, so neither the order of the records nor the machine matters.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

from ..annotate.errors import IrstkitError
from .records import Dataset, Record
from .twins import group, thumbnails, twin_pairs


def hash_order(ids: Sequence[str], seed: int) -> list[int]:
    """Indices of ``ids`` in a pseudo-random order, a function of the ids and the seed, not of their order."""
    keys = [hashlib.sha256(f"{seed}\n{id}".encode()).digest() for id in ids]
    return sorted(range(len(ids)), key=keys.__getitem__)


def kinship(records: Sequence[Record], *, twins: bool = True, workers: int = 2) -> list[int]:
    """Which records belong together: for each, the smallest index in its group.

    Frames of one sequence are one group, and so are the copies of a synthetic image (``copy_of``) and that image;
    other images are grouped with their twins where ``twins``.
    """
    first: dict[Hashable, int] = {}
    pairs = [(first.setdefault(r.sequence, k), k) for k, r in enumerate(records) if r.sequence is not None]
    place = {r.id: k for k, r in enumerate(records)}
    for k, record in enumerate(records):
        original = str(record.attributes.get("copy_of") or "")
        if original:
            # the original may not be here; its copies belong together all the same
            pairs.append((place.get(_stem(original), first.setdefault(("copy", original), k)), k))
    single = [k for k, r in enumerate(records) if r.sequence is None]
    if twins and single:
        vectors = thumbnails([records[k] for k in single], workers=workers)
        pairs += [(single[i], single[j]) for i, j, _ in twin_pairs(vectors)]
    return group(len(records), pairs)


def _stem(name: str) -> str:
    head, dot, _ = name.rpartition(".")
    return head if dot else name


def divide(
    records: Sequence[Record], fraction: float = 0.1, seed: int = 0, *, workers: int = 2
) -> tuple[list[Record], list[Record]]:
    """Set ``fraction`` of the records apart, whole groups only (:func:`kinship`).

    Groups are taken in hash order as long as they fit; where not even the smallest fits, it is taken alone.

    Returns
    -------
    rest, part
        Both in the records' order; ``part`` holds about round(fraction N) records, at least one.

    Raises
    ------
    IrstkitError
        When there are not two groups to divide.
    """
    if not 0 < fraction < 1:
        raise IrstkitError(f"a fraction lies between 0 and 1, got {fraction}")
    members: dict[int, list[int]] = defaultdict(list)
    for k, leader in enumerate(kinship(records, workers=workers)):
        members[leader].append(k)
    if len(members) < 2:
        raise IrstkitError(
            f"{len(records)} images in {len(members)} group (sequence or twins) cannot be divided",
            hint="a validation part needs images that are not near-copies of the training ones",
        )
    groups = list(members.values())
    names = [min(records[k].id for k in g) for g in groups]
    wanted = max(1, round(fraction * len(records)))
    taken: set[int] = set()
    for g in hash_order(names, seed):
        if len(taken) + len(groups[g]) <= wanted:
            taken.update(groups[g])
    if not taken:
        smallest: list[int] = min((groups[g] for g in hash_order(names, seed)), key=len)
        taken.update(smallest)
    rest = [r for k, r in enumerate(records) if k not in taken]
    return rest, [r for k, r in enumerate(records) if k in taken]


def parts_of(
    records: Sequence[Record],
    shares: Mapping[str, float],
    *,
    seed: int = 0,
    by: str = "auto",
    strata: Sequence[Hashable] | None = None,
    workers: int = 2,
) -> list[str]:
    """A part for every record: ``{"train": 0.8, "test": 0.2}``, whole groups only.

    Groups go, the larger first and equal ones in hash order, to the part that lacks most; so single images
    give the shares exactly (largest remainders). With ``strata`` (a value a record, such as its scene) every
    stratum is divided by itself; a group's stratum is that of its first record in hash order.

    Parameters
    ----------
    by
        ``image``: every image by itself; ``sequence``; ``twins``; ``auto``: sequences, and twins among the
        images that belong to none (:func:`kinship`).

    Raises
    ------
    IrstkitError
        When the shares do not add up to 1, or ``by`` sequence without sequences, or a part stays empty.
    """
    if not shares or any(not s > 0 for s in shares.values()) or abs(sum(shares.values()) - 1) > 1e-6:
        given = ", ".join(f"{p}={s:g}" for p, s in shares.items())
        raise IrstkitError(f"shares are positive and add up to 1, got {given}")
    members = list(_groups(records, by, workers).values())
    names = [min(records[k].id for k in g) for g in members]
    rank = {g: position for position, g in enumerate(hash_order(names, seed))}
    stratum = {}
    for g, group_members in enumerate(members):
        first = min(group_members, key=lambda k: records[k].id)
        stratum[g] = None if strata is None else strata[first]
    out = [""] * len(records)
    lack = dict.fromkeys(shares, 0.0)  # carried over: rounding of one stratum is made good in the next
    for value in sorted(set(stratum.values()), key=str):
        here = [g for g in range(len(members)) if stratum[g] == value]
        count = sum(len(members[g]) for g in here)
        for part, share in shares.items():
            lack[part] += share * count
        for g in sorted(here, key=lambda g: (-len(members[g]), rank[g])):
            part = max(shares, key=lambda p: lack[p])
            lack[part] -= len(members[g])
            for k in members[g]:
                out[k] = part
    if empty := [part for part in shares if part not in out]:
        raise IrstkitError(
            f"the part {empty[0]!r} would stay empty: {len(records)} images in {len(members)} groups",
            hint="larger shares, or --by image if near-copies in two parts are acceptable",
        )
    return out


def _groups(records: Sequence[Record], by: str, workers: int) -> dict[int, list[int]]:
    if by == "image":
        leaders = list(range(len(records)))
    elif by == "sequence":
        without = [r.id for r in records if r.sequence is None]
        if without:
            raise IrstkitError(f"{len(without)} images are in no sequence (first: {without[0]})")
        leaders = kinship(records, twins=False)
    elif by == "twins":
        leaders = kinship([replace(r, sequence=None) for r in records], workers=workers)
    elif by == "auto":
        leaders = kinship(records, workers=workers)
    else:
        raise IrstkitError(f"groups are by image, sequence, twins or auto, got {by!r}")
    members: dict[int, list[int]] = defaultdict(list)
    for k, leader in enumerate(leaders):
        members[leader].append(k)
    return members


def train_val(
    dataset: Dataset, split: str = "train", fraction: float = 0.1, seed: int = 0, *, workers: int = 2
) -> tuple[list[Record], list[Record]]:
    """The records to train on and the validation part, 10 % of the training list ``split``, set apart.

    ``split`` is ``SCHEME/PART``, ``PART`` in the default scheme, or ``all``. See :func:`divide`.
    """
    return divide(dataset.part(split), fraction, seed, workers=workers)
