"""Anchors fitted to the sizes of training targets: k-means, then random mutation (as YOLOv5 and YOLOv7 do)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

RATIO = 4.0
"""A target fits an anchor when both sides are within this factor (the assignment's rule)."""

ENOUGH = 0.98
"""Share of the targets that some anchor must fit for the given anchors to be kept."""


class Fit(NamedTuple):
    """Anchors (9, 2), small to large; the share of targets that fit one; whether they are new."""

    anchors: NDArray[np.float64]
    recall: float
    changed: bool


def best_possible_recall(sizes: ArrayLike, anchors: ArrayLike, *, ratio: float = RATIO) -> float:
    """Share of the (N, 2) widths and heights that are within ``ratio`` of one of the (K, 2) anchors."""
    return float((_closeness(sizes, anchors).max(axis=1) > 1 / ratio).mean())


def fit_anchors(
    sizes: ArrayLike,
    current: Any,
    *,
    count: int = 9,
    ratio: float = RATIO,
    generations: int = 1000,
    seed: int = 0,
    force: bool = False,
) -> Fit:
    """``current`` anchors where they fit 98 % of the targets, else new ones that fit better.

    Parameters
    ----------
    sizes
        (N, 2) widths and heights of the training targets, in pixels of the network's input.
    current
        (K, 2) or (levels, 3, 2) anchors in use.
    generations
        Mutations tried after the k-means; each is kept when it fits better.

    Raises
    ------
    ValueError
        When a size is not above zero, or there is none.
    """
    wh = np.asarray(sizes, np.float64).reshape(-1, 2)
    now = np.asarray(current, np.float64).reshape(-1, 2)
    if not len(wh) or not (wh > 0).all():
        raise ValueError("sizes of targets are widths and heights above 0, and there is at least one")
    recall = best_possible_recall(wh, now, ratio=ratio)
    if recall >= ENOUGH and not force:
        return Fit(now, recall, False)
    rng = np.random.default_rng(seed)
    anchors = _sorted(_mutated(_clusters(wh, count, rng), wh, ratio, generations, rng))
    better = best_possible_recall(wh, anchors, ratio=ratio)
    if better <= recall and not force:
        return Fit(now, recall, False)
    return Fit(anchors, better, True)


def _closeness(sizes: ArrayLike, anchors: ArrayLike) -> NDArray[np.float64]:
    """(N, K): the smaller of the two sides' ratios, each taken below 1."""
    factor = np.asarray(sizes, np.float64)[:, None] / np.asarray(anchors, np.float64)[None]
    return np.minimum(factor, 1 / factor).min(axis=2)


def _fitness(sizes: NDArray, anchors: NDArray, ratio: float) -> float:
    best = _closeness(sizes, anchors).max(axis=1)
    return float((best * (best > 1 / ratio)).mean())


def _clusters(wh: NDArray, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """k-means on sizes whitened by their deviation; where sizes are few, spread copies stand in."""
    from scipy.cluster.vq import kmeans

    spread = wh.std(axis=0)
    spread[spread == 0] = 1
    distinct = np.unique(wh, axis=0)
    centres = distinct / spread if len(distinct) <= count else kmeans(wh / spread, count, iter=30, rng=rng)[0]
    centres = centres * spread
    if len(centres) < count:  # fewer sizes than anchors: neighbours of those there are
        more = centres[rng.integers(len(centres), size=count - len(centres))]
        centres = np.concatenate([centres, more * rng.uniform(0.7, 1.4, more.shape)])
    return centres


def _mutated(
    anchors: NDArray, wh: NDArray, ratio: float, generations: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    wh = wh if len(wh) <= 5000 else wh[rng.choice(len(wh), 5000, replace=False)]
    best = _fitness(wh, anchors, ratio)
    for _ in range(generations):
        change = np.where(
            rng.random(anchors.shape) < 0.9, rng.random() * rng.normal(size=anchors.shape) * 0.1 + 1, 1.0
        )
        trial = np.maximum(anchors * change.clip(0.3, 3.0), 2.0)
        if (fitness := _fitness(wh, trial, ratio)) > best:
            best, anchors = fitness, trial
    return anchors


def _sorted(anchors: NDArray) -> NDArray[np.float64]:
    return anchors[np.argsort(anchors.prod(axis=1), kind="stable")]
