"""What a network saw at each label: how much, where, and how well it goes with the label's pixels.

The network's probability map is compared with the label inside the label's *zone*: the pixels at most 8 away from it
that lie nearer to it than to any other label of the image. Where there is no map, the predicted instances stand for
it, each with its score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ...annotate.masks import Instance
from .matching import Shape
from .pixels import snap_box

REACH = 8
"""Pixels around a label that count as its surroundings."""
LEAST = 0.05
"""Probabilities below it are taken as none: a wide faint floor is no evidence of a small target."""


@dataclass(frozen=True)
class Seen:
    """What was seen around one label.

    Attributes
    ----------
    area
        Pixels of the label.
    mass, common
        Sum of the probabilities in its zone, and of those on its own pixels.
    shift
        From the label's centroid to that of the probabilities, (x, y) in pixels; None where nothing was seen.
    shared
        Share of its pixels (or of the other's, whichever is larger) that belong to another label, too.
    scr
        The label's own contrast, None where undefined.
    peak
        The largest probability on its own pixels.
    """

    area: int
    mass: float
    common: float
    shift: tuple[float, float] | None
    shared: float
    scr: float | None
    peak: float = 0.0

    @property
    def misfit(self) -> float:
        """1 - the overlap of label and probabilities: sum of minima over sum of maxima, 0 to 1."""
        return 1 - self.common / max(self.area + self.mass - self.common, 1e-9)

    @property
    def distance(self) -> float:
        """Length of ``shift`` in pixels; 0 where nothing was seen."""
        return 0.0 if self.shift is None else math.hypot(*self.shift)


def look(
    labels: Sequence[Shape],
    scr: Sequence[float | None],
    predictions: Sequence[Shape],
    size: tuple[int, int],
    probability: NDArray | None = None,
    *,
    only: Sequence[int] | None = None,
) -> list[Seen]:
    """What was seen at each label of an image of (height, width) ``size``, or at those numbered ``only``.

    ``probability``: (H, W) float in 0..1, None where only ``predictions`` are known.
    """
    instances = [pixels_of(shape, size) for shape in labels]
    painted = [(pixels_of(p, size), min(max(p.score, 0.0), 1.0)) for p in predictions]
    out = []
    for k in range(len(instances)) if only is None else only:
        instance = instances[k]
        x1, y1, x2, y2 = instance.box
        window = (max(x1 - REACH, 0), max(y1 - REACH, 0), min(x2 + REACH, size[1]), min(y2 + REACH, size[0]))
        near = [i for j, i in enumerate(instances) if j != k and _touch(i.box, _grown(window))]
        own = _in_window([instance], window)
        seen = _seen_in(window, painted, probability)
        seen[seen < LEAST] = 0
        mine = _distance(own)
        zone = mine <= REACH
        shared = 0.0
        for other in near:
            there = _in_window([other], window)
            both = int(np.count_nonzero(own & there))
            if both:
                shared = max(shared, both / min(instance.area, other.area))
            if there.any():
                zone &= mine <= _distance(there)
        seen = np.where(zone, seen, 0)
        mass = float(seen.sum())
        shift = None
        if mass > 0:
            ys, xs = np.nonzero(seen)
            weights = seen[ys, xs]
            cx, cy = instance.centroid
            shift = (
                float((xs * weights).sum() / mass) + window[0] - cx,
                float((ys * weights).sum() / mass) + window[1] - cy,
            )
        on_it = seen[own]
        peak = float(on_it.max(initial=0.0))
        out.append(Seen(instance.area, mass, float(on_it.sum()), shift, shared, scr[k], peak))
    return out


def pixels_of(shape: Shape, size: tuple[int, int]) -> Instance:
    """A shape's pixels; those of its rectangle where it has no mask."""
    if shape.instance is not None:
        return shape.instance
    x1, y1, x2, y2 = snap_box(shape.box, size)
    return Instance((x1, y1, x2, y2), np.ones((y2 - y1, x2 - x1), dtype=bool))


Window = tuple[int, int, int, int]


def _grown(window: Window) -> Window:
    return window[0] - REACH, window[1] - REACH, window[2] + REACH, window[3] + REACH


def _touch(a: Window, b: Window) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _in_window(instances: Sequence[Instance], window: Window) -> NDArray[np.bool_]:
    out = np.zeros((window[3] - window[1], window[2] - window[0]), dtype=bool)
    for instance in instances:
        _paint(out, instance, window, True)
    return out


def _paint(out: NDArray, instance: Instance, window: Window, value: float | bool) -> None:
    """Set the instance's pixels in ``out``, which lies at ``window``, to ``value``."""
    x1, y1 = max(instance.box[0], window[0]), max(instance.box[1], window[1])
    x2, y2 = min(instance.box[2], window[2]), min(instance.box[3], window[3])
    if x1 < x2 and y1 < y2:
        part = instance.mask[
            y1 - instance.box[1] : y2 - instance.box[1], x1 - instance.box[0] : x2 - instance.box[0]
        ]
        out[y1 - window[1] : y2 - window[1], x1 - window[0] : x2 - window[0]][part] = value


def _seen_in(
    window: Window, painted: Sequence[tuple[Instance, float]], probability: NDArray | None
) -> NDArray[np.float64]:
    if probability is not None:
        return probability[window[1] : window[3], window[0] : window[2]].astype(np.float64)
    out = np.zeros((window[3] - window[1], window[2] - window[0]))
    for instance, score in painted:
        _paint(out, instance, window, score)
    return out


def _distance(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Pixels to the nearest pixel of the mask."""
    return np.asarray(cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE))
