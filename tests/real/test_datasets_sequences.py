"""Published lists and samples of SIRST-V2, DAUB and IRDST, as they lie."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from irstkit.annotate.boxes import mask_to_boxes
from irstkit.datasets.readers import open_dataset


def test_daub_lists(shared_data):
    data = open_dataset(shared_data("DAUB"))
    assert data.layout == "daub-sstnet" and len({r.sequence for r in data}) == 17
    assert data.schemes() == {"sstnet": {"train": 8982, "test": 4795}}
    assert all(r.boxes is not None and len(r.boxes) == 1 for r in data)
    frames = Counter(r.sequence for r in data)
    assert (frames["data5"], frames["data16"], frames["data12"], frames["data8"]) == (3000, 293, 1500, 399)
    by_sequence: dict[str, list[int]] = {}
    for r in data:
        by_sequence.setdefault(r.sequence or "", []).append(r.frame if r.frame is not None else -1)
    assert all(numbers == list(range(len(numbers))) for numbers in by_sequence.values())
    sides = Counter(tuple(r.boxes[0, 2:] - r.boxes[0, :2]) for r in data if r.boxes is not None)
    assert sides[(8.0, 8.0)] == 8979 + 4794


def test_irdst_lists(shared_data):
    data = open_dataset(shared_data("IRDST"))
    assert data.layout == "irdst-sstnet"
    assert data.schemes() == {"sstnet": {"train": 20398, "test": 20258}}
    for part, sequences, boxes, doubles in (("train", 42, 21038, 640), ("test", 43, 20763, 505)):
        records = data.part(part, check=False)
        assert len({r.sequence for r in records}) == sequences
        counts = [len(r.boxes) for r in records if r.boxes is not None]
        assert sum(counts) == boxes and counts.count(2) == doubles
    leaving = {r.split("/")[0] for r in (f.record or "" for f in data.findings if f.kind.startswith("box-"))}
    assert leaving == {"6", "24", "33", "61", "62", "64"}


def test_irdst_example(shared_data):
    data = open_dataset(shared_data("IRDST") / "example")
    assert (data.layout, len(data), data[0].size) == ("irdst", 3, (480, 720))
    assert [(r.sequence, r.frame) for r in data] == [("1", 1), ("1", 2), ("1", 3)]
    assert len(data.part("test")) == 3


def test_sirst_v2_boxes_are_those_of_the_masks(shared_data):
    data = open_dataset(shared_data("SIRST-V2-sample"))
    assert (data.layout, len(data)) == ("sirst-v2", 125)
    kinds = Counter(f.kind for f in data.findings)
    assert kinds["object-without-box"] == 114 and kinds["wrong-frame"] == 1 and sum(kinds.values()) == 115
    compared = 0
    for record in data:
        if record.boxes is None:
            assert record.id == "Misc_111"
            continue
        truth = mask_to_boxes(record.read_mask())
        assert sorted(map(tuple, record.boxes.tolist())) == sorted(map(tuple, truth.tolist())), record.id
        compared += len(truth)
    assert compared >= 10
    assert len(data.part("all")) == 125  # nothing among it is an error


@pytest.mark.parametrize("layout", ["daub"])
def test_daub_frames_as_released(shared_data, layout):
    data = open_dataset(shared_data("DAUB"), layout)
    assert [r.id for r in data] == [f"data1/{n}" for n in range(10)]
    assert data[0].size == (256, 256) and data[0].boxes is None
    assert np.asarray(data[0].read_image()).dtype == np.uint8
