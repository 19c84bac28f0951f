"""Metrics of segmentation: the sheet's vectors, a brute-force oracle, and laws that must hold."""

from __future__ import annotations

import itertools
import json
import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from irstkit.annotate.errors import IrstkitError
from irstkit.train.metrics import SegmentationMeter, Settings, evaluate_image
from irstkit.train.metrics_match import Components, components, match, near_pairs


def mask_of(*rectangles, shape=(256, 256)):
    """Half-open rectangles (y1, y2, x1, x2), or pixels (y, x), painted into a boolean mask."""
    mask = np.zeros(shape, bool)
    for r in rectangles:
        y1, y2, x1, x2 = r if len(r) == 4 else (r[0], r[0] + 1, r[1], r[1] + 1)
        mask[y1:y2, x1:x2] = True
    return mask


SQUARE = (10, 13, 10, 13)

# id, mask, prediction, (detected, targets, false pixels) for dnanet, greedy, optimal; IoU
VECTORS = [
    ("V1", [SQUARE], [SQUARE, (100, 103, 100, 103)], (1, 1, 0), (1, 1, 9), (1, 1, 9), 0.5),
    ("V1b", [SQUARE], [SQUARE, (100, 102, 100, 102)], (1, 1, 4), (1, 1, 4), (1, 1, 4), 9 / 13),
    ("V2 distance 3", [(50, 50)], [(50, 53)], (0, 1, 1), (0, 1, 1), (0, 1, 1), 0),
    ("V2b distance 2", [(50, 50)], [(50, 52)], (1, 1, 0), (1, 1, 0), (1, 1, 0), 0),
    ("V3 one for two", [(20, 20), (20, 24)], [(20, 22)], (1, 2, 0), (1, 2, 0), (1, 2, 0), 0),
    ("V4 order", [(30, 30), (30, 33)], [(29, 31), (31, 29)], (1, 2, 0), (1, 2, 1), (2, 2, 0), 0),
    ("V5 blob", [(60, 62, 60, 62)], [(60, 70, 60, 70)], (0, 1, 100), (0, 1, 100), (0, 1, 100), 0.04),
    ("V6 diagonal", [(80, 80), (81, 81)], [(80, 80), (81, 81)], (1, 1, 0), (1, 1, 0), (1, 1, 0), 1),
    (
        "V7 bridge",
        [(120, 122, 120, 122), (120, 122, 124, 126)],
        [(120, 122, 120, 126)],
        (1, 2, 0),
        (1, 2, 0),
        (1, 2, 0),
        2 / 3,
    ),
    ("V8 nothing found", [SQUARE], [], (0, 1, 0), (0, 1, 0), (0, 1, 0), 0),
    ("V9 nothing there", [], [SQUARE], (0, 0, 9), (0, 0, 9), (0, 0, 9), 0),
]


@pytest.mark.parametrize("matching", ["dnanet", "greedy", "optimal"])
@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v[0])
def test_vectors_of_the_sheet(vector, matching):
    _, truth, prediction, dnanet, greedy, optimal, iou = vector
    meter = SegmentationMeter(matching=matching)
    meter.update(mask_of(*prediction), mask_of(*truth))
    got = meter.compute()
    expected = {"dnanet": dnanet, "greedy": greedy, "optimal": optimal}[matching]
    assert (got["detected"], got["targets"], got["false_pixels"]) == expected
    assert got["iou"] == pytest.approx(iou, abs=1e-12)
    assert got["fa"] == expected[2] / 65536


@pytest.mark.parametrize("stored", [1, 128, 254, 255])
def test_vector_10_masks_stored_with_other_gray_values_count(stored):
    truth = mask_of(SQUARE).astype(np.uint8) * stored
    meter = SegmentationMeter()
    meter.update(mask_of(SQUARE), truth)
    got = meter.compute()
    assert (got["detected"], got["targets"], got["false_pixels"], got["iou"]) == (1, 1, 0, 1.0)


def test_vector_11_noise_below_the_threshold_is_no_detection():
    noise = np.random.default_rng(0).random((256, 256), dtype=np.float32) * 0.01
    meter = SegmentationMeter()
    meter.update(noise, mask_of(SQUARE))
    got = meter.compute()
    assert (got["detected"], got["targets"], got["false_pixels"], got["iou"]) == (0, 1, 0, 0.0)


@pytest.mark.parametrize("distance, found", [(2, 0), (2.0000001, 1), (3, 1), (4, 1)])
def test_the_distance_is_an_option_and_strict(distance, found):
    meter = SegmentationMeter(distance=distance)
    meter.update(mask_of((50, 52)), mask_of((50, 50)))
    assert meter.compute()["detected"] == found


def test_exactly_three_pixels_between_fractional_centroids_is_a_miss():
    # centroids 1/3 and 10/3: their float difference is 3.0000000000000004 or 2.9999999999999996 by luck
    truth = mask_of((0, 0), (1, 0), (1, 1), shape=(2, 12))  # mean x = 1/3, mean y = 2/3
    for shift, found in [(3, 0), (2, 1)]:
        meter = SegmentationMeter()
        meter.update(np.roll(truth, shift, axis=1), truth)
        assert meter.compute()["detected"] == found


def test_cardinality_comes_before_distance():
    # target a is nearest to p, but b has only p: two pairs beat the one short pair
    truth = mask_of((10, 10), (10, 14), shape=(20, 30))
    prediction = mask_of((10, 12), (12, 9), shape=(20, 30))
    meter = SegmentationMeter()
    meter.update(prediction, truth)
    assert meter.compute()["detected"] == 2


def test_among_equal_distances_the_larger_component_is_matched():
    truth = mask_of((10, 10), shape=(20, 30))
    for flip in (1, -1):
        prediction = mask_of((10, 8), (9, 12, 12, 13), shape=(20, 30))  # 1 and 3 pixels, both 2 px away
        meter = SegmentationMeter()
        meter.update(prediction[:, ::flip], truth[:, ::flip])
        assert meter.compute()["false_pixels"] == 1


# ------------------------------------------------------------------------------------------ the oracle


def oracle(truth, prediction, connectivity, distance):
    """Everything by definition: SciPy's labels, fractions, all one-to-one assignments."""
    structure = np.ones((3, 3)) if connectivity == 8 else None

    def parts(mask):
        labels, count = ndimage.label(mask, structure)
        out = []
        for k in range(1, count + 1):
            ys, xs = np.nonzero(labels == k)
            out.append((len(ys), Fraction(int(xs.sum()), len(ys)), Fraction(int(ys.sum()), len(ys))))
        return out

    targets, found = parts(truth), parts(prediction)
    near = [
        [p for p, (_, u, v) in enumerate(found) if (x - u) ** 2 + (y - v) ** 2 < Fraction(distance) ** 2]
        for _, x, y in targets
    ]

    def away(t, p):
        return math.hypot(float(targets[t][1] - found[p][1]), float(targets[t][2] - found[p][2]))

    best = (0, 0.0, 0)
    for choice in itertools.product(*[[None, *options] for options in near]):
        used = [p for p in choice if p is not None]
        if len(set(used)) == len(used):
            total = sum(away(t, p) for t, p in enumerate(choice) if p is not None)
            best = max(best, (len(used), -round(total, 5), sum(found[p][0] for p in used)))
    return len(targets), best[0], sum(f[0] for f in found) - best[2]


def random_pair(rng):
    """Small crowded masks: touching, merging and competing components are the rule."""
    shape = tuple(rng.integers(1, 17, 2))
    density = rng.choice([0.02, 0.06, 0.12, 0.25])
    truth = rng.random(shape) < density
    prediction = np.roll(truth, tuple(rng.integers(-2, 3, 2)), (0, 1)) if rng.random() < 0.5 else truth.copy()
    prediction = prediction ^ (rng.random(shape) < rng.choice([0.0, 0.03, 0.1]))
    return truth, prediction


@pytest.mark.parametrize("connectivity", [8, 4])
def test_agrees_with_brute_force(connectivity):
    """A part of the 5000 random pairs that ``benchmarks/metrics_oracle.py`` runs in full."""
    rng = np.random.default_rng(connectivity)
    compared = 0
    for _ in range(300):
        truth, prediction = random_pair(rng)
        distance = float(rng.choice([1.5, 2.0, 3.0, 4.0]))
        rules = Settings(distance=distance, connectivity=connectivity)
        result = evaluate_image(prediction, truth, rules)
        if len(near_pairs(result.targets, result.predictions, distance)) > 14:
            continue  # too many assignments to list
        compared += 1
        row = result.row
        assert (row.targets, row.detected, row.false_pixels) == oracle(
            truth, prediction, connectivity, distance
        )
        assert (row.tp, row.fp, row.fn) == tuple(
            np.sum(m) for m in (truth & prediction, prediction & ~truth, truth & ~prediction)
        )
    assert compared > 150


@given(st.integers(0, 2**32 - 1), st.sampled_from([4, 8]))
@settings(max_examples=60, deadline=None)
def test_components_agree_with_scipy_whatever_the_path(seed, connectivity):
    rng = np.random.default_rng(seed)
    mask = rng.random(rng.integers(1, 40, 2)) < rng.random() * 0.7
    got = components(mask, connectivity=connectivity)
    labels, count = ndimage.label(mask, np.ones((3, 3)) if connectivity == 8 else None)
    ys, xs = np.nonzero(mask)
    at = labels[ys, xs]
    order = list(dict.fromkeys(at.tolist()))  # raster order of first pixels
    assert len(got) == count
    assert got.area == [int((at == k).sum()) for k in order]
    assert got.sum_x == [int(xs[at == k].sum()) for k in order]
    assert got.sum_y == [int(ys[at == k].sum()) for k in order]
    assert got.members().tolist() == [order.index(k) for k in at.tolist()]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_flips_and_transposition_change_nothing(seed):
    truth, prediction = random_pair(np.random.default_rng(seed))
    rows = [
        evaluate_image(turn(prediction), turn(truth), Settings()).row
        for turn in (lambda a: a, lambda a: a[::-1], lambda a: a[:, ::-1], lambda a: a.T)
    ]
    assert len(set(rows)) == 1


def test_many_components_take_the_sparse_path_and_agree_with_the_dense_one():
    rng = np.random.default_rng(3)
    truth, prediction = rng.random((2, 90, 90)) < 0.04
    a, b = components(truth), components(prediction)
    assert len(a) * len(b) > 10_000
    edges = near_pairs(a, b, 3.0)
    ours, theirs = a.centroids(), b.centroids()
    dense = [(t, p) for t, c in enumerate(ours) for p, d in enumerate(theirs) if math.dist(c, d) < 3 - 1e-9]
    assert [e[:2] for e in edges] == dense
    result = match(a, b)
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import maximum_bipartite_matching

    graph = coo_matrix(
        (np.ones(len(edges)), ([e[0] for e in edges], [e[1] for e in edges])), (len(a), len(b))
    )
    assert result.detected == int((maximum_bipartite_matching(graph.tocsr()) >= 0).sum())


# ------------------------------------------------------------------------------------------ sums and parts


def some_images(count, seed=0, shape=(24, 30)):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        truth = rng.random(shape) < 0.02 * rng.integers(0, 2)
        yield np.clip(truth * 0.7 + rng.random(shape) * 0.52, 0, 1).astype(np.float32), truth


def test_parts_merge_to_the_whole_in_any_order_and_batch():
    images = list(some_images(23))
    whole = SegmentationMeter()
    for k, (p, t) in enumerate(images):
        whole.update(p, t, id=k)
    for batch in (1, 2, 5, 23):
        parts = []
        for start in range(0, 23, batch):
            part = SegmentationMeter()
            ids = range(start, min(start + batch, 23))
            part.update_batch(
                np.stack([images[k][0] for k in ids])[:, None], [images[k][1] for k in ids], ids=ids
            )
            parts.append(pickle.loads(pickle.dumps(part)))  # as it comes back from another process
        merged = SegmentationMeter()
        for part in reversed(parts):
            merged.merge(part)
        assert merged.compute() == whole.compute()
        assert sorted(merged.target_rows, key=lambda r: (r.id, r.target)) == whole.target_rows


def test_numbers_are_json_and_tied_as_they_must_be():
    meter = SegmentationMeter()
    for p, t in some_images(10):
        meter.update(p, t)
    got = json.loads(json.dumps(meter.compute(), allow_nan=False))
    assert got["f1"] == pytest.approx(2 * got["iou"] / (1 + got["iou"]))
    assert got["pd"] == got["detected"] / got["targets"]
    assert got["fa"] == got["false_pixels"] / got["pixels"]
    assert got["pixels"] == 10 * 24 * 30 and got["images"] == 10


def test_what_is_undefined_is_none():
    blank = np.zeros((8, 8), bool)
    nothing = SegmentationMeter().compute()
    assert [nothing[k] for k in ("iou", "niou", "precision", "recall", "f1", "pd", "fa")] == [None] * 7
    meter = SegmentationMeter()
    meter.update(blank, blank)
    got = meter.compute()
    assert got["fa"] == 0 and got["niou_skipped"] == 1
    assert [got[k] for k in ("iou", "niou", "precision", "recall", "f1", "pd")] == [None] * 6


@pytest.mark.parametrize("empty, expected, skipped", [("skip", 0.5, 1), ("one", 0.75, 0), ("zero", 0.25, 0)])
def test_niou_of_an_empty_image_by_name(empty, expected, skipped):
    meter = SegmentationMeter(empty=empty)
    meter.update(mask_of((2, 2), (2, 3), shape=(8, 8)), mask_of((2, 2), shape=(8, 8)))
    meter.update(np.zeros((8, 8), bool), np.zeros((8, 8), bool))
    got = meter.compute()
    assert (got["niou"], got["niou_skipped"]) == (expected, skipped)


def test_target_rows_say_what_became_of_each_target():
    meter = SegmentationMeter()
    meter.update(mask_of((10, 12, 11, 13)), mask_of((10, 12, 10, 12), (90, 90)), id="a")
    first, second = meter.target_rows
    assert first == ("a", 0, 4, 10.5, 10.5, 1.0, 4, 2) and first.detected
    assert second == ("a", 1, 1, 90.0, 90.0, None, None, 0) and not second.detected


def test_the_threshold_is_strict():
    meter = SegmentationMeter()
    meter.update(np.full((4, 4), 0.5, np.float32), np.ones((4, 4), bool))
    assert meter.compute()["tp"] == 0


def test_torch_tensors_count_as_arrays():
    torch = pytest.importorskip("torch")
    p, t = next(some_images(1))
    rows = [
        evaluate_image(a, b, Settings()).row
        for a, b in [
            (p, t),
            (torch.from_numpy(p)[None, None].requires_grad_(), torch.from_numpy(t)[None]),
            (torch.from_numpy(p), torch.from_numpy(t).float()),
        ]
    ]
    assert rows[0] == rows[1] == rows[2]
    bf16 = torch.tensor([[0.25, 0.75]], dtype=torch.bfloat16)
    assert evaluate_image(bf16, np.array([[False, True]]), Settings()).row.tp == 1


GOOD = np.zeros((4, 5), np.float32)


@pytest.mark.parametrize(
    "prediction, target, words",
    [
        (GOOD + 3, GOOD > 1, "sigmoid"),
        (GOOD - 0.1, GOOD > 1, "from 0 to 1"),
        (GOOD + np.nan, GOOD > 1, "nan"),
        (GOOD.astype(np.uint8), GOOD > 1, "uint8"),
        (GOOD[:3], GOOD > 1, "5x3, the mask 5x4"),
        (GOOD, GOOD.astype(np.int64), "int64"),
        (np.zeros((2, 4, 5), np.float32), GOOD > 1, r"\(2, 4, 5\)"),
        (np.zeros((0, 5), np.float32), GOOD > 1, "shape"),
    ],
)
def test_bad_input_is_refused_by_name(prediction, target, words):
    with pytest.raises(IrstkitError, match=words) as caught:
        SegmentationMeter().update(prediction, target, id="Misc_7")
    assert "Misc_7" in str(caught.value)


def test_an_image_is_not_counted_twice():
    meter = SegmentationMeter()
    meter.update(GOOD, GOOD > 1, id="a")
    with pytest.raises(IrstkitError, match="already counted"):
        meter.update(GOOD, GOOD > 1, id="a")
    with pytest.raises(IrstkitError, match="in both parts"):
        SegmentationMeter().merge(meter).merge(meter)
    with pytest.raises(IrstkitError, match="different settings"):
        SegmentationMeter(distance=2).merge(meter)


@pytest.mark.parametrize(
    "options",
    [
        {"threshold": 1.5},
        {"threshold": float("nan")},
        {"distance": 0},
        {"distance": float("inf")},
        {"matching": "hungry"},
        {"connectivity": 6},
        {"empty": "two"},
    ],
)
def test_settings_out_of_range_are_refused(options):
    with pytest.raises(IrstkitError, match=str(next(iter(options.values())))):
        SegmentationMeter(**options)


def test_match_refuses_an_unknown_rule():
    with pytest.raises(ValueError, match="optimal, greedy, dnanet"):
        match(Components([], [], []), Components([], [], []), matching="nearest")
