"""What the sums say beyond one number: intervals by resampling images, and breakdowns by attribute."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from ..annotate.errors import IrstkitError
from .metrics import ImageRow, SegmentationMeter, TargetRow, summarise

RATIOS = ("iou", "niou", "precision", "recall", "f1", "pd", "fa")

SIZE_EDGES = (1, 10, 26, 50, 82)
"""Pixels of a target: 1-9, 10-25, 26-49, 50-81 (9x9, the usual limit of "small"), 82 and more."""
SCR_EDGES = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 10.0)

IMAGE_KEYS = ("scene", "sequence")
TARGET_KEYS = ("kind", "size", "scr")


def bootstrap(
    meter: SegmentationMeter,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    groups: Mapping[Hashable, Hashable] | None = None,
) -> dict[str, tuple[float, float] | None]:
    """Percentile intervals of the meter's ratios over images drawn with replacement.

    Parameters
    ----------
    resamples
        Number of redrawn sets.
    level
        Coverage, for example 0.95.
    seed
        The intervals are a function of the rows (in the order of their ids) and the seed.
    groups
        ``{image id: group}``: whole groups (sequences, near-twins) are drawn instead of images, since images
        of one sequence are not independent.

    Returns
    -------
    dict
        ``{name: (low, high)}`` for iou, niou, precision, recall, f1, pd, fa; None where fewer than half of
        the redrawn sets define the number.
    """
    if resamples < 1 or not 0 < level < 1:
        raise IrstkitError(f"needs 1 or more resamples and a level in (0, 1), got {resamples} and {level}")
    rows = sorted(meter.rows, key=lambda r: str(r.id))
    if not rows:
        return dict.fromkeys(RATIOS)
    table = np.array(
        [[r.tp, r.fp, r.fn, r.detected, r.targets, r.false_pixels, r.pixels] for r in rows], float
    )
    union = table[:, :3].sum(axis=1)
    iou = np.divide(table[:, 0], union, out=np.zeros(len(rows)), where=union > 0)
    blank = union == 0
    counted = np.ones(len(rows)) if meter.settings.empty != "skip" else (~blank).astype(float)
    if meter.settings.empty == "one":
        iou[blank] = 1
    table = np.column_stack([table, iou, counted])
    if groups is not None:
        missing = [r.id for r in rows if r.id not in groups]
        if missing:
            raise IrstkitError(f"{len(missing)} images have no group, the first is {missing[0]}")
        names = sorted({groups[r.id] for r in rows}, key=str)
        number = {name: k for k, name in enumerate(names)}
        member = np.array([number[groups[r.id]] for r in rows])
        table = np.stack([np.bincount(member, weights=c, minlength=len(names)) for c in table.T], axis=1)
    rng = np.random.default_rng(seed)
    n = len(table)
    sums = np.stack([table[rng.integers(0, n, n)].sum(axis=0) for _ in range(resamples)])
    tp, fp, fn, detected, targets, false, pixels, total, count = sums.T
    parts = {
        "iou": (tp, tp + fp + fn),
        "niou": (total, count),
        "precision": (tp, tp + fp),
        "recall": (tp, tp + fn),
        "f1": (2 * tp, 2 * tp + fp + fn),
        "pd": (detected, targets),
        "fa": (false, pixels),
    }
    out: dict[str, tuple[float, float] | None] = {}
    for name, (above, below) in parts.items():
        defined = below > 0
        if 2 * np.count_nonzero(defined) < resamples:
            out[name] = None
            continue
        tail = (1 - level) / 2
        low, high = np.quantile(above[defined] / below[defined], [tail, 1 - tail])
        out[name] = (float(low), float(high))
    return out


def breakdown(
    meter: SegmentationMeter,
    by: str,
    *,
    images: Mapping[Hashable, Mapping[str, Any]] | None = None,
    targets: Callable[[TargetRow], Mapping[str, Any]] | None = None,
    edges: Sequence[float] | None = None,
) -> dict[str, dict[str, Any]]:
    """Every number by a property of images or of targets.

    Parameters
    ----------
    by
        ``size`` (pixels of the target's mask), ``scr`` and ``kind`` group targets; any other key, such as
        ``scene`` or ``sequence``, groups images.
    images
        ``{image id: {key: value}}`` for keys of images.
    targets
        Gives a target's attributes (``kind``, ``scr``) for a :class:`TargetRow`; for example
        :func:`attribute_lookup` of its data set's annotations. ``size`` needs none.
    edges
        Lower edges of the bins of a numeric key, instead of :data:`SIZE_EDGES` or :data:`SCR_EDGES`.

    Returns
    -------
    dict
        ``{group: numbers}``; groups in order of bins or names, ``unknown`` last (images or targets of which
        the value is not known; nothing is dropped). A group of images has all numbers of
        :meth:`SegmentationMeter.compute`. A group of targets has ``targets``, ``detected``, ``pd``,
        ``recall`` (of its targets' pixels), ``mean_distance`` of its hits and, under ``pure_images``, all
        numbers over the images that hold targets of this group only: a false alarm belongs to an image, not
        to a target, so IoU, Fa and precision of a kind of target can only be told there.
    """
    if by in TARGET_KEYS or (targets is not None and by not in IMAGE_KEYS):
        return _by_target(meter, by, targets, edges)
    return _by_image(meter, by, images or {}, edges)


def _by_image(meter, by, images, edges) -> dict[str, dict[str, Any]]:
    groups: dict[Any, list[ImageRow]] = {}
    for row in meter.rows:
        groups.setdefault(_group(images.get(row.id, {}).get(by), edges), []).append(row)
    return {_title(g, edges): summarise(groups[g], meter.settings) for g in _ordered(groups)}


def _by_target(meter, by, targets, edges) -> dict[str, dict[str, Any]]:
    if by == "size":
        edges = SIZE_EDGES if edges is None else edges
    elif by == "scr":
        edges = SCR_EDGES if edges is None else edges
    if by != "size" and targets is None:
        raise IrstkitError(
            f"no attributes of targets are known, so nothing can be broken down by {by}",
            hint="a published mask tells only the size; annotations.json of a synthetic set the rest",
        )
    groups: dict[Any, list[TargetRow]] = {}
    inside: dict[Hashable, set[Any]] = {}
    for row in meter.target_rows:
        value = row.area if by == "size" else targets(row).get(by)
        group = _group(value, edges)
        groups.setdefault(group, []).append(row)
        inside.setdefault(row.id, set()).add(group)
    out = {}
    for group in _ordered(groups):
        rows = groups[group]
        hits = [r.distance for r in rows if r.distance is not None]
        pure = [r for r in meter.rows if inside.get(r.id) == {group}]
        out[_title(group, edges)] = {
            "targets": len(rows),
            "detected": len(hits),
            "pd": len(hits) / len(rows),
            "recall": sum(r.covered for r in rows) / sum(r.area for r in rows),
            "mean_distance": math.fsum(hits) / len(hits) if hits else None,
            "pure_images": summarise(pure, meter.settings),
        }
    return out


_UNKNOWN = object()


def _group(value: Any, edges: Sequence[float] | None) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return _UNKNOWN
    if edges is None:
        return value
    return int(np.searchsorted(edges, value, side="right")) - 1


def _ordered(groups: Mapping[Any, Any]) -> list[Any]:
    known = [g for g in groups if g is not _UNKNOWN]
    known.sort(key=(lambda g: g) if all(isinstance(g, int | float) for g in known) else str)
    return known + [g for g in groups if g is _UNKNOWN]


def _title(group: Any, edges: Sequence[float] | None) -> str:
    if group is _UNKNOWN:
        return "unknown"
    if edges is None:
        return str(group)
    if group < 0:
        return f"below {edges[0]:g}"
    if group == len(edges) - 1:
        return f"{edges[-1]:g} and more"
    if all(isinstance(e, int) for e in edges):
        low, high = edges[group], edges[group + 1] - 1
        return f"{low}" if low == high else f"{low}-{high}"
    return f"{edges[group]:g} to below {edges[group + 1]:g}"


def attribute_lookup(
    annotations: Mapping[Hashable, Sequence[Mapping[str, Any]]], *, reach: float = 3.0
) -> Callable[[TargetRow], Mapping[str, Any]]:
    """Attributes of targets from the annotations of a data set, by position.

    A mask's components and a COCO file's annotations need not come in one order, and touching targets make
    one component: each target takes the annotation whose box is nearest to its centroid, or holds it, within
    ``reach`` pixels; of several that hold it, the one whose centre is nearest. Without a box, the centre is it.

    Parameters
    ----------
    annotations
        ``{image id: [{"x": ..., "y": ..., "box": (x1, y1, x2, y2), **attributes}, ...]}``, centres in pixels
        (pixel centres at whole numbers), boxes half-open, if there are any. ``scr_achieved`` is offered as ``scr`` where no ``scr`` is given.
    """

    def look(row: TargetRow) -> Mapping[str, Any]:
        best: Mapping[str, Any] = {}
        nearest = reach, math.inf
        for one in annotations.get(row.id, ()):
            x, y = one["x"], one["y"]
            left, top, right, bottom = one.get("box", (x, y, x + 1, y + 1))
            outside = math.hypot(
                max(left - row.x, 0, row.x - (right - 1)), max(top - row.y, 0, row.y - (bottom - 1))
            )
            apart = outside, math.hypot(x - row.x, y - row.y)
            if apart < nearest:
                best, nearest = one, apart
        if "scr" not in best and "scr_achieved" in best:
            return {**best, "scr": best["scr_achieved"]}
        return best

    return look
