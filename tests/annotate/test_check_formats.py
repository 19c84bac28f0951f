"""``annotate check`` and ``--fix`` on the formats besides COCO."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import scipy.io

from irstkit.annotate.errors import IrstkitError
from irstkit.annotate.files import encode_png, read_mask
from irstkit.annotate.formats.sequences import read_mat, read_video

BLOCK = np.zeros((20, 30), np.uint8)
BLOCK[7:10, 5:8] = 255


@pytest.fixture
def check(irstkit):
    """Kinds and places found, and the exit status."""

    def run(*args):
        result = irstkit("annotate", "check", *args, "--json")
        report = json.loads(result.stdout)
        return [(f["kind"], f["where"]) for f in report["findings"]], result.exit_code, report

    return run


def folder(path, **files):
    path.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        name = name.replace("__", ".")
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def test_yolo(tmp_path, check):
    labels = folder(
        tmp_path / "labels", a__txt="0 0.5 0.5 0.2 0.2\r\n\r\n0 0.5 0.5 0.2 0.2\r\n0 0.95 0.5 0.2 0.2\r\n", b__txt="", c__txt="1 0.5 0.5 0.1 0.1\n"
    )  # fmt: skip
    folder(tmp_path / "images", a__png=encode_png(BLOCK), b__png=encode_png(BLOCK), d__png=encode_png(BLOCK))
    found, status, _ = check(labels, "--images", tmp_path / "images")
    assert status == 1
    assert found == [
        ("empty-line", "line 2"), ("box-duplicate", "line 3"), ("box-leaves", "line 4"), ("label-without-image", None),
        ("image-without-label", None),
    ]  # fmt: skip
    (labels / "classes.txt").write_text("target\n")
    assert ("class-range", "line 1") in check(labels)[0]
    (labels / "classes.txt").unlink()
    _, status, report = check(labels, "--fix", tmp_path / "fixed")
    assert status == 0 and len(report["fixed"]["repairs"]) == 4 and report["fixed"]["counts"]["warning"] == 0
    assert (tmp_path / "fixed" / "a.txt").read_bytes() == (
        b"0 0.5 0.5 0.2 0.2\n0 0.9250000000 0.5000000000 0.1500000000 0.2000000000\n"
    )


OBJECT = "<object><name>t</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"


def voc(*boxes, extra=""):
    size = "<size><width>30</width><height>20</height></size>"
    inner = "\n".join(OBJECT.format(*b) for b in boxes)
    return f"<annotation><filename>a</filename>{size}\n{inner}{extra}\n<keep>this</keep></annotation>"


def test_voc_against_masks(tmp_path, check):
    """The three ways a box can disagree with the mask beside it; and the shifted numbering by its layout."""
    boxes = folder(
        tmp_path / "annotations" / "bboxes",
        good__xml=voc((6, 8, 9, 11)),
        near__xml=voc((6, 8, 10, 11)),
        far__xml=voc((20, 15, 23, 18)),
        none__xml=voc(extra="<object><name>t</name></object>"),
    )
    masks = tmp_path / "annotations" / "masks"
    folder(masks, **{f"{n}_pixels0__png": encode_png(BLOCK) for n in ("good", "near", "far", "none")})
    found, status, report = check(boxes)
    assert report["format"] == "sirst-v2" and status == 1
    assert found == [
        ("wrong-frame", "line 2"), ("box-against-mask", "line 2"), ("object-without-box", "line 2"), ("missing-label", None),
    ]  # fmt: skip
    _, status, report = check(boxes, "--fix", tmp_path / "fixed")
    assert status == 1 and report["fixed"]["repairs"] == ["none.xml: object 1: removed, it has no bndbox"]
    kinds = [f["kind"] for f in report["fixed"]["remaining"]]
    assert kinds == ["wrong-frame", "box-against-mask", "missing-label"], (
        "the masks beside the original count"
    )
    assert "<keep>this</keep>" in (tmp_path / "fixed" / "none.xml").read_text()


def test_voc_clipping(tmp_path, check):
    boxes = folder(tmp_path / "v", a__xml=voc((28, 8, 33, 11), (28, 8, 33, 11)))
    assert [k for k, _ in check(boxes, "--from", "voc")[0]] == ["box-leaves", "box-leaves", "box-duplicate"]
    _, status, _ = check(boxes, "--from", "voc", "--fix", tmp_path / "fixed")
    text = (tmp_path / "fixed" / "a.xml").read_text()
    assert status == 0 and text.count("<object>") == 1 and "<xmax>30</xmax>" in text


def test_lists(tmp_path, check):
    path = tmp_path / "a.txt"
    path.write_text("/x/s/2.bmp 1,2,3,4,0\n\n/x/s/1.bmp 28,2,33,4,0\n/x/s/2.bmp 1,2,3,4,0\n")
    found, status, _ = check(path, "--size", "30x20")
    assert status == 1 and found == [
        ("empty-line", "line 2"), ("box-leaves", "line 3"), ("order", "line 3"), ("duplicate-entry", "line 4"),
    ]  # fmt: skip
    _, status, report = check(path, "--size", "30x20", "--fix", tmp_path / "b.txt")
    assert status == 0 and len(report["fixed"]["repairs"]) == 4
    assert (tmp_path / "b.txt").read_text() == "/x/s/1.bmp 28,2,30,4,0\n/x/s/2.bmp 1,2,3,4,0\n"
    path.write_text("/x/s/2.bmp 1,2,3,4,0\n/x/s/2.bmp 5,6,7,8,0\n")
    refused = check(path)[1]
    assert refused == 1
    images = folder(tmp_path / "images" / "s", **{"2__bmp": b""})
    cv2.imwrite(str(images / "2.bmp"), np.zeros((3, 4), np.uint8))
    assert ("box-outside", "line 2") not in check(path)[0]
    assert ("box-leaves", "line 1") in check(path, "--images", tmp_path / "images")[0]


def test_masks(tmp_path, check):
    gray = BLOCK.copy()
    gray[0, 0] = 60
    masks = folder(
        tmp_path / "masks",
        a__png=encode_png(BLOCK), b__png=encode_png(gray), c__png=encode_png(BLOCK // 255), d__png=encode_png(BLOCK * 0),
        e__png=encode_png(np.dstack([BLOCK, BLOCK * 0, BLOCK])), f__png=encode_png(BLOCK)[:-3], g__png=encode_png(BLOCK),
    )  # fmt: skip
    images = folder(tmp_path / "images", **{f"{n}__png": encode_png(BLOCK) for n in "abcdef"})
    folder(images, h__png=encode_png(BLOCK), a__png=encode_png(BLOCK[:, :9]))
    found, status, report = check(masks, "--images", images)
    assert status == 1 and [k for k, _ in found] == [
        "mask-size", "mask-gray", "mask-binary-0-1", "mask-empty", "mask-colour", "image-damaged", "label-without-image",
        "image-without-label", "image-without-label", "image-without-label",
    ]  # fmt: skip
    assert "> 127 gives 1 targets, > 0 gives 2" in report["findings"][1]["message"]
    for name in "ef":
        (masks / f"{name}.png").unlink()
    (masks / "rgb.png").write_bytes(encode_png(np.dstack([BLOCK] * 3)))
    _, status, report = check(masks, "--fix", tmp_path / "fixed")
    assert report["fixed"]["repairs"] == ["c.png: 0 and 1 became 0 and 255", "rgb.png: 3 channels became one"]
    for name in ("a", "c", "g", "rgb"):
        np.testing.assert_array_equal(read_mask(tmp_path / "fixed" / f"{name}.png"), BLOCK > 0)


def test_instances(tmp_path, check):
    values = np.zeros((9, 9), np.uint16)
    values[1, 1] = values[5, 5] = 300
    masks = folder(tmp_path / "i", a__png=encode_png(values), b__png=b"x")
    found, status, _ = check(masks, "--from", "instances")
    assert status == 1 and [k for k, _ in found] == ["pieces", "image-damaged"]


def test_irdst(tmp_path, irstkit, check):
    png = encode_png(BLOCK)
    folder(tmp_path, test__txt="41/1(297)\nnot a name\n/41/1(2)\n/41/1(3)\n")
    folder(tmp_path / "masks" / "41", **{"1(297)__png": png, "1(2)__png": png})
    folder(tmp_path / "images" / "41", **{"1(297)__png": png})
    found, status, _ = check(tmp_path / "test.txt")
    assert status == 1 and found == [
        ("bad-line", "line 2"), ("image-missing", "line 3"), ("image-missing", "line 4"), ("missing-label", "line 4"),
    ]  # fmt: skip
    (tmp_path / "test.txt").write_text("/41/1(297)\n/41/1(2)\n")
    args = ("annotate", "convert", tmp_path / "test.txt", "--to", "coco", "--out", tmp_path / "a.json")
    assert irstkit(*args).exit_code == 0
    images = json.loads((tmp_path / "a.json").read_text())["images"]
    assert [(i["file_name"], i["sequence"], i["frame"]) for i in images] == [
        ("41/1(297).png", "41", 297), ("41/1(2).png", "41", 2),
    ]  # fmt: skip


def test_mirsdt(tmp_path, irstkit, check):
    root = tmp_path / "MIRSDT"
    for frame in ("00001", "00002"):
        for part in ("images", "masks"):
            folder(root / "Sequence1" / part, **{f"{frame}__png": encode_png(BLOCK)})
        (root / "Sequence1" / "Mix").mkdir(exist_ok=True)
        scipy.io.savemat(
            root / "Sequence1" / "Mix" / f"{frame}.mat", {"Mix": np.arange(24.0).reshape(2, 3, 4)}
        )
    assert check(root) == ([], 0, check(root)[2])
    stack = read_mat(root / "Sequence1" / "Mix" / "00001.mat")
    assert stack.shape == (4, 2, 3) and stack[1, 0, 1] == 5
    out = tmp_path / "a.json"
    assert irstkit("annotate", "convert", root, "--to", "coco", "--out", out).exit_code == 0
    coco = json.loads(out.read_text())
    assert [(i["file_name"], i["sequence"], i["frame"]) for i in coco["images"]] == [
        ("Sequence1/images/00001.png", "Sequence1", 1), ("Sequence1/images/00002.png", "Sequence1", 2),
    ]  # fmt: skip
    (root / "Sequence1" / "Mix" / "00002.mat").write_bytes(b"MATLAB 7.3 MAT-file")
    (root / "Sequence1" / "masks" / "00001.png").unlink()
    assert {k for k, _ in check(root)[0]} == {"unreadable", "label-without-image", "image-without-label"}


@pytest.mark.parametrize(
    ("content", "says"),
    [({"Other": 1.0}, "no variable 'Mix'"), ({"Mix": "text"}, "expected"), ({"Mix": np.nan}, "finite"), ({"Mix": np.ones((2, 2, 2, 2))}, "shape")],
)  # fmt: skip
def test_wrong_stacks(tmp_path, content, says):
    scipy.io.savemat(tmp_path / "a.mat", content)
    with pytest.raises(IrstkitError, match=says):
        read_mat(tmp_path / "a.mat")


def make_videos(path):
    path.mkdir()
    writer = cv2.VideoWriter(str(path / "v.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (32, 24))
    for k in range(3):
        writer.write(np.full((24, 32, 3), 50 + 40 * k, np.uint8))
    writer.release()
    return path


def test_videos(tmp_path, irstkit, check):
    videos = make_videos(tmp_path / "videos")
    boxes = videos / "boxes.json"
    boxes.write_text(json.dumps({"v": [[1, 1, 4, 4], None, [2.5, 3, 4, 4], [5, 5, 5, 5]]}))
    assert check(videos)[0] == [("extra-label", "v")]
    out, frames = tmp_path / "a.json", tmp_path / "frames"
    result = irstkit("annotate", "convert", videos, "--to", "coco", "--out", out, "--frames", frames)
    assert result.exit_code == 0 and "1 extra-label" in result.stdout
    coco = json.loads(out.read_text())
    assert [i["file_name"] for i in coco["images"]] == [f"v/00000{k}.png" for k in range(3)]
    assert [a["bbox"] for a in coco["annotations"]] == [[0, 0, 4, 4], [1.5, 2, 4, 4]], "numbered from 1"
    assert len(list(frames.rglob("*.png"))) == 3 and len(list(read_video(videos / "v.mp4"))) == 3
    boxes.write_text(json.dumps({"v": [[1, 1, 4, 0], [1, "1", 4, 4]], "w": [], "x": 7}))
    found = check(videos)[0]
    assert {k for k, _ in found} == {"box-empty", "wrong-type", "missing-label", "image-missing"}
    boxes.write_text(json.dumps({"v": [[1, 1, 4, 4]]}))
    again = irstkit(
        "annotate",
        "convert",
        videos,
        "--to",
        "coco",
        "--out",
        tmp_path / "b.json",
        "--frames",
        tmp_path / "g",
    )
    assert again.exit_code == 1 and "more frames than the 1 labels" in again.stderr
    assert not (tmp_path / "g").exists() and not (tmp_path / "b.json").exists(), "nothing half written"


def test_no_repairs_for_readonly_formats(tmp_path, irstkit):
    (tmp_path / "data5.txt").write_text("0 71 110\n")
    result = irstkit(
        "annotate", "check", tmp_path / "data5.txt", "--from", "centres", "--fix", tmp_path / "o"
    )
    assert result.exit_code == 1 and "no repairs for the format 'centres'" in result.stderr


def test_text_report(tmp_path, irstkit):
    """Grouped by kind with what it does to a metric; five of each unless all are asked for."""
    labels = folder(tmp_path / "labels", a__txt="0 2 2 0.1 0.1\n" * 9)
    result = irstkit("annotate", "check", labels)
    assert result.exit_code == 1 and result.stdout.startswith(
        "error box-outside (9): the target is not in the image"
    )
    assert "and 4 more (--all shows them)" in result.stdout and "9 errors" in result.stdout
    assert "more" not in irstkit("annotate", "check", labels, "--all").stdout
    assert irstkit("annotate", "check", tmp_path / "nowhere").exit_code == 1
