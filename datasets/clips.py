"""Clips: the frames around, or ending at, a key frame; never across sequences, each frame decoded once.

Border rules, for frames that the sequence does not have:

- ``target``: the key frame stands in (DFAR's paper);
- ``clamp``: the nearest frame there is, towards the key frame (DFAR's code; STD2Net at the start);
- ``reflect``: the sequence is mirrored about its first and last frame, as often as needed.

``still`` is no rule for borders: every frame of every clip is the key frame. It is the control that tells what a
network of clips gains from its neighbours.

A frame number missing **inside** a sequence is treated so too (``reflect``: as ``clamp``), and reported.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..annotate.boxes import Boxes, as_boxes, mask_to_boxes
from ..annotate.console import note, track
from ..annotate.errors import IrstkitError
from ..annotate.files import GrayImage
from .records import Finding, Record

BORDERS = ("target", "clamp", "reflect")
RULES = (*BORDERS, "still")


def window_positions(frames: Sequence[int], position: int, window: int, key: int, border: str) -> list[int]:
    """Positions of a clip's frames in its sequence.

    Parameters
    ----------
    frames
        The sequence's frame numbers, rising; numbers may be missing.
    position
        Of the key frame in ``frames``.
    window, key
        Frames in the clip, and the index of the key frame among them: (5, 2) is two on each side, (5, 4) is
        the last five.
    border
        See the module docstring.

    Examples
    --------
    >>> [window_positions(range(9), 0, 5, 2, rule) for rule in RULES]
    [[0, 0, 0, 1, 2], [0, 0, 0, 1, 2], [2, 1, 0, 1, 2], [0, 0, 0, 0, 0]]
    >>> window_positions([0, 1, 2, 4, 5], 2, 5, 2, "clamp")  # frame 3 is missing
    [0, 1, 2, 2, 3]
    """
    if border not in RULES:
        raise ValueError(f"border is one of {', '.join(RULES)}, got {border!r}")
    if not 0 <= key < window:
        raise ValueError(f"the key frame is one of {window}, got index {key}")
    if border == "still":
        return [position] * window
    first, last, now = frames[0], frames[-1], frames[position]
    out = []
    for wanted in range(now - key, now - key + window):
        if border == "reflect" and not first <= wanted <= last:
            period = max(2 * (last - first), 1)
            folded = (wanted - first) % period
            wanted = first + min(folded, period - folded)
        at = bisect_left(frames, wanted)
        if at < len(frames) and frames[at] == wanted:
            out.append(at)
        elif border == "target":
            out.append(position)
        else:  # towards the key frame
            at = at if wanted < now else bisect_right(frames, wanted) - 1
            out.append(min(max(at, 0), len(frames) - 1))
    return out


@dataclass(frozen=True, eq=False)
class Frames:
    """One sequence: its name, records by rising frame number, and those numbers."""

    name: str
    records: tuple[Record, ...]
    numbers: tuple[int, ...]

    def missing(self) -> list[int]:
        """Frame numbers between the first and the last that are not there."""
        there = set(self.numbers)
        return [n for n in range(self.numbers[0], self.numbers[-1] + 1) if n not in there]


def sequences_of(records: Sequence[Record]) -> tuple[list[Frames], list[Finding]]:
    """Records grouped by sequence, in order of first appearance, and a finding for each with missing frames.

    Raises
    ------
    IrstkitError
        For a record without sequence or frame number, a number that appears twice, frames of two sizes.
    """
    groups: dict[str, list[Record]] = {}
    for record in records:
        if record.sequence is None or record.frame is None:
            raise IrstkitError(
                f"the image {record.id!r} belongs to no sequence",
                path=record.image,
                hint="clips need data sets of sequences: a folder a sequence, frames numbered",
            )
        groups.setdefault(record.sequence, []).append(record)
    out, findings = [], []
    for name, group in groups.items():
        group.sort(key=lambda r: r.frame or 0)
        numbers = tuple(int(r.frame or 0) for r in group)
        for a, b in pairwise(group):
            if a.frame == b.frame:
                raise IrstkitError(
                    f"frame {a.frame} of the sequence {name!r} is there twice: {a.id!r} and {b.id!r}"
                )
            if a.size != b.size:
                raise IrstkitError(
                    f"the sequence {name!r} has frames of two sizes: {a.size[1]}x{a.size[0]} ({a.id!r}), "
                    f"{b.size[1]}x{b.size[0]} ({b.id!r})"
                )
        frames = Frames(name, tuple(group), numbers)
        if gaps := frames.missing():
            shown = ", ".join(map(str, gaps[:5])) + (", ..." if len(gaps) > 5 else "")
            findings.append(
                Finding(
                    "warning", "frames_missing", f"sequence {name!r}: {len(gaps)} frames missing ({shown})"
                )
            )
        out.append(frames)
    return out, findings


class Clips:
    """Clips of all sequences of some records; every frame is decoded once.

    Attributes
    ----------
    records
        Of the key frames, sequence after sequence: clip k is about ``records[k]``. Frames that are only seen
        as neighbours follow after the first ``len(clips)``.
    windows
        (N, T) int64: indices into ``records`` of each clip's frames, in time order.
    images, boxes
        Native (H, W) images; half-open xyxy boxes of the targets, (0, 4) where there is none.
    findings
        Missing frames.
    """

    def __init__(
        self,
        records: Sequence[Record],
        window: int,
        key: int,
        border: str = "target",
        *,
        context: Sequence[Record] = (),
        masks: bool = False,
        labelled: bool = True,
        workers: int = 2,
    ) -> None:
        """Decode ``records``.

        Parameters
        ----------
        context
            Further frames of the same sequences, that serve as neighbours only: a draw of key frames takes no
            frame away from the others' clips. Labels of theirs are not read.
        masks
            Keep masks too (``self.masks``, (H, W) uint8 of 0 and 1 each).
        labelled
            False: no target is read.
        """
        keys = {id(r) for r in records}
        sequences = {r.sequence for r in records}
        others = [r for r in context if id(r) not in keys and r.sequence in sequences]
        groups, self.findings = sequences_of([*records, *others])
        for finding in self.findings:
            note(f"warning: {finding}")
        self.window, self.key, self.border = window, key, border
        clips: list[tuple[Record, list[Record]]] = []
        for group in groups:
            for position, record in enumerate(group.records):
                if id(record) in keys:
                    places = window_positions(group.numbers, position, window, key, border)
                    clips.append((record, [group.records[p] for p in places]))
        self.records = [record for record, _ in clips]
        place = {id(r): k for k, r in enumerate(self.records)}
        for _, frames in clips:
            for frame in frames:
                if id(frame) not in place:
                    place[id(frame)] = len(self.records)
                    self.records.append(frame)
        self._count = len(clips)
        windows = [[place[id(f)] for f in frames] for _, frames in clips]
        self.windows = np.array(windows, np.int64).reshape(-1, window)
        self.images, self.boxes, self.masks = decode(
            self.records[: self._count], masks=masks, labelled=labelled, workers=workers
        )
        if len(self.records) > self._count:
            self.images += decode(self.records[self._count :], labelled=False, workers=workers)[0]

    def __len__(self) -> int:
        return self._count

    def clip(self, k: int) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """(T, H, W) frames of clip ``k`` in their native depth."""
        return np.stack([self.images[i] for i in self.windows[k]])


def decode(
    records: Sequence[Record], *, masks: bool = False, labelled: bool = True, workers: int = 2
) -> tuple[list[GrayImage], list[Boxes], list[NDArray[np.uint8]]]:
    """Images, boxes and (where asked for) masks of records, on ``workers`` threads.

    Raises
    ------
    IrstkitError
        For files that cannot be read, records without labels, and boxes of zero size.
    """

    def one(record: Record) -> tuple[GrayImage, Boxes, NDArray[np.uint8] | None]:
        image = record.read_image()
        mask = record.read_mask() if masks else None
        if not labelled:
            return image, as_boxes([]), None
        if mask is not None and record.boxes is None:
            boxes = mask_to_boxes(mask)
        elif record.boxes is None and record.mask is None:
            raise IrstkitError(f"the image {record.id!r} has neither boxes nor a mask", path=record.image)
        else:
            boxes = record.read_boxes()
        for k, box in enumerate(boxes):
            if not (box[2] > box[0] and box[3] > box[1]):
                raise IrstkitError(f"box {k} has zero size: {box.tolist()}", path=record.image)
        return image, boxes, None if mask is None else mask.astype(np.uint8)

    with ThreadPoolExecutor(workers) as pool:
        found = list(track(pool.map(one, records), "decoding", len(records)))
    return [f[0] for f in found], [f[1] for f in found], [f[2] for f in found if f[2] is not None]
