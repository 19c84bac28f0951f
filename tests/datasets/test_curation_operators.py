"""Our operators on labels in FiftyOne: what each does to pixels, and that it can be taken back to the bit."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from irstkit.annotate.errors import IrstkitError
from irstkit.annotate.rle import decode_rle
from irstkit.datasets.curation import changes, edits, frames, log, store
from irstkit.datasets.curation.app import install_plugin
from irstkit.datasets.curation.pull import pull


def labels(dataset, record: str) -> list[dict]:
    return changes.detections(store.samples(dataset).find_one({"record_id": record}))


def ids(dataset, record: str) -> list[str]:
    return [str(d["_id"]) for d in labels(dataset, record)]


def state(dataset) -> list:
    """Everything the operators may change; not the time of the last change."""
    return [
        {k: v for k, v in row.items() if k != "last_modified_at"} for row in store.samples(dataset).find()
    ]


def put_box(dataset, record: str, index: int, box: tuple) -> None:
    sample = dataset.match({"record_id": record}).first()
    height, width = sample.metadata.height, sample.metadata.width
    x1, y1, x2, y2 = box
    sample["ground_truth"].detections[index].bounding_box = [
        x1 / width,
        y1 / height,
        (x2 - x1) / width,
        (y2 - y1) / height,
    ]
    sample.save()


def pixel_boxes(dataset, record: str) -> list[tuple]:
    row = store.samples(dataset).find_one({"record_id": record})
    size = changes.size_of(row)
    return [
        tuple(round(v, 6) for v in changes.pixel_box(d["bounding_box"], size))
        for d in changes.detections(row)
    ]


@pytest.fixture
def ours(make_own, pushed):
    root = make_own(6, sequences=2)
    return pushed("ops", root)[0], json.loads((root / "annotations.json").read_text())


def test_snapping_untouched_labels_does_nothing(ours):
    dataset, _ = ours
    before = state(dataset)
    everything = [i for k in range(6) for i in ids(dataset, f"images/{k:06d}")]
    edit = edits.snap(dataset, everything)
    assert (edit.done, edit.skipped) == (0, 0)
    assert state(dataset) == before


def test_snapping_a_dragged_label_and_taking_it_back(ours):
    dataset, _ = ours
    (x1, y1, x2, y2), *_ = pixel_boxes(dataset, "images/000002")
    put_box(dataset, "images/000002", 0, (x1 + 2.3, y1 - 1.4, x2 + 2.3, y2 - 1.4))
    before = state(dataset)
    edit = edits.snap(dataset, ids(dataset, "images/000002"))
    assert edit.done == 1
    assert pixel_boxes(dataset, "images/000002")[0] == (x1 + 2, y1 - 1, x2 + 2, y2 - 1)
    assert log.undo(dataset) == "snap to pixels"
    assert state(dataset) == before


def test_a_mask_set_aside_follows_its_box_and_comes_back(ours):
    dataset, coco = ours
    before = state(dataset)
    record = "images/000002"
    assert edits.free(dataset, ids(dataset, record)).done == 1
    assert "mask" not in labels(dataset, record)[0]
    (one,) = pull("ops")[1]
    assert one.document == coco, "setting a mask aside changes no label"
    assert log.undo(dataset) == "move box"
    assert state(dataset) == before
    edits.free(dataset, ids(dataset, record))
    (x1, y1, x2, y2), *_ = pixel_boxes(dataset, record)
    put_box(dataset, record, 0, (x1 + 3.4, y1 - 1.3, x2 + 3.4, y2 - 1.3))
    (one,) = pull("ops")[1]
    (change,) = one.changes()
    assert (change.kind, change.now) == ("moved", [x1 + 3, y1 - 1, x2 + 3, y2 - 1])
    old = next(a for a in coco["annotations"] if a["image_id"] == 12)
    new = next(a for a in one.document["annotations"] if a["image_id"] == 12)
    assert (
        decode_rle(new["segmentation"]) == np.roll(decode_rle(old["segmentation"]), (-1, 3), (0, 1))
    ).all()
    assert edits.snap(dataset, ids(dataset, record)).done == 1
    assert pixel_boxes(dataset, record) == [(x1 + 3, y1 - 1, x2 + 3, y2 - 1)]
    (again,) = pull("ops")[1]
    assert again.document == one.document


@pytest.mark.parametrize("freed", [True, False], ids=["mask set aside", "mask out of sight"])
def test_a_box_of_another_size_grows_its_mask(ours, freed):
    dataset, coco = ours
    record = "images/000002"
    if freed:
        edits.free(dataset, ids(dataset, record))
    (x1, y1, x2, y2), *_ = pixel_boxes(dataset, record)
    put_box(dataset, record, 0, (x1 - 1.6, y1 - 1.2, x2 + 1.3, y2 + 1.7))
    (one,) = pull("ops")[1]
    assert [c.kind for c in one.changes()] == ["redrawn"]
    old = next(a for a in coco["annotations"] if a["image_id"] == 12)
    new = next(a for a in one.document["annotations"] if a["image_id"] == 12)
    assert new["segmentation"] == old["segmentation"], "it stands out by 20 sigma"
    assert edits.snap(dataset, ids(dataset, record)).done == 1
    assert "mask" in labels(dataset, record)[0]
    assert pixel_boxes(dataset, record) == [(x1, y1, x2, y2)]


def test_a_mask_grown_from_a_box_is_the_target(ours):
    dataset, coco = ours
    label = next(a for a in coco["annotations"] if a["image_id"] == 12)
    (x1, y1, x2, y2), *_ = pixel_boxes(dataset, "images/000002")
    put_box(dataset, "images/000002", 0, (x1 - 1.6, y1 - 1.2, x2 + 1.3, y2 + 1.7))
    assert edits.mask_from_box(dataset, ids(dataset, "images/000002")).done == 1
    row = store.samples(dataset).find_one({"record_id": "images/000002"})
    instance = frames.Frame(row).instance(changes.detections(row)[0])
    x, y = instance.box[:2]
    full = np.zeros((40, 56), bool)
    full[y : instance.box[3], x : instance.box[2]] = instance.mask
    assert (full == decode_rle(label["segmentation"])).all()


def test_split_merge_and_back(ours):
    dataset, _ = ours
    before = state(dataset)
    record = "images/000001"
    assert len(ids(dataset, record)) == 2
    merged = edits.merge(dataset, ids(dataset, record))
    assert (merged.done, len(ids(dataset, record))) == (2, 1)
    assert store.samples(dataset).find_one({"record_id": record})["targets"] == 1
    parts = edits.split(dataset, ids(dataset, record))
    assert (parts.done, len(ids(dataset, record))) == (1, 2)
    assert sorted(pixel_boxes(dataset, record)) == sorted(
        tuple(round(v, 6) for v in changes.pixel_box(d["bounding_box"], (40, 56)))
        for row in before
        if row["record_id"] == record
        for d in row["ground_truth"]["detections"]
    )
    assert log.undo(dataset) == "split"
    assert log.undo(dataset) == "merge"
    assert state(dataset) == before
    with pytest.raises(IrstkitError, match="no edit to take back"):
        log.undo(dataset)


def test_deleting_below_and_taking_it_back_in_the_same_places(ours):
    dataset, _ = ours
    before = state(dataset)
    everything = [i for k in range(6) for i in ids(dataset, f"images/{k:06d}")]
    sizes = [d["area"] for row in before for d in row["ground_truth"]["detections"]]
    edit = edits.delete_below(dataset, everything, area=12)
    assert 0 < edit.done == sum(size < 12 for size in sizes) < len(sizes)
    left = [d["area"] for row in state(dataset) for d in row["ground_truth"]["detections"]]
    assert left == [size for size in sizes if size >= 12]
    log.undo(dataset)
    assert state(dataset) == before
    assert edits.delete_below(dataset, everything, scr=1e6).done == len(sizes)


def test_an_edit_is_not_taken_back_over_somebody_elses_work(ours):
    dataset, _ = ours
    record = "images/000001"
    edits.merge(dataset, ids(dataset, record))
    put_box(dataset, record, 0, (1, 1, 9, 9))
    before = state(dataset)
    with pytest.raises(IrstkitError, match="changed since"):
        log.undo(dataset)
    assert state(dataset) == before


def test_an_edit_that_was_cut_off_is_taken_back_as_far_as_it_went(ours, monkeypatch):
    dataset, _ = ours
    before = state(dataset)
    everything = [i for k in range(6) for i in ids(dataset, f"images/{k:06d}")]
    real, calls = log._put, []

    def put(*args):
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("cut off")
        real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(log, "_put", put)
        with pytest.raises(RuntimeError, match="cut off"):
            edits.delete_below(dataset, everything, scr=1e6)
    assert state(dataset) != before
    log.undo(dataset)
    assert state(dataset) == before


def test_accepting_predictions_makes_labels_but_not_twice(fo, ours):
    dataset, _ = ours
    dataset.add_sample_field("net", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    sample = dataset.match({"record_id": "images/000000"}).first()
    known = sample["ground_truth"].detections[0]
    mask = np.ones((3, 3), bool)
    far = fo.Detection(
        label="target", bounding_box=[40 / 56, 30 / 40, 3 / 56, 3 / 40], mask=mask, confidence=0.8
    )
    near = fo.Detection(label="target", bounding_box=known.bounding_box, confidence=0.9)
    sample["net"] = fo.Detections(detections=[far, near])
    sample.save()
    edit = edits.accept(dataset, [far.id, near.id], "net")
    assert (edit.done, edit.skipped) == (1, 1)
    assert pixel_boxes(dataset, "images/000000")[-1] == (40, 30, 43, 33)
    assert labels(dataset, "images/000000")[-1]["tags"] == ["accepted"]
    (one,) = pull("ops")[1]
    new = one.document["annotations"][-1]
    assert (new["bbox"], new["area"], new["attributes"]) == ([40, 30, 3, 3], 9, {"tags": ["accepted"]})
    log.undo(dataset)
    assert len(ids(dataset, "images/000000")) == 1


def test_a_label_is_carried_along_its_sequence(fo, tmp_path, pushed):
    root = tmp_path / "moving"
    (root / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    base = rng.normal(100, 3, (48, 64))
    coco: dict = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "target"}]}
    for k in range(6):
        image = base + rng.normal(0, 1, base.shape)
        image[20 + k : 23 + k, 10 + 4 * k : 14 + 4 * k] += 70
        cv2.imwrite(str(root / "images" / f"{k}.png"), image.clip(0, 255).astype(np.uint8))
        coco["images"].append(
            {
                "id": k + 1,
                "file_name": f"images/{k}.png",
                "width": 64,
                "height": 48,
                "sequence": "a",
                "frame": k,
            }
        )
    (root / "annotations.json").write_text(json.dumps(coco))
    dataset, _ = pushed("moving", root)
    sample = dataset.match({"record_id": "images/0"}).first()
    sample["ground_truth"].detections.append(
        fo.Detection(
            label="target",
            bounding_box=[10 / 64, 20 / 48, 4 / 64, 3 / 48],
            mask=np.ones((3, 4), bool),
            track_id=7,
        )
    )
    sample.save()
    before = state(dataset)
    edit = edits.carry(dataset, ids(dataset, "images/0")[0], frames=4)
    assert (edit.done, edit.skipped) == (4, 0)
    for k in range(1, 5):
        assert pixel_boxes(dataset, f"images/{k}") == [(10 + 4 * k, 20 + k, 14 + 4 * k, 23 + k)]
        assert labels(dataset, f"images/{k}")[0]["track_id"] == 7
    assert ids(dataset, "images/5") == []
    assert edits.carry(dataset, ids(dataset, "images/0")[0], frames=4).skipped == 4
    log.undo(dataset)
    assert state(dataset) == before
    with pytest.raises(IrstkitError, match="no edit"):
        log.undo(dataset)


def test_reviewed_images_leave_the_queue(ours):
    dataset, _ = ours
    first = dataset.first().id
    assert edits.review(dataset, [first]).done == 1
    assert edits.review(dataset, [first]).done == 0
    dataset.reload()
    assert dataset.count_values("reviewed") == {True: 1, False: 5}
    log.undo(dataset)
    assert dataset.count_values("reviewed") == {False: 6}


# --------------------------------------------------------------------------------------- the plugin


@pytest.fixture
def plugin(fo):
    link = install_plugin()
    assert link.is_symlink()
    assert install_plugin() == link
    import fiftyone.operators as foo

    def run(name: str, dataset, **ctx):
        params = ctx.pop("params", {})
        result = foo.execute_operator(
            f"@irstkit/labels/{name}",
            ctx={"dataset": dataset, "view": dataset.view(), "params": params, **ctx},
        )
        result.raise_exceptions()
        return result.result

    return run


def test_every_operator_is_declared_and_loads(fo, plugin):
    import fiftyone.plugins as fop

    from irstkit.datasets.plugin import OPERATORS

    declared = fop.get_plugin("@irstkit/labels").operators
    assert sorted(declared) == sorted(operator.NAME for operator in OPERATORS)
    import fiftyone.operators as foo

    assert {f"@irstkit/labels/{name}" for name in declared} <= {o.uri for o in foo.list_operators()}


def test_operators_run_from_the_app_on_what_is_selected(plugin, ours):
    dataset, _ = ours
    record = "images/000001"
    sample = str(store.samples(dataset).find_one({"record_id": record})["_id"])
    before = state(dataset)
    chosen = [{"label_id": i, "sample_id": sample, "field": "ground_truth"} for i in ids(dataset, record)]
    assert plugin("merge", dataset, selected_labels=chosen) == {"done": 2, "skipped": 0}
    assert plugin("undo", dataset) == {"undone": "merge"}
    assert state(dataset) == before
    assert plugin("undo", dataset)["error"] == "there is no edit to take back"
    assert plugin("split", dataset, current_sample=sample)["done"] == 2
    assert plugin("mark_reviewed", dataset, selected=[sample]) == {"done": 1, "skipped": 0}
    assert plugin("delete_below", dataset, params={"area": 1000})["done"] == len(before) + 3 + 2
    assert plugin("edit_frames", dataset, current_sample=sample) == {"frames": 3}
    assert "neither a size" in plugin("delete_below", dataset)["error"]
    assert "no predictions were pushed" in plugin("accept", dataset, current_sample=sample)["error"]


def test_operators_find_the_image_behind_a_patch(plugin, ours):
    dataset, _ = ours
    patches = dataset.to_patches("ground_truth")
    patch = patches.first()
    result = plugin("mark_reviewed", dataset, view=patches, current_sample=patch.id)
    assert result == {"done": 1, "skipped": 0}
    assert dataset[patch.sample_id]["reviewed"] is True
