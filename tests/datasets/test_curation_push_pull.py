"""Push and pull: untouched labels come back to the bit, edits on whole pixels, a second push writes what changed."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest

from irstkit.annotate.errors import IrstkitError
from irstkit.annotate.masks import mask_to_instances
from irstkit.annotate.rle import decode_rle
from irstkit.datasets import open_dataset
from irstkit.datasets.curation import store
from irstkit.datasets.curation.apply import KEPT, apply
from irstkit.datasets.curation.documents import as_document
from irstkit.datasets.curation.pull import pull
from irstkit.datasets.curation.push import push
from irstkit.datasets.curation.sources import open_sources


def document(name: str) -> dict:
    (one,) = pull(name)[1]
    return one.document


def by_id(coco: dict) -> dict[int, dict]:
    return {a["id"]: a for a in coco["annotations"]}


# ------------------------------------------------------------------------------------ nothing touched


def test_a_coco_file_comes_back_as_it_was_unknown_keys_order_and_all(make_own, pushed):
    root = make_own(8)
    pushed("whole", root)
    assert json.dumps(document("whole")) == json.dumps(
        _same_key_order(json.loads((root / "annotations.json").read_text()))
    )


def _same_key_order(coco: dict) -> dict:
    rest = {k: v for k, v in coco.items() if k not in ("images", "annotations")}
    return {**rest, "images": coco["images"], "annotations": coco["annotations"]}


def test_boxes_without_masks_come_back_as_they_were(make_own, pushed):
    root = make_own(5, box_only=True)
    pushed("boxes", root)
    assert document("boxes") == json.loads((root / "annotations.json").read_text())


def test_masks_come_back_as_the_components_that_were_read(make_pairs, pushed):
    root = make_pairs(5)
    pushed("pairs", root)
    coco = document("pairs")
    data = open_dataset(root)
    assert [i["file_name"] for i in coco["images"]] == [r.image.relative_to(root).as_posix() for r in data]
    for record, image in zip(data, coco["images"], strict=True):
        found = [a for a in coco["annotations"] if a["image_id"] == image["id"]]
        union = np.zeros(record.size, bool)
        for a in found:
            union |= decode_rle(a["segmentation"])
        assert (union == record.read_mask()).all()
        assert [a["area"] for a in found] == [i.area for i in mask_to_instances(record.read_mask())]
    assert [a["id"] for a in coco["annotations"]] == list(range(1, len(coco["annotations"]) + 1))
    assert coco == as_document(open_sources([root])[0])


def test_several_sets_come_back_apart(make_own, make_pairs, pushed):
    own, pairs = make_own(3), make_pairs(3)
    dataset, _ = pushed("both", own, pairs, views=True)
    assert dataset.count() == 6
    first, second = pull("both")[1]
    assert first.document == json.loads((own / "annotations.json").read_text())
    assert second.document == as_document(open_sources([pairs])[0])
    assert "synthetic beside real" in dataset.list_saved_views()


def test_the_stored_sample_is_what_fiftyone_itself_would_store(fo, make_own, pushed):
    dataset, _ = pushed("raw", make_own(4, sequences=2))
    twin = fo.Dataset("api")
    twin.add_samples([s.copy() for s in dataset])
    try:
        for ours, theirs in zip(store.samples(dataset).find(), store.samples(twin).find(), strict=True):
            for one in (ours, theirs):
                for key in ("_id", "_dataset_id", "_rand", "created_at", "last_modified_at"):
                    assert one.pop(key) is not None
                for label in one["ground_truth"]["detections"]:
                    assert label.pop("_id") is not None
                    for key in [k for k, v in label.items() if v is None]:
                        del label[key]
            assert ours == {k: v for k, v in theirs.items() if v is not None}
    finally:
        fo.delete_dataset("api")


# -------------------------------------------------------------------------------------- second push


def test_a_second_push_writes_only_what_changed(make_pairs, pushed):
    root = make_pairs(6)
    dataset, first = pushed("again", root)
    ids = dict(zip(dataset.values("record_id"), dataset.values("id"), strict=True))
    _, second = pushed("again", root)
    assert (first.added, second.added, second.changed, second.unchanged) == (6, 0, 0, 6)
    mask = cv2.imread(str(root / "masks" / "000002.png"), 0)
    mask[1:3, 1:3] = 255
    cv2.imwrite(str(root / "masks" / "000002.png"), mask)
    (root / "images" / "000005.png").unlink()
    (root / "masks" / "000005.png").unlink()
    shutil.copy(root / "images" / "000000.png", root / "images" / "000009.png")
    shutil.copy(root / "masks" / "000000.png", root / "masks" / "000009.png")
    dataset, third = pushed("again", root)
    assert (third.added, third.changed, third.removed, third.unchanged) == (1, 1, 1, 4)
    now = dict(zip(dataset.values("record_id"), dataset.values("id"), strict=True))
    assert {k for k in now if now[k] != ids.get(k)} == {"000002", "000009"}
    assert document("again") == as_document(open_sources([root])[0])


def test_edits_survive_a_push_of_a_changed_file_unless_replace(make_pairs, pushed):
    root = make_pairs(3)
    dataset, _ = pushed("conflict", root)
    sample = dataset.match({"record_id": "000001"}).first()
    sample["ground_truth"].detections.pop()
    sample.save()
    mask = cv2.imread(str(root / "masks" / "000001.png"), 0)
    mask[1:3, 1:3] = 255
    cv2.imwrite(str(root / "masks" / "000001.png"), mask)
    _, kept = pushed("conflict", root)
    assert (kept.kept, kept.changed) == (1, 0)
    assert any("--replace" in line for line in kept.lines())
    _, result, _ = push(open_sources([root]), "conflict", replace=True)
    assert (result.kept, result.changed) == (0, 1)


def test_only_our_data_sets_are_pushed_to_or_pulled_from(fo, make_pairs, pushed):
    foreign = fo.Dataset("foreign")
    foreign.add_sample(fo.Sample(filepath="nothing.png"))
    try:
        with pytest.raises(IrstkitError, match="did not make"):
            push(open_sources([make_pairs(2)]), "foreign")
        with pytest.raises(IrstkitError, match="not pushed by irstkit"):
            pull("foreign")
        with pytest.raises(IrstkitError, match=r"no data set 'nowhere'.*foreign"):
            pull("nowhere")
    finally:
        fo.delete_dataset("foreign")


def test_what_is_remembered_goes_with_the_data_set(fo, make_pairs, pushed):
    root = make_pairs(2)
    dataset, _ = pushed("first", root)
    name = f"irstkit.baseline.{store.key_of(dataset)}"
    assert name in store.database().list_collection_names()
    fo.delete_dataset("first")
    pushed("second", root)
    assert name not in store.database().list_collection_names()


def test_16_bit_and_faint_images_get_a_stretched_preview(tmp_path, pushed):
    root = tmp_path / "deep"
    (root / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    cv2.imwrite(str(root / "images" / "deep.png"), rng.integers(30000, 30500, (32, 32)).astype(np.uint16))
    cv2.imwrite(str(root / "images" / "faint.png"), rng.integers(90, 120, (32, 32)).astype(np.uint8))
    cv2.imwrite(str(root / "images" / "good.png"), rng.integers(0, 256, (32, 32)).astype(np.uint8))
    dataset, _ = pushed("previews", root)
    for sample in dataset:
        shown = cv2.imread(sample["preview"], cv2.IMREAD_UNCHANGED)
        assert shown.dtype == np.uint8
        assert np.ptp(shown) > 200
        assert (sample["preview"] == sample.filepath) == (sample["record_id"] == "good")


# ----------------------------------------------------------------------------------------- edits


def edit(dataset, record: str, change) -> None:
    sample = dataset.match({"record_id": record}).first()
    change(sample["ground_truth"].detections, sample)
    sample.save()


@pytest.fixture
def own(make_own, pushed):
    root = make_own(6)
    dataset, _ = pushed("edit", root)
    return root, dataset, json.loads((root / "annotations.json").read_text())


def only_changed(before: dict, after: dict) -> tuple[set, set, set]:
    """(ids changed, added, deleted); the rest must be equal in order and content."""
    a, b = by_id(before), by_id(after)
    both = [i for i in a if i in b]
    assert [x["id"] for x in after["annotations"]][: len(both)] == [
        x["id"] for x in before["annotations"] if x["id"] in b
    ]
    assert after["images"] == before["images"]
    return {i for i in both if a[i] != b[i]}, set(b) - set(a), set(a) - set(b)


def test_a_box_moved_by_hand_takes_its_mask_along_by_whole_pixels(own):
    _, dataset, before = own

    def change(labels, sample):
        x, y, w, h = labels[0].bounding_box
        labels[0].bounding_box = [x + 3.2 / 56, y - 1.6 / 40, w, h]

    edit(dataset, "images/000002", change)
    after = document("edit")
    changed, added, deleted = only_changed(before, after)
    assert (len(changed), added, deleted) == (1, set(), set())
    (number,) = changed
    a, b = by_id(before)[number], by_id(after)[number]
    assert b["bbox"] == [a["bbox"][0] + 3, a["bbox"][1] - 2, 4, 3]
    assert (decode_rle(b["segmentation"]) == np.roll(decode_rle(a["segmentation"]), (-2, 3), (0, 1))).all()
    assert b["attributes"]["x"] == a["attributes"]["x"] + 3
    assert b["attributes"]["odd key!"] == a["attributes"]["odd key!"]
    assert b["attributes"]["scr_status"] == "edited"
    assert {k for k in a if a[k] != b[k]} == {"bbox", "segmentation", "attributes"}


def test_a_move_below_half_a_pixel_is_none(own):
    _, dataset, before = own

    def change(labels, sample):
        x, y, w, h = labels[0].bounding_box
        labels[0].bounding_box = [x + 0.4 / 56, y - 0.49 / 40, w, h]

    edit(dataset, "images/000002", change)
    assert only_changed(before, document("edit")) == (set(), set(), set())


def test_a_redrawn_box_grows_its_mask_anew_and_keeps_what_was_drawn(own):
    _, dataset, before = own

    def change(labels, sample):
        x, y, w, h = labels[0].bounding_box
        labels[0].bounding_box = [x - 1.5 / 56, y - 1.5 / 40, w + 3.2 / 56, h + 2.9 / 40]

    edit(dataset, "images/000000", change)
    after = document("edit")
    changed, added, deleted = only_changed(before, after)
    assert (len(changed), added, deleted) == (1, set(), set())
    (number,) = changed
    a, b = by_id(before)[number], by_id(after)[number]
    # the target stands out by 20 sigma: what is grown is what was painted
    assert (decode_rle(b["segmentation"]) == decode_rle(a["segmentation"])).all()
    assert b["bbox"] == a["bbox"]
    x, y, w, h = a["bbox"]
    assert b["attributes"]["drawn_box"] == pytest.approx([x - 1.5, y - 1.5, w + 3.2, h + 2.9], abs=1e-5)


def test_a_drawn_box_becomes_a_label_with_the_mask_inside_it(fo, own):
    _, dataset, before = own
    known = next(a for a in before["annotations"] if a["image_id"] == 10)
    x, y, w, h = known["bbox"]

    def change(labels, sample):
        labels.clear()
        labels.append(
            fo.Detection(
                label="target", bounding_box=[(x - 1.3) / 56, (y - 1.1) / 40, (w + 2.5) / 56, (h + 2) / 40]
            )
        )

    edit(dataset, "images/000000", change)
    after = document("edit")
    _, added, deleted = only_changed(before, after)
    assert deleted == {known["id"]}
    (number,) = added
    assert number == max(by_id(before)) + 1
    assert by_id(after)[number]["bbox"] == known["bbox"]
    assert by_id(after)[number]["image_id"] == 10
    assert next(iter(by_id(after)[number])) == "id"


def test_a_painted_mask_on_a_grid_of_its_own_is_brought_to_pixels(own):
    _, dataset, before = own

    def change(labels, sample):
        mask = np.asarray(labels[0].mask)
        fine = np.kron(mask, np.ones((5, 5), bool)).astype(np.uint8) * 255
        fine[:, :5] = 0  # one column of pixels erased
        labels[0].mask = fine

    edit(dataset, "images/000002", change)
    after = document("edit")
    changed, _, _ = only_changed(before, after)
    (number,) = changed
    a, b = decode_rle(by_id(before)[number]["segmentation"]), decode_rle(by_id(after)[number]["segmentation"])
    x = by_id(before)[number]["bbox"][0]
    a[:, x] = False
    assert (a == b).all()


def test_attributes_and_tags_come_back_and_nothing_else_changes(own):
    _, dataset, before = own

    def change(labels, sample):
        labels[0]["kind"] = "extended"
        labels[0]["polarity"] = -1
        labels[0].tags.append("doubtful")

    edit(dataset, "images/000002", change)
    after = document("edit")
    (number,) = only_changed(before, after)[0]
    a, b = by_id(before)[number], by_id(after)[number]
    assert b == {
        **a,
        "attributes": {**a["attributes"], "kind": "extended", "polarity": -1, "tags": ["doubtful"]},
    }


def test_box_only_sets_keep_the_drawn_box(fo, make_own, pushed):
    root = make_own(3, box_only=True)
    dataset, _ = pushed("boxes", root)

    def change(labels, sample):
        labels[0].bounding_box = [0.1, 0.2, 0.123, 0.05]
        labels.append(fo.Detection(label="target", bounding_box=[0.5, 0.5, 0.1, 0.1]))

    edit(dataset, "images/000000", change)
    before, after = json.loads((root / "annotations.json").read_text()), document("boxes")
    changed, added, _ = only_changed(before, after)
    (one,), (two,) = changed, added
    assert by_id(after)[one]["bbox"] == pytest.approx([5.6, 8.0, 6.888, 2.0])
    assert by_id(after)[two]["bbox"] == pytest.approx([28, 20, 5.6, 4.0])
    assert by_id(after)[two]["segmentation_source"] == "box"


def test_a_box_on_nothing_is_written_as_its_rectangle_and_said(fo, tmp_path, pushed):
    root = tmp_path / "flat"
    (root / "images").mkdir(parents=True)
    cv2.imwrite(str(root / "images" / "a.png"), np.full((32, 32), 90, np.uint8))
    dataset, _ = pushed("flat", root)
    edit(
        dataset,
        "a",
        lambda labels, s: labels.append(fo.Detection(label="target", bounding_box=[0.5, 0.5, 0.1, 0.1])),
    )
    (one,) = pull("flat")[1]
    (label,) = one.document["annotations"]
    assert label["segmentation_source"] == "box"
    assert label["bbox"] == [16, 16, 3, 3]
    assert any("no target could be grown" in line for line in one.lines())


def test_a_deleted_sample_is_written_as_it_was_and_said(own):
    _, dataset, before = own
    dataset.delete_samples([dataset.first().id])
    (one,) = pull("edit")[1]
    assert one.document == before
    assert one.summary()["images_not_in_fiftyone"] == 1


# ----------------------------------------------------------------------------------------- apply


def mangle(fo, dataset, record: str) -> None:
    def change(labels, sample):
        x, y, w, h = labels[0].bounding_box
        labels[0].bounding_box = [x + 2.1 / sample.metadata.width, y, w, h]
        labels.append(fo.Detection(label="target", bounding_box=[0.02, 0.02, 0.06, 0.07], kind="spot"))

    edit(dataset, record, change)


@pytest.mark.parametrize("kind", ["own", "pairs"])
def test_applied_labels_are_the_new_truth_and_the_former_files_are_kept(
    fo, kind, make_own, make_pairs, pushed
):
    root = make_own(5) if kind == "own" else make_pairs(5)
    record = "images/000003" if kind == "own" else "000003"
    dataset, _ = pushed("apply", root)
    files = {p: p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}
    mangle(fo, dataset, record)
    _, (one,) = pull("apply")
    assert len(one.changes()) == 2
    done = apply(dataset, one)
    changed = {p for p in files if p.read_bytes() != files[p]}
    assert changed == ({root / "annotations.json"} if kind == "own" else {root / "masks" / "000003.png"})
    assert done.kept == root / KEPT / "1"
    for path in changed:
        assert (done.kept / path.relative_to(root)).read_bytes() == files[path]
    if kind == "own":
        assert json.loads((root / "annotations.json").read_text()) == one.document
    else:
        source = as_document(open_sources([root])[0])
        assert _pixels(source) == _pixels(one.document)
    _, again = pull("apply")
    assert again[0].changes() == []
    assert again[0].document == one.document
    _, third = pushed("apply", root)
    assert (third.unchanged, third.kept, third.changed) == (5, 0, 0)


def _pixels(coco: dict) -> dict:
    out: dict = {}
    for a in coco["annotations"]:
        name = next(i["file_name"] for i in coco["images"] if i["id"] == a["image_id"])
        out.setdefault(name, set()).add((tuple(a["bbox"]), a["area"], a["segmentation"]["counts"]))
    return out


def test_deleting_from_a_file_and_applying_twice_keeps_every_place(fo, make_own, pushed):
    root = make_own(6)
    dataset, _ = pushed("places", root)
    edit(dataset, "images/000005", lambda labels, sample: labels.clear())
    _, (one,) = pull("places")
    apply(dataset, one)
    edit(dataset, "images/000001", lambda labels, sample: labels.pop(0))
    mangle(fo, dataset, "images/000002")
    _, (two,) = pull("places")
    apply(dataset, two)
    assert (
        pull("places")[1][0].document == json.loads((root / "annotations.json").read_text()) == two.document
    )


def test_labels_cannot_be_applied_to_a_folder_of_images(fo, tmp_path, pushed, irstkit):
    root = tmp_path / "plain"
    (root / "images").mkdir(parents=True)
    image = np.full((32, 32), 90, np.uint8)
    image[10:12, 10:12] = 200
    cv2.imwrite(str(root / "images" / "a.png"), image)
    dataset, _ = pushed("plain", root)
    edit(
        dataset,
        "a",
        lambda labels, s: labels.append(fo.Detection(label="target", bounding_box=[0.28, 0.28, 0.12, 0.12])),
    )
    result = irstkit("data", "pull", "plain", "--out", tmp_path / "a.json", "--apply")
    assert result.exit_code == 1
    assert "cannot be written into the layout" in result.stderr
    assert not (tmp_path / "a.json").exists()
    assert irstkit("data", "pull", "plain", "--out", tmp_path / "a.json").exit_code == 0
    (label,) = json.loads((tmp_path / "a.json").read_text())["annotations"]
    assert (label["bbox"], label["area"]) == ([10, 10, 2, 2], 4)


@pytest.mark.parametrize("kind", ["own", "boxes", "pairs"])
def test_a_pulled_file_with_every_kind_of_edit_passes_the_check(
    fo, kind, make_own, make_pairs, pushed, irstkit, tmp_path
):
    root = make_pairs(5) if kind == "pairs" else make_own(5, box_only=kind == "boxes")
    dataset, _ = pushed("checked", root)
    prefix = "" if kind == "pairs" else "images/"
    mangle(fo, dataset, f"{prefix}000003")
    edit(dataset, f"{prefix}000001", lambda labels, sample: labels.pop(0))
    edit(dataset, f"{prefix}000002", lambda labels, sample: labels[0].tags.append("odd"))
    out = tmp_path / "out.json"
    assert irstkit("data", "pull", "checked", "--out", out).exit_code == 0
    result = irstkit("annotate", "check", out, "--json")
    assert result.exit_code == 0, result.stdout
    found = [f for f in json.loads(result.stdout).get("findings", []) if f["severity"] == "error"]
    assert found == []
