"""Procedural skylines and roofs: buildings as a thermal camera sees them from afar.

Walls differ by little in temperature: by which side of them the sun or the clear sky sees, by what leaks
through windows and ledges, by haze with distance. By day sunlit faces are warm and trees cooler than they;
by night walls and trees are warm, roofs and window glass (which mirror the sky) cold. Everything is drawn at
twice the resolution and reduced, so that edges fall where they fall and not on whole pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .scenery import cirrus, smooth_noise, spectral

Field = NDArray[Any]  # float64
FINE = 2  # drawn at so many times the resolution


@dataclass
class Weather:
    """What decides the contrasts of a whole scene, in units of wall against sky."""

    day: bool
    sun: float  # +1: from the left, -1: from the right, as strong
    haze: float  # level that far buildings fade to
    trees: float  # level of foliage
    glass: float  # windows against walls
    roof: float  # roof edges against walls


def weather(rng: np.random.Generator) -> Weather:
    day = rng.random() < 0.5
    return Weather(
        day,
        float(rng.choice((-1, 1)) * rng.uniform(0.04, 0.16)) if day else float(rng.normal(0, 0.02)),
        rng.uniform(0.1, 0.35),
        rng.uniform(0.18, 0.4) if day else rng.uniform(0.35, 0.6),
        rng.normal(-0.05, 0.05),
        rng.normal(0.06, 0.04) if day else rng.normal(-0.08, 0.05),
    )


def skyline(size: int, rng: np.random.Generator) -> tuple[Field, float]:
    """Layers of buildings and trees before the sky: (size, size) brightness, and the horizon's height."""
    air = weather(rng)
    big = FINE * size
    horizon = float(rng.uniform(0.25, 0.6))
    y = (np.arange(big)[:, None] + 0.5) / big
    canvas = -rng.uniform(0.25, 0.8) + rng.uniform(0.15, 0.5) * y + _noise(big, rng, 2, 0.04)
    if rng.random() < 0.4:
        thin = cirrus(size, rng)
        canvas = canvas + rng.uniform(0.1, 0.35) * cv2.resize(
            thin, (big, big), interpolation=cv2.INTER_LINEAR
        )
    layers = int(rng.integers(2, 5))
    for layer in range(layers):
        near = (layer + 1) / layers
        _row(canvas, rng, air, near, horizon)
        if near < 1 and rng.random() < 0.7:
            _trees(canvas, rng, air, near, horizon + 0.1 + 0.45 * near * rng.uniform(0.7, 1.2))
        # each layer is seen through the air before the next
        if near < 1:
            canvas = np.asarray(cv2.GaussianBlur(canvas, (0, 0), 0.5 * FINE), float)
    if rng.random() < 0.75:
        _trees(canvas, rng, air, 1.0, rng.uniform(0.78, 0.97))
    canvas = _turned(canvas, float(rng.normal(0, 0.7)))
    return cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA), horizon


def roofs(size: int, rng: np.random.Generator) -> Field:
    """Roofs, yards, streets and trees from above: (size, size) brightness."""
    air = weather(rng)
    big = FINE * size
    canvas = 0.3 + _noise(big, rng, 4, 0.05) + _noise(big, rng, 60, 0.02)
    block = rng.uniform(0.16, 0.34) * big
    side = int(big * 1.5)
    layer, cover = np.zeros((side, side)), np.zeros((side, side), np.float32)
    u, v = np.mgrid[0:side, 0:side]
    drop = max(int(0.012 * big), 1)
    shade = np.zeros((side, side), np.float32)
    for top in np.arange(0, side, block):
        for left in np.arange(0, side, block):
            for _ in range(int(rng.integers(1, 4))):
                w, h = rng.uniform(0.3, 0.75, 2) * block
                py, px = top + rng.random() * (block * 0.85 - h), left + rng.random() * (block * 0.85 - w)
                here = np.s_[max(int(py), 0) : max(int(py + h), 0), max(int(px), 0) : max(int(px + w), 0)]
                level = 0.42 + air.roof + rng.normal(0, 0.07)
                layer[here], cover[here] = level, 1.0
                shade[
                    max(int(py), 0) + drop : max(int(py + h), 0) + drop,
                    here[1].start + drop : here[1].stop + drop,
                ] = 1.0
                if rng.random() < 0.55:  # a ridge: the two slopes face another part of the sky
                    along = (u[here] - py) / h if w > h else (v[here] - px) / w
                    layer[here] += np.where(along < 0.5, 1, -1) * rng.uniform(0.02, 0.09)
                else:  # a parapet around a flat roof
                    edge = np.minimum.reduce([u[here] - py, py + h - u[here], v[here] - px, px + w - v[here]])
                    layer[here] += rng.normal(0, 0.06) * (edge < 2 * FINE)
                for _ in range(int(rng.integers(0, 5))):
                    vy, vx = int(py + rng.random() * (h - 4)), int(px + rng.random() * (w - 4))
                    n = int(rng.integers(1, 4)) * FINE
                    layer[max(vy, 0) : vy + n, max(vx, 0) : vx + n] += rng.normal(0.06, 0.12)
    angle = float(rng.uniform(-40, 40))
    cut = (side - big) // 2
    layer, cover, shade = (_turned(a, angle)[cut : cut + big, cut : cut + big] for a in (layer, cover, shade))
    canvas = canvas - (0.08 if air.day else 0.03) * shade
    grown = np.clip(
        (_noise(big, rng, 9, 1.0) + 0.5 * _noise(big, rng, 40, 1.0) - rng.uniform(0.2, 1.0)) * 2, 0, 1
    )
    canvas = canvas * (1 - grown) + (air.trees + _noise(big, rng, 70, 0.05)) * grown
    canvas = canvas * (1 - cover) + (layer + _noise(big, rng, 6, 0.02) + _noise(big, rng, 90, 0.008)) * cover
    soft = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.4, 0.9) * FINE)
    return cv2.resize(soft, (size, size), interpolation=cv2.INTER_AREA)


def _noise(size: int, rng: np.random.Generator, cells: float, strength: float) -> Field:
    """Noise coarser than ``cells`` a side, drawn small and enlarged where nothing fine is in it."""
    small = max(min(size, int(6 * cells)), 16)
    field = smooth_noise(small, rng, cells)
    return strength * cv2.resize(field, (size, size), interpolation=cv2.INTER_CUBIC)


def _turned(canvas: Field, angle: float) -> Field:
    height, width = canvas.shape
    turn = cv2.getRotationMatrix2D(
        (width / 2, height / 2), angle, 1.0 + abs(np.sin(np.radians(angle))) * 0.5 * (abs(angle) < 5)
    )
    return cv2.warpAffine(
        canvas, turn, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def _row(canvas: Field, rng: np.random.Generator, air: Weather, near: float, horizon: float) -> None:
    """One layer of buildings from the left to the right border, with gaps."""
    big = canvas.shape[0]
    at = -rng.random() * 0.2
    base = rng.uniform(0.4, 0.55)
    tall = rng.uniform(0.02, 0.1)
    while at < 1:
        width = rng.uniform(0.07, 0.24) * (0.45 + near)
        top = horizon + rng.normal(0.02, tall) + 0.25 * (near - 0.6)
        if near == 1 and rng.random() < 0.3:  # a gap before what stands behind
            at += width * rng.uniform(0.4, 1.0)
            continue
        level = base + rng.normal(0, 0.05)
        level = air.haze + (level - air.haze) * (0.45 + 0.55 * near)
        x1, x2, y1 = int(at * big), int((at + width) * big), int(top * big)
        corner = x1 + int((x2 - x1) * rng.uniform(0.6, 0.9)) if rng.random() < 0.55 else x2
        _face(canvas, rng, air, (x1, corner, y1), level + air.sun * near, near, 1.0)
        _face(canvas, rng, air, (corner, x2, y1), level - air.sun * near, near, 0.5)
        if y1 > 8:
            _top(canvas, rng, air, (x1, x2, y1), level, near)
        at += width + (rng.uniform(0, 0.1) if rng.random() < 0.5 else 0.0)


def _face(
    canvas: Field,
    rng: np.random.Generator,
    air: Weather,
    span: tuple[int, int, int],
    level: float,
    near: float,
    depth: float,
) -> None:
    """One wall of a building, ``depth`` < 1: seen so much from the side."""
    big = canvas.shape[0]
    x1, x2, y1 = span
    left, right, top = max(x1, 0), min(x2, big), min(max(y1, 0), big - 1)
    if right - left < 3 or big - top < 4:
        return
    rows, columns = np.arange(top, big)[:, None] - y1, np.arange(left, right)[None, :] - x1
    fade = 0.35 + 0.65 * near
    wall = level + fade * (rng.normal(0, 0.04) * columns / (x2 - x1) - rng.uniform(0, 0.1) * rows / big)
    stain = cv2.resize(rng.standard_normal((7, 5)), (right - left, big - top), interpolation=cv2.INTER_CUBIC)
    wall = wall + 0.02 * fade * stain
    wide, high = (
        FINE * big / 512 * v for v in (rng.uniform(3, 7) * (0.4 + near), rng.uniform(3.5, 7) * (0.4 + near))
    )
    wide *= depth
    kind = rng.choice(5, p=(0.4, 0.18, 0.17, 0.1, 0.15))  # punched, ribbons, strips, blank, balconies
    nx, ny = columns / wide, (rows - rng.uniform(0.5, 1.2) * high) / high
    ix, iy = np.floor(nx).astype(int), np.floor(ny).astype(int)
    inner_x = np.abs(nx - ix - 0.5) < rng.uniform(0.18, 0.36)
    inner_y = np.abs(ny - iy - 0.5) < rng.uniform(0.18, 0.34)
    glass = fade * (air.glass + rng.normal(0, 0.03))
    if kind == 3 or wide < 2.2:
        opening = np.zeros(wall.shape, bool)
    elif kind == 1:
        opening = np.broadcast_to(inner_y, wall.shape)
    elif kind == 2:
        opening = np.broadcast_to(inner_x, wall.shape)
    else:
        opening = inner_x & inner_y
    opening = opening & (iy >= 0)
    # rooms differ: curtains, lamps, an open window now and then
    rooms = glass + fade * rng.normal(0, 0.02, (64, 128))
    rooms += fade * np.where(rng.random((64, 128)) < 0.03, rng.uniform(0.08, 0.25), 0.0)
    wall = wall + np.where(opening, rooms[iy % 64, ix % 128], 0.0)
    if kind == 4:  # balconies: slabs that cast a cold shadow below them
        slab = (ix % 3 == 1) & (iy >= 0) & (ny - iy > 0.72)
        wall = wall + fade * rng.normal(0.04, 0.05) * slab
    if rng.random() < 0.5:  # floors leak at their slabs
        wall = wall + fade * rng.normal(0.02, 0.025) * (ny - iy > 0.85)
    if rng.random() < 0.3:  # a stairwell
        at = rng.uniform(0.1, 0.9) * (x2 - x1)
        wall = wall + fade * rng.normal(0, 0.05) * (np.abs(columns - at) < wide * 0.4)
    canvas[top:, left:right] = wall


def _top(
    canvas: Field,
    rng: np.random.Generator,
    air: Weather,
    span: tuple[int, int, int],
    level: float,
    near: float,
) -> None:
    """What a building carries: a parapet or a pitched roof, plant rooms, masts."""
    big = canvas.shape[0]
    x1, x2, y1 = span
    scale = FINE * big / 512 * (0.4 + near)
    roof = level + air.roof + rng.normal(0, 0.03)
    if x2 - x1 < 0.14 * big and rng.random() < 0.3:
        rise, inset = int(rng.uniform(0.2, 0.45) * (x2 - x1)), int(rng.uniform(0.1, 0.5) * (x2 - x1))
        shape = np.array(
            [(x1 - 2, y1), (x1 + inset, y1 - rise), (x2 - inset, y1 - rise), (x2 + 2, y1)], np.int32
        )
        cv2.fillPoly(canvas, [shape], roof)
        return
    left, right = max(x1, 0), min(x2, big)
    canvas[y1 : y1 + max(int(1.2 * scale), 1), left:right] += 0.6 * air.roof + rng.normal(0, 0.03)
    for _ in range(int(rng.integers(0, 4))):
        w, h = int(rng.uniform(2, 9) * scale), int(rng.uniform(1, 6) * scale)
        at = int(rng.integers(x1, max(x2 - w, x1 + 1)))
        box = np.s_[max(y1 - h, 0) : y1, max(at, 0) : max(min(at + w, right), 0)]
        canvas[box] = level + rng.normal(0.03, 0.06)
    if rng.random() < 0.25:
        at, high = int(rng.integers(x1, x2)), int(rng.uniform(6, 18) * scale)
        if 0 <= at < big:
            canvas[max(y1 - high, 0) : y1, at : at + 1] += 0.5 * (
                level - canvas[max(y1 - high, 0) : y1, at : at + 1]
            )


def _trees(canvas: Field, rng: np.random.Generator, air: Weather, near: float, foot: float) -> None:
    """Crowns from the row ``foot`` downwards, of uneven height, lit from above, with gaps."""
    big = canvas.shape[0]
    top = min(max(int((foot - 0.15) * big), 0), big - 1)  # nothing of them is above
    y = ((np.arange(big)[:, None] + 0.5) / big)[top:]
    line = 0.03 * _noise(big, rng, 4, 1.0)[:1] + 0.012 * near * np.abs(_noise(big, rng, 18, 1.0)[:1])
    rough = _noise(big, rng, 28 / near, 0.012 * near)[top:]
    mass = np.clip((y - foot - line + rough) * big / (3 * FINE) + 0.5, 0, 1)
    half = big // FINE
    scale = rng.uniform(14, 26) / near
    crowns = spectral(half, rng, lambda fx, fy: (1 + (np.hypot(fx, fy) / scale) ** 2) ** -1.1)
    lit = crowns - np.roll(cv2.GaussianBlur(crowns, (0, 0), half / 60), half // 50, axis=0)
    leaves = cv2.resize(lit, (big, big), interpolation=cv2.INTER_CUBIC)[top:]
    level = air.haze + (air.trees - air.haze) * (0.45 + 0.55 * near) - 0.08 * (y - foot)
    strength = rng.uniform(0.03, 0.07) * (0.4 + 0.6 * near)
    canvas[top:] = canvas[top:] * (1 - mass) + (level + strength * leaves) * mass
