"""The "shooting" rules of the multi-frame papers (DTUM, IEEE TNNLS 2024; used by STD2Net's code).

Positive: probability >= threshold. A target is hit when a positive pixel lies within ``hit`` pixels
(Chebyshev) of any of its pixels. False pixels: positives farther than ``guard`` pixels from all target
pixels. Pd = hits / targets, Fa = false pixels / pixels. At the image border the windows are cut (the
published code lets their indices turn negative, so that targets at the top or left can never be hit).
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..annotate.errors import IrstkitError
from ..annotate.masks import label_mask
from .metrics import as_mask, as_probability


class ShootingMeter:
    """Pd, Fa and their curve by the shooting rules, exact at every threshold.

    Parameters
    ----------
    hit, guard
        Half sizes of the windows in pixels: 1 and 4 as published.
    connectivity
        Of the mask's components.
    """

    def __init__(self, hit: int = 1, guard: int = 4, connectivity: int = 8) -> None:
        if hit < 0 or guard < 0:
            raise IrstkitError(f"window sizes are 0 or more pixels, got hit {hit}, guard {guard}")
        self.hit, self.guard, self.connectivity = hit, guard, connectivity
        self.pixels = self.images = 0
        self._best: list[float] = []  # of each target: the highest threshold at which it is hit
        self._outside: list[tuple[NDArray, NDArray[np.int64]]] = []  # distinct values and their counts

    def update(self, prediction: Any, target: Any, *, id: Hashable = None) -> None:
        """Add one image: (H, W) probabilities and mask."""
        values, truth = as_probability(prediction, id), as_mask(target, id)
        if values.shape != truth.shape:
            raise IrstkitError(
                f"the prediction is {values.shape[::-1]}, the mask {truth.shape[::-1]} (width, height)",
                where=None if id is None else f"image {id}",
            )
        if values.dtype not in (np.float32, np.float64):
            values = values.astype(np.float32)
        self.images += 1
        self.pixels += values.size
        near = cv2.dilate(values, _window(self.hit))  # the best shot at each pixel
        labels, stats = label_mask(truth, connectivity=self.connectivity)
        for k, (x, y, w, h, _) in enumerate(stats.tolist(), start=1):
            self._best.append(float(near[y : y + h, x : x + w][labels[y : y + h, x : x + w] == k].max()))
        guarded = cv2.dilate(truth.astype(np.uint8), _window(self.guard)).astype(bool)
        self._outside.append(np.unique(values[~guarded], return_counts=True))

    def update_levels(self, prediction: Any, target: Any, threshold: float, *, id: Hashable = None) -> None:
        """Add one image in little memory: exact at ``threshold`` and at every multiple of 1/4096."""
        levels = np.unique(np.append(np.arange(4097) / 4096, threshold))
        values = as_probability(prediction, id).astype(np.float64)
        self.update(levels[np.searchsorted(levels, values, side="right") - 1], target, id=id)

    def merge(self, other: ShootingMeter) -> ShootingMeter:
        """Add another part and return ``self``."""
        if (self.hit, self.guard, self.connectivity) != (other.hit, other.guard, other.connectivity):
            raise IrstkitError("parts of different shooting rules")
        self.pixels += other.pixels
        self.images += other.images
        self._best += other._best
        self._outside += other._outside
        return self

    def compute(self, threshold: float = 0.5) -> dict[str, Any]:
        """Pd and Fa at ``threshold`` (inclusive) and the area under the whole curve; None where undefined."""
        hits = sum(b >= threshold for b in self._best)
        false = sum(int(n[v >= threshold].sum()) for v, n in self._outside)
        return {
            "pd": hits / len(self._best) if self._best else None,
            "fa": false / self.pixels if self.pixels else None,
            "auc": self.auc(),
            "hits": hits,
            "targets": len(self._best),
            "false_pixels": false,
            "pixels": self.pixels,
            "images": self.images,
            "threshold": threshold,
            "rule": f"shooting, hit within {self.hit} px, guard {self.guard} px",
        }

    def curve(self) -> tuple[NDArray, NDArray, NDArray]:
        """``(thresholds, pd, fa)`` at every value that changes anything, thresholds falling."""
        best = np.array(self._best)
        values = np.concatenate([v for v, _ in self._outside]) if self._outside else np.zeros(0)
        counts = np.concatenate([n for _, n in self._outside]) if self._outside else np.zeros(0, np.int64)
        thresholds = np.unique(np.concatenate([best, values.astype(np.float64)]))[::-1]
        order = np.argsort(-values, kind="stable")
        total = np.concatenate([[0], np.cumsum(counts[order])])
        false = total[np.searchsorted(-values[order], -thresholds, side="right")]
        hits = np.searchsorted(np.sort(-best), -thresholds, side="right")
        return (
            thresholds,
            hits / len(best) if len(best) else np.full(len(thresholds), np.nan),
            false / max(self.pixels, 1),
        )

    def auc(self) -> float | None:
        """Area under Pd(Fa), from (0, 0) to Fa = 1 at the last Pd; None without targets."""
        if not self._best:
            return None
        _, pd, fa = self.curve()
        return float(np.trapezoid(np.concatenate([[0], pd, pd[-1:]]), np.concatenate([[0], fa, [1]])))


def _window(half: int) -> NDArray[np.uint8]:
    return np.ones((2 * half + 1, 2 * half + 1), np.uint8)
