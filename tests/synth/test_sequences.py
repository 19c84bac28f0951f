"""Sequences as data sets: exact by frame, documented, the same from any workers and after any interruption."""

import hashlib
import json

import numpy as np
import pytest
import yaml
from PIL import Image

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


# ------------------------------------------------------------------------------------- published lists


def lists(folder):
    """DAUB's lists, cut: a training and a test sequence, one box cut by the border, frames out of order."""
    rows = {
        "train": ["train/data5/10.bmp 30,40,38,48,0", "train/data5/2.bmp 0,12,5,20,0", "train/data5/3.bmp 29,41,37,49,0"],
        "val": ["test/data6/0.bmp 50,20,58,28,0 80,60,86,66,0", "test/data6/1.bmp", "test/data6/2.bmp 52,20,60,28,0"],
    }  # fmt: skip
    for part, lines in rows.items():
        (folder / f"coco_{part}_DAUB.txt").write_text(
            "".join(f"/home/public/DAUB/images/{x}\n" for x in lines)
        )
    return [folder / "coco_train_DAUB.txt", folder / "coco_val_DAUB.txt"]


def test_frames_for_published_lists_have_their_names_sizes_and_boxes(tmp_path):
    paths, out = lists(tmp_path), tmp_path / "set"
    totals = generate(out, onto=paths, preset="daub", workers=1)
    assert (totals["sequences"], totals["frames"], totals["targets"], totals["empty_frames"]) == (2, 6, 6, 1)
    given = open_dataset(tmp_path, layout="daub-sstnet")  # the lists alone
    beside = open_dataset(out, layout="daub-sstnet")  # the frames beside their lists
    own = open_dataset(out)
    assert own.layout == "irstkit" and not [
        f for d in (beside, own) for f in d.findings if f.severity == "error"
    ]
    assert [r.id for r in beside] == [r.id for r in given] == ["train/data5/2", "train/data5/3", "train/data5/10",
                                                               "test/data6/0", "test/data6/1", "test/data6/2"]  # fmt: skip
    by_image = {r.image: r for r in own}
    for wanted, listed in zip(given, beside, strict=True):
        record = by_image[listed.image]
        assert record.image.suffix == ".bmp" and record.size == (256, 256) == wanted.size
        assert np.array_equal(listed.boxes, wanted.boxes)
        assert sorted(record.boxes.tolist()) == sorted(wanted.boxes.tolist())
        assert (record.sequence, record.frame) == (wanted.sequence, wanted.frame)
        assert record.splits["synth"] == wanted.splits["sstnet"]
    assert [r.track_ids for r in own if r.sequence == "data6"] == [(1, 2), None, (3,)]  # away: a new one
    coco = tmp_path / "DAUB_instances_train2017.json"
    images = [
        {"id": k + 1, "file_name": f"images/train/data5/{k}.png", "width": 96, "height": 80} for k in range(2)
    ]
    boxes = [{"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "bbox": [9, 7, 11, 5], "area": 55}]
    coco.write_text(
        json.dumps({"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "target"}]})
    )
    generate(tmp_path / "coco", onto=[coco], preset="irdst", workers=1)
    own = open_dataset(tmp_path / "coco")
    assert [r.id for r in own] == ["images/train/data5/0", "images/train/data5/1"]
    assert own[0].size == (80, 96) and own[0].boxes.tolist() == [[9, 7, 20, 12]] and not len(own[1].boxes)


@pytest.mark.parametrize(
    ("text", "extra", "told"),
    [
        ("images/data5/0.bmp 5,5,13,13,0\nimages/data5/1.bmp 5,5,x,13,0\n", (), "line 2"),
        ("images/data5/0.bmp 5,5,5,13,0\n", (), "line 1"),
        ("images/data5/0.jpg 5,5,13,13,0\n", (), "would be written with loss"),
        ("images/data5/../../../x/0.bmp 5,5,13,13,0\n", (), "cannot be the name of a frame"),
        ("images/data5/first.bmp 5,5,13,13,0\n", (), "belongs to no sequence"),
        ("images/0.bmp 5,5,13,13,0\n", (), "belongs to no sequence"),
        ("images/data5/0.bmp 5,5,13,13,0\n", ("--splits", "train=1"), "those of their lists"),
        ("images/data5/0.bmp 5,5,13,13,0\nimages/data5/0.png 5,5,13,13,0\n", (), "stands twice"),
        ("images/data5/0.bmp 5,5,300,13,0\n", ("--size", "96x80"), "reach 300x13 in frames of 96x80"),
        ("images/data5/0.bmp -9,5,-1,13,0\n", (), "lies outside its frames"),
        ("images/data5/0.bmp 1005,5,1013,13,0\n", (), "boxes of the sequence 'data5' reach"),
        ("", (), None),
    ],
)
def test_bad_lists_are_one_clear_error_and_leave_nothing(tmp_path, irstkit, text, extra, told):
    path = tmp_path / "coco_train_DAUB.txt"
    path.write_text(text)
    result = irstkit("synth", "sequences", "--out", tmp_path / "set", "--onto", path, *extra)
    assert result.exit_code == 1 and result.stderr.count("\n") <= 2
    assert told is None or told in result.stderr
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--preset", "nothing"], 1, "there are: daub, irdst, mirsdt, nudt"),
        (["--set", "sequence.platform.jiter={value: 1}"], 1, "sequence.platform.jiter: no such key"),
        (["--set", "sequence.platform.drift={value: -1}"], 1, "must lie in [0, 500]"),
        (["--set", "sequence.trajectories={spiral: 1}"], 1, "sequence.trajectories"),
        (["--set", "sequence.trajectories={hover: 0}"], 1, "not all 0"),
        (["--set", "sequence.exposure={value: 2}"], 1, "sequence.exposure"),
        (["--set", "negatives.count={value: 2}"], 1, "are for single images"),
        (["--set", "copies.count=2"], 1, "are for single images"),
        (["--size", "720"], 2, "expected WIDTHxHEIGHT"),
        (["--size", "20x480"], 2, "from 48 to 8192"),
        (["--frames", "0"], 2, "--frames"),
        (["--sequences", "10000"], 2, "--sequences"),
        (["--splits", "train=0.5,val"], 2, "expected NAME=SHARE"),
        (["--onto", "missing.txt"], 1, "no such file"),
        (["--onto", __file__], 1, "expected SSTNet's lists, a COCO file"),
        (["--backgrounds", "missing"], 1, "no such folder"),
        (["--backgrounds", "procedural", "--backgrounds", "."], 1, "cannot be mixed"),
        (["--preview", "2"], 2, ".png or .gif"),
    ],
)
def test_bad_options(tmp_path, irstkit, arguments, code, told):
    result = irstkit("synth", "sequences", "--out", tmp_path / "set", *arguments)
    assert result.exit_code == code and told in result.stderr
    assert not (tmp_path / "set").exists()


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/a.txt").write_text("x")
    with pytest.raises(IrstkitError, match="not empty"):
        generate(tmp_path / "mine", 1, 2, preset="daub", **SMALL)
    from irstkit.synth.generate import generate as images

    images(tmp_path / "images", 2, 1, size=64, workers=1)
    before = contents(tmp_path / "images")
    with pytest.raises(IrstkitError, match="another recipe"):
        generate(tmp_path / "images", 2, 2, 1, preset="daub", **SMALL)
    assert contents(tmp_path / "images") == before


def test_an_edited_set_is_not_continued(tmp_path):
    generate(tmp_path / "set", 1, 3, preset="daub", **SMALL)
    path = tmp_path / "set/annotations.json"
    path.write_text(json.dumps(json.loads(path.read_text())))
    before = contents(tmp_path / "set")
    with pytest.raises(IrstkitError, match="not as they were written"):
        generate(tmp_path / "set", 2, 3, preset="daub", **SMALL)
    assert {k: v for k, v in contents(tmp_path / "set").items() if "parts" not in k} == before


def test_presets_for_images_serve_too_and_all_are_listed(tmp_path, irstkit):
    for name in ("nudt", "real"):  # real: lumpy spots, glow, edge enhancement, JPEG
        totals = generate(
            tmp_path / name, 1, 4, preset=name, size=(128, 128), workers=1,
            overrides=["scenes.all.count={value: 2}"],
        )  # fmt: skip
        assert totals["frames"] == 4 and sum(totals["status"].values()) == totals["targets"] > 0
    listed = irstkit("synth", "presets").stdout
    assert all(f"{name} " in listed for name in ("daub", "irdst", "mirsdt", "nudt", "real"))
    shown = irstkit("synth", "presets", "mirsdt").stdout
    (tmp_path / "mine.yaml").write_text(shown)
    assert generate(tmp_path / "mine", 1, 2, preset=tmp_path / "mine.yaml", **SMALL)["frames"] == 2


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_preview_writes_the_picture_and_nothing_else(tmp_path, irstkit, suffix):
    out = tmp_path / f"look.{suffix}"
    result = irstkit("synth", "sequences", "--out", out, "--preview", 2, "--size", "64x48", "--frames", 7)
    assert result.exit_code == 0, result.stderr
    assert [p.name for p in tmp_path.iterdir()] == [out.name]
    with Image.open(out) as picture:
        if suffix == "png":
            assert picture.size == (6 * 66, 2 * 50)
        else:
            assert picture.n_frames == 7 and picture.size == (2 * 66, 50)


def test_sixteen_bit_sequences(tmp_path):
    generate(tmp_path / "set", 1, 3, preset="mirsdt", depth=16, **SMALL)
    data = open_dataset(tmp_path / "set")
    assert {r.bit_depth for r in data} == {16}
    for target in (t for r in data for t in r.attributes["targets"]):
        assert (
            target["scr_status"] != "ok" or abs(target["scr_achieved"] / target["scr_requested"] - 1) <= 0.01
        )
