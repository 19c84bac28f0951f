"""Distributions as presets write them: one of four forms, sampled by a number in [0, 1)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

Finite = Annotated[float, Field(allow_inf_nan=False)]


class Distribution(BaseModel):
    """One of ``value``, ``uniform``, ``quantiles``, or ``values`` with optional ``weights``.

    ``quantiles`` are at equally spaced probabilities from 0 to 1 and interpolated linearly; repeated values
    are point masses. ``weights`` need not add up to one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)

    value: Finite | None = None
    uniform: tuple[Finite, Finite] | None = None
    quantiles: tuple[Finite, ...] | None = None
    values: tuple[Finite, ...] | None = None
    weights: tuple[Finite, ...] | None = None

    _steps: tuple[float, ...] = PrivateAttr(default=())

    @model_validator(mode="after")
    def _check(self) -> Distribution:
        given = [k for k in ("value", "uniform", "quantiles", "values") if getattr(self, k) is not None]
        if len(given) != 1:
            found = ", ".join(given) or "none"
            raise ValueError(f"give exactly one of value, uniform, quantiles, values (found: {found})")
        if self.uniform is not None and self.uniform[0] > self.uniform[1]:
            raise ValueError(f"uniform runs from {self.uniform[0]} down to {self.uniform[1]}")
        if self.quantiles is not None:
            if len(self.quantiles) < 2:
                raise ValueError("quantiles need at least two numbers")
            if any(b < a for a, b in zip(self.quantiles, self.quantiles[1:], strict=False)):
                raise ValueError("quantiles must not fall")
        if self.weights is not None:
            if self.values is None:
                raise ValueError("weights go with values")
            if len(self.weights) != len(self.values):
                raise ValueError(f"{len(self.values)} values but {len(self.weights)} weights")
        if self.values is not None:
            weights = self.weights or (1.0,) * len(self.values)
            if not self.values or min(weights) < 0 or sum(weights) <= 0:
                raise ValueError("weights must be at least 0 and not all 0")
            total = sum(weights)
            self._steps = tuple(w / total for w in accumulate(weights))
        return self

    def at(self, u: float) -> float:
        """The value below which a share ``u`` in [0, 1) lies."""
        if self.value is not None:
            return self.value
        if self.uniform is not None:
            low, high = self.uniform
            return low + (high - low) * u
        if self.quantiles is not None:
            place = u * (len(self.quantiles) - 1)
            k = min(int(place), len(self.quantiles) - 2)
            low, high = self.quantiles[k], self.quantiles[k + 1]
            return low + (high - low) * (place - k)
        assert self.values is not None
        return self.values[min(bisect_right(self._steps, u), len(self.values) - 1)]

    def bounds(self) -> tuple[float, float]:
        """Smallest and largest value that can come."""
        if self.value is not None:
            return self.value, self.value
        if self.uniform is not None:
            return self.uniform
        numbers = self.quantiles or self.values or ()
        return min(numbers), max(numbers)


def choose(weights: Mapping[Any, float], u: float) -> str:
    """A key of ``weights`` with probability proportional to its weight, in the order written."""
    total = sum(weights.values())
    run = 0.0
    last = ""
    for key, weight in weights.items():
        if weight <= 0:
            continue
        run += weight / total
        last = key
        if u < run:
            return key
    return last
