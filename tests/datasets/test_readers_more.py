"""Readers of SIRST-V2, NUDT-MIRSDT, DAUB, IRDST, COCO and YOLO folders, on fabricated folders as published."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from irstkit.annotate.errors import IrstkitError
from irstkit.datasets.readers import open_dataset


def put(path: Path, size=(24, 32), target=None, colour=False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.full(size, 90 if target is None else 0, np.uint8)
    if target is not None:
        image[target[0] : target[0] + 3, target[1] : target[1] + 3] = 255
    assert cv2.imwrite(str(path), cv2.merge([image] * 3) if colour else image)


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def kinds(data) -> list[tuple[str, str]]:
    return sorted((f.severity, f.kind) for f in data.findings)


# ------------------------------------------------------------------------------------------- SIRST-V2


def voc(*boxes, unboxed=0) -> str:
    objects = "".join(
        "<object><name>Target</name><bndbox>"
        f"<xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
        for a, b, c, d in boxes
    )
    objects += "<object><name>Target</name></object>" * unboxed
    return f"<annotation><size><width>32</width><height>24</height></size>{objects}</annotation>"


@pytest.fixture
def sirst_v2(tmp_path):
    for name, folder in (("Misc_1", "targets"), ("S2-a_3", "targets"), ("211_HD", "backgrounds")):
        put(tmp_path / f"images/{folder}/{name}.png")
        target = None if folder == "backgrounds" else (4, 6)
        put(tmp_path / f"annotations/masks/{name}_pixels0.png", target=target or (30, 30))
        box = [] if target is None else [(7, 5, 10, 8)]
        text(tmp_path / f"annotations/bboxes/{name}.xml", voc(*box, unboxed=not box))
    text(tmp_path / "annotations/masks/.DS_Store", "x")
    for part, names in (("train", "Misc_1\nS2-a_3"), ("test", "211_HD")):
        text(tmp_path / f"splits/{part}_full.txt", names + "\n")
    text(tmp_path / "splits/trainval_v1.txt", "Misc_1\nS2-a_3\n")
    text(tmp_path / "splits/val_v1.txt", "S2-a_3\n")
    return tmp_path


def test_sirst_v2(sirst_v2):
    data = open_dataset(sirst_v2)
    assert (data.layout, data.default_scheme, len(data)) == ("sirst-v2", "full", 3)
    assert kinds(data) == [("info", "object-without-box")]
    by_id = {r.id: r for r in data}
    assert by_id["Misc_1"].boxes.tolist() == [[6, 4, 9, 7]]  # shifted by one, half-open
    assert by_id["211_HD"].boxes.shape == (0, 4) and by_id["211_HD"].attributes["background"]
    assert [r.id for r in data.part("train")] == ["Misc_1", "S2-a_3"]
    assert [r.id for r in data.part("v1/train")] == ["Misc_1"]  # the list that is not published
    assert len(data.part("v1/trainval")) == 2


def test_sirst_v2_defects(sirst_v2):
    text(sirst_v2 / "annotations/bboxes/Misc_1.xml", "<annotation>")
    (sirst_v2 / "annotations/bboxes/S2-a_3.xml").unlink()
    text(sirst_v2 / "annotations/bboxes/ghost.xml", voc((1, 1, 3, 3)))
    data = open_dataset(sirst_v2)
    assert kinds(data) == [
        ("error", "image-missing"),
        ("error", "label-unreadable"),
        ("info", "object-without-box"),
        ("warning", "label-missing"),
    ]
    with pytest.raises(IrstkitError, match=r"ghost\.xml|Misc_1\.xml"):
        data.part("train")


# ----------------------------------------------------------------------------------------- NUDT-MIRSDT


def test_nudt_mirsdt(tmp_path):
    for sequence in (1, 10, 2, 47, 85, 98):
        for frame in (1, 2):
            base = tmp_path / f"Sequence{sequence}"
            for folder in ("images", "masks", "masks_centroid"):
                put(base / folder / f"{frame:05d}.png", target=None if folder == "images" else (3, 3))
            text(base / f"Mix/{frame:05d}.mat", "x")
    text(tmp_path / "train.txt", "Sequence1/Mix/00001.mat\nSequence2/Mix/00002.mat\n")
    data = open_dataset(tmp_path)
    assert data.layout == "nudt-mirsdt" and not data.findings
    assert [r.sequence for r in data][::2] == ["Sequence1", "Sequence2", "Sequence10", "Sequence47", "Sequence85",
                                               "Sequence98"]  # fmt: skip
    assert (data[1].id, data[1].frame, data[1].source) == ("Sequence1/00002", 2, "synthetic")
    assert [r.id for r in data.part("lists/train")] == ["Sequence1/00001", "Sequence2/00002"]
    assert {r.sequence for r in data.part("test")} == {"Sequence47", "Sequence85"}
    assert {r.sequence for r in data.part("dtum/test_low_snr")} == {"Sequence47"}
    assert len(data.part("train")) == 6 and not data[-1].splits  # 98 is in neither list
    assert data[0].attributes["centroid_mask"].name == "00001.png"
    (tmp_path / "Sequence1/images/00001.png").unlink()
    (tmp_path / "Sequence2/masks/00001.png").unlink()
    assert kinds(open_dataset(tmp_path)) == [
        ("error", "image-missing"),
        ("error", "image-missing"),
        ("error", "list-entry"),
        ("error", "mask-missing"),
    ]


# ------------------------------------------------------------------------------------------------ DAUB


def daub_list(root: Path, part: str, rows: list[str]) -> None:
    text(root / f"annotations/coco_{part}_DAUB.txt", "\n".join(rows))


@pytest.fixture
def daub(tmp_path):
    folder = "/home/somebody/DAUB/images"
    daub_list(tmp_path, "train", [f"{folder}/train/data5/{n}.bmp {n},4,{n + 8},12,0" for n in (0, 10, 2)])
    daub_list(tmp_path, "val", [f"{folder}/test/data6/0.bmp 20,20,28,28,0", f"{folder}/test/data6/1.bmp"])
    for name in ("train/data5/0", "train/data5/10", "train/data5/2", "test/data6/0", "test/data6/1"):
        put(tmp_path / f"images/{name}.bmp", colour=True)
    return tmp_path


def test_daub_sstnet(daub):
    data = open_dataset(daub)
    assert (data.layout, data.default_scheme) == ("daub-sstnet", "sstnet")
    assert [r.id for r in data] == [
        "train/data5/0",
        "train/data5/2",
        "train/data5/10",
        "test/data6/0",
        "test/data6/1",
    ]
    assert (data[2].sequence, data[2].frame, data[2].size) == ("data5", 10, (24, 32))
    assert data[2].boxes.tolist() == [[10, 4, 18, 12]] and data[4].boxes.shape == (0, 4)
    assert data.schemes() == {"sstnet": {"train": 3, "test": 2}}
    assert len(data.part("val")) == 2  # the published "val" is the test set
    leaving = [f for f in data.findings if f.kind == "box-leaves"]
    assert [f.record for f in leaving] == ["test/data6/0"] and "20,20,28,28 leaves the image of 32x24" in str(
        leaving
    )
    assert data[3].boxes.tolist() == [[20, 20, 28, 24]]  # cut to the image


def test_daub_sstnet_without_its_frames(daub, irstkit):
    for path in (daub / "images").rglob("*.bmp"):
        path.unlink()
    data = open_dataset(daub)
    assert len(data) == 5 and data[0].size == (256, 256)
    errors = [f.message for f in data.findings if f.severity == "error"]
    assert len(errors) == 1 and errors[0].startswith("none of the 5 frames")
    with pytest.raises(IrstkitError, match="none of the 5 frames"):
        data.part("train")
    result = irstkit("data", "info", daub, "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert (found["images"], found["targets"], found["sequences"], found["errors"]) == (5, 4, 2, 1)


def test_daub_sstnet_with_some_frames_missing(daub):
    (daub / "images/train/data5/2.bmp").unlink()
    text(
        daub / "annotations/coco_val_DAUB.txt",
        "x/images/test/data6/0.bmp 1,2,3\n/x/images/../../../etc/a.bmp 1,1,2,2,0",
    )
    data = open_dataset(daub)
    errors = {(f.kind, f.record) for f in data.findings if f.severity == "error"}
    assert ("image-missing", "train/data5/2") in errors and ("bad-line", None) in errors
    assert len(data.part("train", check=False)) == 3
    assert all(r.image.resolve().is_relative_to(daub.resolve()) or r.size == (256, 256) for r in data)


def test_daub_frame_folders_with_centre_points(tmp_path):
    for name in ("data1/0", "data1/10", "data1/2", "data2/0"):
        put(tmp_path / f"{name}.bmp", colour=True)
    text(tmp_path / "data1.txt", "0 10 9\n2 2 12\n10 11 9 20 15\n")
    data = open_dataset(tmp_path)
    assert data.layout == "daub" and [r.id for r in data] == ["data1/0", "data1/2", "data1/10", "data2/0"]
    assert data[0].boxes.tolist() == [[6, 5, 14, 13]]  # 8x8 around the centre
    assert data[1].boxes.tolist() == [[0, 8, 6, 16]]  # cut at the left border, and said
    assert data[2].boxes.shape == (2, 4) and data[3].boxes is None
    assert kinds(data) == [("warning", "box-leaves"), ("warning", "label-missing")]
    text(tmp_path / "data1.txt", "0 10 9\n7 2 12\nx y\n")
    assert {k for _, k in kinds(open_dataset(tmp_path))} >= {"image-missing", "bad-line"}


# ----------------------------------------------------------------------------------------------- IRDST


def test_irdst_single_frame_with_leading_slashes(tmp_path):
    for name in ("41/1(2)", "41/1(10)", "7/1(1)"):
        put(tmp_path / f"images/{name}.bmp", colour=True)
        put(tmp_path / f"masks/{name}.bmp", target=(3, 3))
    text(tmp_path / "train.txt", "/41/1(2)\n/7/1(1)\n")
    text(tmp_path / "test.txt", "/41/1(10)")
    data = open_dataset(tmp_path)
    assert data.layout == "irdst" and not data.findings
    assert [(r.sequence, r.frame) for r in data] == [("7", 1), ("41", 2), ("41", 10)]
    assert [r.id for r in data.part("test")] == ["41/1(10)"]


def test_irdst_simulation(tmp_path):
    for name in ("131/401", "131/99"):
        put(tmp_path / f"images/{name}.bmp")
        put(tmp_path / f"masks/{name}.bmp", target=(3, 3))
    text(tmp_path / "train.txt", "/131/401\n")
    data = open_dataset(tmp_path)
    assert data.layout == "irdst" and [r.frame for r in data] == [99, 401]
    assert data[0].source == "synthetic" and data[0].sequence == "131"


def test_irdst_sstnet_reads_sizes_from_the_files(tmp_path):
    text(
        tmp_path / "coco_train_IRDST.txt",
        "/home/public/IRDST/images/1/0.bmp 30,4,36,9,0 1,1,4,4,0\n/home/public/IRDST/images/1/1.bmp 40,1,44,3,0\n",
    )
    for n in (0, 1):
        put(tmp_path / f"images/1/{n}.bmp", (40, 33))
    data = open_dataset(tmp_path)
    assert data.layout == "irdst-sstnet" and data[0].size == (40, 33)
    assert data[0].boxes.tolist() == [[30, 4, 33, 9], [1, 1, 4, 4]]
    assert data[1].boxes.shape == (0, 4)  # wholly outside: listed, never a target of no size
    assert kinds(data) == [("warning", "box-leaves"), ("warning", "box-outside")]


# ------------------------------------------------------------------------------------------------ COCO


def coco(names, **box):
    return {
        "images": [
            {"id": k + 1, "file_name": n, "width": 32, "height": 24, "sequence": "s", "frame": k}
            for k, n in enumerate(names)
        ],
        "annotations": [
            {"id": k + 1, "image_id": k + 1, "bbox": [2, 3, 4, 5], "category_id": 1, "track_id": 3} | box
            for k in range(len(names))
        ],
        "categories": [{"id": 1, "name": "target"}],
    }


@pytest.mark.parametrize(
    ("place", "folder"),
    [
        ("annotations/instances_{part}2017.json", "{part}2017"),
        ("annotations/{part}.json", "images/{part}"),
        ("{part}/_annotations.coco.json", "{part}"),
        ("{part}.json", "images"),
    ],
)
def test_coco_in_its_customary_places(tmp_path, place, folder):
    for part in ("train", "val"):
        put(tmp_path / folder.format(part=part) / f"{part}_a.png")
        text(tmp_path / place.format(part=part), json.dumps(coco([f"{part}_a.png"])))
    data = open_dataset(tmp_path)
    assert data.layout == "coco" and not data.findings and data.default_scheme == "coco"
    assert data.schemes() == {"coco": {"train": 1, "val": 1}}
    assert data[0].boxes.tolist() == [[2, 3, 6, 8]] and data[0].track_ids == (3,)
    assert data[0].sequence == "s" and data[0].size == (24, 32)


def test_one_coco_file_as_path(tmp_path):
    put(tmp_path / "images/a.png")
    text(tmp_path / "annotations/mine.json", json.dumps(coco(["a.png"])))
    data = open_dataset(tmp_path / "annotations/mine.json")
    assert data.layout == "coco" and len(data) == 1 and data[0].boxes.shape == (1, 4)
    with pytest.raises(IrstkitError, match="the list 'images' is missing"):
        text(tmp_path / "x.json", "{}")
        open_dataset(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["images"][0].update(file_name="/etc/a.png"), "leaves the data set's folder"),
        (lambda c: c["images"][0].update(file_name="../a.png"), "leaves the data set's folder"),
        (lambda c: c["images"].append(dict(c["images"][0], id=9)), "listed already"),
        (lambda c: c["images"][0].update(height=25), "says 32x25, the image is 32x24"),
        (lambda c: c["annotations"][0].update(bbox=[1, 1, 0, 3]), "an empty box"),
        (lambda c: c["annotations"][0].update(bbox=[1, 1, float("nan"), 3]), "not four numbers"),
    ],
)
def test_coco_defects(tmp_path, change, message):
    put(tmp_path / "images/a.png")
    document = coco(["a.png"])
    change(document)
    text(tmp_path / "labels.json", json.dumps(document))
    with pytest.raises(IrstkitError, match=message):
        open_dataset(tmp_path).require_clean()


def test_coco_box_that_leaves_is_cut_and_said(tmp_path):
    put(tmp_path / "a.png")
    text(tmp_path / "labels.json", json.dumps(coco(["a.png"], bbox=[30, 20, 8, 8])))
    data = open_dataset(tmp_path)
    assert kinds(data) == [("warning", "box-leaves")] and data[0].boxes.tolist() == [[30, 20, 32, 24]]


# ------------------------------------------------------------------------------------------------ YOLO


def test_yolo_flat_and_in_parts(tmp_path):
    flat, parts, rooms = tmp_path / "flat", tmp_path / "parts", tmp_path / "rooms"
    put(flat / "images/a.png")
    put(flat / "images/b.png")
    text(flat / "labels/a.txt", "0 0.5 0.5 0.125 0.25\n")
    text(flat / "labels/classes.txt", "target\n")
    data = open_dataset(flat)
    assert data.layout == "yolo" and data[0].boxes.tolist() == [[14, 9, 18, 15]]
    assert data[1].boxes.shape == (0, 4) and kinds(data) == [("warning", "label-missing")]
    for part in ("train", "valid"):
        put(parts / f"images/{part}/a.png")
        text(parts / f"labels/{part}/a.txt", "")
        put(rooms / f"{part}/images/a.png")
        text(rooms / f"{part}/labels/a.txt", "0 0.5 0.5 0.1 0.1\n")
    for root in (parts, rooms):
        data = open_dataset(root)
        assert data.layout == "yolo" and data.default_scheme == "folders" and not data.findings
        assert data.schemes() == {"folders": {"train": 1, "val": 1}}


@pytest.mark.parametrize(
    ("image", "label", "paired"),
    [("000001", "0001", True), ("000000_1", "000000", True), ("000002", "0001", False), ("a", "b", False)],
)
def test_yolo_labels_numbered_otherwise(tmp_path, image, label, paired):
    put(tmp_path / f"images/{image}.png")
    text(tmp_path / f"labels/{label}.txt", "0 0.5 0.5 0.125 0.25\n")
    data = open_dataset(tmp_path)
    if paired:
        assert kinds(data) == [("info", "label-names")] and len(data[0].boxes) == 1
    else:
        assert ("error", "image-missing") in kinds(data)


def test_yolo_defects(tmp_path):
    for name in "abc":
        put(tmp_path / f"images/{name}.png")
    text(tmp_path / "labels/a.txt", "0 0.5 0.5 0.125\n")
    text(tmp_path / "labels/b.txt", "0 0.99 0.5 0.125 0.25\n")
    (tmp_path / "labels/c.txt").write_bytes(b"\xff\xfe0")
    data = open_dataset(tmp_path)
    errors = {(f.kind, f.record) for f in data.findings if f.severity == "error"}
    assert errors == {("bad-line", "a"), ("label-unreadable", "c")}
    assert data[1].boxes[0, 2] == 32


# ------------------------------------------------------------------------- sequences of one's own


def test_numbered_frames_in_folders_are_sequences(tmp_path):
    for name in ("cam1/000002", "cam1/000010", "cam2/000000"):
        put(tmp_path / f"images/{name}.png")
        put(tmp_path / f"masks/{name}.png", target=(3, 3))
    data = open_dataset(tmp_path)
    assert data.layout == "pairs"
    assert [(r.sequence, r.frame) for r in data] == [("cam1", 2), ("cam1", 10), ("cam2", 0)]


def test_parts_by_folder(tmp_path):
    for name in ("train/a", "test/b"):
        put(tmp_path / f"images/{name}.png")
        put(tmp_path / f"masks/{name}.png", target=(3, 3))
    data = open_dataset(tmp_path)
    assert data.schemes() == {"folders": {"train": 1, "test": 1}} and data[0].sequence is None
