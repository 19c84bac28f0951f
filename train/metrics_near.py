"""States of components whose centroid comes near a target, from pixels by component and level.

:mod:`.metrics_tree` finds the components; here their running sums are looked at.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from .metrics_match import Components, _strictly_near

_TIE = 1e-6


@dataclass(frozen=True, eq=False)
class NearStates:
    """States of components, each near a target; one entry for each (target, state).

    A state is a component while it keeps its pixels: for levels ``low <= t < high`` (positive: level > t).
    ``component`` numbers the states, so that one state near two targets is recognised; ``area`` in pixels,
    ``distance`` between the centroids in pixels.
    """

    target: NDArray[np.intp]
    component: NDArray[np.int64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    area: NDArray[np.int64]
    distance: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Grid:
    """An image as one row of numbers: a guard pixel before each row, a guard row above and below.

    A neighbour is then a fixed step away. ``begin:end`` holds the image; ``x``, ``y`` are of that part.
    ``weights`` are x and y as floats, whose sums are exact below 2**53; where there is room, x stands
    ``unit`` bits higher and 1 is added, so that one sum tells the number of pixels too (else ``unit`` is 0).
    """

    stride: int
    begin: int
    end: int
    size: int
    number: NDArray[np.intp]
    x: NDArray[np.int64]
    y: NDArray[np.int64]
    weights: tuple[NDArray[np.float64], NDArray[np.float64]]
    unit: int


@lru_cache(maxsize=2)
def grid_of(shape: tuple[int, int]) -> Grid:
    """The same for all images of a set."""
    height, width = shape
    stride = width + 1
    begin, end = stride + 1, (height + 1) * stride
    y, x = np.divmod(np.arange(begin, end), stride)
    x, y = x - 1, y - 1
    size = (height + 2) * stride + 1
    unit = size.bit_length()
    if size * stride << unit >= 2**53:
        unit = 0
    weights = ((x << unit) + (unit > 0)).astype(float), y.astype(float)
    return Grid(stride, begin, end, size, np.arange(size), x, y, weights, unit)


_OWN = threading.local()
_KEPT = 2**20


def scratch(grid: Grid) -> tuple[NDArray[np.intp], ...]:
    """Four whole-number arrays of the grid's size, this thread's own: large arrays made anew cost page faults.

    Those of very large images are not kept.
    """
    if grid.size > _KEPT:
        return tuple(np.empty(grid.size, np.intp) for _ in range(4))
    if getattr(_OWN, "size", None) != grid.size:
        _OWN.size, _OWN.arrays = grid.size, tuple(np.empty(grid.size, np.intp) for _ in range(4))
    return _OWN.arrays


class Collector:
    """Keeps the states whose centroid is near a target."""

    def __init__(self, grid: Grid, shape: tuple[int, ...], targets: Components, distance: float) -> None:
        self.grid, self.shape = grid, shape
        self.targets, self.distance = targets, distance
        self.centroids = np.array(targets.centroids()).reshape(-1, 2)
        self.parts: list[tuple[NDArray, ...]] = []
        self.seen = 0
        # whole-pixel positions from which a target may be in reach, and which target
        reach = int(np.ceil(distance)) + 1
        window = np.arange(-reach, reach + 1)
        middle = np.rint(self.centroids).astype(np.int64)[:, :, None] + window  # (targets, x and y, window)
        inside = (middle >= 0) & (middle < np.array(shape[::-1])[:, None])
        target, row, column = np.nonzero(inside[:, 1, :, None] & inside[:, 0, None, :])
        position = middle[target, 1, row] * shape[1] + middle[target, 0, column]
        order = np.argsort(position, kind="stable")
        self.position, self.target = position[order], target[order]
        self.near = np.zeros(shape, bool)
        self.near.ravel()[position] = True
        self.count = cv2.integral(self.near.view(np.uint8))  # of them above and left of each corner

    def in_reach(self, boxes: NDArray[np.int64] | list[NDArray[np.int64]]) -> NDArray[np.bool_]:
        """Whether a centroid inside each box (see :meth:`.metrics_tree._Pixels.boxes`) can be near some target.

        A centroid lies in its pixels' box: most components need no further look.
        """
        left, top, right, bottom = boxes[0], boxes[1], 1 - boxes[2], 1 - boxes[3]
        count = self.count
        return count[bottom, right] - count[top, right] - count[bottom, left] + count[top, left] > 0

    def add(self, key, bounds, look_up, position, box, death) -> None:
        """States of components from their pixels.

        A component's pixels are taken in blocks of levels first: between the sums at a block's two ends its
        centroid cannot leave a box, and only blocks whose box reaches a target are looked at closely.

        Parameters
        ----------
        key
            Block of each pixel; component k has the blocks from bounds[k] up to bounds[k + 1], by falling
            level. Pixels of blocks behind those of all components are left out.
        look_up
            Gives, for pixels by their place in ``key``, their level, the level at which their basin joined the
            component, and a number of that basin there. The lower one is the effective level. Pixels that
            do not live above ``death`` are left out; they may only be in a component's last block.
        position
            Of each pixel in the grid's arrays; None where all are given in order.
        box, death
            (4, components) as :meth:`.metrics_tree._Pixels.boxes` gives them, and the level at which each component dies.
        """
        grid = self.grid
        x, y = grid.weights if position is None else (w[position] for w in grid.weights)
        sum_x, sum_y = (np.bincount(key, weights=w).astype(np.int64) for w in (x, y))
        if grid.unit:
            sum_x, count = sum_x >> grid.unit, sum_x & ((1 << grid.unit) - 1)
        else:
            count = np.bincount(key)
        used = np.flatnonzero(count[: bounds[-1]])
        area, sum_x, sum_y = count[used], sum_x[used], sum_y[used]
        component = np.searchsorted(bounds, used, side="right") - 1
        first = np.flatnonzero(np.diff(component, prepend=-1))
        length = np.diff(first, append=len(used))
        before = []
        for v in (area, sum_x, sum_y):
            total = np.cumsum(v) - v
            before.append(total - np.repeat(total[first], length))
        after = before[0] + area
        left, top, right, bottom = box[:, component]
        reach = [
            # a hair wider than what rounding of the division could take away
            np.maximum(np.floor((total + area * least) / after - _TIE), 0).astype(np.int64)
            for total, least in ((before[1], left), (before[2], top))
        ]
        reach += [
            -np.minimum(np.ceil((total - area * most) / after + _TIE), -most).astype(np.int64)
            for total, most in ((before[1], right), (before[2], bottom))
        ]
        look = self.in_reach(reach)
        look[1:] |= look[:-1].copy()  # where a block's last state ends is told by the next block
        wanted = np.full(len(count), -1, np.intp)
        wanted[used[look]] = np.flatnonzero(look)
        at = np.flatnonzero((wanted >= 0).take(key, mode="clip"))
        if not len(at):
            return
        level, joined, group = look_up(at)
        block, level, count, *sums = self._items(at, wanted[key[at]], level, joined, group, position)
        alive = np.flatnonzero(level > death[component[block]])
        if not len(alive):
            return
        turn = alive[falling(block[alive], level[alive])]
        block, level = block[turn], level[turn]
        first = np.flatnonzero(np.diff(block, prepend=-1))
        length = np.diff(first, append=len(block))
        running = []
        for value, base in zip((count, *sums), before, strict=True):
            value = value[turn]
            total = np.cumsum(value)
            total += np.repeat(base[block[first]] - (total[first] - value[first]), length)
            running.append(total)
        near = self._near(*running)
        if len(near):
            component = component[block]
            following = np.minimum(near + 1, len(block) - 1)
            same = (component[following] == component[near]) & (following > near)
            ends = np.where(same, level[following], death[component[near]])
            self._keep(level[near], ends, *(v[near] for v in running))

    def _items(self, at, block, level, joined, group, position) -> tuple[NDArray[np.int64], ...]:
        """Block, level, number of pixels and sums of x and y of all that is added to components.

        Pixels come one by one, but those that were above the level at which their basin joined come at once.
        """
        where = at if position is None else position[at]
        x, y = self.grid.x[where], self.grid.y[where]
        late = level > joined
        own, late = np.flatnonzero(~late), np.flatnonzero(late)
        group = group[late]
        count = np.bincount(group)
        sums = [np.bincount(group, weights=v[late]).astype(np.int64) for v in (x, y)]
        some = np.flatnonzero(count)
        example = np.empty(len(count), np.intp)
        example[group] = late
        example = example[some]
        return (
            np.append(block[own], block[example]),
            np.append(level[own], joined[example]),
            np.append(np.ones(len(own), np.int64), count[some]),
            np.append(x[own], sums[0][some]),
            np.append(y[own], sums[1][some]),
        )

    def _place(self, area, sum_x, sum_y) -> NDArray[np.int64]:
        """The whole pixel nearest to each centroid."""
        # centroids are at least 0: halves added, whole part taken
        at = np.floor(sum_y / area + 0.5)
        at *= self.shape[1]
        x = sum_x / area
        x += 0.5
        at += np.floor(x, out=x)
        return at.astype(np.int64)

    def _near(self, area, sum_x, sum_y) -> NDArray[np.intp]:
        """Where a centroid may be in reach of a target."""
        return np.flatnonzero(self.near.ravel().take(self._place(area, sum_x, sum_y), mode="clip"))

    def _keep(self, high, low, area, sum_x, sum_y) -> None:
        whole = np.flatnonzero(low < high)  # equal levels join together: what lies between is no state
        high, low, area, sum_x, sum_y = (a[whole] for a in (high, low, area, sum_x, sum_y))
        place = self._place(area, sum_x, sum_y)
        first, last = (np.searchsorted(self.position, place, side) for side in ("left", "right"))
        pair, state = spread(first, last - first)
        target = self.target[pair]
        x, y = self.centroids[target].T
        apart = np.hypot(x - (sum_x / area)[state], y - (sum_y / area)[state])
        sure = apart < self.distance - _TIE
        for k in np.flatnonzero(~sure & (apart < self.distance + _TIE)):
            s = state[k]
            one = Components([int(area[s])], [int(sum_x[s])], [int(sum_y[s])])
            sure[k] = _strictly_near(self.targets, int(target[k]), one, 0, self.distance)
        target, state, apart = target[sure], state[sure], apart[sure]
        self.parts.append((target, state + self.seen, low[state], high[state], area[state], apart))
        self.seen += len(area)

    def result(self) -> NearStates:
        if not self.parts:
            whole = np.zeros(0, np.int64)
            return NearStates(whole.astype(np.intp), whole, whole, whole, whole, np.zeros(0))
        return NearStates(*(np.concatenate(column) for column in zip(*self.parts, strict=True)))


# -------------------------------------------------------------------------------------------------- lists


def spread(start: NDArray[np.intp], count: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """``start[k], start[k] + 1 ... (count[k] of them)`` for each k in turn, and k."""
    group = np.repeat(np.arange(len(start)), count)
    numbers = np.arange(len(group))
    numbers += np.repeat(start - (np.cumsum(count) - count), count)
    return numbers, group


def falling(component: NDArray[np.int64], level: NDArray[np.int64]) -> NDArray[np.intp]:
    """The order by component, then falling level."""
    bits, above = len(component).bit_length(), int(level.max(initial=0)) + 1
    if (int(component.max(initial=0)) + 1).bit_length() + above.bit_length() + bits > 63:
        return np.lexsort((-level, component))
    keys = component * above  # all in one whole number: sorting those is three times faster
    keys += above - 1 - level
    keys <<= bits
    keys += np.arange(len(keys))
    keys.sort()
    keys &= (1 << bits) - 1
    return keys
