"""``evaluate --unseen``: a split without the images that a network was trained or selected on.

Checkpoints remember the ids of these by the name of the data set's folder (:mod:`.checkpoint`, ``seen``), also those
of the runs that they started from. What is left is a part of the split, with a hash of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..annotate.console import note
from ..annotate.errors import IrstkitError
from ..datasets.records import Dataset, Record
from .checkpoint import load_checkpoint, streamed_sets
from .sources import is_network


@dataclass(frozen=True)
class Unseen:
    """What is left of a split, and the frames left out that networks of clips may look at beside it.

    ``near``: images left whose sequence holds some that were left out: their neighbours were trained on.
    """

    records: tuple[Record, ...]
    context: tuple[Record, ...]
    left_out: int
    near: int

    def as_dict(self) -> dict[str, int]:
        """For results."""
        return {
            "left_out": self.left_out,
            "of": self.left_out + len(self.records),
            "of_seen_sequences": self.near,
        }


def unseen(paths: Sequence[str | Path], data: Dataset, records: Sequence[Record], split: str) -> Unseen:
    """``records`` (the part ``split`` of ``data``) without what any network of ``paths`` has seen; says how many.

    Raises
    ------
    IrstkitError
        Where nothing is left, where a path is no checkpoint, or where ``data`` was streamed to it.
    """
    name = data.root.resolve().name
    known: set[str] = set()
    for path in paths:
        if not is_network(path):
            raise IrstkitError(
                "files, not a checkpoint: what was trained on is not known here",
                path=path,
                hint="without --unseen all images are scored",
            )
        content = load_checkpoint(path)
        streamed = streamed_sets(content)
        if name in streamed:
            raise IrstkitError(
                f"was trained on a stream of {name!r}, whose ids are not remembered", path=path,
                hint="score its part that was not streamed: --split SCHEME/test, without --unseen",
            )  # fmt: skip
        if name not in content["seen"]:
            others = sorted({*content["seen"], *streamed})
            note(
                f"{path} remembers no image of {name!r}"
                + (f", but of {', '.join(others)}" if others else "")
                + ": sets are told apart by their folders' names"
            )
        known.update(content["seen"].get(name, ()))
    left = tuple(r for r in records if r.id not in known)
    count = len(records) - len(left)
    if not left:
        raise IrstkitError(
            f"nothing is left of {split}: all {count} images were trained or selected on", path=data.root,
            hint="another --split",
        )  # fmt: skip
    here = {r.sequence for r in left} - {None}
    context = tuple(r for r in records if r.id in known and r.sequence in here)
    touched = {r.sequence for r in data if r.id in known} - {None}
    near = sum(r.sequence in touched for r in left)
    note(
        f"{count} of {len(records)} images left out, trained or selected on"
        + (f"; {near} of the others are of the same sequences" if near else "")
    )
    return Unseen(left, context, count, near)


def left_out_line(told: Mapping[str, int]) -> str:
    """The line of a table that says what was left out."""
    return f"unseen: {told['left_out']} of {told['of']} images left out, trained or selected on"
