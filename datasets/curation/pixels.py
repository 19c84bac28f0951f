"""Label edits on pixels: snap, move, grow, split, merge, follow. Arrays in, instances out; no FiftyOne here."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from ...annotate.files import GrayImage
from ...annotate.masks import Instance, instances_to_mask, mask_to_instances
from .sources import whole_instance

Box = tuple[float, float, float, float]

RING = 10
FRACTION = 0.3
"""A grown target's pixels are at least this fraction of the way from the background to its extreme."""
SIGMAS = 2.0


def snap_box(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The whole pixels that a half-open box covers by half or more on each axis, at least one, in the image."""
    out: list[tuple[int, int]] = []
    for low, high, end in ((box[0], box[2], size[1]), (box[1], box[3], size[0])):
        first, last = round_half_up(low), round_half_up(high)
        if last <= first:
            first = math.floor((low + high) / 2)
            last = first + 1
        first = min(max(first, 0), end - 1)
        out.append((first, min(max(last, first + 1), end)))
    return out[0][0], out[1][0], out[0][1], out[1][1]


def cover_box(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Every pixel that a half-open box touches (by more than a thousandth), cut to the image; None outside."""
    x1, y1 = max(math.floor(box[0] + 1e-3), 0), max(math.floor(box[1] + 1e-3), 0)
    x2, y2 = min(math.ceil(box[2] - 1e-3), size[1]), min(math.ceil(box[3] - 1e-3), size[0])
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def round_half_up(value: float) -> int:
    """The nearest whole number; halves go up, so that moves by half a pixel do not depend on the place."""
    return math.floor(value + 0.5)


def snap_mask(mask: NDArray, box: Box, size: tuple[int, int]) -> Instance | None:
    """A mask drawn on a grid of its own over ``box``, on the image's pixels: those covered by half or more.

    A mask on whole pixels comes back bit for bit. A mask so thin that it covers no pixel by half gives the
    pixel that it covers most. None for an empty mask or one outside the (height, width) image.
    """
    drawn = np.asarray(mask) > 0
    rows, columns = drawn.shape
    across = _coverage(box[0], box[2], columns, size[1])
    down = _coverage(box[1], box[3], rows, size[0])
    if across is None or down is None or not drawn.any():
        return None
    (x1, wx), (y1, wy) = across, down
    covered = wy @ drawn.astype(np.float64) @ wx.T
    if covered.max() <= 0:
        return None
    kept = covered >= 0.5 - 1e-6
    if not kept.any():
        kept = covered == covered.max()
    found = whole_instance(kept)
    assert found is not None
    a, b, c, d = found.box
    return Instance((a + x1, b + y1, c + x1, d + y1), found.mask)


def _coverage(low: float, high: float, cells: int, end: int) -> tuple[int, NDArray[np.float64]] | None:
    """(first pixel, (pixels, cells) share of each pixel that each of ``cells`` equal cells covers)."""
    nearest = round(low), round(high)
    if abs(low - nearest[0]) < 1e-3 and abs(high - nearest[1]) < 1e-3:
        low, high = nearest  # the database keeps fractions of the image: their rounding is not a drawing
    first, last = max(math.floor(low), 0), min(math.ceil(high), end)
    if first >= last or high <= low:
        return None
    edges = np.linspace(low, high, cells + 1)
    pixels = np.arange(first, last, dtype=np.float64)[:, None]
    share = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    return first, share.clip(min=0)


def move(instance: Instance, dx: int, dy: int, size: tuple[int, int]) -> Instance | None:
    """The instance (dx, dy) pixels further, cut to the (height, width) image; None when nothing is left."""
    x1, y1, x2, y2 = instance.box
    moved = Instance((x1 + dx, y1 + dy, x2 + dx, y2 + dy), instance.mask)
    if moved.box[0] >= 0 and moved.box[1] >= 0 and moved.box[2] <= size[1] and moved.box[3] <= size[0]:
        return moved
    return whole_instance(instances_to_mask([moved], size))


def drawn_larger(instance: Instance, by: int, size: tuple[int, int]) -> Instance:
    """The instance and every pixel at most ``by`` (Euclidean) away from it, in the (height, width) image."""
    whole = np.pad(instance.mask, by).astype(np.uint8)
    y, x = np.mgrid[-by : by + 1, -by : by + 1]
    disc = (np.hypot(x, y) <= by + 1e-6).astype(np.uint8)
    x1, y1, x2, y2 = instance.box
    larger = Instance((x1 - by, y1 - by, x2 + by, y2 + by), cv2.dilate(whole, disc) > 0)
    found = move(larger, 0, 0, size)
    assert found is not None
    return found


def drawn_smaller(instance: Instance) -> Instance | None:
    """The instance without the pixels at its edge (4-neighbours); None when nothing is left."""
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    padded = np.pad(instance.mask, 1).astype(np.uint8)
    found = whole_instance(cv2.erode(padded, cross) > 0)
    if found is None:
        return None
    x, y = instance.box[0] - 1, instance.box[1] - 1
    a, b, c, d = found.box
    return Instance((a + x, b + y, c + x, d + y), found.mask)


def grow(
    image: GrayImage, box: Box, *, others: Sequence[Instance] = (), fraction: float = FRACTION
) -> Instance | None:
    """The target in a box: from its extreme pixel, all 8-connected pixels above a local threshold, in the box.

    Background: median and spread (1.4826 MAD) of the ring of 10 pixels around the box without ``others``. The
    extreme is the pixel in the box that is farthest from it, above or below; the threshold lies ``fraction`` of
    the way from the background to it, and 2 spreads away where the target is that strong.

    Returns
    -------
    None when the box is outside the image or flat (nothing differs from the background).
    """
    size = (image.shape[0], image.shape[1])
    window = cover_box(box, size)
    if window is None:
        return None
    x1, y1, x2, y2 = window
    inside = image[y1:y2, x1:x2].astype(np.float64)
    free = np.ones(inside.shape, dtype=bool)
    ry1, rx1 = max(y1 - RING, 0), max(x1 - RING, 0)
    ring = image[ry1 : y2 + RING, rx1 : x2 + RING].astype(np.float64)
    usable = np.ones(ring.shape, dtype=bool)
    usable[y1 - ry1 : y2 - ry1, x1 - rx1 : x2 - rx1] = False
    if others:
        taken = instances_to_mask(others, size)
        usable &= ~taken[ry1 : y2 + RING, rx1 : x2 + RING]
        free = ~taken[y1:y2, x1:x2]
    if not free.any():
        return None
    around = ring[usable]
    level = float(np.median(around)) if len(around) else float(np.median(inside))
    spread = 1.4826 * float(np.median(np.abs(around - level))) if len(around) else 0.0
    difference = np.where(free, inside - level, 0.0)
    if abs(difference.min()) > difference.max():
        difference = -difference
    top = float(difference.max())
    if top <= 0:
        return None
    least = max(fraction * top, min(SIGMAS * spread, 0.5 * top))
    found = (difference >= least) & free
    _, labels = cv2.connectedComponents(found.view(np.uint8), connectivity=8)
    seed = np.unravel_index(int(difference.argmax()), difference.shape)
    one = whole_instance(labels == labels[seed])
    assert one is not None
    a, b, c, d = one.box
    return Instance((a + x1, b + y1, c + x1, d + y1), one.mask)


def split(instance: Instance) -> list[Instance]:
    """Its 8-connected parts; of a connected one the 4-connected parts; else two halves across its longest axis."""
    x1, y1, _, _ = instance.box
    for connectivity in (8, 4):
        parts = mask_to_instances(instance.mask, connectivity=connectivity)
        if len(parts) > 1:
            return [
                Instance((a + x1, b + y1, c + x1, d + y1), p.mask) for p in parts for a, b, c, d in [p.box]
            ]
    ys, xs = np.nonzero(instance.mask)
    if len(xs) < 2:
        return [instance]
    points = np.stack([xs - xs.mean(), ys - ys.mean()])
    _, vectors = np.linalg.eigh(points @ points.T)
    along = vectors[:, -1] @ points
    along *= 1 if vectors[np.abs(vectors[:, -1]).argmax(), -1] > 0 else -1
    order = np.lexsort((xs, ys, np.round(along, 9)))
    second = np.zeros(len(xs), dtype=bool)
    second[order[(len(xs) + 1) // 2 :]] = True
    out = []
    for chosen in (~second, second):
        half = np.zeros(instance.mask.shape, dtype=bool)
        half[ys[chosen], xs[chosen]] = True
        part = whole_instance(half)
        assert part is not None
        a, b, c, d = part.box
        out.append(Instance((a + x1, b + y1, c + x1, d + y1), part.mask))
    return out


def merge(instances: Sequence[Instance], size: tuple[int, int]) -> Instance | None:
    """All pixels of ``instances`` as one; None when there are none in the (height, width) image."""
    return whole_instance(instances_to_mask(instances, size))


def follow(
    first: GrayImage, box: Box, frames: Sequence[GrayImage], *, reach: int = 8, least: float = 0.5
) -> Iterator[tuple[tuple[int, int, int, int], float]]:
    """Carry a box along ``frames`` by normalised correlation of its surroundings; (box, correlation) each.

    The template is the box with a margin of 4 pixels in the frame where it was found last; it is looked for
    ``reach`` pixels around. Ends at the first frame whose best correlation is below ``least``, or where the box
    leaves the image.
    """
    margin = 4
    size = (first.shape[0], first.shape[1])
    x1, y1, x2, y2 = snap_box(box, size)
    image = first
    for frame in frames:
        if frame.shape != image.shape:
            return
        tx, ty = max(x1 - margin, 0), max(y1 - margin, 0)
        template = image[ty : y2 + margin, tx : x2 + margin].astype(np.float32)
        sx, sy = max(tx - reach, 0), max(ty - reach, 0)
        search = frame[sy : ty + template.shape[0] + reach, sx : tx + template.shape[1] + reach].astype(
            np.float32
        )
        if template.std() == 0:
            return
        scores = cv2.matchTemplate(search, template, cv2.TM_CCOEFF_NORMED)
        _, best, _, (px, py) = cv2.minMaxLoc(np.nan_to_num(scores, posinf=0.0, neginf=0.0))
        if best < least:
            return
        dx, dy = sx + px - tx, sy + py - ty
        x1, y1, x2, y2 = x1 + dx, y1 + dy, x2 + dx, y2 + dy
        if x1 < 0 or y1 < 0 or x2 > size[1] or y2 > size[0]:
            return
        image = frame
        yield (x1, y1, x2, y2), float(best)
