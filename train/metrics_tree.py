"""Every component that any threshold makes near a target: one pass over the whole image.

As the threshold falls, components are born at local maxima, grow pixel by pixel and merge at saddles. The
pass follows all of them at once, in whole-array steps (a union-find in Python would take a second an image):

1. values become whole-number *levels*, in the same order; equal levels are ordered by position, so that of two
   pixels one is always higher. Which of its 8 neighbours are higher is one byte a pixel, and tables of 256
   entries tell the rest: a pixel without a higher neighbour is a peak; one whose higher neighbours fall into
   several connected arcs is where components may merge; every other one just joins the component of its arc;
2. every pixel points to a higher neighbour; following the pointers gives its *basin*. The few edges between
   basins are the merging pixels' arcs;
3. all basins look for their highest edge at once (Boruvka's step for spanning trees) and die into the basin
   behind it: from there on their pixels join the survivor, at the level of that edge. The number of basins
   at least halves; the step repeats until nobody has a neighbour.

A component's states are thus the prefix sums of its pixels by *effective level*, the lower of a pixel's own
level and that of the edge by which its basin was joined. Only components whose box reaches a target are
looked at, and of the one that holds nearly all pixels in the end only the levels where its centroid may come
near one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .metrics_match import Components
from .metrics_near import Collector, Grid, NearStates, grid_of, scratch, spread

_BLOCKS = 128
"""Blocks of levels, with about as many pixels each, in which a component's states are looked at first."""
_HELD = 16_000
"""Pixels that are looked at together: large arrays cost more than many calls."""
_RING = ((1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1))
"""(x, y) of the neighbours, bit 0 first; bits 4 to 7 are opposite to bits 0 to 3."""


def as_levels(values: NDArray) -> tuple[NDArray[np.int32], NDArray | None]:
    """Whole numbers in the order of ``values`` (in [0, 1]), above 0 where these are.

    Returns
    -------
    levels
        int32, of the same shape.
    table
        The value of each level from 0; None for float32, whose levels are its bits: positive floats order as
        their bits do.
    """
    if values.dtype == np.float16:
        values = values.astype(np.float32)
    if values.dtype == np.float32:
        levels = np.ascontiguousarray(values).view(np.int32)
        return (levels if levels.min() >= 0 else np.maximum(levels, 0)), None  # the bits of -0 are negative
    flat = values.ravel()
    order = np.argsort(flat)
    ascending = flat[order]
    new = np.empty(len(flat), bool)
    new[0] = ascending[0] > 0
    np.not_equal(ascending[1:], ascending[:-1], out=new[1:])
    levels = np.empty(len(flat), np.int32)
    levels[order] = np.cumsum(new, dtype=np.int32)
    return levels.reshape(values.shape), np.append(np.zeros(1, flat.dtype), ascending[new])


def near_states(
    levels: NDArray[np.int32],
    ascending: NDArray[np.int32],
    targets: Components,
    distance: float,
    *,
    connectivity: int = 8,
) -> NearStates:
    """The states that come strictly nearer than ``distance`` to a target's centroid.

    Parameters
    ----------
    levels
        (H, W) as :func:`as_levels` gives them; pixels of level 0 are never positive.
    ascending
        The levels above 0, sorted.
    targets
        Components of the mask.
    """
    grid = grid_of(levels.shape)
    collect = Collector(grid, levels.shape, targets, distance)
    if len(targets) and len(ascending):
        _Basins(levels, ascending, grid, connectivity).follow(collect)
    return collect.result()


# ------------------------------------------------------------------------------------------------ neighbours


@dataclass(frozen=True, eq=False)
class _Tables:
    """What the byte of higher neighbours says. Neighbours are bits of :data:`_RING`; 8 stands for none.

    ``way``: one of the arc in which it lies deepest; ``merging``: 1 where there are several arcs; ``others``:
    (3, 256), one neighbour of each further arc.
    """

    way: NDArray[np.uint8]
    merging: NDArray[np.uint8]
    others: NDArray[np.uint8]


@lru_cache(maxsize=2)
def _tables(connectivity: int) -> _Tables:
    near = [
        [
            abs(a[0] - b[0]) + abs(a[1] - b[1]) == 1
            or (connectivity == 8 and max(abs(a[0] - b[0]), abs(a[1] - b[1])) == 1)
            for b in _RING
        ]
        for a in _RING
    ]
    way, merging = np.full(256, 8, np.uint8), np.zeros(256, np.uint8)
    others = np.full((3, 256), 8, np.uint8)
    for code in range(256):
        rest = [k for k in range(8) if code >> k & 1]
        arcs: list[list[int]] = []
        while rest:
            arc = [rest.pop(0)]
            for k in arc:  # grows while it is walked
                arc += [m for m in rest if near[k][m]]
                rest = [m for m in rest if m not in arc]
            if connectivity == 4:
                arc = [k for k in arc if k % 2 == 0]  # those that touch the pixel itself
            if arc:
                arcs.append(arc)
        arcs.sort(key=len, reverse=True)
        for n, arc in enumerate(arcs):
            # the middle of an arc is nearest to straight uphill: short ways to the peak
            middle = min(arc, key=lambda k: (sum(min((k - m) % 8, (m - k) % 8) for m in arc), k))
            if n:
                others[n - 1, code] = middle
            else:
                way[code] = middle
        merging[code] = len(arcs) > 1
    return _Tables(way, merging, others)


def _steps(stride: int) -> NDArray[np.int32]:
    """From a pixel to each neighbour; 0 for none."""
    return np.array([y * stride + x for x, y in _RING] + [0], np.int32)


class _Basins:
    """The pixels by basin, and the edges between basins by ascending level.

    ``basin`` of the flat image (``count`` where no pixel is positive), ``level`` and ``block`` likewise.
    """

    def __init__(
        self, levels: NDArray[np.int32], ascending: NDArray[np.int32], grid: Grid, connectivity: int
    ) -> None:
        self.grid = grid
        height = len(levels)
        a, b, stride = grid.begin, grid.end, grid.stride
        flat = np.zeros(grid.size, np.int32)
        flat[stride:b].reshape(height, stride)[:, 1:] = levels
        self.level = flat[a:b]
        positive = self.level > 0
        steps, tables = _steps(stride), _tables(connectivity)
        code = np.zeros(b - a, np.uint8)
        bit = np.empty_like(code)
        for k in range(4):
            step = int(steps[k])
            later = (flat[a : b + step] >= flat[a - step : b]).view(np.uint8)  # of two equal ones the later
            code |= np.multiply(later[step:], 1 << k, out=bit)
            code |= np.multiply(later[: b - a], 16 << k, out=bit)
        code ^= 0xF0  # seen from the later pixel, the earlier one is higher where it is not lower
        code *= positive
        # Pixels of level 0 point to themselves. Where most are such, only the others are worth a step.
        few = 2 * len(ascending) < b - a
        at: Any = np.flatnonzero(positive) if few else slice(None)
        where = grid.number[a:b][at]
        pointer, spare, basin, block = scratch(grid)
        pointer[...] = grid.number
        pointer[a:b][at] += cv2.LUT(code[at][None], steps[tables.way][None])[0]
        for _ in range(3):  # ways of 8 steps; then only the few longer ones
            if few:
                pointer[where] = pointer[pointer[where]]
            else:
                pointer, spare = pointer.take(pointer, mode="clip", out=spare), pointer
        up = pointer[a:b][at]
        further = pointer.take(up, mode="clip", out=spare[: len(up)])
        rest = np.flatnonzero(further != up)
        while len(rest):
            pointer[where[rest]] = up[rest] = pointer[up[rest]]
            rest = rest[pointer[up[rest]] != up[rest]]
        self.peaks = where[(up == where) & positive[at]] - a
        self.count = len(self.peaks)
        number = spare
        number[...] = self.count
        number[self.peaks + a] = np.arange(self.count)
        if few:
            basin[...] = self.count
            basin[where] = number[up]
        else:
            number.take(pointer, mode="clip", out=basin)
        self.basin = basin[a:b]
        self.block, self.spare = block[: b - a], spare[: b - a]
        self._divide(ascending, at)
        self._find_edges(code, basin, steps, tables)

    def _divide(self, ascending: NDArray[np.int32], at: Any) -> None:
        """Blocks of levels, numbered from the highest; ``blocks`` of them, and one more for level 0."""
        peak, n = int(ascending[-1]), len(ascending)
        self.shift = max(0, peak.bit_length() - 14)
        edges = ascending[np.linspace(0, n - 1, min(n, _BLOCKS)).astype(np.intp)] >> self.shift
        count = np.bincount(edges, minlength=(peak >> self.shift) + 1)
        above = np.cumsum(count[::-1])[::-1]  # falls as the level rises; at the top 1 or more
        self.table = above - above[-1]
        self.blocks = int(self.table[0]) + 1
        self.block[...] = self.blocks
        self.block[at] = self.table.take(self.level[at] >> self.shift, mode="clip")
        self.block[self.level <= 0] = self.blocks

    def block_of(self, level: NDArray[np.int64]) -> NDArray[np.intp]:
        """The block of each level above 0; that of the lowest for 0 and of the highest for those above all."""
        return self.table.take(level >> self.shift, mode="clip")

    def _find_edges(self, code: NDArray[np.uint8], basin: NDArray[np.intp], steps, tables: _Tables) -> None:
        at = np.flatnonzero(cv2.LUT(code[None], tables.merging[None])[0].view(bool))
        kinds = code[at]
        here, level = self.basin[at], self.level[at]
        low, one, two = [], [], []
        for row in tables.others:
            there = basin[at + self.grid.begin + steps[row[kinds]]]
            apart = np.flatnonzero(there != here)
            low.append(level[apart])
            one.append(here[apart])
            two.append(there[apart])
        keys = np.concatenate(low).astype(np.int64)
        keys <<= 32
        keys += np.arange(len(keys))
        keys.sort()
        turn = keys & 0xFFFFFFFF
        self.edge = keys >> 32
        self.one, self.two = (np.concatenate(v)[turn].astype(np.intp) for v in (one, two))

    def follow(self, collect: Collector) -> None:
        """Hand every component state to ``collect``."""
        here = np.arange(self.count)
        root = here.copy()  # the survivor each original basin belongs to
        joined = np.full(self.count, 2**31, np.int64)  # the level at which its pixels joined it
        edge, one, two = self.edge, self.one, self.two
        pixels = _Pixels(self, collect)
        boxes = pixels.boxes()
        while len(edge):
            best = np.full(self.count, -1, np.int64)
            other = best.copy()
            best[one] = np.arange(len(one))  # edges ascend: the last write is the highest
            other[two] = np.arange(len(two))
            np.maximum(best, other, out=best)
            has = np.flatnonzero(best >= 0)
            taken = best[has]
            towards = here.copy()
            towards[has] = one[taken] + two[taken] - here[has]
            stay = (towards[towards] == here) & (here < towards)  # each is the other's highest: one stays
            towards[stay] = here[stay]
            gone = np.flatnonzero(towards != here)
            death = np.full(self.count, 2**31, np.int64)
            death[gone] = edge[best[gone]]
            seen = np.zeros(self.count, bool)
            seen[gone] = collect.in_reach(boxes[:, gone])
            pixels.want(root, joined, boxes, death, seen)
            np.minimum(joined, death[root], out=joined)
            while True:
                further = towards[towards]
                if np.array_equal(further, towards):
                    break
                towards = further
            for column in boxes:
                np.minimum.at(column, towards[gone], column[gone])
            root = towards[root]
            one, two = towards[one], towards[two]
            apart = np.flatnonzero(one != two)
            edge, one, two = edge[apart], one[apart], two[apart]
        last = np.unique(root)
        if len(last) == 1:
            self._hand_over_last(joined, boxes[:, last], collect)
        else:
            seen = np.zeros(self.count, bool)
            seen[last] = collect.in_reach(boxes[:, last])
            pixels.want(root, joined, boxes, np.zeros(self.count, np.int64), seen)
        pixels.hand_over()

    def _hand_over_last(self, joined: NDArray[np.int64], box: NDArray[np.int64], collect: Collector) -> None:
        """All states of the one component that is left in the end, down to the lowest pixel."""
        key = np.append(self.block_of(joined), self.blocks).take(self.basin, mode="clip", out=self.spare)
        np.maximum(key, self.block, out=key)

        def look(at: NDArray[np.intp]) -> tuple[NDArray, NDArray, NDArray]:
            group = self.basin[at]
            return self.level[at], joined[group], group

        collect.add(key, np.array([0, self.blocks]), look, None, box, np.zeros(1, np.int64))


class _Pixels:
    """The pixels of components that reach a target, gathered over the rounds until they are many.

    Runs of one basin along the rows, sorted by basin, list a basin's pixels without sorting all pixels.
    """

    def __init__(self, basins: _Basins, collect: Collector) -> None:
        self.basins, self.collect = basins, collect
        self.wanted: list[tuple[NDArray, ...]] = []
        self.held = 0
        basin, grid = basins.basin, basins.grid
        edges = np.flatnonzero(basin[1:] != basin[:-1])
        first, last = np.append(0, edges + 1), np.append(edges, len(basin) - 1)
        keys = basin[first].astype(np.int64)
        keys <<= 32
        keys += np.arange(len(keys))
        keys.sort()
        self.start = np.searchsorted(keys, np.arange(basins.count + 1) << 32)
        turn = keys[: self.start[-1]] & 0xFFFFFFFF  # without the runs of no basin
        self.first, self.last = first[turn], last[turn]
        self.area = np.add.reduceat(self.last - self.first + 1, self.start[:-1])
        self.block = basins.block[basins.peaks]
        self.grid = grid

    def boxes(self) -> NDArray[np.int64]:
        """(4, basins): least x, least y, least -x, least -y of each basin's pixels."""
        x, y, first = self.grid.x, self.grid.y, self.start[:-1]
        least, most = np.minimum.reduceat, np.maximum.reduceat
        rows = y[self.first]  # runs are in raster order: a basin's first and last ones bound it
        return np.stack(
            [
                least(x[self.first], first),
                rows[first],
                -most(x[self.last], first),
                -rows[self.start[1:] - 1],
            ]
        )

    def want(self, root, joined, boxes, death, seen: NDArray[np.bool_]) -> None:
        """The components ``seen`` (roots), from birth to their ``death`` (levels)."""
        roots = np.flatnonzero(seen)
        number = np.full(self.basins.count, -1)
        number[roots] = np.arange(len(roots)) + sum(len(w[3]) for w in self.wanted)
        component = number[root]
        groups = np.flatnonzero((component >= 0) & (joined > death[root]))
        self.wanted.append((groups, joined[groups], component[groups], death[roots], boxes[:, roots]))
        self.held += int(self.area[groups].sum())
        if self.held > _HELD:
            self.hand_over()

    def hand_over(self) -> None:
        """All states of the wanted components."""
        wanted, self.wanted, self.held = self.wanted, [], 0
        if not sum(len(w[0]) for w in wanted):
            return
        groups, joined, component, death = (np.concatenate(c) for c in list(zip(*wanted, strict=True))[:4])
        basins = self.basins
        # The blocks of each component, from that of its peak, one component after the other
        entry = np.maximum(self.block[groups], basins.block_of(joined))
        offset, last = np.full(len(death), basins.blocks), basins.block_of(death)
        np.minimum.at(offset, component, entry)
        bounds = np.append(0, np.cumsum(last + 1 - offset))
        offset = bounds[:-1] - offset
        runs, group = spread(self.start[groups], self.start[groups + 1] - self.start[groups])
        first = self.first[runs]
        at, run = spread(first, self.last[runs] - first + 1)
        group = group[run]
        block = np.maximum(basins.block[at], basins.block_of(joined)[group])
        lives = np.flatnonzero(block <= last[component][group])  # those of the last block are sifted later
        at, group = at[lives], group[lives]
        key = block[lives] + offset[component][group]

        def look(chosen: NDArray[np.intp]) -> tuple[NDArray, NDArray, NDArray]:
            mine = group[chosen]
            return basins.level[at[chosen]], joined[mine], mine

        self.collect.add(key, bounds, look, at, np.hstack([w[4] for w in wanted]), death)
