"""Pictures of labels: images stretched for the eye, targets outlined along their pixels' edges."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

GREEN, RED, YELLOW, BLUE = (46, 204, 113), (255, 71, 71), (255, 209, 71), (77, 157, 255)


def stretch(image: NDArray, *, low: float = 0.5, high: float = 99.8) -> NDArray[np.uint8]:
    """A (H, W) 8- or 16-bit image as uint8, its percentiles ``low`` to ``high`` spread over 0..255."""
    bottom, top = np.percentile(image, [low, high])
    if top <= bottom:
        bottom, top = float(image.min()), float(max(image.max(), image.min() + 1))
    scaled = (image.astype(np.float32) - bottom) * (255.0 / (top - bottom))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def enlarge(image: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Every pixel as a ``scale`` x ``scale`` square, in RGB: (H, W) or (H, W, 3) to (sH, sW, 3)."""
    rgb = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
    return np.ascontiguousarray(np.repeat(np.repeat(rgb, scale, axis=0), scale, axis=1))


def outline_mask(
    picture: NDArray[np.uint8], mask: NDArray, colour: Sequence[int], *, scale: int, width: int = 1
) -> None:
    """Outline a (H, W) mask on a picture of (scale H, scale W, 3), just outside the target, in place."""
    big = np.repeat(np.repeat(mask.astype(np.uint8), scale, axis=0), scale, axis=1)
    grown = cv2.dilate(big, np.ones((2 * width + 1, 2 * width + 1), np.uint8))
    picture[(grown == 1) & (big == 0)] = colour


def outline_boxes(
    picture: NDArray[np.uint8], boxes: ArrayLike, colour: Sequence[int], *, scale: int, margin: int = 2
) -> None:
    """Draw half-open xyxy boxes, ``margin`` image pixels away from the target, in place."""
    height, width = picture.shape[:2]
    for x1, y1, x2, y2 in np.asarray(boxes, dtype=np.float64).reshape(-1, 4):
        start = (max(round((x1 - margin) * scale), 0), max(round((y1 - margin) * scale), 0))
        end = (min(round((x2 + margin) * scale), width) - 1, min(round((y2 + margin) * scale), height) - 1)
        cv2.rectangle(picture, start, end, tuple(int(c) for c in colour), max(1, scale))


def crop_around(shape: tuple[int, int], centre: tuple[float, float], side: int) -> tuple[slice, slice]:
    """Row and column slices of a window of at most ``side`` pixels around (x, y), inside the image."""
    slices = []
    for length, middle in zip(shape, (centre[1], centre[0]), strict=True):
        size = min(side, length)
        start = min(max(round(middle - size / 2), 0), length - size)
        slices.append(slice(start, start + size))
    return slices[0], slices[1]


def picture_of(
    image: NDArray,
    *,
    truth: NDArray | None = None,
    predicted: NDArray | None = None,
    boxes: ArrayLike | None = None,
    window: tuple[slice, slice] | None = None,
    scale: int = 4,
) -> NDArray[np.uint8]:
    """One RGB picture: truth outlined green, predictions red, boxes yellow; contrast is that of the whole image."""
    rows, columns = window or (slice(None), slice(None))
    picture = enlarge(stretch(image)[rows, columns], scale)
    layers: Iterable[tuple[NDArray | None, tuple[int, int, int]]] = ((truth, GREEN), (predicted, RED))
    for k, (mask, colour) in enumerate(layers):
        if mask is not None:
            outline_mask(picture, mask[rows, columns], colour, scale=scale, width=1 + k)
    if boxes is not None:
        shift = np.array([columns.start or 0, rows.start or 0] * 2, dtype=np.float64)
        outline_boxes(
            picture, np.asarray(boxes, dtype=np.float64).reshape(-1, 4) - shift, YELLOW, scale=scale
        )
    return picture
