"""Intervals and breakdowns."""

from __future__ import annotations

import numpy as np
import pytest

from irstkit.annotate.errors import IrstkitError
from irstkit.train.metrics import SegmentationMeter
from irstkit.train.metrics_report import RATIOS, attribute_lookup, bootstrap, breakdown


def a_meter(count=12, seed=0, **options):
    rng = np.random.default_rng(seed)
    meter = SegmentationMeter(**options)
    for k in range(count):
        truth = np.zeros((40, 40), bool)
        truth[5:7, 5 : 7 + k % 3] = True
        if k % 2:
            truth[30:36, 30:36] = True
        if k % 5 == 4:
            truth[:] = False
        prediction = truth & (rng.random(truth.shape) < 0.8)
        prediction[rng.integers(0, 40), rng.integers(0, 40)] |= k % 3 == 0
        meter.update(prediction, truth, id=f"im{k}")
    return meter


def test_intervals_hold_the_number_and_depend_on_nothing_but_rows_and_seed():
    meter = a_meter()
    got, numbers = bootstrap(meter, seed=3), meter.compute()
    for name in RATIOS:
        low, high = got[name]
        assert low <= numbers[name] <= high
    meter.rows.reverse()
    assert bootstrap(meter, seed=3) == got
    assert bootstrap(meter, seed=4) != got


def test_intervals_of_identical_images_have_no_width_and_of_none_no_value():
    meter = SegmentationMeter()
    truth = np.zeros((8, 8), bool)
    truth[2:4, 2:4] = True
    for k in range(5):
        meter.update(truth, truth, id=k)
    assert bootstrap(meter, resamples=20)["iou"] == (1.0, 1.0)
    assert set(bootstrap(SegmentationMeter()).values()) == {None}
    blank = SegmentationMeter()
    blank.update(truth & False, truth & False)
    assert bootstrap(blank, resamples=5)["pd"] is None


def test_intervals_agree_with_recomputing_from_the_drawn_rows():
    meter = a_meter(7, empty="one")
    got = bootstrap(meter, resamples=9, seed=1, level=0.5)
    rng, rows = np.random.default_rng(1), sorted(meter.rows, key=lambda r: r.id)
    values = []
    for _ in range(9):
        drawn = SegmentationMeter(empty="one")
        drawn.rows = [rows[k] for k in rng.integers(0, 7, 7)]
        values.append(drawn.compute())
    for name in RATIOS:
        expected = np.quantile([v[name] for v in values], [0.25, 0.75])
        assert got[name] == pytest.approx(tuple(expected))


def test_whole_groups_are_drawn():
    meter = a_meter(6)
    one_group = bootstrap(meter, groups={f"im{k}": "a" for k in range(6)}, resamples=10)
    low, high = one_group["iou"]
    assert low == high == pytest.approx(meter.compute()["iou"])
    with pytest.raises(IrstkitError, match="no group"):
        bootstrap(meter, groups={})


def test_by_scene_sums_to_the_whole_and_drops_nothing():
    meter = a_meter()
    images = {f"im{k}": {"scene": ["sea", "sky"][k % 2]} for k in range(10)}
    got = breakdown(meter, "scene", images=images)
    assert list(got) == ["sea", "sky", "unknown"]
    whole = meter.compute()
    for name in ("tp", "fp", "fn", "targets", "detected", "false_pixels", "images"):
        assert sum(g[name] for g in got.values()) == whole[name]


def test_by_size_bins_targets_by_their_pixels():
    meter = a_meter()
    got = breakdown(meter, "size")
    assert list(got) == ["1-9", "26-49"]
    assert sum(g["targets"] for g in got.values()) == meter.compute()["targets"]
    assert got["26-49"]["pure_images"]["images"] == 0  # every image with a large target has a small one
    assert got["1-9"]["pure_images"]["images"] > 0
    named = breakdown(meter, "size", edges=(30.0, 40.5))
    assert list(named) == ["below 30", "30 to below 40.5"]


def test_by_kind_and_scr_through_the_annotations():
    meter = a_meter()
    annotations = {
        f"im{k}": [
            {"x": 30 + 2.5, "y": 32.5, "kind": "extended", "scr_achieved": 7.5},
            {"x": 6.0, "y": 5.5, "kind": "point", "scr_achieved": 0.5},
        ]
        for k in range(11)
    }
    look = attribute_lookup(annotations)
    kinds = breakdown(meter, "kind", targets=look)
    assert list(kinds) == ["extended", "point", "unknown"]
    assert kinds["extended"]["targets"] == sum(r.area == 36 for r in meter.target_rows if r.id != "im11")
    scr = breakdown(meter, "scr", targets=look)
    assert list(scr) == ["0 to below 1", "6 to below 10", "unknown"]
    with pytest.raises(IrstkitError, match="no attributes of targets"):
        breakdown(meter, "kind")


def test_a_lopsided_target_is_known_by_its_box():
    """Its centroid is far from the centre of its box, and nearer to that of a neighbour."""
    meter, truth = SegmentationMeter(), np.zeros((40, 40), bool)
    truth[5:25, 5], truth[24, 5:35] = (
        True,
        True,
    )  # an L of 20 x 30: the centroid is about 10 px off the centre
    meter.update(truth, truth, id="a")
    (row,) = meter.target_rows
    mine = {"x": 19.5, "y": 14.5, "box": (5, 5, 35, 25), "kind": "extended"}
    other = {"x": row.x - 4, "y": row.y, "box": (row.x - 5, row.y - 1, row.x - 2, row.y + 2), "kind": "point"}
    for both in ([mine, other], [other, mine]):
        assert attribute_lookup({"a": both})(row)["kind"] == "extended"
    assert attribute_lookup({"a": [{**mine, "box": (0, 0, 3, 3)}]})(row) == {}
