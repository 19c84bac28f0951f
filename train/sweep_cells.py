"""The cells of a sweep: one trained and scored, in this process or several at a time in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from ..annotate import console
from ..annotate.errors import IrstkitError
from ..annotate.files import read_json, write_json
from ..datasets.readers import open_dataset
from .evaluate import evaluate, labelled_part
from .evaluate_boxes import score_boxes
from .material import Material, compose
from .metrics import Settings as MetricSettings
from .runs import read_run
from .runtime import signals
from .settings import Settings
from .sources import open_source
from .stages import fit


@dataclass(frozen=True)
class Plan:
    """What a sweep runs: data, mixing and scoring."""

    real: str
    synthetic: str
    total: int
    fractions: tuple[float | str, ...]
    seeds: int
    real_split: str | None = None
    synthetic_split: str | None = None
    test: str | None = None
    test_split: str | None = None


@dataclass(frozen=True)
class Cell:
    """One real fraction with one seed (of ``settings``), trained in ``folder``."""

    settings: Settings
    plan: Plan
    fraction: float | str
    folder: Path
    test_split: str
    metrics: MetricSettings
    task: str
    device: str

    @property
    def name(self) -> str:
        """For people."""
        return f"real fraction {self.fraction}, seed {self.settings.seed}"

    def material(self) -> Material:
        """Its images; every impossible draw is an error."""
        p = self.plan
        return compose(
            p.real, p.synthetic, real_split=p.real_split, synthetic_split=p.synthetic_split, fraction=self.fraction,
            total=p.total, seed=self.settings.seed, masks=self.task == "mask",
        )  # fmt: skip

    def finished(self, material: Material) -> dict[str, Any] | None:
        """The result, where it was trained to its end on these images and scored."""
        if not (self.folder / "result.json").exists() or not (self.folder / "run.json").exists():
            return None
        run, result = read_run(self.folder), read_json(self.folder / "result.json")
        if (
            run["status"] != "finished"
            or run["data"] != material.about
            or result["run_weights"] != run["weights"]
        ):
            return None
        return result

    def run(self, material: Material, max_minutes: float | None) -> dict[str, Any] | None:
        """Train (or go on) and score; the result, or None where the training was stopped before its end."""
        begun = (self.folder / "last.pt").exists() or (self.folder / "stage1").exists()
        report = fit(
            self.settings, material, self.folder, device=self.device, resume=begun,
            overwrite=self.folder.exists() and not begun, max_minutes=max_minutes,
        )  # fmt: skip
        if report["status"] != "finished":
            return None
        test = open_dataset(self.plan.test or self.plan.real)
        if self.task == "boxes":
            distance = self.metrics.distance
            result = _as_row(
                score_boxes(self.folder, test, self.test_split, distance=distance, device=self.device)
            )
        else:
            records, _ = labelled_part(test, self.test_split)
            source = open_source(self.folder / "best.pt", records, device=self.device)
            result = evaluate(source, test, self.test_split, settings=self.metrics)
        more = {"fraction": self.fraction, "seed": self.settings.seed, "run_weights": report["weights"]}
        write_json(self.folder / "result.json", {**result, **more}, indent=2)
        return {**result, **more}


def _as_row(result: dict[str, Any]) -> dict[str, Any]:
    """A result of boxes with its operating point and its Pd and Fa on the outside, as a row of the table."""
    at, centre = result["operating"], result["centre"]
    flat = {k: at[k] for k in ("precision", "recall", "f1")} | {k: centre[k] for k in ("pd", "fa")}
    return {**{k: v for k, v in result.items() if k != "curve"}, **flat, "images": result["frames"]}


def cells_of(settings: Settings, plan: Plan, out: Path, **rest: Any) -> list[Cell]:
    """All cells: seed after seed of each fraction. The real share is for rows of two sources."""
    one_source = {fraction: fraction in (0, 1, "real") for fraction in plan.fractions}
    return [
        Cell(
            replace(settings, seed=seed, real_share=None if one_source[fraction] else settings.real_share),
            plan,
            fraction,
            out / "runs" / f"{fraction}-seed{seed}",
            **rest,
        )
        for fraction in plan.fractions
        for seed in range(settings.seed, settings.seed + plan.seeds)
    ]


def at_once(
    cells: Sequence[Cell],
    jobs: int,
    *,
    threads: int,
    deadline: float | None,
    ended: Callable[[Cell, bool], None],
) -> bool:
    """Run ``cells`` in at most ``jobs`` processes at a time; whether all came to their end.

    ``ended(cell, finished)`` is called as each process ends. At SIGTERM, Ctrl-C, ``deadline`` (of
    ``time.monotonic``) or the first error nothing more is started and what runs saves its checkpoint.

    Raises
    ------
    IrstkitError
        The first that a cell raised, or that its process died.
    """
    context = multiprocessing.get_context("spawn")
    waiting, complete = deque(cells), True
    running: dict[Connection, tuple[Any, Cell]] = {}
    failure: IrstkitError | None = None
    with signals() as signalled:
        told = False
        while running or (waiting and complete):
            while waiting and complete and len(running) < jobs:
                left = None if deadline is None else max(1e-3, (deadline - time.monotonic()) / 60)
                here, there = context.Pipe(duplex=False)
                cell = waiting.popleft()
                process = context.Process(target=_child, args=(cell, threads, left, there), daemon=False)
                with _ctrl_c_is_ours():
                    process.start()
                there.close()
                running[here] = process, cell
            for connection in wait(list(running), timeout=0.2):
                assert isinstance(connection, Connection)
                process, cell = running.pop(connection)
                try:
                    answer = connection.recv()
                except EOFError:
                    process.join()
                    answer = False
                    if not told or process.exitcode != -signal.SIGTERM:  # else told to stop before it trained
                        answer = IrstkitError(
                            f"the process of {cell.name} ended with status {process.exitcode}",
                            path=cell.folder,
                            hint="the same command goes on; fewer --jobs need less memory",
                        )
                process.join()
                if isinstance(answer, IrstkitError):
                    failure, answer = failure or answer, False
                complete &= answer
                ended(cell, answer)
            if (signalled or failure is not None) and not told:
                told, complete = True, False
                for process, _ in running.values():
                    process.terminate()  # finishes its step and saves
    if failure is not None:
        raise failure
    return complete


@contextmanager
def _ctrl_c_is_ours() -> Iterator[None]:
    """A process started here ignores SIGINT until it trains: a terminal sends it to all, and we pass it on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)


def _child(cell: Cell, threads: int, max_minutes: float | None, connection: Connection) -> None:
    """A cell in a process of its own: sends whether it came to its end, or its error."""
    console.quiet = True  # the bars of several processes would write over each other
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    try:
        answer: Any = cell.run(cell.material(), max_minutes) is not None
    except IrstkitError as error:
        answer = error
    connection.send(answer)
    connection.close()
