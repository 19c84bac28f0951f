"""Anyone's predictions: masks, maps and COCO files give the numbers of the arrays they hold."""

import json
import threading

import cv2
import numpy as np
import pytest
import torch

from irstkit.annotate.errors import IrstkitError
from irstkit.annotate.files import write_png
from irstkit.annotate.rle import encode_mask
from irstkit.datasets.readers import open_dataset
from irstkit.train.embed import deepest_layer
from irstkit.train.evaluate import LEVELS, from_ranks, score, staircase, to_ranks
from irstkit.train.metrics import SegmentationMeter, Settings
from irstkit.train.metrics_roc import PixelRocMeter, merge_target_rocs, target_roc
from irstkit.train.predictor import Predictor
from irstkit.train.sources import FileSource, NetworkSource


@pytest.fixture
def data(split_pairs):
    """A data set, its test records, and probabilities for them: truth blurred, with noise."""
    root = split_pairs(3, 4)
    records = open_dataset(root).part("own/test")
    rng = np.random.default_rng(5)
    maps = {}
    for record in records:
        soft = cv2.GaussianBlur(record.read_mask().astype(np.float32), (0, 0), 1.2) * 1.6
        maps[record.id] = np.clip(soft + rng.random(record.size) ** 12 * 0.9, 0, 1).astype(np.float32)
    return root, records, maps


def expected(records, maps, **settings):
    meter = SegmentationMeter(**settings)
    for record in records:
        meter.update(maps[record.id], record.read_mask(), id=record.id)
    return meter.compute()


def evaluated(irstkit, *arguments):
    result = irstkit("train", "evaluate", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def same(found, wanted):
    assert {k: found[k] for k in wanted} == wanted


@pytest.mark.parametrize("name", ["{id}", "{id}_Pred", "{id}-mask"])
def test_masks_by_name(name, data, irstkit, tmp_path):
    root, records, maps = data
    for record in records:
        write_png(
            tmp_path / "p" / f"{name.format(id=record.id)}.png",
            (maps[record.id] > 0.5).astype(np.uint8) * 255,
        )
    same(evaluated(irstkit, tmp_path / "p", "--data", root), expected(records, maps))


@pytest.mark.parametrize("high", [1, 255])
def test_masks_of_0_and_1_or_255(high, data, irstkit, tmp_path):
    root, records, maps = data
    for record in records:
        write_png(tmp_path / "p" / f"{record.id}.png", (maps[record.id] > 0.5).astype(np.uint8) * high)
    found = evaluated(irstkit, tmp_path / "p", "--data", root)
    same(found, expected(records, maps))
    assert found["input"]["files"] == "mask maps"


@pytest.mark.parametrize("bits", [8, 16, "npy", "npz"])
def test_probability_maps(bits, data, irstkit, tmp_path):
    root, records, maps = data
    (tmp_path / "p").mkdir()
    for record in records:
        top = {8: 255, 16: 65535}.get(bits)
        if top:
            stored = np.rint(maps[record.id] * top).astype(np.uint8 if bits == 8 else np.uint16)
            write_png(tmp_path / "p" / f"{record.id}.png", stored)
            maps[record.id] = stored / np.float32(top)
        elif bits == "npy":
            np.save(tmp_path / "p" / f"{record.id}.npy", maps[record.id][None])
        else:
            np.savez(tmp_path / "p" / f"{record.id}.npz", map=maps[record.id])
    found = evaluated(irstkit, tmp_path / "p", "--data", root, "--threshold", 0.3)
    same(found, expected(records, maps, threshold=0.3))
    assert found["input"]["files"] == "probability maps"


@pytest.mark.parametrize("form", ["document", "results"])
def test_coco_with_masks(form, data, irstkit, tmp_path):
    root, records, maps = data
    images, annotations = [], []
    for k, record in enumerate(records, start=1):
        images.append({"id": k, "file_name": f"images/{record.id}.png"})
        mask = maps[record.id] > 0.5
        image_id = k if form == "document" else record.id
        annotations.append(
            {"image_id": image_id, "category_id": 1, "segmentation": encode_mask(mask), "score": 0.8}
        )
    content = {"images": images, "annotations": annotations} if form == "document" else annotations
    (tmp_path / "c.json").write_text(json.dumps(content))
    same(evaluated(irstkit, tmp_path / "c.json", "--data", root), expected(records, maps))
    assert evaluated(irstkit, tmp_path / "c.json", "--data", root, "--threshold", 0.9)["tp"] == 0


def test_coco_boxes_are_painted_and_counted(data, irstkit, tmp_path):
    root, records, _ = data
    boxes = [
        {"image_id": r.id, "bbox": [float(x1), float(y1), float(x2 - x1), float(y2 - y1)], "score": 0.9}
        for r in records
        for x1, y1, x2, y2 in r.read_boxes()
    ]
    (tmp_path / "c.json").write_text(json.dumps(boxes))
    found = evaluated(irstkit, tmp_path / "c.json", "--data", root)
    assert found["pd"] == 1 and found["fa"] == 0 and found["iou"] == 1, "the targets of this set are squares"
    assert found["input"]["boxes_filled"] == len(boxes)


def test_predictions_of_predict_score_as_the_checkpoint(checkpoint, data, irstkit, tmp_path):
    root, *_ = data
    path, out = checkpoint(), tmp_path / "p"
    assert irstkit("train", "predict", path, root, "--out", out, "--device", "cpu").exit_code == 0
    network = evaluated(irstkit, path, "--data", root, "--device", "cpu")
    keys = ("iou", "niou", "pd", "fa", "tp", "fp", "fn", "false_components")
    for source in (out, out / "predictions.json"):
        found = evaluated(irstkit, source, "--data", root)
        assert {k: found[k] for k in keys} == {k: network[k] for k in keys}


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda p, ids: (p / f"{ids[0]}.png").unlink(), "no prediction for 1 of 4"),
        (lambda p, ids: (p / f"{ids[0]}.png").write_bytes(b"no"), "not an image"),
        (lambda p, ids: write_png(p / f"{ids[0]}.png", np.zeros((9, 9), np.uint8)), "9x9"),
        (lambda p, ids: np.save(p / f"{ids[0]}.npy", np.zeros(3)), "two predictions"),
    ],
    ids=["missing", "text", "size", "twice"],
)
def test_wrong_folders_are_one_error(spoil, text, data, irstkit, tmp_path):
    root, records, maps = data
    for record in records:
        write_png(tmp_path / "p" / f"{record.id}.png", (maps[record.id] > 0.5).astype(np.uint8) * 255)
    spoil(tmp_path / "p", [r.id for r in records])
    result = irstkit("train", "evaluate", tmp_path / "p", "--data", root)
    assert result.exit_code == 1 and text in result.output, result.output


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("{", "JSON"),
        ('{"a": 1}', "neither"),
        ('[{"score": 1}]', "$[0]"),
        ('[{"image_id": "nope", "bbox": [0, 0, 1, 1]}]', "no image_id is of this data set"),
        ('[{"image_id": "ID", "bbox": [0, 0, 1, 1], "score": 7}]', "not a probability"),
        ('[{"image_id": "ID", "score": 0.5}]', "bbox"),
        ('[{"image_id": "ID", "segmentation": {"size": [9, 9], "counts": [81]}}]', "RLE"),
        ('{"images": [], "annotations": []}', "not in its images"),
    ],
)
def test_wrong_coco_files_are_one_error(content, text, data, irstkit, tmp_path):
    root, records, _ = data
    (tmp_path / "c.json").write_text(content.replace("ID", records[0].id))
    result = irstkit("train", "evaluate", tmp_path / "c.json", "--data", root)
    assert result.exit_code == 1 and text in result.output, result.output


def test_curves_are_exact_at_their_thresholds(data):
    _, records, maps = data

    class Held:
        name, about, seen = "held", {}, {}

        def map(self, record):
            return maps[record.id]

        def described(self):
            return {}

    scores = score(Held(), records, curves=True)
    exact = merge_target_rocs(target_roc(maps[r.id], r.read_mask()) for r in records)
    for k in range(0, len(scores.target.thresholds), 37):
        t = float(scores.target.thresholds[k])
        if t in LEVELS or t == 1.0:
            assert exact.at(t) == (scores.target.detected[k], scores.target.false_pixels[k])
    fine = PixelRocMeter("exact")
    for r in records:
        fine.update(maps[r.id], r.read_mask())
    assert scores.pixel.auc == pytest.approx(fine.compute().auc, abs=2e-3)
    rows = staircase(scores.target)
    assert [r[1] for r in rows] == sorted({r[1] for r in rows}) and rows[-1][1] == scores.target.pd.max()


def test_ranks_keep_every_comparison_with_a_level():
    assert (np.diff(LEVELS) > 0).all()
    rng = np.random.default_rng(0)
    p = np.concatenate([[0, 1, 0.5], LEVELS[::97], rng.random(200), rng.random(50) ** 20]).astype(np.float32)
    ranks = to_ranks(p)
    for k in range(0, len(LEVELS), 31):
        np.testing.assert_array_equal(ranks > k, p.astype(np.float64) > LEVELS[k])
        assert from_ranks(np.array([k / len(LEVELS)]))[0] == LEVELS[k]


def test_workers_change_no_number(data, tmp_path):
    _, records, maps = data
    for record in records:
        write_png(tmp_path / "p" / f"{record.id}.png", np.rint(maps[record.id] * 255).astype(np.uint8))
    source = FileSource(tmp_path / "p", records)
    results = [score(source, records, Settings(), workers=w).meter.compute() for w in (1, 2, 5)]
    assert results[0] == results[1] == results[2]


def test_other_distances_are_those_of_runs_of_their_own(data, irstkit, tmp_path):
    root, records, _ = data
    for record in records:
        moved = np.roll(record.read_mask(), 2, axis=1)  # centroids 2 px off: a hit below 3, none below 2
        write_png(tmp_path / "p" / f"{record.id}.png", moved.astype(np.uint8) * 255)
    arguments = (tmp_path / "p", "--data", root)
    found = evaluated(irstkit, *arguments, "--distances", "2,2.5,4")["by_distance"]
    assert list(found) == ["2", "2.5", "4"] and found["2"]["pd"] < found["2.5"]["pd"]
    for distance, numbers in found.items():
        alone = evaluated(irstkit, *arguments, "--distance", distance)
        assert numbers == {k: alone[k] for k in numbers}
    assert "below 2.5 px" in irstkit("train", "evaluate", *arguments, "--distances", "2.5").stdout
    refused = irstkit("train", "evaluate", *arguments, "--distances", "2,x")
    assert refused.exit_code == 2 and "such as 2,3,4" in refused.output


class OnlyMaps:
    """A network's maps without its device sums: the way of predictions from files."""

    def __init__(self, source):
        self.name, self.about, self.seen, self.described = "maps", {}, {}, source.described
        self.map = source.map


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_sums_on_the_device_are_those_of_the_maps(data, checkpoint, workers):
    _, records, _ = data
    source = NetworkSource(Predictor.load(checkpoint(), device="cpu"))
    got = score(source, records, curves=True, keep=True, workers=workers)
    expected = score(OnlyMaps(source), records, curves=True, keep=True, workers=2)
    assert got.meter.compute() == expected.meter.compute() and got.meter.rows == expected.meter.rows
    assert got.meter.target_rows == expected.meter.target_rows and got.meter.compute()["tp"] > 0
    for name in ("thresholds", "detected", "false_pixels"):
        assert np.array_equal(getattr(got.target, name), getattr(expected.target, name))
    assert got.pixel.auc == expected.pixel.auc
    for name in ("thresholds", "tpr", "fpr"):
        assert np.array_equal(getattr(got.pixel, name), getattr(expected.pixel, name))
    assert list(got.maps) == list(expected.maps) == [r.id for r in records]
    assert all(np.array_equal(got.maps[r.id], expected.maps[r.id]) for r in records)


def test_the_network_goes_on_while_components_wait_for_the_device(data, checkpoint, monkeypatch):
    _, records, _ = data
    source = NetworkSource(Predictor.load(checkpoint(), device="cpu"))
    begun, started = source.begin, []
    next_one = [threading.Event() for _ in records]

    def begin(*args, **kwargs):
        pending, number = begun(*args, **kwargs), len(started)
        started.append(number)
        if number:
            next_one[number - 1].set()
        if number == len(records) - 1:
            next_one[number].set()
        wait = pending.wait

        def slow():
            assert next_one[number].wait(30), "the next image was not begun before this one was waited for"
            return wait()

        pending.wait = slow
        return pending

    monkeypatch.setattr(source, "begin", begin)
    assert len(records) > 2 and score(source, records, workers=1).meter.compute()["images"] == len(records)


def test_a_network_that_gives_no_numbers_is_named(data, checkpoint):
    _, records, _ = data
    predictor = Predictor.load(checkpoint(), device="cpu")
    with torch.no_grad():
        predictor.network.head.bias.fill_(float("nan"))
    with pytest.raises(IrstkitError, match="not numbers") as caught:
        score(NetworkSource(predictor), records)
    assert records[0].id in str(caught.value)


def test_bootstrap_breakdown_and_curves_in_the_result(data, irstkit, tmp_path):
    root, records, maps = data
    for record in records:
        write_png(tmp_path / "p" / f"{record.id}.png", np.rint(maps[record.id] * 255).astype(np.uint8))
    found = evaluated(
        irstkit, tmp_path / "p", "--data", root, "--roc", "--by", "size,sequence", "--bootstrap", 50
    )
    low, high = found["intervals_95"]["iou"]
    assert low <= found["iou"] <= high
    assert sum(g["targets"] for g in found["by"]["size"].values()) == found["targets"]
    assert 0 <= found["roc"]["pixel_auc"] <= 1
    text = irstkit("train", "evaluate", tmp_path / "p", "--data", root, "--roc", "--by", "size").stdout
    assert "by size:" in text and "AUC" in text
    refused = irstkit("train", "evaluate", tmp_path / "p", "--data", root, "--by", "kind")
    assert refused.exit_code == 1 and "nothing can be broken down by kind" in refused.output


def test_compare_writes_table_curves_and_galleries(checkpoint, data, irstkit, tmp_path):
    root, records, maps = data
    for record in records:
        write_png(tmp_path / "theirs" / f"{record.id}.png", (maps[record.id] > 0.5).astype(np.uint8) * 255)
    out = tmp_path / "out"
    arguments = ("train", "compare", checkpoint(), tmp_path / "theirs", "--data", root, "--out", out)
    result = irstkit(*arguments, "--device", "cpu", "--json")
    assert result.exit_code == 0, result.output
    assert [r["run"] for r in json.loads(result.stdout)["runs"]] == ["net.pt", "theirs"]
    assert (out / "compare.md").read_text().count("\n| ") == 2
    for name in ("roc.png", "hits.png"):
        assert cv2.imread(str(out / name)) is not None
    assert (out / "roc.csv").read_text().startswith("run,fa,pd,threshold\n")
    again = irstkit(*arguments)
    assert again.exit_code == 1 and "not overwritten" in again.output


def test_embeddings(checkpoint, data, irstkit, tmp_path):
    root, records, _ = data
    out = tmp_path / "e.npz"
    path = checkpoint()
    result = irstkit(
        "train", "embed", path, root, "--split", "own/test", "--out", out, "--device", "cpu", "--json"
    )
    assert result.exit_code == 0, result.output
    with np.load(out, allow_pickle=False) as held:
        assert list(held["ids"]) == [r.id for r in records]
        assert held["embeddings"].shape == (4, 2 * 24) and np.isfinite(held["embeddings"]).all()
        assert len(np.unique(held["embeddings"], axis=0)) == 4
    assert json.loads(result.stdout)["layer"] == "encoder.3"
    refused = irstkit(
        "train", "embed", path, root, "--out", tmp_path / "f.npz", "--layer", "nope", "--device", "cpu"
    )
    assert refused.exit_code == 1 and "encoder" in refused.output and not (tmp_path / "f.npz").exists()


def test_the_deepest_layer_is_found_without_a_name(checkpoint, monkeypatch):
    predictor = Predictor.load(checkpoint(), device="cpu")
    monkeypatch.setattr(type(predictor.network), "embedding_layer", None)
    layer = deepest_layer(predictor, np.zeros((64, 64), np.uint8))
    assert layer in dict(predictor.network.named_modules())


NAMED = [{"id": k, "file_name": f"{3 + k:06d}.png"} for k in range(4)]


def of(**detection):
    return {
        "images": NAMED,
        "annotations": [{"image_id": 0, "bbox": [0, 0, 2, 2], "score": 0.5, **detection}],
    }


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([{"image_id": [1], "bbox": [0, 0, 1, 1]}], "$[0]: image_id is [1], expected a number or a name"),
        ([{"bbox": [0, 0, 1, 1]}], "$[0]: a detection without image_id"),
        ([{"image_id": "000003"}], "$[0]: a detection without bbox"),
        ({"images": 3, "annotations": []}, "$.images: images is no list"),
        ({"images": [3], "annotations": []}, "$.images[0]: an image without id"),
        ({"images": [{"id": [1]}], "annotations": []}, "$.images[0]: an image without id"),
        ({"images": [*NAMED, NAMED[1]], "annotations": []}, "$.images[4]: two images of the id 1"),
        (of(bbox=[0, 0, float("nan"), 1]), "$.annotations[0]: not a box: [0, 0, nan, 1]"),
        (of(bbox=[0, 0, float("inf"), 1]), "$.annotations[0]: not a box: [0, 0, inf, 1]"),
        (of(bbox=[1e300, 0, 1e300, 1]), "$.annotations[0]: not a box"),
        (of(bbox=[0, 0, -2, 1]), "$.annotations[0]: not a box"),
        (of(bbox=[0, 0]), "$.annotations[0]: not a box"),
        (of(bbox=None), "$.annotations[0]: not a box: None"),
        (of(bbox={"a": 1}), "$.annotations[0]: not a box"),
        (of(bbox=[0, 0, True, 1]), "$.annotations[0]: not a box"),
        (of(score="high"), "$.annotations[0]: score 'high' is not a probability"),
        (of(score=float("nan")), "$.annotations[0]: score nan is not a probability"),
        (of(score=None), "$.annotations[0]: score None is not a probability"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
@pytest.mark.parametrize("boxes", [(), ("--boxes",)], ids=["masks", "boxes"])
def test_coco_files_that_are_wrong(irstkit, data, tmp_path, content, told, boxes):
    """As the masks they are painted as, and as the boxes that they are, by the same rules."""
    root, _, _ = data
    (tmp_path / "found.json").write_text(json.dumps(content))
    result = irstkit("train", "evaluate", tmp_path / "found.json", "--data", root, *boxes)
    assert result.exit_code == 1 and result.stdout == "", result.output
    assert f"found.json: {told}" in result.stderr


@pytest.mark.parametrize(
    ("values", "kind", "told"),
    [
        (np.full((48, 64), np.nan, np.float32), "auto", "3072 of its pixels are not numbers"),
        (np.full((48, 64), np.nan, np.float32), "mask", "3072 of its pixels are not numbers"),
        (
            np.full((48, 64), 3, np.float32),
            "auto",
            "expected probabilities from 0 to 1, got values from 3 to 3",
        ),
        (
            np.arange(48 * 64).reshape(48, 64) % 5,
            "auto",
            "int64 with more than two values is neither a mask nor",
        ),
        (np.zeros((48, 64, 3), np.uint8) + np.array([1, 0, 0], np.uint8), "auto", "a map in colour"),
    ],
    ids=["nan", "nan as mask", "beyond 1", "labels", "colour"],
)
def test_maps_that_would_be_read_as_no_target(irstkit, data, tmp_path, values, kind, told):
    root, records, _ = data
    for record in records:
        if values.ndim == 3:
            write_png(tmp_path / "p" / f"{record.id}.png", values)
        else:
            (tmp_path / "p").mkdir(exist_ok=True)
            np.save(tmp_path / "p" / f"{record.id}.npy", values)
    result = irstkit("train", "evaluate", tmp_path / "p", "--data", root, "--as", kind)
    assert result.exit_code == 1 and told in result.stderr, result.output


def test_probabilities_of_one_value_are_no_mask(irstkit, data, tmp_path):
    """Nothing is above 0.5 where every pixel is 0.3."""
    root, records, _ = data
    (tmp_path / "p").mkdir()
    for record in records:
        np.save(tmp_path / "p" / f"{record.id}.npy", np.full(record.size, 0.3, np.float32))
    found = evaluated(irstkit, tmp_path / "p", "--data", root)
    assert found["tp"] == found["fp"] == 0 and found["input"]["files"] == "probability maps"


def test_the_folder_of_predicted_boxes_is_its_predictions(irstkit, data, tmp_path):
    """Its overlays are pictures, not maps."""
    root, records, _ = data
    out = tmp_path / "out"
    for record in records:
        write_png(out / "overlays" / f"{record.id}.png", np.zeros((8, 8), np.uint8))
    (out / "predictions.json").write_text(json.dumps(of()))
    found = evaluated(irstkit, out, "--data", root, "--boxes")
    assert found["detections"] == 1 and found["input"]["files"] == "COCO detections"
