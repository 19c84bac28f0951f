"""Logistic regression on features and all their products, with a ridge; deterministic, a few milliseconds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STEPS = 40
LIMIT = 8.0
"""Standardised features are cut here: a far one must not rule all its products."""


@dataclass(frozen=True, eq=False)
class Quadratic:
    """p = 1 / (1 + exp(-w z)), z: 1, the standardised features and their products, standardised again."""

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    mean2: NDArray[np.float64]
    scale2: NDArray[np.float64]
    weights: NDArray[np.float64]

    @classmethod
    def fit(cls, x: NDArray, y: NDArray, importance: NDArray, *, ridge: float = 1.0) -> Quadratic:
        """Least ``sum(importance * log loss) + ridge / 2 * |w|²`` (the constant is free), by Newton's method.

        x: (N, D) features; y: (N,) 0 or 1; importance: (N,) positive.
        """
        mean, scale = x.mean(0), x.std(0)
        scale = np.where(scale > 1e-9, scale, 1.0)
        raw = _products(((x - mean) / scale).clip(-LIMIT, LIMIT))
        mean2, scale2 = raw.mean(0), raw.std(0)
        scale2 = np.where(scale2 > 1e-9, scale2, 1.0)
        z = np.column_stack([np.ones(len(x)), (raw - mean2) / scale2])
        penalty = np.full(z.shape[1], ridge)
        penalty[0] = 1e-6
        share = float(np.average(y, weights=importance).clip(1e-6, 1 - 1e-6))
        w = np.zeros(z.shape[1])
        w[0] = np.log(share / (1 - share))
        loss = _loss(z, y, importance, penalty, w)
        for _ in range(STEPS):
            p = _sigmoid(z @ w)
            gradient = z.T @ (importance * (p - y)) + penalty * w
            hessian = (z * (importance * p * (1 - p))[:, None]).T @ z + np.diag(penalty)
            step = np.linalg.solve(hessian, gradient)
            size = 1.0
            while size > 1e-4:  # halved until it is one down
                trial = w - size * step
                now = _loss(z, y, importance, penalty, trial)
                if now < loss:
                    break
                size /= 2
            else:
                break
            done = loss - now < 1e-6 * max(loss, 1.0)
            w, loss = trial, now
            if done:
                break
        return cls(mean, scale, mean2, scale2, w)

    def probability(self, x: NDArray) -> NDArray[np.float64]:
        """(N,) probabilities of y = 1 for (N, D) features."""
        raw = _products(((x - self.mean) / self.scale).clip(-LIMIT, LIMIT))
        return _sigmoid(self.weights[0] + ((raw - self.mean2) / self.scale2) @ self.weights[1:])


def _products(x: NDArray) -> NDArray[np.float64]:
    rows, columns = np.triu_indices(x.shape[1])
    return np.concatenate([x, x[:, rows] * x[:, columns]], axis=1)


def _sigmoid(v: NDArray) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-v.clip(-500, 500))))


def _loss(z: NDArray, y: NDArray, importance: NDArray, penalty: NDArray, w: NDArray) -> float:
    v = z @ w
    return float((importance * (np.logaddexp(0, v) - y * v)).sum() + (penalty * w * w).sum() / 2)
