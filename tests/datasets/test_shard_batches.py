"""The stream of shards: every sample once a pass, a function of the batch's number, few shards in memory."""

import numpy as np
import pytest
import torch

from irstkit.annotate.errors import IrstkitError
from irstkit.datasets import shard_batches as module
from irstkit.datasets.batches import Batches
from irstkit.datasets.readers import open_dataset
from irstkit.datasets.shard_batches import ShardBatches, Shards
from irstkit.datasets.shards import export_shards, read_index, read_indexes


@pytest.fixture
def stored(make_pairs, tmp_path):
    data = open_dataset(make_pairs(count=11))
    export_shards(data, tmp_path / "s", size=3)
    return data, Shards(tmp_path / "s", read_index(tmp_path / "s")["shards"])


def test_every_sample_once_a_pass_in_windows(stored):
    _, shards = stored
    batches = ShardBatches(shards, 4, 32, 5, window=2)
    seen = [batches.locate(p) for p in range(3 * 11)]
    assert [s[0] for s in seen] == [0] * 11 + [1] * 11 + [2] * 11
    for number in range(3):
        windows, ends = batches._pass(number)
        assert sorted(k for w in windows for k in w) == [0, 1, 2, 3] and ends[-1] == 11
        here = [s[1:] for s in seen if s[0] == number]
        assert [at for at, _ in here] == sorted(at for at, _ in here)  # a window after another
        assert len(set(here)) == 11
    assert len({tuple(map(tuple, batches._pass(k)[0])) for k in range(6)}) > 1


def test_a_batch_is_a_function_of_its_number(stored):
    _, shards = stored
    first = ShardBatches(shards, 4, 32, 5, window=1)
    wanted = [first.batch(k) for k in range(9)]
    again = ShardBatches(shards, 4, 32, 5, window=1)
    for k in (8, 2, 5, 2, 0):  # whatever the order
        for a, b in zip(again.batch(k), wanted[k], strict=True):
            assert torch.equal(a, b)
    other = ShardBatches(shards, 4, 32, 6, window=1)
    assert not torch.equal(other.batch(0)[0], wanted[0][0])
    assert wanted[0][0].shape == (4, 1, 32, 32) and wanted[0][1].unique().tolist() in ([0.0, 1.0], [0.0])


def test_two_windows_are_held_at_most_and_samples_are_those_of_batches(stored, monkeypatch):
    data, shards = stored
    held, loaded = [], []
    honest = module.Pixels

    class Counted(honest):
        def __init__(self, records, **options):
            super().__init__(records, **options)
            loaded.append(len(records))

    monkeypatch.setattr(module, "Pixels", Counted)
    batches = ShardBatches(shards, 2, (48, 64), 5, augment=False, window=1)
    whole = Batches(list(data), 1, (48, 64), 5, augment=False)
    truth = {r.id: whole._cut([k], [whole._place(k, 0)]) for k, r in enumerate(data)}
    seen = []
    for step in range(6):
        images, masks = batches.batch(step)
        held.append(len(set(batches._open.values())) + (batches._next is not None))
        for j in range(2):
            number, at, k = batches.locate(2 * step + j)
            id = shards.records(batches._pass(number)[0][at])[k].id
            seen.append(id)
            assert torch.equal(images[j], truth[id][0][0]) and torch.equal(masks[j], truth[id][1][0])
    assert max(held) == 2 and set(loaded) <= {2, 3}
    assert len(set(seen[:11])) == 11
    batches._next[1].result()
    assert batches._pass(1)[0][0] == batches._pass(0)[0][-1]  # and so it is not decoded again
    assert len(loaded) == 5  # four shards, and the second of the next pass ahead


def test_one_shard_is_decoded_once(make_pairs, tmp_path, monkeypatch):
    data = open_dataset(make_pairs(count=5))
    export_shards(data, tmp_path / "s", size=5)
    batches = ShardBatches(Shards(tmp_path / "s", read_index(tmp_path / "s")["shards"]), 2, 32, 5)
    decoded = []
    monkeypatch.setattr(
        batches, "_decode", lambda *key: decoded.append(key) or ShardBatches._decode(batches, *key)
    )
    for step in range(10):
        batches.batch(step)
    assert decoded == [(0, 0)]


def test_a_damaged_shard_ahead_is_told_when_its_turn_comes(stored):
    _, shards = stored
    batches = ShardBatches(shards, 1, 32, 5, window=1)
    order = batches._pass(0)[0]
    first = shards.rows[order[0][0]]["samples"]
    path = shards.root / shards.rows[order[1][0]]["name"]
    path.write_bytes(path.read_bytes()[:700])
    for step in range(first):
        batches.batch(step)
    with pytest.raises(IrstkitError, match=path.name):
        batches.batch(first)


def test_going_back_does_not_take_what_was_decoded_ahead(stored):
    _, shards = stored
    batches, other = (ShardBatches(shards, 1, 32, 5, window=1) for _ in range(2))
    wanted = [other.batch(k)[0] for k in range(11)]
    for step in (0, 7, 1, 10, 3, 9, 0):
        assert torch.equal(batches.batch(step)[0], wanted[step])


def test_a_share_of_real_images_is_spread_evenly(stored, make_pairs):
    _, shards = stored
    real = list(open_dataset(make_pairs(count=5, folder="real", seed=9)))
    batches = ShardBatches(shards, 4, 32, 5, real=real, real_share=0.25, augment=False)
    known = batches._real
    for step in range(10):
        images, _ = batches.batch(step)
        flat = [known.one(k, 0)[0][0] for k in range(5)]
        matches = [any(torch.equal(image, f) for f in flat) for image in images]
        assert matches == [False, False, False, True]
    assert len(batches) == 3


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"window": 0}, "at least 1 shard"),
        ({"real_share": 0.5}, "goes with 0 real images"),
        ({"real_share": 1.0}, "real share"),
    ],
)
def test_bad_options(stored, options, told):
    with pytest.raises(IrstkitError, match=told):
        ShardBatches(stored[1], 4, 32, **options)


def test_a_long_stream_has_short_epochs(tmp_path):
    rows = [
        {"name": f"train-{k:06d}.tar", "part": "train", "samples": 1000, "bytes": 1} for k in range(10_000)
    ]
    batches = ShardBatches(Shards(tmp_path, rows), 8, 32)
    assert len(batches) == 2500 and len(batches.shards) == 10_000_000
    places = [batches.locate(p) for p in range(0, 30_000_000, 999_983)]
    assert {n for n, _, _ in places} == {0, 1, 2}
    assert all(0 <= at < 5000 and 0 <= k < 2000 for _, at, k in places)
    assert np.unique([batches.locate(p)[1] for p in range(2000)]).tolist() == [0]


def test_several_exports_are_one_stream(make_pairs, tmp_path):
    for name in ("10", "9"):
        export_shards(
            open_dataset(make_pairs(count=5, folder=f"p{name}", seed=int(name))),
            tmp_path / "all" / name,
            size=2,
        )
    index = read_indexes(tmp_path / "all")
    assert [row["name"] for row in index["shards"]] == [
        f"{f}/all-{k:06d}.tar" for f in ("9", "10") for k in range(3)
    ]
    shards = Shards(tmp_path / "all", index["shards"])
    assert len(shards) == index["samples"] == 10
    batches = ShardBatches(shards, 2, 32, 1, window=4)  # ids repeat within a window
    for step in range(5):
        assert batches.batch(step)[0].shape == (2, 1, 32, 32)
    path = tmp_path / "all/9/index.json"
    path.write_text(path.read_text().replace('"scheme": null', '"scheme": "mine"'))
    with pytest.raises(IrstkitError, match="the split scheme is None, in 9/ it is 'mine'"):
        read_indexes(tmp_path / "all")
    with pytest.raises(IrstkitError, match="no folder with an"):
        read_indexes(tmp_path / "p9")
