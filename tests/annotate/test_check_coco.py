"""A table of broken COCO files: every defect found, at its place; and what ``--fix`` does about it."""

from __future__ import annotations

import copy
import json

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from irstkit.annotate.findings import KINDS
from irstkit.annotate.formats.coco_check import inspect_coco
from irstkit.annotate.masks import Instance
from irstkit.annotate.rle import encode_instance

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools against NumPy 2

SIZE = (20, 30)
BLOCK = Instance((5, 7, 8, 10), np.ones((3, 3), bool))
GOOD = {
    "info": {},
    "images": [
        {"id": 1, "file_name": "a.png", "width": 30, "height": 20},
        {"id": 2, "file_name": "b.png", "width": 30, "height": 20},
    ],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "bbox": [5, 7, 3, 3], "area": 9,
         "segmentation": encode_instance(BLOCK, SIZE)},
        {"id": 2, "image_id": 1, "category_id": 1, "iscrowd": 0, "bbox": [5, 7, 3, 3.5], "area": 9,
         "segmentation": [[5, 7, 8, 7, 8, 10, 5, 10]]},
        {"id": 3, "image_id": 2, "category_id": 1, "iscrowd": 0, "bbox": [1.5, 2, 3, 4], "area": 12,
         "segmentation": [[1.5, 2, 4.5, 2, 4.5, 6, 1.5, 6]], "segmentation_source": "box"},
    ],
    "categories": [{"id": 1, "name": "target"}],
}  # fmt: skip
A = "annotations[0]"


def put(*path_and_value):
    """Set a value deep in the document."""
    *path, last, value = path_and_value

    def change(document):
        at = document
        for key in path:
            at = at[key]
        at[last] = value

    return change


def drop(*path):
    def change(document):
        at = document
        for key in path[:-1]:
            at = at[key]
        del at[path[-1]]

    return change


def annotation(key, value):
    return put("annotations", 0, key, value)


def rle(**changes):
    return annotation("segmentation", {**GOOD["annotations"][0]["segmentation"], **changes})


def both(*changes):
    def change(document):
        for one in changes:
            one(document)

    return change


NAN = float("nan")
INF = float("inf")
TABLE = [
    # structure
    (drop("images"), "missing-key", "images"),
    (drop("annotations"), "missing-key", "annotations"),
    (drop("categories"), "missing-key", "categories"),
    (put("images", {}), "wrong-type", "images"),
    (put("annotations", None), "wrong-type", "annotations"),
    (put("info", []), "wrong-type", "info"),
    (put("images", 0, 7), "wrong-type", "images[0]"),
    (put("annotations", 0, "x"), "wrong-type", "annotations[0]"),
    (put("categories", 0, []), "wrong-type", "categories[0]"),
    (both(put("images", []), put("annotations", []), put("categories", [])), "no-images", "images"),
    (put("annotations", []), "no-targets", "annotations"),
    # ids and references
    (put("images", 1, "id", 1), "duplicate-image-id", "images[1].id"),
    (put("images", 0, "id", "1"), "wrong-type", "images[0].id"),
    (put("images", 0, "id", True), "wrong-type", "images[0].id"),
    (put("images", 0, "id", 1.5), "wrong-type", "images[0].id"),
    (put("images", 1, "id", -2), "id-not-counting-from-1", "images[1].id"),
    (drop("images", 0, "id"), "missing-key", "images[0].id"),
    (put("annotations", 1, "id", 1), "duplicate-annotation-id", "annotations[1].id"),
    (annotation("id", 0), "zero-annotation-id", f"{A}.id"),
    (annotation("id", -5), "id-not-counting-from-1", f"{A}.id"),
    (annotation("id", None), "wrong-type", f"{A}.id"),
    (drop("annotations", 0, "id"), "missing-key", f"{A}.id"),
    (annotation("image_id", 99), "dangling-image", f"{A}.image_id"),
    (annotation("image_id", "1"), "wrong-type", f"{A}.image_id"),
    (drop("annotations", 0, "image_id"), "missing-key", f"{A}.image_id"),
    (annotation("category_id", 9), "dangling-category", f"{A}.category_id"),
    (drop("annotations", 0, "category_id"), "missing-key", f"{A}.category_id"),
    (put("categories", [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]), "duplicate-category-id", "categories[1].id"),
    (put("categories", [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]), "unused-category", "categories"),
    (drop("categories", 0, "name"), "missing-key", "categories[0].name"),
    (put("categories", 0, "name", 5), "wrong-type", "categories[0].name"),
    (drop("categories", 0, "id"), "missing-key", "categories[0].id"),
    # images
    (drop("images", 0, "file_name"), "missing-key", "images[0].file_name"),
    (put("images", 0, "file_name", ""), "wrong-type", "images[0].file_name"),
    (put("images", 0, "file_name", 3), "wrong-type", "images[0].file_name"),
    (put("images", 1, "file_name", "a.png"), "duplicate-file-name", "images[1].file_name"),
    (put("images", 0, "file_name", "../../a.png"), "path-leaves-root", "images[0].file_name"),
    (put("images", 0, "file_name", "/etc/passwd"), "path-leaves-root", "images[0].file_name"),
    (put("images", 0, "file_name", "C:\\a.png"), "path-leaves-root", "images[0].file_name"),
    (put("images", 0, "file_name", "x\\..\\..\\a.png"), "path-leaves-root", "images[0].file_name"),
    (drop("images", 0, "width"), "missing-key", "images[0].width"),
    (put("images", 0, "height", 0), "image-bad-size", "images[0].height"),
    (put("images", 0, "width", "30"), "wrong-type", "images[0].width"),
    # boxes
    (drop("annotations", 0, "bbox"), "missing-key", f"{A}.bbox"),
    (annotation("bbox", [5, 7, 3]), "wrong-type", f"{A}.bbox"),
    (annotation("bbox", {"x": 1}), "wrong-type", f"{A}.bbox"),
    (annotation("bbox", [5, 7, 3, "3"]), "wrong-type", f"{A}.bbox[3]"),
    (annotation("bbox", [5, 7, True, 3]), "wrong-type", f"{A}.bbox[2]"),
    (annotation("bbox", [5, NAN, 3, 3]), "not-finite", f"{A}.bbox[1]"),
    (annotation("bbox", [INF, 7, 3, 3]), "not-finite", f"{A}.bbox[0]"),
    (annotation("bbox", [5, 7, -3, 3]), "box-negative", f"{A}.bbox"),
    (annotation("bbox", [5, 7, 0, 3]), "box-empty", f"{A}.bbox"),
    (annotation("bbox", [50, 7, 3, 3]), "box-outside", f"{A}.bbox"),
    (annotation("bbox", [28, 7, 3, 3]), "box-leaves", f"{A}.bbox"),
    (put("annotations", 1, "bbox", [5, 7, 3, 3]), "box-duplicate", "annotations[1].bbox"),
    (annotation("bbox", [5, 7, 4, 4]), "box-against-mask", f"{A}.segmentation"),
    # area and crowd
    (drop("annotations", 0, "area"), "area-missing", f"{A}.area"),
    (annotation("area", "9"), "wrong-type", f"{A}.area"),
    (annotation("area", 10), "area-against-mask", f"{A}.area"),
    (annotation("area", -9), "area-negative", f"{A}.area"),
    (annotation("area", NAN), "not-finite", f"{A}.area"),
    (put("annotations", 2, "area", 13), "area-against-mask", "annotations[2].area"),
    (annotation("iscrowd", 1), "iscrowd", f"{A}.iscrowd"),
    (annotation("iscrowd", "no"), "wrong-type", f"{A}.iscrowd"),
    # segmentation
    (drop("annotations", 0, "segmentation"), "segmentation-missing", f"{A}.segmentation"),
    (annotation("segmentation", []), "segmentation-empty", f"{A}.segmentation"),
    (annotation("segmentation", [[]]), "segmentation-empty", f"{A}.segmentation"),
    (annotation("segmentation", "mask.png"), "segmentation-type", f"{A}.segmentation"),
    (annotation("segmentation", [5, 7, 8, 10]), "segmentation-type", f"{A}.segmentation[0]"),
    (annotation("segmentation", [[5, 7, 8, 10]]), "polygon-short", f"{A}.segmentation[0]"),
    (annotation("segmentation", [[5, 7]]), "polygon-short", f"{A}.segmentation[0]"),
    (annotation("segmentation", [[5, 7, 8, 7, 8, 10, 5]]), "polygon-odd", f"{A}.segmentation[0]"),
    (annotation("segmentation", [[5, 7, 8, 7, 8, "10"]]), "wrong-type", f"{A}.segmentation[0][5]"),
    (annotation("segmentation", [[5, 7, 8, 7, 8, NAN]]), "not-finite", f"{A}.segmentation[0][5]"),
    (annotation("segmentation", [[5, 7, 5, 8, 5, 9]]), "polygon-no-area", f"{A}.segmentation"),
    (annotation("segmentation", [[5, 7, 1e6, 7, 8, 10]]), "polygon-outside", f"{A}.segmentation"),
    (annotation("segmentation", {"counts": "x"}), "missing-key", f"{A}.segmentation.size"),
    (annotation("segmentation", {"size": [20, 30]}), "missing-key", f"{A}.segmentation.counts"),
    (rle(size=[30, 20]), "rle-size", f"{A}.segmentation.size"),
    (rle(size="20x30"), "rle-size", f"{A}.segmentation.size"),
    (rle(counts="!!"), "rle-damaged", f"{A}.segmentation.counts"),
    (rle(counts=[1, 2]), "rle-damaged", f"{A}.segmentation.counts"),
    (rle(counts=[700, -100]), "rle-damaged", f"{A}.segmentation.counts"),
    (rle(counts=[600]), "rle-empty", f"{A}.segmentation.counts"),
    (rle(counts=None), "rle-damaged", f"{A}.segmentation.counts"),
]  # fmt: skip


def test_the_table_is_long_enough():
    assert len(TABLE) >= 40 and len({kind for _, kind, _ in TABLE}) >= 40 - 5


def write(path, document):
    path.write_text(json.dumps(document))
    return path


def test_a_good_file_has_nothing_wrong(tmp_path):
    content = inspect_coco(write(tmp_path / "a.json", GOOD))
    assert list(content.findings) == [] and sum(len(i.labels) for i in content.images) == 3


@pytest.mark.parametrize(("change", "kind", "where"), TABLE, ids=[f"{k}-{w}" for _, k, w in TABLE])
def test_broken_coco(change, kind, where, tmp_path):
    """Found with kind and place; an error keeps the annotation out of what is read."""
    document = copy.deepcopy(GOOD)
    change(document)
    content = inspect_coco(write(tmp_path / "a.json", document))
    found = [(f.kind, f.where) for f in content.findings]
    assert (kind, where) in found
    assert all(f.kind in KINDS and f.effect and f.path for f in content.findings)
    if KINDS[kind][0] == "error" and where.startswith("annotations["):
        index = int(where.split("[")[1].split("]")[0])
        read = {label.extra.get("id") for image in content.images for label in image.labels}
        others = {a["id"] for k, a in enumerate(GOOD["annotations"]) if k != index}
        assert read <= others | {
            document["annotations"][0].get("id") if kind.startswith("duplicate") else None
        }


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", "not-json"),
        ("{", "not-json"),
        ("[]", "wrong-type"),
        ("7", "wrong-type"),
        ('{"images": [], "images": []}', "duplicate-key"),
        ("[" * 100_000, "not-json"),
        ('{"a": ' + "9" * 5000 + "}", "not-json"),
        ("\udcff", "encoding"),
    ],
)
def test_broken_json(text, kind, tmp_path, irstkit):
    path = tmp_path / "a.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert kind in [f.kind for f in inspect_coco(path).findings]
    result = irstkit("annotate", "check", path)
    assert result.exit_code == 1 and kind in result.stdout
    assert (
        irstkit(
            "annotate", "convert", path, "--from", "coco", "--to", "voc", "--out", tmp_path / "v"
        ).exit_code
        == 1
    )


def test_several_defects_are_all_listed(tmp_path, irstkit):
    document = copy.deepcopy(GOOD)
    for change in (annotation("id", 0), annotation("area", 1), put("images", 1, "width", -1)):
        change(document)
    result = irstkit("annotate", "check", write(tmp_path / "a.json", document), "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 1 and found["format"] == "coco"
    assert {"zero-annotation-id", "area-against-mask", "image-bad-size"} <= {
        f["kind"] for f in found["findings"]
    }
    assert set(found["findings"][0]) == {"severity", "kind", "path", "where", "message", "effect"}
    assert found["counts"]["error"] == 2


def test_image_files(tmp_path, irstkit):
    """Missing, truncated and wrongly sized images; nothing is said when no image is at hand."""
    path = write(tmp_path / "a.json", GOOD)
    assert irstkit("annotate", "check", path).exit_code == 0
    images = tmp_path / "images"
    images.mkdir()
    cv2.imwrite(str(images / "a.png"), np.zeros((20, 31), np.uint8))
    result = irstkit("annotate", "check", path, "--json")
    kinds = [f["kind"] for f in json.loads(result.stdout)["findings"]]
    assert kinds == ["image-size", "image-missing"]
    cv2.imwrite(str(images / "a.png"), np.zeros((20, 30), np.uint8))
    (images / "b.png").write_bytes((images / "a.png").read_bytes()[:-5])
    kinds = [f["kind"] for f in json.loads(irstkit("annotate", "check", path, "--json").stdout)["findings"]]
    assert kinds == ["image-damaged"]


@pytest.mark.parametrize(
    ("change", "says", "reason"),
    [
        (annotation("id", 0), "new id 4", "0 gets a free id"),
        (put("annotations", 1, "id", 1), "new id 4", "the later of two gets a free id"),
        (drop("annotations", 0, "id"), "new id 4", "a missing id"),
        (annotation("area", 5), "is now the mask's 9", "area from the mask"),
        (drop("annotations", 0, "area"), "is now the mask's 9", "missing area"),
        (drop("annotations", 0, "bbox"), "taken from the mask", "bbox from the mask"),
        (drop("annotations", 0, "iscrowd"), "0 added", "iscrowd"),
        (annotation("bbox", ["5", "7", 3, 3]), "is now [5.0, 7.0, 3, 3]", "numbers as text"),
        (put("images", 0, "id", "1"), "is now the number 1", "an id as text"),
        (put("images", 0, "id", 1.0), "is now the number 1", "an id with a fraction of 0"),
        (annotation("segmentation", [[]]), "the box's rectangle", "SSTNet's empty segmentation"),
        (
            put("annotations", 2, "bbox", [28, 2, 3, 4]),
            "clipped to the image: [28, 2, 2, 4]",
            "over the border",
        ),
        (
            lambda d: d["annotations"].append({**d["annotations"][0], "id": 7}),
            "it repeats annotations[0]",
            "twice",
        ),
    ],
)
def test_fix(change, says, reason, tmp_path, irstkit):
    document = copy.deepcopy(GOOD)
    change(document)
    source, out = write(tmp_path / "a.json", document), tmp_path / "b.json"
    before = source.read_bytes()
    result = irstkit("annotate", "check", source, "--fix", out, "--all")
    assert result.exit_code == 0 and says in result.stdout, reason
    assert source.read_bytes() == before
    content = inspect_coco(out)
    assert not content.findings.errors and sum(len(i.labels) for i in content.images) == 3
    coco = COCO(str(out))
    for entry in coco.anns.values():
        assert coco.annToMask(entry).shape == SIZE
    second = irstkit("annotate", "check", out, "--fix", tmp_path / "c.json")
    assert "0 repairs" in second.stdout and (tmp_path / "c.json").read_bytes() == out.read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        annotation("bbox", [5, 7, 0, 3]),
        annotation("image_id", 99),
        rle(counts="!!"),
        annotation("bbox", [90, 7, 3, 3]),
    ],
)
def test_what_would_be_a_guess_stays(change, tmp_path, irstkit):
    document = copy.deepcopy(GOOD)
    change(document)
    result = irstkit(
        "annotate", "check", write(tmp_path / "a.json", document), "--fix", tmp_path / "b.json", "--json"
    )
    fixed = json.loads(result.stdout)["fixed"]
    assert result.exit_code == 1 and fixed["counts"]["error"] >= 1
    assert json.loads((tmp_path / "b.json").read_text())["annotations"][0] == document["annotations"][0]


def test_fix_never_overwrites_by_itself(tmp_path, irstkit):
    source = write(tmp_path / "a.json", GOOD)
    assert irstkit("annotate", "check", source, "--fix", source).exit_code == 1
    (tmp_path / "b.json").write_text("mine")
    assert irstkit("annotate", "check", source, "--fix", tmp_path / "b.json").exit_code == 1
    assert (tmp_path / "b.json").read_text() == "mine"
    source.write_text('{"images": [], "images": []}')
    result = irstkit("annotate", "check", source, "--from", "coco", "--fix", tmp_path / "c.json")
    assert (
        result.exit_code == 1 and "cannot be repaired" in result.stderr and not (tmp_path / "c.json").exists()
    )
