"""Sequences as data sets: exact by frame, documented, the same from any workers and after any interruption."""

import hashlib
import json

import numpy as np
import pytest
import yaml

from irstkit.annotate.errors import IrstkitError
from irstkit.annotate.files import read_image, read_mask
from irstkit.annotate.rle import rle_to_instance
from irstkit.annotate.scr import measure_contrast
from irstkit.datasets.clips import sequences_of
from irstkit.datasets.readers import open_dataset
from irstkit.synth.sequences import generate as module
from irstkit.synth.sequences import writer
from irstkit.synth.sequences.generate import generate

SMALL = {"size": (96, 80), "workers": 1}
SOME = ("sequence.platform.drift={value: 4}", "sequence.platform.pan={value: 0.4}")


def contents(root):
    return {
        p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in root.rglob("*")
        if p.is_file()
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Six sequences of twelve frames with all kinds of track."""
    root = tmp_path_factory.mktemp("sequences") / "set"
    totals = generate(root, 6, 12, 4, preset="mirsdt", splits={"train": 0.5, "test": 0.5}, **SMALL)
    return root, totals


def test_scr_on_every_written_frame_is_what_the_attributes_say(made):
    root, totals = made
    coco = json.loads((root / "annotations.json").read_text())
    by_image = {entry["id"]: [] for entry in coco["images"]}
    for annotation in coco["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    statuses = []
    for entry in coco["images"]:
        image, mask = (
            read_image(root / entry["file_name"]),
            read_mask(root / entry["file_name"].replace("images", "masks")),
        )
        assert image.shape == (80, 96)
        found = by_image[entry["id"]]
        instances = [rle_to_instance(a["segmentation"]) for a in found]
        painted = np.zeros_like(mask)
        for i in instances:
            x1, y1, x2, y2 = i.box
            painted[y1:y2, x1:x2] |= i.mask
        assert (painted == mask).all()
        for a, contrast in zip(found, measure_contrast(image, instances, mask=mask), strict=True):
            known = a["attributes"]
            statuses.append(known["scr_status"])
            assert known["scr_achieved"] == pytest.approx(abs(contrast.scr), abs=1e-6)
            if known["scr_status"] == "ok":
                assert abs(known["scr_achieved"] / known["scr_requested"] - 1) <= 0.05
    assert len(statuses) == totals["targets"] > 50
    assert statuses.count("ok") > 0.8 * len(statuses)


def test_it_is_read_back_as_sequences(made):
    root, totals = made
    data = open_dataset(root)
    assert not data.findings
    frames, findings = sequences_of(list(data))
    assert [f.name for f in frames] == ["0001", "0002", "0003", "0004", "0005", "0006"] and not findings
    assert all(f.numbers == tuple(range(12)) for f in frames)
    lines = [json.loads(line) for line in (root / "manifest.jsonl").read_text().splitlines()]
    for sequence, line in zip(frames, lines, strict=True):
        parts = {r.splits["synth"] for r in sequence.records}
        assert parts == {line["split"].removeprefix("synth/")}  # a sequence lies in one part
        known = {t["track_id"] for t in line["tracks"]}
        assert all(set(r.track_ids) <= known for r in sequence.records)
        assert len(line["platform"]) == 12 and line["background_id"]
    assert len({line["background_id"] for line in lines}) == 6
    assert totals["frames"] == len(data) == 72


def test_same_bytes_from_workers_interruption_and_continuation(tmp_path, monkeypatch):
    arguments = {"preset": "mirsdt", "size": (64, 64), "overrides": SOME}
    monkeypatch.setattr(writer, "BLOCK", 4)
    one, two, killed, grown = (tmp_path / n for n in ("one", "two", "killed", "grown"))
    generate(one, 3, 10, 1, workers=1, **arguments)
    expected = contents(one)
    generate(two, 3, 10, 1, workers=2, **arguments)
    assert contents(two) == expected
    generate(two, 3, 10, 1, workers=1, **arguments)  # nothing to do
    (two / "images/0002/000003.png").unlink()  # a lost frame comes back
    generate(two, 3, 10, 1, workers=1, **arguments)
    assert contents(two) == expected
    calls = {"n": 0}
    honest = module.write_frame

    def failing(*given):
        calls["n"] += 1
        if calls["n"] in (7, 15):
            raise KeyboardInterrupt
        return honest(*given)

    monkeypatch.setattr(module, "write_frame", failing)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            generate(killed, 3, 10, 1, workers=1, **arguments)
    generate(killed, 3, 10, 1, workers=1, **arguments)
    assert calls["n"] < 7 + 15 + 30  # whole parts were trusted
    assert contents(killed) == expected
    generate(grown, 2, 10, 1, workers=1, **arguments)
    generate(grown, 3, 10, 1, workers=1, **arguments)  # a larger number continues
    assert contents(grown) == expected
    for change, told in (
        ({"seed": 2}, "seed differ"),
        ({"frames": 11}, "frames differ"),
        ({"sequences": 2}, "3 sequences, 2 were asked for"),
        ({"size": (64, 72)}, "size differ"),
        ({"overrides": ()}, "preset differ"),
    ):
        with pytest.raises(IrstkitError, match=told):
            generate(
                **{"out": grown, "sequences": 3, "frames": 10, "seed": 1, "workers": 1, **arguments, **change}
            )
        assert contents(grown) == expected
    assert yaml.safe_load((one / "synth.yaml").read_text())["frames"] == 10
