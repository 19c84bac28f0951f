"""How far apart two measured data sets are, distribution by distribution, and how surely.

Targets of one image are not independent, so that intervals and p-values draw whole images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..annotate.console import progress
from .measures import MEASURES, Sample

PERCENTILES = (5, 25, 50, 75, 95)
LEAST_KS, LEAST_P = 0.1, 0.01
PERMUTATIONS = 100
"""At least: of fewer no p reaches LEAST_P, so that nothing would ever differ."""
FEW = 8


@dataclass(frozen=True)
class Distance:
    """One measure of the reference (first) and of the made set (second).

    ``ks`` is the two-sample Kolmogorov-Smirnov distance, ``wasserstein`` the first Wasserstein distance in the
    measure's unit and ``relative`` that over the reference's range from p5 to p95; intervals are 95 % bootstrap
    percentiles (a resampled KS is never smaller than noise makes it: it lies above 0 even for equal sets);
    ``p`` is from permutations of whole images; ``means`` are of the values.
    """

    key: str
    number: tuple[int, int]
    reference: tuple[float, ...]
    made: tuple[float, ...]
    ks: float
    ks_interval: tuple[float, float]
    wasserstein: float
    wasserstein_interval: tuple[float, float]
    relative: float
    p: float
    means: tuple[float, float] = (float("nan"), float("nan"))

    @property
    def differs(self) -> bool:
        """KS of at least 0.1 that chance does not give in a hundred tries."""
        return self.ks >= LEAST_KS and self.p <= LEAST_P

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        measure = MEASURES[self.key]
        names = [f"p{p}" for p in PERCENTILES]
        return {
            "title": measure.title, "unit": measure.unit, "of": measure.of,
            "values": {"reference": self.number[0], "made": self.number[1]},
            "reference": {**dict(zip(names, _rounded(self.reference), strict=True)), "mean": _sig(self.means[0])},
            "made": {**dict(zip(names, _rounded(self.made), strict=True)), "mean": _sig(self.means[1])},
            "ks": round(self.ks, 4), "ks_interval": _rounded(self.ks_interval),
            "wasserstein": _sig(self.wasserstein), "wasserstein_interval": _rounded(self.wasserstein_interval),
            "relative": round(self.relative, 4), "p": round(self.p, 4), "differs": self.differs,
        }  # fmt: skip


def _sig(value: float) -> float:
    return float(f"{value:.5g}")


def _rounded(values: Sequence[float]) -> list[float]:
    return [_sig(float(v)) for v in values]


def ks_distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Largest difference of the two empirical distribution functions."""
    a, b = np.sort(a), np.sort(b)
    both = np.concatenate([a, b])
    gap = np.searchsorted(a, both, side="right") / len(a) - np.searchsorted(b, both, side="right") / len(b)
    return float(np.abs(gap).max())


def relative_distance(reference: NDArray[np.float64], made: NDArray[np.float64]) -> float:
    """Wasserstein distance over the reference's range from p5 to p95 (at least a hundredth of its median)."""
    from scipy.stats import wasserstein_distance

    low, middle, high = np.percentile(reference, (5, 50, 95))
    return float(wasserstein_distance(reference, made)) / max(high - low, 0.01 * abs(middle), 1e-6)


def too_few(reference: Sample, made: Sample) -> dict[str, tuple[int, int]]:
    """The measures that cannot be compared, and how many values the reference and the made set have of them."""
    numbers = {k: (len(reference.values.get(k, ())), len(made.values.get(k, ()))) for k in MEASURES}
    return {k: n for k, n in numbers.items() if min(n) < FEW}


def compare(reference: Sample, made: Sample, *, resamples: int = 200, seed: int = 0) -> dict[str, Distance]:
    """Distances of all measures that both sets have at least eight values of; deterministic for a seed."""
    out: dict[str, Distance] = {}
    lacking = too_few(reference, made)
    keys = [k for k in MEASURES if k not in lacking]
    with progress("Comparing", len(keys), unit="measures") as bar:
        for number, key in enumerate(keys):
            out[key] = _distance(key, number, reference, made, resamples, seed)
            bar.advance()
    return out


def _distance(
    key: str, number: int, reference: Sample, made: Sample, resamples: int, seed: int
) -> Distance:  # fmt: skip
    from scipy.stats import bootstrap, ks_2samp, permutation_test, wasserstein_distance

    a, b = reference.values[key], made.values[key]
    by_image = _by_image(reference, key) + _by_image(made, key)
    ia, ib = np.arange(reference.images), reference.images + np.arange(made.images)

    def gathered(which: NDArray) -> NDArray[np.float64]:
        return np.concatenate([by_image[k] for k in which.astype(int).tolist()])

    def ks_of(first: NDArray, second: NDArray) -> float:
        x, y = gathered(first), gathered(second)
        return ks_distance(x, y) if len(x) and len(y) else 0.0

    def w_of(first: NDArray, second: NDArray) -> float:
        x, y = gathered(first), gathered(second)
        return float(wasserstein_distance(x, y)) if len(x) and len(y) else 0.0

    def interval(of: Any, turn: int) -> tuple[float, float]:
        rng = np.random.default_rng([seed, number, turn])
        found = bootstrap(
            (ia, ib), of, n_resamples=resamples, vectorized=False, method="percentile", rng=rng
        ).confidence_interval
        return float(found.low), float(found.high)

    rng = np.random.default_rng([seed, number, 2])
    p = permutation_test(
        (ia, ib), ks_of, permutation_type="independent", vectorized=False, n_resamples=max(resamples, PERMUTATIONS),
        alternative="greater", rng=rng,
    ).pvalue  # fmt: skip
    return Distance(
        key, (len(a), len(b)), tuple(np.percentile(a, PERCENTILES)), tuple(np.percentile(b, PERCENTILES)),
        float(ks_2samp(a, b, method="asymp").statistic), interval(ks_of, 0), float(wasserstein_distance(a, b)),
        interval(w_of, 1), relative_distance(a, b), float(p), (float(a.mean()), float(b.mean())),
    )  # fmt: skip


def _by_image(sample: Sample, key: str) -> list[NDArray[np.float64]]:
    values, owners = sample.values[key], sample.owners[key]  # owners rise: images were measured in order
    return np.split(values, np.searchsorted(owners, np.arange(1, sample.images)))
