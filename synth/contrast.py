"""The amplitude at which the image as written has the SCR asked for (annotate/scr.py measures it).

SCR = |mean(T) - mean(B)| / std(B). T: the target's mask pixels. B, the ring: the target's tight box grown by
``ring`` pixels on each side, clipped to the image, minus all targets' masks; population deviation. Fewer than
16 ring pixels or zero deviation: undefined.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from ..annotate.scr import MIN_RING_PIXELS

Box = tuple[int, int, int, int]


def ring_window(box: Box, ring: int, size: tuple[int, int]) -> Box:
    """The half-open box grown by ``ring`` pixels on each side and clipped to an image of (height, width)."""
    x1, y1, x2, y2 = box
    return max(x1 - ring, 0), max(y1 - ring, 0), min(x2 + ring, size[1]), min(y2 + ring, size[0])


Render = Callable[[NDArray[np.float64], NDArray[np.intp]], NDArray[np.float64]]
"""Signal values (..., S) at S flat window positions -> the gray levels written there."""


def rounded(top: int) -> Render:
    """The plain camera: rounds to whole gray levels and clips to 0..top."""

    def render(signal: NDArray[np.float64], _: NDArray[np.intp]) -> NDArray[np.float64]:
        return np.rint(signal).clip(0.0, top)

    return render


@dataclass(frozen=True)
class Solution:
    """``amplitude`` in gray levels (signed by polarity), what it achieves, and how well that serves.

    ``status``: ``ok`` within the tolerance, ``quantised`` within what one gray level of mean contrast
    resolves, ``saturated`` where neither can be had; ``clipped`` counts the target's pixels at 0 or top.
    """

    amplitude: float
    achieved: float
    difference: float
    deviation: float
    status: str
    clipped: int


def solve(
    window: NDArray[np.float64],
    patch: NDArray[np.float64],
    target: NDArray[np.bool_],
    ring: NDArray[np.bool_],
    requested: float,
    sign: int,
    top: int,
    render: Render | None = None,
    tolerance: float = 0.05,
) -> Solution | None:
    """The amplitude a at which render(window + a patch) has the requested SCR.

    All arrays have the window's shape: ``window`` the signal without this target, ``patch`` what a target of
    unit peak adds, ``target`` its mask, ``ring`` the ring's pixels. Without rounding the condition
    (d0 + a d1)^2 = scr^2 (v0 + 2 a c + a^2 v1) is a quadratic in a (the patch spills into the ring, so that
    the deviation moves with a); its root starts a search on what is really written, since rounding makes
    the SCR a fine staircase and clipping bends it.

    Returns None where the SCR is undefined or the place already has more contrast than was asked for.
    """
    render = render or rounded(top)
    flat, weight = window.ravel(), patch.ravel()
    in_t, in_b = np.flatnonzero(target), np.flatnonzero(ring)
    if len(in_b) < MIN_RING_PIXELS:
        return None
    spill = in_b[np.abs(weight[in_b]) > 1e-4]
    still = in_b[np.abs(weight[in_b]) <= 1e-4]
    fixed = render(flat[still], still)
    count, total, squares = len(in_b), float(fixed.sum()), float(fixed @ fixed)
    moving = np.concatenate([in_t, spill])
    base, gain, n_t = flat[moving], weight[moving] * sign, len(in_t)

    def levels(amplitudes: NDArray[np.float64]) -> tuple[NDArray, NDArray, NDArray]:
        """SCR signed by polarity, difference and deviation at each amplitude."""
        written = render(base + amplitudes[:, None] * gain, moving)
        inner, outer = written[:, :n_t], written[:, n_t:]
        mean_b = (total + outer.sum(axis=1)) / count
        variance = (squares + np.einsum("ij,ij->i", outer, outer)) / count - mean_b * mean_b
        difference = (inner.mean(axis=1) - mean_b) * sign
        deviation = np.sqrt(np.maximum(variance, 0.0))
        with np.errstate(divide="ignore", invalid="ignore"):
            scr = np.where(deviation > 1e-9, difference / deviation, np.inf * np.sign(difference))
        return scr, difference, deviation

    start = _quadratic(base, gain, n_t, total, squares, count, requested)
    if start is None:
        start = float(top)
    elif start <= 0.0:
        return None
    limit = 1.6 * top / max(float(weight[in_t].mean()), 0.05)
    amplitude = min(start, limit)
    best: tuple[float, float, float, float, float] | None = None

    def search(grid: NDArray[np.float64]) -> None:
        nonlocal best, amplitude
        scr, difference, deviation = levels(grid)
        error = np.abs(scr - requested)
        error[~np.isfinite(error)] = np.inf
        k = int(np.argmin(error))
        if best is None or error[k] < best[0]:
            best = float(error[k]), float(grid[k]), float(scr[k]), float(difference[k]), float(deviation[k])
        amplitude = best[1]

    search(amplitude * _NEAR)
    good = requested * tolerance * 0.2
    if best is None or best[0] > good:
        if best is None or best[0] > requested * 0.03:
            search(limit * _WIDE)
            search(amplitude * _MIDDLE)
        search(amplitude * _FINE)
    assert best is not None
    error, amplitude, achieved, difference, deviation = best
    if not np.isfinite(error) or deviation <= 0 or difference <= 0:
        return None
    final = render(base[:n_t] + amplitude * gain[:n_t], moving[:n_t])
    clipped = int(np.count_nonzero((final <= 0) | (final >= top)))
    status = grade(achieved, requested, deviation, tolerance)
    return Solution(sign * amplitude, achieved, sign * difference, deviation, status, clipped)


_NEAR = np.linspace(0.97, 1.03, 25)
_WIDE = np.geomspace(2e-3, 1.0, 64)
_MIDDLE = np.linspace(0.88, 1.12, 49)
_FINE = np.linspace(0.995, 1.005, 41)


def grade(achieved: float, requested: float, deviation: float, tolerance: float = 0.05) -> str:
    """``ok``, ``quantised`` or ``saturated``: see :class:`Solution`."""
    error = abs(achieved - requested)
    if error <= tolerance * requested:
        return "ok"
    return "quantised" if error * deviation <= 1.0 else "saturated"


def _quadratic(
    base: NDArray[np.float64],
    gain: NDArray[np.float64],
    n_t: int,
    total: float,
    squares: float,
    count: int,
    scr: float,
) -> float | None:
    """Largest root of the unrounded condition; None where the spill keeps the SCR below the requested one."""
    outer, slope = base[n_t:], gain[n_t:]
    mean0, mean1 = (total + float(outer.sum())) / count, float(slope.sum()) / count
    v0 = (squares + float(outer @ outer)) / count - mean0 * mean0
    c = float(outer @ slope) / count - mean0 * mean1
    v1 = float(slope @ slope) / count - mean1 * mean1
    sign = 1.0 if gain[0] >= 0 else -1.0
    d0 = (float(base[:n_t].mean()) - mean0) * sign
    d1 = (float(gain[:n_t].mean()) - mean1) * sign
    s2 = scr * scr
    a, b, k = d1 * d1 - s2 * v1, 2 * (d0 * d1 - s2 * c), d0 * d0 - s2 * v0
    if a <= 0 or d1 <= 0:
        return None
    under = b * b - 4 * a * k
    if under < 0:
        return None
    root = (-b + sqrt(under)) / (2 * a)
    return root if d0 + root * d1 > 0 else 0.0


def spill_limit(patch: NDArray[np.float64], target: NDArray[np.bool_], ring_pixels: int) -> float:
    """The SCR that a patch cannot exceed however bright it is: its own spill is the ring's deviation then."""
    inside = patch[target]
    outside = patch[~target]
    mean = float(outside.sum()) / ring_pixels
    variance = float(np.einsum("i,i->", outside, outside)) / ring_pixels - mean * mean
    return (float(inside.mean()) - mean) / sqrt(variance) if variance > 0 else float("inf")
