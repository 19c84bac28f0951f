"""Signal-to-clutter ratio of a labelled target, as irstkit defines it.

SCR = |mean(T) - mean(B)| / std(B). T: the target's mask pixels. B, the *ring*: the target's tight box grown
by ``ring`` pixels on each side, clipped to the image, minus every target's mask; population deviation.
Fewer than 16 ring pixels or a deviation of zero: undefined. The window must be named with every number:
over NUDT-SIRST the median is 4.6 at ring 3, 5.7 at ring 10 and 1.6 over the whole image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .masks import Instance, instances_to_mask

DEFAULT_RING = 10
MIN_RING_PIXELS = 16


@dataclass(frozen=True)
class Contrast:
    """What was measured around one target; gray levels of the image as stored.

    ``scr`` is signed (dark targets are negative) and None where it is undefined; the field's SCR is its
    absolute value.
    """

    scr: float | None
    target_mean: float
    ring_mean: float
    ring_std: float
    ring_pixels: int


def measure_contrast(
    image: NDArray, instances: Sequence[Instance], *, ring: int = DEFAULT_RING, mask: NDArray | None = None
) -> list[Contrast]:
    """Contrast of each instance in a (H, W) image.

    ``mask`` is the (H, W) union of all targets; painted from ``instances`` when not given.
    """
    height, width = image.shape
    if mask is None:
        mask = instances_to_mask(instances, (height, width))
    out = []
    for instance in instances:
        x1, y1, x2, y2 = instance.box
        rows, columns = (
            slice(max(y1 - ring, 0), min(y2 + ring, height)),
            slice(max(x1 - ring, 0), min(x2 + ring, width)),
        )
        background = image[rows, columns][~mask[rows, columns]].astype(np.float64)
        target_mean = float(image[y1:y2, x1:x2][instance.mask].mean(dtype=np.float64))
        if len(background) == 0:
            out.append(Contrast(None, target_mean, float("nan"), float("nan"), 0))
            continue
        ring_mean, ring_std = float(background.mean()), float(background.std())
        defined = len(background) >= MIN_RING_PIXELS and ring_std > 0
        scr = (target_mean - ring_mean) / ring_std if defined else None
        out.append(Contrast(scr, target_mean, ring_mean, ring_std, len(background)))
    return out
