"""The checks and conversions on the published files."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from irstkit.annotate.convert import check, convert
from irstkit.annotate.files import read_mask
from irstkit.annotate.formats.list_files import parse_list
from irstkit.annotate.labels import ReadOptions, WriteOptions, get_format


def test_sirst_v2_check(shared_data):
    """One finding for each object without box, and Misc_111's box from another frame; nothing else."""
    kind, findings = check(shared_data("SIRST-V2-sample") / "annotations" / "bboxes")
    assert kind == "sirst-v2"
    assert Counter(f.kind for f in findings) == {"object-without-box": 114, "wrong-frame": 1}
    (wrong,) = (f for f in findings if f.kind == "wrong-frame")
    assert "Misc_111" in wrong.path and wrong.where == "line 8"


def test_nuaa_misc_111(shared_data):
    root = shared_data("NUAA-SIRST")
    _, findings = check(root / "masks", read=ReadOptions(images=root / "images"))
    assert [f.path.rpartition("/")[2] for f in findings if f.kind == "mask-size"] == ["Misc_111.png"]
    assert Counter(f.kind for f in findings) == {"mask-size": 1, "image-colour": 159}


def test_gray_masks_of_irstd_1k(shared_data):
    _, findings = check(shared_data("IRSTD-1k-sample") / "IRSTD1k_Label")
    assert Counter(f.kind for f in findings) == {"mask-gray": 14}


@pytest.mark.parametrize("part", ["train", "test"])
def test_daub_coco_equals_its_list(shared_data, part):
    """The two published forms of DAUB's labels hold the same boxes; the COCO one has empty segmentations."""
    root = shared_data("DAUB")
    reader = get_format("coco").read
    assert reader is not None
    labels = reader(root / f"DAUB_instances_{part}2017.json", ReadOptions())
    entries = parse_list(root / f"coco_{'val' if part == 'test' else part}_DAUB.txt").entries
    assert {f.kind for f in labels.findings} == {"segmentation-empty"}
    for image, entry in zip(labels.images, entries, strict=True):
        assert image.name.endswith(entry.relative())
        np.testing.assert_array_equal(image.boxes, entry.boxes)


def test_drone_ir(shared_data, tmp_path):
    """Every frame of the eight videos with its box, one pixel up and left of MATLAB's numbers."""
    root = shared_data("drone-ir")
    summary = convert(root, tmp_path / "a.json", to="coco")
    coco = json.loads((tmp_path / "a.json").read_text())
    rows = json.loads((root / "boxes_xywh_per_frame.json").read_text())
    assert summary.images == len(coco["images"]) == sum(map(len, rows.values())) == 2482
    assert {(i["width"], i["height"]) for i in coco["images"]} == {(320, 256)}
    boxes = np.array([a["bbox"] for a in coco["annotations"]])
    np.testing.assert_allclose(
        boxes, np.array([b for r in rows.values() for b in r]) - [1, 1, 0, 0], atol=1e-9
    )


def test_masks_there_and_back(shared_data, tmp_path):
    """NUDT-SIRST's masks through COCO (polygons) and back, to the bit."""
    masks = shared_data("NUDT-SIRST") / "masks"
    convert(masks, tmp_path / "a.json", to="coco", write=WriteOptions(polygons=True))
    convert(tmp_path / "a.json", tmp_path / "m", to="masks")
    files = sorted(masks.iterdir())
    assert len(files) == 1327
    for file in files[::10]:
        np.testing.assert_array_equal(read_mask(file), read_mask(tmp_path / "m" / file.name))
