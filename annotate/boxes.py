"""Boxes: one convention inside, every other one converted at the border by name.

Inside irstkit a box is ``xyxy``: (x1, y1, x2, y2), float64, half-open pixel edges, so that
x2 = x1 + w and a one-pixel target is 1 wide.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from .masks import label_mask

Boxes = NDArray[np.float64]
"""(N, 4) half-open xyxy boxes in pixels."""

CONVENTIONS = ("components", "eflnet")


def as_boxes(boxes: ArrayLike) -> Boxes:
    """``boxes`` as an (N, 4) float64 array; an empty list gives shape (0, 4)."""
    array = np.asarray(boxes, dtype=np.float64)
    if array.size == 0:
        return np.zeros((0, 4))
    if array.ndim != 2 or array.shape[1] != 4:
        raise ValueError(f"expected boxes of shape (N, 4), got {array.shape}")
    return array


def mask_to_boxes(mask: NDArray, *, convention: str = "components", connectivity: int = 8) -> Boxes:
    """Tight boxes of a (H, W) boolean mask by a named convention.

    ``components``: one box a connected component, in raster order of the components' first pixels.
    ``eflnet``: the recipe behind EFLNet's published files (by measurement: it reproduces every one of
    NUDT-SIRST and IRSTD-1k): the bounding rectangle of *every* contour of the 8-connected mask, holes
    too, in the contour tracer's order.
    """
    if convention == "components":
        _, stats = label_mask(mask, connectivity=connectivity)
        boxes = stats[:, :4].astype(np.float64)
        boxes[:, 2:] += boxes[:, :2]
        return boxes
    if convention == "eflnet":
        if connectivity != 8:
            raise ValueError("the convention 'eflnet' is 8-connected")
        return as_boxes([contour.box for contour in eflnet_contours(mask)])
    raise ValueError(f"no box convention {convention!r}: choose from {', '.join(CONVENTIONS)}")


@dataclass(frozen=True)
class Contour:
    """One contour of a mask: its half-open box, one of its pixels (x, y), and whether it bounds a hole.

    The contour of a hole runs through the target's pixels around it, so that its box is one pixel larger
    than the hole on every side.
    """

    box: tuple[int, int, int, int]
    pixel: tuple[int, int]
    hole: bool


def eflnet_contours(mask: NDArray) -> list[Contour]:
    """Every contour of the 8-connected (H, W) mask in the order of EFLNet's published label files."""
    contours, hierarchy = cv2.findContours(
        np.ascontiguousarray(mask, dtype=np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
    )
    out = []
    for index, contour in enumerate(contours):
        x, y, w, h = cv2.boundingRect(contour)
        first = (int(contour[0, 0, 0]), int(contour[0, 0, 1]))
        out.append(Contour((x, y, x + w, y + h), first, bool(hierarchy[0, index, 3] >= 0)))
    return out


def xyxy_to_xywh(boxes: ArrayLike) -> Boxes:
    """Half-open xyxy to COCO's (x, y, w, h)."""
    out = as_boxes(boxes).copy()
    out[:, 2:] -= out[:, :2]
    return out


def xywh_to_xyxy(boxes: ArrayLike) -> Boxes:
    """COCO's (x, y, w, h) to half-open xyxy."""
    out = as_boxes(boxes).copy()
    out[:, 2:] += out[:, :2]
    return out


def xyxy_to_yolo(boxes: ArrayLike, size: tuple[int, int]) -> Boxes:
    """Half-open xyxy in pixels to YOLO's (cx, cy, w, h) as fractions of an image of (height, width)."""
    height, width = size
    box = as_boxes(boxes)
    scale = np.array([width, height], dtype=np.float64)
    return np.concatenate([(box[:, :2] + box[:, 2:]) / 2 / scale, (box[:, 2:] - box[:, :2]) / scale], axis=1)


def yolo_to_xyxy(boxes: ArrayLike, size: tuple[int, int]) -> Boxes:
    """YOLO's (cx, cy, w, h) fractions to half-open xyxy in pixels of an image of (height, width)."""
    height, width = size
    box = as_boxes(boxes)
    scale = np.array([width, height], dtype=np.float64)
    centre, side = box[:, :2] * scale, box[:, 2:] * scale
    return np.concatenate([centre - side / 2, centre + side / 2], axis=1)


def box_iou(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """(N, M) intersection over union of half-open boxes; no +1 anywhere. Two empty boxes give 0."""
    a, b = as_boxes(a), as_boxes(b)
    overlap = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    intersection = overlap.clip(min=0).prod(axis=2)
    area_a = (a[:, 2:] - a[:, :2]).prod(axis=1)
    area_b = (b[:, 2:] - b[:, :2]).prod(axis=1)
    union = area_a[:, None] + area_b[None, :] - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)
