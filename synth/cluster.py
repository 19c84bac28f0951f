"""A Dask cluster in place of worker processes: the same job, the same spans, the same bytes.

The job goes to every worker as a plugin: to those that are there and to those that come later, the replacement
of a killed one among them, so that nothing has to be sent again by hand. Dask gives the tasks of a lost worker to
another; three times the same task, then the run ends with an error (and the same command goes on).
"""

from __future__ import annotations

import gc
import logging
import re
import socket
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..annotate.console import note
from ..annotate.errors import IrstkitError, require
from .pool import AHEAD, Job, Span

HOST = re.compile(r"(?:(?:tcp|tls)://)?([^:/\[\]]+):\d+")
LOCAL = re.compile(r"local:([1-9][0-9]{0,3})")
WAIT = 15  # seconds for the scheduler to answer and for a first worker
MOST = 2 << 30  # bytes of backgrounds that are sent to workers without the folder

_jobs: dict[str, Any] = {}
"""In a worker process: by the run's key, the job or the text that says why this worker cannot do it."""


class Cluster:
    """A connection to a scheduler; see :func:`connect`."""

    def __init__(self, client: Any, address: str) -> None:
        self.client, self.address = client, address
        self.first = set(self._workers())

    def _workers(self) -> dict[str, Any]:
        # n_workers=-1: recent versions leave out all but five workers by default
        try:
            return self.client.scheduler_info(n_workers=-1)["workers"]
        except TypeError:
            return self.client.scheduler_info()["workers"]

    @property
    def slots(self) -> int:
        """Tasks that the cluster does at once: the threads of its workers, at least 1."""
        return max(1, sum(worker["nthreads"] for worker in self._workers().values()))

    def shares(self, folder: Path, token: str) -> bool:
        """Whether every worker sees ``folder`` as this process does: it finds the file ``token`` in it."""
        (folder / token).write_text(token, encoding="utf-8")
        try:
            found = self.client.run(_sees, str(folder.resolve() / token))
        except Exception as error:
            raise IrstkitError(
                f"a worker of the cluster at {self.address} cannot run irstkit: {error}",
                hint="install the same irstkit on every worker",
            ) from error
        return all(found.values())

    def results(self, job: Job, spans: Sequence[Span], token: Path | None) -> Iterator[Any]:
        """``job(start, stop)`` of span after span, in their order.

        ``token`` is a file that every worker must see, those that come later too; None: nothing is shared.

        Raises
        ------
        IrstkitError
            When a worker has other versions, the scheduler is lost, or a task has lost three workers.
        """
        distributed = require("distributed", "distributed")
        key = uuid.uuid4().hex
        plugin = _plugin(distributed, key, job, None if token is None else str(token.resolve()), versions())
        self.client.register_plugin(plugin, name=f"irstkit-{key}")
        try:
            waiting: deque[Any] = deque()
            for start, stop in spans:
                name = f"irstkit-{key}-{start}"
                waiting.append(self.client.submit(_do, key, start, stop, key=name, pure=False))
                if len(waiting) >= AHEAD * self.slots:
                    yield self._result(waiting)
            while waiting:
                yield self._result(waiting)
        except (OSError, distributed.CancelledError) as error:
            reason = f": {_first_line(error)}" if isinstance(error, OSError) else ""
            raise IrstkitError(
                f"the Dask scheduler at {self.address} was lost{reason}",
                hint="the same command again goes on where this one stopped",
            ) from error
        finally:
            for future in waiting:
                future.cancel()
            if self.client.status == "running":
                self.client.unregister_worker_plugin(f"irstkit-{key}")
        lost = len(self.first - set(self._workers()))
        if lost:
            note(f"{lost} of the cluster's workers were lost; what they were making was made again")

    def _result(self, waiting: deque[Any]) -> Any:
        distributed = require("distributed", "distributed")
        future = waiting.popleft()
        try:
            return future.result()
        except distributed.KilledWorker as error:
            raise IrstkitError(
                f"the same images lost {self.client.cluster_allowed_failures} workers one after another",
                hint="give the workers more memory; the same command again goes on where this one stopped",
            ) from error


@contextmanager
def connect(address: str) -> Iterator[Cluster]:
    """A Dask cluster by its scheduler's address, or ``local:N``: N worker processes of this machine.

    A local cluster listens on 127.0.0.1 alone and goes when the block ends.

    Raises
    ------
    IrstkitError
        Where the extra is missing, nobody answers, or no worker is there.
    """
    distributed = require("distributed", "distributed")
    local = LOCAL.fullmatch(address)
    if address.partition(":")[0] == "local" and not local:
        raise IrstkitError(f"no Dask address: {address!r}", hint="local:N with N from 1, or HOST:PORT")
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        if local:
            cluster = distributed.LocalCluster(
                n_workers=int(local[1]), threads_per_worker=1, processes=True, host="127.0.0.1",
                dashboard_address="127.0.0.1:0", worker_dashboard_address="127.0.0.1:0", memory_limit=0,
                silence_logs=logging.CRITICAL,
            )  # fmt: skip
            stack.enter_context(cluster)
            client = stack.enter_context(distributed.Client(cluster, timeout=WAIT))
        else:
            client, failure = None, ""
            _known(address)
            try:
                client = stack.enter_context(distributed.Client(address, timeout=WAIT))
            except (OSError, ValueError, TypeError) as error:
                failure = _first_line(error)
            if client is None:
                gc.collect()  # the half-made client closes now: later, inside Dask's own lock, it would hang
                raise IrstkitError(
                    f"no Dask scheduler answers at {address!r}: {failure}",
                    hint="start one with `dask scheduler`, or use --dask local:N",
                )
        try:
            client.wait_for_workers(1, timeout=WAIT)
        except TimeoutError as error:
            raise IrstkitError(
                f"the Dask cluster at {address} has no workers",
                hint=f"start some with `dask worker {address}`",
            ) from error
        yield Cluster(client, address)


@contextmanager
def _quiet() -> Iterator[None]:
    """What Dask logs here, tracebacks of lost connections among it, is told by our own errors and notes."""
    loggers = [logging.getLogger(name) for name in ("distributed", "distributed.client")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _known(address: str) -> None:
    """Refuse a host whose name nobody knows at once: Dask would ask again and again."""
    host = HOST.fullmatch(address)
    if host is None:
        return
    try:
        socket.getaddrinfo(host[1], None)
    except OSError as error:
        raise IrstkitError(
            f"no Dask scheduler answers at {address!r}: the host {host[1]!r} is not known",
            hint="HOST:PORT as `dask scheduler` tells it, or --dask local:N",
        ) from error


def versions() -> dict[str, str]:
    """What must be equal for equal bytes."""
    from .. import __version__

    return {"irstkit": __version__, "numpy": np.__version__, "opencv": cv2.__version__}


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


# ------------------------------------------------------------------------------------- in the workers


def _sees(path: str) -> bool:
    return Path(path).is_file()


def _plugin(distributed: Any, key: str, job: Job, token: str | None, wanted: dict[str, str]) -> Any:
    """The plugin that brings a job to every worker."""

    class Bring(distributed.WorkerPlugin):
        name = f"irstkit-{key}"

        def setup(self, worker: Any) -> None:
            from irstkit.synth import cluster

            cluster.receive(key, job, token, wanted, worker.address)

        def teardown(self, worker: Any) -> None:
            from irstkit.synth import cluster

            cluster._jobs.pop(key, None)

    return Bring()


def receive(key: str, job: Job, token: str | None, wanted: dict[str, str], address: str) -> None:
    """Keep a job in this worker process, or why it cannot be done here."""
    own = versions()
    cv2.setNumThreads(1)
    if own != wanted:
        other = ", ".join(f"{k} {own[k]}, not {v}" for k, v in wanted.items() if own[k] != v)
        _jobs[key] = f"the worker {address} has {other}: the bytes could differ"
    elif token is not None and not Path(token).is_file():
        _jobs[key] = f"the worker {address} does not see the output folder, as the others do"
    else:
        _jobs[key] = job


def _do(key: str, start: int, stop: int) -> Any:
    job = _jobs.get(key)
    if job is None or isinstance(job, str):
        raise IrstkitError(
            job or "a worker has not received its job",
            hint="install the same irstkit on every worker and mount the output folder on all of them or none",
        )
    return job(start, stop)
