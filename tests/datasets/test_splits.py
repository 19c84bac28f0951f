"""Twins, the validation part and the real/synthetic mix: properties, and oracles by brute force."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irstkit.annotate.errors import IrstkitError
from irstkit.datasets import twins
from irstkit.datasets.mix import mix
from irstkit.datasets.readers import open_dataset
from irstkit.datasets.records import Record
from irstkit.datasets.splits import divide, train_val

ORDERS = st.randoms(use_true_random=False)


def records(count: int, prefix: str = "r", sequences: int | None = None) -> list[Record]:
    """Records without files; with ``sequences`` nobody needs to read one."""
    return [
        Record(f"{prefix}{k}", Path(f"{k}.png"), sequence=None if sequences is None else f"s{k % sequences}")
        for k in range(count)
    ]


def test_twin_pairs_against_numpy(monkeypatch):
    monkeypatch.setattr(twins, "_BLOCK", 7)  # several blocks on few images
    rng = np.random.default_rng(1)
    base = rng.normal(size=(8, 40, 52))
    images = [base[k % 8] + rng.normal(size=base[0].shape) * (0.06 * (k // 8)) for k in range(32)]
    images += [np.full((20, 20), 7.0), np.full((20, 20), 7.0)]
    vectors = np.array([twins.thumbnail(image) for image in images])
    found = {(i, j) for i, j, _ in twins.twin_pairs(vectors)}
    small = [cv2.resize(i.astype(np.float32), (32, 32), interpolation=cv2.INTER_AREA).ravel() for i in images]
    expected = set()
    for i in range(32):
        for j in range(i + 1, 32):
            if np.corrcoef(small[i].astype(float), small[j].astype(float))[0, 1] > 0.995:
                expected.add((i, j))
    assert found == expected and expected
    groups = twins.twin_groups_of(vectors)
    assert all(groups[g] == g <= k for k, g in enumerate(groups))
    assert all(groups[i] == groups[j] for i, j in expected) and groups[32] != groups[33]


def test_thumbnail_does_not_depend_on_gain_offset_or_depth():
    image = np.random.default_rng(0).integers(0, 256, (50, 70)).astype(np.uint8)
    a, b = twins.thumbnail(image), twins.thumbnail(image.astype(np.uint16) * 200 + 900)
    assert abs(float(a @ b) - 1) < 1e-6 and abs(float(a @ a) - 1) < 1e-12


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 120), st.integers(2, 30), st.floats(0.02, 0.6), st.integers(0, 5), ORDERS)
def test_divide_keeps_groups_whole_and_ignores_the_order(count, sequences, fraction, seed, random):
    items = records(count, sequences=min(sequences, count))
    rest, part = divide(items, fraction, seed)
    assert sorted(r.id for r in rest + part) == sorted(r.id for r in items) and rest and part
    assert not {r.sequence for r in rest} & {r.sequence for r in part}
    shuffled = items[:]
    random.shuffle(shuffled)
    assert {r.id for r in divide(shuffled, fraction, seed)[1]} == {r.id for r in part}
    smallest = min(sum(r.sequence == s for r in items) for s in {r.sequence for r in items})
    assert len(part) <= max(round(fraction * count), smallest)


def test_divide_takes_the_wanted_number_where_groups_allow_it():
    items = records(200, sequences=200)
    rest, part = divide(items, 0.1, 0)
    assert (len(rest), len(part)) == (180, 20)
    assert {r.id for r in part} != {r.id for r in divide(items, 0.1, 1)[1]}


def test_twins_stay_together(make_pairs):
    root = make_pairs(10)
    for k in range(5):  # 5..9 become noisy copies of 0..4
        image = cv2.imread(str(root / f"images/{k:06d}.png"), cv2.IMREAD_UNCHANGED)
        image[0, 0] ^= 3
        cv2.imwrite(str(root / f"images/{k + 5:06d}.png"), image)
    (root / "splits/s").mkdir(parents=True)
    (root / "splits/s/train.txt").write_text("".join(f"{k:06d}\n" for k in range(10)))
    train, val = train_val(open_dataset(root), "s/train", 0.2)
    assert len(val) == 2 and abs(int(val[0].id) - int(val[1].id)) == 5 and len(train) == 8


@pytest.mark.parametrize(
    ("items", "fraction", "message"),
    [
        (records(5, sequences=1), 0.1, "5 images in 1 group"),
        ([], 0.1, "0 images in 0 group"),
        (records(5, sequences=5), 0, "between 0 and 1"),
        (records(5, sequences=5), 1, "between 0 and 1"),
    ],
)
def test_what_cannot_be_divided(items, fraction, message):
    with pytest.raises(IrstkitError, match=message):
        divide(items, fraction)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.floats(0, 1), st.floats(0, 1), st.integers(0, 3), ORDERS)
def test_mix_is_exact_nested_and_ignores_the_order(total, low, high, seed, random):
    low, high = sorted((low, high))
    real, synthetic = records(60, "real"), records(60, "synth")
    small, large = (mix(real, synthetic, f, total, seed) for f in (low, high))
    for chosen, fraction in ((small, low), (large, high)):
        ids = [r.id for r in chosen]
        assert len(ids) == len(set(ids)) == total
        assert sum(i.startswith("real") for i in ids) == round(fraction * total)
    real_of = [{r.id for r in chosen if r.id.startswith("real")} for chosen in (small, large)]
    synth_of = [{r.id for r in chosen if r.id.startswith("synth")} for chosen in (small, large)]
    assert real_of[0] <= real_of[1] and synth_of[1] <= synth_of[0]
    random.shuffle(real)
    random.shuffle(synthetic)
    assert [r.id for r in mix(real, synthetic, low, total, seed)] == [r.id for r in small]


def test_mix_real_is_all_of_it_and_seeds_differ():
    real, synthetic = records(30, "real"), records(30, "synth")
    assert {r.id for r in mix(real, synthetic, "real")} == {r.id for r in real}
    draws = {tuple(sorted(r.id for r in mix(real, synthetic, 0.5, 20, seed))) for seed in range(4)}
    assert len(draws) == 4


@pytest.mark.parametrize(
    ("fraction", "total", "message"),
    [
        (0.5, 100, "needs 50 real images, there are 9"),
        (0.1, 60, "needs 54 synthetic images, there are 30"),
        (1.2, 10, "between 0 and 1"),
        (float("nan"), 10, "between 0 and 1"),
        ("most", 10, "between 0 and 1"),
        (0.5, 0, "at least 1"),
        (0.5, None, "at least 1"),
    ],
)
def test_mix_refuses_by_both_numbers(fraction, total, message):
    with pytest.raises(IrstkitError, match=message):
        mix(records(9), records(30, "s"), fraction, total)
