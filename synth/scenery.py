"""Close-ups and textures of the procedural scenes: walls, foliage, waves, cirrus, glare.

All are (size, size) float arrays of brightness, drawn from a generator; procedural.py composes scenes of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[Any]  # float64


def spectral(size: int, rng: np.random.Generator, power: Callable[[Field, Field], Field]) -> Field:
    """Gaussian noise of zero mean and unit deviation with the amplitude spectrum ``power(fx, fy)``.

    Frequencies are in cycles an image side; the noise is periodic, so the middle of a larger field is cut.
    """
    side = cv2.getOptimalDFTSize(int(size * 1.25))
    fy, fx = np.fft.fftfreq(side, 1 / size)[:, None], np.fft.rfftfreq(side, 1 / size)[None, :]
    amplitude = power(fx, fy)
    amplitude[0, 0] = 0.0
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((side, side))) * amplitude, (side, side))
    field = field[:size, :size]
    return (field - field.mean()) / max(float(field.std()), 1e-9)


def waves(size: int, rng: np.random.Generator, length: float, heading: float, spread: float = 0.5) -> Field:
    """Water from above: crests of about ``length`` image sides across ``heading``, short ones riding on long ones.

    Slopes are skewed as those of a sea that glitters: bright facets are few and strong.
    """

    def power(fx: Field, fy: Field) -> Field:
        f = np.hypot(fx, fy) + 1e-9
        towards = np.abs(fx * np.cos(heading) + fy * np.sin(heading)) / f
        return np.exp(-((1 / (length * f)) ** 2)) * (length * f + 0.3) ** -1.2 * (spread + towards**4)

    field = spectral(size, rng, power)
    return field + 0.35 * (field * np.abs(field) - (field * np.abs(field)).mean())


def cirrus(size: int, rng: np.random.Generator) -> Field:
    """Thin fibrous cloud in [0, about 1.5]: filaments drawn out by the wind, bent, of uneven density."""
    heading, stretch = rng.uniform(-0.6, 0.6), rng.uniform(4, 12)

    def power(fx: Field, fy: Field) -> Field:
        along, across = (
            fx * np.cos(heading) + fy * np.sin(heading),
            fy * np.cos(heading) - fx * np.sin(heading),
        )
        return (1 + (stretch * along) ** 2 + across**2) ** -0.72

    fibres = spectral(size, rng, power)
    bent = smooth_noise(size, rng, 3.5)
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32)
    shift = (0.012 * size * bent).astype(np.float32)
    fibres = cv2.remap(fibres, columns + shift, rows + shift, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    density = np.clip(0.55 + 0.45 * smooth_noise(size, rng, 1.5), 0.05, 1.4)
    return np.clip(0.45 + 0.35 * fibres, 0, None) * density


def smooth_noise(size: int, rng: np.random.Generator, cells: float) -> Field:
    """Noise without detail finer than a side over ``cells``."""
    return spectral(size, rng, lambda fx, fy: np.exp(-0.5 * (np.hypot(fx, fy) / cells) ** 2))


def foliage(size: int, rng: np.random.Generator) -> Field:
    """Trees, bushes or tall grass that fill the view: crowns lit from above, leaves, trunks or blades."""
    scale = rng.uniform(4, 14)
    masses = spectral(size, rng, lambda fx, fy: (1 + (np.hypot(fx, fy) / scale) ** 2) ** -1.0)
    crowns = np.abs(
        spectral(size, rng, lambda fx, fy: (1 + (np.hypot(fx, fy * 0.8) / (2 * scale)) ** 2) ** -1.4)
    )
    shade = crowns - np.roll(cv2.GaussianBlur(crowns, (0, 0), size / 50), size // 40, axis=0)
    tall = rng.uniform(0.8, 2.0)
    leaves = spectral(size, rng, lambda fx, fy: (1 + (np.hypot(fx, fy / tall) / (4 * scale)) ** 2) ** -0.75)
    cover = np.clip(
        0.6 + 0.5 * spectral(size, rng, lambda fx, fy: (1 + (np.hypot(fx, fy) / 3) ** 2) ** -1.0), 0.1, 1.5
    )
    out = 0.5 * masses + (0.5 * shade + rng.uniform(0.15, 0.35) * leaves) * cover
    if rng.random() < 0.35:  # trunks, blades
        stems = spectral(
            size, rng, lambda fx, fy: np.exp(-((fy / 5) ** 2)) * (fx > 5) * (1 + fx / 40) ** -1.5
        )
        out = out + rng.uniform(0.1, 0.3) * stems * cover * (smooth_noise(size, rng, 2) > -0.3)
    if rng.random() < 0.3:  # clearings
        gap = np.clip((smooth_noise(size, rng, 4) - rng.uniform(0.4, 1.2)) * 6, 0, 1)
        out = out * (1 - gap) + (rng.normal(0, 0.8) + 0.2 * masses) * gap
    line = (np.arange(size) + 0.5) / size
    return out + rng.normal(0, 0.6) * line[:, None] + 0.4 * smooth_noise(size, rng, 2)


def slope(size: int, rng: np.random.Generator) -> tuple[Field, float | None]:
    """Wooded or bare hillsides one behind the other, hazier with distance, perhaps below a strip of sky."""
    y = (np.arange(size)[:, None] + 0.5) / size
    horizon = rng.uniform(0.08, 0.45) if rng.random() < 0.6 else None
    top = horizon if horizon is not None else -0.3
    out = rng.uniform(-2.2, -1.2) - 0.6 * y + 0.08 * smooth_noise(size, rng, 3)
    if rng.random() < 0.4:
        out = out + 0.6 * cirrus(size, rng)
    haze = rng.uniform(-0.9, -0.3)
    layers = int(rng.integers(2, 5))
    for k in range(layers):
        near = (k + 1) / layers
        crest = (
            top
            + (0.85 - top) * (k / layers) ** 1.3
            + rng.uniform(0.01, 0.05) * smooth_noise(size, rng, 2)[:1]
        )
        crest = crest + 0.008 * near * np.abs(
            spectral(size, rng, lambda fx, fy: (1 + np.hypot(fx, fy) / 30) ** -1.0)[:1]
        )
        ground = rng.normal(0, 0.35) + rng.uniform(0.3, 0.7) * foliage(size, rng)
        ground = haze * (1 - near) + ground * (0.35 + 0.65 * near)
        step = np.clip((y - crest) * size / 1.5 + 0.5, 0, 1)
        out = out * (1 - step) + ground * step
    return out, horizon


def walls(size: int, rng: np.random.Generator) -> tuple[Field, float | None]:
    """A building or two through a long lens: wall strips, columns of windows, ledges, balconies, some sky."""
    canvas = np.full((size, size), rng.uniform(-1.6, -0.6)) + 0.05 * smooth_noise(size, rng, 2)
    if rng.random() < 0.3:
        canvas = canvas + 0.4 * cirrus(size, rng)
    left = -int(rng.uniform(0, 0.3) * size) if rng.random() < 0.7 else int(rng.uniform(0.05, 0.5) * size)
    seen = rng.random() < 0.45
    horizon = float(rng.uniform(0.1, 0.6)) if seen else None
    roof0 = horizon if horizon is not None else -0.1
    while left < size:
        width = int(rng.uniform(0.18, 0.7) * size)
        roof = int((roof0 + (rng.uniform(-0.06, 0.12) if seen else 0)) * size)
        _wall(canvas, rng, max(left, 0), min(left + width, size), max(roof, 0), roof > 0)
        left += width
        if rng.random() < 0.25:
            left += int(rng.uniform(0.05, 0.3) * size)
    turn = cv2.getRotationMatrix2D((size / 2, size / 2), float(rng.normal(0, 1.0)), 1.06)
    canvas = np.asarray(
        cv2.warpAffine(canvas, turn, (size, size), borderMode=cv2.BORDER_REPLICATE), canvas.dtype
    )
    if rng.random() < 0.25:  # a cable, a railing, a lamp post before it
        a, b = rng.uniform(0, size, 2), rng.uniform(0, size, 2)
        over = np.zeros((size, size), np.float32)
        across = rng.random() < 0.5
        ends = ((0, int(a[0])), (size, int(a[1]))) if across else ((int(b[0]), 0), (int(b[0]), size))
        cv2.line(over, ends[0], ends[1], 1.0, int(rng.integers(1, 4)), cv2.LINE_AA)
        canvas = canvas * (1 - over) + (canvas.mean() + rng.normal(0, 0.7)) * over
    if rng.random() < 0.3:  # a tree before the wall
        cover = spectral(size, rng, lambda fx, fy: (1 + (np.hypot(fx, fy) / 4) ** 2) ** -1.2)
        y = (np.arange(size)[:, None] + 0.5) / size
        tree = np.clip((0.6 * cover + 9 * (y - rng.uniform(0.65, 1.0))) * 3, 0, 1)
        canvas = canvas * (1 - tree) + (rng.normal(-0.2, 0.4) + 0.3 * foliage(size, rng)) * tree
    canvas = canvas + rng.uniform(0.02, 0.06) * smooth_noise(size, rng, 7)  # heat leaks unevenly
    soft = rng.uniform(0.7, 2.3) * size / 256
    return cv2.GaussianBlur(canvas, (0, 0), soft) + 0.015 * smooth_noise(size, rng, 20), horizon


def _wall(canvas: Field, rng: np.random.Generator, x1: int, x2: int, y1: int, topped: bool) -> None:
    size = canvas.shape[0]
    if x2 - x1 < 6 or size - y1 < 6:
        return
    level = rng.uniform(-0.2, 0.7)
    light = (
        np.linspace(0, rng.normal(0, 0.25), x2 - x1)[None, :]
        + np.linspace(0, rng.normal(0, 0.2), size - y1)[:, None]
    )
    canvas[y1:, x1:x2] = level + light
    if topped:  # a parapet, warmer or colder, and what stands on the roof
        edge = max(size // 60, 2)
        canvas[y1 : y1 + edge, x1:x2] += rng.normal(0.25, 0.2)
        for _ in range(int(rng.integers(0, 3))):
            w, h = int(rng.uniform(0.03, 0.15) * size), int(rng.uniform(0.02, 0.1) * size)
            at = int(rng.integers(x1, max(x2 - w, x1 + 1)))
            canvas[max(y1 - h, 0) : y1, at : min(at + w, x2)] = level + rng.normal(0.1, 0.3)
    at = x1
    while at < x2:  # vertical strips: plain wall, windows, balconies
        width = int(rng.uniform(0.06, 0.25) * size)
        stop = min(at + width, x2)
        kind = rng.random()
        if kind < 0.5 and stop - at > 4:
            _windows(canvas, rng, at, stop, y1)
        elif kind < 0.65:
            canvas[y1:, at:stop] += rng.normal(0, 0.3)
        if rng.random() < 0.4:
            canvas[y1:, at : at + max(size // 100, 1)] += rng.normal(0, 0.35)
        at = stop
    if rng.random() < 0.5:  # ledges between storeys
        step, strength = int(rng.uniform(0.08, 0.25) * size), rng.normal(0, 0.2)
        for row in range(y1 + step, size, step):
            canvas[row : row + max(size // 90, 1), x1:x2] += strength


def _windows(canvas: Field, rng: np.random.Generator, x1: int, x2: int, y1: int) -> None:
    size = canvas.shape[0]
    pitch_x, pitch_y = rng.uniform(0.04, 0.12) * size, rng.uniform(0.06, 0.16) * size
    w, h = pitch_x * rng.uniform(0.4, 0.75), pitch_y * rng.uniform(0.35, 0.75)
    glass, frame = rng.normal(0.0, 0.5), rng.normal(0.15, 0.3)
    across = max(int((x2 - x1) / pitch_x), 1)
    start = x1 + ((x2 - x1) - across * pitch_x) / 2
    for row in np.arange(y1 + pitch_y * 0.6, size, pitch_y):
        for k in range(across):
            left = start + k * pitch_x + (pitch_x - w) / 2
            box = np.s_[int(row) : int(row + h), max(int(left), x1) : min(int(left + w), x2)]
            canvas[box] += glass + rng.normal(0, 0.12) + (rng.uniform(0.3, 0.9) if rng.random() < 0.05 else 0)
            canvas[int(row + h) : int(row + h) + max(size // 128, 1), box[1]] += frame


def glare(size: int, rng: np.random.Generator) -> Field:
    """Stray light of a source in or beside the view, 0 to 1: a wide bowl, a band, or a corner that glows."""
    y, x = (np.arange(size)[:, None] + 0.5) / size, (np.arange(size)[None, :] + 0.5) / size
    kind = rng.random()
    if kind < 0.3:
        turn, at = rng.uniform(0, np.pi), rng.uniform(-0.2, 0.2)
        away = (x - 0.5) * np.cos(turn) + (y - 0.5) * np.sin(turn) - at
        return np.exp(-0.5 * (away / rng.uniform(0.08, 0.2)) ** 2)
    cx, cy = (rng.uniform(0.2, 0.8, 2)) if kind < 0.55 else (rng.choice((-0.1, 1.1)), rng.uniform(-0.1, 1.1))
    r = np.hypot(x - cx, (y - cy) * rng.uniform(0.8, 1.2))
    return 0.7 * np.exp(-r / rng.uniform(0.15, 0.45)) + 0.5 * np.exp(-0.5 * (r / rng.uniform(0.1, 0.3)) ** 2)
