"""Real images more often than there are real images: a share of the samples, evenly spread.

A mix of a hundred real and many synthetic images shows a network mostly synthetic ones, drawn and labelled by other
rules. With a share, real samples come at fixed turns of the stream, those of each source in shuffled rounds of their
own; which sample comes at a position is a function of the position alone, so that a resumed run sees what one that
never stopped sees.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import floor

import numpy as np
from numpy.typing import NDArray

from ..annotate.errors import IrstkitError


def real_turn(position: int, share: float) -> tuple[bool, int]:
    """Whether sample ``position`` (from 0) of the stream is a real one, and the real samples before it.

    Of the first n samples floor(n x share) are real, for every n.
    """
    before = floor(position * share)
    return floor((position + 1) * share) > before, before


@dataclass(frozen=True)
class RealShare:
    """The first ``real`` of ``count`` records make up ``share`` of the samples, the others the rest.

    Raises
    ------
    IrstkitError
        Where one of the sources is empty, or the share is not between 0 and 1.
    """

    real: int
    count: int
    share: float

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise IrstkitError(f"a real share lies between 0 and 1, got {self.share:g}")
        if not 0 < self.real < self.count:
            raise IrstkitError(
                f"a real share needs images of both sources: {self.real} real, {self.count - self.real} synthetic",
                hint="leave --real-share away",
            )

    def any(self, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
        """``count`` records at random, each of them real with probability ``share``."""
        real = rng.random(count) < self.share
        synthetic = rng.integers(self.real, self.count, count)
        return np.where(real, rng.integers(self.real, size=count), synthetic)

    def order(self, draw: Callable[[int, int, int], NDArray[np.int64]]) -> Callable[[int], int]:
        """The record at each position, by ``draw(source, round, count)``: a permutation (source 0: real, 1: not)."""
        rounds = lru_cache(maxsize=4)(draw)

        def at(position: int) -> int:
            real, before = real_turn(position, self.share)
            source, number = (0, before) if real else (1, position - before)
            count = self.real if real else self.count - self.real
            place = int(rounds(source, number // count, count)[number % count])
            return place if real else self.real + place

        return at
