"""Curves over the threshold: the target ROC (Pd against Fa) and the pixel ROC, exact at every value."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..annotate.errors import IrstkitError
from .metrics import as_mask, as_probability
from .metrics_match import Edge, _assign, components
from .metrics_near import NearStates
from .metrics_tree import as_levels, near_states


@dataclass(frozen=True, eq=False)
class TargetRoc:
    """Detected targets and false pixels as functions of the threshold (positive: probability > threshold).

    ``thresholds`` fall, from the largest value (nothing is positive) to 0; between two of them nothing
    changes: at any t the counts are those of the largest threshold that is not above t. Neither ``pd`` nor
    ``fa`` is monotone: components merge as the threshold falls, and an unmatched one may become matched.
    """

    thresholds: NDArray
    detected: NDArray[np.int64]
    false_pixels: NDArray[np.int64]
    targets: int
    pixels: int

    @property
    def pd(self) -> NDArray[np.float64]:
        """Detected targets / targets; not-a-number everywhere where there is no target."""
        return self.detected / self.targets if self.targets else np.full(len(self.detected), np.nan)

    @property
    def fa(self) -> NDArray[np.float64]:
        """False pixels / pixels."""
        return self.false_pixels / self.pixels

    def at(self, threshold: float) -> tuple[int, int]:
        """``(detected, false_pixels)`` at one threshold."""
        k = int(np.searchsorted(-self.thresholds, -threshold, side="left"))
        return (int(self.detected[k]), int(self.false_pixels[k])) if k < len(self.thresholds) else (0, 0)

    def pd_at_fa(self, limit: float) -> tuple[float, float] | None:
        """The largest Pd with Fa <= ``limit`` (a fraction) and its highest threshold; None if no target."""
        if not self.targets:
            return None
        pd = np.where(self.fa <= limit, self.detected, -1)
        k = int(np.argmax(pd))
        return float(self.pd[k]), float(self.thresholds[k])

    def auc(self, max_fa: float = 1.0) -> float | None:
        """Area under the best Pd that each Fa allows, for Fa from 0 to ``max_fa``, divided by ``max_fa``.

        Since the curve turns back on itself, it is the staircase ``max Pd over all thresholds with Fa <= f``
        that is integrated, exactly (DTUM sorts by Fa and joins the points by straight lines instead, which
        depends on which thresholds were sampled). None without targets.
        """
        if not 0 < max_fa <= 1:
            raise IrstkitError(f"max_fa is a fraction above 0, up to 1, got {max_fa}")
        if not self.targets:
            return None
        order = np.lexsort((-self.detected, self.false_pixels))
        fa, best = self.fa[order], np.maximum.accumulate(self.detected[order])
        inside = fa < max_fa
        edges = np.append(fa[inside], max_fa)
        return float(np.sum(np.diff(edges) * best[inside]) / (self.targets * max_fa))


def target_roc(
    prediction: Any, target: Any, *, distance: float = 3.0, connectivity: int = 8, id: Hashable = None
) -> TargetRoc:
    """The exact target ROC of one image, with the optimal matching at every threshold.

    Parameters
    ----------
    prediction
        (H, W) probabilities in [0, 1].
    target
        (H, W) mask.
    distance, connectivity
        As in :class:`.metrics.Settings`.
    """
    probability = as_probability(prediction, id)
    if probability.dtype == bool:
        probability = probability.astype(np.float32)
    truth = as_mask(target, id)
    if truth.shape != probability.shape:
        raise IrstkitError(
            f"the prediction is {probability.shape[::-1]}, the mask {truth.shape[::-1]} (width, height)",
            where=None if id is None else f"image {id}",
        )
    targets = components(truth, connectivity=connectivity)
    levels, table = as_levels(probability)
    ascending = np.sort(levels, axis=None)
    ascending = ascending[np.searchsorted(ascending, 0, side="right") :]
    states = near_states(levels, ascending, targets, distance, connectivity=connectivity)
    # Distinct levels, rising, from 0; and how many pixels lie below each
    n = len(ascending)
    new = np.empty(n + 1, bool)
    new[:1] = new[n:] = True
    np.not_equal(ascending[1:], ascending[:-1], out=new[1:n])
    step = np.flatnonzero(new)  # where each distinct level starts, and n
    distinct = np.zeros(len(step), np.int32)
    distinct[1:] = ascending[step[:-1]]
    detected, matched = _along(distinct, states)
    np.add(matched, step, out=matched)
    np.subtract(n, matched, out=matched)  # positives are n - step
    values = distinct.view(np.float32) if table is None else table[distinct]
    return TargetRoc(values[::-1], detected[::-1], matched[::-1], len(targets), int(truth.size))


def _along(values: NDArray, states: NearStates) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Matched targets and the area of what they are matched to, at each (rising) value."""
    detected, matched = np.zeros((2, len(values) + 1), np.int64)
    low, high = (np.searchsorted(values, v.astype(values.dtype)) for v in (states.low, states.high))
    free = _uncontested(states, low, high)
    for begin, end, area in [
        (low[free], high[free], states.area[free]),
        *_contested(states, low, high, ~free),
    ]:
        np.add.at(detected, begin, 1)
        np.add.at(detected, end, -1)
        np.add.at(matched, begin, area)
        np.add.at(matched, end, -area)
    np.cumsum(detected, out=detected)
    np.cumsum(matched, out=matched)
    return detected[:-1], matched[:-1]


def _uncontested(states: NearStates, low: NDArray, high: NDArray) -> NDArray[np.bool_]:
    """States near one target only, which at no threshold is near another state."""
    if not len(low):
        return np.zeros(0, bool)
    _, inverse, count = np.unique(states.component, return_inverse=True, return_counts=True)
    bad = set(states.target[count[inverse] > 1].tolist())
    # each target's states by their lower end: a running maximum of upper ends finds overlaps
    order = np.lexsort((low, states.target))
    t = states.target[order]
    apart = t * (int(high.max()) + 1)  # keeps targets from each other
    overlap = np.maximum.accumulate(high[order] + apart)[:-1] > (low[order] + apart)[1:]
    bad.update(t[1:][overlap].tolist())
    return ~np.isin(states.target, list(bad))


def _contested(states, low, high, which) -> Iterable[tuple[NDArray, NDArray, NDArray]]:
    """Where targets and states compete: the optimal assignment between any two changes."""
    chosen = np.flatnonzero(which)
    if not len(chosen):
        return []
    events = sorted(
        [(int(low[k]), 1, k) for k in chosen.tolist()] + [(int(high[k]), 0, k) for k in chosen.tolist()]
    )
    alive: set[int] = set()
    out: list[tuple[int, int, int]] = []
    last = 0
    for at, starts, k in events:
        if at > last and alive:
            out.extend((last, at, area) for area in _matched_areas(states, alive))
        last = at
        if starts:
            alive.add(k)
        else:
            alive.discard(k)
    begin, end, area = (np.array(c, np.int64) for c in zip(*out, strict=True))
    return [(begin, end, area)]


def _matched_areas(states: NearStates, alive: set[int]) -> list[int]:
    names = {c: n for n, c in enumerate(sorted({int(states.component[k]) for k in alive}))}
    area = [0] * len(names)
    edges: list[Edge] = []
    for k in sorted(alive):
        name = names[int(states.component[k])]
        area[name] = int(states.area[k])
        edges.append((int(states.target[k]), name, float(states.distance[k])))
    return [area[p] for _, p, _ in _assign(edges, area)]


def merge_target_rocs(rocs: Iterable[TargetRoc]) -> TargetRoc:
    """The target ROC of a set from those of its images: exact at every value that occurs in any of them."""
    parts = list(rocs)
    if not parts:
        raise IrstkitError("no curves to merge")
    thresholds = np.unique(np.concatenate([r.thresholds for r in parts]))[::-1]
    # A curve's counts change just below each of its values: at t, all changes of values above t are made.
    values = np.concatenate([r.thresholds[:-1] for r in parts])
    order = np.argsort(-values, kind="stable")
    made = np.searchsorted(-values[order], -thresholds, side="left")
    detected, false_pixels = (
        np.cumsum(np.append(0, np.concatenate([np.diff(getattr(r, name)) for r in parts])[order]))[made]
        for name in ("detected", "false_pixels")
    )
    return TargetRoc(
        thresholds, detected, false_pixels, sum(r.targets for r in parts), sum(r.pixels for r in parts)
    )


# ---------------------------------------------------------------------------------------------- pixels


@dataclass(frozen=True, eq=False)
class PixelRoc:
    """True and false positive rate of pixels over falling thresholds (positive: probability > threshold).

    ``auc`` is the area under the straight lines between the points (ties counted half: the probability that
    a target pixel scores above a background pixel); None where either class is missing.
    """

    thresholds: NDArray
    tpr: NDArray[np.float64]
    fpr: NDArray[np.float64]
    auc: float | None


class PixelRocMeter:
    """The pixel ROC of a set, all pixels pooled (what SD2Net and DATransNet call AUC).

    A saturated network has an AUC of about (1 + recall - FPR) / 2, since nearly all its scores are 0 or 1:
    the number then tells recall, not ranking.

    Parameters
    ----------
    mode
        ``exact``: every distinct value is a threshold; memory grows with the number of distinct values.
        ``histogram``: ``bins`` equal bins of probability, in constant memory; the AUC is off by at most half
        the probability that a target and a background pixel share a bin.
        ``dnanet``: the 11 thresholds 0, 0.1 ... 1 and the denominators (+ 0.001) of DNA-Net's released code.
    bins
        Of the histogram, at least 100.
    """

    def __init__(self, mode: str = "exact", bins: int = 1000) -> None:
        if mode not in ("exact", "histogram", "dnanet"):
            raise IrstkitError(f"the pixel ROC's mode is exact, histogram or dnanet, got {mode!r}")
        if bins < 100:
            raise IrstkitError(
                f"a histogram needs at least 100 bins for its AUC to mean anything, got {bins}"
            )
        self.mode, self.bins = mode, bins
        self._edges = np.linspace(0, 1, bins + 1) if mode == "histogram" else np.linspace(0, 1, 11)
        self._counts = np.zeros((2, len(self._edges) + 1), np.int64)  # background, target
        self._parts: list[tuple[NDArray, NDArray[np.int64]]] = []  # distinct values, (2, n) counts

    def update(self, prediction: Any, target: Any, *, id: Hashable = None) -> None:
        """Add one image: (H, W) probabilities and mask."""
        values = as_probability(prediction, id).ravel()
        truth = as_mask(target, id).ravel()
        if values.shape != truth.shape:
            raise IrstkitError(
                f"the prediction has {len(values)} pixels, the mask {len(truth)}",
                where=None if id is None else f"image {id}",
            )
        if values.dtype == bool:
            values = values.astype(np.float32)
        if self.mode == "exact":
            distinct, at = np.unique(values, return_inverse=True)
            n = len(distinct)
            hits = np.bincount(at[truth], minlength=n)
            self._parts.append((distinct, np.stack([np.bincount(at, minlength=n) - hits, hits])))
            return
        # bin k holds edges[k-1] < value <= edges[k]: "above edges[k]" is then a sum of whole bins
        at = np.searchsorted(self._edges, values, side="left")
        hits = np.bincount(at[truth], minlength=self._counts.shape[1])
        self._counts[1] += hits
        self._counts[0] += np.bincount(at, minlength=self._counts.shape[1]) - hits

    def add(self, values: NDArray, counts: NDArray[np.int64]) -> None:
        """Add pixels that are counted already: (n,) rising values, (2, n) background and target pixels."""
        if self.mode != "exact":
            raise IrstkitError(f"counted values need the mode exact, this is {self.mode}")
        self._parts.append((values, counts))

    def merge(self, other: PixelRocMeter) -> PixelRocMeter:
        """Add the pixels of another part and return ``self``."""
        if (self.mode, self.bins) != (other.mode, other.bins):
            raise IrstkitError(
                f"parts of different modes: {self.mode}, {self.bins} and {other.mode}, {other.bins}"
            )
        self._counts += other._counts
        self._parts += other._parts
        return self

    def compute(self) -> PixelRoc:
        """The curve and its area."""
        if self.mode == "exact":
            if self._parts:
                values = np.concatenate([p[0] for p in self._parts])
                thresholds, at = np.unique(values, return_inverse=True)
                counts = np.zeros((2, len(thresholds)), np.int64)
                for row in (0, 1):
                    np.add.at(counts[row], at, np.concatenate([p[1][row] for p in self._parts]))
                self._parts = [(thresholds, counts)]  # so that calling again is cheap
            else:
                thresholds, counts = np.zeros(0), np.zeros((2, 0), np.int64)
            falling = np.append(thresholds[::-1], -np.inf)  # below every value: all are positive
            above = np.cumsum(np.concatenate([np.zeros((2, 1), np.int64), counts[:, ::-1]], axis=1), axis=1)
        else:
            falling = self._edges[::-1]
            above = np.cumsum(self._counts[:, ::-1], axis=1)[:, : len(falling)]
            # bins end at their upper edge; the first bin holds value 0 alone
        background, hits = (int(n) for n in self._totals())
        if self.mode == "dnanet":
            fpr, tpr = above[0] / (background + 0.001), above[1] / (hits + 0.001)
            return PixelRoc(falling, tpr, fpr, float(np.trapezoid(tpr, fpr)) if background and hits else None)
        if not background or not hits:
            nothing = np.full(len(falling), np.nan)
            return PixelRoc(
                falling,
                above[1] / hits if hits else nothing,
                above[0] / background if background else nothing,
                None,
            )
        fpr, tpr = above[0] / background, above[1] / hits
        area = np.trapezoid(
            np.append(tpr, 1.0), np.append(fpr, 1.0)
        )  # value 0 is never positive: close the curve
        return PixelRoc(falling, tpr, fpr, float(area))

    def _totals(self) -> NDArray[np.int64]:
        if self.mode == "exact":
            return sum((p[1].sum(axis=1) for p in self._parts), np.zeros(2, np.int64))
        return self._counts.sum(axis=1)
