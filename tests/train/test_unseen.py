"""``evaluate --unseen``: what is left out, that the rest is scored as it is, and what cannot be told."""

import json
import shutil

import numpy as np
import pytest

from irstkit.datasets.readers import open_dataset
from irstkit.train.checkpoint import load_checkpoint, save_checkpoint, streamed_sets
from irstkit.train.evaluate_boxes import open_boxes
from irstkit.train.sources import open_source

SMALL = ("--option", "base=3", "--crop", 32, "--batch", 2, "--threads", 1, "--device", "cpu", "--steps", 2)

OPTIONS = {
    "dfar": ("radius=1", "afs=false", "agdf=false"),
    "eflnet": ("width=0.125", "blocks=1"),
    "std2net": ("window=3", "base=4", "features=4"),
}


def fit(irstkit, out, *more, model="sd2net"):
    result = irstkit("train", "fit", model, "--out", out, *more)
    assert result.exit_code == 0, result.output
    return out


def evaluate(irstkit, *arguments):
    result = irstkit("train", "evaluate", *arguments, "--json", "--device", "cpu", "--threads", 1)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout), result.stderr


def without(root, ids, out):
    """A copy of a data set without the images ``ids``; its folder has the same name."""
    out = out / root.name
    shutil.copytree(root, out)
    for name in ids:
        for file in [*(out / "images").glob(f"{name}.*"), *(out / "masks").glob(f"{name}.*")]:
            file.unlink()
    for part in (out / "splits" / "own").iterdir():
        part.write_text("".join(f"{x}\n" for x in part.read_text().split() if x not in ids))
    return out


@pytest.fixture
def partly(irstkit, split_pairs, tmp_path):
    """A run on three of eight training images, with one more for validation; the set, and the ids it knows."""
    root = split_pairs(8, 3)
    run = fit(irstkit, tmp_path / "run", "--real", root, "--total", 3, *SMALL)
    seen = load_checkpoint(run)["seen"]["pairs"]
    assert len(seen) == 4
    return root, run, seen


@pytest.mark.parametrize("boxes", [(), ("--boxes",)], ids=["masks", "boxes"])
def test_the_numbers_are_those_of_a_set_without_these_images(irstkit, partly, tmp_path, boxes):
    root, run, seen = partly
    found, said = evaluate(irstkit, run, "--data", root, "--split", "train", "--unseen", *boxes)
    assert (
        found["unseen"] == {"left_out": 4, "of": 8, "of_seen_sequences": 0} and found["seen_in_training"] == 0
    )
    assert "4 of 8 images left out, trained or selected on" in said and "flatter" not in said
    assert found["frames" if boxes else "images"] == 4
    copy = without(root, seen, tmp_path / "copy")
    wanted, _ = evaluate(irstkit, run, "--data", copy, "--split", "train", *boxes)
    ignored = {"unseen", "seconds_predicting", "seconds"}
    assert {k: v for k, v in found.items() if k not in ignored} == {
        k: v for k, v in wanted.items() if k not in ignored
    }
    flattered, said = evaluate(irstkit, run, "--data", root, "--split", "train", *boxes)
    assert flattered["seen_in_training"] == 4 and "unseen" not in flattered and "flatter" in said
    text = irstkit("train", "evaluate", run, "--data", root, "--split", "train", "--unseen", *boxes)
    assert "unseen: 4 of 8 images left out" in text.stdout and "NOT A TEST" not in text.stdout


def test_what_the_start_has_seen_is_left_out_too(irstkit, partly, tmp_path):
    root, run, seen = partly
    (root / "splits" / "other").mkdir()
    for part, names in (("train", seen[:2]), ("test", ["000008"])):
        (root / "splits" / "other" / f"{part}.txt").write_text("".join(f"{x}\n" for x in names))
    lists = ("--real", root, "--real-split", "other/train")
    tuned = fit(irstkit, tmp_path / "tuned", *lists, "--init", run, *SMALL)
    found, _ = evaluate(irstkit, tuned, "--data", root, "--split", "own/train", "--unseen")
    assert found["unseen"]["left_out"] == 4


def test_a_test_list_is_scored_whole(irstkit, partly):
    root, run, _ = partly
    found, said = evaluate(irstkit, run, "--data", root, "--unseen")
    plain, _ = evaluate(irstkit, run, "--data", root)
    assert found.pop("unseen")["left_out"] == 0 and "0 of 3 images left out" in said
    assert {**found, "seconds_predicting": 0} == {**plain, "seconds_predicting": 0}


def test_a_set_that_was_renamed_is_not_known_and_said_to_be(irstkit, partly):
    root, run, _ = partly
    other = root.rename(root.with_name("other"))
    found, said = evaluate(irstkit, run, "--data", other, "--split", "train", "--unseen")
    assert found["unseen"]["left_out"] == 0
    assert f"{run} remembers no image of 'other', but of pairs: sets are told apart" in said


def test_several_networks_leave_out_what_any_has_seen(irstkit, partly, tmp_path):
    root, run, seen = partly
    more = fit(irstkit, tmp_path / "more", "--real", root, "--total", 4, *SMALL)
    union = {*seen, *load_checkpoint(more)["seen"]["pairs"]}
    result = irstkit(
        "train", "evaluate", run, more, "--data", root, "--split", "train", "--unseen", "--out", tmp_path / "t", "--json"
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["runs"]
    assert [r["unseen"] for r in rows] == 2 * [{"left_out": len(union), "of": 8, "of_seen_sequences": 0}]
    assert {r["split_hash"] for r in rows} == {rows[0]["split_hash"]} and rows[0]["frames"] == 8 - len(union)
    assert f"unseen: {len(union)} of 8 images left out" in (tmp_path / "t" / "table.md").read_text()


@pytest.mark.parametrize(
    ("predictions", "more", "told"),
    [
        ("run", (), "nothing is left of own/train: all 8 images were trained or selected on"),
        ("run", ("--boxes",), "nothing is left of own/train: all 8 images were trained or selected on"),
        ("maps", (), "maps: files, not a checkpoint: what was trained on is not known here"),
        ("run maps", (), "maps: files, not a checkpoint"),
        ("found.json", (), "found.json: files, not a checkpoint"),
        ("found.json", ("--boxes",), "found.json: files, not a checkpoint"),
    ],
)
def test_refused(irstkit, split_pairs, tmp_path, predictions, more, told):
    root = split_pairs(8, 3)
    fit(irstkit, tmp_path / "run", "--real", root, *SMALL)
    shutil.copytree(root / "masks", tmp_path / "maps")
    (tmp_path / "found.json").write_text("[]")
    named = [tmp_path / name for name in predictions.split()]
    result = irstkit("train", "evaluate", *named, "--data", root, "--split", "train", "--unseen", *more)
    assert result.exit_code == 1 and told in result.stderr and result.stdout == "", result.output


def test_streams_are_not_remembered(irstkit, split_pairs, tmp_path):
    """Neither by the run itself nor by one that starts from it; real images beside a stream are."""
    root, other = split_pairs(8, 3), split_pairs(10, 0, folder="other", seed=4)
    irstkit("data", "export", other, "--to", "webdataset", "--out", tmp_path / "shards")
    stream = ("--real", root, "--real-fraction", 0.5, "--synthetic", tmp_path / "shards", "--stream")
    run = fit(irstkit, tmp_path / "run", *stream, *SMALL)
    tuned = fit(irstkit, tmp_path / "tuned", "--real", root, "--init", run, *SMALL)
    again = fit(irstkit, tmp_path / "again", "--real", root, "--init", tuned, *SMALL)
    irstkit("train", "fit", "sd2net", "--resume", "--out", again)
    for one in (run, tuned, again):
        assert load_checkpoint(one / "last.pt")["streamed"] == ["shards"]
        result = irstkit(
            "train", "evaluate", one, "--data", tmp_path / "shards", "--split", "all", "--unseen"
        )
        assert result.exit_code == 1, result.output
        assert "was trained on a stream of 'shards', whose ids are not remembered" in result.stderr
        left = irstkit("train", "evaluate", one, "--data", root, "--unseen", "--json")
        assert json.loads(left.stdout)["unseen"]["left_out"] == 0
    for one in (run, tuned):  # of before streams were remembered
        content = load_checkpoint(one)
        del content["streamed"]
        assert streamed_sets(content) == {"shards"}
        save_checkpoint(one / "best.pt", content)


@pytest.mark.parametrize(
    ("name", "border"), [("dfar", ()), ("std2net", ()), ("std2net", ("--boxes",)), ("eflnet", ())]
)
def test_frames_keep_their_neighbours(irstkit, sequences, tmp_path, name, border):
    """Frames that are left out are still looked at by a network of clips: every prediction is as without --unseen."""
    more = (
        "--recipe",
        "paper",
        "--total",
        3,
        "--crop",
        32,
        "--batch",
        2,
        "--steps",
        2,
        "--threads",
        1,
        "--device",
        "cpu",
    )
    options = [word for one in OPTIONS[name] for word in ("--option", one)]
    run = fit(irstkit, tmp_path / "run", "--real", sequences, *more, *options, model=name)
    seen = set(load_checkpoint(run)["seen"][sequences.name])
    data = open_dataset(sequences)
    records = data.part("own/train")
    left = [r for r in records if r.id not in seen]
    assert len(left) == 2, "three are trained on, a sequence of five is for validation"
    found, said = evaluate(irstkit, run, "--data", sequences, "--split", "train", "--unseen", *border)
    assert found["unseen"] == {"left_out": 8, "of": 10, "of_seen_sequences": 2}
    assert "8 of 10 images left out" in said and "2 of the others are of the same sequences" in said
    beside = [r for r in records if r.id in seen]
    if name == "std2net":
        whole, part = open_source(run, records), open_source(run, left, context=beside)
        maps = {r.id: whole.map(r) for r in left}
        for record in left:
            assert (maps[record.id] == part.map(record)).all()
        if not border:
            middle = float(np.median(np.stack(list(maps.values()))))
            found, _ = evaluate(
                irstkit, run, "--data", sequences, "--split", "train", "--unseen", "--threshold", middle
            )
            assert found["tp"] + found["fp"] == sum(int((m > middle).sum()) for m in maps.values())
    else:
        whole, part = open_boxes(run, records), open_boxes(run, left, context=beside)
        for source in (whole, part):
            source.predictor.floor = 0.0  # after two steps all scores are small
        wanted = {r.id: d for r, d in whole.stream(records)}
        got = list(part.stream(left))
        assert [r.id for r, _ in got] == [r.id for r in left]
        for record, detections in got:
            assert len(detections.boxes)
            assert (detections.boxes == wanted[record.id].boxes).all()
            assert (detections.scores == wanted[record.id].scores).all()
