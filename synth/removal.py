"""Targets taken out of backgrounds, leaving no patch that could be seen or measured.

A smooth fill would leave a quiet blot in a noisy image. So a hole is filled with *another piece of the same
image*, shifted so that its surroundings match best, plus the kriged difference that makes it meet the hole's
rim: a conditional simulation (J.-P. Chiles, P. Delfiner, *Geostatistics*, 2nd ed., section 7.3.1). The
texture and the noise are the image's own, and by the local autocovariance they follow on from the rim as
the image's pixels follow on from each other: white noise starts anew, smooth cloud goes on.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from ..annotate.masks import label_mask

MARGIN, MAX_MARGIN = 4, 12  # pixels around a mask that still hold the target's light: the least, the most
_RIM = 2  # pixels around the hole that condition the filling
_REACH = 64  # how far from the hole's window a donor is looked for, pixels
_AROUND = 10
_MOST = 400  # pixels of the rim that are kept, of a large hole's every nth

Floats = NDArray[Any]
Window = tuple[int, int, int, int]


def remove_targets(image: NDArray, mask: NDArray[np.bool_], *, margin: int = MARGIN) -> NDArray:
    """A copy of a (H, W) uint8 or uint16 image whose masked targets are replaced by background.

    The mask is grown first, see :func:`find_holes`. Deterministic. Pixels outside the grown mask are untouched.
    """
    return fill_holes(image, find_holes(image, mask, margin=margin))


def find_holes(image: NDArray, mask: NDArray[np.bool_], *, margin: int = MARGIN) -> NDArray[np.bool_]:
    """(H, W) bool: the mask's 8-connected pieces, each grown by ``margin`` pixels at least.

    Grown further, to ``MAX_MARGIN`` at most, while a two pixels wide band around the piece still has another
    level or larger steps from pixel to pixel than what lies beyond: glow, and the ringing of compression.
    """
    out = np.zeros(mask.shape, dtype=bool)
    if not mask.any():
        return out
    wide = max(MAX_MARGIN, margin) + 6
    labels, stats = label_mask(mask)
    for number, (x, y, w, h, _) in enumerate(stats.tolist(), start=1):
        here = np.s_[max(y - wide, 0) : y + h + wide, max(x - wide, 0) : x + w + wide]
        piece = labels[here] == number
        distance = cv2.distanceTransform((~piece).astype(np.uint8), cv2.DIST_L2, 5)
        others = cv2.dilate((mask[here] & ~piece).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
        out[here] |= distance <= _margin(image[here].astype(np.float64), distance, others, margin) + 0.25
    return out


def _margin(values: Floats, distance: Floats, others: NDArray[np.bool_], least: int) -> int:
    steps = np.zeros_like(values)
    steps[:-1] += np.abs(np.diff(values, axis=0))
    steps[:, :-1] += np.abs(np.diff(values, axis=1))
    beyond = ~others & (distance > MAX_MARGIN) & (distance <= MAX_MARGIN + 5)
    if np.count_nonzero(beyond) < 16:
        return least
    level, rough = float(np.median(values[beyond])), float(steps[beyond].mean())
    spread = 1.4826 * float(np.median(np.abs(values[beyond] - level))) + 0.5
    for margin in range(least, MAX_MARGIN):
        band = ~others & (distance > margin) & (distance <= margin + 2)
        if np.count_nonzero(band) < 8:
            return margin
        even = abs(float(np.median(values[band])) - level) < 0.15 * spread
        if even and float(steps[band].mean()) < 1.08 * rough + 0.05:
            return margin
    return MAX_MARGIN


def fill_holes(image: NDArray, hole: NDArray[np.bool_]) -> NDArray:
    """A copy of a (H, W) uint8 or uint16 image with the pixels of ``hole`` replaced by background."""
    if not hole.any():
        return image.copy()
    values = image.astype(np.float64)
    if hole.all():
        values[:] = np.median(values)
    else:
        for x, y, w, h, _ in label_mask(hole)[1].tolist():
            _fill(values, hole, _grow((x, y, x + w, y + h), _RIM, image.shape))
    out = image.copy()
    out[hole] = np.rint(values[hole]).clip(0, np.iinfo(image.dtype).max).astype(image.dtype)
    return out


def _grow(window: Window, by: int, size: tuple[int, ...]) -> Window:
    x1, y1, x2, y2 = window
    return max(x1 - by, 0), max(y1 - by, 0), min(x2 + by, size[1]), min(y2 + by, size[0])


def _fill(values: Floats, hole: NDArray[np.bool_], window: Window) -> None:
    x1, y1, x2, y2 = window
    here = np.s_[y1:y2, x1:x2]
    inside = hole[here]
    near = cv2.dilate(inside.astype(np.uint8), np.ones((2 * _RIM + 1,) * 2, np.uint8)).astype(bool) & ~inside
    if not near.any():
        values[here] = np.median(values[~hole])
        return
    wide = _grow(window, 16, values.shape)
    nearby = np.s_[wide[1] : wide[3], wide[0] : wide[2]]
    covariance = _covariance(values[nearby], ~hole[nearby])
    donor = _donor(values, hole, window, near)
    if donor is None:
        patch = np.full(inside.shape, values[here][near].mean())
    else:
        patch = _unrounded(values, donor, inside.shape, covariance)
    field = _kriged(values[here] - patch, near, inside, covariance)
    values[here] = np.where(inside, patch + field, values[here])
    if donor is not None:
        _match_roughness(values, hole, window, inside, donor)


def _covariance(area: Floats, free: NDArray[np.bool_]) -> Floats:
    """Autocovariance of the free pixels by lag, lag 0 in the middle; positive semidefinite."""
    z = np.where(free, area - area[free].mean(), 0.0)
    size = cv2.getOptimalDFTSize(2 * area.shape[0]), cv2.getOptimalDFTSize(2 * area.shape[1])
    out = np.fft.irfft2(np.abs(np.fft.rfft2(z, size)) ** 2, size) / np.count_nonzero(free)
    out[0, 0] += 1 / 12  # an even area still has its rounding
    return np.fft.fftshift(out)


def _lag(covariance: Floats, down: int = 0, across: int = 0) -> float:
    return float(covariance[covariance.shape[0] // 2 + down, covariance.shape[1] // 2 + across])


def _at(covariance: Floats, a: NDArray[np.intp], b: NDArray[np.intp]) -> Floats:
    """Covariances of the pixels ``a`` (N, 2) with the pixels ``b`` (M, 2)."""
    height, width = covariance.shape
    start = (height // 2) * width + width // 2
    return covariance.ravel().take(
        start + (a @ (width, 1)).astype(np.int32)[:, None] - (b @ (width, 1)).astype(np.int32)
    )


def _kriged(
    difference: Floats, near: NDArray[np.bool_], inside: NDArray[np.bool_], covariance: Floats
) -> Floats:
    """Ordinary kriging of the rim's ``difference`` into the hole; 0 elsewhere."""
    rim = np.argwhere(near)
    rim = rim[:: -(-len(rim) // _MOST)]
    known = difference[rim[:, 0], rim[:, 1]]
    matrix = _at(covariance, rim, rim)
    matrix[np.diag_indices(len(rim))] += 1e-3 * _lag(covariance) + 1e-9
    try:
        factor = cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)
    except LinAlgError:
        return np.where(inside, known.mean(), 0.0)
    ones, weights = cho_solve(factor, np.stack([np.ones(len(rim)), known], axis=1), check_finite=False).T
    mean = weights.sum() / ones.sum()
    out = np.zeros(inside.shape)
    places = np.argwhere(inside)
    for k in range(0, len(places), 4096):
        part = places[k : k + 4096]
        out[part[:, 0], part[:, 1]] = mean + _at(covariance, part, rim) @ (weights - mean * ones)
    return out


def _unrounded(values: Floats, donor: tuple[int, int], size: tuple[int, ...], covariance: Floats) -> Floats:
    """The donor's pixels without the noise of their rounding: else it would be there twice.

    A 5x5 Wiener filter by the local autocovariance; it does nothing where the noise is far above 1/12.
    """
    x, y = donor
    h, w = size
    n = 2
    places = np.argwhere(np.ones((2 * n + 1,) * 2, dtype=bool)) - n
    matrix = _at(covariance, places, places)
    wanted = _at(covariance, places, np.zeros((1, 2), np.intp))[:, 0]
    fast = _lag(covariance) - 0.5 * (_lag(covariance, 0, 1) + _lag(covariance, 1, 0))  # bounds what is white
    wanted[len(places) // 2] -= min(1 / 12, 0.8 * max(fast, 0.0))
    matrix[np.diag_indices(len(places))] += 1e-6 * _lag(covariance) + 1e-9
    kernel = np.linalg.solve(matrix, wanted).reshape(2 * n + 1, -1)
    x1, y1 = max(x - n, 0), max(y - n, 0)
    part = values[y1 : y + h + n, x1 : x + w + n]
    level = part.mean()
    out = cv2.filter2D(part - level, -1, kernel, borderType=cv2.BORDER_REFLECT_101) + level
    return out[y - y1 : y - y1 + h, x - x1 : x - x1 + w]


def _donor(
    values: Floats, hole: NDArray[np.bool_], window: Window, near: NDArray[np.bool_]
) -> tuple[int, int] | None:
    """Top left (x, y) of the same-sized window, free of holes, whose rim matches best after its mean is taken.

    The mean squared difference over the product of the two deviations: by the difference alone the evenest
    piece would win wherever nothing matches.
    """
    x1, y1, x2, y2 = window
    h, w = near.shape
    ax, ay, bx, by = _grow(window, min(3 * max(w, h), _REACH), values.shape)
    if bx - ax <= w or by - ay <= h:
        return None
    area = values[ay:by, ax:bx].astype(np.float32)
    level = float(area.mean())
    area = area - level
    known = near.astype(np.float32)
    shown = (values[y1:y2, x1:x2].astype(np.float32) - level) * known
    n = float(known.sum())

    # sum over the rim of ((donor - mean) - (here - mean))^2, by correlations with the rim's indicator
    def sweep(a: NDArray, b: NDArray) -> NDArray:
        return cv2.matchTemplate(a, b, cv2.TM_CCORR).astype(np.float64)

    s1, s2, cross = sweep(area, known), sweep(area * area, known), sweep(area, shown)
    t1, t2 = float(shown.sum()), float((shown * shown).sum())
    cost = np.maximum(s2 - 2 * cross + t2 - (s1 - t1) ** 2 / n, 0.0) / n
    own, theirs = max(t2 / n - (t1 / n) ** 2, 0.0), np.maximum(s2 / n - (s1 / n) ** 2, 0.0)
    cost /= np.sqrt(own * theirs) + 0.25
    taken = cv2.boxFilter(
        hole[ay:by, ax:bx].astype(np.float32), -1, (w, h), anchor=(0, 0), normalize=False,
        borderType=cv2.BORDER_CONSTANT,
    )  # fmt: skip
    cost[taken[: cost.shape[0], : cost.shape[1]] > 0.5] = np.inf
    best = int(np.argmin(cost))
    if not np.isfinite(cost.flat[best]):
        return None
    row, column = divmod(best, cost.shape[1])
    return ax + column, ay + row


def _roughness(
    values: Floats, hole: NDArray[np.bool_], window: Window, inside: NDArray[np.bool_]
) -> tuple[float, float] | None:
    """Deviation of the Laplacian of the rounded image: in a window's ``inside``, and in what lies around it."""
    x1, y1, x2, y2 = window
    ax, ay, bx, by = _grow(window, _AROUND - _RIM, values.shape)
    rough = cv2.Laplacian(np.rint(values[ay:by, ax:bx]), cv2.CV_64F)
    within = np.zeros(rough.shape, dtype=bool)
    within[y1 - ay : y2 - ay, x1 - ax : x2 - ax] = inside
    taken = (within | hole[ay:by, ax:bx]).astype(np.uint8)
    around = cv2.dilate(taken, np.ones((3, 3), np.uint8)) == 0
    if np.count_nonzero(around) < 16:
        return None
    return float(rough[within].std()), float(rough[around].std())


def _match_roughness(
    values: Floats, hole: NDArray[np.bool_], window: Window, inside: NDArray[np.bool_], donor: tuple[int, int]
) -> None:
    """Soften or sharpen the filling until it is to its surroundings as the donor is to its own.

    Rounding, clipping and the meeting of two textures leave it a few per cent off. The measure is the
    deviation of the Laplacian of the rounded image; the filling is moved towards its 5x5 Gaussian mean, or
    away from it.
    """
    x1, y1, x2, y2 = window
    there = _roughness(values, hole, (donor[0], donor[1], donor[0] + x2 - x1, donor[1] + y2 - y1), inside)
    here = _roughness(values, hole, window, inside)
    if there is None or here is None:
        return
    wanted = max(here[1], 0.1) * min(max(max(there[0], 0.1) / max(there[1], 0.1), 0.6), 1.65)
    ax, ay, bx, by = _grow(window, 3, values.shape)
    inner = np.s_[y1 - ay : y2 - ay, x1 - ax : x2 - ax]
    part = values[ay:by, ax:bx].copy()
    start = part[inner].copy()
    towards = np.where(inside, cv2.GaussianBlur(part, (5, 5), 1.0)[inner] - start, 0.0)
    best: tuple[float, Floats] | None = None
    for share in np.linspace(-0.4, 1.0, 29):
        part[inner] = start + share * towards
        found = float(cv2.Laplacian(np.rint(part), cv2.CV_64F)[inner][inside].std())
        error = abs(float(np.log(max(found, 0.05) / wanted))) + 0.02 * abs(share)
        if best is None or error < best[0]:
            best = error, part[inner].copy()
    assert best is not None
    values[y1:y2, x1:x2] = best[1]
