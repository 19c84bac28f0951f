"""One-to-one matching of labels and predictions by the distance of their centroids; how far two shapes overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from ...annotate.boxes import box_iou
from ...annotate.masks import Instance

DISTANCE = 3.0
"""Pixels; strictly closer centroids match, as in the detection metrics Pd and Fa."""


@dataclass(frozen=True, eq=False)
class Shape:
    """A label or a prediction: half-open box, pixels where known, score (predictions)."""

    box: tuple[float, float, float, float]
    instance: Instance | None
    score: float = 1.0

    @property
    def centroid(self) -> tuple[float, float]:
        """Mean (x, y) of its pixels; of a box its middle (pixel centres at whole numbers)."""
        if self.instance is not None:
            return self.instance.centroid
        return (self.box[0] + self.box[2] - 1) / 2, (self.box[1] + self.box[3] - 1) / 2


def match_shapes(
    labels: Sequence[Shape], predictions: Sequence[Shape], *, distance: float = DISTANCE
) -> list[tuple[int, int]]:
    """Pairs (label, prediction): as many as possible, and of these assignments the one of least summed distance."""
    if not labels or not predictions:
        return []
    a = np.array([s.centroid for s in labels])
    b = np.array([s.centroid for s in predictions])
    apart: NDArray[np.float64] = np.hypot(*(a[:, None] - b[None, :]).transpose(2, 0, 1))
    near = apart < distance
    far = distance * (min(len(labels), len(predictions)) + 1)  # dearer than any number of near pairs
    rows, columns = linear_sum_assignment(np.where(near, apart, far))
    return [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if near[r, c]]


def shape_iou(a: Shape, b: Shape) -> float:
    """Of their pixels where both have them, else of their boxes."""
    if a.instance is None or b.instance is None:
        return float(box_iou([a.box], [b.box])[0, 0])
    x1, y1 = max(a.instance.box[0], b.instance.box[0]), max(a.instance.box[1], b.instance.box[1])
    x2, y2 = min(a.instance.box[2], b.instance.box[2]), min(a.instance.box[3], b.instance.box[3])
    common = 0
    if x1 < x2 and y1 < y2:
        parts = [
            s.mask[y1 - s.box[1] : y2 - s.box[1], x1 - s.box[0] : x2 - s.box[0]]
            for s in (a.instance, b.instance)
        ]
        common = int(np.count_nonzero(parts[0] & parts[1]))
    return common / (a.instance.area + b.instance.area - common)
