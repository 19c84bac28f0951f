"""Every pair of formats that can carry the same content, both ways; what a format cannot carry is refused."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irstkit.annotate.convert import convert
from irstkit.annotate.errors import IrstkitError
from irstkit.annotate.files import encode_png, read_image, read_mask
from irstkit.annotate.labels import (
    Format,
    Label,
    LabelledImage,
    LabelSet,
    ReadOptions,
    WriteOptions,
    format_names,
    get_format,
    recognise,
)
from irstkit.annotate.masks import labels_to_instances, mask_to_instances
from irstkit.annotate.scan import MaskRule, merge_near

SIZE = (24, 31)
READ = ReadOptions(size=SIZE)
BOX_FORMATS = ("coco", "yolo", "voc", "sirst-v2", "sstnet")
PIXEL_FORMATS = ("masks", "instances", "coco", "polygons")


def target(folder: Path, kind: str) -> Path:
    return folder / {"coco": "a.json", "polygons": "p.json", "sstnet": "a.txt"}.get(kind, kind)


def run(source: Path, kind: str, folder: Path, to: str) -> Path:
    """Convert by the names above, ``polygons`` being COCO's other segmentation."""
    folder.mkdir(exist_ok=True)
    out = target(folder, to)
    real = {"polygons": "coco"}
    options = WriteOptions(polygons=to == "polygons")
    convert(source, out, to=real.get(to, to), source_format=real.get(kind, kind), read=READ, write=options)
    return out


def read(path: Path, kind: str) -> list[LabelledImage]:
    reader = get_format({"polygons": "coco"}.get(kind, kind)).read
    assert reader is not None
    return list(reader(path, READ).images)


def write(images: list[LabelledImage], kind: str, folder: Path, categories=("target",)) -> Path:
    writer = get_format({"polygons": "coco"}.get(kind, kind)).write
    assert writer is not None
    writer(
        LabelSet(images, len(images), categories),
        target(folder, kind),
        WriteOptions(polygons=kind == "polygons"),
    )
    return target(folder, kind)


sides = st.floats(0.5, 9.0)
boxes = st.lists(
    st.one_of(
        st.tuples(st.floats(0, 20), st.floats(0, 14), sides, sides),
        st.tuples(st.integers(0, 25), st.integers(0, 18), st.integers(1, 5), st.integers(1, 5)),
    ),
    max_size=4,
    unique_by=lambda b: tuple(round(v, 3) for v in b),
)


@pytest.mark.parametrize(("first", "second"), list(permutations(BOX_FORMATS, 2)))
@settings(max_examples=8, deadline=None)
@given(content=st.lists(boxes, min_size=1, max_size=3))
def test_boxes_there_and_back(first, second, content):
    """Boxes survive first -> second -> first to 1e-6 px, images without target too."""
    images = [
        LabelledImage(f"{k}.png", SIZE, [Label((x, y, x + w, y + h)) for x, y, w, h in rows])
        for k, rows in enumerate(content)
    ]
    with TemporaryDirectory() as name:
        folder = Path(name)
        start = write(images, first, folder)
        back = run(run(start, first, folder / "b", second), second, folder / "c", first)
        got = read(back, first)
        assert [i.name for i in got] == [i.name for i in images]
        for mine, theirs in zip(images, got, strict=True):
            assert theirs.boxes.shape == mine.boxes.shape
            assert np.abs(theirs.boxes - mine.boxes).max(initial=0) < 1e-6


label_images = st.integers(0, 2**32 - 1).map(
    lambda seed: (
        np.random.default_rng(seed).integers(0, 5, SIZE)
        * (np.random.default_rng(seed + 1).random(SIZE) < 0.2)
    )
)


@pytest.mark.parametrize(("first", "second"), list(permutations(PIXEL_FORMATS, 2)))
@settings(max_examples=6, deadline=None)
@given(values=label_images)
def test_masks_there_and_back(first, second, values):
    """The union of all targets survives to the bit; where both formats keep targets apart, every target."""
    labels = [Label(tuple(map(float, i.box)), instance=i) for i in labels_to_instances(values)]
    if "masks" in (first, second):  # a binary mask keeps apart only what does not touch
        labels = [Label(tuple(map(float, i.box)), instance=i) for i in mask_to_instances(values > 0)]
    with TemporaryDirectory() as name:
        folder = Path(name)
        start = write([LabelledImage("0.png", SIZE, labels)], first, folder)
        back = run(run(start, first, folder / "b", second), second, folder / "c", first)
        (got,) = read(back, first)
        assert [i.box for i in got.labels] == [i.box for i in labels]
        for mine, theirs in zip(labels, got.labels, strict=True):
            np.testing.assert_array_equal(mine.instance.mask, theirs.instance.mask)
        if first in ("masks", "instances"):
            same = read_image(start / "0.png"), read_image(back / "0.png")
            np.testing.assert_array_equal(*same)


@pytest.mark.parametrize("kind", ["yolo", "voc", "sstnet"])
def test_classes(kind, tmp_path):
    images = [LabelledImage("0.png", SIZE, [Label((1, 2, 3, 4), 1), Label((5, 6, 9, 9), 0)])]
    start = write(images, "coco", tmp_path, ("plane", "bird"))
    back = run(run(start, "coco", tmp_path / "b", kind), kind, tmp_path / "c", "coco")
    coco = json.loads(back.read_text())
    names = {c["id"]: c["name"] for c in coco["categories"]}
    expected = ["class 1", "target"] if kind == "sstnet" else ["bird", "plane"]
    assert [names[a["category_id"]] for a in coco["annotations"]] == expected


def test_coco_keeps_what_it_does_not_know(tmp_path):
    document = {
        "info": {"year": 2020, "note": "ä"},
        "licenses": [{"id": 1}],
        "videos": [{"id": 7}],
        "images": [{"id": 5, "file_name": "s/1.png", "width": 31, "height": 24, "frame": 1, "sha256": "ab"}],
        "annotations": [
            {"id": 9, "image_id": 5, "category_id": 3, "iscrowd": 0, "bbox": [1.5, 2, 3, 4], "area": 12.0,
             "segmentation": [[1.5, 2, 4.5, 2, 4.5, 6, 1.5, 6]], "segmentation_source": "box", "track_id": 4,
             "attributes": {"scr_achieved": 3.25, "kind": "spot"}}
        ],
        "categories": [{"id": 3, "name": "target", "colour": "red"}],
    }  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(document))
    convert(tmp_path / "a.json", tmp_path / "b.json", to="coco")
    assert json.loads((tmp_path / "b.json").read_text()) == document
    convert(tmp_path / "b.json", tmp_path / "c.json", to="coco")
    assert (tmp_path / "b.json").read_bytes() == (tmp_path / "c.json").read_bytes()


def put_mask(folder: Path, name: str, values: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(encode_png(values))
    return folder


FIVE = np.zeros(SIZE, np.uint8)
for at in ((2, 2), (2, 4), (2, 6), (10, 10), (20, 28)):
    FIVE[at] = 255
FIVE[20, 28:30] = 255


def test_min_area_and_merge_distance(tmp_path, irstkit):
    """Off by default; merged first, then filtered; recorded in every output."""
    masks = put_mask(tmp_path / "masks", "a.png", FIVE)
    args = ("annotate", "convert", masks, "--from", "masks")
    assert irstkit(*args, "--to", "coco", "--out", tmp_path / "off.json").exit_code == 0
    off = json.loads((tmp_path / "off.json").read_text())
    assert len(off["annotations"]) == 5 and "min_area" not in off["info"]["masks"]
    on = ("--min-area", 2, "--merge-distance", 2)
    result = irstkit(*args, "--to", "coco", "--out", tmp_path / "on.json", *on)
    assert "5 components: 2 merged into others, 1 left out" in result.stdout
    coco = json.loads((tmp_path / "on.json").read_text())
    assert [a["bbox"] for a in coco["annotations"]] == [[2, 2, 5, 1], [28, 20, 2, 1]]
    assert coco["annotations"][0]["area"] == 3, "the pixels between are not added"
    assert coco["info"]["masks"]["min_area"] == 2 and coco["info"]["masks"]["merge_distance"] == 2
    for kind in ("yolo", "voc", "sstnet"):
        out = tmp_path / kind
        assert irstkit(*args, "--to", kind, "--out", out, *on).exit_code == 0
        about = out / "about.json" if out.is_dir() else tmp_path / "sstnet.about.json"
        assert json.loads(about.read_text())["masks"]["min_area"] == 2
    wrong = irstkit("annotate", "convert", tmp_path / "on.json", "--to", "voc", "--out", tmp_path / "v", *on)
    assert wrong.exit_code == 1 and "go with masks" in wrong.stderr


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1.0, 1.5, 2.0, 3.0, 4.5]))
def test_merging_against_brute_force(seed, distance):
    mask = np.random.default_rng(seed).random((12, 14)) < 0.06
    points = np.argwhere(mask)
    near = (((points[:, None] - points[None]) ** 2).sum(-1) <= distance**2 + 1e-9) | np.eye(
        len(points), dtype=bool
    )
    touch = np.abs(points[:, None] - points[None]).max(-1, initial=0) <= 1
    reach = (near | touch).astype(int)
    for _ in range(len(points)):
        reach = ((reach @ reach) > 0).astype(int)
    groups = {tuple(np.flatnonzero(row)) for row in reach}
    merged = merge_near(mask_to_instances(mask), distance)
    assert len(merged) == len(groups) and sum(i.area for i in merged) == len(points)


def test_boxes_to_masks_only_when_asked(tmp_path, irstkit):
    labels = tmp_path / "labels"
    labels.mkdir()
    (labels / "a.txt").write_text("0 0.5 0.5 0.2 0.25\n")
    args = ("annotate", "convert", labels, "--to", "masks", "--out", tmp_path / "m", "--size", "20x16")
    refused = irstkit(*args)
    assert refused.exit_code == 1 and "--rectangles" in refused.stderr and not (tmp_path / "m").exists()
    assert irstkit(*args, "--rectangles").exit_code == 0
    mask = read_mask(tmp_path / "m" / "a.png")
    assert mask.sum() == 16 and mask[6:10, 8:12].all()
    assert "rectangles" in (tmp_path / "m" / "about.json").read_text()


def test_overlapping_targets_do_not_fit_a_label_image(tmp_path):
    whole = mask_to_instances(np.ones((2, 2), bool))[0]
    images = [LabelledImage("0.png", SIZE, [Label((0, 0, 2, 2), instance=whole)] * 2)]
    with pytest.raises(IrstkitError, match="shares pixels"):
        write(images, "instances", tmp_path)
    assert not any(tmp_path.iterdir())


def test_palette_label_images(tmp_path):
    """A coloured label image is read by its indices, not its colours."""
    from PIL import Image

    for depth, top in ((8, 200), (4, 15), (2, 3)):
        values = np.zeros((5, 7), np.uint8)
        values[1, 1:3], values[3, 5] = top, 1
        picture = Image.fromarray(values, "P")
        picture.putpalette(np.random.default_rng(0).integers(0, 256, 3 << depth).tolist())  # decides the bits
        folder = tmp_path / str(depth)
        folder.mkdir()
        picture.save(folder / "a.png")
        assert (folder / "a.png").read_bytes()[24:26] == bytes([depth, 3])
        (image,) = read(folder, "instances")
        assert sorted(i.box for i in image.labels) == [(1, 1, 3, 2), (5, 3, 6, 4)]


def test_eflnet_survives_coco(tmp_path):
    """EFLNet's boxes of holes become boxes in YOLO, and no target of an instance mask."""
    ring = np.zeros(SIZE, np.uint8)
    ring[4:9, 5:11] = 255
    ring[6, 7] = 0
    masks = put_mask(tmp_path / "masks", "a.png", ring)
    rule = ReadOptions(rule=MaskRule("eflnet"))
    summary = convert(masks, tmp_path / "a.json", to="coco", read=rule)
    assert (summary.boxes, summary.targets, summary.holes) == (2, 1, 1)
    convert(tmp_path / "a.json", tmp_path / "y", to="yolo")
    assert (tmp_path / "y" / "a.txt").read_text().count("\n") == 2
    convert(tmp_path / "a.json", tmp_path / "i", to="instances")
    assert read_image(tmp_path / "i" / "a.png").max() == 1
    convert(tmp_path / "a.json", tmp_path / "m", to="masks")
    np.testing.assert_array_equal(read_mask(tmp_path / "m" / "a.png"), ring > 0)


def test_workers_do_not_change_a_byte(tmp_path, make_pairs):
    root = make_pairs(70)
    for workers in (1, 2):
        read_options = ReadOptions(workers=workers, images=root / "images")
        convert(root / "masks", tmp_path / f"{workers}.json", to="coco", read=read_options)
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()
    bad = root / "masks" / "000050.png"
    bad.write_bytes(bad.read_bytes()[:-9])
    for workers in (1, 2):
        with pytest.raises(IrstkitError, match=r"000050.png: truncated PNG"):
            convert(root / "masks", tmp_path / "x.json", to="coco", read=ReadOptions(workers=workers))
        assert not (tmp_path / "x.json").exists()


def test_formats_are_recognised(tmp_path, irstkit):
    put_mask(tmp_path / "masks", "a.png", FIVE)
    for kind in ("coco", "yolo", "voc", "sstnet"):
        out = target(tmp_path, kind)
        assert irstkit("annotate", "convert", tmp_path / "masks", "--to", kind, "--out", out).exit_code == 0
        assert recognise(out).name == kind
    assert recognise(tmp_path / "masks").name == "masks"
    labels = put_mask(tmp_path / "other", "a.png", (FIVE > 0).astype(np.uint8))
    assert recognise(labels).name == "masks", "0 and 1"
    put_mask(labels, "b.png", (FIVE > 0).astype(np.uint8) * 7)
    assert recognise(labels).name == "instances", "small values besides 1"
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "a.md").write_text("hello")
    unknown = irstkit("annotate", "convert", tmp_path / "words", "--to", "coco", "--out", tmp_path / "z.json")
    assert unknown.exit_code == 1 and "--from" in unknown.stderr


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--to", "klingon", "--out", "z"), "no label format 'klingon'"),
        (("--to", "video", "--out", "z"), "read only"),
        (("--to", "coco", "--out", "masks/a.png"), "exists already"),
        (("--to", "masks", "--out", "masks", "--overwrite"), "the output is the source"),
        (("--to", "coco", "--out", "z", "--images", "nowhere"), "no such folder"),
        (("--to", "coco", "--out", "z", "--from", "yolo"), "no label file"),
    ],
)
def test_refusals(tmp_path, irstkit, monkeypatch, args, says):
    monkeypatch.chdir(tmp_path)
    put_mask(tmp_path / "masks", "a.png", FIVE)
    before = set(tmp_path.rglob("*"))
    result = irstkit("annotate", "convert", "masks", *args)
    assert result.exit_code == 1 and says in result.stderr and result.stderr.count("\n") == 1
    assert set(tmp_path.rglob("*")) == before


def test_yolo_needs_a_size(tmp_path, irstkit):
    labels = tmp_path / "labels"
    labels.mkdir()
    (labels / "a.txt").write_text("0 0.5 0.5 0.2 0.25\n")
    args = ("annotate", "convert", labels, "--to", "coco", "--out", tmp_path / "a.json")
    assert "--size WxH" in irstkit(*args).stderr
    assert irstkit(*args, "--size", "20").exit_code == 2
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.bmp"), np.zeros((16, 20), np.uint8))
    assert irstkit(*args, "--images", tmp_path / "images").exit_code == 0
    coco = json.loads((tmp_path / "a.json").read_text())
    assert coco["images"][0] == {"id": 1, "file_name": "a.bmp", "width": 20, "height": 16}
    assert (
        coco["annotations"][0]["bbox"] == [8, 6, 4, 4]
        and coco["annotations"][0]["segmentation_source"] == "box"
    )


def test_centre_points(tmp_path, irstkit):
    (tmp_path / "data5.txt").write_text("0 71 110\n1 2 3\n")
    out = tmp_path / "a.txt"
    args = (
        "annotate",
        "convert",
        tmp_path / "data5.txt",
        "--from",
        "centres",
        "--to",
        "sstnet",
        "--size",
        "256x256",
    )
    assert irstkit(*args, "--out", out, "--prefix", "/x/").exit_code == 0
    assert out.read_text() == "/x/data5/0.bmp 67,106,75,114,0\n/x/data5/1.bmp 0,0,6,7,0\n"
    assert irstkit(*args, "--out", out, "--side", 4, "--overwrite").exit_code == 0
    assert "69,108,73,112,0" in out.read_text()


def test_plugged_in_formats(monkeypatch):
    mine = Format("mine", "a plugged-in format")

    class Entry:
        name = "mine"

        def load(self):
            return mine

    monkeypatch.setattr("irstkit.annotate.labels.entry_points", lambda group: [Entry()])
    assert "mine" in format_names() and get_format("mine") is mine
    with pytest.raises(IrstkitError, match="no label format"):
        get_format("other")
