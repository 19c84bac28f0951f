"""Binary masks to instances and back: connected components, to the bit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Instance:
    """The pixels of one target.

    ``box`` is (x1, y1, x2, y2), half-open, in pixels; ``mask`` is the boolean patch of shape
    (y2 - y1, x2 - x1) inside it; ``area`` its number of pixels.
    """

    box: tuple[int, int, int, int]
    mask: NDArray[np.bool_]

    @property
    def area(self) -> int:
        """Pixels of the instance."""
        return int(np.count_nonzero(self.mask))

    @property
    def centroid(self) -> tuple[float, float]:
        """Mean (x, y) of the pixel coordinates (pixel centres at whole numbers)."""
        ys, xs = np.nonzero(self.mask)
        return float(xs.mean()) + self.box[0], float(ys.mean()) + self.box[1]


def label_mask(mask: NDArray, *, connectivity: int = 8) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Label a (H, W) boolean mask.

    Returns
    -------
    labels
        (H, W) int32, 0 for background, 1..N in raster order of each component's first pixel.
    stats
        (N, 5) int32: x, y, w, h, area of each component.
    """
    if connectivity not in (4, 8):
        raise ValueError(f"connectivity is 4 or 8, got {connectivity}")
    if mask.ndim != 2:
        raise ValueError(f"expected a (H, W) mask, got shape {mask.shape}")
    _, labels, stats, _ = cv2.connectedComponentsWithStats(
        np.ascontiguousarray(mask, dtype=np.uint8), connectivity=connectivity, ltype=cv2.CV_32S
    )
    return labels, stats[1:]


def mask_to_instances(mask: NDArray, *, connectivity: int = 8) -> list[Instance]:
    """The connected components of a (H, W) boolean mask, in raster order of their first pixel."""
    labels, stats = label_mask(mask, connectivity=connectivity)
    return [
        Instance((x, y, x + w, y + h), labels[y : y + h, x : x + w] == k)
        for k, (x, y, w, h, _) in enumerate(stats.tolist(), start=1)
    ]


def instances_to_mask(instances: Iterable[Instance], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Paint instances into a (H, W) boolean mask (their union); parts outside are cut."""
    height, width = size
    mask = np.zeros(size, dtype=bool)
    for instance in instances:
        x1, y1, x2, y2 = instance.box
        cx1, cy1, cx2, cy2 = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
        if cx1 < cx2 and cy1 < cy2:
            mask[cy1:cy2, cx1:cx2] |= instance.mask[cy1 - y1 : cy2 - y1, cx1 - x1 : cx2 - x1]
    return mask
