"""Evaluation, prediction and benchmarks of a checkpoint: numbers, files and refusals."""

import json

import cv2
import numpy as np
import pytest
import torch

from irstkit.annotate.coco import read_coco
from irstkit.annotate.rle import decode_rle
from irstkit.datasets.readers import open_dataset
from irstkit.datasets.records import split_hash
from irstkit.train.checkpoint import load_checkpoint
from irstkit.train.models import build, count_parameters
from irstkit.train.predictor import Predictor


def evaluated(irstkit, *arguments):
    result = irstkit("train", "evaluate", *arguments, "--json", "--device", "cpu", "--threads", 1)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize("size", [(48, 64), (45, 61), (20, 33)], ids=str)
def test_numbers_are_those_of_the_network_at_native_size(size, irstkit, split_pairs, checkpoint):
    root, path = split_pairs(4, 3, size=size), checkpoint()
    out = evaluated(irstkit, path, "--data", root, "--split", "own/test")
    predictor = Predictor.load(path, device="cpu")
    tp = fp = fn = 0
    records = open_dataset(root).part("own/test")
    for record in records:
        mask = record.read_mask()
        found = predictor.probability(record.read_image()) > 0.5
        assert found.shape == mask.shape == size
        tp, fp, fn = tp + (found & mask).sum(), fp + (found & ~mask).sum(), fn + (~found & mask).sum()
    assert (out["tp"], out["fp"], out["fn"]) == (tp, fp, fn)
    assert out["iou"] == pytest.approx(tp / (tp + fp + fn))
    assert out["images"] == 3 and out["pixels"] == 3 * size[0] * size[1]
    for key in ("threshold", "distance", "matching", "connectivity", "split", "input", "weights"):
        assert key in out, "every result names what it depends on"
    assert out["split_hash"] == split_hash(r.id for r in records)


def test_padding_is_cropped_away_and_named(checkpoint):
    predictor = Predictor.load(checkpoint(), device="cpu")
    image = np.random.default_rng(0).integers(0, 255, (37, 50)).astype(np.uint8)
    padded = predictor.pad(image)
    assert padded.shape == (48, 64)
    np.testing.assert_allclose(padded[:37, :50], image / 255, rtol=1e-6)
    assert "reflect" in predictor.described()["padding"]
    with torch.inference_mode():
        logits = predictor.network.eval()(torch.from_numpy(padded)[None, None])
    np.testing.assert_array_equal(
        predictor.probability(image), torch.sigmoid(logits.double())[0, 0, :37, :50]
    )


def test_16_bit_images_are_divided_by_65535(checkpoint):
    predictor = Predictor.load(checkpoint(), device="cpu")
    image = np.random.default_rng(0).integers(0, 255, (32, 32)).astype(np.uint8)
    wide = image.astype(np.uint16) * 257
    np.testing.assert_allclose(predictor.probability(wide), predictor.probability(image), atol=1e-6)


def test_default_split_is_the_default_schemes_test(irstkit, split_pairs, checkpoint):
    out = evaluated(irstkit, checkpoint(), "--data", split_pairs(4, 3))
    assert out["split"] == "own/test" and out["images"] == 3


def test_options_reach_the_metrics(irstkit, split_pairs, checkpoint):
    root, path = split_pairs(3, 3), checkpoint()
    arguments = ("--threshold", 0.4, "--distance", 2, "--matching", "dnanet", "--connectivity", 4)
    out = evaluated(irstkit, path, "--data", root, *arguments)
    assert (out["threshold"], out["distance"], out["matching"], out["connectivity"]) == (0.4, 2, "dnanet", 4)


def test_training_images_in_a_test_are_said(irstkit, split_pairs, checkpoint):
    root = split_pairs(4, 3)
    ids = [r.id for r in open_dataset(root).part("own/test")]
    path = checkpoint(seen={root.name: ids[:2]})
    result = irstkit("train", "evaluate", path, "--data", root, "--device", "cpu")
    assert result.exit_code == 0 and "NOT A TEST: 2" in result.stdout
    assert evaluated(irstkit, path, "--data", root)["seen_in_training"] == 2


def write(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda c, d: d / "missing.pt", "no such file"),
        (lambda c, d: write(d / "t.pt", b"these are no weights\n"), "not a checkpoint"),
        (lambda c, d: write(d / "t.pt", b""), "not a checkpoint"),
        (lambda c, d: write(d / "t.pt", c().read_bytes()[:-900]), "truncated or damaged"),
        (lambda c, d: write(d / "t.pt", c().read_bytes()[:3000]), "truncated or damaged"),
        (lambda c, d: c(kind="something else"), "not a checkpoint of irstkit"),
        (lambda c, d: c(format=99), "format 99"),
        (lambda c, d: c(model={"name": "resnet", "options": {}, "state": {}}), "no model 'resnet'"),
        (lambda c, d: c(model={"name": "sd2net", "options": {"base": 4}, "state": {}}), "another network"),
        (
            lambda c, d: c(
                model={"name": "sd2net", "options": {}, "state": build("sd2net", base=4).state_dict()}
            ),
            "of another shape",
        ),
        (lambda c, d: (d / "empty").mkdir() or d / "empty", "best.pt"),
    ],
    ids=["missing", "text", "empty", "cut", "short", "kind", "format", "model", "weights", "width", "folder"],
)
def test_wrong_checkpoints_are_one_error(make, text, irstkit, split_pairs, checkpoint, tmp_path):
    path = make(checkpoint, tmp_path)
    root, out = split_pairs(2, 2), tmp_path / "out"
    for arguments in (("evaluate", path, "--data", root), ("predict", path, root, "--out", out)):
        result = irstkit("train", *arguments, "--device", "cpu")
        assert result.exit_code == 1 and text in result.output, result.output
        assert len(result.output.strip().splitlines()) == 1
    assert not out.exists()


def test_code_in_a_checkpoint_is_not_run(irstkit, split_pairs, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "pwned"), "w"))

    torch.save({"kind": "irstkit checkpoint", "x": Evil()}, tmp_path / "evil.pt")
    result = irstkit("train", "evaluate", tmp_path / "evil.pt", "--data", split_pairs(2, 2))
    assert result.exit_code == 1 and not (tmp_path / "pwned").exists()


def test_another_model_asked_for_is_refused(irstkit, split_pairs, checkpoint):
    result = irstkit("train", "evaluate", checkpoint(), "--data", split_pairs(2, 2), "--model", "dnanet")
    assert result.exit_code == 1 and "'sd2net', not of 'dnanet'" in result.output


def test_unknown_split_lists_them(irstkit, split_pairs, checkpoint):
    result = irstkit("train", "evaluate", checkpoint(), "--data", split_pairs(2, 2), "--split", "own/val")
    assert result.exit_code == 1 and "own/train, own/test" in result.output


def test_images_without_masks_cannot_be_scored(irstkit, checkpoint, tmp_path):
    (tmp_path / "bare").mkdir()
    cv2.imwrite(str(tmp_path / "bare" / "a.png"), np.zeros((32, 32), np.uint8))
    result = irstkit("train", "evaluate", checkpoint(), "--data", tmp_path / "bare")
    assert result.exit_code == 1 and "no mask" in result.output


@pytest.mark.parametrize("kind", ["data set", "folder", "file"])
def test_prediction_files_agree_with_each_other(kind, irstkit, split_pairs, checkpoint, tmp_path):
    root, out = split_pairs(3, 2, size=(37, 50)), tmp_path / "out"
    source = {"data set": root, "folder": root / "images", "file": root / "images" / "000001.png"}[kind]
    result = irstkit(
        "train", "predict", checkpoint(), source, "--out", out, "--probabilities", "--json", "--device", "cpu"
    )
    assert result.exit_code == 0, result.output
    coco = read_coco(out / "predictions.json")
    summary = json.loads(result.stdout)
    assert summary["images"] == len(coco["images"]) == (1 if kind == "file" else 5)
    assert summary["instances"] == len(coco["annotations"]) > 0
    for image in coco["images"]:
        name = image["file_name"]
        mask = cv2.imread(str(out / "masks" / name), cv2.IMREAD_UNCHANGED)
        probability = cv2.imread(str(out / "probabilities" / name), cv2.IMREAD_UNCHANGED)
        assert mask.shape == (37, 50) == (image["height"], image["width"]) and set(np.unique(mask)) <= {
            0,
            255,
        }
        assert probability.dtype == np.uint16
        union = np.zeros_like(mask, bool)
        for a in (a for a in coco["annotations"] if a["image_id"] == image["id"]):
            instance = decode_rle(a["segmentation"])
            assert a["area"] == instance.sum() and not (union & instance).any()
            assert a["score"] == pytest.approx(probability[instance].max() / 65535, abs=2e-5)
            x, y, w, h = a["bbox"]
            assert instance[y : y + h, x : x + w].sum() == instance.sum()
            union |= instance
        np.testing.assert_array_equal(union, mask > 0)
        overlay = cv2.imread(str(out / "overlays" / name))
        assert overlay.shape == (37 * 10, 50 * 10, 3)
        cyan = (overlay == (255, 200, 0)).all(axis=2).any()
        assert cyan == (kind == "data set"), "truth is drawn where it is known"
    again = irstkit("train", "predict", checkpoint(), source, "--out", out)
    assert again.exit_code == 1 and "not overwritten" in again.output


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda d: (d / "b.png").write_bytes(b"\x89PNG\r\n\x1a\nno"), "b.png"),
        (lambda d: (d / "b.png").write_text("text"), "b.png"),
        (lambda d: cv2.imwrite(str(d / "a.bmp"), np.zeros((32, 32), np.uint8)), "two images of one name"),
    ],
    ids=["truncated", "text", "twice"],
)
def test_bad_images_leave_nothing_behind(spoil, text, irstkit, checkpoint, tmp_path):
    path, folder = checkpoint(), tmp_path / "images"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), np.zeros((32, 32), np.uint8))
    spoil(folder)
    before = sorted(tmp_path.iterdir())
    result = irstkit("train", "predict", path, folder, "--out", tmp_path / "out", "--device", "cpu")
    assert result.exit_code == 1 and text in result.output, result.output
    assert sorted(tmp_path.iterdir()) == before


def test_bench_json(irstkit):
    result = irstkit("train", "bench", "sd2net", "--size", 48, "--option", "base=4", "--rounds", 1, "--json",
                     "--device", "cpu", "--threads", 1)  # fmt: skip
    assert result.exit_code == 0, result.output
    row = json.loads(result.stdout)
    assert row["parameters"] == 68_271 and row["threads"] == 1 and row["device"] == "cpu"
    assert row["macs"] > 0 and row["step_seconds"] > 0 and row["images_per_second"] > 0


def test_bench_of_several_and_of_one_that_trains_on_two(irstkit):
    result = irstkit(
        "train", "bench", "acm", "sd2net", "--size", 48, "--rounds", 1, "--json", "--device", "cpu"
    )
    assert result.exit_code == 0, result.output
    acm, sd2net = json.loads(result.stdout)
    assert (acm["batch"], acm["step_batch"]) == (1, 2) and sd2net["step_batch"] == 1
    assert sd2net["parameters"] == 269_819


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("nope",), "sd2net"),
        (("sd2net", "--size", 100), "multiples of 16"),
        (("eflnet", "--size", 100), "multiples of 32"),
    ],
    ids=["model", "size", "boxes"],
)
def test_bench_refuses(arguments, text, irstkit):
    result = irstkit("train", "bench", *arguments, "--rounds", 1, "--device", "cpu")
    assert result.exit_code == 1 and text in result.output


def test_bench_counts_deformable_convolutions_and_whole_clips():
    """The sheet's 50.755 G for DFAR at 544 and 11.69 G for EFLNet at 256, here by their shares at 64 pixels."""
    from irstkit.train.bench import bench

    detector = bench("dfar", 64, rounds=1, device="cpu", training=False)
    assert detector["macs"] == pytest.approx(50.754818048e9 * (64 / 544) ** 2, rel=2e-3)
    single = bench("eflnet", 64, rounds=1, device="cpu", training=False)
    assert single["macs"] == pytest.approx(11.69352832e9 / 16, rel=2e-3)


def test_help_of_every_command_teaches(irstkit):
    for command in ("fit", "evaluate", "predict", "bench"):
        result = irstkit("train", command, "--help")
        assert result.exit_code == 0 and "irstkit train " + command in result.output


def test_load_a_runs_folder(checkpoint, tmp_path):
    checkpoint("best.pt")
    assert load_checkpoint(tmp_path)["step"] == 7
    assert count_parameters(Predictor.load(tmp_path, device="cpu").network) == count_parameters(
        build("sd2net", base=3)
    )
