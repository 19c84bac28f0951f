"""The curriculum: which images are admitted when, as a function of the batch's number alone."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irstkit.annotate.errors import IrstkitError
from irstkit.datasets.batches import Batches, Pixels
from irstkit.datasets.curriculum import STAGES, Curriculum, curriculum_of, faintest
from irstkit.datasets.readers import open_dataset
from irstkit.datasets.records import Record


@settings(max_examples=60, deadline=None)
@given(
    scores=st.lists(st.one_of(st.floats(0, 50), st.just(float("inf"))), min_size=1, max_size=40),
    batches=st.integers(1, 200),
    start=st.floats(0.01, 1),
)
def test_the_threshold_falls_and_all_are_admitted_in_the_end(scores, batches, start):
    c = Curriculum(np.array(scores), batches, start)
    assert sorted(c.order) == list(range(len(scores)))
    stages = [c.stage(k) for k in range(batches)]
    assert c.stage(batches) is None and stages[0] is not None and stages[0][:2] == (0, 0)
    for k, (number, first, count) in enumerate(stages):
        assert first <= k and stages[first][0] == number and (first == 0 or stages[first - 1][0] < number)
        assert 1 <= count <= len(scores)
        admitted = [scores[i] for i in c.order[:count]]
        left = [s for s in (scores[i] for i in c.order[count:]) if np.isfinite(s)]
        finite = [s for s in admitted if np.isfinite(s)]
        assert not left or not finite or min(finite) >= max(left)  # the most visible first
    counts = [s[2] for s in stages]
    assert counts == sorted(counts)
    thresholds = [c.threshold(k) for k in range(0, batches + 1, max(1, batches // 10))]
    assert all(a >= b for a, b in pairwise(thresholds))
    assert c.threshold(batches) == min(scores)


def test_images_without_targets_are_spread_over_the_stages():
    c = Curriculum(np.array([float("inf")] * 50 + list(range(50))), 80)
    for batch in range(0, 80, 10):
        admitted = c.order[: c.stage(batch)[2]]
        assert abs((admitted < 50).mean() - 0.5) < 0.03


def test_batches_hold_admitted_images_only_each_as_often_as_the_others(make_pairs):
    data = open_dataset(make_pairs(count=16))
    pixels = Pixels(list(data))
    scores = np.arange(16.0)
    batches = Batches(pixels, batch=4, crop=32, seed=3, curriculum=Curriculum(scores, 40))
    seen = [batches.indices(k) for k in range(60)]
    for k in range(40):
        _, _, count = batches.curriculum.stage(k)
        assert min(seen[k]) >= 16 - count
    for number in range(STAGES):
        chosen = [i for k in range(5 * number, 5 * number + 5) for i in seen[k]]
        count = batches.curriculum.stage(5 * number)[2]
        times = np.bincount(chosen, minlength=16)[16 - count :]
        assert times.max() - times.min() <= 1  # whole passes, then one under way
    plain = Batches(pixels, batch=4, crop=32, seed=3)
    assert seen[40:] == [plain.indices(k) for k in range(40, 60)]
    again = Batches(pixels, batch=4, crop=32, seed=3, curriculum=Curriculum(scores, 40))
    assert [again.indices(k) for k in (39, 7, 0, 22)] == [seen[k] for k in (39, 7, 0, 22)]  # in any order
    other = Batches(pixels, batch=4, crop=32, seed=4, curriculum=Curriculum(scores, 40))
    assert [other.indices(k) for k in range(40)] != seen[:40]
    with pytest.raises(IrstkitError, match="a curriculum of 3 images for 16"):
        Batches(pixels, curriculum=Curriculum(np.arange(3.0), 5))


def test_scores_come_from_the_attributes_else_from_the_pixels(make_pairs):
    data = open_dataset(make_pairs(count=4))
    record, pixels = data[1], Pixels(list(data))
    measured = faintest(record, pixels.image(1), pixels.mask(1))
    assert 0 < measured < 100
    known = Record(
        record.id, record.image, attributes={"targets": ({"scr_achieved": 5.0}, {"scr_achieved": 2.5})}
    )
    assert faintest(known, pixels.image(1), pixels.mask(1)) == 2.5
    partly = Record(record.id, record.image, attributes={"targets": ({"scr_achieved": 5.0}, {})})
    assert faintest(partly, pixels.image(1), pixels.mask(1)) == measured
    assert faintest(record, pixels.image(1), np.zeros_like(pixels.mask(1))) == float("inf")
    flat = np.full_like(pixels.image(1), 7)
    assert faintest(record, flat, pixels.mask(1)) == 0.0
    assert curriculum_of(list(data), pixels, 8).scores.shape == (4,)


@pytest.mark.parametrize(("batches", "start"), [(0, 0.5), (5, 0), (5, 1.5)])
def test_bad_lengths(batches, start):
    with pytest.raises(IrstkitError, match="a curriculum has"):
        Curriculum(np.arange(3.0), batches, start)
