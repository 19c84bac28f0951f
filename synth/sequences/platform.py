"""The camera's motion and the view it gives: a sub-pixel window of a larger background.

Pixel (j, i) of frame t shows the canvas at (j + ox(t), i + oy(t)). The window is resampled by a windowed sinc of
10 taps (Kaiser window), one filter for the rows and one for the columns, whose phase is the exact fraction: no
table of phases (OpenCV's remap has 32), no ringing beyond 5 pixels, no border (the canvas is larger than all
views). Bilinear and cubic filters blur by an amount that depends on the phase: a background moved by them grows
sharp and soft by turns (shimmer). Up to 0.35 cycles a pixel this filter's gain is the same at every phase to 1.5 %;
even white noise, softened as the canvas is (0.7 pixels), keeps its strength to 0.9 % along an axis (linear: 11 %).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, floor, pi
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .preset import Platform
from .tracks import smooth

TAPS = 10
PAD = TAPS // 2 + 1
_BETA = 5.0

Path2 = NDArray[Any]


@dataclass(frozen=True, eq=False)
class CameraPath:
    """(T, 2) arrays of x, y in pixels: ``steady`` (drift and pan) and ``jitter``; their sum is the view's corner."""

    steady: Path2
    jitter: Path2

    @property
    def offsets(self) -> Path2:
        """Where the view's corner lies on the canvas."""
        return self.steady + self.jitter

    def extent(self) -> tuple[int, int]:
        """Columns and rows that the canvas needs beyond the view."""
        span = np.ptp(self.offsets, axis=0) if len(self.steady) else np.zeros(2)
        return ceil(span[0]) + 2 * PAD + 2, ceil(span[1]) + 2 * PAD + 2


def camera_path(platform: Platform, rng: np.random.Generator, frames: int) -> CameraPath:
    """Draw a path that begins anywhere; its least corner lies at (PAD, PAD)."""
    drift, period = platform.drift.at(rng.random()), platform.period.at(rng.random())
    pan, jitter = platform.pan.at(rng.random()), platform.jitter.at(rng.random())
    steady = drift * np.stack([smooth(rng, frames, period), smooth(rng, frames, period)], axis=1)
    angle = 2 * pi * rng.random()
    sweep = _sweep(frames, pan, platform.extent, rng.random())
    # a camera sweeps along the horizon more than up and down
    steady += sweep[:, None] * np.array([np.cos(angle), 0.35 * np.sin(angle)])
    shake = jitter * np.clip(rng.standard_normal((frames, 2)), -3, 3)
    least = (steady + shake).min(axis=0)
    return CameraPath(steady - least + PAD, shake)


def _sweep(frames: int, speed: float, extent: float, phase: float) -> NDArray[Any]:
    """To and fro over ``extent`` pixels at ``speed``, slowing down at the ends."""
    if speed <= 0 or extent <= 0:
        return np.zeros(frames)
    turn = 2 * pi * (np.arange(frames) * speed / (2 * extent) + phase)
    return extent / pi * np.arcsin(0.97 * np.sin(turn))


@lru_cache(maxsize=4)
def _window(taps: int) -> Any:
    return np.kaiser(257, _BETA), np.linspace(-taps / 2, taps / 2, 257)


def shift_kernel(fraction: float) -> NDArray[Any]:
    """(10,) weights of samples -4..5 for the value at ``fraction`` in [0, 1); they add up to 1."""
    at = np.arange(-TAPS // 2 + 1, TAPS // 2 + 1) - fraction
    shape, grid = _window(TAPS)
    weights = np.sinc(at) * np.interp(at, grid, shape, left=0.0, right=0.0)
    return weights / weights.sum()


def view(
    canvas: NDArray[np.float32], corner: tuple[float, float], size: tuple[int, int]
) -> NDArray[np.float32]:
    """The (H, W) window of a float32 canvas whose first pixel lies at ``corner`` (x, y), sub-pixel.

    Raises ValueError where the window and five pixels around it leave the canvas.
    """
    x, y = floor(corner[0]), floor(corner[1])
    height, width = size
    reach = TAPS // 2
    top, left = y - reach + 1, x - reach + 1
    if top < 0 or left < 0 or y + height + reach > canvas.shape[0] or x + width + reach > canvas.shape[1]:
        raise ValueError(f"a view at {corner} of {width}x{height} leaves the canvas {canvas.shape[::-1]}")
    part = canvas[top : y + height + reach, left : x + width + reach]
    fx, fy = corner[0] - x, corner[1] - y
    # the anchor makes output pixel k of the window the weighted sum of samples k - 4 .. k + 5
    out = cv2.sepFilter2D(
        part,
        cv2.CV_32F,
        shift_kernel(fx),
        shift_kernel(fy),
        anchor=(reach - 1, reach - 1),
        borderType=cv2.BORDER_REPLICATE,
    )
    return np.ascontiguousarray(out[reach - 1 : reach - 1 + height, reach - 1 : reach - 1 + width])
