"""Spots that are no ellipses: unions of ellipses, and boxes; and what optics and camera do to any target.

Real small targets are lumpy (two engines, a hull and its wake), some are hard-edged boxes of a few pixels
(enlarged frames), many have a faint glow or the dark rim of a camera's edge enhancement.
"""

from __future__ import annotations

from math import ceil, cos, pi, sin, sqrt
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .targets import Shape, brightest, largest

Values = NDArray[Any]  # float64


def lumpy_shape(
    area: int, x: float, y: float, aspect: float, angle: float, lumps: int, power: float, rng: np.random.Generator,
    *, shading: float = 0.0,
) -> Shape:  # fmt: skip
    """A union of ``lumps`` superellipses about (x, y) whose core is the ``area`` innermost pixels, in one piece.

    The first lump is the largest; the others' centres lie inside it, their radii are 0.45 to 0.9 of its own
    and their brightness 0.5 to 1. ``power`` is the superellipse's: 2 an ellipse, 8 nearly a box. ``shading`` is
    the deviation of a texture of about two pixels that multiplies the brightness.
    """
    parts = [(0.0, 0.0, 1.0, aspect, angle, 1.0)]
    for _ in range(lumps - 1):
        far, way = 0.5 + 0.7 * rng.random(), 2 * pi * rng.random()
        parts.append(
            (
                far * cos(way), far * sin(way), 0.45 + 0.45 * rng.random(), 1.0 + (aspect - 1.0) * rng.random(),
                angle + 0.5 * pi * (rng.random() - 0.5), 0.5 + 0.5 * rng.random(),
            )
        )  # fmt: skip
    long = sqrt(area / pi * aspect)
    radius = ceil(2.2 * long + 2.5)
    grid = np.arange(-radius, radius + 1, dtype=float)
    c, s = cos(angle), sin(angle)
    fields, tops = [], []
    for px, py, size, ratio, turn, bright in parts:
        # centres in units of the first lump's half axes, along its own axes
        ox, oy = px * long, py * long / aspect
        dx, dy = grid[None, :] - x - (ox * c - oy * s), grid[:, None] - y - (ox * s + oy * c)
        u, v = np.abs(dx * cos(turn) + dy * sin(turn)), np.abs(dy * cos(turn) - dx * sin(turn)) * ratio
        fields.append((u**power + v**power) ** (1.0 / power) / size)
        tops.append(bright)
    distance = np.min(fields, axis=0)
    flat = np.sort(distance, axis=None)
    edge = 0.5 * (flat[area - 1] + flat[area])
    inside = (
        distance < edge
        if flat[area] - flat[area - 1] > 1e-9 * max(edge, 1e-9)
        else brightest(-distance, area)
    )
    values = np.zeros(distance.shape)
    for field, bright, part in zip(fields, tops, parts, strict=True):
        # one pixel of field is about 1 / size along the long axis and ratio / size across it
        values = np.maximum(
            values, bright * np.clip(0.5 - (field - edge) * part[2] / sqrt(part[3]), 0.0, 1.0)
        )
    if shading > 0:
        texture = cv2.GaussianBlur(
            np.asarray(rng.standard_normal(values.shape)), (0, 0), 0.8, borderType=cv2.BORDER_REFLECT
        )
        values *= np.clip(1.0 + shading * texture / max(float(texture.std()), 1e-9), 0.1, None)
    detail: dict[str, object] = {"aspect": round(aspect, 6), "lumps": lumps, "power": round(power, 6)}
    return Shape(values, largest(inside), -radius, -radius, x, y, "spot", detail)


def through_optics(
    values: Values, glow: float, glow_sigma: float, sharpen: float, sharpen_sigma: float
) -> tuple[Values, int]:
    """A patch with a glow of ``glow_sigma`` pixels that holds the share ``glow`` of its light, then sharpened.

    Sharpening is the unsharp mask v + sharpen (v - G v), with G a Gaussian of ``sharpen_sigma`` pixels: it
    leaves a dark rim of negative values. Returns the patch, grown by the pixels also returned.
    """
    pad = ceil(3 * max(glow_sigma if glow > 0 else 0.0, sharpen_sigma if sharpen > 0 else 0.0))
    values = np.pad(values, pad)
    if glow > 0:
        values = (1 - glow) * values + glow * _blurred(values, glow_sigma)
    if sharpen > 0:
        values = values + sharpen * (values - _blurred(values, sharpen_sigma))
    return values, pad


def _blurred(values: Values, sigma: float) -> Values:
    side = 2 * ceil(3 * sigma) + 1
    return cv2.GaussianBlur(values, (side, side), sigma, borderType=cv2.BORDER_CONSTANT)
