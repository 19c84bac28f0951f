"""Anchors: kept where they fit, replaced where they do not, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from irstkit.train.anchors import best_possible_recall, fit_anchors
from irstkit.train.models.eflnet import ANCHORS

STOCK = np.array(ANCHORS, float).reshape(-1, 2)


def test_recall_counts_both_sides_and_excludes_the_factor_itself():
    # 3 px is a quarter of 12: not below a factor of 4
    sizes = [(3, 16), (3.1, 16), (12, 64), (12, 63), (12, 16)]
    assert best_possible_recall(sizes, [(12, 16)]) == pytest.approx(3 / 5)


def test_anchors_that_fit_are_kept():
    fit = fit_anchors(np.full((50, 2), 20.0), STOCK)
    assert not fit.changed and fit.recall == 1 and np.array_equal(fit.anchors, STOCK)


def test_tiny_targets_get_anchors_of_their_own_size():
    rng = np.random.default_rng(0)
    sizes = rng.uniform(2.5, 6, (300, 2)).round(1)
    fit = fit_anchors(sizes, STOCK, generations=100)
    assert fit.changed and fit.recall > best_possible_recall(sizes, STOCK) and fit.recall == 1
    assert (np.diff(fit.anchors.prod(axis=1)) >= 0).all() and fit.anchors.max() < 12
    assert np.array_equal(fit.anchors, fit_anchors(sizes, STOCK, generations=100).anchors)


def test_one_size_only_still_gives_nine():
    fit = fit_anchors(np.full((5, 2), 2.0), STOCK, generations=20)
    assert fit.anchors.shape == (9, 2) and fit.recall == 1


@pytest.mark.parametrize("sizes", [np.zeros((0, 2)), [(3, 0)]])
def test_sizes_that_are_none_are_refused(sizes):
    with pytest.raises(ValueError, match="above 0"):
        fit_anchors(sizes, STOCK)
