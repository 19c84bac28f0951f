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


def test_loose_boxes_of_real_sequences_come_back(fo, shared_data, tmp_path):
    """drone-ir: the first 40 frames of two videos, decoded, with the published boxes, fractions and gaps."""
    source = shared_data("drone-ir")
    boxes = json.loads((source / "boxes_xywh_per_frame.json").read_text())
    root = tmp_path / "drone"
    coco: dict = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "target"}]}
    for name in ("IR_DRONE_151", "IR_AIRPLANE_058"):
        video = cv2.VideoCapture(str(source / f"{name}.mp4"))
        found = boxes[name] if name in boxes else boxes[f"{name}.mp4"]
        (root / "images" / name).mkdir(parents=True)
        for k in range(40):
            ok, frame = video.read()
            assert ok
            file = f"images/{name}/{k:06d}.png"
            cv2.imwrite(str(root / file), frame[..., 0])
            number = len(coco["images"]) + 1
            coco["images"].append({"id": number, "file_name": file, "width": frame.shape[1], "height": frame.shape[0],
                                   "sequence": name, "frame": k})  # fmt: skip
            if found[k] is not None:
                x, y, w, h = found[k]
                coco["annotations"].append(
                    {"id": len(coco["annotations"]) + 1, "image_id": number, "category_id": 1, "iscrowd": 0,
                     "bbox": [x - 1, y - 1, w, h], "area": w * h, "segmentation_source": "box", "track_id": 0,
                     "segmentation": [[x - 1, y - 1, x - 1 + w, y - 1, x - 1 + w, y - 1 + h, x - 1, y - 1 + h]]}
                )  # fmt: skip
    (root / "annotations.json").write_text(json.dumps(coco))
    assert there_and_back(fo, "drone", root) == coco
