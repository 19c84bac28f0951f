"""Targets taken out of backgrounds, leaving no patch that could be seen or measured.

A smooth fill would leave a quiet blot in a noisy image. So a hole is filled with *another piece of the same
image*, shifted so that its surroundings match best, plus the smooth (harmonic) field that makes it meet the
hole's rim: the texture and the noise are the image's own, the brightness is the hole's own neighbourhood's.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ..annotate.masks import label_mask

MARGIN = 3  # pixels around a mask that still hold the target's blur
_RIM = 3
_STEPS = 200


def remove_targets(image: NDArray, mask: NDArray[np.bool_], *, margin: int = MARGIN) -> NDArray:
    """A copy of a (H, W) uint8 or uint16 image whose masked targets are replaced by background.

    ``mask`` (H, W) is grown by ``margin`` pixels first. Deterministic. Pixels outside the grown mask are
    untouched.
    """
    if not mask.any():
        return image.copy()
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1, 2 * margin + 1))
    hole = cv2.dilate(mask.astype(np.uint8), kernel).astype(bool)
    values = image.astype(np.float64)
    _, stats = label_mask(hole)
    top = np.iinfo(image.dtype).max
    for x, y, w, h, _ in stats.tolist():
        _fill(values, hole, (x, y, x + w, y + h))
    out = image.copy()
    out[hole] = np.rint(values[hole]).clip(0, top).astype(image.dtype)
    return out


def _fill(values: NDArray[np.float64], hole: NDArray[np.bool_], box: tuple[int, int, int, int]) -> None:
    height, width = values.shape
    x1, y1 = max(box[0] - _RIM, 0), max(box[1] - _RIM, 0)
    x2, y2 = min(box[2] + _RIM, width), min(box[3] + _RIM, height)
    here = (slice(y1, y2), slice(x1, x2))
    inside, known = hole[here], ~hole[here]
    if not known.any():
        values[here] = np.median(values[~hole]) if (~hole).any() else values.mean()
        return
    donor = _donor(values, hole, (x1, y1, x2, y2))
    if donor is None:
        patch = np.zeros(inside.shape)
    else:
        patch = values[donor[1] : donor[1] + y2 - y1, donor[0] : donor[0] + x2 - x1]
    field = _membrane(np.where(known, values[here] - patch, 0.0), inside)
    values[here] = np.where(inside, patch + field, values[here])


def _donor(
    values: NDArray[np.float64], hole: NDArray[np.bool_], window: tuple[int, int, int, int]
) -> tuple[int, int] | None:
    """Top left (x, y) of the same-sized window, free of targets, whose rim matches best after its mean is taken."""
    height, width = values.shape
    x1, y1, x2, y2 = window
    w, h = x2 - x1, y2 - y1
    reach = 3 * max(w, h)
    ax, ay = max(x1 - reach, 0), max(y1 - reach, 0)
    bx, by = min(x2 + reach, width), min(y2 + reach, height)
    if bx - ax <= w or by - ay <= h:
        return None
    area = values[ay:by, ax:bx].astype(np.float32)
    level = float(area.mean())
    area = area - level
    known = (~hole[y1:y2, x1:x2]).astype(np.float32)
    shown = (values[y1:y2, x1:x2].astype(np.float32) - level) * known
    n = float(known.sum())

    # sum over the rim of ((donor - mean) - (here - mean))^2, by correlations with the rim's indicator
    def sweep(a: NDArray, b: NDArray) -> NDArray:
        return cv2.matchTemplate(a, b, cv2.TM_CCORR).astype(np.float64)

    s1, s2, cross = sweep(area, known), sweep(area * area, known), sweep(area, shown)
    t1, t2 = float(shown.sum()), float((shown * shown).sum())
    cost = s2 - 2 * cross + t2 - (s1 - t1) ** 2 / n
    taken = sweep(hole[ay:by, ax:bx].astype(np.float32), np.ones((h, w), np.float32)) > 0.5
    cost[taken] = np.inf
    best = int(np.argmin(cost))
    if not np.isfinite(cost.flat[best]):
        return None
    row, column = divmod(best, cost.shape[1])
    return ax + column, ay + row


def _membrane(border: NDArray[np.float64], inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The harmonic field inside a hole whose known rim has the values ``border``; the image's edge is free.

    The rim's noise is smoothed before it is continued inwards, else streaks of single pixels would show.
    """
    known = (~inside).astype(np.float64)
    soft = cv2.GaussianBlur(border * known, (5, 5), 1.0, borderType=cv2.BORDER_REPLICATE)
    weight = cv2.GaussianBlur(known, (5, 5), 1.0, borderType=cv2.BORDER_REPLICATE)
    rim = np.where(inside, 0.0, soft / np.maximum(weight, 1e-9))
    field = np.where(inside, rim[~inside].mean(), rim)
    kernel = np.array([[0, 0.25, 0], [0.25, 0, 0.25], [0, 0.25, 0]])
    for _ in range(_STEPS):
        field = np.where(inside, cv2.filter2D(field, -1, kernel, borderType=cv2.BORDER_REPLICATE), rim)
    return field
