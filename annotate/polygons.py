"""Polygons that run along the edges of pixels, so that no pixel is lost.

Contour finders run through pixel centres: they shrink a 3x3 target to 2x2 and turn a one-pixel target into
a point. Here a pixel (x, y) is the square (x, y)-(x+1, y+1) and its outline the square's; pycocotools paints
such polygons back to the same pixels. A list of polygons is a union and cannot say "hole": a piece with holes
is cut into rectangles.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from .masks import Instance
from .rle import rle_to_instance


def instance_polygons(instance: Instance) -> list[list[float]]:
    """The instance as polygons ``[x1, y1, x2, y2, ...]`` on pixel edges, in pixels of the image.

    One polygon a 4-connected piece (diagonal pixels share a corner, not an edge); a piece with holes as one
    rectangle for each group of columns with the same run of rows.
    """
    left, top = instance.box[:2]
    count, labels = cv2.connectedComponents(instance.mask.astype(np.uint8), connectivity=4)
    out = []
    for number in range(1, count):
        piece = np.asarray(labels == number)
        loops = _outlines(piece)
        if len(loops) > 1:
            loops = _rectangles(piece)
        out += [[float(v) for x, y in loop for v in (x + left, y + top)] for loop in loops]
    return out


def _outlines(piece: NDArray[np.bool_]) -> list[list[tuple[int, int]]]:
    """Closed loops of corners (x, y) along the edges of a piece, the pixels on the right hand of each step."""
    padded = np.pad(piece, 1)
    inner = padded[1:-1, 1:-1]
    step: dict[tuple[int, int], list[tuple[int, int]]] = {}

    def add(where: NDArray[np.bool_], start: tuple[int, int], end: tuple[int, int]) -> None:
        for y, x in np.argwhere(where).tolist():
            step.setdefault((x + start[0], y + start[1]), []).append((x + end[0], y + end[1]))

    add(inner & ~padded[:-2, 1:-1], (0, 0), (1, 0))  # top edges run right
    add(inner & ~padded[1:-1, 2:], (1, 0), (1, 1))  # right edges run down
    add(inner & ~padded[2:, 1:-1], (1, 1), (0, 1))  # bottom edges run left
    add(inner & ~padded[1:-1, :-2], (0, 1), (0, 0))  # left edges run up
    loops = []
    while step:
        start = min(step)
        loop = [start]
        at, heading = start, (0, 0)
        while True:
            ends = step[at]
            # at a corner where two pixels touch diagonally, turn right: the loop stays on its own pixel
            right = (at[0] - heading[1], at[1] + heading[0])
            to = right if len(ends) > 1 and right in ends else ends[0]
            ends.remove(to)
            if not ends:
                del step[at]
            new = (to[0] - at[0], to[1] - at[1])
            if new != heading and at != start:
                loop.append(at)
            at, heading = to, new
            if at == start and (at not in step or len(loop) > 2):
                break
        loops.append(loop)
    return loops


def _rectangles(piece: NDArray[np.bool_]) -> list[list[tuple[int, int]]]:
    """Disjoint rectangles that cover a piece: runs of rows, joined over the columns that share them."""
    out = []
    running: dict[tuple[int, int], int] = {}
    for x in range(piece.shape[1] + 1):
        runs: set[tuple[int, int]] = set()
        if x < piece.shape[1]:
            edges = np.flatnonzero(np.diff(np.pad(piece[:, x].astype(np.int8), 1))).tolist()
            runs = set(zip(edges[0::2], edges[1::2], strict=True))
        for run in sorted(set(running) - runs):
            x1 = running.pop(run)
            out.append([(x1, run[0]), (x, run[0]), (x, run[1]), (x1, run[1])])
        for run in runs:
            running.setdefault(run, x)
    return out


def polygons_to_instance(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> Instance | None:
    """The pixels of a list of polygons (their union) in an image of (height, width), as pycocotools paints
    them; None when they cover none.

    Raises
    ------
    ValueError
        When a polygon has under 3 points, an odd number of coordinates, or leaves the image by more than
        its size (pycocotools would reserve memory for every step of the way).
    """
    height, width = size
    for polygon in polygons:
        if len(polygon) < 6 or len(polygon) % 2:
            raise ValueError(f"a polygon of {len(polygon)} numbers: at least 3 points, two numbers each")
        xs, ys = polygon[0::2], polygon[1::2]
        if not (min(xs) >= -width and max(xs) <= 2 * width and min(ys) >= -height and max(ys) <= 2 * height):
            raise ValueError(f"a polygon far outside the image of {width}x{height}")
    if not polygons:
        raise ValueError("no polygon")
    rles = coco_mask.frPyObjects([[float(v) for v in p] for p in polygons], height, width)
    rle = coco_mask.merge(rles)
    return rle_to_instance({"size": [height, width], "counts": rle["counts"]})
