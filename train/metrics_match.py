"""Components of a mask and the one-to-one matching of targets and detections.

The rules are those of the field (DNA-Net, IEEE TIP 2023, section IV-A, and its released code): components
of prediction and mask, centroids as means of pixel coordinates, and a target detected when a component's
centroid lies **strictly** nearer than ``distance`` pixels. What is ours: the matching is a
maximum-cardinality assignment (the released code takes the first one that fits), and "nearer" is decided
exactly, in rational arithmetic where rounding could matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Matching = Literal["optimal", "greedy", "dnanet"]
MATCHINGS: tuple[Matching, ...] = ("optimal", "greedy", "dnanet")

_FEW_PIXELS = 200  # below it, labelling the pixel list in Python beats the call into OpenCV
_FEW_PAIRS = 256  # likewise for distances
_TIE = 1e-6  # total distances (pixels) that differ by less count as equal


@dataclass(frozen=True, eq=False)
class Components:
    """Connected components in raster order of their first pixel, as whole numbers.

    ``area`` counts pixels; ``sum_x``, ``sum_y`` add their coordinates (pixel centres at whole numbers), so
    that a centroid is a ratio of two integers and no rounding is left in it.
    """

    area: list[int]
    sum_x: list[int]
    sum_y: list[int]
    labels: Sequence[int] | NDArray[np.intp] = ()
    """Of each pixel, in raster order: an entry of ``owner``, the number of its component."""
    owner: Sequence[int] | NDArray[np.intp] = ()

    def __len__(self) -> int:
        return len(self.area)

    def members(self) -> NDArray[np.intp]:
        """The number of the component of each pixel of the mask, in raster order of the pixels."""
        return np.asarray(self.owner, np.intp)[np.asarray(self.labels, np.intp)]

    def centroids(self) -> list[tuple[float, float]]:
        """Mean (x, y) of each component."""
        return [(x / a, y / a) for a, x, y in zip(self.area, self.sum_x, self.sum_y, strict=True)]


def components(mask: NDArray[np.bool_], *, connectivity: int = 8) -> Components:
    """The connected components of a (H, W) boolean mask.

    Parameters
    ----------
    mask
        (H, W) bool.
    connectivity
        8 (the field's) or 4.
    """
    if connectivity not in (4, 8):
        raise ValueError(f"connectivity is 4 or 8, got {connectivity}")
    return components_at(np.flatnonzero(mask), mask, connectivity)


def components_at(pixels: NDArray[np.intp], mask: NDArray[np.bool_], connectivity: int) -> Components:
    """:func:`components` where ``pixels = np.flatnonzero(mask)`` is already known."""
    if not len(pixels):
        return Components([], [], [])
    if len(pixels) <= _FEW_PIXELS:
        return _label_few(pixels, mask.shape[1], connectivity)
    return _label_many(pixels, mask, connectivity)


def _label_few(pixels: NDArray[np.intp], width: int, connectivity: int) -> Components:
    """Union-find over the list of pixels, in raster order."""
    stride = width + 2  # a guard column on each side: neighbours never wrap around
    parent: list[int] = []
    area: list[int] = []
    sum_x: list[int] = []
    sum_y: list[int] = []
    label: dict[int, int] = {}  # by position; its values, in order, are the labels of the pixels
    get = label.get
    eight = connectivity == 8
    for pixel in pixels.tolist():
        y, x = divmod(pixel, width)
        at = y * stride + x
        here = get(at - stride)
        if here is None:
            here = get(at - 1)
            other = None
            if eight:
                if here is None:
                    here = get(at - stride - 1)
                other = get(at - stride + 1)
        else:  # with 8 neighbours, the one above touches all the others
            other = None if eight else get(at - 1)
        if here is None:
            here, other = other, None
        if here is None:
            here = len(parent)
            parent.append(here)
            area.append(1)
            sum_x.append(x)
            sum_y.append(y)
            label[at] = here
            continue
        while parent[here] != here:
            here = parent[here]
        if other is not None:
            while parent[other] != other:
                other = parent[other]
            if other != here:
                here, gone = (here, other) if here < other else (other, here)  # the root came first
                parent[gone] = here
                area[here] += area[gone]
                sum_x[here] += sum_x[gone]
                sum_y[here] += sum_y[gone]
        area[here] += 1
        sum_x[here] += x
        sum_y[here] += y
        label[at] = here
    labels = tuple(label.values())
    roots = [k for k, p in enumerate(parent) if k == p]
    if len(roots) == len(parent):
        return Components(area, sum_x, sum_y, labels, roots)
    owner = list(range(len(parent)))
    for n, k in enumerate(roots):
        owner[k] = n
    for k, p in enumerate(parent):  # parents come first: theirs is already final
        if p != k:
            owner[k] = owner[p]
    area, sum_x, sum_y = ([column[k] for k in roots] for column in (area, sum_x, sum_y))
    return Components(area, sum_x, sum_y, labels, owner)


def _label_many(pixels: NDArray[np.intp], mask: NDArray[np.bool_], connectivity: int) -> Components:
    """OpenCV's labelling of the rows that hold pixels; sums over those pixels only."""
    width = mask.shape[1]
    top, bottom = int(pixels[0]) // width, int(pixels[-1]) // width + 1
    rows = np.ascontiguousarray(mask[top:bottom]).view(np.uint8)
    # 16-bit labels are faster, where no image of that size can have more components
    kind = (
        cv2.CV_16U
        if (rows.shape[0] + 1) // 2 * ((width + 1) // 2) < 65_000 and connectivity == 8
        else cv2.CV_32S
    )
    count, labels = cv2.connectedComponents(rows, connectivity=connectivity, ltype=kind)
    at = labels.ravel()[pixels - top * width].astype(np.intp)
    y, x = np.divmod(pixels, width)
    area = np.bincount(at, minlength=count)[1:]
    sum_x = np.bincount(at, weights=x, minlength=count)[1:].astype(np.int64)  # exact: below 2**53
    sum_y = np.bincount(at, weights=y, minlength=count)[1:].astype(np.int64)
    first = np.empty(count, np.intp)
    first[at[::-1]] = pixels[::-1]  # of equal indices the last write stays: each label's first pixel
    order = np.argsort(first[1:])  # OpenCV numbers by blocks of 2x2, not by first pixel
    owner = np.empty(count, np.intp)
    owner[order + 1] = np.arange(count - 1)
    return Components(area[order].tolist(), sum_x[order].tolist(), sum_y[order].tolist(), at, owner)


# ---------------------------------------------------------------------------------------------- matching


@dataclass(frozen=True)
class Match:
    """``prediction[t]`` and ``distance[t]`` of each target (None: a miss); ``false`` predictions by index."""

    prediction: list[int | None]
    distance: list[float | None]
    false: list[int]
    false_pixels: int

    @property
    def detected(self) -> int:
        """Targets that were found."""
        return sum(p is not None for p in self.prediction)


def match(
    targets: Components, predictions: Components, *, distance: float = 3.0, matching: Matching = "optimal"
) -> Match:
    """Assign predicted components to targets, at most one to one.

    Parameters
    ----------
    targets, predictions
        Components of the mask and of the binary prediction.
    distance
        Centroids strictly nearer than this (pixels) may be matched.
    matching
        ``optimal``: as many pairs as possible; among those the smallest total distance (to 1e-6 px); among
        those the fewest false pixels, so that no number depends on the orientation of the image.
        ``greedy``: targets in raster order, each takes the first free prediction in raster order that is
        near enough (BasicIRSTD since January 2024).
        ``dnanet``: pairs as ``greedy``, but every prediction whose *area* equals that of some matched one
        is left out of the false pixels (defect D1 of DNA-Net's released code; for published tables only).
    """
    edges = near_pairs(targets, predictions, distance)
    if matching == "optimal":
        pairs = _assign(edges, predictions.area)
    elif matching in ("greedy", "dnanet"):
        pairs = _first_fit(edges)
    else:
        raise ValueError(f"matching is one of {', '.join(MATCHINGS)}, got {matching!r}")
    prediction: list[int | None] = [None] * len(targets)
    apart: list[float | None] = [None] * len(targets)
    for t, p, d in pairs:
        prediction[t], apart[t] = p, d
    taken = {p for _, p, _ in pairs}
    false = [p for p in range(len(predictions)) if p not in taken]
    if matching == "dnanet":
        areas = {predictions.area[p] for p in taken}
        false_pixels = sum(predictions.area[p] for p in false if predictions.area[p] not in areas)
    else:
        false_pixels = sum(predictions.area[p] for p in false)
    return Match(prediction, apart, false, false_pixels)


Edge = tuple[int, int, float]


def near_pairs(targets: Components, predictions: Components, distance: float) -> list[Edge]:
    """``(target, prediction, distance)`` of every pair strictly nearer than ``distance``, in order."""
    n, m = len(targets), len(predictions)
    if not n or not m or distance <= 0:
        return []
    if n * m > _FEW_PAIRS:
        pairs = _near_pairs_many(targets, predictions, distance)
    else:
        theirs = predictions.centroids()
        limit = (distance + _TIE) ** 2
        pairs = [
            (t, p, d2**0.5)
            for t, (x, y) in enumerate(targets.centroids())
            for p, (u, v) in enumerate(theirs)
            if (d2 := (x - u) * (x - u) + (y - v) * (y - v)) < limit
        ]
    return [
        e
        for e in pairs
        if e[2] < distance - _TIE or _strictly_near(targets, e[0], predictions, e[1], distance)
    ]


def _near_pairs_many(targets: Components, predictions: Components, distance: float) -> list[Edge]:
    from scipy.spatial import cKDTree

    ours, theirs = np.array(targets.centroids()), np.array(predictions.centroids())
    found = cKDTree(ours).query_ball_point(theirs, distance + _TIE)
    p = np.repeat(np.arange(len(theirs)), [len(f) for f in found])
    t = np.array([k for f in found for k in f], np.intp)
    order = np.lexsort((p, t))
    t, p = t[order], p[order]
    apart = np.hypot(*(ours[t] - theirs[p]).T)
    return list(zip(t.tolist(), p.tolist(), apart.tolist(), strict=True))


def _strictly_near(a: Components, i: int, b: Components, j: int, distance: float) -> bool:
    """Centroid distance < ``distance``, decided without rounding."""
    x = a.sum_x[i] * b.area[j] - b.sum_x[j] * a.area[i]
    y = a.sum_y[i] * b.area[j] - b.sum_y[j] * a.area[i]
    return x * x + y * y < Fraction(distance) ** 2 * (a.area[i] * b.area[j]) ** 2


def _first_fit(edges: Sequence[Edge]) -> list[Edge]:
    done: set[int] = set()
    taken: set[int] = set()
    pairs = []
    for edge in edges:  # ordered by target, then by prediction
        if edge[0] not in done and edge[1] not in taken:
            done.add(edge[0])
            taken.add(edge[1])
            pairs.append(edge)
    return pairs


def _assign(edges: Sequence[Edge], area: Sequence[int]) -> list[Edge]:
    ts, ps = {e[0] for e in edges}, {e[1] for e in edges}
    if len(ts) == len(edges) == len(ps):
        return list(edges)  # nobody competes
    return [pair for group in _groups(edges) for pair in _assign_group(group, area)]


def _groups(edges: Sequence[Edge]) -> list[list[Edge]]:
    """Edges of each connected part of the graph of targets and predictions."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    t = np.unique([e[0] for e in edges], return_inverse=True)
    p = np.unique([e[1] for e in edges], return_inverse=True)
    n = len(t[0]) + len(p[0])
    graph = coo_matrix((np.ones(len(edges)), (t[1], p[1] + len(t[0]))), shape=(n, n))
    count, part = connected_components(graph, directed=False)
    groups: list[list[Edge]] = [[] for _ in range(count)]
    for edge, k in zip(edges, part[t[1]].tolist(), strict=True):
        groups[k].append(edge)
    return groups


def _assign_group(edges: Sequence[Edge], area: Sequence[int]) -> list[Edge]:
    """Hungarian assignment whose cost puts the number of pairs first, distance second, area third."""
    if len(edges) == 1:
        return list(edges)
    from scipy.optimize import linear_sum_assignment

    rows = {t: k for k, t in enumerate(sorted({e[0] for e in edges}))}
    columns = {p: k for k, p in enumerate(sorted({e[1] for e in edges}))}
    pairs = min(len(rows), len(columns))
    largest = max(d for _, _, d in edges)
    everything = sum(area[p] for p in columns)
    # A forbidden pair costs more than any full set of allowed ones: as few of them as possible are taken.
    cost = np.full((len(rows), len(columns)), (largest + 1.0) * (pairs + 1))
    allowed: dict[tuple[int, int], Edge] = {}
    for t, p, d in edges:
        cost[rows[t], columns[p]] = d - _TIE * area[p] / everything
        allowed[rows[t], columns[p]] = (t, p, d)
    chosen = zip(*(a.tolist() for a in linear_sum_assignment(cost)), strict=True)
    return [allowed[pair] for pair in chosen if pair in allowed]
