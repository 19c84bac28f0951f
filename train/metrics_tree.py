"""Every component that any threshold makes near a target: one pass over the sorted pixels.

As the threshold falls, components are born at local maxima, grow pixel by pixel and merge at saddles. The
pass follows all of them at once, in whole-array steps (a union-find in Python would take a second an image):

1. pixels are sorted once; ranks replace values, so that all pixels differ;
2. every pixel points to its highest neighbour; following the pointers gives its *basin*. Above its highest
   saddle a basin's pixels form one component, whose states are running sums along the sorted pixels;
3. all basins look for their highest saddle at once (Boruvka's step for spanning trees) and die into the basin
   behind it: from there on their pixels join the survivor, at the rank of that saddle. The number of basins
   at least halves; the step repeats until nobody has a neighbour.

A component's states are thus the prefix sums of its pixels by *effective rank*, the lower of a pixel's own
rank and the saddle by which its basin was joined.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .metrics_match import Components, _strictly_near

_TIE = 1e-6


@dataclass(frozen=True, eq=False)
class NearStates:
    """States of components, each near a target; one entry for each (target, state).

    A state is a component while it keeps its pixels: for thresholds ``low <= t < high`` (positive: value
    > t). ``component`` numbers the states, so that one state near two targets is recognised; ``area`` in
    pixels, ``distance`` between the centroids in pixels.
    """

    target: NDArray[np.intp]
    component: NDArray[np.int64]
    low: NDArray[np.floating]
    high: NDArray[np.floating]
    area: NDArray[np.int64]
    distance: NDArray[np.float64]


def sort_pixels(values: NDArray) -> tuple[NDArray, NDArray[np.int64]]:
    """The values above 0 of a flat array in ascending order (ties by position), and where they are."""
    if values.dtype == np.float16:
        values = values.astype(np.float32)
    if values.dtype == np.float32 and len(values) < 2**31:
        # Positive floats order as their bits do: value and position in one integer sort at twice the speed.
        keys = values.view(np.int32).astype(np.int64)
        keys <<= 32
        keys += np.arange(len(values))
        keys.sort()
        keys = keys[np.searchsorted(keys, 1 << 32) :]  # the smallest positive float has bits 1
        halves = keys.view(np.int32).reshape(-1, 2)
        low = 0 if sys.byteorder == "little" else 1
        return np.ascontiguousarray(halves[:, 1 - low]).view(np.float32), halves[:, low].astype(np.int64)
    order = np.argsort(values, kind="stable")
    ascending = values[order]
    first = int(np.searchsorted(ascending, 0, side="right"))
    return ascending[first:], order[first:]


def near_states(
    image: NDArray, targets: Components, distance: float, *, connectivity: int = 8
) -> tuple[NearStates, NDArray]:
    """The states that come strictly nearer than ``distance`` to a target's centroid.

    Parameters
    ----------
    image
        (H, W) probabilities, values in [0, 1]; pixels of value 0 are never positive.
    targets
        Components of the mask.

    Returns
    -------
    states
        See :class:`NearStates`.
    ascending
        The values above 0, sorted: the positives at every threshold can be read from it.
    """
    height, width = image.shape
    # One column of zeros on the right: a neighbour is then a fixed step away in the flat array.
    padded = np.zeros((height, width + 1), np.float64 if image.dtype == np.float64 else np.float32)
    padded[:, :width] = image
    ascending, order = sort_pixels(padded.ravel())
    collect = _Collector(padded.shape, targets, distance, ascending)
    if len(targets) and len(order):
        _Basins(padded.shape, order, connectivity).follow(collect)
    return collect.result(), ascending


@lru_cache(maxsize=2)
def _coordinates(shape: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """x, y and number of each position of a flat image: the same for all images of a set."""
    number = np.arange(shape[0] * shape[1])
    y, x = np.divmod(number, shape[1])
    return x, y, number


class _Basins:
    """The pixels by basin, and the saddles between basins."""

    def __init__(self, shape: tuple[int, int], order: NDArray[np.int64], connectivity: int) -> None:
        n = len(order)
        self.shape, self.order = shape, order
        # Ranks are exact in float32 below 2**24 pixels; OpenCV dilates no integers of that size.
        kind: type[np.floating] = np.float32 if n < 2**24 else np.float64
        rank: NDArray[Any] = np.full(shape[0] * shape[1], -1, kind)
        rank[order] = np.arange(n, dtype=kind)
        kernel = np.ones((3, 3), np.uint8)
        if connectivity == 4:
            kernel[::2, ::2] = 0
        highest = np.asarray(cv2.dilate(rank.reshape(shape), kernel)).ravel()
        # Pixels of value 0 (rank -1) get a pointer without meaning; no other pixel points to them.
        up = order[highest.astype(np.int64)]
        while True:
            further = up[up]
            if np.array_equal(further, up):
                break
            up = further
        peaks = np.flatnonzero((highest == rank) & (rank >= 0))
        self.count = len(peaks)
        number = np.zeros(len(rank), np.int32)
        number[peaks] = np.arange(self.count, dtype=np.int32)
        basin = number[up]
        self._find_saddles(rank, basin, connectivity)
        self.basin = basin[order]  # by rank
        # pixels by (basin, rank), as one sorted integer each
        self.keys = self.basin.astype(np.int64)
        self.keys <<= 32
        self.keys += np.arange(n)
        self.keys.sort()
        self.start = np.searchsorted(self.keys, np.arange(self.count + 1) << 32)

    def _find_saddles(self, rank: NDArray, basin: NDArray[np.int32], connectivity: int) -> None:
        """Pairs of neighbouring pixels of different basins, by ascending rank of the lower pixel."""
        width = self.shape[1]
        low, one, two = [], [], []
        for step in (1, width, width + 1, width - 1)[: 4 if connectivity == 8 else 2]:
            at = np.flatnonzero(basin[step:] != basin[:-step])
            lower = np.minimum(rank[at], rank[at + step])
            real = lower >= 0
            at = at[real]
            low.append(lower[real])
            one.append(basin[at])
            two.append(basin[at + step])
        keys = np.concatenate(low).astype(np.int64)
        keys <<= 32
        keys += np.arange(len(keys))
        keys.sort()
        at = keys & 0xFFFFFFFF
        self.saddle, self.one, self.two = keys >> 32, np.concatenate(one)[at], np.concatenate(two)[at]

    def follow(self, collect: _Collector) -> None:
        """Hand every component state to ``collect``, basin by basin as they die."""
        here = np.arange(self.count)
        root = here.copy()  # the survivor each original basin belongs to
        joined = np.full(self.count, len(self.order), np.int64)  # the rank at which its pixels joined it
        saddle, one, two = self.saddle, self.one, self.two
        boxes = self._boxes()
        while len(saddle):
            best = np.full(self.count, -1, np.int64)
            other = best.copy()
            best[one] = np.arange(len(one))  # saddles ascend: the last write is the highest
            other[two] = np.arange(len(two))
            np.maximum(best, other, out=best)
            has = np.flatnonzero(best >= 0)
            edge = best[has]
            towards = here.copy()
            towards[has] = one[edge] + two[edge] - here[has]
            stay = (towards[towards] == here) & (here < towards)  # each is the other's highest: one stays
            towards[stay] = here[stay]
            dies = towards != here
            death = np.full(self.count, len(self.order), np.int64)
            death[dies] = saddle[best[dies]]
            self._emit(root, joined, death, dies & collect.in_reach(boxes), collect)
            np.minimum(joined, death[root], out=joined)
            while True:
                further = towards[towards]
                if np.array_equal(further, towards):
                    break
                towards = further
            gone = np.flatnonzero(dies)
            for column in boxes:
                np.minimum.at(column, towards[gone], column[gone])
            root = towards[root]
            one, two = towards[one], towards[two]
            apart = np.flatnonzero(one != two)
            saddle, one, two = saddle[apart], one[apart], two[apart]
        last = np.unique(root)
        if len(last) == 1:
            self._emit_last(joined, collect)
        else:
            dies = np.zeros(self.count, bool)
            dies[last] = True
            self._emit(root, joined, np.full(self.count, -1, np.int64), dies, collect)

    def _boxes(self) -> NDArray[np.int64]:
        """(4, basins): least x, least y, least -x, least -y of each basin's pixels."""
        at = self.order[self.keys & 0xFFFFFFFF]
        x, y = (c[at] for c in _coordinates(self.shape)[:2])
        first = self.start[:-1]
        low, high = np.minimum.reduceat, np.maximum.reduceat
        return np.stack([low(x, first), low(y, first), -high(x, first), -high(y, first)])

    def _emit(self, root, joined, death, dies, collect: _Collector) -> None:
        """States of the components ``dies`` from birth to ``death`` (ranks)."""
        ends = death[root]
        groups = np.flatnonzero(dies[root] & (joined > ends))
        begin = np.searchsorted(self.keys, (groups << 32) + ends[groups], side="right")
        count = self.start[groups + 1] - begin
        total = int(count.sum())
        if not total:
            return
        jump = np.repeat(begin - (np.cumsum(count) - count), count)
        jump += np.arange(total)
        rank = self.keys[jump]
        rank &= 0xFFFFFFFF
        effective = np.minimum(rank, np.repeat(joined[groups], count))
        component = np.repeat(root[groups], count)
        component, effective, rank = _sorted_by(component, effective, rank, len(self.order), self.count)
        collect.add(component, effective, self.order[rank], death)

    def _emit_last(self, joined, collect: _Collector) -> None:
        """States of the one component that is left in the end, down to the lowest pixel."""
        n = len(self.order)
        x, y, number = _coordinates(self.shape)
        effective = joined[self.basin]
        np.minimum(effective, number[:n], out=effective)
        # Running sums from the highest rank down; those of whole numbers are ten times faster.
        sums = [np.bincount(effective, minlength=n)]
        sums += [np.bincount(effective, weights=c[self.order], minlength=n).astype(np.int64) for c in (x, y)]
        for values in sums:
            np.cumsum(values[::-1], out=values[::-1])
        collect.add_last(*(values[::-1] for values in sums))


def _sorted_by(component, effective, rank, n: int, count: int) -> tuple[NDArray, NDArray, NDArray]:
    """The three arrays ordered by component, then falling effective rank."""
    bits = n.bit_length()
    if count.bit_length() + 2 * bits > 63:
        turn = np.lexsort((-effective, component))
        return component[turn], effective[turn], rank[turn]
    keys = component << bits  # all three in one integer: sorting those is three times faster
    keys += n - effective
    keys <<= bits
    keys += rank
    keys.sort()
    low = (1 << bits) - 1
    rank = keys & low
    keys >>= bits
    return keys >> bits, n - (keys & low), rank


class _Collector:
    """Keeps the states whose centroid is near a target."""

    def __init__(
        self, shape: tuple[int, int], targets: Components, distance: float, ascending: NDArray
    ) -> None:
        self.shape = shape
        self.targets, self.distance, self.ascending = targets, distance, ascending
        self.centroids = np.array(targets.centroids()).reshape(-1, 2)
        self.parts: list[tuple[NDArray, ...]] = []
        self.seen = 0
        reach = int(np.ceil(distance)) + 1
        self.near = np.zeros(shape, bool)  # whole-pixel positions from which a target may be in reach
        for x, y in np.rint(self.centroids).astype(int):
            self.near[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1] = True

    def in_reach(self, boxes: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether a centroid inside each box (see :meth:`_Basins._boxes`) can be near some target.

        A centroid lies in its pixels' box: most components need no further look.
        """
        reach = self.distance + 1
        out = np.zeros(boxes.shape[1], bool)
        for x, y in self.centroids:
            inside = (boxes[0] < x + reach) & (boxes[2] < reach - x)
            out |= inside & (boxes[1] < y + reach) & (boxes[3] < reach - y)
        return out

    def add(self, component, effective, position, death) -> None:
        """Pixels ordered by (component, falling effective rank) and the rank at which each one dies."""
        n = len(component)
        new = np.empty(n, bool)
        new[0] = True
        np.not_equal(component[1:], component[:-1], out=new[1:])
        starts = np.flatnonzero(new)
        lengths = np.diff(starts, append=n)
        area = np.arange(1, n + 1) - np.repeat(starts, lengths)
        sums = []
        for coordinate in _coordinates(self.shape)[:2]:
            values = coordinate[position]  # whole numbers: their running sums are ten times faster
            total = np.cumsum(values)
            sums.append(total - np.repeat(total[starts] - values[starts], lengths))
        at = self._near(area, *sums)
        if len(at):
            following = np.minimum(at + 1, n - 1)
            ends = np.where((at == n - 1) | new[following], death[component[at]], effective[following])
            self._keep(effective[at], ends, area[at], sums[0][at], sums[1][at])

    def add_last(self, area, sum_x, sum_y) -> None:
        """Pixels and coordinate sums of one component at each rank, from the highest down to 0."""
        born = int(np.searchsorted(area, 1))
        at = self._near(area[born:], sum_x[born:], sum_y[born:]) + born
        if len(at):
            rank = len(area) - 1 - at
            self._keep(rank, rank - 1, area[at], sum_x[at], sum_y[at])

    def _near(self, area, sum_x, sum_y) -> NDArray[np.intp]:
        """Where a centroid, to the next whole pixel, may be in reach of a target."""
        # centroids are at least 0: halves added, whole part taken
        at = np.floor(sum_y / area + 0.5)
        at *= self.shape[1]
        x = sum_x / area
        x += 0.5
        at += np.floor(x, out=x)
        return np.flatnonzero(self.near.ravel()[at.astype(np.int64)])

    def _keep(self, begin, end, area, sum_x, sum_y) -> None:
        high = self.ascending[begin]
        low = np.where(end >= 0, self.ascending[np.maximum(end, 0)], 0)
        whole = low < high  # equal values join together: what lies between is no state
        high, low, area, sum_x, sum_y = (a[whole] for a in (high, low, area, sum_x, sum_y))
        apart = np.hypot(
            self.centroids[:, :1] - sum_x / area, self.centroids[:, 1:] - sum_y / area
        )  # (targets, states)
        target, state = np.nonzero(apart < self.distance + _TIE)
        close = apart[target, state]
        sure = close < self.distance - _TIE
        for k in np.flatnonzero(~sure):
            s = state[k]
            one = Components([int(area[s])], [int(sum_x[s])], [int(sum_y[s])])
            sure[k] = _strictly_near(self.targets, int(target[k]), one, 0, self.distance)
        target, state, close = target[sure], state[sure], close[sure]
        self.parts.append((target, state + self.seen, low[state], high[state], area[state], close))
        self.seen += len(area)

    def result(self) -> NearStates:
        if not self.parts:
            none = np.zeros(0)
            return NearStates(
                none.astype(np.intp), none.astype(np.int64), none, none, none.astype(np.int64), none
            )
        return NearStates(*(np.concatenate(column) for column in zip(*self.parts, strict=True)))
