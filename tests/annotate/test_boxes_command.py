"""``irstkit annotate boxes``: what it writes, and that bad input leaves nothing behind."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest

from irstkit.annotate.boxes import yolo_to_xyxy
from irstkit.annotate.rle import decode_rle

RING = np.zeros((20, 30), np.uint8)
RING[4:9, 5:11] = 255
RING[6, 7] = 0
PAIR = np.zeros((20, 30), np.uint8)
PAIR[0, 0] = PAIR[19, 29] = 255
SOFT = np.zeros((20, 30), np.uint8)
SOFT[3, 3], SOFT[10, 10] = 200, 60


@pytest.fixture
def masks(tmp_path):
    folder = tmp_path / "masks"
    folder.mkdir()
    for name, values in {"10": RING, "9": PAIR, "empty": np.zeros_like(RING), "soft": SOFT}.items():
        cv2.imwrite(str(folder / f"{name}.png"), values)
    return folder


def test_yolo(irstkit, masks, tmp_path):
    out = tmp_path / "new" / "labels"
    result = irstkit("annotate", "boxes", masks, "--to", "yolo", "--out", out)
    assert result.exit_code == 0
    assert sorted(f.name for f in out.iterdir()) == ["10.txt", "9.txt", "empty.txt", "soft.txt"]
    assert (out / "empty.txt").read_bytes() == b""
    assert (out / "9.txt").read_bytes() == (
        b"0 0.016667 0.025000 0.033333 0.050000\n0 0.983333 0.975000 0.033333 0.050000\n"
    )
    assert "4 masks, 4 boxes, 1 masks without target" in result.stdout
    assert "1 masks hold gray values; > 127 gives 4 targets in all, > 0 would give 5" in result.stdout


def test_eflnet_coco(irstkit, masks, tmp_path):
    out = tmp_path / "a.json"
    result = irstkit(
        "annotate", "boxes", masks, "--to", "coco", "--out", out, "--convention", "eflnet", "--json"
    )
    assert result.exit_code == 0
    summary = json.loads(result.stdout)
    assert (summary["boxes"], summary["targets"], summary["holes"]) == (5, 4, 1)
    coco = json.loads(out.read_text())
    assert [i["file_name"] for i in coco["images"]] == ["9.png", "10.png", "empty.png", "soft.png"], (
        "natural order"
    )
    assert [a["id"] for a in coco["annotations"]] == [1, 2, 3, 4, 5]
    assert coco["info"]["masks"]["convention"] == "eflnet"
    hole = next(a for a in coco["annotations"] if a.get("attributes", {}).get("contour") == "hole")
    parent = coco["annotations"][hole["attributes"]["parent"] - 1]
    assert hole["bbox"] == [6, 5, 3, 3] and parent["bbox"] == [5, 4, 6, 5]
    painted = decode_rle(hole["segmentation"])
    assert painted.sum() == 8 == hole["area"] and not painted[6, 7], "the target's pixels inside the box"
    np.testing.assert_array_equal(painted | decode_rle(parent["segmentation"]), RING > 0)


def test_images_give_names_and_sizes(irstkit, tmp_path):
    for folder, name, size in (
        ("m", "a_pixels0.png", (8, 9)),
        ("i", "a.png", (8, 9)),
        ("j", "a.png", (8, 10)),
    ):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / name), np.zeros(size, np.uint8))
    out = tmp_path / "a.json"
    args = ("annotate", "boxes", tmp_path / "m", "--to", "coco", "--out", out, "--images")
    assert irstkit(*args, tmp_path / "i").exit_code == 0
    assert json.loads(out.read_text())["images"][0]["file_name"] == "a.png"
    bad = irstkit(*args, tmp_path / "j", "--overwrite")
    assert bad.exit_code == 1 and "the mask is 9x8, its image a.png is 10x8" in bad.stderr


def make_set(masks):
    root = masks.with_name("set")
    for part in ("images", "masks"):
        shutil.copytree(masks, root / part)
    return root


def break_folder(masks, how):
    bad = masks / "zz.png"
    if how == "missing":
        return masks.with_name("nowhere"), "no such folder"
    if how == "file":
        return masks / "10.png", "is a file"
    if how == "empty":
        (masks.with_name("void")).mkdir()
        return masks.with_name("void"), "no image in this folder"
    if how == "truncated":
        bad.write_bytes((masks / "10.png").read_bytes()[:-15])
        return masks, "truncated PNG"
    if how == "text":
        bad.write_text("not a picture\n")
        return masks, "not an image"
    if how == "data set":
        return make_set(masks), "it is a data set, not its masks"
    if how == "colour":
        cv2.imwrite(str(bad), np.dstack([RING, RING * 0, RING]))
        return masks, "colour"
    cv2.imwrite(str(masks / "10.bmp"), RING)
    return masks, "two masks of one name"


@pytest.mark.parametrize(
    "how", ["missing", "file", "empty", "truncated", "text", "colour", "twice", "data set"]
)
@pytest.mark.parametrize("kind", ["coco", "yolo"])
def test_bad_input_writes_nothing(irstkit, masks, tmp_path, how, kind):
    folder, says = break_folder(masks, how)
    before = set(tmp_path.rglob("*"))
    result = irstkit("annotate", "boxes", folder, "--to", kind, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1 and says in result.stderr
    assert set(tmp_path.rglob("*")) == before


def test_existing_output(irstkit, masks, tmp_path):
    out = tmp_path / "labels"
    args = ("annotate", "boxes", masks, "--to", "yolo", "--out", out)
    assert irstkit(*args).exit_code == 0
    again = irstkit(*args)
    assert again.exit_code == 1 and "--overwrite" in again.stderr
    assert irstkit(*args, "--overwrite").exit_code == 0
    (out / "notes.md").write_text("mine")
    strange = irstkit(*args, "--overwrite")
    assert strange.exit_code == 1 and "notes.md" in strange.stderr and (out / "notes.md").exists()
    wrong = irstkit("annotate", "boxes", masks, "--to", "coco", "--out", out)
    assert wrong.exit_code == 1 and "a file was expected" in wrong.stderr
    file = tmp_path / "a.json"
    file.write_text("{}")
    assert irstkit("annotate", "boxes", masks, "--to", "coco", "--out", file).exit_code == 1
    assert file.read_text() == "{}"


def test_usage(irstkit, masks, tmp_path):
    out = tmp_path / "o"
    assert irstkit("annotate", "boxes", masks, "--to", "voc", "--out", out).exit_code == 2
    assert (
        irstkit("annotate", "boxes", masks, "--to", "yolo", "--out", out, "--threshold", 300).exit_code == 2
    )
    assert irstkit("annotate", "boxes", masks, "--to", "yolo", "--out", out, "--workers", -1).exit_code == 2
    eflnet = ("--convention", "eflnet", "--connectivity", 4)
    assert irstkit("annotate", "boxes", masks, "--to", "yolo", "--out", out, *eflnet).exit_code == 1
    assert "Examples" in irstkit("annotate", "boxes", "--help").stdout


def test_yolo_gives_whole_pixels_back(irstkit, masks, tmp_path):
    assert irstkit("annotate", "boxes", masks, "--to", "yolo", "--out", tmp_path / "o").exit_code == 0
    rows = [line.split()[1:] for line in (tmp_path / "o" / "10.txt").read_text().splitlines()]
    back = yolo_to_xyxy(np.array(rows, float), (20, 30))
    assert np.rint(back).tolist() == [[5, 4, 11, 9]]
