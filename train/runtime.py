"""What a run needs of its surroundings: generators, determinism, signals, TensorBoard, memory errors."""

from __future__ import annotations

import ctypes
import os
import platform
import random
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..annotate.errors import IrstkitError, require
from .settings import Settings


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - for networks of others that draw from it
    torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """Every generator's state in plain types and tensors."""
    state: Any = np.random.get_state()  # noqa: NPY002
    name, keys, position, has_gauss, gauss = state
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


@contextmanager
def deterministic() -> Iterator[None]:
    """Deterministic algorithms where PyTorch has them."""
    before, warned = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    switch: Any = torch.utils.deterministic
    filled = switch.fill_uninitialized_memory
    switch.fill_uninitialized_memory = False  # costs time, and nothing here reads such memory
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation.*")
            yield
    finally:
        switch.fill_uninitialized_memory = filled
        torch.use_deterministic_algorithms(before, warn_only=warned)


M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4
"""mallopt(3)'s parameters."""


@contextmanager
def memory_kept() -> Iterator[bool]:
    """Inside, glibc's allocator keeps freed memory for the next step; outside as ever, and what was kept goes back.

    It would give blocks above 32 MiB back to the system at once and have them zeroed, page by page, when the
    next step asks for them: a tenth of a training step on the CPU. The numbers do not change. False where
    nothing was done: another C library, or the user's own settings of the
    same (``MALLOC_TRIM_THRESHOLD_`` and its like, ``GLIBC_TUNABLES``).
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    names = ("mmap_max", "mmap_threshold", "trim_threshold", "top_pad")
    own = any(f"MALLOC_{x.upper()}_" in os.environ or f"malloc.{x}" in tunables for x in names)
    if own or platform.libc_ver()[0] != "glibc":
        yield False
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, -1)  # never
    libc.mallopt(M_TOP_PAD, 2**26)
    try:
        yield True
    finally:  # where glibc's own adjusting ends after a few large blocks
        libc.mallopt(M_MMAP_MAX, 65536)
        libc.mallopt(M_MMAP_THRESHOLD, 2**25)
        libc.mallopt(M_TRIM_THRESHOLD, 2**26)
        libc.mallopt(M_TOP_PAD, 0)
        libc.malloc_trim(0)


@contextmanager
def signals() -> Iterator[list[str]]:
    """A list that gets the name of SIGTERM or SIGINT when it comes; a second SIGINT interrupts at once."""
    received: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def on(number: int, frame: Any) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(signal.Signals(number).name)

    former = {number: signal.signal(number, on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextmanager
def board_writer(out: Path, step: int) -> Iterator[Any]:
    """TensorBoard events under ``out/tensorboard``; on resuming, what came after ``step`` is purged."""
    module = require("torch.utils.tensorboard", "train")
    board = module.SummaryWriter(str(out / "tensorboard"), purge_step=step + 1 if step else None)
    try:
        yield board
    finally:
        board.close()


def out_of_memory(error: Exception, s: Settings, step: int, device: torch.device) -> IrstkitError | None:
    """The error to show when a step did not fit in memory: the size that failed and what to try."""
    text = str(error).lower()
    if isinstance(error, RuntimeError) and "out of memory" not in text and "allocate memory" not in text:
        return None
    return IrstkitError(
        f"out of memory on {device} at step {step + 1}: "
        f"batch {s.batch} of {s.crop}x{s.crop} crops in {s.precision}",
        hint=f"try --batch {max(1, s.batch // 2)} --accumulate {s.accumulate * 2}, a smaller --crop"
        + ("" if s.precision != "32-true" else ", or --precision bf16-mixed"),
    )


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(x.split(":", 1)[1].strip() for x in lines if x.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
