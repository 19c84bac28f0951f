"""Real images by a share of the samples: which come when, as a function of the position alone."""

from collections import Counter
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irstkit.annotate.errors import IrstkitError
from irstkit.datasets.batches import Batches, Pixels
from irstkit.datasets.clip_batches import ClipBatches, Images
from irstkit.datasets.readers import open_dataset
from irstkit.datasets.real_share import RealShare


def draw(source, number, count):
    return np.random.default_rng([source, number]).permutation(count)


@settings(max_examples=60, deadline=None)
@given(real=st.integers(1, 12), synthetic=st.integers(1, 20), share=st.floats(0.01, 0.99))
def test_each_source_in_whole_rounds_at_its_share(real, synthetic, share):
    at = RealShare(real, real + synthetic, share).order(draw)
    stream = [at(p) for p in range(150)]
    for n in (1, 7, 60, 150):
        assert sum(k < real for k in stream[:n]) == floor(n * share), "real ones so far"
    for members, first, count in (
        ([k for k in stream if k < real], 0, real),
        ([k for k in stream if k >= real], real, synthetic),
    ):
        for start in range(0, len(members), count):
            whole = members[start : start + count]
            assert len(set(whole)) == len(whole) and set(whole) <= set(range(first, first + count))
    assert [at(p) for p in (149, 3, 77, 0)] == [stream[p] for p in (149, 3, 77, 0)], "in any order"


@pytest.mark.parametrize(
    ("real", "count", "share", "told"),
    [
        (0, 5, 0.5, "needs images of both sources: 0 real, 5 synthetic"),
        (5, 5, 0.5, "5 real, 0 synthetic"),
        (2, 5, 0.0, "between 0 and 1, got 0"),
        (2, 5, 1.0, "between 0 and 1, got 1"),
        (2, 5, float("nan"), "got nan"),
    ],
)
def test_shares_that_cannot_be(real, count, share, told):
    with pytest.raises(IrstkitError, match=told):
        RealShare(real, count, share)


def test_batches_with_a_share(make_pairs):
    data = open_dataset(make_pairs(count=12))
    for make in (
        lambda **more: Batches(Pixels(list(data)), batch=4, crop=32, seed=3, **more),
        lambda **more: ClipBatches(Images(list(data)), batch=4, crop=32, seed=3, single=True, **more),
    ):
        batches = make(real_share=RealShare(3, 12, 0.5))
        seen = [batches.indices(k) for k in range(18)]
        assert all(sum(k < 3 for k in one) == 2 for one in seen), "half of every batch"
        times = Counter(k for one in seen for k in one)
        assert {times[k] for k in range(3)} == {12} and {times[k] for k in range(3, 12)} == {4}
        assert len(batches) == 3, "an epoch is as many samples as images"
        again = make(real_share=RealShare(3, 12, 0.5))
        assert [again.indices(k) for k in (17, 0, 9)] == [seen[k] for k in (17, 0, 9)]
        assert np.array_equal(again.batch(9)[0].numpy(), batches.batch(9)[0].numpy())
        assert make().indices(0) != seen[0]
        with pytest.raises(IrstkitError, match="a real share of 11 "):
            make(real_share=RealShare(3, 11, 0.5))


def test_the_tiles_of_a_mosaic_keep_the_share(make_pairs):
    batches = ClipBatches(
        Images(list(open_dataset(make_pairs(count=12)))), batch=4, crop=32, seed=3, single=True, mosaic=1.0,
        real_share=RealShare(2, 12, 0.75),
    )  # fmt: skip
    cut, tiles = batches._cut, []
    batches._cut = lambda rng, k, *size: tiles.append(k) or cut(rng, k, *size)
    for step in range(50):
        batches.batch(step)
    assert len(tiles) == 800 and sum(k < 2 for k in tiles[::4]) == 150
    others = [k for n, k in enumerate(tiles) if n % 4]
    assert abs(sum(k < 2 for k in others) / 600 - 0.75) < 0.07, "four deviations"
    assert set(others) == set(range(12))
    assert np.isin(RealShare(2, 12, 0.5).any(np.random.default_rng(0), 100), range(12)).all()
