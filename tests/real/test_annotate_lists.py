"""The published lists and VOC files, counted and compared with their masks."""

from __future__ import annotations

import numpy as np
import pytest

from irstkit.annotate.boxes import mask_to_boxes
from irstkit.annotate.files import read_mask
from irstkit.annotate.formats.list_files import parse_irdst_names, parse_list
from irstkit.annotate.formats.voc_files import parse_voc


@pytest.mark.parametrize(
    ("folder", "name", "sequences", "frames", "boxes", "doubles"),
    [
        ("DAUB", "coco_train_DAUB", 10, 8982, 8982, 0),
        ("DAUB", "coco_val_DAUB", 7, 4795, 4795, 0),
        ("IRDST", "coco_train_IRDST", 42, 20398, 21038, 640),
        ("IRDST", "coco_val_IRDST", 43, 20258, 20763, 505),
    ],
)
def test_lists(shared_data, folder, name, sequences, frames, boxes, doubles):
    got = parse_list(shared_data(folder) / f"{name}.txt")
    assert list(got.findings) == []
    assert len(got.sequences()) == sequences
    assert (len(got.entries), sum(len(e.boxes) for e in got.entries)) == (frames, boxes)
    assert sum(len(e.boxes) == 2 for e in got.entries) == doubles
    for entries in got.sequences().values():
        assert [e.frame for e in entries] == list(range(len(entries))), "no gap, from 0"


def test_boxes_that_leave_the_image_are_listed(shared_data):
    got = parse_list(shared_data("IRDST") / "coco_train_IRDST.txt", size=(480, 720))
    listed = {int(f.where.split()[1]) for f in got.findings}
    expected = {e.line for e in got.entries if (e.boxes[:, 2] > 720).any() or (e.boxes[:, 3] > 480).any()}
    assert listed == expected and len(expected) > 20


def test_irdst_official_names(shared_data):
    root = shared_data("IRDST") / "example"
    entries, findings = parse_irdst_names(root / "test.txt")
    assert [e.frame for e in entries] == [1, 2, 3] and not findings
    assert all((root / "masks" / f"{e.name}.bmp").exists() for e in entries)


def test_sirst_v2(shared_data):
    """Every box equals its component's but Misc_111's; objects without box no target, one finding each."""
    root = shared_data("SIRST-V2-sample") / "annotations"
    files = sorted((root / "bboxes").glob("*.xml"))
    wrong, boxes, unboxed = [], 0, 0
    for file in files:
        voc = parse_voc(file, style="sirst-v2")
        mask = mask_to_boxes(read_mask(root / "masks" / f"{file.stem}_pixels0.png"))
        boxes += len(voc.boxes)
        unboxed += voc.unboxed
        assert [f.kind for f in voc.findings] == ["object-without-box"] * voc.unboxed
        key = np.lexsort(voc.boxes.T), np.lexsort(mask.T)
        if not np.array_equal(voc.boxes[key[0]], mask[key[1]]):
            wrong.append(file.stem)
    assert (len(files), boxes, unboxed, wrong) == (125, 14, 114, ["Misc_111"])
