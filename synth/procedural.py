"""Procedural infrared backgrounds: cloud, sea, field, city and highlight scenes drawn from a generator.

Brightness stands for apparent temperature as in white-hot thermal images: cold clear sky is dark and grows
brighter towards the horizon, clouds and sun-warmed ground are brighter, windows and vents are hot, water is
even and close to the sky above it. Every scene ends with the camera: optical blur, a little noise, automatic
gain.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from . import scenery, town

Field = NDArray[Any]  # float64
Scene = tuple[Field, float | None]
"""Brightness in about [0, 1], and the horizon's row over the height (None: there is none)."""


def procedural(
    scene: str, size: int, rng: np.random.Generator, depth: int = 8, *, noisy: bool = True
) -> tuple[NDArray, float | None]:
    """A (size, size) uint8 or uint16 background of a scene, and its horizon's row as a fraction of the height.

    Without ``noisy`` the camera's noise is left out, for frames that bring their own.
    """
    field, horizon = SCENES[scene](size, rng)
    return camera(field, rng, depth, soft=scene == "cloud", burnt=scene == "highlight", noisy=noisy), horizon


def camera(
    field: Field,
    rng: np.random.Generator,
    depth: int,
    *,
    soft: bool = False,
    burnt: bool = False,
    noisy: bool = True,
) -> NDArray:
    """Optical blur, noise, and an automatic gain that puts the field somewhere in the range.

    ``burnt``: the gain follows the dark part, so that the brightest part (up to a fifth) is saturated.
    """
    field = cv2.GaussianBlur(field, (0, 0), rng.uniform(0.7, 1.3) + 0.4 * soft)
    low, high = np.percentile(field, (0.5, 99.5))
    unit = (field - low) / max(high - low, 1e-6)
    floor = rng.uniform(0.05, 0.25)
    span = rng.uniform(0.45, 0.8) * (1 - floor)
    if burnt:
        bright = float(np.percentile(unit, 100 - rng.uniform(2, 20)))
        span = (1 - floor) / max(bright, 0.2)
    noise = rng.uniform(0.003, 0.009)
    level = floor + span * unit
    if noisy:
        level += noise * rng.standard_normal(field.shape)
        level += 0.25 * noise * rng.standard_normal((1, field.shape[1]))  # columns of an uncooled array
    top = 65535 if depth == 16 else 255
    return np.rint(level * top).clip(0, top).astype(np.uint16 if depth == 16 else np.uint8)


def fractal(
    size: int,
    rng: np.random.Generator,
    *,
    cells: float = 3.0,
    fall: float = 0.5,
    stretch: float = 1.0,
    octaves: int = 7,
) -> Field:
    """Smooth noise of zero mean and unit deviation: octaves of cubic noise, each ``fall`` as strong as the last.

    ``cells`` is the number of blobs across at the coarsest octave, ``stretch`` > 1 draws them out sideways.
    """
    out = np.zeros((size, size))
    weight = 1.0
    for _ in range(octaves):
        across, down = max(int(cells / stretch), 1) + 3, max(int(cells), 1) + 3
        if down > size:
            break
        grid = rng.standard_normal((down, across))
        # one cell more than is shown on each side, shifted by part of a cell: octaves must not line up
        sx, sy = size * across / (across - 2), size * down / (down - 2)
        big = cv2.resize(grid, (int(sx) + 2, int(sy) + 2), interpolation=cv2.INTER_CUBIC)
        ox, oy = int(rng.integers(0, big.shape[1] - size + 1)), int(rng.integers(0, big.shape[0] - size + 1))
        out += weight * big[oy : oy + size, ox : ox + size]
        weight *= fall
        cells *= 2.0
    return (out - out.mean()) / max(float(out.std()), 1e-9)


def _smooth(x: Field, low: float, high: float) -> Field:
    t = np.clip((x - low) / (high - low), 0.0, 1.0)
    return t * t * (3 - 2 * t)


def _grid(size: int) -> tuple[Field, Field]:
    line = (np.arange(size) + 0.5) / size
    return line[:, None], line[None, :]


def _warp(field: Field, rng: np.random.Generator, strength: float) -> Field:
    size = field.shape[0]
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32)
    dx = (strength * size * fractal(size, rng, cells=4)).astype(np.float32)
    dy = (strength * size * fractal(size, rng, cells=4)).astype(np.float32)
    return cv2.remap(field, columns + dx, rows + dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def _clouds(size: int, rng: np.random.Generator) -> Field:
    """Cloud brightness in [0, 1]: billows with lit rims, or streaks."""
    streaks = rng.random() < 0.3
    body = fractal(
        size,
        rng,
        cells=rng.uniform(2, 5),
        fall=0.52,
        stretch=rng.uniform(2, 4) if streaks else rng.uniform(1, 1.6),
    )
    body = _warp(body, rng, 0.012 if streaks else 0.03)
    cover = rng.uniform(-0.6, 0.9)
    mass = _smooth(body, cover - 0.5, cover + rng.uniform(0.5, 1.6))
    light = cv2.GaussianBlur(mass, (0, 0), size / 40)
    rim = np.clip(mass - np.roll(light, (size // 50, size // 60), (0, 1)), -0.5, 0.5)
    inner = 0.12 * fractal(size, rng, cells=8, fall=0.55) * mass
    return mass * (0.75 + 0.5 * rim) + inner


def cloud(size: int, rng: np.random.Generator) -> Scene:
    """Clouds before a sky that brightens downwards."""
    y, x = _grid(size)
    sky = rng.uniform(0.0, 0.5) * y ** rng.uniform(1, 2) + rng.uniform(-0.12, 0.12) * x
    kind = rng.random()
    if kind < 0.12:  # clear
        return sky + 0.04 * fractal(size, rng, cells=2, fall=0.4) + 0.2, None
    if kind < 0.37:
        return sky + rng.uniform(0.4, 1.0) * scenery.cirrus(size, rng), None
    if kind < 0.5:
        return sky + 0.5 * scenery.cirrus(size, rng) + rng.uniform(0.4, 0.9) * _clouds(size, rng), None
    return sky + rng.uniform(0.5, 1.0) * _clouds(size, rng), None


def sea(size: int, rng: np.random.Generator) -> Scene:
    """Water with perspective waves, glint under a bright part of the sky, and often a horizon."""
    y, x = _grid(size)
    if rng.random() < 0.3:
        return _water(size, rng), None
    horizon = rng.uniform(0.12, 0.5)
    depth = np.maximum(y - horizon, 1e-3)
    water_level = rng.uniform(0.25, 0.5)
    # waves: noise looked up along 1 / depth, so that they shrink towards the horizon
    waves = scenery.waves(512, rng, rng.uniform(0.02, 0.06), np.pi / 2 + rng.normal(0, 0.25), 0.3)
    far = 0.22 / depth + rng.uniform(0, 3)
    across = (x - 0.5) * (0.3 / depth) * rng.uniform(0.5, 1.0)
    rows = np.abs(np.mod(np.broadcast_to(far, (size, size)) * 330, 1022) - 511).astype(np.float32)
    columns = np.abs(np.mod(across * 330 + 255, 1022) - 511).astype(np.float32)
    swell = cv2.remap(waves, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    fade = np.clip(depth / 0.25, 0.12, 1.0)
    sun = rng.uniform(0.1, 0.9)
    width = 0.05 + 0.35 * depth * rng.uniform(0.3, 1.0)
    path = np.exp(-0.5 * ((x - sun) / width) ** 2)
    glint = rng.uniform(0.0, 0.9) if rng.random() < 0.7 else 0.0
    sparkle = np.clip(swell - 0.6, 0, None)
    water = water_level - 0.12 * depth + 0.07 * fade * swell + glint * path * (0.12 + 0.35 * sparkle * fade)
    water = water + 0.04 * fractal(size, rng, cells=2, stretch=3, fall=0.5)
    up = np.clip((horizon - y) / horizon, 0, 1)
    sky = water_level + rng.uniform(-0.2, 0.3) - rng.uniform(0.1, 0.5) * up**0.7 + 0 * x
    if rng.random() < 0.6:
        sky = sky + rng.uniform(0.1, 0.4) * _clouds(size, rng) * up
    edge = _smooth(y - horizon + 0 * x, -0.6 / size, 0.6 / size)
    haze = np.exp(-np.abs(y - horizon) / 0.03) * rng.uniform(-0.05, 0.08)
    return sky * (1 - edge) + water * edge + haze, horizon


def _water(size: int, rng: np.random.Generator) -> Field:
    """Water from above or far below the horizon: no sky is seen; perhaps a bright patch, a shore."""
    y, _ = _grid(size)
    heading = np.pi / 2 + rng.normal(0, 0.7)
    length = float(np.exp(rng.uniform(np.log(0.015), np.log(0.12))))
    water = 0.12 * scenery.waves(size, rng, length, heading, rng.uniform(0.1, 0.8))
    water = water * np.clip(1 + rng.uniform(-0.6, 0.6) * (y - 0.5), 0.3, None) + rng.uniform(-0.3, 0.3) * y
    water = water + 0.05 * fractal(size, rng, cells=2, stretch=2, fall=0.5)
    if rng.random() < 0.3:
        water = water + rng.uniform(0.2, 0.8) * scenery.glare(size, rng) * (0.6 + np.clip(water, 0, None))
    return water


def _lay(texture: Field, size: int, start: float, rng: np.random.Generator) -> Field:
    """A square texture laid on the ground and seen in perspective, with the horizon at the row ``start``."""
    y, x = _grid(size)
    side = texture.shape[0] - 1
    distance = 1.0 / np.maximum(y - start, 0.012)
    near = 1.0 / (1.0 - start)
    along = (distance - near) * side * 0.22 + rng.random() * side
    across = (x - 0.5) * distance / near * side * 0.45 + rng.uniform(
        0.4, 0.6
    ) * side  # its mirrored copies stay aside
    rows = np.abs(np.mod(np.broadcast_to(along, (size, size)), 2 * side) - side).astype(np.float32)
    columns = np.abs(np.mod(across, 2 * side) - side).astype(np.float32)
    sharp = cv2.remap(texture, columns, rows, cv2.INTER_LINEAR)
    coarse = cv2.remap(cv2.GaussianBlur(texture, (0, 0), 4), columns, rows, cv2.INTER_LINEAR)
    far = np.clip(1.3 - (y - start) * 8, 0, 1)  # far away a pixel holds much ground
    return sharp * (1 - far) + coarse * far


def _plots(size: int, rng: np.random.Generator) -> Field:
    """Fields between hedges: a grid of strips, bent and turned, each of its own brightness and furrows."""
    rows, columns = np.mgrid[0:size, 0:size] / size
    turn = rng.uniform(0, np.pi)
    bend = 0.06 * fractal(size, rng, cells=2, fall=0.4)
    u = columns * np.cos(turn) + rows * np.sin(turn) + bend
    v = rows * np.cos(turn) - columns * np.sin(turn) + bend
    nu, nv = rng.uniform(2, 5), rng.uniform(2, 5)
    cell_u, cell_v = np.floor(u * nu + 8).astype(int), np.floor(v * nv + 8).astype(int)
    levels, speeds = rng.normal(0, 0.5, (32, 32)), rng.uniform(40, 110, (32, 32))
    here = cell_u % 32, cell_v % 32
    out = levels[here] + 0.1 * np.sin(u * speeds[here]) * (levels[here] > -0.2)
    edge = np.minimum(np.abs(u * nu - np.rint(u * nu)) / nu, np.abs(v * nv - np.rint(v * nv)) / nv)
    return out + rng.normal(0, 0.6) * np.exp(-((edge / 0.006) ** 2))


def _ground(size: int, rng: np.random.Generator) -> Field:
    """Open ground from above: soil, perhaps plots, thickets with a lit and a dark side, a track."""
    soil = 0.5 * fractal(size, rng, cells=2, fall=0.5) + 0.12 * fractal(size, rng, cells=40, fall=0.8)
    if rng.random() < 0.6:
        soil = 0.5 * soil + _plots(size, rng)
    growth = fractal(size, rng, cells=rng.uniform(5, 12), fall=0.7) + 0.6 * fractal(size, rng, cells=2)
    cover = rng.uniform(0.4, 1.8)
    thicket = _smooth(growth, cover, cover + 0.25)
    crowns = fractal(size, rng, cells=size / 8, fall=0.7)
    lit = np.clip(cv2.GaussianBlur(thicket, (0, 0), 1.5) - np.roll(thicket, (3, 2), (0, 1)), -1, 1)
    level = rng.normal(0, 0.7)
    ground = soil * (1 - thicket) + (level + 0.3 * crowns) * thicket + 0.35 * lit
    for _ in range(int(rng.integers(0, 3))):
        t = np.arange(size) / size
        path = (
            rng.random()
            + rng.uniform(-0.8, 0.8) * t
            + 0.05 * np.sin(rng.uniform(4, 12) * t + rng.uniform(0, 6))
        )
        away = np.abs(np.arange(size)[None, :] / size - path[:, None])
        track = np.exp(-((away / rng.uniform(0.004, 0.009)) ** 2))
        ground = ground + rng.uniform(0.4, 1.0) * (track if rng.random() < 0.5 else track.T)
    return ground


def field(size: int, rng: np.random.Generator) -> Scene:
    """Ground with plots, thickets and tracks, from above or in perspective below a ridge of trees and sky."""
    y, x = _grid(size)
    kind = rng.random()
    if kind < 0.15:
        return _ground(size, rng), None
    if kind < 0.4:
        return scenery.foliage(size, rng), None
    if kind < 0.65:
        return scenery.slope(size, rng)
    horizon = rng.uniform(0.12, 0.5)
    ridge = horizon + 0.03 * fractal(size, rng, cells=2, fall=0.5)[:1]
    trees = (
        0.012 * np.abs(fractal(size, rng, cells=40, fall=0.7)[:1]) + 0.01 * fractal(size, rng, cells=8)[:1]
    )
    ground = 0.7 * _lay(_ground(2 * size, rng), size, horizon - 0.06, rng)
    ground = ground - rng.uniform(0, 0.4) * np.exp(-np.clip(y - horizon, 0, 1) / 0.15)
    for _ in range(int(rng.integers(0, 3))):  # nearer rows of trees
        foot = horizon + rng.uniform(0.05, 0.4) + 0.02 * fractal(size, rng, cells=3)[:1]
        height = rng.uniform(0.02, 0.08) * (1 + 0.5 * fractal(size, rng, cells=14, fall=0.7)[:1])
        height = height * (fractal(size, rng, cells=3, fall=0.6)[:1] > rng.uniform(-0.8, 0.6))
        row = _smooth(y - (foot - height), -0.004, 0.004) * (1 - _smooth(y - foot, -0.006, 0.006))
        leaves = rng.normal(0, 0.5) + 0.25 * fractal(size, rng, cells=40, fall=0.75)
        ground = ground * (1 - row) + leaves * row
    wood = rng.normal(0.0, 0.35) + 0.22 * fractal(size, rng, cells=45, fall=0.75)
    band = _smooth(y - (ridge - np.abs(trees)), -1.0 / size, 1.0 / size)
    below = _smooth(y - (horizon + 0.015 + 0.02 * fractal(size, rng, cells=4)[:1]), -0.008, 0.008)
    up = np.clip((horizon - y) / max(horizon, 0.05), 0, 1) + 0 * x
    sky = rng.uniform(-1.6, -0.7) - 0.5 * up
    if rng.random() < 0.4:
        sky = sky + 0.5 * _clouds(size, rng)
    return sky * (1 - band) + (wood * (1 - below) + ground * below) * band, horizon


def city(size: int, rng: np.random.Generator) -> Scene:
    """Buildings and trees before the sky (town.py), walls through a long lens, or roofs and streets from above."""
    kind = rng.random()
    if kind < 0.1:
        return town.roofs(size, rng), None
    if kind < 0.55:
        return scenery.walls(size, rng)
    canvas, horizon = town.skyline(size, rng)
    return canvas + 0.012 * fractal(size, rng, cells=20, fall=0.8), horizon


def highlight(size: int, rng: np.random.Generator) -> Scene:
    """A scene whose brightest part is too much for the camera: sunlit cloud, stray light, hot ground."""
    kind = rng.random()
    if kind < 0.5:
        y, _ = _grid(size)
        return rng.uniform(0.0, 0.4) * y + _clouds(size, rng), None
    inner, horizon = (cloud, sea, field)[int(rng.choice(3, p=(0.5, 0.25, 0.25)))](size, rng)
    spread = float(inner.std())
    if kind < 0.9:
        return inner + rng.uniform(3, 8) * spread * scenery.glare(size, rng), horizon
    hot = fractal(size, rng, cells=2, fall=0.5)
    return inner + rng.uniform(2, 5) * spread * _smooth(hot, 0.6, 1.0), horizon


SCENES: dict[str, Callable[[int, np.random.Generator], Scene]] = {
    "city": city,
    "cloud": cloud,
    "field": field,
    "sea": sea,
    "highlight": highlight,
}
