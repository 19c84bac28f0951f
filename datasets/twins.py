"""Twins: images that are nearly the same picture, by the normalised correlation of 32x32 thumbnails.

Two images are twins when the correlation of their thumbnails (area averages, any size and aspect squeezed to
32x32) is above 0.995. In this field such pairs are one background with another target on it, or frames of
one camera: apart, one in training and one in test, they flatter the test. Groups are closed over pairs: a
twin of a twin is in the group.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..annotate.console import track
from .records import Record

THRESHOLD = 0.995
SIDE = 32
_BLOCK = 2048  # rows of the correlation matrix held at once: 2048^2 float32 are 16 MiB
_MARGIN = 1e-4  # the float32 product only proposes pairs; float64 decides


def thumbnail(image: NDArray) -> NDArray[np.float64]:
    """A (H, W) image as a (1024,) vector of mean 0 and norm 1; all zeros for a flat image."""
    small = cv2.resize(np.asarray(image, np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    vector = small.astype(np.float64).ravel()
    vector -= vector.mean()
    norm = float(np.sqrt((vector * vector).sum()))
    scale = float(np.abs(small).max(initial=0.0))
    return vector / norm if norm > 1e-6 * max(scale, 1.0) * SIDE else np.zeros(SIDE * SIDE)


def thumbnails(records: Sequence[Record], *, workers: int = 2) -> NDArray[np.float64]:
    """(N, 1024) thumbnails of the records' images, decoded on ``workers`` threads."""
    with ThreadPoolExecutor(workers) as pool:
        rows = pool.map(lambda record: thumbnail(record.read_image()), records)
        found = list(track(rows, "comparing images", len(records)))
    return np.array(found).reshape(len(records), SIDE * SIDE)


def twin_pairs(
    vectors: NDArray[np.float64], *, threshold: float = THRESHOLD, apart: ArrayLike | None = None
) -> Iterator[tuple[int, int, float]]:
    """Pairs (i, j, correlation) with i < j and a correlation above ``threshold``, in order.

    ``vectors`` are rows of mean 0 and norm 1 (:func:`thumbnail`). Flat images, all zeros, are nobody's twins:
    they have no correlation. Memory does not grow with the number of pairs compared. ``apart``, (N,) integers:
    only pairs whose numbers differ (frames of one sequence are alike anyway, and their pairs are legion).
    """
    single = vectors.astype(np.float32)
    labels = None if apart is None else np.asarray(apart)
    for i in range(0, len(single), _BLOCK):
        found: list[NDArray[np.int64]] = []
        for j in range(i, len(single), _BLOCK):
            near = np.argwhere(single[i : i + _BLOCK] @ single[j : j + _BLOCK].T > threshold - _MARGIN)
            near += (i, j)
            near = near[near[:, 0] < near[:, 1]]
            found.append(near if labels is None else near[labels[near[:, 0]] != labels[near[:, 1]]])
        pairs = np.concatenate(found)
        pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
        for start in range(0, len(pairs), _BLOCK):
            some = pairs[start : start + _BLOCK]
            correlations = (vectors[some[:, 0]] * vectors[some[:, 1]]).sum(axis=1)
            for (a, b), correlation in zip(some.tolist(), correlations.tolist(), strict=True):
                if correlation > threshold:
                    yield a, b, correlation


def group(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """Connected groups over ``pairs``: for each of ``count`` items the smallest index in its group."""
    edges = np.array(list(pairs), np.int64).reshape(-1, 2)
    matrix = coo_array((np.ones(len(edges), np.int8), (edges[:, 0], edges[:, 1])), shape=(count, count))
    _, labels = connected_components(matrix, directed=False)
    first: dict[int, int] = {}
    return [first.setdefault(int(label), k) for k, label in enumerate(labels)]


def twin_groups_of(vectors: NDArray[np.float64], *, threshold: float = THRESHOLD) -> list[int]:
    """Group of each thumbnail, as the smallest index in it; see :func:`twin_pairs`."""
    return group(len(vectors), ((i, j) for i, j, _ in twin_pairs(vectors, threshold=threshold)))


def twin_groups(records: Sequence[Record], *, threshold: float = THRESHOLD, workers: int = 2) -> list[int]:
    """Twin group of each record, as the smallest index in it: records without twins have their own index."""
    return twin_groups_of(thumbnails(records, workers=workers), threshold=threshold)
