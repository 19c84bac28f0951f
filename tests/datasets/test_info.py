"""``irstkit data info``: the facts, and every defect a listed finding, never a traceback."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest


def facts(irstkit, *args):
    result = irstkit("data", "info", *args, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_facts(irstkit, make_pairs):
    root = make_pairs(5, (48, 64))
    (root / "splits/mine").mkdir(parents=True)
    (root / "splits/mine/train.txt").write_text("000000\n000001\n000002\n")
    (root / "splits/mine/test.txt").write_text("000003\n000004\n")
    found = facts(irstkit, root)
    assert (found["layout"], found["images"], found["masks"], found["targets"]) == ("pairs", 5, 5, 7)
    assert found["targets_per_image"] == {"1": 3, "2": 2}
    assert found["area"] == {"min": 9.0, "median": 9.0, "max": 9.0}
    assert found["sizes"] == [{"width": 64, "height": 48, "images": 5}]
    assert found["bit_depths"] == {"8": 5} and found["channels"] == {"1": 5}
    assert [(s["split"], s["images"]) for s in found["splits"]] == [("mine/train", 3), ("mine/test", 2)]
    assert all(len(s["hash"]) == 12 for s in found["splits"]) and found["findings"] == []
    table = irstkit("data", "info", root)
    assert table.exit_code == 0
    for piece in ("64 x 48", "mine/train", found["splits"][0]["hash"], "nothing wrong found"):
        assert piece in table.stdout


def test_colour_gray_masks_and_depth(irstkit, make_pairs):
    root = make_pairs(3)
    colour = cv2.imread(str(root / "images/000000.png"))
    colour[0, 0] = (1, 2, 3)
    cv2.imwrite(str(root / "images/000000.png"), colour)
    gray = cv2.imread(str(root / "images/000001.png"), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(root / "images/000001.png"), gray.astype(np.uint16) * 257)
    mask = np.zeros(gray.shape, np.uint8)
    mask[5:8, 5:8], mask[20, 20] = 255, 64
    cv2.imwrite(str(root / "masks/000002.png"), mask)
    found = facts(irstkit, root)
    assert found["colour_not_gray_equal"] == ["000000"] and found["bit_depths"] == {"16": 1, "8": 2}
    assert found["gray_masks"] == {"000002": {"targets_above_0": 2, "targets_above_127": 1}}
    assert {(f["severity"], f["kind"]) for f in found["findings"]} == {
        ("info", "colour"),
        ("warning", "gray-mask"),
    }


@pytest.mark.parametrize(
    ("damage", "kind", "piece"),
    [
        (lambda r: cut(r / "images/000001.png"), "image-unreadable", "truncated PNG"),
        (lambda r: (r / "images/000001.png").write_text("hello"), "image-unreadable", "not an image"),
        (lambda r: (r / "images/000001.png").write_bytes(b""), "image-unreadable", "empty"),
        (lambda r: cut(r / "masks/000001.png"), "mask-unreadable", "truncated PNG"),
        (lambda r: (r / "masks/000001.png").write_text("hello"), "mask-unreadable", "not an image"),
        (lambda r: (r / "masks/000001.png").unlink(), "mask-missing", "without mask"),
        (lambda r: (r / "images/000001.png").unlink(), "image-missing", "without image"),
        (lambda r: cv2.imwrite(str(r / "masks/000001.png"), np.zeros((9, 9), np.uint8)), "mask-size", "9x9"),
        (lambda r: cv2.imwrite(str(r / "masks/000001.png"), np.arange(3 * 48 * 64).reshape(48, 64, 3) % 251),
         "mask-unreadable", "colour"),
    ],
)  # fmt: skip
def test_every_defect_is_one_listed_error(irstkit, make_pairs, damage, kind, piece):
    root = make_pairs(3)
    damage(root)
    found = facts(irstkit, root)
    errors = [f for f in found["findings"] if f["severity"] == "error"]
    assert [f["kind"] for f in errors] == [kind] and piece in errors[0]["message"]
    assert errors[0]["path"].endswith("000001.png") and found["errors"] == 1
    table = irstkit("data", "info", root)
    assert table.exit_code == 0 and piece in table.stdout
    strict = irstkit("data", "info", root, "--strict")
    assert strict.exit_code == 1 and "1 error" in strict.stderr


def cut(path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])


def test_not_a_data_set(irstkit, tmp_path):
    for path, piece in [(tmp_path / "none", "no such folder"), (tmp_path, "the folder is empty")]:
        result = irstkit("data", "info", path)
        assert result.exit_code == 1 and piece in result.stderr and result.stderr.count("\n") == 1
    assert irstkit("data", "info").exit_code == 2


def test_many_findings_are_counted(irstkit, make_pairs):
    root = make_pairs(20)
    for path in (root / "masks").iterdir():
        path.unlink()
    cv2.imwrite(str(root / "masks/000000.png"), np.zeros((48, 64), np.uint8))
    assert "... and 7 more" in irstkit("data", "info", root).stdout
    assert "more (" not in irstkit("data", "info", root, "--all").stdout
