"""Hard negatives: what is bright or wrong in an image and is no target. Documented, never labelled.

They come after the targets, from a random stream of their own, and keep out of every target's light and ring: what
a target's SCR is measured on does not change by a gray level, and an image without them is the same image (before
a JPEG step, which spreads them over their 8x8 blocks).

Light (through the camera, with its noise): ``clutter``, an irregular patch larger than small targets, as a sunlit
rock, a roof or a cloud's edge; ``glint``, a few short bright streaks beside each other, as the sun on water. Faults of
the detector (sharp to the pixel, which no target seen through optics is): ``hot``, one bright
pixel; ``dead``, one black pixel; ``cluster``, two to six touching pixels, hot or dead.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import ceil, cos, pi, sin, sqrt

import cv2
import numpy as np
from numpy.typing import NDArray

from .contrast import Box, ring_window
from .dist import choose
from .placement import Frame, apart
from .preset_parts import Negatives

PLACES = 30  # tried before one is left out
LIGHT = ("clutter", "glint")


@dataclass(frozen=True)
class Negative:
    """One of them: its kind, the half-open box of the pixels that it changes, and how strong it is.

    ``step``: gray levels added at the brightest pixel before the camera (light), or the levels written minus the
    ones before, at the pixel that moves most (faults).
    """

    kind: str
    box: Box
    step: float

    def as_dict(self) -> dict[str, object]:
        """For the manifest."""
        x1, y1, x2, y2 = self.box
        return {"kind": self.kind, "bbox": [x1, y1, x2 - x1, y2 - y1], "step": round(self.step, 3)}


def add_negatives(
    frame: Frame, options: Negatives, rng: np.random.Generator, rejected: Counter, *, blocks: bool = False
) -> list[Negative]:
    """Draw negatives and write them into ``frame.image`` (and their light into ``frame.background``).

    With ``blocks`` a JPEG step follows: they keep out of every 8x8 block that a target or its ring touches.
    """
    ring, top = frame.recipe.preset.contrast.ring, frame.recipe.top
    height, width = frame.size
    kept_out: list[Box] = []
    for target in frame.targets:
        kept_out += [ring_window(target.box, ring, (height, width)), target.reach]
    if blocks:
        kept_out = [
            (x1 // 8 * 8, y1 // 8 * 8, -(-x2 // 8) * 8, -(-y2 // 8) * 8) for x1, y1, x2, y2 in kept_out
        ]
    found: list[Negative] = []
    for _ in range(round(options.count.at(rng.random()))):
        kind = choose(options.kinds, rng.random())
        values = _DRAWN[kind](options, rng)
        step = options.contrast.at(rng.random()) * top
        sign = -1.0 if kind == "dead" or (kind == "cluster" and rng.random() < 0.5) else 1.0
        h, w = values.shape
        for _ in range(PLACES):
            y, x = int(rng.random() * (height - h + 1)), int(rng.random() * (width - w + 1))
            box = x, y, x + w, y + h
            if h <= height and w <= width and all(apart(box, other) for other in kept_out):
                break
        else:
            rejected["no place for a negative"] += 1
            continue
        kept_out.append(box)
        if kind in LIGHT:
            _shine(frame, box, values * step)
        else:
            step = _break(frame, box, values > 0, sign * step, rng)
        found.append(Negative(kind, box, step))
    return found


def _shine(frame: Frame, box: Box, light: NDArray[np.float64]) -> None:
    """Add light to the scene and expose it anew there."""
    x1, y1, x2, y2 = box
    background = frame.background.astype(np.float64)  # a copy: the store's pixels are everybody's
    background[y1:y2, x1:x2] += light
    frame.background = background
    frame.write(box)


def _break(frame: Frame, box: Box, pixels: NDArray[np.bool_], step: float, rng: np.random.Generator) -> float:
    """Write faulty pixels as they are; the signed step of the one that moves most."""
    x1, y1, x2, y2 = box
    here = frame.image[y1:y2, x1:x2]
    before = here.astype(np.float64)
    if step < 0:  # dead: at or near the bottom
        level = before * (0.2 * rng.random(before.shape))
    else:  # hot: above its surroundings by the step and more, up to the top
        level = before.mean() + step * (1 + rng.random(before.shape))
    after = np.rint(np.where(pixels, level, before)).clip(0, frame.recipe.top)
    here[...] = after.astype(frame.image.dtype)
    moved = (after - before).ravel()
    return float(moved[np.abs(moved).argmax()])


# --------------------------------------------------------------------- shapes: (h, w) of peak 1, 0 outside


def _clutter(options: Negatives, rng: np.random.Generator) -> NDArray[np.float64]:
    """A smooth irregular patch: low-pass noise cut inside an ellipse, its own texture on it."""
    area = options.clutter_area.at(rng.random())
    aspect, angle = 1 + 2.5 * rng.random(), pi * rng.random()
    half = sqrt(area / pi)
    radius = int(half * sqrt(aspect) + 4)
    v, u = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float64)
    along, across = u * cos(angle) + v * sin(angle), v * cos(angle) - u * sin(angle)
    distance = np.hypot(along / (half * sqrt(aspect)), across / (half / sqrt(aspect)))
    noise = cv2.GaussianBlur(rng.standard_normal(u.shape), (0, 0), max(1.0, half / 3))
    noise /= max(float(noise.std()), 1e-9)
    body = np.clip(1.6 - 1.6 * distance + 0.5 * noise, 0.0, None)
    texture = cv2.GaussianBlur(rng.standard_normal(u.shape), (0, 0), 1.0)
    values = cv2.GaussianBlur(np.minimum(body, 1.0) * (1 + 0.25 * texture), (0, 0), 0.8)
    return _trimmed(values)


def _glint(options: Negatives, rng: np.random.Generator) -> NDArray[np.float64]:
    """Two to six short, nearly horizontal streaks of unequal brightness near each other."""
    number = 2 + int(5 * rng.random())
    reach = 6
    length = max(options.glint_length.at(rng.random()), 1.0)
    width, slope = int(3 * length) + 2 * reach, ceil(0.15 * length)
    values = np.zeros((4 * reach + 2 * slope, width))
    for _ in range(number):
        long = max(1.0, length * (0.4 + 0.6 * rng.random()))
        x, y = reach + rng.random() * (width - 2 * reach - long), slope + reach * (1 + 2 * rng.random())
        tilt, bright = 0.15 * (2 * rng.random() - 1), 0.4 + 0.6 * rng.random()
        for t in np.arange(0.0, long, 0.25):
            values[int(y + tilt * t), int(x + t)] += 0.25 * bright
    return _trimmed(cv2.GaussianBlur(values, (0, 0), 0.5))


def _one(options: Negatives, rng: np.random.Generator) -> NDArray[np.float64]:
    return np.ones((1, 1))


def _cluster(options: Negatives, rng: np.random.Generator) -> NDArray[np.float64]:
    """Two to six pixels, each beside one of the others."""
    pixels = [(0, 0)]
    wanted = 2 + int(5 * rng.random())
    while len(pixels) < wanted:
        y, x = pixels[int(rng.random() * len(pixels))]
        dy, dx = ((0, 1), (1, 0), (0, -1), (-1, 0))[int(4 * rng.random())]
        if (y + dy, x + dx) not in pixels:
            pixels.append((y + dy, x + dx))
    rows, columns = np.array(pixels).T
    values = np.zeros((np.ptp(rows) + 1, np.ptp(columns) + 1))
    values[rows - rows.min(), columns - columns.min()] = 1.0
    return values


def _trimmed(values: NDArray) -> NDArray[np.float64]:
    """Of peak 1, without what lies below 0.2 % of it."""
    peak = float(values.max())
    values = np.where(values > 0.002 * peak, values / peak, 0.0)
    rows, columns = np.flatnonzero(values.any(axis=1)), np.flatnonzero(values.any(axis=0))
    return values[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


_DRAWN = {"clutter": _clutter, "glint": _glint, "hot": _one, "dead": _one, "cluster": _cluster}
