"""Detectors and clip networks behind the commands: fit, resume, evaluate, predict; tracks."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest
import torch

from irstkit.annotate.errors import IrstkitError
from irstkit.annotate.files import write_json
from irstkit.datasets.readers import open_dataset
from irstkit.train import loop
from irstkit.train.box_predictor import BoxPredictor, suppress
from irstkit.train.checkpoint import load_checkpoint, save_checkpoint, weights_hash
from irstkit.train.evaluate_boxes import labelled_boxes, open_boxes
from irstkit.train.material import compose
from irstkit.train.metrics_shooting import ShootingMeter
from irstkit.train.models.eflnet import EFLNet
from irstkit.train.predict_boxes import in_sequence
from irstkit.train.settings import settings_from
from irstkit.train.sources import open_source
from irstkit.train.tracks import Tracker

SIZE = (32, 40)


MODELS = {
    "dfar": {"radius": 1, "afs": False, "agdf": False},
    "eflnet": {"width": 0.125, "blocks": 1},
    "std2net": {"window": 3, "base": 4, "features": 4},
}


def options(name):
    return [a for k, v in MODELS[name].items() for a in ("--option", f"{k}={json.dumps(v)}")]


@pytest.fixture(scope="module")
def runs(sequences, tmp_path_factory):
    """A run of two steps of each network, by its command."""
    from click.testing import CliRunner

    from irstkit.cli import cli

    out = tmp_path_factory.mktemp("runs")
    for name in MODELS:
        arguments = [
            "train",
            "fit",
            name,
            "--synthetic",
            sequences,
            "--out",
            out / name,
            "--steps",
            2,
            "--crop",
            32,
        ]
        if name == "dfar":  # its best recipe has stages, for which two steps are too few
            arguments += ["--recipe", "paper"]
        arguments += ["--batch", 2, "--threads", 1, "--device", "cpu", *options(name)]
        result = CliRunner().invoke(cli, [str(a) for a in arguments])
        assert result.exit_code == 0, result.output
    return out


@pytest.mark.parametrize("name", MODELS)
def test_fit_leaves_a_run(runs, name):
    run = json.loads((runs / name / "run.json").read_text())
    assert (
        run["status"] == "finished" and run["data"]["images"] == 5 and run["best"]["metrics"]["images"] == 5
    )
    assert run["selection"].startswith("largest " + ("IoU" if name == "std2net" else "AP50"))
    assert "val_ap50" in (runs / name / "log.csv").read_text()


@pytest.mark.parametrize("name", MODELS)
def test_evaluate_gives_one_kind_of_table(irstkit, runs, sequences, name):
    extra = ("--boxes",) if name == "std2net" else ()
    result = irstkit(
        "train", "evaluate", runs / name, "--data", sequences, "--json", "--device", "cpu", *extra
    )
    assert result.exit_code == 0, result.stderr
    numbers = json.loads(result.stdout)
    assert numbers["frames"] == 5 and numbers["targets"] == 5 and numbers["split"] == "own/test"
    assert {"ap50", "operating", "centre", "published", "sequences"} <= set(numbers)
    assert numbers["sequences"][0]["sequence"] == "0002" and numbers["seen_in_training"] == 0
    text = irstkit("train", "evaluate", runs / name, "--data", sequences, "--device", "cpu", *extra).stdout
    assert "AP50" in text and "hash" in text


def test_a_clip_segmenter_is_scored_by_masks_too(irstkit, runs, sequences):
    result = irstkit("train", "evaluate", runs / "std2net", "--data", sequences, "--json", "--device", "cpu")
    numbers = json.loads(result.stdout)
    assert (
        numbers["images"] == 5 and numbers["input"]["window"] == 3 and numbers["input"]["border"] == "clamp"
    )


@pytest.mark.parametrize("name", MODELS)
def test_predict_on_a_data_set_and_on_a_folder_of_frames(irstkit, runs, sequences, tmp_path, name):
    for k, source in enumerate((sequences, sequences / "images" / "0002")):
        out = tmp_path / str(k)
        result = irstkit(
            "train",
            "predict",
            runs / name,
            source,
            "--out",
            out,
            "--threshold",
            0,
            "--device",
            "cpu",
            "--json",
        )
        assert result.exit_code == 0, result.stderr
        coco = json.loads((out / "predictions.json").read_text())
        assert len(coco["images"]) == (15 if k == 0 else 5)
        assert len(list((out / "overlays").rglob("*.png"))) == len(coco["images"])
        assert all(0 <= a["score"] <= 1 for a in coco["annotations"])
        if name != "std2net" and (k == 0 or name == "dfar"):
            assert all(a["track_id"] >= 1 for a in coco["annotations"])


@pytest.mark.parametrize("chosen", [0.125, None], ids=["chosen", "none was chosen"])
def test_predict_takes_the_score_that_the_run_chose(irstkit, runs, sequences, tmp_path, chosen):
    """A detector's scores are on a scale of their own: 0.5 may well find nothing."""
    content = load_checkpoint(runs / "dfar")
    save_checkpoint(tmp_path / "x.pt", {**content, "metrics": {"chosen_score": chosen}})
    images = sequences / "images" / "0002"
    out = tmp_path / "a"
    told = ("train", "predict", tmp_path / "x.pt", images, "--device", "cpu", "--out", out, "--json")
    result = irstkit(*told)
    assert result.exit_code == 0 and json.loads(result.stdout)["score"] == (chosen or 0.5), result.output


def test_predict_on_a_video(irstkit, runs, tmp_path):
    video = tmp_path / "flight.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 10, (40, 32))
    for n in range(4):
        writer.write(np.full((32, 40, 3), 50 + n, np.uint8))
    writer.release()
    out = tmp_path / "out"
    result = irstkit(
        "train", "predict", runs / "dfar", video, "--out", out, "--threshold", 0, "--device", "cpu"
    )
    assert result.exit_code == 0, result.stderr
    coco = json.loads((out / "predictions.json").read_text())
    assert [i["file_name"] for i in coco["images"]][:2] == ["flight/000000.png", "flight/000001.png"]
    assert cv2.VideoCapture(str(out / "videos" / "flight.mp4")).get(cv2.CAP_PROP_FPS) == 10
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    result = irstkit("train", "predict", runs / "dfar", broken, "--out", tmp_path / "no", "--device", "cpu")
    assert result.exit_code == 1 and "broken.mp4" in result.stderr and not (tmp_path / "no").exists()


@pytest.mark.parametrize("name", ["dfar", "eflnet"])
def test_resumed_is_uninterrupted(sequences, tmp_path, name):
    material = compose(None, sequences, masks=False)
    chosen = MODELS[name] | ({"afs": True} if name == "dfar" else {})
    settings = settings_from(
        {"model": name, "options": chosen, "crop": 32, "batch": 2, "steps": 4, "clip": 10.0,
         **({"mosaic": 0.5, "scale": [0.7, 1.5]} if name == "eflnet" else {})}
    )  # fmt: skip
    loop.fit(settings, material, tmp_path / "whole", device="cpu")
    loop.fit(settings, material, tmp_path / "parts", device="cpu", max_steps=1)
    torch.rand(3)
    loop.fit(settings, material, tmp_path / "parts", device="cpu", resume=True)
    states = [load_checkpoint(tmp_path / n / "last.pt")["model"]["state"] for n in ("whole", "parts")]
    assert weights_hash(states[0]) == weights_hash(states[1])


def test_all_frames_without_target_train(sequences, tmp_path):
    """A set whose images are all empty: background only, finite."""
    coco = json.loads((sequences / "annotations.json").read_text())
    root = tmp_path / "empty"
    for i in coco["images"]:
        for kind in ("images", "masks"):
            path = root / kind / i["file_name"].removeprefix("images/")
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), np.full(SIZE, 90 if kind == "images" else 0, np.uint8))
    write_json(root / "annotations.json", {**coco, "annotations": []})
    for name in ("dfar", "eflnet"):
        settings = settings_from({"model": name, "options": MODELS[name], "crop": 32, "batch": 2, "steps": 2})
        report = loop.fit(settings, compose(None, root, masks=False), tmp_path / name, device="cpu")
        assert report["status"] == "finished" and report["best"]["metrics"]["ap50"] is None


def test_clips_need_sequences(irstkit, make_pairs, tmp_path):
    result = irstkit(
        "train", "fit", "dfar", "--real", make_pairs(4), "--steps", 9, "--out", tmp_path / "r", "--crop", 32
    )
    assert (
        result.exit_code == 1 and "belongs to no sequence" in result.stderr and not (tmp_path / "r").exists()
    )


def test_suppression_drops_doubles_padding_and_weak_ones():
    boxes = torch.tensor(
        [
            [10.0, 10, 18, 18],
            [11, 10, 19, 18],
            [30, 10, 34, 14],
            [50, 10, 58, 18],
            [36, 10, 44, 18],
            [1, 1, 1, 5],
        ]
    )
    scores = torch.tensor([0.8, 0.9, 0.0001, 0.7, 0.6, 0.9])
    found, kept = suppress(boxes, scores, (32, 40), floor=0.001, nms=0.5, limit=10)
    assert found.tolist() == [[11, 10, 19, 18], [36, 10, 40, 18]] and kept == pytest.approx([0.9, 0.6])
    assert len(suppress(boxes, scores, (32, 40), floor=0.001, nms=0.5, limit=1)[0]) == 1


def test_images_without_sequence_are_one_only_where_they_can_be(sequences):
    from irstkit.train.predict import gather

    records, _ = gather(sequences / "images" / "0000")
    taken = in_sequence(records, "folder/0000")
    assert [(r.sequence, r.frame) for r in taken][:2] == [("0000", 0), ("0000", 1)]
    import dataclasses

    with pytest.raises(IrstkitError, match="2 sizes"):
        in_sequence([records[0], dataclasses.replace(records[1], size=(4, 4))], "folder")


def test_a_network_of_masks_is_no_box_predictor():
    with pytest.raises(IrstkitError, match="predicts masks"):
        BoxPredictor(torch.nn.Identity())
    assert BoxPredictor(EFLNet(width=0.125, blocks=0)).described()["nms_iou"] == 0.65


def test_tracks_cross_pause_and_end():
    tracker = Tracker(gate=4, patience=2)
    ids = []
    for n in range(12):
        boxes = [[10 + 3 * n, 10, 14 + 3 * n, 14], [43 - 3 * n, 12, 47 - 3 * n, 16]]  # they cross at n = 5
        if n in (7, 8):
            boxes = boxes[:1]  # the second is lost for two frames
        ids.append(tracker.update(boxes, n).tolist())
    assert all(i == ([1] if n in (7, 8) else [1, 2]) for n, i in enumerate(ids))
    assert tracker.update([[200, 200, 204, 204]], 12).tolist() == [3]
    assert tracker.update([], 13).tolist() == []
    assert tracker.update([[200, 200, 204, 204]], 30).tolist() == [4]  # long gone


def test_detectors_segmenters_and_files_stand_in_one_table(irstkit, runs, sequences, tmp_path):
    theirs = tmp_path / "theirs.json"
    truth = json.loads((sequences / "annotations.json").read_text())
    results = [
        {"image_id": i["file_name"].removesuffix(".png").removeprefix("images/"), "category_id": 1,
         "bbox": [v + 0.25 for v in a["bbox"][:2]] + a["bbox"][2:], "score": 0.9}
        for i, a in zip(truth["images"], truth["annotations"], strict=True)
    ]  # fmt: skip
    theirs.write_text(json.dumps(results))
    out = tmp_path / "table"
    paths = [runs / "dfar", runs / "eflnet", runs / "std2net", theirs]
    result = irstkit("train", "evaluate", *paths, "--data", sequences, "--device", "cpu", "--out", out)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert [x.split(" | ")[0].lstrip("| ") for x in lines[2:6]] == [
        "dfar",
        "eflnet",
        "std2net",
        "theirs.json",
    ]
    content = json.loads((out / "results.json").read_text())
    assert [r["kind"] for r in content["runs"]] == ["boxes", "boxes", "masks", "boxes"]
    perfect = content["runs"][3]
    assert (
        perfect["ap50"] == pytest.approx(1)
        and perfect["operating"]["f1"] == 1
        and perfect["centre"]["pd"] == 1
    )
    assert perfect["ap"] < 1, "boxes of files are scored as written, not painted into pixels"
    assert content["runs"][2]["masks"]["iou"] is not None and content["runs"][0]["masks"] is None
    alone = irstkit("train", "evaluate", runs / "std2net", "--data", sequences, "--device", "cpu", "--json")
    masks = json.loads(alone.stdout)
    assert content["runs"][2]["masks"] == {k: masks[k] for k in ("iou", "niou", "pd", "fa")}
    assert content["runs"][0]["score_from"] == "largest F1 on the run's validation part" or (
        content["runs"][0]["score_from"].startswith("default")
    )
    rows = (out / "table.csv").read_text().splitlines()
    assert rows[0].startswith("run,kind,score,score_from,ap50") and len(rows) == 5
    assert (out / "sequences.csv").read_text().count("0002") == 4
    assert (out / "pr.png").read_bytes().startswith(b"\x89PNG") and "theirs.json" in (
        out / "pr.csv"
    ).read_text()
    again = irstkit("train", "evaluate", *paths, "--data", sequences, "--device", "cpu", "--out", out)
    assert again.exit_code == 1 and "not overwritten" in again.stderr


def test_a_score_is_chosen_on_another_split_for_whatever_predicts(irstkit, runs, sequences):
    for name in ("dfar", "std2net"):
        arguments = ("--data", sequences, "--boxes", "--device", "cpu", "--json")
        if name == "std2net":  # two steps of training: its components are cut low to be there at all
            arguments += ("--threshold", "0.001")
        result = irstkit("train", "evaluate", runs / name, *arguments, "--choose-on", "own/train")
        if result.exit_code == 1:
            assert "no hit on own/train" in result.stderr
            continue
        numbers = json.loads(result.stdout)
        assert numbers["score_from"] == "largest F1 on own/train" and numbers["split"] == "own/test"
    result = irstkit("train", "evaluate", runs / "dfar", *arguments, "--choose-on", "own/test")
    assert result.exit_code == 1 and "no score is chosen on what is scored" in result.stderr


def test_the_published_protocol_by_name(irstkit, runs, sequences):
    arguments = ("--data", sequences, "--device", "cpu", "--protocol", "sstnet")
    result = irstkit("train", "evaluate", runs / "dfar", *arguments)
    assert result.exit_code == 0 and "mAP50" in result.stdout and "cost nothing" in result.stdout
    result = irstkit("train", "evaluate", runs / "dfar", runs / "eflnet", *arguments)
    assert "| run | predicts | mAP50 | Pr | Re | F1 |" in result.stdout and "cost nothing" in result.stdout


@pytest.mark.parametrize(
    ("command", "more", "status", "words"),
    [
        ("evaluate", ("--roc", "--boxes"), 2, "--roc is for the masks"),
        ("evaluate", ("--bootstrap", 10, "--boxes"), 2, "--bootstrap is for the masks"),
        ("evaluate", ("--protocol", "sstnet"), 2, "--protocol is for boxes"),
        ("evaluate", ("--out", "x"), 2, "--out is for boxes"),
        ("compare", ("--out", "x"), 1, "is a network of boxes"),
    ],
)
def test_options_of_the_other_kind_are_refused(irstkit, runs, sequences, command, more, status, words):
    name = "dfar" if command == "compare" else "std2net"
    result = irstkit("train", command, runs / name, "--data", sequences, *more)
    assert result.exit_code == status and words in result.stderr


@pytest.mark.parametrize("name", ["dfar", "std2net"])
def test_evaluate_with_still_clips(irstkit, runs, sequences, name):
    """What a network sees when the key frame stands for all its neighbours: other scores, by the rule that is named."""
    told = ("train", "evaluate", runs / name, "--data", sequences, "--boxes", "--json", "--device", "cpu")
    rules = [json.loads(irstkit(*told, *m).stdout)["input"]["border"] for m in ((), ("--border", "still"))]
    assert rules == [{"dfar": "target", "std2net": "clamp"}[name], "still"]
    records, _ = labelled_boxes(open_dataset(sequences), "own/test")
    scores = []
    for border in (None, "still"):
        source = open_boxes(runs / name, records, border=border, threshold=0.3)
        if name == "dfar":
            source.predictor.floor = 0.0  # hardly trained: all scores are tiny
        scores.append(np.concatenate([found[1] for _, found in source.stream(records)]))
    assert len(scores[1]) and not np.array_equal(*scores), "the neighbours move"


def test_a_border_rule_is_for_networks_of_clips(irstkit, runs, sequences, tmp_path):
    (tmp_path / "theirs").mkdir()
    for path, words in ((runs / "eflnet", "sees single images"), (tmp_path / "theirs", "no network")):
        result = irstkit("train", "evaluate", path, "--data", sequences, "--border", "still")
        assert result.exit_code == 1 and words in result.stderr, result.stderr


@pytest.mark.parametrize("name", MODELS)
def test_sweep(irstkit, sequences, tmp_path, name):
    """A clip network draws its key frames; their neighbours are always there."""
    out, other = tmp_path / "sweep", shutil.copytree(sequences, tmp_path / "other")
    result = irstkit(
        "train", "sweep", name, "--real", sequences, "--synthetic", other, "--total", 4,
        "--fractions", "0,real", "--seeds", 1, "--steps", 1, "--crop", 32, "--batch", 2, "--threads", 1,
        "--device", "cpu", "--out", out, "--json", *options(name), *(["--recipe", "paper"] if name == "dfar" else []),
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["complete"] and [r["images"] for r in report["runs"]] == [5, 5]
    key = "iou" if name == "std2net" else "ap50"
    assert key in report["table"][0] and "frames missing" not in result.stderr
    head = (out / "sweep.md").read_text().splitlines()[0]
    assert ("IoU %" if name == "std2net" else "AP50 %") in head
    assert (out / "sweep.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", MODELS)
def test_bench_and_export(irstkit, runs, tmp_path, name):
    result = irstkit("train", "bench", name, "--size", 64, "--rounds", 1, "--json", "--threads", 1,
                     "--device", "cpu", *options(name))  # fmt: skip
    assert result.exit_code == 0, result.stderr
    row = json.loads(result.stdout)
    assert row["macs"] > 0 and row["step_seconds"] > 0
    out = tmp_path / "net.onnx"
    result = irstkit("train", "export", runs / name, "--out", out, "--size", 64, 32, "--json")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["outputs"].keys() == ({"logits"} if name == "std2net" else {"boxes", "scores"})
    assert out.stat().st_size == told["bytes"]


def test_a_frames_number_alone_names_no_image(irstkit, sequences, tmp_path):
    """Every sequence has a frame 000000: predictions named so are not given to one of them in silence."""
    boxes = tmp_path / "theirs.json"
    found = [{"image_id": f"{k:06d}", "category_id": 1, "bbox": [1, 1, 2, 2], "score": 1} for k in range(5)]
    boxes.write_text(json.dumps(found))
    result = irstkit("train", "evaluate", boxes, "--data", sequences, "--split", "all", "--boxes")
    assert result.exit_code == 1 and "no image_id is of this data set" in result.stderr
    maps = tmp_path / "maps"
    maps.mkdir()
    for k in range(5):
        cv2.imwrite(str(maps / f"{k:06d}.png"), np.zeros(SIZE, np.uint8))
    result = irstkit("train", "evaluate", maps, "--data", sequences, "--split", "all", "--boxes")
    assert result.exit_code == 1 and "one prediction for two images" in result.stderr
    assert irstkit("train", "evaluate", maps, "--data", sequences, "--boxes").exit_code == 0


def test_two_sets_with_sequences_of_one_name_are_never_mixed(sequences, tmp_path):
    material = compose(sequences, shutil.copytree(sequences, tmp_path / "other"), masks=False)
    names = [r.sequence for r in material.train]
    assert {n.split("/")[0] for n in names} == {"real", "synthetic"} and len(set(names)) == 3
    assert all(names.count(n) == 5 for n in names)


def test_the_shooting_rules_by_name(irstkit, runs, sequences):
    arguments = ("train", "evaluate", runs / "std2net", "--data", sequences, "--device", "cpu", "--shooting")
    result = irstkit(*arguments, "--json", "--threshold", 0.3)
    assert result.exit_code == 0, result.stderr
    numbers = json.loads(result.stdout)["shooting"]
    meter = ShootingMeter()
    records = open_dataset(sequences).part("own/test")
    source = open_source(runs / "std2net", records, device="cpu")
    for r in records:
        meter.update(source.map(r), r.read_mask())
    exact = meter.compute(0.3)
    assert {k: numbers[k] for k in ("hits", "targets", "false_pixels")} == {
        k: exact[k] for k in ("hits", "targets", "false_pixels")
    }
    assert numbers["auc"] == pytest.approx(exact["auc"], abs=2e-3)
    assert "shooting" in irstkit(*arguments).stdout
