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

MARGIN, MAX_MARGIN = 4, 16  # pixels around a mask that still hold the target's light: the least, the most
_RIM = 2  # pixels around the hole that condition the filling
_REACH = 64  # how far from the hole's window a donor is looked for, pixels
_AROUND = 10
_MOST = 400  # pixels of the rim that are kept, of a large hole's every nth
_SHIFTS = [(dy, dx) for dy in range(-48, 49, 24) for dx in range(-48, 49, 24) if dy or dx]
_LIKE = 16  # how many of the places nearby are compared with: those whose surroundings are most alike
_BEYOND = 2  # pixels that a hole is grown beyond the first calm band: the band's inner part may still glow
_NOISE = 4.0  # noise of the rim in the smooth field, in mean squared half steps of the image
_FINE = 2.0  # Gaussian of this many pixels parts the rim's fine difference from its smooth one
_WEIGHTS = np.array([0.4, 0.3, 0.3])  # of _Texture's three measures when a filling is matched
_SHARES = np.linspace(-0.4, 1.0, 15), np.linspace(-0.5, 0.8, 14)  # steps tried in _match_texture's two ways
_RELUCTANCE = 0.02  # what a whole step costs, against the measures' errors
_FURTHEST = 1.0  # a donor unlike its own surroundings is followed so far, in logarithm
_CROSS = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], dtype=np.float64)

Floats = NDArray[Any]
Window = tuple[int, int, int, int]


def remove_targets(image: NDArray, mask: NDArray[np.bool_], *, margin: int = MARGIN) -> NDArray:
    """A copy of a (H, W) uint8 or uint16 image whose masked targets are replaced by background.

    The mask is grown first, see :func:`find_holes`. Deterministic. Pixels outside the grown mask are untouched.
    """
    return fill_holes(image, find_holes(image, mask, margin=margin))


def find_holes(image: NDArray, mask: NDArray[np.bool_], *, margin: int = MARGIN) -> NDArray[np.bool_]:
    """(H, W) bool: the mask's 8-connected pieces, each grown by ``margin`` pixels at least.

    Grown further, to ``MAX_MARGIN`` at most, while a two pixels wide band around the piece has another level
    (glow) or larger steps from pixel to pixel (ringing of compression) against what lies beyond than three
    quarters of the like bands around places nearby where no target is.
    """
    out = np.zeros(mask.shape, dtype=bool)
    if not mask.any():
        return out
    wide = max(MAX_MARGIN, margin) + 6
    values = image.astype(np.float64)
    steps = np.zeros_like(values)
    steps[:-1] += np.abs(np.diff(values, axis=0))
    steps[:, :-1] += np.abs(np.diff(values, axis=1))
    clear = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5) > MAX_MARGIN
    padded = [np.pad(a, wide) for a in (values, steps, clear)]
    labels, stats = label_mask(mask)
    for number, (x, y, w, h, _) in enumerate(stats.tolist(), start=1):
        here = np.s_[max(y - wide, 0) : y + h + wide, max(x - wide, 0) : x + w + wide]
        piece = np.zeros((h + 2 * wide, w + 2 * wide), dtype=bool)
        piece[wide : wide + h, wide : wide + w] = labels[y : y + h, x : x + w] == number
        distance = cv2.distanceTransform((~piece).astype(np.uint8), cv2.DIST_L2, 5)
        free = np.zeros_like(piece)
        inside = np.s_[here[0].start - y + wide :, here[1].start - x + wide :]
        part = labels[here]
        others = cv2.dilate(((part > 0) & (part != number)).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
        free[inside][: part.shape[0], : part.shape[1]] = ~others
        grow = _margin(padded, (x, y), distance, free, margin)
        out[here] |= (distance <= grow + 0.25)[inside][: part.shape[0], : part.shape[1]]
    return out


def _margin(
    padded: list[Floats], corner: tuple[int, int], distance: Floats, free: NDArray[np.bool_], least: int
) -> int:
    """The margin of one piece: ``distance`` from it in the window at ``corner`` of the padded levels, steps and clear pixels."""
    values, steps, clear = padded
    most = max(MAX_MARGIN, least)
    if most == least:
        return least
    rings = np.minimum(np.ceil(distance), most + 6).astype(np.intp).ravel()
    height, width = distance.shape
    y, x = corner[1], corner[0]
    places = [(y + dy, x + dx) for dy, dx in _SHIFTS]
    places = [
        p for p in places
        if min(p) >= 0 and p[0] + height <= values.shape[0] and p[1] + width <= values.shape[1]
    ]  # fmt: skip
    sums = np.zeros((1 + len(places), 4, most + 7))  # pixels, levels, their squares, steps, by ring
    for k, (top, left) in enumerate([(y, x), *places]):
        here = np.s_[top : top + height, left : left + width]
        weight = (clear[here] if k else free).ravel().astype(np.float64)
        level = values[here].ravel() * weight
        for m, of in enumerate((weight, level, level * level, steps[here].ravel() * weight)):
            sums[k, m] = np.bincount(rings, of, most + 7)
    band = sums[:, :, least + 1 : most + 1] + sums[:, :, least + 2 : most + 2]
    beyond = sums[:, :, most + 1 : most + 6].sum(axis=2)
    known = beyond[:, 0] >= 16
    if not known[0]:
        return least
    n = np.maximum(beyond[:, 0], 1)
    mean, rough = beyond[:, 1] / n, beyond[:, 3] / n + 0.05
    deviation = np.sqrt(np.maximum(beyond[:, 2] / n - mean * mean, 0)) + 0.5
    pixels = np.where(band[:, 0] >= 8, band[:, 0], np.nan)
    level = np.abs(band[:, 1] / pixels - mean[:, None])
    ringing = np.log((band[:, 3] / pixels + 0.05) / rough[:, None])
    far = np.abs(np.log(rough / rough[0])) + np.abs(np.log(deviation / deviation[0]))
    far[~known | np.isnan(level).any(axis=1)] = np.inf
    like = np.argsort(far[1:], kind="stable")[:_LIKE] + 1
    like = like[np.isfinite(far[like])]
    if len(like) >= 6:
        even, calm = np.quantile(level[like], 0.75, axis=0) + 0.05, np.quantile(ringing[like], 0.75, axis=0)
    else:
        even, calm = np.full(most - least, 0.15 * deviation[0]), np.full(most - least, 0.08)
    good = ~(level[0] > even) & ~(ringing[0] > calm)
    if not good.any():
        return most
    first = int(np.argmax(good))
    return min(least + first + _BEYOND * (first > 0), most)


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
    difference = values[here] - patch
    field = _kriged(difference, near, inside, covariance, _NOISE)
    fine = values[nearby] - cv2.GaussianBlur(values[nearby], (0, 0), _FINE)
    short = _covariance(
        fine, ~cv2.dilate(hole[nearby].astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
    )
    field = np.where(inside, field + _kriged(difference - field, near, inside, short, 0.0), 0.0)
    values[here] = np.where(inside, patch + field, values[here])
    if donor is not None:
        _match_texture(values, hole, window, inside, donor)


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
    difference: Floats, near: NDArray[np.bool_], inside: NDArray[np.bool_], covariance: Floats, noise: float
) -> Floats:
    """Ordinary kriging of the rim's ``difference`` into the hole and its rim; 0 elsewhere."""
    rim = np.argwhere(near)
    rim = rim[:: -(-len(rim) // _MOST)]
    known = difference[rim[:, 0], rim[:, 1]]
    matrix = _at(covariance, rim, rim)
    half = 0.5 * (_lag(covariance, 0, 1) + _lag(covariance, 1, 0))
    nugget = 1e-3 * _lag(covariance) + noise * max(_lag(covariance) - half, 0.0)
    matrix[np.diag_indices(len(rim))] += nugget + 1e-9
    try:
        factor = cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)
    except LinAlgError:
        return np.where(inside | near, known.mean(), 0.0)
    ones, weights = cho_solve(factor, np.stack([np.ones(len(rim)), known], axis=1), check_finite=False).T
    mean = weights.sum() / ones.sum()
    out = np.zeros(inside.shape)
    places = np.argwhere(inside | near)
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


def _match_texture(
    values: Floats, hole: NDArray[np.bool_], window: Window, inside: NDArray[np.bool_], donor: tuple[int, int]
) -> None:
    """Change the filling until its texture and its rim are to what lies around as the donor's are to its own.

    Rounding, clipping and the meeting of two textures leave them some per cent off. Two ways are open, taken in
    turns: the filling towards its 5x5 Gaussian mean or away from it, and its outermost pixels towards the
    pixels outside that they touch (those behind them half as far), or away.
    """
    x1, y1, x2, y2 = window
    there = _Texture(values, hole, (donor[0], donor[1], donor[0] + x2 - x1, donor[1] + y2 - y1), inside)
    here = _Texture(values, hole, window, inside)
    if not (there.known and here.known):
        return
    wanted = np.log(here.around) + np.log(there.measure() / there.around).clip(-_FURTHEST, _FURTHEST)
    part, inner = here.part, here.inner
    shares = [0.0, 0.0]
    best = float(_WEIGHTS @ np.abs(np.log(here.measure()) - wanted))
    for way in (0, 1, 0, 1):
        start = part[inner].copy()
        if way == 0:
            towards = np.where(inside, cv2.GaussianBlur(part, (5, 5), 1.0)[inner] - start, 0.0)
        else:
            towards = _outwards(start, inside)
        chosen, taken = start, 0.0
        for share in _SHARES[way]:
            part[inner] = start + share * towards
            error = float(_WEIGHTS @ np.abs(np.log(here.measure()) - wanted))
            error += _RELUCTANCE * (abs(shares[way] + share) + abs(shares[1 - way]))
            if error < best:
                best, chosen, taken = error, start + share * towards, share
        part[inner] = chosen
        shares[way] += taken
    values[y1:y2, x1:x2] = part[inner]


def _outwards(part: Floats, inside: NDArray[np.bool_]) -> Floats:
    """From pixels of the hole to the mean of the pixels outside that they touch; half of it one pixel further in."""
    outside = np.where(inside, 0.0, 1.0)
    count = cv2.filter2D(outside, -1, _CROSS, borderType=cv2.BORDER_CONSTANT)
    total = cv2.filter2D(outside * part, -1, _CROSS, borderType=cv2.BORDER_CONSTANT)
    first = inside & (count > 0)
    out = np.where(first, total / np.maximum(count, 1) - part, 0.0)
    beside = cv2.boxFilter(
        np.where(first, 1.0, 0.0), -1, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT
    )
    second = cv2.boxFilter(out, -1, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT)
    return np.where(inside & ~first, 0.5 * second / np.maximum(beside, 1), out)


class _Texture:
    """A window's hole in the rounded image: the Laplacian's deviation, the mean step from pixel to pixel, the
    mean step across the hole's rim; ``around``: the like of what lies around it."""

    def __init__(
        self, values: Floats, hole: NDArray[np.bool_], window: Window, inside: NDArray[np.bool_]
    ) -> None:
        x1, y1, x2, y2 = window
        ax, ay, bx, by = _grow(window, _AROUND - _RIM, values.shape)
        self.part = values[ay:by, ax:bx].copy()
        self.inner = np.s_[y1 - ay : y2 - ay, x1 - ax : x2 - ax]
        within = np.zeros(self.part.shape, dtype=bool)
        within[self.inner] = inside
        taken = within | hole[ay:by, ax:bx]
        free = ~taken
        calm = cv2.dilate(taken.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0
        self.places = np.flatnonzero(within)
        self.pairs = []  # of each axis and kind (inside, across the rim, around): which pairs of pixels
        for one, two in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
            kinds = within[one] & within[two], within[one] != within[two], free[one] & free[two]
            self.pairs.append(np.stack([k.ravel() for k in kinds]).astype(np.float64))
        counts = sum(k.sum(axis=1) for k in self.pairs)
        self.known = bool(min(np.count_nonzero(calm), *counts) >= 8)
        if self.known:
            self.counts = counts[:2]
            whole = np.rint(self.part)
            steps = sum(k[2] @ s for k, s in zip(self.pairs, _steps(whole), strict=True)) / counts[2] + 0.05
            rough = max(cv2.Laplacian(whole, cv2.CV_64F)[calm].std(), 0.1)
            self.around = np.array([rough, steps, steps])
            self.pairs = [k[:2] for k in self.pairs]

    def measure(self) -> Floats:
        """(3,): deviation of the Laplacian, mean step, mean step across the rim."""
        whole = np.rint(self.part)
        laplacian = cv2.Laplacian(whole, cv2.CV_64F).ravel()[self.places]
        laplacian -= laplacian.mean()
        rough = np.sqrt(laplacian @ laplacian / len(laplacian))
        inside, rim = sum(k @ s for k, s in zip(self.pairs, _steps(whole), strict=True)) / self.counts + 0.05
        return np.array([max(rough, 0.1), inside, rim])


def _steps(whole: Floats) -> tuple[Floats, Floats]:
    """Steps from pixel to pixel, downwards and across."""
    return np.abs(whole[1:] - whole[:-1]).ravel(), np.abs(whole[:, 1:] - whole[:, :-1]).ravel()
