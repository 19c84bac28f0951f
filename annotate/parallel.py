"""Work over many files in processes, results in order, memory that does not grow with their number."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")

CHUNK = 64
"""Files a task: large enough that passing them to a process costs little."""


def usable_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _chunk(work: Callable[[A], B], items: list[A]) -> list[B]:
    return [work(item) for item in items]


def _start_worker() -> None:
    import cv2

    cv2.setNumThreads(1)  # the processes are the parallelism


def map_ordered(work: Callable[[A], B], items: Iterable[A], workers: int) -> Iterator[B]:
    """``map(work, items)`` in ``workers`` processes (0: one a core), results in the order of the items.

    ``work`` and its results must be picklable. At most three chunks a worker are under way, so that a slow
    reader of the results holds the workers back instead of filling memory. An exception of ``work`` is
    raised at its item's place: the first failing item is the same whatever the number of workers.
    """
    count = workers if workers > 0 else usable_cores()
    source = iter(items)
    if count == 1:
        yield from map(work, source)
        return
    from concurrent.futures import Future, ProcessPoolExecutor
    from multiprocessing import get_context

    # spawn: forking a process that runs threads (OpenCV's, a progress bar's) can deadlock
    with ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_start_worker) as pool:
        pending: deque[Future[list[B]]] = deque()
        try:
            while True:
                while len(pending) < 3 * count and (items_now := list(islice(source, CHUNK))):
                    pending.append(pool.submit(_chunk, work, items_now))
                if not pending:
                    return
                yield from pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
