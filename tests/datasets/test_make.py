"""import, merge, split, export, tile: pixels and labels to the bit, all or nothing."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irstkit.annotate.errors import IrstkitError
from irstkit.annotate.masks import instances_to_mask, mask_to_instances
from irstkit.datasets.make import Tile, cut_targets, tile_starts, tiles_of
from irstkit.datasets.readers import open_dataset
from irstkit.datasets.records import Record
from irstkit.datasets.splits import parts_of
from irstkit.datasets.targets import Target


def pixels(data) -> dict[str, tuple[bytes, bytes]]:
    return {
        r.id.removeprefix("images/"): (r.read_image().tobytes(), r.read_mask().tobytes())
        for r in data.records
    }


def lists(root: Path, **parts: list[int]) -> None:
    (root / "50_50").mkdir()
    for part, numbers in parts.items():
        (root / f"50_50/{part}.txt").write_text("".join(f"{n:06d}\n" for n in numbers))


# --------------------------------------------------------------------------------------------- import


def test_import_keeps_pixels_lists_and_depth(irstkit, make_pairs, tmp_path):
    root = make_pairs(6)
    wide = cv2.imread(str(root / "images/000003.png"), cv2.IMREAD_UNCHANGED).astype(np.uint16) * 200
    cv2.imwrite(str(root / "images/000003.png"), wide)
    lists(root, train=[0, 1, 2], test=[3, 4, 5])
    result = irstkit("data", "import", root, "--out", tmp_path / "mine", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["images"] == 6
    before, after = open_dataset(root), open_dataset(tmp_path / "mine")
    assert after.layout == "irstkit" and not after.findings and after.default_scheme == "50_50"
    assert pixels(before) == pixels(after) and after[3].bit_depth == 16
    assert after.schemes() == before.schemes()
    for a, b in zip(before, after, strict=True):
        assert a.read_boxes().tolist() == b.boxes.tolist()
    again = irstkit("data", "import", root, "--out", tmp_path / "mine")
    assert again.exit_code == 1 and "exists already" in again.stderr
    assert irstkit("data", "info", tmp_path / "mine", "--json", "--strict").exit_code == 0


def test_import_twice_gives_the_same_bytes(irstkit, make_pairs, tmp_path):
    root = make_pairs(5)
    for name in ("a", "b"):
        assert irstkit("data", "import", root, "--out", tmp_path / name).exit_code == 0
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(files) == 11
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)


def test_import_images_with_masks_elsewhere(irstkit, make_pairs, tmp_path):
    root = make_pairs(4)
    (root / "masks").rename(tmp_path / "truth")
    (root / "images/cam1").mkdir()
    (tmp_path / "truth/cam1").mkdir()
    for k in (1, 2):
        (root / f"images/{k:06d}.png").rename(root / f"images/cam1/{k:06d}.png")
        (tmp_path / f"truth/{k:06d}.png").rename(tmp_path / f"truth/cam1/{k:06d}.png")
    args = ("data", "import", root / "images", "--masks", tmp_path / "truth", "--out", tmp_path / "o")
    assert irstkit(*args).exit_code == 0
    data = open_dataset(tmp_path / "o")
    assert [(r.id, r.sequence, r.frame) for r in data] == [
        ("images/000000", None, None), ("images/000003", None, None),
        ("images/cam1/000001", "cam1", 1), ("images/cam1/000002", "cam1", 2),
    ]  # fmt: skip


def test_import_without_labels_is_not_the_same_as_without_targets(irstkit, make_pairs, tmp_path):
    root = make_pairs(2)
    assert irstkit("data", "import", root / "images", "--out", tmp_path / "o").exit_code == 0
    data = open_dataset(tmp_path / "o")
    assert all(r.boxes is None and r.mask is None for r in data)
    for path in (root / "masks").iterdir():
        cv2.imwrite(str(path), np.zeros((48, 64), np.uint8))
    assert irstkit("data", "import", root, "--out", tmp_path / "p").exit_code == 0
    data = open_dataset(tmp_path / "p")
    assert all(r.boxes is not None and len(r.boxes) == 0 and r.mask is not None for r in data)


COCO = {
    "images": [{"id": 5, "file_name": "000000.png", "width": 64, "height": 48}],
    "annotations": [
        {"id": 1, "image_id": 5, "category_id": 1, "bbox": [3, 4, 2, 3], "track_id": 9, "mine": "kept"},
        {"id": 2, "image_id": 5, "category_id": 1, "bbox": [10.5, 4, 2, 3], "attributes": {"kind": "spot"}},
    ],
}


@pytest.mark.parametrize(
    ("name", "content", "extra"),
    [
        ("labels.json", json.dumps(COCO), ()),
        ("labels.txt", "/x/y/000000.png 3,4,5,7,0 10,4,12,7,0\n", ()),
        ("labels/000000.txt", "0 0.0625 0.11458333 0.03125 0.0625\n0 0.18 0.11 0.03125 0.0625\n", ()),
        ("labels/000000.xml",
         "<annotation><size><width>64</width><height>48</height></size>" + "".join(
             f"<object><name>t</name><bndbox><xmin>{x}</xmin><ymin>5</ymin><xmax>{x + 1}</xmax><ymax>7</ymax>"
             "</bndbox></object>" for x in (4, 11)) + "</annotation>", ("--labels-format", "voc")),
    ],
)  # fmt: skip
def test_import_labels_of_every_format(irstkit, make_pairs, tmp_path, name, content, extra):
    images = make_pairs(1) / "images"
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    source = path.parent if "/" in name else path
    result = irstkit("data", "import", images, "--labels", source, "--out", tmp_path / "o", *extra)
    assert result.exit_code == 0, result.stderr
    data = open_dataset(tmp_path / "o")
    assert np.allclose(data[0].boxes[0], [3, 4, 5, 7], atol=1e-4) and len(data[0].boxes) == 2
    assert data[0].mask is None and not (tmp_path / "o/masks").exists()
    if name == "labels.json":
        stored = json.loads((tmp_path / "o/annotations.json").read_text())["annotations"]
        assert stored[0]["mine"] == "kept" and stored[0]["track_id"] == 9 and stored[0]["id"] == 1
        assert stored[1]["attributes"] == {"kind": "spot"} and stored[1]["segmentation_source"] == "box"


def test_import_coco_segmentations_become_masks(irstkit, make_pairs, tmp_path):
    root = make_pairs(3)
    first = open_dataset(root)
    assert irstkit("data", "export", root, "--to", "coco", "--out", tmp_path / "c").exit_code == 0
    result = irstkit("data", "import", tmp_path / "c", "--out", tmp_path / "o")
    assert result.exit_code == 0, result.stderr
    assert pixels(open_dataset(tmp_path / "o")) == pixels(first)
    polygon = json.loads(json.dumps(COCO))
    polygon["annotations"] = [
        {
            "id": 1,
            "image_id": 5,
            "category_id": 1,
            "bbox": [5, 7, 3, 3],
            "segmentation": [[5, 7, 8, 7, 8, 10, 5, 10]],
        }
    ]
    (tmp_path / "p.json").write_text(json.dumps(polygon))
    args = ("data", "import", root / "images", "--labels", tmp_path / "p.json", "--out", tmp_path / "q")
    assert irstkit(*args).exit_code == 0
    mask = open_dataset(tmp_path / "q")[0].read_mask()
    assert mask.sum() == 9 and mask[7:10, 5:8].all()


@pytest.mark.parametrize(
    ("make", "args", "piece"),
    [
        (lambda t, r: (r / "masks/000001.png").unlink(), ("{r}",), "without mask"),
        (lambda t, r: (r / "images/000001.png").write_text("x"), ("{r}",), "not an image"),
        (lambda t, r: (t / "l.json").write_text("{"), ("{r}/images", "--labels", "{t}/l.json"), "not valid JSON"),
        (lambda t, r: (t / "l.md").write_text("{"), ("{r}/images", "--labels", "{t}/l.md"), "cannot tell"),
        (lambda t, r: None, ("{r}/images", "--labels", "{t}/none.json"), "no such file"),
        (lambda t, r: None, ("{r}/images", "--masks", "{t}/none"), "no such folder"),
        (lambda t, r: (t / "m").mkdir(), ("{r}/images", "--masks", "{t}/m"), "no mask in this folder"),
        (lambda t, r: None, ("{r}/images", "--masks", "{r}/masks", "--labels", "x.json"), "not both"),
        (lambda t, r: (t / "l.txt").write_text("a.png 1,2,3,4,0\n"), ("{r}/images", "--labels", "{t}/l.txt"),
         "no such image here"),
    ],
)  # fmt: skip
def test_import_writes_nothing_when_anything_is_wrong(irstkit, make_pairs, tmp_path, make, args, piece):
    root = make_pairs(3)
    make(tmp_path, root)
    told = [a.format(t=tmp_path, r=root) for a in args]
    result = irstkit("data", "import", *told, "--out", tmp_path / "o")
    assert result.exit_code == 1 and piece in result.stderr
    assert not (tmp_path / "o").exists() and not list(tmp_path.glob(".o-*"))


# ---------------------------------------------------------------------------------------------- merge


def test_merge(irstkit, make_pairs, tmp_path):
    a, b = make_pairs(3, folder="a"), make_pairs(4, (40, 40), folder="b", seed=3)
    lists(a, train=[0], test=[1, 2])
    lists(b, train=[0, 1], test=[2, 3])
    (b / "images/000003.png").write_bytes((a / "images/000000.png").read_bytes())
    (b / "masks/000003.png").write_bytes((a / "masks/000000.png").read_bytes())
    result = irstkit("data", "merge", a, b, "--out", tmp_path / "m", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["repeated"] == [["a/000000", "b/000003"]]
    data = open_dataset(tmp_path / "m")
    assert len(data) == 7 and data.default_scheme == "merged" and not data.findings
    assert [r.id for r in data.part("train")] == ["images/a/000000", "images/b/000000", "images/b/000001"]
    assert irstkit("data", "merge", a, "--out", tmp_path / "n").exit_code == 2
    same = irstkit("data", "merge", a, a, "--out", tmp_path / "n", "--names", "x,x")
    assert same.exit_code == 1 and "different names" in same.stderr


def test_merge_refuses_masks_with_boxes(irstkit, make_pairs, tmp_path):
    a, b = make_pairs(2, folder="a"), make_pairs(2, folder="b")
    assert irstkit("data", "export", b, "--to", "yolo", "--out", tmp_path / "y").exit_code == 0
    result = irstkit("data", "merge", a, tmp_path / "y", "--out", tmp_path / "m")
    assert result.exit_code == 1 and "labelled alike" in result.stderr and not (tmp_path / "m").exists()


# ---------------------------------------------------------------------------------------------- split


def test_split_is_written_where_it_is_read(irstkit, make_pairs):
    root = make_pairs(10)
    result = irstkit("data", "split", root, "--parts", "train=0.7,test=0.3", "--by", "image", "--json")
    rows = json.loads(result.stdout)["splits"]
    assert [(r["split"], r["images"]) for r in rows] == [("irstkit/test", 3), ("irstkit/train", 7)]
    data = open_dataset(root)
    assert data.schemes() == {"irstkit": {"train": 7, "test": 3}}
    assert irstkit("data", "split", root).exit_code == 1
    of = ("data", "split", root, "--of", "irstkit/train", "--parts", "train=0.5,val=0.5", "--scheme", "inner")
    assert irstkit(*of, "--by", "image").exit_code == 0
    assert sum(open_dataset(root).schemes()["inner"].values()) == 7


@pytest.mark.parametrize(
    ("args", "status", "piece"),
    [
        (("--parts", "train=0.7,test=0.2"), 1, "add up to 1"),
        (("--parts", "train=1.2,test=-0.2"), 1, "positive"),
        (("--parts", "train"), 2, "NAME=SHARE"),
        (("--parts", "../x=1"), 2, "cannot name a part"),
        (("--scheme", "a/b"), 2, "cannot name a scheme"),
        (("--by", "sequence"), 1, "in no sequence"),
        (("--stratify", "scene"), 2, "name a table"),
        (("--parts", "a=0.98,b=0.02"), 1, "would stay empty"),
    ],
)
def test_split_refuses(irstkit, make_pairs, args, status, piece):
    result = irstkit("data", "split", make_pairs(6), *args)
    assert result.exit_code == status and piece in result.stderr


@settings(max_examples=40, deadline=None)
@given(st.integers(8, 90), st.integers(3, 40), st.integers(0, 3), st.randoms(use_true_random=False))
def test_parts_of_keeps_groups_whole(count, sequences, seed, random):
    items = [Record(f"r{k}", Path("x"), sequence=f"s{k % sequences}") for k in range(count)]
    shares = {"train": 0.5, "test": 0.5}
    found = parts_of(items, shares, seed=seed)
    of = {}
    for r, part in zip(items, found, strict=True):
        assert of.setdefault(r.sequence, part) == part
    largest = max(sum(r.sequence == s for r in items) for s in of)
    assert abs(found.count("train") - count / 2) <= largest
    order = list(range(count))
    random.shuffle(order)
    again = parts_of([items[k] for k in order], shares, seed=seed)
    assert [again[order.index(k)] for k in range(count)] == found


def test_parts_of_is_exact_and_stratified():
    items = [Record(f"r{k}", Path("x"), sequence=f"s{k}") for k in range(97)]
    strata = ["sea" if k % 7 == 0 else "city" for k in range(97)]
    shares = {"train": 0.8, "val": 0.1, "test": 0.1}
    plain = parts_of(items, shares)
    assert sorted(plain.count(p) for p in shares) == [10, 10, 77]  # the largest remainders of 97
    found = parts_of(items, shares, strata=strata)
    assert all(abs(found.count(p) - share * 97) < 1 for p, share in shares.items())
    sea = [p for p, s in zip(found, strata, strict=True) if s == "sea"]
    assert abs(sea.count("train") - 0.8 * len(sea)) < 2 and sea.count("val") >= 1  # rounding is carried


def test_scenes_table(irstkit, make_pairs, tmp_path):
    root = make_pairs(6)
    table = tmp_path / "scenes.csv"
    table.write_text(
        "dataset,file,scene\n"
        + "".join(f"pairs,{k:06d}.png,{'sea' if k < 3 else 'city'}\n" for k in range(6))
    )
    args = (
        "data",
        "split",
        root,
        "--by",
        "image",
        "--stratify",
        "scene",
        "--parts",
        "a=0.34,b=0.66",
        "--scenes",
    )
    assert irstkit(*args, table).exit_code == 0
    part = {r.id for r in open_dataset(root).part("a")}
    assert len(part) == 2 and len({int(i) < 3 for i in part}) == 2
    table.write_text("file,scene\n000000.png,forest\n")
    assert "'forest' is no scene" in irstkit(*args, table).stderr
    table.write_text("name,scene\n")
    assert "no column 'file'" in irstkit(*args, table).stderr
    table.write_text("file,scene\nother.png,sea\n")
    assert "no scene for any image" in irstkit(*args, table).stderr


# --------------------------------------------------------------------------------------------- export


@pytest.mark.parametrize("kind", ["coco", "yolo", "voc", "masks", "sstnet"])
@pytest.mark.parametrize("images", ["copy", "png"])
def test_export_can_be_read_back(irstkit, make_pairs, tmp_path, kind, images):
    root = make_pairs(5)
    lists(root, train=[0, 1, 2], test=[3])
    out = tmp_path / "o"
    result = irstkit("data", "export", root, "--to", kind, "--out", out, "--images", images, "--digits", 12)
    assert result.exit_code == 0, result.stderr
    before = {r.id: r.read_boxes() for r in open_dataset(root) if r.splits}
    if kind == "voc":
        names = {p.stem for p in (out / "annotations").iterdir()}
        assert names == set(before) and (out / "splits/export/train.txt").read_text().split() == [
            "000000", "000001", "000002"]  # fmt: skip
        return
    if kind == "sstnet":
        lines = (out / "coco_train_pairs.txt").read_text().splitlines()
        boxes = [[float(v) for v in token.split(",")[:4]] for token in lines[1].split()[1:]]
        assert lines[1].startswith("images/000001.png ") and boxes == before["000001"].tolist()
        return
    data = open_dataset(out)
    after = {r.id.rpartition("/")[2]: r.read_boxes() for r in data}
    assert after.keys() == before.keys() and data.schemes().popitem()[1] == {"train": 3, "test": 1}
    assert all(np.abs(after[id] - before[id]).max() < 1e-6 for id in before)


@pytest.mark.parametrize("kind", ["coco", "webdataset"])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_export_does_not_copy_damaged_images(irstkit, make_pairs, tmp_path, kind, suffix):
    """Files are copied as they are: a truncated one would be found in the middle of a training."""
    root, out = make_pairs(3), tmp_path / "out"
    spoilt = sorted((root / "images").iterdir())[1]
    data = (
        spoilt.read_bytes()
        if suffix == ".png"
        else cv2.imencode(suffix, cv2.imread(str(spoilt), 0))[1].tobytes()
    )
    spoilt.unlink()
    spoilt.with_suffix(suffix).write_bytes(data[: len(data) * 2 // 3])
    result = irstkit("data", "export", root, "--to", kind, "--out", out)
    assert result.exit_code == 1 and "truncated" in result.stderr and spoilt.stem in result.stderr
    assert not (out / "index.json").exists() and not (out / "annotations").exists()


def test_export_refuses(irstkit, make_pairs, tmp_path):
    root = make_pairs(2)
    images = irstkit("data", "export", root / "images", "--to", "coco", "--out", tmp_path / "o")
    assert images.exit_code == 1 and "not labelled" in images.stderr and not (tmp_path / "o").exists()
    scheme = irstkit("data", "export", root, "--to", "coco", "--out", tmp_path / "o", "--scheme", "x")
    assert scheme.exit_code == 1 and "no split scheme 'x'" in scheme.stderr


# ----------------------------------------------------------------------------------------------- tile


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 400), st.integers(1, 120), st.integers(0, 60))
def test_tiles_cover_and_overlap(length, side, overlap):
    overlap = min(overlap, side - 1)
    starts = tile_starts(length, side, overlap)
    assert starts[0] == 0 and starts == sorted(set(starts))
    assert starts[-1] + min(side, length) == length
    assert all(b - a <= side - overlap for a, b in pairwise(starts))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_cut_targets_are_the_cut_mask(seed):
    rng = np.random.default_rng(seed)
    mask = cv2.dilate((rng.random((40, 50)) < 0.02).astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    targets = [Target(tuple(map(float, i.box)), i) for i in mask_to_instances(mask)]
    total = np.zeros_like(mask)
    for tile in tiles_of(mask.shape, (16, 20), 4):
        found = cut_targets(targets, tile, mask.shape)
        window = (slice(tile.y, tile.y + tile.height), slice(tile.x, tile.x + tile.width))
        painted = instances_to_mask([t.instance for t in found], (tile.height, tile.width))
        assert np.array_equal(painted, mask[window])
        total[window] |= painted
        for t in found:
            assert t.box == tuple(map(float, t.instance.box)) and t.instance.mask.any()
    assert np.array_equal(total, mask)


def test_cut_box_only_targets():
    target = Target((8.5, 2.0, 20.0, 6.0), None, {"track_id": 4})
    found = cut_targets([target], Tile(0, 0, 10, 10), (30, 30))
    assert [t.box for t in found] == [(8.5, 2.0, 10.0, 6.0)] and found[0].extra == {
        "track_id": 4,
        "cut": True,
    }
    assert cut_targets([target], Tile(20, 0, 10, 10), (30, 30)) == []


def test_tile_command(irstkit, make_pairs, tmp_path):
    root = make_pairs(3, (50, 70))
    lists(root, train=[0, 1], test=[2])
    args = ("data", "tile", root, "--size", "32", "--overlap", "8", "--out")
    assert irstkit(*args, tmp_path / "all").exit_code == 0
    data = open_dataset(tmp_path / "all")
    assert len(data) == 3 * 2 * 3 and {r.size for r in data} == {(32, 32)} and not data.findings
    assert data.schemes() == {"50_50": {"train": 12, "test": 6}}
    whole = open_dataset(root)
    for record in data:
        at = record.attributes["tile"]
        source = next(r for r in whole if r.id == at["image"])
        assert np.array_equal(
            record.read_image(), source.read_image()[at["y"] : at["y"] + 32, at["x"] : at["x"] + 32]
        )
    assert irstkit(*args, tmp_path / "some", "--drop-empty").exit_code == 0
    some = open_dataset(tmp_path / "some")
    assert 0 < len(some) < 18 and all(len(r.boxes) for r in some)
    assert (
        irstkit("data", "tile", root, "--size", "8", "--overlap", "8", "--out", tmp_path / "x").exit_code == 1
    )
    assert irstkit("data", "tile", root, "--size", "8y8", "--out", tmp_path / "x").exit_code == 2


# ------------------------------------------------------------------------------- boxes against masks


def test_info_compares_boxes_with_masks(irstkit, make_pairs, tmp_path):
    root = make_pairs(3)
    assert irstkit("data", "import", root, "--out", tmp_path / "o").exit_code == 0
    path = tmp_path / "o/annotations.json"
    coco = json.loads(path.read_text())
    coco["annotations"][0]["bbox"][0] += 1
    coco["annotations"].pop()
    path.write_text(json.dumps(coco))
    found = json.loads(irstkit("data", "info", tmp_path / "o", "--json").stdout)["findings"]
    told = {(f["kind"], f["record"]): f["message"] for f in found}
    assert set(told) == {("box-against-mask", "images/000000"), ("box-against-mask", "images/000002")}
    assert any("1 targets of the mask are in no box" in m for m in told.values())


def test_import_error_names_the_bad_rle(irstkit, make_pairs, tmp_path):
    images = make_pairs(1) / "images"
    coco = json.loads(json.dumps(COCO))
    coco["annotations"][0]["segmentation"] = {"size": [48, 64], "counts": [5, 5]}
    (tmp_path / "l.json").write_text(json.dumps(coco))
    result = irstkit("data", "import", images, "--labels", tmp_path / "l.json", "--out", tmp_path / "o")
    assert result.exit_code == 1 and "runs add up to 10" in result.stderr
    with pytest.raises(IrstkitError, match="no such folder"):
        open_dataset(tmp_path / "o")
