"""What people see while they wait: progress bars and notes on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

quiet = False
"""Set by ``irstkit --quiet``: no notes and no progress bars."""


def note(text: str) -> None:
    """Print one line to standard error (standard output is for results)."""
    if not quiet:
        print(text, file=sys.stderr, flush=True)


@contextmanager
def progress(description: str, total: int | None, *, unit: str = "images") -> Iterator[Progress]:
    """A progress bar on standard error; a silent counter when that is not a terminal.

    Yields an object whose ``advance(n=1, text="")`` moves the bar; ``text`` is shown at its end.
    """
    if quiet or not sys.stderr.isatty():
        yield Progress(None, None)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with RichProgress(*columns, console=Console(stderr=True), transient=False) as bar:
        yield Progress(bar, bar.add_task(description, total=total, text=""))


class Progress:
    """Handle given by :func:`progress`."""

    def __init__(self, bar, task) -> None:
        self._bar, self._task = bar, task

    def advance(self, n: int = 1, text: str = "") -> None:
        """Move the bar by ``n`` and show ``text`` behind it."""
        if self._bar is not None:
            self._bar.update(self._task, advance=n, **({"text": text} if text else {}))


def track(
    items: Iterable[T], description: str, total: int | None = None, *, unit: str = "images"
) -> Iterator[T]:
    """Iterate over ``items`` with a progress bar (``total`` is taken from ``len`` where there is one)."""
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    with progress(description, total, unit=unit) as bar:
        for item in items:
            yield item
            bar.advance()
