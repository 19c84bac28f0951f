"""What a data set holds and what is wrong with it, from a look at every file."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..annotate.boxes import Boxes
from ..annotate.console import track
from ..annotate.errors import IrstkitError
from ..annotate.files import binarise, decode_image, read_mask_values
from ..annotate.masks import label_mask
from .records import Dataset, Finding, Record, split_hash

_NO_BOXES = np.zeros((0, 4))


@dataclass
class Look:
    """What one record's files hold.

    ``boxes`` (N, 4) half-open xyxy and ``areas`` (N,) pixels (w*h where only boxes are known) of its targets,
    None where there is neither mask nor box; ``gray_mask`` is None, or the number of targets that > 0 and
    > 127 give. ``image`` and ``mask`` are kept where they are asked for.
    """

    channels: int = 0
    gray_equal: bool = True
    boxes: Boxes | None = None
    areas: np.ndarray = field(default_factory=lambda: np.zeros(0))
    gray_mask: tuple[int, int] | None = None
    image: np.ndarray | None = None
    mask: np.ndarray | None = None
    findings: list[Finding] = field(default_factory=list)


def look(record: Record, root: os.PathLike | str = "", *, keep: bool = False) -> Look:
    """Decode a record's image and mask; whatever cannot be read becomes a finding, nothing is raised.

    ``keep`` leaves the decoded gray image and the boolean mask in the result.
    """
    out = Look()

    def wrong(kind: str, error: IrstkitError) -> None:
        path = os.path.relpath(error.path or record.image, root) if str(root) else str(error.path)
        out.findings.append(Finding("error", kind, error.message, path, record=record.id))

    away = "size_from" in record.attributes  # the reader has said that the frames are not here
    if record.size != (0, 0) and not away:  # else the reader could not read its header and has said so
        try:
            if record.video_frame is not None:  # gray was decided when the video was decoded
                gray, out.channels = record.read_image(), 1
            else:
                decoded = decode_image(record.image)
                out.channels, out.gray_equal, gray = decoded.channels, decoded.gray_equal, decoded.gray
            out.image = gray if keep else None
        except IrstkitError as error:
            wrong("image-unreadable", error)
    if record.mask is not None:
        try:
            values = read_mask_values(record.mask)
        except IrstkitError as error:
            wrong("mask-unreadable", error)
        else:
            counts = np.bincount(values.ravel(), minlength=256)
            stored = np.flatnonzero(counts)
            if not set(stored.tolist()) <= {0, 255} and stored[-1] > 1:
                loose, strict = label_mask(values > 0)[1], label_mask(binarise(values))[1]
                out.gray_mask = (len(loose), len(strict))
            if values.shape == record.size or "mask_size" in record.attributes:
                mask = binarise(values) if values.shape == record.size else record.read_mask()
                out.mask = mask if keep else None
                _, stats = label_mask(mask)
                out.boxes = stats[:, :4].astype(float)
                out.boxes[:, 2:] += out.boxes[:, :2]
                out.areas = stats[:, 4].astype(float)
                if record.boxes is not None:
                    _compare_boxes(record, mask, out, root)
    elif record.boxes is not None:
        out.boxes = record.boxes
        out.areas = (record.boxes[:, 2:] - record.boxes[:, :2]).prod(axis=1)
    return out


def _compare_boxes(record: Record, mask: np.ndarray, out: Look, root: os.PathLike | str) -> None:
    """The label's boxes instead of the mask's, and a finding for each that is not the tight box of pixels.

    Touching targets are one component and several boxes: a box is in order when it is tight around the pixels
    in it, and every pixel of the mask lies in one.
    """
    assert record.boxes is not None and out.boxes is not None
    by_box = {tuple(box): area for box, area in zip(out.boxes.tolist(), out.areas.tolist(), strict=True)}
    areas = []
    covered = np.zeros_like(mask)
    path = os.path.relpath(record.mask, root) if str(root) and record.mask else str(record.mask)

    def wrong(text: str) -> None:
        out.findings.append(Finding("warning", "box-against-mask", text, path, record=record.id))

    for box in record.boxes.tolist():
        x1, y1, x2, y2 = (round(v) for v in box)
        inside = mask[max(y1, 0) : y2, max(x1, 0) : x2]
        covered[max(y1, 0) : y2, max(x1, 0) : x2] = True
        areas.append(by_box.get(tuple(box), float(np.count_nonzero(inside))))
        tight = inside.size and inside[[0, -1]].any(axis=1).all() and inside[:, [0, -1]].any(axis=0).all()
        if not tight:
            wrong("the box {:g},{:g},{:g},{:g} is not tight around pixels of the mask".format(*box))
    if left := len(label_mask(mask & ~covered)[1]):
        wrong(f"{left} targets of the mask are in no box")
    out.boxes, out.areas = record.boxes, np.array(areas)


def look_all(dataset: Dataset, records: Sequence[Record] | None = None) -> list[Look]:
    """:func:`look` at every record, on as many threads as there are cores (at most 8)."""
    chosen = dataset.records if records is None else records
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(
            track(pool.map(lambda r: look(r, dataset.root), chosen), f"reading {dataset.layout}", len(chosen))
        )


def describe(dataset: Dataset, looks: Sequence[Look] | None = None) -> dict[str, Any]:
    """Everything ``irstkit data info`` tells, as plain values for JSON.

    ``looks``: what was found in each record's files, where that is known already.
    """
    looks = look_all(dataset) if looks is None else looks
    told = {(f.record, f.kind) for f in dataset.findings}
    findings = [*dataset.findings]
    findings += [f for one in looks for f in one.findings if (f.record, f.kind) not in told]
    colour = [r.id for r, one in zip(dataset, looks, strict=True) if not one.gray_equal]
    gray = {r.id: one.gray_mask for r, one in zip(dataset, looks, strict=True) if one.gray_mask is not None}
    if colour:
        text = f"{len(colour)} colour images whose channels differ: gray is 0.299 R + 0.587 G + 0.114 B"
        findings.append(Finding("info", "colour", text))
    if gray:
        changed = sum(a != b for a, b in gray.values())
        text = (
            f"{len(gray)} masks hold gray values, decided at > 127; > 0 would change the targets of {changed}"
        )
        findings.append(Finding("warning", "gray-mask", text))
    labelled = [one for one in looks if one.boxes is not None]
    boxes = np.concatenate(
        [one.boxes if one.boxes is not None else _NO_BOXES for one in looks] or [_NO_BOXES]
    )
    heights = [r.size[0] for r in dataset if r.size != (0, 0)]
    widths = [r.size[1] for r in dataset if r.size != (0, 0)]
    sequences = Counter(r.sequence for r in dataset if r.sequence is not None)
    severities = Counter(f.severity for f in findings)
    return {
        "path": str(dataset.root),
        "layout": dataset.layout,
        "why": dataset.why,
        "images": len(dataset),
        "masks": sum(r.mask is not None for r in dataset),
        "boxes_from": _boxes_from(dataset),
        "targets": len(boxes) if labelled else None,
        "targets_per_image": _counts(len(one.areas) for one in labelled),
        "area": spread(np.concatenate([one.areas for one in looks])),
        "target_width": spread(boxes[:, 2] - boxes[:, 0]),
        "target_height": spread(boxes[:, 3] - boxes[:, 1]),
        "width": spread(np.array(widths)),
        "height": spread(np.array(heights)),
        "sizes": [
            {"width": w, "height": h, "images": n}
            for (w, h), n in Counter(zip(widths, heights, strict=True)).most_common()
        ],
        "bit_depths": _counts(r.bit_depth for r in dataset if r.size != (0, 0)),
        "channels": _counts(one.channels for one in looks if one.channels),
        "colour_not_gray_equal": colour,
        "gray_masks": {id: {"targets_above_0": a, "targets_above_127": b} for id, (a, b) in gray.items()},
        "sequences": len(sequences) or None,
        "sources": _counts(r.source for r in dataset),
        "scenes": _counts(r.scene for r in dataset if r.scene is not None),
        "default_scheme": dataset.default_scheme,
        "splits": _splits(dataset),
        "errors": severities["error"],
        "warnings": severities["warning"],
        "findings": [f.as_dict() for f in findings],
    }


def spread(values: np.ndarray) -> dict[str, float] | None:
    """Minimum, median and maximum; None of nothing."""
    if not len(values):
        return None
    return {
        "min": float(values.min()),
        "median": float(np.median(values)),
        "max": float(values.max()),
    }


def _counts(values: Iterable[Any]) -> dict[str, int]:
    return {str(key): n for key, n in sorted(Counter(values).items())}


def _boxes_from(dataset: Dataset) -> str | None:
    if any(r.boxes is not None for r in dataset):
        return "label file"
    return "masks (8-connected)" if any(r.mask is not None for r in dataset) else None


def _splits(dataset: Dataset) -> list[dict[str, Any]]:
    out = []
    for name in dataset.split_names():
        records = dataset.part(name, check=False)
        row: dict[str, Any] = {
            "split": name,
            "images": len(records),
            "hash": split_hash(r.id for r in records),
        }
        if name in dataset.unions:
            row["joins"] = list(dataset.unions[name])
        out.append(row)
    return out
