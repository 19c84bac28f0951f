"""Batches from shards that are not held in memory: a few shards are decoded at a time.

In each pass the shards come in a drawn order, ``window`` of them at once; the samples of a window come in a drawn order.
Both follow from the seed, the pass and the window, and what a batch holds from its number, so that a run that resumes
at step K decodes the window of that step and goes on as one that never stopped. While a window is used a thread
decodes the next one. Memory is that of two windows of decoded pixels: 131 KB a sample of 256x256 pixels in 8 bit.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..annotate.errors import IrstkitError, require
from .batches import Batches, Pixels
from .readers.probe import Builder, Probe
from .readers.webdataset import read_shard
from .real_share import real_turn
from .records import Dataset, Record

if TYPE_CHECKING:
    import torch

EPOCH = 20_000
"""Samples between two validations of a stream that is longer."""

_SHARDS, _SAMPLES, _REAL = 11, 12, 13  # streams of random numbers, apart from those of Batches


class Shards:
    """The shards of one part, as index.json lists them; samples are read when they are asked for."""

    def __init__(self, root: str | Path, rows: Sequence[dict[str, Any]]) -> None:
        self.root, self.rows = Path(root), tuple(rows)
        self._samples = sum(row["samples"] for row in self.rows)
        if not self._samples:
            raise IrstkitError("no sample in these shards", path=root)

    def __len__(self) -> int:
        """Number of samples."""
        return self._samples

    def records(self, chosen: Sequence[int]) -> list[Record]:
        """The records of the shards numbered ``chosen``, one after another.

        Raises
        ------
        IrstkitError
            When a shard is damaged or anything in it is wrong.
        """
        builder = Builder(Probe(self.root))
        for k in chosen:
            read_shard(builder, self.rows[k], set())  # shards of several sets may repeat an id
        Dataset(
            self.root, "webdataset", tuple(builder.records), None, tuple(builder.findings)
        ).require_clean()
        return builder.records


class ShardBatches:
    """Training batches from shards, with a share of samples from images held in memory; see :class:`Batches`.

    Parameters
    ----------
    shards
        What is streamed.
    batch, crop, seed, augment, device, target_share
        As of :class:`.batches.Batches`.
    window
        Shards that are decoded at once.
    real, real_share
        Images that are decoded once and make up this share of all samples, spread evenly.
    """

    def __init__(
        self,
        shards: Shards,
        batch: int = 4,
        crop: int | tuple[int, int] = 256,
        seed: int = 0,
        augment: bool = True,
        device: str | torch.device = "cpu",
        *,
        target_share: float = 0.5,
        window: int = 2,
        real: Sequence[Record] = (),
        real_share: float = 0.0,
    ) -> None:
        self._torch = require("torch", "train")
        if window < 1:
            raise IrstkitError(f"the window is at least 1 shard, got {window}")
        if not 0 <= real_share < 1 or (real_share > 0) != bool(real):
            raise IrstkitError(
                f"a real share of {real_share:g} of the samples goes with {len(real)} real images: "
                "above 0 and below 1 where there are some"
            )
        self.shards, self.window, self.real_share = shards, window, real_share
        self.batch_size, self.seed = batch, seed
        self.device = self._torch.device(device)
        self._options: dict[str, Any] = {
            "batch": batch, "crop": crop, "seed": seed, "augment": augment, "target_share": target_share,
        }  # fmt: skip
        self._key = np.random.SeedSequence(seed).generate_state(2, np.uint64)
        self._real = Batches(Pixels(real), **self._options) if real else None
        self._open: dict[tuple[int, int], Batches] = {}
        self._next: tuple[tuple[int, int], Future[Batches]] | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="next window")
        self._pass = lru_cache(maxsize=2)(self._make_pass)
        self._order = lru_cache(maxsize=4)(self._permutation)

    def __len__(self) -> int:
        """Steps an epoch: a pass over the shards, or :data:`EPOCH` samples where a pass is longer."""
        return -(-min(len(self.shards), EPOCH) // self.batch_size)

    def _permutation(self, stream: int, index: int, count: int) -> np.ndarray:
        draw = np.random.Generator(np.random.Philox(key=self._key, counter=[0, 0, index, stream]))
        return draw.permutation(count)

    def _make_pass(self, number: int) -> tuple[list[list[int]], list[int]]:
        """The windows of pass ``number``, which shards each holds, and the samples up to each one's end."""
        order = self._permutation(_SHARDS, number, len(self.shards.rows)).tolist()
        windows = [order[k : k + self.window] for k in range(0, len(order), self.window)]
        sizes = (sum(self.shards.rows[k]["samples"] for k in window) for window in windows)
        return windows, list(accumulate(sizes))

    def locate(self, position: int) -> tuple[int, int, int]:
        """Pass, window in it and sample in the window of the ``position``-th streamed sample."""
        number, rest = divmod(position, len(self.shards))
        _, ends = self._pass(number)
        at = bisect_right(ends, rest)
        first = ends[at - 1] if at else 0
        order = self._order(_SAMPLES, (number << 32) + at, ends[at] - first)
        return number, at, int(order[rest - first])

    def _decode(self, number: int, at: int) -> Batches:
        records = self.shards.records(self._pass(number)[0][at])
        return Batches(Pixels(records, shown=False), **self._options)

    def _decoded(self, number: int, at: int) -> Batches:
        """A window, decoded now where it was not decoded ahead."""
        key = number, at
        if key not in self._open:
            while len(self._open) > 1:  # the window before is still needed by this batch at most
                self._open.pop(next(iter(self._open)))
            ahead, self._next = self._next, None
            if ahead is not None and ahead[0] != key:
                ahead[1].cancel()
            self._open[key] = ahead[1].result() if ahead and ahead[0] == key else self._decode(*key)
        return self._open[key]

    def _look_ahead(self, number: int, at: int) -> None:
        """Only the window in use is kept, and the one after it begins to be decoded."""
        for key in [k for k in self._open if k != (number, at)]:
            del self._open[key]
        windows = self._pass(number)[0]
        key = (number, at + 1) if at + 1 < len(windows) else (number + 1, 0)
        if self._pass(key[0])[0][key[1]] == windows[at]:  # one shard: each pass is the same window
            self._open[key] = self._open[number, at]
        elif self._next is None:
            self._next = key, self._pool.submit(self._decode, *key)

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Batch ``step``: (B, 1, H, W) float32 images in 0..1 and masks of 0 and 1, on the device."""
        images, masks, place = [], [], None
        for position in range(step * self.batch_size, (step + 1) * self.batch_size):
            is_real, before = real_turn(position, self.real_share)
            if is_real:
                assert self._real is not None
                count = len(self._real.pixels)
                source, k = self._real, int(self._order(_REAL, before // count, count)[before % count])
            else:
                number, at, k = self.locate(position - before)
                source, place = self._decoded(number, at), (number, at)
            image, mask = source.one(k, position)
            images.append(image)
            masks.append(mask)
        if place is not None:
            self._look_ahead(*place)
        return self._torch.cat(images).to(self.device), self._torch.cat(masks).to(self.device)
