"""The commands: predictions on top, saved views, errors; and a database that is killed in the middle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from irstkit.annotate.coco import add_image, add_instance, new_coco
from irstkit.annotate.masks import mask_to_instances
from irstkit.datasets import open_dataset
from irstkit.datasets.curation.pixels import move


@pytest.fixture
def predicted(tmp_path):
    """``predicted(root, drop=..., shift=...)``: a prediction file made from the labels themselves."""

    def make(
        root: Path, name: str = "p.json", *, shift: int = 1, lost: str = "", extra: str = "", images=None
    ) -> Path:
        coco = new_coco()
        for record in open_dataset(root):
            if images is not None and record.id not in images:
                continue
            number = add_image(coco, record.id + record.image.suffix, record.size)
            for k, instance in enumerate(mask_to_instances(record.read_mask())):
                if record.id == lost and k == 0:
                    continue
                moved = move(instance, shift, 0, record.size)
                add_instance(coco, number, moved, record.size, score=0.9 - 0.1 * k)
            if record.id == extra:
                mask = np.zeros(record.size, bool)
                mask[-3:, -3:] = True
                add_instance(coco, number, mask_to_instances(mask)[0], record.size, score=0.7)
        path = tmp_path / name
        path.write_text(json.dumps(coco))
        return path

    return make


def test_predictions_are_matched_and_lead_to_views(fo, make_pairs, predicted, irstkit):
    root = make_pairs(4)
    file = predicted(root, lost="000001", extra="000002")
    try:
        result = irstkit("data", "curate", root, "--name", "p", "--predictions", file, "--no-app")
        assert result.exit_code == 0, result.stderr
        assert "predictions: 5 hits, 1 misses, 1 false alarms" in result.stdout
        dataset = fo.load_dataset("p")
        missed = dataset.match({"record_id": "000001"}).first()
        assert sorted(d["match"] for d in missed["ground_truth"].detections) == ["hit", "miss"]
        alarm = dataset.load_saved_view("missing labels?")
        assert [(p["predictions"].confidence, p["predictions"]["match"]) for p in alarm] == [
            (0.7, "false_alarm")
        ]
        assert [p.sample_id for p in dataset.load_saved_view("misses")] == [missed.id]
        worst = dataset.load_saved_view("worst labels first")
        assert {s["record_id"] for s in worst[:2]} == {"000001", "000002"}
        assert dataset.load_saved_view("disagreement").count() == 2
        lowest = dataset.load_saved_view("lowest SCR").values("ground_truth.scr")
        assert lowest == sorted(lowest)
        assert len(lowest) == 6
        # the same again: nothing is done; labels that change are matched anew without naming the file
        again = json.loads(irstkit("data", "curate", root, "--name", "p", "--no-app", "--json").stdout)
        assert (again["added"], again["unchanged"], again["predictions"]) == (0, 4, {})
        (root / "masks" / "000003.png").write_bytes((root / "masks" / "000000.png").read_bytes())
        third = json.loads(irstkit("data", "curate", root, "--name", "p", "--no-app", "--json").stdout)
        assert third["changed"] == 1
        assert third["predictions"]["predictions"]["misses"] >= 1
    finally:
        fo.delete_dataset("p")


def test_images_without_predictions_have_no_misses(fo, make_pairs, predicted, irstkit):
    root = make_pairs(3)
    file = predicted(root, images={"000000"})
    try:
        assert (
            irstkit("data", "curate", root, "--name", "p", "--predictions", file, "--no-app").exit_code == 0
        )
        dataset = fo.load_dataset("p")
        assert dataset.values("ground_truth.detections.match") == [["hit"], [None, None], [None]]
    finally:
        fo.delete_dataset("p")


def test_embeddings_give_neighbours_and_a_map(fo, make_pairs, irstkit, tmp_path):
    root = make_pairs(4)
    values = np.eye(4, 3, dtype=np.float32)
    np.savez(tmp_path / "e.npz", ids=np.array([f"00000{k}" for k in range(4)]), embeddings=values)
    try:
        result = irstkit(
            "data", "curate", root, "--name", "e", "--embeddings", tmp_path / "e.npz", "--no-app"
        )
        assert result.exit_code == 0, result.stderr
        dataset = fo.load_dataset("e")
        assert dataset.list_brain_runs() == ["map", "similar"]
        first = dataset.first()
        assert dataset.sort_by_similarity(first.id, brain_key="similar", k=1).first().id == first.id
        np.savez(tmp_path / "e.npz", ids=np.array(["000000"]), embeddings=values[:1])
        short = irstkit("data", "curate", root, "--name", "e", "--embeddings", tmp_path / "e.npz", "--no-app")
        assert (short.exit_code, "3 of 4 images have no embedding" in short.stderr) == (1, True)
    finally:
        fo.delete_dataset("e")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "does not say which images"),
        ('{"images": [{"file_name": "x.png", "id": 1}], "annotations": []}', "none of its images"),
        ('{"images": [{"file_name": "000000.png", "id": 1, "width": 3, "height": 3}], "annotations": []}', "not 3x3"),
        ('{"images": [{"file_name": "000000.png", "id": 1}], "annotations": [{"image_id": 2}]}', "of no image"),
        ('{"images": [{"file_name": "000000.png", "id": 1}], "annotations": [{"image_id": 1, "bbox": [1,1,0,1]}]}', "not a prediction"),
    ],
)  # fmt: skip
def test_predictions_that_cannot_be_used(fo, make_pairs, irstkit, tmp_path, text, message):
    root = make_pairs(1)
    (tmp_path / "p.json").write_text(text)
    try:
        result = irstkit(
            "data", "curate", root, "--name", "bad", "--predictions", tmp_path / "p.json", "--no-app"
        )
        assert result.exit_code == 1
        assert "p.json" in result.stderr
        assert message in result.stderr
        # what was pushed before the error is whole: without the bad file the push goes through
        assert irstkit("data", "curate", root, "--name", "bad", "--no-app").exit_code == 0
        assert irstkit("data", "pull", "bad", "--out", tmp_path / "o.json").exit_code == 0
    finally:
        fo.delete_dataset("bad")


def test_pull_needs_a_finished_push_and_refuses_to_overwrite(fo, make_pairs, irstkit, tmp_path):
    from irstkit.datasets.curation.push import push
    from irstkit.datasets.curation.sources import open_sources

    root = make_pairs(2)
    try:
        push(open_sources([root]), "half")  # killed before 'finish'
        result = irstkit("data", "pull", "half", "--out", tmp_path / "o.json")
        assert (result.exit_code, "did not finish" in result.stderr) == (1, True)
        assert irstkit("data", "curate", root, "--name", "half", "--no-app").exit_code == 0
        assert irstkit("data", "pull", "half", "--out", tmp_path / "o.json").exit_code == 0
        before = (tmp_path / "o.json").read_bytes()
        result = irstkit("data", "pull", "half", "--out", tmp_path / "o.json")
        assert (result.exit_code, "--overwrite" in result.stderr) == (1, True)
        assert irstkit("data", "pull", "half", "--out", tmp_path / "o.json", "--overwrite").exit_code == 0
        assert (tmp_path / "o.json").read_bytes() == before
        result = irstkit("data", "pull", "half", "--out", tmp_path / "x.json", "--source", "nothing")
        assert (result.exit_code, "there are: pairs" in result.stderr) == (1, True)
    finally:
        fo.delete_dataset("half")


def test_a_damaged_file_is_named_and_the_push_goes_on_when_it_is_mended(fo, make_pairs, irstkit, tmp_path):
    root = make_pairs(4)
    file = root / "masks" / "000002.png"
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    try:
        result = irstkit("data", "curate", root, "--name", "mended", "--no-app")
        assert (result.exit_code, "000002.png" in result.stderr) == (1, True)
        assert irstkit("data", "pull", "mended", "--out", tmp_path / "o.json").exit_code == 1
        file.write_bytes(whole)
        assert irstkit("data", "curate", root, "--name", "mended", "--no-app").exit_code == 0
        assert fo.load_dataset("mended").count() == 4
        assert irstkit("data", "pull", "mended", "--out", tmp_path / "o.json").exit_code == 0
        assert irstkit("data", "diff", root, tmp_path / "o.json", "--exit-code").exit_code == 0
    finally:
        if "mended" in fo.list_datasets():
            fo.delete_dataset("mended")


def test_a_port_that_is_taken_is_an_error(fo, make_pairs, irstkit):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        try:
            result = irstkit(
                "data", "curate", make_pairs(1), "--name", "port", "--port", taken.getsockname()[1]
            )
            assert (result.exit_code, "choose another --port" in result.stderr) == (1, True)
        finally:
            fo.delete_dataset("port")
