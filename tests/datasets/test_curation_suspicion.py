"""What makes a label suspicious: evidence at it, and the queue that is learned from the labels themselves."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irstkit.annotate.masks import Instance, instances_to_mask, mask_to_instances
from irstkit.datasets.curation import pixels
from irstkit.datasets.curation.evidence import REACH, look
from irstkit.datasets.curation.logistic import Quadratic
from irstkit.datasets.curation.matching import Shape, match_shapes
from irstkit.datasets.curation.suspicion import collect, judge, reason_of, shape_of

SIZE = (64, 72)


def block(x: int, y: int, w: int = 4, h: int = 4) -> Instance:
    return Instance((x, y, x + w, y + h), np.ones((h, w), bool))


def painted(*parts: tuple[Instance, float]) -> np.ndarray:
    out = np.zeros(SIZE, np.float32)
    for instance, value in parts:
        out[instances_to_mask([instance], SIZE)] = value
    return out


# ----------------------------------------------------------------------------------------- evidence


@pytest.mark.parametrize(
    ("label", "others", "seen", "misfit", "reason"),
    [
        (block(20, 20), [], block(20, 20), 0.0, ""),
        (block(20, 20), [], block(22, 20), 1 - 8 / 24, "seen 2.0 px away (right)"),
        (block(20, 20), [], block(17, 17), 1 - 1 / 31, "seen 4.2 px away (up left)"),
        (block(19, 19, 6, 6), [], block(20, 20), 1 - 16 / 36, "2.2 times as large as what is seen"),
        (block(21, 21, 2, 2), [], block(20, 20), 1 - 4 / 16, "4.0 times as small as what is seen"),
        (block(20, 20), [], block(50, 50), 1.0, "nothing seen here"),
        (block(20, 20), [block(22, 20)], block(20, 20), None, "doubled"),
    ],
)  # fmt: skip
def test_evidence_at_a_label_and_its_name(label, others, seen, misfit, reason):
    shapes = [shape_of(label), *map(shape_of, others)]
    one = look(shapes, [None] * len(shapes), [], SIZE, painted((seen, 1.0)))[0]
    if misfit is not None:
        assert one.misfit == pytest.approx(misfit)
    assert reason_of(one) == reason


def test_what_lies_nearer_to_another_label_is_not_this_ones():
    a, b = block(20, 20), block(30, 20)
    both = painted((a, 1.0), (b, 1.0))
    for one, instance in zip(
        look([shape_of(a), shape_of(b)], [None] * 2, [], SIZE, both), (a, b), strict=True
    ):
        assert (one.misfit, one.distance, one.mass) == (0.0, 0.0, instance.area)
    alone = look([shape_of(a)], [None], [], SIZE, both)[0]
    assert alone.mass == a.area + 16 - 4 * (4 - (REACH - 6)), "of the other the columns at most 8 pixels away"


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_a_map_of_the_predictions_is_what_they_say(seed):
    """Predictions with scores and the map that holds them are the same evidence; so is a part of the labels alone."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(SIZE, bool)
    for _ in range(4):
        x, y = rng.integers(0, 60, 2)
        mask[y : y + rng.integers(1, 6), x : x + rng.integers(1, 6)] = True
    guesses = [
        Shape(tuple(map(float, i.box)), i, round(float(rng.uniform(0.1, 1)), 2))
        for i in mask_to_instances(mask)
    ]
    labels = [shape_of(block(*rng.integers(1, 58, 2), *rng.integers(1, 6, 2))) for _ in range(3)]
    scr = [1.0, None, 3.0]
    map_ = painted(*((g.instance, g.score) for g in guesses)).astype(np.float64)
    for guess in guesses:  # in double precision, as scores are
        map_[instances_to_mask([guess.instance], SIZE)] = guess.score
    a, b = look(labels, scr, guesses, SIZE), look(labels, scr, guesses, SIZE, map_)
    assert a == b
    assert look(labels, scr, guesses, SIZE, only=[2]) == a[2:]
    for seen in a:
        assert 0 <= seen.misfit <= 1
        assert seen.common <= seen.area + 1e-9


# ----------------------------------------------------------------------------------------- damages


@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_drawn_larger_and_smaller(seed, by):
    rng = np.random.default_rng(seed)
    mask = np.zeros((20, 24), bool)
    y, x, h, w = rng.integers(0, 14), rng.integers(0, 14), rng.integers(1, 6), rng.integers(1, 6)
    mask[y : y + h, x : x + w] = rng.random((h, w)) < 0.7
    instance = pixels.whole_instance(mask)
    if instance is None:
        return
    larger = instances_to_mask([pixels.drawn_larger(instance, by, mask.shape)], mask.shape)
    ys, xs = np.nonzero(mask)
    gy, gx = np.mgrid[:20, :24]
    away = np.sqrt((gy[..., None] - ys) ** 2 + (gx[..., None] - xs) ** 2).min(-1)
    assert (larger == (away <= by)).all()
    smaller = pixels.drawn_smaller(instance)
    padded = np.pad(mask, 1)
    inner = mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    found = np.zeros_like(mask) if smaller is None else instances_to_mask([smaller], mask.shape)
    assert (found == inner).all()


# ----------------------------------------------------------------------------------------- learning


def test_the_regression_finds_the_least_loss():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 3))
    y = (x[:, 0] * x[:, 1] > 0.1).astype(float)
    weight = rng.uniform(0.2, 2, 300)
    model = Quadratic.fit(x, y, weight)
    p = model.probability(x)
    assert ((p > 0.5) == (y > 0.5)).mean() > 0.9, "a product of features is learned"
    assert (weight * (p - y)).sum() == pytest.approx(0, abs=1e-2), (
        "the constant is free: as many as there are"
    )
    assert np.array_equal(Quadratic.fit(x, y, weight).weights, model.weights)
    with np.errstate(all="raise"):
        assert np.isfinite(model.probability(1e6 * x)).all()
    flat = Quadratic.fit(np.ones((20, 2)), np.r_[np.zeros(10), np.ones(10)], np.ones(20))
    assert flat.probability(np.ones((1, 2)))[0] == pytest.approx(0.5)


def world(seed: int, images: int = 60):
    """Images of a few targets, and what a network with ways of its own sees: all a pixel too large, some not at all."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(images):
        image = rng.normal(100, 4, SIZE)
        labels = []
        for k in range(int(rng.integers(1, 4))):
            instance = block(
                int(rng.integers(4, 18)) + 22 * k, int(rng.integers(6, 50)), *map(int, rng.integers(3, 6, 2))
            )
            image[instances_to_mask([instance], SIZE)] += rng.uniform(20, 60)
            labels.append(instance)
        seen = instances_to_mask([i for i in labels if rng.random() > 0.08], SIZE)
        map_ = cv2.dilate(seen.astype(np.float32), np.ones((3, 3))) * 0.97
        if rng.random() < 0.15:
            map_[58:61, 60:65] = 0.8
        out.append((image.clip(0, 255).astype(np.uint8), labels, map_))
    return out


def test_planted_errors_come_first_though_the_network_draws_everything_too_large():
    found, planted = 0, 0
    for seed in range(2):
        rng = np.random.default_rng(100 + seed)
        images = world(seed)
        wrong: dict[int, str] = {}
        collected = []
        for number, (image, labels, map_) in enumerate(images):
            labels = list(labels)
            if number % 5 == 0:
                kind = ("deleted", "shifted", "doubled", "grown")[number // 5 % 4]
                wrong[number] = kind
                one = labels.pop(int(rng.integers(len(labels))))
                if kind == "shifted":
                    labels.append(pixels.move(one, 3, -2, SIZE))
                elif kind == "doubled":
                    labels += [one, pixels.move(one, 1, 2, SIZE)]
                elif kind == "grown":
                    labels.append(pixels.drawn_larger(one, 2, SIZE))
            shapes = [shape_of(i) for i in labels]
            guesses = [
                Shape(
                    tuple(map(float, i.box)), i, float(map_[i.box[1] : i.box[3], i.box[0] : i.box[2]].max())
                )
                for i in mask_to_instances(map_ > 0.5)
            ]
            pairs = match_shapes(shapes, guesses)
            collected.append(collect(image, shapes, guesses, pairs, map_, seed=number))
        judged = judge(collected)
        assert judged == judge(collected)
        order = sorted(range(len(images)), key=lambda k: -judged[k].worst)
        first = order[: 2 * len(wrong)]
        found += sum(k in wrong for k in first)
        planted += len(wrong)
        assert all(0 <= v <= 1 for j in judged for v in (*j.labels, *j.predictions))
        assert "not labelled" in {judged[k].reason for k in first if wrong.get(k) == "deleted"}
    assert found >= 0.8 * planted, (found, planted)


def test_too_few_labels_to_learn_from_are_judged_by_fixed_rules():
    image = np.full(SIZE, 100, np.uint8)
    image[20:24, 20:24] = 200
    good, none = shape_of(block(20, 20)), shape_of(block(50, 50))
    guesses = [
        Shape((20.0, 20.0, 24.0, 24.0), block(20, 20), 1.0),
        Shape((5.0, 5.0, 9.0, 9.0), block(5, 5), 0.8),
    ]
    pairs = match_shapes([good, none], guesses)
    (one,) = judge([collect(image, [good, none], guesses, pairs, None, seed=0)])
    assert one.labels == [0.0, 1.0]
    assert one.predictions == [0.0, 0.8]
    assert (one.worst, one.reason) == (1.0, "nothing seen here")
