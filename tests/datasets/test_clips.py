"""Clips: the border rules as tables, sequences never mixed, gaps reported, bad labels refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irstkit.annotate.errors import IrstkitError
from irstkit.datasets.clips import BORDERS, Clips, sequences_of, window_positions
from irstkit.datasets.records import Record

# frame numbers, key position, window, key index: positions by rule
TABLE = [
    (range(9), 4, 5, 2, {"target": [2, 3, 4, 5, 6], "clamp": [2, 3, 4, 5, 6], "reflect": [2, 3, 4, 5, 6]}),
    (range(9), 0, 5, 2, {"target": [0, 0, 0, 1, 2], "clamp": [0, 0, 0, 1, 2], "reflect": [2, 1, 0, 1, 2]}),
    (range(9), 1, 5, 2, {"target": [1, 0, 1, 2, 3], "clamp": [0, 0, 1, 2, 3], "reflect": [1, 0, 1, 2, 3]}),
    (range(9), 8, 5, 2, {"target": [6, 7, 8, 8, 8], "clamp": [6, 7, 8, 8, 8], "reflect": [6, 7, 8, 7, 6]}),
    (range(9), 7, 5, 2, {"target": [5, 6, 7, 8, 7], "clamp": [5, 6, 7, 8, 8], "reflect": [5, 6, 7, 8, 7]}),
    (range(9), 1, 5, 4, {"target": [1, 1, 1, 0, 1], "clamp": [0, 0, 0, 0, 1], "reflect": [3, 2, 1, 0, 1]}),
    ([7], 0, 5, 2, {"target": [0] * 5, "clamp": [0] * 5, "reflect": [0] * 5}),
    ([3, 4], 0, 5, 2, {"target": [0, 0, 0, 1, 0], "clamp": [0, 0, 0, 1, 1], "reflect": [0, 1, 0, 1, 0]}),
    # frame 3 is missing: seen from 2 it lies ahead, seen from 4 behind
    (
        [0, 1, 2, 4, 5],
        2,
        5,
        2,
        {"target": [0, 1, 2, 2, 3], "clamp": [0, 1, 2, 2, 3], "reflect": [0, 1, 2, 2, 3]},
    ),
    ([0, 1, 2, 4, 5], 3, 3, 1, {"target": [3, 3, 4], "clamp": [3, 3, 4], "reflect": [3, 3, 4]}),
]


@pytest.mark.parametrize("rule", BORDERS)
@pytest.mark.parametrize("row", TABLE, ids=lambda r: f"{list(r[0])}@{r[1]}")
def test_positions(row, rule):
    numbers, position, window, key, expected = row
    assert window_positions(numbers, position, window, key, rule) == expected[rule]


@given(
    st.sets(st.integers(0, 30), min_size=1),
    st.integers(1, 7),
    st.sampled_from(BORDERS),
    st.data(),
)
def test_laws_of_windows(numbers, window, rule, data):
    numbers = sorted(numbers)
    position = data.draw(st.integers(0, len(numbers) - 1))
    key = data.draw(st.integers(0, window - 1))
    places = window_positions(numbers, position, window, key, rule)
    assert len(places) == window and places[key] == position
    assert all(0 <= p < len(numbers) for p in places)
    for offset, place in enumerate(places):
        wanted = numbers[position] + offset - key
        if wanted in numbers:
            assert numbers[place] == wanted  # what is there is never replaced


@pytest.mark.parametrize(
    ("key", "rule", "message"), [(5, "clamp", "key frame"), (0, "zeros", "target, clamp")]
)
def test_wrong_windows_are_refused(key, rule, message):
    with pytest.raises(ValueError, match=message):
        window_positions(range(3), 0, 5, key, rule)


def make_records(root: Path, layout, size=(12, 16)):
    records = []
    for name, numbers in layout.items():
        for n in numbers:
            path = root / f"{name}_{n}.png"
            cv2.imwrite(str(path), np.full(size, 10 * len(records) % 256, np.uint8))
            box = np.array([[1.0, 2, 4, 5]])
            records.append(Record(f"{name}/{n}", path, boxes=box, size=size, sequence=name, frame=n))
    return records


def test_sequences_are_never_mixed_and_frames_are_decoded_once(tmp_path, monkeypatch):
    records = make_records(tmp_path, {"b": [10, 9, 8], "a": [0, 1]})
    read = []
    original = Record.read_image
    monkeypatch.setattr(Record, "read_image", lambda self: read.append(self.id) or original(self))
    clips = Clips(records, 5, 2, "clamp")
    assert [r.id for r in clips.records] == ["b/8", "b/9", "b/10", "a/0", "a/1"]
    assert clips.windows.tolist() == [
        [0, 0, 0, 1, 2],
        [0, 0, 1, 2, 2],
        [0, 1, 2, 2, 2],
        [3, 3, 3, 4, 4],
        [3, 3, 4, 4, 4],
    ]
    for k in range(len(clips)):
        clips.clip(k)
    assert sorted(read) == sorted(r.id for r in records) and clips.clip(0).shape == (5, 12, 16)


def test_missing_frames_are_reported_not_repaired_in_silence(tmp_path, capsys):
    clips = Clips(make_records(tmp_path, {"a": [0, 1, 4, 5]}), 3, 1)
    assert clips.findings[0].kind == "frames_missing" and "2 frames missing (2, 3)" in capsys.readouterr().err
    assert clips.windows[1].tolist() == [0, 1, 1]


def test_bad_sequences_are_refused(tmp_path):
    twice = make_records(tmp_path, {"a": [0, 1]})
    with pytest.raises(IrstkitError, match="frame 0 of the sequence 'a' is there twice"):
        sequences_of([twice[0], twice[0]])
    with pytest.raises(IrstkitError, match=r"two sizes: 16x12 .*, 8x8"):
        other = make_records(tmp_path, {"a": [2]}, size=(8, 8))
        sequences_of([*twice, *other])
    with pytest.raises(IrstkitError, match="belongs to no sequence"):
        sequences_of([Record("x", tmp_path / "x.png", size=(4, 4))])


def test_boxes_of_zero_size_and_missing_labels_are_refused(tmp_path):
    record = make_records(tmp_path, {"a": [0]})[0]
    flat = Record("a/0", record.image, boxes=np.array([[1.0, 2, 1, 5]]), size=(12, 16), sequence="a", frame=0)
    with pytest.raises(IrstkitError, match="box 0 has zero size"):
        Clips([flat], 3, 1)
    bare = Record("a/0", record.image, size=(12, 16), sequence="a", frame=0)
    with pytest.raises(IrstkitError, match="neither boxes nor a mask"):
        Clips([bare], 3, 1)
    assert len(Clips([bare], 3, 1, labelled=False)) == 1


@given(st.sets(st.integers(0, 30), min_size=1), st.integers(1, 7), st.data())
def test_still_clips_are_the_key_frame_alone(numbers, window, data):
    position = data.draw(st.integers(0, len(numbers) - 1))
    key = data.draw(st.integers(0, window - 1))
    assert window_positions(sorted(numbers), position, window, key, "still") == [position] * window


def test_a_draw_of_key_frames_keeps_the_others_as_neighbours(tmp_path, capsys):
    """Half of the frames are key frames; the clips are those of the whole sequences."""
    records = make_records(tmp_path, {"a": range(8), "b": range(4)})
    whole = Clips(records, 5, 2, "clamp")
    drawn = [records[k] for k in (9, 1, 2, 6)]
    other = make_records(tmp_path / "..", {"c": []})
    bare = [
        dataclasses.replace(r, boxes=None) for r in records if r not in drawn
    ]  # labels of others are not read
    clips = Clips(drawn, 5, 2, "clamp", context=[*bare, *drawn, *other])
    assert len(clips) == 4 and [r.id for r in clips.records[:4]] == ["b/1", "a/1", "a/2", "a/6"]
    assert len(clips.boxes) == 4 and len(clips.images) == len(clips.records) == len(
        set(clips.windows.ravel())
    )
    for k, record in enumerate(clips.records[:4]):
        np.testing.assert_array_equal(clips.clip(k), whole.clip(records.index(record)))
    assert not clips.findings and "missing" not in capsys.readouterr().err
