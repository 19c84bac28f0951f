"""Curves against their definitions: thresholding at every distinct value, pairs of pixels, loops."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from irstkit.annotate.errors import IrstkitError
from irstkit.train.metrics import Settings, evaluate_image
from irstkit.train.metrics_near import falling
from irstkit.train.metrics_roc import PixelRocMeter, merge_target_rocs, target_roc
from irstkit.train.metrics_shooting import ShootingMeter

KINDS = ("noise", "levels", "smooth", "blobs", "holes", "float64")


def random_map(rng, kind):
    shape = tuple(rng.integers(1, 20, 2))
    truth = rng.random(shape) < rng.choice([0.01, 0.05, 0.15])
    value = rng.random(shape).astype(np.float32)
    if kind == "levels":  # few distinct values: flat zones, exact zeros
        value = np.round(value * 4) / 4
    elif kind == "smooth":
        value = np.asarray(cv2.GaussianBlur(value, (0, 0), 1.5))
    elif kind in ("blobs", "holes"):
        value = np.asarray(cv2.GaussianBlur(truth.astype(np.float32), (0, 0), 1.2)) + 0.08 * value
        value = (
            np.round(np.clip(value, 0, 1) * 30) / 30 if kind == "blobs" else value * (rng.random(shape) < 0.8)
        )
    return np.clip(value, 0, 1).astype(np.float64 if kind == "float64" else np.float32), truth


def by_thresholding(value, truth, rules):
    thresholds = np.unique(np.append(value, 0))[::-1]
    rows = [evaluate_image(value > t, truth, rules).row for t in thresholds]
    return thresholds, [r.detected for r in rows], [r.false_pixels for r in rows]


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(KINDS),
    st.sampled_from([4, 8]),
    st.sampled_from([2.0, 3.0, 4.0]),
)
@settings(max_examples=150, deadline=None)
def test_the_target_roc_equals_thresholding_at_every_distinct_value(seed, kind, connectivity, distance):
    value, truth = random_map(np.random.default_rng(seed), kind)
    thresholds, detected, false = by_thresholding(
        value, truth, Settings(connectivity=connectivity, distance=distance)
    )
    got = target_roc(value, truth, connectivity=connectivity, distance=distance)
    assert got.thresholds.tolist() == thresholds.tolist()
    assert got.detected.tolist() == detected
    assert got.false_pixels.tolist() == false


def test_competing_targets_and_components_are_assigned_at_every_threshold():
    # two bright spots near two targets, in the order that first-fit gets wrong (vector V4), on a ramp
    truth, value = np.zeros((20, 20), bool), np.linspace(0, 0.2, 400, dtype=np.float32).reshape(20, 20)
    truth[10, 10] = truth[10, 13] = True
    value[9, 11], value[11, 9] = 0.9, 0.8
    got = target_roc(value, truth)
    assert (got.at(0.85), got.at(0.5), got.at(1.0)) == ((1, 0), (2, 0), (0, 0))
    _, detected, false = by_thresholding(value, truth, Settings())
    assert (got.detected.tolist(), got.false_pixels.tolist()) == (detected, false)


def test_at_gives_the_counts_between_the_thresholds_too():
    rng = np.random.default_rng(5)
    value, truth = random_map(rng, "smooth")
    got = target_roc(value, truth)
    for t in [0, 1, *rng.random(50)]:
        row = evaluate_image(value > t, truth, Settings()).row
        assert got.at(t) == (row.detected, row.false_pixels)


def test_curves_of_images_merge_to_that_of_the_set():
    rng = np.random.default_rng(1)
    pairs = [random_map(rng, kind) for kind in KINDS]
    rocs = [target_roc(*pair) for pair in pairs]
    whole = merge_target_rocs(rocs)
    again = merge_target_rocs([merge_target_rocs(rocs[3:]), merge_target_rocs(rocs[:3])])
    assert np.array_equal(whole.false_pixels, again.false_pixels)
    assert whole.pixels == sum(t.size for _, t in pairs)
    for k in range(0, len(whole.thresholds), 23):
        rows = [evaluate_image(v > whole.thresholds[k], t, Settings()).row for v, t in pairs]
        assert whole.detected[k] == sum(r.detected for r in rows)
        assert whole.false_pixels[k] == sum(r.false_pixels for r in rows)


def test_area_and_operating_point_of_a_curve_that_turns_back():
    truth = np.zeros((10, 10), bool)
    truth[5, 5] = True
    value = np.zeros((10, 10), np.float32)
    value[5, 5], value[0, 0], value[5, 6] = 0.9, 0.8, 0.7
    value[5, 7:10] = 0.6  # the blob grows until its centre is 3 px away or more: no, 2 px: still a hit
    got = target_roc(value, truth)
    assert got.pd_at_fa(0) == (1.0, pytest.approx(0.8))
    assert got.pd_at_fa(0.01) == (1.0, pytest.approx(0.8))
    assert got.auc() == 1.0 and got.auc(1e-3) == 1.0
    miss = target_roc(value, np.roll(truth, -5, axis=0))
    assert miss.pd_at_fa(1.0) == (0.0, pytest.approx(0.9)) and miss.auc() == 0.0
    none = target_roc(value, truth & False)
    assert none.pd_at_fa(1.0) is None and none.auc() is None and np.isnan(none.pd).all()
    with pytest.raises(IrstkitError, match="max_fa"):
        got.auc(0)


# ---------------------------------------------------------------------------------------------- pixels


def scores(seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(3):
        truth = rng.random((11, 13)) < 0.15
        yield (
            np.round(np.clip(rng.random((11, 13)) * 0.8 + 0.2 * truth, 0, 1), 2)
            * (rng.random((11, 13)) < 0.8),
            truth,
        )


def pooled():
    values, truth = zip(*scores(), strict=True)
    return np.concatenate([v.ravel() for v in values]), np.concatenate([t.ravel() for t in truth])


@pytest.mark.parametrize("mode, tolerance", [("exact", 1e-12), ("histogram", 2e-3)])
def test_pixel_auc_is_the_probability_that_a_target_pixel_scores_higher(mode, tolerance):
    values, truth = pooled()
    hit, miss = values[truth][:, None], values[~truth]
    expected = np.mean((hit > miss) + 0.5 * (hit == miss))
    whole, part = PixelRocMeter(mode), PixelRocMeter(mode)
    for k, (v, t) in enumerate(scores()):
        (whole if k else part).update(v, t)
    got = whole.merge(part).compute()
    assert got.auc == pytest.approx(expected, abs=tolerance)
    assert whole.compute().auc == got.auc
    for t, tpr, fpr in zip(got.thresholds, got.tpr, got.fpr, strict=True):
        if mode == "exact":  # a histogram's edges fall on values whose last bit differs
            assert (tpr, fpr) == ((hit > t).mean(), (miss > t).mean())


def test_pixel_roc_of_dnanet_has_its_11_thresholds_and_denominators():
    values, truth = pooled()
    meter = PixelRocMeter("dnanet")
    for v, t in scores():
        meter.update(v, t)
    got = meter.compute()
    assert len(got.thresholds) == 11
    for t, tpr in zip(got.thresholds, got.tpr, strict=True):
        assert tpr == pytest.approx(np.sum(values[truth] > t + 1e-9) / (truth.sum() + 0.001))


def test_pixel_auc_without_one_of_the_classes_is_undefined():
    for mode in ("exact", "histogram", "dnanet"):
        meter = PixelRocMeter(mode)
        assert meter.compute().auc is None
        meter.update(np.full((3, 3), 0.3), np.zeros((3, 3), bool))
        assert meter.compute().auc is None


@pytest.mark.parametrize("options, words", [({"mode": "guess"}, "guess"), ({"bins": 10}, "100")])
def test_pixel_roc_options_are_checked(options, words):
    with pytest.raises(IrstkitError, match=words):
        PixelRocMeter(**options)


# ---------------------------------------------------------------------------------------------- shooting


def shooting_by_loops(value, truth, threshold):
    labels, count = ndimage.label(truth, np.ones((3, 3)))
    ys, xs = np.nonzero(value >= threshold)
    hits = 0
    for k in range(1, count + 1):
        ty, tx = np.nonzero(labels == k)
        near = (abs(ty[:, None] - ys) <= 1) & (abs(tx[:, None] - xs) <= 1)
        hits += bool(near.any())
    ty, tx = np.nonzero(truth)
    guarded = ((abs(ty[:, None] - ys) <= 4) & (abs(tx[:, None] - xs) <= 4)).any(axis=0)
    return hits, count, int((~guarded).sum())


def test_shooting_rules_by_definition_also_at_the_border():
    rng = np.random.default_rng(2)
    for _ in range(40):
        truth = rng.random((17, 15)) < 0.02
        truth[0, 0] = True  # where the published code's indices turn negative
        value = np.round(rng.random((17, 15)), 1)
        meter = ShootingMeter()
        meter.update(value, truth)
        for threshold in (0.1, 0.5, 0.9, 1.0):
            got = meter.compute(threshold)
            assert (got["hits"], got["targets"], got["false_pixels"]) == shooting_by_loops(
                value, truth, threshold
            )
        thresholds, pd, fa = meter.curve()
        for t, p, f in zip(thresholds, pd, fa, strict=True):
            hits, count, false = shooting_by_loops(value, truth, t)
            assert (p, f) == (hits / count, false / truth.size)


def test_shooting_parts_merge_and_undefined_is_none():
    rng = np.random.default_rng(4)
    pairs = [(rng.random((9, 9)), rng.random((9, 9)) < 0.05) for _ in range(4)]
    whole, one, two = ShootingMeter(), ShootingMeter(), ShootingMeter()
    for k, (v, t) in enumerate(pairs):
        whole.update(v, t)
        (one if k % 2 else two).update(v, t)
    assert one.merge(two).compute() == whole.compute()
    nothing = ShootingMeter().compute()
    assert nothing["pd"] is None and nothing["fa"] is None and nothing["auc"] is None
    with pytest.raises(IrstkitError, match="different"):
        one.merge(ShootingMeter(hit=2))


def test_very_large_images_are_sorted_in_the_same_order():
    rng = np.random.default_rng(0)
    component, level = rng.integers(0, 5, 200), rng.integers(0, 90, 200)
    for scale in (1, 2**30, 2**55):  # the last: numbers that no integer holds together
        turn = falling(component, level * scale)
        assert sorted(turn.tolist()) == list(range(200))
        pairs = list(zip(component[turn].tolist(), (-level[turn]).tolist(), strict=True))
        assert pairs == sorted(pairs)


def test_half_precision_and_boolean_maps_are_taken():
    rng = np.random.default_rng(8)
    value, truth = random_map(rng, "smooth")
    half = value.astype(np.float16)
    got = target_roc(half, truth)
    thresholds, detected, false = by_thresholding(half.astype(np.float32), truth, Settings())
    assert (got.thresholds.tolist(), got.detected.tolist()) == (thresholds.tolist(), detected)
    assert got.false_pixels.tolist() == false
    hard = target_roc(value > 0.5, truth)
    row = evaluate_image(value > 0.5, truth, Settings()).row
    assert hard.at(0.5) == (row.detected, row.false_pixels)
    with pytest.raises(IrstkitError, match="width, height"):
        target_roc(value, np.zeros((99, 3), bool))
