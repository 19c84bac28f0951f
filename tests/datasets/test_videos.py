"""Videos as data sets: frames decoded once, boxes a frame, what is wrong reported, splits by scene."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from irstkit.annotate import video
from irstkit.annotate.errors import IrstkitError
from irstkit.datasets.clips import Clips
from irstkit.datasets.readers import open_dataset

SIZE = (32, 48)


def write_video(path, count, *, codec="mp4v", first=40):
    """Frames of one gray level each, 10 apart: level tells the frame."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 10, SIZE[::-1])
    assert writer.isOpened()
    for n in range(count):
        writer.write(np.full((*SIZE, 3), first + 10 * n, np.uint8))
    writer.release()


@pytest.fixture
def make(tmp_path):
    """``make({name: labels}, frames)``: videos of ``frames`` frames beside their file of boxes."""

    def write(labels, frames=4, videos=None):
        for name in labels if videos is None else videos:
            write_video(tmp_path / f"{name}.mp4", frames)
        (tmp_path / "boxes_xywh_per_frame.json").write_text(json.dumps(labels))
        return tmp_path

    return write


def test_frames_with_their_boxes_counted_from_one(make):
    data = open_dataset(make({"IR_DRONE_142": [[11, 6, 4, 3], None, [11.5, 6, 4, 3], [1, 1, 2, 2]]}))
    assert (data.layout, len(data), data.findings) == ("drone-ir", 4, ())
    assert [r.id for r in data][:2] == ["IR_DRONE_142/000000", "IR_DRONE_142/000001"]
    assert [(r.sequence, r.frame, r.size) for r in data][3] == ("IR_DRONE_142", 3, SIZE)
    assert [r.read_boxes().tolist() for r in data] == [
        [[10, 5, 14, 8]], [], [[10.5, 5, 14.5, 8]], [[0, 0, 2, 2]],
    ]  # fmt: skip
    assert [round(float(r.read_image().mean()), -1) for r in data] == [40, 50, 60, 70]
    assert data.schemes() == {"by_scene": {"train": 4}} and data.default_scheme == "by_scene"


def test_a_video_is_decoded_once_whoever_asks(make, monkeypatch):
    root = make({"a": [None] * 4, "b": [None] * 4})
    opened = []
    read = video.read_video
    monkeypatch.setattr(video, "read_video", lambda p: opened.append(p.name) or read(p))
    data = open_dataset(root)
    clips = Clips(list(data), 5, 2, "clamp")
    assert opened == ["a.mp4", "b.mp4"]
    assert clips.windows[4].tolist() == [4, 4, 4, 5, 6], "sequences are not mixed"
    images = [r.read_image() for r in data]
    images[0][:] = 0
    assert data[0].read_image().any(), "what is kept is nobody's to write into"
    assert opened == ["a.mp4", "b.mp4"]
    write_video(root / "a.mp4", 3)
    assert len(video.video_frames(root / "a.mp4")) == 3, "a changed file is decoded anew"


def test_little_memory_drops_the_least_recently_used(make, monkeypatch):
    root = make({"a": [None] * 4, "b": [None] * 4})
    monkeypatch.setattr(video, "KEPT", 1)
    frames = video.video_frames(root / "a.mp4")
    assert video.video_frames(root / "a.mp4") is frames
    video.video_frames(root / "b.mp4")
    assert video.video_frames(root / "a.mp4") is not frames


BAD = [
    ([[5, 5, 3, 3]] * 5, "label-count", "warning", "a", "5 labels for 4 frames: the last 1 left out"),
    ([[5, 5, 3, 3]] * 3, "label-missing", "error", "a[3]", "3 labels: this frame has none"),
    ([None, [5, 5, 0, 3], None, None], "box-empty", "error", "a[1]", "without area"),
    ([None, None, [5, 5, 3], None], "wrong-type", "error", "a[2]", "expected [x, y, w, h]"),
    ([[47, 5, 9, 3], None, None, None], "box-leaves", "warning", None, "leaves the image"),
    ([[99, 5, 9, 3], None, None, None], "box-outside", "warning", None, "lies outside"),
    ({"0": [1, 1, 1, 1]}, "wrong-type", "error", "a", "expected a list"),
]


@pytest.mark.parametrize(("labels", "kind", "severity", "where", "words"), BAD, ids=lambda v: str(v)[:20])
def test_what_is_wrong_is_listed_with_its_place(make, labels, kind, severity, where, words):
    data = open_dataset(make({"a": labels}))
    assert len(data) == 4 and len(data.findings) == 1
    (found,) = data.findings
    assert (found.kind, found.severity, found.where) == (kind, severity, where) and words in found.message
    if severity == "error":
        with pytest.raises(IrstkitError, match=r"boxes_xywh_per_frame.json: a"):
            data.part("all")


def test_videos_and_labels_that_lack_each_other(make):
    data = open_dataset(make({"a": [None] * 4, "gone": [None]}, videos=["a", "more"]))
    assert [(f.kind, f.severity) for f in data.findings] == [
        ("image-missing", "error"), ("label-missing", "warning"),
    ]  # fmt: skip
    assert {r.sequence: r.boxes is None for r in data} == {"a": False, "more": True}


def test_a_damaged_video_is_a_finding_and_the_others_stay(make):
    root = make({"a": [None] * 4, "b": [None] * 4})
    (root / "b.mp4").write_bytes((root / "b.mp4").read_bytes()[:200])
    data = open_dataset(root)
    assert len(data) == 4 and [(f.kind, f.path) for f in data.findings] == [("image-unreadable", "b.mp4")]
    with pytest.raises(IrstkitError, match=r"b\.mp4"):
        data.part("all")


def test_a_folder_of_videos_alone_and_an_import_of_it(irstkit, tmp_path):
    root = tmp_path / "videos"
    root.mkdir()
    write_video(root / "one.avi", 3, codec="MJPG")
    data = open_dataset(root)
    assert (data.layout, len(data), data[0].boxes) == ("videos", 3, None)
    result = irstkit("data", "import", root, "--out", tmp_path / "own")
    assert result.exit_code == 0, result.stderr
    own = open_dataset(tmp_path / "own")
    assert [r.id for r in own] == [f"images/one/{k:06d}" for k in range(3)]
    assert [(r.sequence, r.frame) for r in own] == [("one", 0), ("one", 1), ("one", 2)]
    for a, b in zip(data, own, strict=True):
        np.testing.assert_array_equal(a.read_image(), b.read_image())


def test_every_command_on_data_takes_videos(irstkit, make, tmp_path):
    root = make({"IR_DRONE_142": [[11, 6, 4, 3]] * 4, "IR_AIRPLANE_027": [[5, 6, 4, 3]] * 4})
    for arguments in (
        ("info", root), ("audit", root),
        ("export", root, "--to", "yolo", "--out", tmp_path / "yolo"),
        ("export", root, "--to", "coco", "--images", "copy", "--out", tmp_path / "coco"),
    ):  # fmt: skip
        result = irstkit("data", *arguments)
        assert result.exit_code == 0, result.stderr
    assert len(list((tmp_path / "yolo").rglob("*.png"))) == 8
    assert len(list((tmp_path / "coco").rglob("*.png"))) == 8
