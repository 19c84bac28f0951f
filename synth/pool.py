"""Where the images of a set are made: in this process, on worker processes, or on a Dask cluster (cluster.py).

A job is a picklable callable ``job(start, stop)``. Results come in the order of the spans, and only a few spans
a worker are under way at once, so that memory does not grow with the number of images.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar

import cv2

from ..annotate.errors import IrstkitError

Span = tuple[int, int]
Job = Callable[[int, int], Any]
T = TypeVar("T")

AHEAD = 4  # spans under way a worker

_job: Job | None = None


def results(job: Job, spans: Sequence[Span], workers: int) -> Iterator[Any]:
    """``job(start, stop)`` of span after span, by ``workers`` processes (1, or one span: in this one)."""
    if workers == 1 or len(spans) <= 1:
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            for start, stop in spans:
                yield job(start, stop)
        finally:
            cv2.setNumThreads(threads)
        return
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    if main is not None and not Path(main).exists():  # each worker would load it anew
        raise IrstkitError(
            "worker processes cannot be started by a script that is read from standard input",
            hint="save it as a file, or give workers=1",
        )
    # spawn, not fork: OpenCV's own threads, once used, leave a forked child waiting for ever
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(spans)), context, initializer=_begin, initargs=(job,))
    try:
        waiting: deque[Future] = deque()
        for start, stop in spans:
            waiting.append(pool.submit(_call, start, stop))
            if len(waiting) >= AHEAD * workers:
                wait([waiting[0]], return_when=FIRST_COMPLETED)
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise IrstkitError(
            "a worker process was ended from outside (perhaps the machine ran out of memory)",
            hint="the same command again goes on where this one stopped; --workers 1 needs the least memory; "
            'a script of your own needs the line if __name__ == "__main__": around what it runs',
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(job: Job) -> None:
    """In a worker: one thread each, and no cry when the user interrupts."""
    import signal

    global _job
    _job = job
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _call(start: int, stop: int) -> Any:
    assert _job is not None
    return _job(start, stop)
