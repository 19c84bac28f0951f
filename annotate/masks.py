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
    labels, stats, (top, left) = _label_crop(mask, connectivity)
    full = np.zeros(mask.shape, dtype=np.int32)
    height, width = labels.shape
    full[top : top + height, left : left + width] = labels
    return full, stats


def _label_crop(
    mask: NDArray, connectivity: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], tuple[int, int]]:
    """Labels of the smallest window that holds all foreground, stats in the whole frame, and its corner.

    Targets cover a few pixels of a frame, so most of the labelling is saved by not looking elsewhere.
    """
    if connectivity not in (4, 8):
        raise ValueError(f"connectivity is 4 or 8, got {connectivity}")
    if mask.ndim != 2:
        raise ValueError(f"expected a (H, W) mask, got shape {mask.shape}")
    pixels = np.ascontiguousarray(mask, dtype=bool).view(np.uint8)
    left, top, width, height = cv2.boundingRect(pixels)
    if width == 0:
        return np.zeros((0, 0), np.int32), np.zeros((0, 5), np.int32), (0, 0)
    window = pixels[top : top + height, left : left + width]
    count, found, table, _ = cv2.connectedComponentsWithStats(
        window, connectivity=connectivity, ltype=cv2.CV_32S
    )
    labels = np.asarray(found, dtype=np.int32)
    stats = np.asarray(table, dtype=np.int32)[1:]
    if count > 2:
        # OpenCV numbers components by the 2x2 block they begin in, and by stripes when it uses threads
        where = np.flatnonzero(labels)[::-1]
        first = np.empty(count, dtype=np.int64)
        first[labels.ravel()[where]] = where  # the last write is the smallest index
        order = np.argsort(first[1:])
        if (np.diff(order) < 0).any():
            number = np.zeros(count, dtype=np.int32)
            number[order + 1] = np.arange(1, count, dtype=np.int32)
            labels, stats = number[labels], stats[order]
    return labels, stats + np.array([left, top, 0, 0, 0], dtype=np.int32), (top, left)


def mask_to_instances(mask: NDArray, *, connectivity: int = 8) -> list[Instance]:
    """The connected components of a (H, W) boolean mask, in raster order of their first pixel."""
    labels, stats, (top, left) = _label_crop(mask, connectivity)
    return [
        Instance((x, y, x + w, y + h), labels[y - top : y - top + h, x - left : x - left + w] == k)
        for k, (x, y, w, h, _) in enumerate(stats.tolist(), start=1)
    ]


def labels_to_instances(labels: NDArray) -> list[Instance]:
    """The instances of a (H, W) label image (0 background, each other value one target), by value.

    A label whose pixels are not connected stays one instance: the image says so.
    """
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"expected a (H, W) array of whole numbers, got {labels.dtype} {labels.shape}")
    ys, xs = np.nonzero(labels)
    values = labels[ys, xs]
    out = []
    for value in np.unique(values):
        y, x = ys[values == value], xs[values == value]
        x1, y1, x2, y2 = int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1
        patch = np.zeros((y2 - y1, x2 - x1), dtype=bool)
        patch[y - y1, x - x1] = True
        out.append(Instance((x1, y1, x2, y2), patch))
    return out


def instances_to_labels(instances: Iterable[Instance], size: tuple[int, int]) -> NDArray[np.uint16]:
    """A (H, W) uint16 label image: 0 background, 1..N in the given order; parts outside are cut.

    Raises
    ------
    ValueError
        When two instances share a pixel (a label image holds one of them only) or there are over 65535.
    """
    labels = np.zeros(size, dtype=np.uint16)
    for number, instance in enumerate(instances, start=1):
        if number > 65535:
            raise ValueError("more than 65535 instances in one image")
        x1, y1, x2, y2 = instance.box
        window = labels[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)]
        h, w = window.shape
        pixels = instance.mask[max(-y1, 0) :, max(-x1, 0) :][:h, :w]
        if window[pixels].any():
            raise ValueError(f"instance {number} shares pixels with another one")
        window[pixels] = number
    return labels


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
