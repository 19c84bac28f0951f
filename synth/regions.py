"""Sky, land and sea: a coarse region map of a background, for placement.

Nothing is learned here. The skyline is the path from the left to the right edge of the image, one row a
column, that parts it best into two regions of even brightness and texture (Otsu's criterion on a 64 x 64
reduction, found by dynamic programming with a cost on steps). Where such a parting explains too little,
there is none.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

SKY, LAND, SEA, UNKNOWN, BUILT = range(5)
SIDE = 64

# what may stand where; the rows' scenes decide what lies below a skyline, or fills an image without one
BELOW = {"sea": SEA, "city": BUILT, "field": LAND, "highlight": LAND, "cloud": LAND}
WITHOUT = {"sea": SEA, "city": BUILT, "field": LAND, "highlight": SKY, "cloud": SKY}
STREET = 0.72  # of the height: what is built up above this row is taken for walls


def features(image: NDArray) -> NDArray[Any]:
    """(2, 64, 64): brightness and the logarithm of local deviation, each of zero mean and unit deviation."""
    small = cv2.resize(image.astype(np.float32), (2 * SIDE, 2 * SIDE), interpolation=cv2.INTER_AREA)
    mean = cv2.blur(small, (5, 5))
    local = np.sqrt(np.maximum(cv2.blur(small * small, (5, 5)) - mean * mean, 0))
    spread = float(small.std()) + 1e-6
    planes = [cv2.blur(small, (3, 3)), np.log(local / spread + 0.03)]
    out = np.stack([cv2.resize(p, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for p in planes]).astype(float)
    out -= out.mean(axis=(1, 2), keepdims=True)
    deviation = out.std(axis=(1, 2), keepdims=True)
    return out / np.maximum(deviation, 1e-6)


def skyline(image: NDArray, *, least: float = 0.45) -> tuple[NDArray[Any], float] | None:
    """Row of the skyline in each of 64 columns as a fraction of the height, and how well it parts the image.

    The score is the share of the two features' variance that the two regions' means explain, from 0 to 1;
    below ``least`` there is no skyline.
    """
    planes = features(image)
    rows = np.arange(1, SIDE)
    # first a straight one: the row whose two sides are most even
    sums = np.cumsum(planes.sum(axis=2), axis=1)[:, :-1]
    total = planes.sum(axis=(1, 2))[:, None]
    n1, n2 = rows * SIDE, (SIDE - rows) * SIDE
    between = (sums**2 / n1 + (total - sums) ** 2 / n2).sum(axis=0) / (2 * SIDE * SIDE)
    between[:2] = between[-2:] = 0.0
    row = int(np.argmax(between)) + 1
    path = np.full(SIDE, row)
    for _ in range(
        2
    ):  # then bent: each pixel is nearer to one side's means, the path keeps most on their side
        above = np.arange(SIDE)[:, None] < path[None, :]
        up, down = planes[:, above].mean(axis=1), planes[:, ~above].mean(axis=1)
        gain = ((planes - down[:, None, None]) ** 2 - (planes - up[:, None, None]) ** 2).sum(axis=0)
        path = _best_path(np.concatenate([np.zeros((1, SIDE)), np.cumsum(gain, axis=0)]))
        if path.max() <= 1 or path.min() >= SIDE - 1:
            return None
    above = np.arange(SIDE)[:, None] < path[None, :]
    n = int(above.sum())
    up, down = planes[:, above].mean(axis=1), planes[:, ~above].mean(axis=1)
    score = float((n * up**2 + (SIDE * SIDE - n) * down**2).sum() / (2 * SIDE * SIDE))
    if score < least or up[1] > down[1]:  # a sky is smoother than what lies below
        return None
    return path / SIDE, score


def straight_edge(image: NDArray, *, least: float = 0.8) -> float | None:
    """Row, as a fraction of the height, of one step in brightness that runs straight across the image.

    A sea's horizon may part two regions that are alike otherwise. The step has one sign in at least the
    share ``least`` of the columns and is the image's strongest by row means, twice any other's.
    """
    side = 2 * SIDE
    small = cv2.resize(image.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
    small = cv2.blur(small, (9, 1))
    step = small[3:] - small[:-3]  # between row r and row r + 3: an edge at r + 2
    mean = step.mean(axis=1)
    row = int(np.argmax(np.abs(mean)))
    near = np.abs(np.arange(len(mean)) - row) <= 4
    rest = float(np.abs(mean[~near]).max())
    same = float(np.mean(np.sign(step[row]) == np.sign(mean[row])))
    if same < least or abs(mean[row]) < 1.6 * rest or not 6 <= row <= side - 10:
        return None
    return (row + 2) / side


def sea_horizon(image: NDArray, *, least: float = 0.9, ratio: float = 1.4) -> tuple[float, ...] | None:
    """Rows, as fractions of the height in each of 64 columns, of a straight horizon that may lean a little.

    As :func:`straight_edge`, but the image is sheared by up to 8 of 128 rows first, and the shear with the
    strongest step is taken: cameras at sea roll. ``least`` and ``ratio`` were chosen on NUAA-SIRST.
    """
    side = 2 * SIDE
    small = cv2.resize(image.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
    small = cv2.blur(small, (9, 1))
    best: tuple[float, int, int, NDArray[Any], NDArray[Any]] | None = None
    for lean in range(-8, 9):
        shear = np.array([[1, 0, 0], [lean / side, 1, -lean / 2]], np.float32)
        upright = cv2.warpAffine(small, shear, (side, side), borderMode=cv2.BORDER_REPLICATE)
        step = upright[3:] - upright[:-3]
        mean = step.mean(axis=1)
        row = int(np.argmax(np.abs(mean[4:-8]))) + 4
        if best is None or abs(mean[row]) > best[0]:
            best = float(abs(mean[row])), row, lean, step, mean
    assert best is not None
    strength, row, lean, step, mean = best
    rest = np.abs(mean[np.abs(np.arange(len(mean)) - row) > 4])
    same = float(np.mean(np.sign(step[row]) == np.sign(mean[row])))
    if same < least or strength < ratio * float(rest.max()) or strength < 1e-6:
        return None
    across = (np.arange(SIDE) + 0.5) / SIDE - 0.5
    rows = np.clip((row + 2 - lean * across) / side, 0, 1)
    return tuple(round(float(v), 4) for v in rows)


def _best_path(value: NDArray[Any], *, reach: int = 6, price: float = 2.0) -> NDArray[np.int64]:
    """The row in each column that maximises the sum of ``value`` (rows, columns) minus ``price`` a step."""
    height, width = value.shape
    steps = np.arange(-reach, reach + 1)
    cost, rows = price * np.abs(steps), np.arange(height)
    padded = np.full(height + 2 * reach, -np.inf)
    options = np.lib.stride_tricks.sliding_window_view(
        padded, 2 * reach + 1
    )  # row r: padded[r : r + 2 reach + 1]
    columns = np.ascontiguousarray(value.T)
    best = columns[0]
    came = np.zeros((width, height), dtype=np.int64)
    for column in range(1, width):
        padded[reach : reach + height] = best
        priced = options - cost
        choice = priced.argmax(axis=1)
        came[column] = choice
        best = priced[rows, choice] + columns[column]
    path = np.zeros(width, dtype=np.int64)
    path[-1] = int(np.argmax(best))
    for column in range(width - 1, 0, -1):
        path[column - 1] = path[column] + steps[came[column, path[column]]]
    return path


def outline(image: NDArray, scene: str | None) -> tuple[float, ...] | None:
    """Where sky ends in each of 64 columns, as fractions of the height; None: no skyline was found.

    Cloud scenes are taken for all sky, since what parts them best are clouds.
    """
    if scene == "cloud":
        return None
    if scene == "sea":
        horizon = sea_horizon(image)
        if horizon is not None:
            return horizon
    found = skyline(image)
    if found is not None:
        return tuple(round(float(v), 4) for v in found[0])
    row = straight_edge(image)
    return None if row is None else (round(row, 4),) * SIDE


def crop_outline(
    path: tuple[float, ...] | None, size: tuple[int, int], x: int, y: int, side: int, flip: bool
) -> tuple[float, ...] | None:
    """The outline of a crop of ``side`` pixels at (x, y) of a source of (height, width)."""
    if path is None:
        return None
    columns = (x + (np.arange(SIDE) + 0.5) / SIDE * side) / size[1] * SIDE
    rows = np.asarray(path)[np.clip(columns.astype(int), 0, SIDE - 1)]
    cut = (rows * size[0] - y) / side
    return tuple((cut[::-1] if flip else cut).tolist())


def region_map(scene: str | None, path: tuple[float, ...] | None) -> NDArray[np.uint8] | None:
    """(64, 64) map of SKY, LAND, SEA, BUILT (walls, roofs, streets) and UNKNOWN; None when the scene is not known.

    A sea without an outline is only called sea in its lower part.
    """
    if scene is None:
        return None
    centre = (np.arange(SIDE)[:, None] + 0.5) / SIDE
    if path is not None:
        return np.where(centre < np.asarray(path)[None, :], SKY, BELOW[scene]).astype(np.uint8)
    out = np.full((SIDE, SIDE), WITHOUT[scene], np.uint8)
    if scene == "sea":
        out[centre[:, 0] < 0.6] = UNKNOWN
    return out


def allowed(silhouette: str, regions: NDArray[np.uint8] | None) -> NDArray[np.bool_] | None:
    """Where the foot of a silhouette may be, (64, 64); None: anywhere; all False: nowhere here.

    Ships stand on water, vehicles on land; where it is built up, in the lowest part of the image, where the
    street is if there is one: above are walls. What flies is seen against the sky where there is one;
    over land or sea without a skyline the view is from above, and it may be anywhere. Not so between buildings:
    there birds and UAVs fly, aircraft and helicopters do not.
    """
    if regions is None:
        return None
    if silhouette == "ship":
        return regions == SEA
    if silhouette == "vehicle":
        street = (regions == BUILT) & (np.arange(SIDE)[:, None] >= STREET * SIDE)
        return (regions == LAND) | street
    sky = regions == SKY
    if sky.any() or (silhouette in ("aircraft", "helicopter") and (regions == BUILT).all()):
        return sky
    return None
