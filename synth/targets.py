"""Target patches: point, spot, extended; their 5x5 blur; their mask by a named policy.

A patch is what a target of unit peak adds to the image. Pixel [i, j] of a patch lies at row
``top + i``, column ``left + j`` of an image in which the target's base pixel is (0, 0); the target's true
centre is ``(x, y)`` from that pixel's centre (pixel centres at whole numbers).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import ceil, cos, pi, radians, sin, sqrt
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from .silhouettes import VIEWS, View

Values = NDArray[Any]  # float64
Mask = NDArray[np.bool_]

_FINE = 8  # sub-pixels a pixel side of an extended target's raster


@dataclass(eq=False)
class Shape:
    """A target before blur: ``values`` (h, w) in [0, 1], its ``core`` pixels, its place and its centre."""

    values: Values
    core: Mask
    top: int
    left: int
    x: float
    y: float
    kind: str
    detail: dict[str, object]


@dataclass(eq=False)
class Patch:
    """A target ready to be added: ``values`` (h, w) of peak 1, ``mask`` (h, w), ``box`` of the mask inside it."""

    values: Values
    mask: Mask
    top: int
    left: int
    box: tuple[int, int, int, int]
    x: float
    y: float
    kind: str
    sigma: float
    detail: dict[str, object]
    again: Callable[..., Patch] | None = None
    """``again(sigma=...)``: the same shape and mask policy with another blur, in pixels."""

    @property
    def area(self) -> int:
        """Pixels of the mask."""
        return int(np.count_nonzero(self.mask))


# ------------------------------------------------------------------------------------------------ point


def gaussian_pixels(
    x: float, y: float, sigma_x: float, sigma_y: float | None = None, *, radius: int | None = None
) -> Values:
    """A unit-flux Gaussian integrated over the pixels of a (2r + 1, 2r + 1) array whose middle pixel is (0, 0).

    The integral over pixel k is Phi((k + 1/2 - x) / sigma) - Phi((k - 1/2 - x) / sigma), a product in x and y.
    ``radius`` defaults to what leaves less than 1e-7 of the flux outside for centres within half a pixel.
    Differences are taken on the side where Phi is small, so that no digits cancel in the tails.
    """
    sigma_y = sigma_x if sigma_y is None else sigma_y
    if radius is None:
        radius = ceil(5.6 * max(sigma_x, sigma_y) + 0.5)
    across = _bins(x, sigma_x, radius)
    down = across if (x, sigma_x) == (y, sigma_y) else _bins(y, sigma_y, radius)
    return down[:, None] * across[None, :]


def _bins(centre: float, sigma: float, radius: int) -> Values:
    low = (np.arange(-radius, radius + 1) - 0.5 - centre) / sigma
    high = low + 1.0 / sigma
    flip = low > 0
    a, b = np.where(flip, -high, low), np.where(flip, -low, high)
    return ndtr(b) - ndtr(a)


def turned_gaussian_pixels(
    x: float, y: float, sigma_long: float, sigma_short: float, angle: float, *, radius: int | None = None
) -> Values:
    """A unit-flux anisotropic Gaussian with its long axis at ``angle`` radians, integrated over pixels.

    A turned Gaussian does not separate: along x its integral is closed (the error function of the
    conditional mean), along y it is a Gauss-Legendre quadrature of 12 nodes a half pixel, exact to 1e-10
    for sigmas of at least 0.5 pixels.
    """
    if radius is None:
        radius = ceil(5.6 * sigma_long + 0.5)
    c, s = cos(angle), sin(angle)
    var_x = (sigma_long * c) ** 2 + (sigma_short * s) ** 2
    var_y = (sigma_long * s) ** 2 + (sigma_short * c) ** 2
    cov = (sigma_long**2 - sigma_short**2) * c * s
    nodes, weights = _LEGENDRE
    grid = np.arange(-radius, radius + 1, dtype=float)
    ys = (grid[:, None] + nodes[None, :] - y).ravel()
    density = np.exp(-0.5 * ys**2 / var_y) / sqrt(2 * pi * var_y)
    mean = x + cov / var_y * ys
    deviation = sqrt(max(var_x - cov**2 / var_y, 1e-12))
    edges = (np.arange(-radius, radius + 2) - 0.5)[None, :]
    inside = np.diff(ndtr((edges - mean[:, None]) / deviation), axis=1)
    return np.einsum("ikj,k->ij", (density[:, None] * inside).reshape(len(grid), len(nodes), -1), weights)


def _legendre() -> tuple[Values, Values]:
    nodes, weights = np.polynomial.legendre.leggauss(12)
    halves = np.concatenate([nodes / 4 - 0.25, nodes / 4 + 0.25])
    return halves, np.concatenate([weights, weights]) / 4


_LEGENDRE = _legendre()


def point_shape(area: int, x: float, y: float, sigma: float, ratio: float = 1.0, angle: float = 0.0) -> Shape:
    """A pixel-integrated Gaussian at (x, y); its core is the ``area`` brightest pixels.

    ``ratio`` is the larger over the smaller sigma, their geometric mean ``sigma``.
    """
    if ratio > 1.0:
        values = turned_gaussian_pixels(x, y, sigma * sqrt(ratio), sigma / sqrt(ratio), angle)
    else:
        values = gaussian_pixels(x, y, sigma)
    radius = values.shape[0] // 2
    core = brightest(values, area)
    detail: dict[str, object] = {"psf_sigma": round(sigma, 6)}
    if ratio > 1.0:
        detail["anisotropy"] = round(ratio, 6)
    return Shape(values, core, -radius, -radius, x, y, "point", detail)


def brightest(values: Values, count: int) -> Mask:
    """The ``count`` largest pixels of ``values``; equal ones by raster order."""
    order = np.argsort(-values, axis=None, kind="stable")[: max(count, 1)]
    mask = np.zeros(values.size, dtype=bool)
    mask[order] = True
    return mask.reshape(values.shape)


# ------------------------------------------------------------------------------------------------- spot


def spot_shape(area: int, x: float, y: float, aspect: float, angle: float) -> Shape:
    """A flat-topped ellipse at (x, y) whose core is exactly ``area`` pixels; its rim is anti-aliased.

    The ellipse is the one that holds exactly ``area`` pixel centres: halfway between the area-th and the
    next one's elliptical distance.
    """
    while True:
        long = sqrt(area / pi * aspect)
        radius = ceil(long + 2.5)
        grid = np.arange(-radius, radius + 1, dtype=float)
        c, s = cos(angle), sin(angle)
        dx, dy = grid[None, :] - x, grid[:, None] - y
        along, across = dx * c + dy * s, (dy * c - dx * s) * aspect
        distance = along * along + across * across
        flat = np.sort(distance, axis=None)
        edge = 0.5 * (flat[area - 1] + flat[area])
        core = distance < edge if flat[area] - flat[area - 1] > 1e-9 * edge else brightest(-distance, area)
        if aspect <= 1.05 or _is_one(core):
            break
        aspect = 1.0 + (aspect - 1.0) * 0.7  # so thin that its pixels no longer touch
    # signed distance to the rim in pixels, to first order: (sqrt(d) - sqrt(edge)) over its gradient's length
    root = np.sqrt(np.maximum(distance, 1e-9))
    slope = np.sqrt(along * along + (across * aspect) ** 2) / root
    values = np.clip(0.5 - (root - sqrt(edge)) / np.maximum(slope, 1e-6), 0.0, 1.0)
    return Shape(values, core, -radius, -radius, x, y, "spot", {"aspect": round(aspect, 6)})


def _is_one(mask: Mask) -> bool:
    return cv2.connectedComponents(mask.astype(np.uint8), connectivity=8, ltype=cv2.CV_16U)[0] <= 2


# --------------------------------------------------------------------------------------------- extended


def extended_shape(
    silhouette: str,
    area: int,
    x: float,
    y: float,
    rng: np.random.Generator,
    *,
    hot_spots: float = 0.5,
    shading: float = 0.15,
) -> Shape:
    """A silhouette in a drawn view, heading and tilt, of about ``area`` core pixels, anti-aliased.

    The core is the pixels covered most, ``area`` of them where the shape allows it in one piece; else its
    largest piece.
    """
    views = VIEWS[silhouette]
    number = int(rng.integers(len(views)))
    view = views[number]
    turn = radians(view.turn * (2 * rng.random() - 1))
    squeeze = view.squeeze + (1 - view.squeeze) * rng.random()
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    hot = bool(view.hot) and rng.random() < hot_spots
    matrix = np.array([[cos(turn), -sin(turn)], [sin(turn), cos(turn)]]) if view.turn > 90 else None
    if matrix is not None:  # plan views turn first, then tilt
        matrix = np.diag([mirror, squeeze]) @ matrix
    else:
        matrix = np.array([[cos(turn), -sin(turn)], [sin(turn), cos(turn)]]) @ np.diag([mirror, squeeze])
    return posed_shape(
        silhouette, number, matrix, area, x, y, turn, mirror < 0, hot, shading=shading, rng=rng
    )


def posed_shape(
    silhouette: str,
    number: int,
    matrix: Values,
    area: int,
    x: float,
    y: float,
    turn: float,
    mirrored: bool,
    hot: bool,
    *,
    shading: float = 0.0,
    rng: np.random.Generator | None = None,
) -> Shape:
    """View ``number`` of a silhouette under a (2, 2) ``matrix``, as :func:`extended_shape` draws it.

    ``turn`` (radians) and ``mirrored`` are only written down. Without ``shading``, which needs ``rng``, equal arguments give equal pixels.
    """
    view = VIEWS[silhouette][number]
    coverage, top, left, scale = _raster(view, matrix, area, x, y)
    core = largest(brightest(coverage, area) & (coverage > 0.02))
    values = coverage
    if shading > 0 or hot:
        values = coverage * _surface(
            view if hot else None, matrix, scale, coverage.shape, top, left, x, y, shading, rng
        )
    detail: dict[str, object] = {
        "shape": silhouette,
        "view": number,
        "heading": round(float(np.degrees(turn)), 3),
        "length": round(scale, 3),
        "mirrored": mirrored,
        "hot_spots": hot,
    }
    return Shape(values, core, top, left, x, y, "extended", detail)


def _raster(view: View, matrix: Values, area: int, x: float, y: float) -> tuple[Values, int, int, float]:
    parts = [np.asarray(p, dtype=float) @ matrix.T for p in view.parts]
    points = np.concatenate(parts)
    unit = _unit_area(view) * abs(float(np.linalg.det(matrix)))
    scale = sqrt(area / unit)
    low, high = points.min(axis=0) * scale, points.max(axis=0) * scale
    middle = (low + high) / 2
    left, top = int(np.floor(low[0] - middle[0] + x)) - 1, int(np.floor(low[1] - middle[1] + y)) - 1
    width = int(np.ceil(high[0] - middle[0] + x)) + 2 - left
    height = int(np.ceil(high[1] - middle[1] + y)) + 2 - top
    fine = np.zeros((height * _FINE, width * _FINE), dtype=np.uint8)
    for part in parts:
        # pixel (0, 0)'s centre is half a pixel inside; fillPoly's own centres lie at whole fine pixels
        place = (part * scale - middle + (x, y) - (left, top) + 0.5) * _FINE - 0.5
        cv2.fillPoly(fine, [np.rint(place * 16).astype(np.int32)], 255, lineType=cv2.LINE_8, shift=4)
    coverage = cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA).astype(np.float64) / 255.0
    return coverage, top, left, scale


_AREAS: dict[int, float] = {}


def _unit_area(view: View) -> float:
    """Area of the union of a view's parts at length 1, by a fine raster, once a process."""
    key = id(view)
    if key not in _AREAS:
        canvas = np.zeros((1200, 1200), dtype=np.uint8)
        for part in view.parts:
            cv2.fillPoly(canvas, [np.rint((np.asarray(part) + 0.6) * 1000).astype(np.int32)], 1)
        _AREAS[key] = float(canvas.sum()) / 1e6
    return _AREAS[key]


def largest(mask: Mask) -> Mask:
    """The largest 8-connected piece of a mask."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count <= 2:
        return mask
    return labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))


def _surface(
    view: View | None,
    matrix: Values,
    scale: float,
    size: tuple[int, int],
    top: int,
    left: int,
    x: float,
    y: float,
    shading: float,
    rng: np.random.Generator | None,
) -> Values:
    """Brightness of the body: a smooth texture about 0.75, and hot spots up to 1."""
    height, width = size
    surface = np.full(size, 0.75)
    if rng is not None:
        coarse = rng.standard_normal((max(2, height // 4 + 1), max(2, width // 4 + 1)))
        texture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        surface = np.clip(0.75 * (1.0 + shading * texture), 0.3, 1.0)
    if view is not None:
        rows, columns = np.arange(height) + top - y, np.arange(width) + left - x
        for hx, hy, radius, strength in view.hot:
            px, py = matrix @ (hx * scale, hy * scale)
            r2 = (columns[None, :] - px) ** 2 + (rows[:, None] - py) ** 2
            surface = surface + 0.6 * strength * np.exp(-0.5 * r2 / max(radius * scale, 0.6) ** 2)
    return surface


# ------------------------------------------------------------------------------------------ blur and mask


def finish(
    shape: Shape,
    sigma: float,
    policy: str = "core",
    *,
    level: float = 0.5,
    energy: float = 0.7,
    motion: tuple[float, float] = (0.0, 0.0),
    optics: tuple[float, float, float, float] | None = None,
    cut: float = 4e-4,
) -> Patch:
    """Blur a shape with the 5x5 Gaussian of ``sigma`` pixels, cut its mask, bring its peak to 1.

    ``policy`` is ``core`` (the unblurred shape's core), ``half`` (at least ``level`` of the blurred
    maximum) or ``energy`` (the brightest pixels that together hold the share ``energy`` of the blurred
    energy, in one piece). ``motion`` is (length in pixels, direction in radians) of a linear motion blur,
    ``optics`` the glow and sharpening of :func:`.irregular.through_optics`, whose dark rim is no energy. What
    lies below ``cut`` of the peak is dropped: a share of a gray level at most.
    """
    values, core, pad = shape.values, shape.core, 2
    if motion[0] > 0:
        kernel = motion_kernel(*motion)
        pad = 2 + kernel.shape[0] // 2
        values = cv2.filter2D(padded(values, pad), -1, kernel, borderType=cv2.BORDER_CONSTANT)
    else:
        values = padded(values, pad)
    values = cv2.GaussianBlur(values, (5, 5), sigma, borderType=cv2.BORDER_CONSTANT)
    if optics is not None:
        from .irregular import through_optics

        values, more = through_optics(values, *optics)
        pad += more
    values *= 1.0 / values.max()
    if policy == "core":
        mask = padded(core, pad)
    elif policy == "half":
        mask = largest(values >= level)
    elif policy == "energy":
        order = np.argsort(-values, axis=None, kind="stable")
        run = np.cumsum(np.maximum(values.ravel()[order], 0.0))
        mask = largest(brightest(values, int(np.searchsorted(run, energy * run[-1])) + 1))
    else:
        raise ValueError(f"no mask policy {policy!r}: choose from core, half, energy")
    values, mask, top, left = _trim(values, mask, shape.top - pad, shape.left - pad, cut)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    again = partial(
        finish, shape, policy=policy, level=level, energy=energy, motion=motion, optics=optics, cut=cut
    )
    return Patch(values, mask, top, left, box, shape.x, shape.y, shape.kind, sigma, shape.detail, again)


def padded(values: NDArray, by: int) -> NDArray:
    """The array with ``by`` zeros on each side (np.pad takes ten times as long on arrays so small)."""
    out = np.zeros((values.shape[0] + 2 * by, values.shape[1] + 2 * by), values.dtype)
    out[by : by + values.shape[0], by : by + values.shape[1]] = values
    return out


def _trim(values: Values, mask: Mask, top: int, left: int, cut: float) -> tuple[Values, Mask, int, int]:
    kept = (np.abs(values) >= cut) | mask
    rows, columns = np.flatnonzero(kept.any(axis=1)), np.flatnonzero(kept.any(axis=0))
    r, c = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    inner = values[r, c]
    return np.where(kept[r, c], inner, 0.0), mask[r, c], top + int(rows[0]), left + int(columns[0])


def motion_kernel(length: float, angle: float) -> Values:
    """A line of ``length`` pixels through the middle at ``angle`` radians, as pixel weights that add up to 1."""
    radius = ceil(length / 2 + 0.5)
    kernel = np.zeros((2 * radius + 1, 2 * radius + 1))
    steps = max(3, 16 * ceil(length))
    for t in (np.arange(steps) + 0.5) / steps - 0.5:
        px, py = radius + t * length * cos(angle), radius + t * length * sin(angle)
        ix, iy = int(px), int(py)
        fx, fy = px - ix, py - iy
        for jx, jy, w in (
            (ix, iy, (1 - fx) * (1 - fy)),
            (ix + 1, iy, fx * (1 - fy)),
            (ix, iy + 1, (1 - fx) * fy),
            (ix + 1, iy + 1, fx * fy),
        ):
            if w > 0:
                kernel[jy, jx] += w
    return kernel / kernel.sum()
