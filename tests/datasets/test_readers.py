"""Readers on fabricated folders in the published namings: what is found, and what is said to be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from irstkit.annotate.errors import IrstkitError
from irstkit.datasets.readers import READERS, open_dataset
from irstkit.datasets.records import split_hash


def put(path: Path, size=(24, 32), value=90, target=None, depth=8) -> None:
    """Write a flat image or a mask with a 3x3 target at (y, x)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.full(size, value, np.uint16 if depth == 16 else np.uint8)
    if target is not None:
        image[:] = 0
        image[target[0] : target[0] + 3, target[1] : target[1] + 3] = 255
    assert cv2.imwrite(str(path), image)


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode())


def nuaa(root: Path, count=4, ending="") -> Path:
    for n in range(1, count + 1):
        put(root / f"images/Misc_{n}.png", (20 + n, 30))
        put(root / f"masks/Misc_{n}{ending}.png", (20 + n, 30), target=(n, 5))
    return root


@pytest.mark.parametrize("ending", ["", "_pixels0"])
def test_nuaa_in_both_namings_with_crlf_lists(tmp_path, ending):
    root = nuaa(tmp_path / "NUAA-SIRST", 12, ending)
    text(root / "50_50/train.txt", "Misc_2\r\nMisc_10\r\n")
    text(root / "50_50/test.txt", "Misc_1\r\nMisc_3")
    text(root / "masks/Misc_1.xml", "<annotation/>")
    text(root / "images/._Misc_1.png", "resource fork")
    data = open_dataset(root)
    assert (data.layout, data.default_scheme, len(data)) == ("nuaa-sirst", "50_50", 12)
    assert [r.id for r in data][:3] == ["Misc_1", "Misc_2", "Misc_3"]  # 2 before 10
    assert [r.id for r in data.part("train")] == ["Misc_2", "Misc_10"] and not data.findings
    assert data[1].size == (22, 30) and data[1].read_boxes().tolist() == [[5, 2, 8, 5]]
    assert "Misc_N" in data.why


def test_misc_111_is_known_by_name_and_sizes_only(tmp_path):
    known = tmp_path / "known"
    put(known / "images/Misc_111.png", (220, 325))
    put(known / "masks/Misc_111.png", (400, 592), target=(100, 200))
    data = open_dataset(known)
    assert [(f.severity, f.kind, f.record) for f in data.findings] == [("warning", "mask-size", "Misc_111")]
    assert data.part("all")[0].read_mask().shape == (220, 325)
    other = tmp_path / "other"
    put(other / "images/Misc_112.png", (220, 325))
    put(other / "masks/Misc_112.png", (400, 592), target=(100, 200))
    data = open_dataset(other)
    assert data.findings[0].severity == "error"
    with pytest.raises(IrstkitError, match=r"Misc_112\.png: the mask is 592x400, its image 325x220"):
        data.part("all")
    with pytest.raises(IrstkitError, match="592x400"):
        data[0].read_mask()  # never stretched, whoever asks


def test_joined_lists_are_unions_and_overlaps_are_errors(tmp_path):
    root = nuaa(tmp_path / "n", 6)
    text(root / "idx_427/train.txt", "Misc_1\nMisc_2\n")
    text(root / "idx_427/val.txt", "Misc_3\n")
    text(root / "idx_427/test.txt", "Misc_4\nMisc_5\n")
    text(root / "idx_427/trainval.txt", "Misc_1\nMisc_2\nMisc_3\n")
    text(root / "idx_427/trainvaltest.txt", "".join(f"Misc_{n}\n" for n in (1, 2, 3, 4, 5)))
    text(root / "leaky/train.txt", "Misc_1\nMisc_2\n")
    text(root / "leaky/test.txt", "Misc_2\nMisc_3\n")
    text(root / "same/val.txt", "Misc_1\n")
    text(root / "same/test.txt", "Misc_1\n")
    data = open_dataset(root)
    assert data.unions == {
        "idx_427/trainval": ("train", "val"),
        "idx_427/trainvaltest": ("train", "val", "test"),
        "same/test": ("val",),
    }
    assert [r.id for r in data.part("idx_427/trainval")] == ["Misc_1", "Misc_2", "Misc_3"]
    assert data.schemes()["idx_427"] == {"train": 2, "val": 1, "test": 2}
    assert list(data.schemes()["idx_427"]) == ["train", "val", "test"]
    assert len(data.part("same/test")) == 1
    with pytest.raises(IrstkitError, match="Misc_2 is in leaky/"):
        data.part("leaky/train")
    data.part("idx_427/test")  # the other scheme is not concerned


def test_list_entries_without_image_concern_only_that_list(tmp_path):
    root = nuaa(tmp_path / "n", 3)
    text(root / "50_50/train.txt", "Misc_1\nMisc_99\nMisc_1\n")
    text(root / "50_50/test.txt", "Misc_2\n")
    data = open_dataset(root)
    kinds = [(f.kind, f.where, f.split) for f in data.findings]
    assert kinds == [("list-entry", "line 2", "50_50/train"), ("list-twice", "line 3", "50_50/train")]
    assert len(data.part("50_50/test")) == 1
    with pytest.raises(IrstkitError, match=r"train\.txt: line 2: no image 'Misc_99'"):
        data.part("train")
    with pytest.raises(IrstkitError, match="50_50/train, 50_50/test"):
        data.part("60_40/train")


def test_pairs_without_partner_are_errors(tmp_path, make_pairs):
    root = make_pairs(4)
    (root / "masks/000001.png").unlink()
    (root / "images/000002.png").unlink()
    data = open_dataset(root)
    assert data.layout == "pairs"
    assert {(f.kind, f.path) for f in data.findings} == {
        ("mask-missing", "images/000001.png"),
        ("image-missing", "masks/000002.png"),
    }
    with pytest.raises(IrstkitError, match="1 more; irstkit data info"):
        data.part("all")


@pytest.mark.parametrize(
    ("image_folder", "mask_folder", "lists", "expected"),
    [
        ("IRSTD1k_Img", "IRSTD1k_Label", {}, None),
        (
            "images",
            "masks",
            {"img_idx/train_X.txt": "XDU1\n", "img_idx/test_X.txt": "XDU0\n"},
            "img_idx",
        ),
    ],
)
def test_irstd_1k_in_both_folder_namings(tmp_path, image_folder, mask_folder, lists, expected):
    for n in range(11):
        put(tmp_path / f"{image_folder}/XDU{n}.png")
        put(tmp_path / f"{mask_folder}/XDU{n}.png", target=(4, 4))
    for name, content in lists.items():
        text(tmp_path / name, content)
    data = open_dataset(tmp_path)
    assert (data.layout, len(data), data.default_scheme) == ("irstd-1k", 11, expected)
    assert [r.id for r in data][-1] == "XDU10"
    if expected:
        assert [r.id for r in data.part("train")] == ["XDU1"]


def test_nudt_needs_more_than_six_digits(tmp_path):
    """One's own 000001.png is not NUDT-SIRST: its lists or its name must say so."""
    mine, theirs = tmp_path / "mine", tmp_path / "NUDT-SIRST"
    for root in (mine, theirs):
        put(root / "images/000001.png")
        put(root / "masks/000001.png", target=(3, 3))
    assert open_dataset(mine).layout == "pairs"
    data = open_dataset(theirs)
    assert data.layout == "nudt-sirst" and data[0].source == "synthetic"
    assert open_dataset(theirs, "pairs").layout == "pairs"
    with pytest.raises(IrstkitError, match=r"no layout 'nudt'.*nudt-sirst"):
        open_dataset(theirs, "nudt")
    with pytest.raises(IrstkitError, match=r"not a data set of the layout 'irstkit': no annotations\.json"):
        open_dataset(theirs, "irstkit")


def test_images_alone_deep_and_with_equal_stems(tmp_path):
    put(tmp_path / "a/10.bmp")
    put(tmp_path / "a/2.bmp", depth=8)
    put(tmp_path / "b.png", depth=16)
    put(tmp_path / "b.tif")
    data = open_dataset(tmp_path)
    assert data.layout == "images" and [r.id for r in data] == ["a/2", "a/10", "b", "b.tif"]
    assert [r.bit_depth for r in data] == [8, 8, 16, 8] and all(r.mask is None for r in data)


def coco(root: Path, content: str) -> None:
    text(root / "annotations.json", content)
    put(root / "images/a.png")


def own(root: Path) -> dict:
    """A small data set as irstkit writes it, and its annotations."""
    document = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "target"}]}
    for k in range(3):
        name = f"images/seq/{k:06d}.png"
        put(root / name)
        put(root / f"masks/seq/{k:06d}.png", target=(k, 6))
        document["images"].append(
            {"id": k + 1, "file_name": name, "width": 32, "height": 24, "sequence": "seq", "frame": k}
            | {"source": "synthetic", "scene": "sea", "background_id": "ab"}
        )
        document["annotations"].append(
            {"id": k + 1, "image_id": k + 1, "category_id": 1, "bbox": [6, k, 3, 3], "area": 9, "track_id": 7}
            | {"attributes": {"kind": "spot", "scr_achieved": 5.0}}
        )
    text(root / "annotations.json", json.dumps(document))
    text(root / "splits/random/train.txt", "images/seq/000000\nimages/seq/000002\n")
    text(root / "splits/random/test.txt", "images/seq/000001\n")
    return document


def test_own_layout(tmp_path):
    own(tmp_path)
    data = open_dataset(tmp_path)
    assert (data.layout, data.default_scheme, data.findings) == ("irstkit", "random", ())
    record = data[1]
    assert (record.id, record.source, record.scene) == ("images/seq/000001", "synthetic", "sea")
    assert (record.sequence, record.frame, record.track_ids) == ("seq", 1, (7,))
    assert record.boxes.tolist() == [[6, 1, 9, 4]] == record.read_boxes().tolist()
    assert np.array_equal(np.argwhere(record.read_mask())[0], [1, 6])
    assert record.attributes["targets"] == ({"kind": "spot", "scr_achieved": 5.0},)
    assert record.attributes["background_id"] == "ab"
    assert [r.id for r in data.part("train")] == ["images/seq/000000", "images/seq/000002"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c["images"][0].update(file_name="../../etc/x.png"),
            r"\$\.images\[0\]\.file_name: the path",
        ),
        (lambda c: c["images"][0].update(file_name="images/none.png"), "no image file"),
        (lambda c: c["images"][0].update(file_name=3), "no file_name"),
        (lambda c: c["images"].insert(0, 5), "no file_name"),
        (lambda c: c["images"].append(dict(c["images"][0])), "listed twice"),
        (lambda c: c["images"][0].update(width=31), "says 31x24, the image is 32x24"),
        (lambda c: (c["images"].pop(), c["annotations"].pop()), "does not list"),
        (lambda c: c["annotations"][0].update(image_id=99), r"\$\.annotations\[0\]\.image_id: no image 99"),
        (lambda c: c["annotations"][0].update(image_id=[1]), "no image None"),
        (
            lambda c: c["annotations"][0].update(bbox=[1, 2, 3]),
            r"\$\.annotations\[0\]\.bbox: bbox is not four",
        ),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, "3", 4]), "bbox is not four numbers"),
        (lambda c: c["annotations"].append(None), r"\$\.annotations\[3\]: expected an object"),
    ],
)
def test_own_layout_damaged(tmp_path, change, message):
    document = own(tmp_path)
    change(document)
    text(tmp_path / "annotations.json", json.dumps(document))
    with pytest.raises(IrstkitError, match=message):
        open_dataset(tmp_path).part("all")


def begun(path):
    """What a killed `irstkit synth images` leaves: pairs of images and masks, and no word of which are there."""
    put(path / "images/000000.png")
    put(path / "masks/000000.png")
    text(path / "synth.yaml", "count: 20")
    text(path / "parts/backgrounds.raw", "x")


def test_a_finished_synthetic_set_whose_parts_were_not_removed_yet_is_read(tmp_path):
    begun(tmp_path)
    text(tmp_path / "manifest.jsonl", "{}")
    assert open_dataset(tmp_path).layout == "pairs"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "no such folder"),
        (lambda p: p.mkdir(), "the folder is empty"),
        (lambda p: text(p, "x"), "is a file"),
        (lambda p: text(p / "readme.txt", "x"), "no data set layout fits .*no image in this"),
        (lambda p: text(p / "frame.gif", "x"), "images are .png .bmp"),
        (lambda p: begun(p), "this synthetic set is not finished"),
        (lambda p: put(p / "sets/one/masks/a.png"), "sets/one/ looks like a data set of its own"),
        (lambda p: coco(p, "{}"), "the list 'images' is missing"),
        (lambda p: coco(p, '{"images": [], "annotations": []}'), "no image in this data set"),
    ],
)  # fmt: skip
def test_what_is_no_data_set(tmp_path, make, message):
    make(tmp_path / "x")
    with pytest.raises(IrstkitError, match=message):
        open_dataset(tmp_path / "x")


def test_split_hash_is_the_documented_one():
    import hashlib

    assert split_hash(["b", "a"]) == hashlib.sha256(b"a\nb").hexdigest()[:12]


def test_readers_are_an_explicit_dict_asked_in_order():
    assert next(iter(READERS)) == "irstkit" and list(READERS)[-1] == "images"


def test_the_image_folder_of_a_data_set_is_told(make_pairs):
    """Its lists are not seen from inside: test images could be taken for backgrounds unnoticed."""
    data = open_dataset(make_pairs(2) / "images")
    assert data.layout == "images" and [f.kind for f in data.findings] == ["inner-folder"]


def test_readers_of_other_packages(tmp_path, monkeypatch):
    """An entry point is asked when no layout of ours fits, and by name."""
    from types import SimpleNamespace

    from irstkit.datasets import readers
    from irstkit.datasets.records import Dataset, Record

    plugin = SimpleNamespace(
        match=lambda probe: readers.Match("frames.bin" in probe.entries(), "frames.bin"),
        read=lambda probe: Dataset(probe.root, "lab", (Record("a", probe.root / "frames.bin", size=(4, 4)),)),
    )
    point = SimpleNamespace(name="lab", value="lab:reader", load=lambda: plugin)
    monkeypatch.setattr(readers, "entry_points", lambda group: [point] if group == "irstkit.readers" else [])
    (tmp_path / "frames.bin").write_bytes(b"x")
    assert (open_dataset(tmp_path).layout, open_dataset(tmp_path, "lab").why) == ("lab", "frames.bin")
    (tmp_path / "frames.bin").rename(tmp_path / "other.bin")
    with pytest.raises(IrstkitError, match=r"lab: frames\.bin"):
        open_dataset(tmp_path)
    point.load = lambda: object()
    with pytest.raises(IrstkitError, match="has no functions match and read"):
        open_dataset(tmp_path, "lab")
