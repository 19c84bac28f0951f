"""Published sets pushed into FiftyOne and pulled again: equal to what was read."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from irstkit.annotate.masks import mask_to_instances
from irstkit.annotate.rle import decode_rle
from irstkit.datasets import open_dataset
from irstkit.datasets.curation.documents import as_document
from irstkit.datasets.curation.pull import pull
from irstkit.datasets.curation.push import finish, push
from irstkit.datasets.curation.sources import open_sources


@pytest.fixture(scope="module")
def fo(tmp_path_factory):
    import importlib.util
    import os
    import sys

    if importlib.util.find_spec("fiftyone") is None:
        pytest.skip("needs the package fiftyone (pip install 'irstkit[fiftyone]')")
    if "fiftyone" in sys.modules:  # another test of this run has isolated it
        return sys.modules["fiftyone"]
    from irstkit.datasets.database import find_database
    from irstkit.datasets.service import isolate

    database = find_database()
    if database is None or database.kind == "uri":
        pytest.skip("needs a mongod of its own (irstkit doctor --install-database)")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", os.environ.get("HOME", ""))
        isolate(tmp_path_factory.mktemp("fiftyone"))
        import fiftyone
    return fiftyone


def there_and_back(fo, name: str, root) -> dict:
    dataset, _, _ = push(open_sources([root]), name)
    finish(dataset)
    try:
        (one,) = pull(name)[1]
        assert one.changes() == []
        return one.document
    finally:
        fo.delete_dataset(name)


@pytest.mark.parametrize(
    ("name", "images", "targets"), [("NUAA-SIRST", 427, 533), ("NUDT-SIRST", 1327, 1863)]
)
def test_masks_come_back_pixel_for_pixel(fo, shared_data, name, images, targets):
    root = shared_data(name)
    coco = there_and_back(fo, name, root)
    assert (len(coco["images"]), len(coco["annotations"])) == (images, targets)
    labels: dict = {}
    for a in coco["annotations"]:
        labels.setdefault(a["image_id"], []).append(a)
    for record, image in zip(open_dataset(root), coco["images"], strict=True):
        assert (image["height"], image["width"]) == record.size
        mask = record.read_mask()
        union = np.zeros(record.size, bool)
        for a in labels.get(image["id"], []):
            union |= decode_rle(a["segmentation"])
        assert (union == mask).all()
        assert [a["bbox"] for a in labels.get(image["id"], [])] == [
            [x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in (i.box for i in mask_to_instances(mask))
        ]
    assert coco == as_document(open_sources([root])[0])


def test_boxes_of_videos_come_back(fo, shared_data):
    """drone-ir: the frames of eight videos, their loose boxes with fractions, frames without any."""
    root = shared_data("drone-ir")
    dataset, _, _ = push(open_sources([root]), "drone")
    finish(dataset)
    try:
        (one,) = pull("drone")[1]
        assert one.changes() == []
        coco, records = one.document, list(open_dataset(root))
        assert coco == as_document(open_sources([root])[0])
        assert len(coco["images"]) == len(records) == 2482
        boxes: dict = {}
        for a in coco["annotations"]:
            x, y, w, h = a["bbox"]
            boxes.setdefault(a["image_id"], []).append([x, y, x + w, y + h])
        for record, image in zip(records, coco["images"], strict=True):
            assert (image["sequence"], image["frame"]) == (record.sequence, record.frame)
            np.testing.assert_allclose(np.reshape(boxes.get(image["id"], []), (-1, 4)), record.boxes)
        # the App is given every frame as a picture of its own, exactly
        files = dict(zip(dataset.values("record_id"), dataset.values("filepath"), strict=True))
        assert len(set(files.values())) == len(records)
        for record in records[::400]:
            assert (cv2.imread(files[record.id], cv2.IMREAD_UNCHANGED) == record.read_image()).all()
    finally:
        fo.delete_dataset("drone")


def test_synthetic_sequences_come_back(fo, irstkit, tmp_path):
    root = tmp_path / "sequences"
    made = irstkit("synth", "sequences", "--out", root, "--sequences", 2, "--frames", 6, "--workers", 1)
    assert made.exit_code == 0, made.stderr
    dataset, _, _ = push(open_sources([root]), "sequences")
    finish(dataset)
    try:
        assert sorted(dataset.distinct("sequence_id")) == sorted({r.sequence for r in open_dataset(root)})
        (one,) = pull("sequences")[1]
        assert one.changes() == []
        assert one.document == json.loads((root / "annotations.json").read_text())
    finally:
        fo.delete_dataset("sequences")
