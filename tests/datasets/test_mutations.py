"""Seeded damage to every label file and list: one clear error or listed findings, never a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from irstkit.annotate.errors import IrstkitError
from irstkit.datasets.info import describe
from irstkit.datasets.readers import open_dataset
from irstkit.datasets.targets import targets_of

ROUNDS = 250
SPICE = [b"", b"\x00", b"-1", b"1e400", b"NaN", b"null", b"[]", b"{}", b'"x"', b"\xff\xfe", b"\r\n", b"../../x", b"\n\n",
         b"99999999999999999999", b"<", b",", b"]", b" "]  # fmt: skip


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Cut, repeat, replace or insert at a few places."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        a, b = sorted(rng.integers(0, len(out) + 1, 2).tolist())
        b = min(b, a + 40)
        kind = rng.integers(4)
        if kind == 0:
            del out[a:b]
        elif kind == 1:
            out[a:a] = out[a:b]
        elif kind == 2:
            out[a:b] = SPICE[rng.integers(len(SPICE))]
        else:
            out[a : a + 1] = bytes([int(rng.integers(256))])
    return bytes(out)


def put(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((24, 32), 9, np.uint8))


def own(root: Path) -> Path:
    for k in range(3):
        put(root / f"images/{k}.png")
        put(root / f"masks/{k}.png")
    (root / "splits/s").mkdir(parents=True)
    (root / "splits/s/train.txt").write_text("images/0\nimages/1\n")
    rle = {"size": [24, 32], "counts": [100, 3, 665]}
    polygon = [[5, 7, 8, 7, 8, 10, 5, 10]]
    document = {
        "images": [{"id": k + 1, "file_name": f"images/{k}.png", "width": 32, "height": 24} for k in range(3)],
        "annotations": [
            {"id": k + 1, "image_id": k + 1, "bbox": [1, 2, 3, 4], "track_id": k, "segmentation": s,
             "attributes": {"kind": "spot"}} for k, s in enumerate((rle, polygon, []))
        ],
    }  # fmt: skip
    (root / "annotations.json").write_text(json.dumps(document))
    return root / "annotations.json"


def pair_list(root: Path) -> Path:
    for k in range(4):
        put(root / f"images/{k}.png")
        put(root / f"masks/{k}.png")
    (root / "50_50").mkdir()
    (root / "50_50/test.txt").write_text("3\n")
    (root / "50_50/train.txt").write_text("0\r\n1\r\n2\r\n")
    return root / "50_50/train.txt"


def sstnet(root: Path) -> Path:
    for k in range(3):
        put(root / f"images/train/data5/{k}.bmp")
    path = root / "coco_train_DAUB.txt"
    path.write_text("".join(f"/h/DAUB/images/train/data5/{k}.bmp {k},2,9,9,0 1,1,4,4,0\n" for k in range(3)))
    return path


def yolo(root: Path) -> Path:
    put(root / "images/a.png")
    (root / "labels").mkdir()
    (root / "labels/a.txt").write_text("0 0.5 0.5 0.1 0.1\n0 0.25 0.25 0.1 0.2\n")
    return root / "labels/a.txt"


def sirst(root: Path) -> Path:
    put(root / "images/targets/a.png")
    put(root / "annotations/masks/a_pixels0.png")
    (root / "annotations/bboxes").mkdir()
    path = root / "annotations/bboxes/a.xml"
    path.write_text(
        "<annotation><size><width>32</width><height>24</height></size><object><name>T</name><bndbox><xmin>3</xmin>"
        "<ymin>4</ymin><xmax>8</xmax><ymax>9</ymax></bndbox></object></annotation>"
    )
    return path


def daub(root: Path) -> Path:
    for k in range(3):
        put(root / f"data1/{k}.bmp")
    (root / "data1.txt").write_text("0 4 5\n1 6 7\n2 8 9 10 11\n")
    return root / "data1.txt"


def image(root: Path) -> Path:
    for k in range(3):
        put(root / f"images/{k}.png")
        put(root / f"masks/{k}.png")
    return root / "images/1.png"


@pytest.mark.parametrize("make", [own, pair_list, sstnet, yolo, sirst, daub, image])
def test_damage_is_told_and_nothing_falls_over(tmp_path, make):
    path = make(tmp_path)
    whole = path.read_bytes()
    told = 0
    for seed in range(ROUNDS):
        path.write_bytes(mutate(whole, np.random.default_rng(seed)))
        try:
            data = open_dataset(tmp_path)
            describe(data)
            for record in data.records:
                boxes = record.boxes
                assert boxes is None or (np.isfinite(boxes).all() and boxes.shape[1:] == (4,))
                if record.size != (0, 0) and boxes is not None and make is not own:
                    assert (boxes >= 0).all() and (boxes[:, 2] <= 32).all() and (boxes[:, 3] <= 24).all()
                targets_of(record)
            data.require_clean()
            told += bool(data.findings)
        except IrstkitError as error:
            told += 1
            assert str(tmp_path) in str(error) or error.path is None
    assert told > ROUNDS / 10  # damage that changes nothing is legitimate, silence about all of it is not
