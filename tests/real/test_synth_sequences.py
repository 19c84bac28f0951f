"""Frames for the published lists of DAUB and IRDST: what the readers say of them beside the lists."""

from __future__ import annotations

import numpy as np
import pytest

from irstkit.datasets.readers import open_dataset
from irstkit.synth.sequences.generate import generate
from irstkit.synth.sequences.listing import read_listed


@pytest.mark.parametrize(("name", "layout"), [("DAUB", "daub-sstnet"), ("IRDST", "irdst-sstnet")])
def test_frames_stand_where_the_lists_say(shared_data, tmp_path, name, layout):
    root = shared_data(name)
    out = tmp_path / "set"
    preset = {"DAUB": "daub", "IRDST": "irdst"}[name]
    still = ["sequence.platform={drift: {value: 2}}"]  # a small background: quickly drawn
    totals = generate(out, 1, 2, 1, preset=preset, onto=[root], workers=1, overrides=still)
    assert (totals["sequences"], totals["frames"]) == (2, 4)
    beside, own = open_dataset(out, layout=layout), open_dataset(out)
    assert not [f for d in (beside, own) for f in d.findings if f.severity == "error"]
    given = {r.id: r for r in open_dataset(root, layout=layout)}
    by_image = {r.image: r for r in own}
    for record in beside:
        wanted = given[record.id]
        assert record.size == wanted.size and np.array_equal(record.boxes, wanted.boxes)
        assert np.array_equal(np.sort(by_image[record.image].boxes, axis=0), np.sort(wanted.boxes, axis=0))
        assert by_image[record.image].splits["synth"] == wanted.splits["sstnet"]


def test_every_listed_box_is_in_a_track(shared_data):
    for name, sequences, tracks in (("DAUB", 17, 17), ("IRDST", 85, None)):
        listed = read_listed([shared_data(name)])
        assert len(listed) == sequences
        for s in listed:
            assert sum(len(t) for t in s.tracks) == sum(len(b) for b in s.boxes)
        if tracks:
            assert sum(len(s.tracks) for s in listed) == tracks
    assert {s.name for s in listed if s.size == (742, 992)} >= {"1", "2", "3", "4"}
