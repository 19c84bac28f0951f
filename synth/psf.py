"""A 2-D Gaussian fitted to a small target: width, anisotropy, and the share of its light inside the mask."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, sqrt

import numpy as np
from numpy.typing import NDArray

LARGEST = 30
"""Pixels of the mask above which a target is no longer taken for a point."""
AROUND = 4
PIXEL_VARIANCE = 1.0 / 12.0  # of the box that each pixel integrates over


@dataclass(frozen=True)
class PsfFit:
    """``sigma`` the geometric mean of the two sigmas in pixels, that of the pixels' own box taken off;
    ``anisotropy`` the larger over the smaller; ``angle`` of the longer axis in radians, 0 along the rows;
    ``energy_inside`` the share of the fitted light on the mask's pixels; (x, y) the centre in the window."""

    sigma: float
    anisotropy: float
    angle: float
    energy_inside: float
    amplitude: float
    x: float
    y: float
    r2: float


def fit_gaussian(
    window: NDArray, mask: NDArray[np.bool_], usable: NDArray[np.bool_] | None = None, *, polarity: int = 1
) -> PsfFit | str:
    """Fit b + a exp(-(p dx^2 + 2 q dx dy + r dy^2) / 2) to a (H, W) window by Levenberg-Marquardt.

    ``mask`` are the target's pixels, ``usable`` those that count (not another target's). The model is sampled at
    the pixels' centres; integration over a pixel widens a Gaussian by a variance of 1/12, which is taken off.

    Returns the fit, or why there is none: ``no convergence``, ``off the target`` (the centre left the
    mask's surroundings), ``no width`` (below 0.2 or above 6 pixels), ``poor`` (it explains less than 60 % of the
    window's variance).
    """
    from scipy.optimize import least_squares

    values = window.astype(np.float64) * polarity
    good = np.ones(window.shape, bool) if usable is None else usable
    ys, xs = np.nonzero(good)
    data = values[good]
    outside = values[good & ~mask]
    if len(data) < 16 or len(outside) < 8:
        return "poor"
    base = float(np.median(outside))
    inner = np.maximum(values - base, 0.0) * mask
    total = float(inner.sum())
    if total <= 0:
        return "poor"
    rows, columns = np.indices(window.shape)
    x0, y0 = float((inner * columns).sum()) / total, float((inner * rows).sum()) / total
    p0 = 2 * pi / max(float(np.count_nonzero(mask)), 2.0)  # a disc of the mask's area at one and a half sigma

    def parts(k: NDArray) -> tuple[NDArray, NDArray, NDArray]:
        dx, dy = xs - k[2], ys - k[3]
        with np.errstate(over="ignore"):
            bell = np.exp(np.minimum(-0.5 * (k[4] * dx * dx + 2 * k[5] * dx * dy + k[6] * dy * dy), 50.0))
        return dx, dy, bell

    def residual(k: NDArray) -> NDArray:
        return k[0] + k[1] * parts(k)[2] - data

    def jacobian(k: NDArray) -> NDArray:
        dx, dy, bell = parts(k)
        lit = k[1] * bell
        return np.stack(
            [
                np.ones_like(bell), bell, lit * (k[4] * dx + k[5] * dy), lit * (k[5] * dx + k[6] * dy),
                -0.5 * lit * dx * dx, -lit * dx * dy, -0.5 * lit * dy * dy,
            ],
            axis=1,
        )  # fmt: skip

    start = np.array([base, float(values[mask].max()) - base, x0, y0, p0, 0.0, p0])
    try:
        found = least_squares(residual, start, jacobian, method="lm", max_nfev=60)
    except (ValueError, np.linalg.LinAlgError):
        return "no convergence"
    _, a, cx, cy, p, q, r = found.x
    determinant = p * r - q * q
    if not found.success or not np.isfinite(found.x).all() or a <= 0 or determinant <= 0 or p <= 0:
        return "no convergence"
    mask_y, mask_x = np.nonzero(mask)
    if not (mask_x.min() - 1 <= cx <= mask_x.max() + 1 and mask_y.min() - 1 <= cy <= mask_y.max() + 1):
        return "off the target"
    covariance = np.array([[r, -q], [-q, p]]) / determinant
    spread, axes = np.linalg.eigh(covariance)
    small, large = np.sqrt(np.maximum(spread - PIXEL_VARIANCE, 1e-4))
    if small * large < 0.2**2 or large > 6:
        return "no width"
    variance = float(((data - data.mean()) ** 2).sum())
    r2 = 1.0 - float((found.fun**2).sum()) / variance if variance > 0 else 0.0
    if r2 < 0.6:
        return "poor"
    light = 2 * pi * a / sqrt(determinant)
    dx, dy = mask_x - cx, mask_y - cy
    inside = float((a * np.exp(-0.5 * (p * dx * dx + 2 * q * dx * dy + r * dy * dy))).sum()) / light
    vx, vy = axes[:, 1]
    return PsfFit(
        float(sqrt(small * large)), float(large / max(small, 0.15)), float(np.arctan2(vy, vx) % pi),
        min(inside, 1.0), float(a), float(cx), float(cy), r2,
    )  # fmt: skip
