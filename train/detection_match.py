"""Which detection hits which target: by overlap as COCO does it, by centre distance as segmenters are judged."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..annotate.boxes import as_boxes, box_iou
from ..annotate.errors import IrstkitError
from ..annotate.masks import label_mask


def order_of(boxes: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.intp]:
    """Detections of an image by falling score; equal scores by y, then x of the upper left corner."""
    return np.lexsort((boxes[:, 0], boxes[:, 1], -scores))


def greedy_match(
    boxes: ArrayLike,
    targets: ArrayLike,
    *,
    iou: float = 0.5,
    strict: bool = False,
    tolerance: float = 0.0,
) -> NDArray[np.int64]:
    """For each detection, in the order given (falling score), the target it hits, or -1.

    COCO's rule: each detection takes the free target with the largest IoU of at least ``iou`` (of equal ones
    the last), also a second-best one. Since nothing depends on later detections, the answer for a higher
    score threshold is a prefix of this one.

    Parameters
    ----------
    strict
        More than ``iou`` is needed (YOLO-style code); COCO counts IoU = ``iou`` as a hit.
    tolerance
        Subtracted from ``iou``: a 3x3 box moved by a pixel has IoU 0.5 only up to rounding.
    """
    overlap = box_iou(boxes, targets)
    least = min(iou, 1 - 1e-10) - tolerance
    hit = np.full(len(overlap), -1, np.int64)
    free = np.ones(overlap.shape[1], bool)
    for k, row in enumerate(overlap):
        usable = free & (row > least if strict else row >= least)
        if usable.any():
            best = np.where(usable, row, -1.0)
            chosen = len(best) - 1 - int(best[::-1].argmax())
            hit[k], free[chosen] = chosen, False
    return hit


def centre_match(boxes: ArrayLike, targets: ArrayLike, *, distance: float = 3.0) -> NDArray[np.int64]:
    """For each detection the target whose centre it is matched to, strictly nearer than ``distance``, or -1.

    As many pairs as possible, of these the assignment with the smallest sum of distances.
    """
    from scipy.optimize import linear_sum_assignment

    a, b = _centres(as_boxes(boxes)), _centres(as_boxes(targets))
    out = np.full(len(a), -1, np.int64)
    if not len(a) or not len(b):
        return out
    apart = np.sqrt(((a[:, None] - b[None]) ** 2).sum(axis=2))
    near = apart < distance
    # a pair out of reach costs more than all pairs within reach together: cardinality comes first
    far = distance * (min(near.shape) + 1)
    rows, columns = linear_sum_assignment(np.where(near, apart, far))
    good = near[rows, columns]
    out[rows[good]] = columns[good]
    return out


def _centres(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def boxes_of_map(
    probability: NDArray, threshold: float = 0.5, *, connectivity: int = 8
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """How a segmenter enters a table of boxes: components above ``threshold``, scored by their largest value.

    ``probability`` is (H, W) in 0..1; returns half-open xyxy boxes (N, 4), scores (N,) and pixels (N,).
    """
    values = np.asarray(probability, np.float64)
    if values.ndim != 2 or (values.size and not (np.nanmin(values) >= 0 and np.nanmax(values) <= 1)):
        raise IrstkitError(f"expected a map (H, W) of probabilities in 0..1, got shape {values.shape}")
    labels, stats = label_mask(values > threshold, connectivity=connectivity)
    boxes = stats[:, :4].astype(np.float64)
    boxes[:, 2:] += boxes[:, :2]
    scores = np.zeros(len(boxes))
    inside = labels > 0
    np.maximum.at(scores, labels[inside] - 1, values[inside])
    return boxes, scores, stats[:, 4].astype(np.float64)
