"""The parts of curation that need no database: matching, pixels, differences, options."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irstkit.annotate.errors import IrstkitError
from irstkit.annotate.masks import Instance, instances_to_mask
from irstkit.datasets.curation import fields, pixels
from irstkit.datasets.curation.diff import compare
from irstkit.datasets.curation.embeddings import read_embeddings
from irstkit.datasets.curation.matching import Shape, match_shapes, shape_iou
from irstkit.datasets.curation.predictions import parse_options
from irstkit.datasets.curation.sources import box_annotation, mask_annotation, to_instance

points = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=5)


def at(x: float, y: float) -> Shape:
    return Shape((x, y, x + 1, y + 1), None)


@given(points, points)
@settings(max_examples=150, deadline=None)
def test_matching_is_as_large_and_then_as_near_as_can_be(a, b):
    found = match_shapes([at(*p) for p in a], [at(*p) for p in b])
    best = (0, 0.0)
    small, large, swapped = (a, b, False) if len(a) <= len(b) else (b, a, True)
    for chosen in itertools.permutations(range(len(large)), len(small)):
        near = [
            d for k, j in enumerate(chosen) if (d := float(np.hypot(*np.subtract(small[k], large[j])))) < 3
        ]
        best = max(best, (len(near), -sum(near)))
    assert len({k for k, _ in found}) == len({j for _, j in found}) == len(found)
    distances = [float(np.hypot(*np.subtract(a[k], b[j]))) for k, j in found]
    assert all(d < 3 for d in distances)
    assert (len(found), -sum(distances)) == (best[0], pytest.approx(best[1]))
    assert swapped in (True, False)


def test_three_pixels_apart_is_a_miss():
    assert match_shapes([at(0, 0)], [at(3, 0)]) == []
    assert match_shapes([at(0, 0)], [at(2.999, 0)]) == [(0, 0)]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_overlap_of_masks_is_that_of_their_pixels(seed):
    rng = np.random.default_rng(seed)
    masks = [rng.random((9, 11)) < 0.3 for _ in range(2)]
    shapes = []
    for mask in masks:
        instance = pixels.whole_instance(mask)
        assert instance is not None
        shapes.append(Shape(tuple(map(float, instance.box)), instance))
    assert shape_iou(*shapes) == pytest.approx((masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum())


# --------------------------------------------------------------------------------------------- pixels


@pytest.mark.parametrize(
    ("box", "expected", "why"),
    [
        ((2.2, 3.4, 5.7, 6.4), (2, 3, 6, 6), "nearest edges"),
        ((2.5, 3.5, 4.5, 5.5), (3, 4, 5, 6), "halves go up on both sides: the size stays"),
        ((2.1, 3.1, 2.3, 3.2), (2, 3, 3, 4), "never empty"),
        ((-3.0, -2.0, 2.0, 50.0), (0, 0, 2, 10), "cut to the image"),
        ((11.7, 9.8, 12.9, 10.6), (11, 9, 12, 10), "never outside"),
    ],
)
def test_snap_box(box, expected, why):
    assert pixels.snap_box(box, (10, 12)) == expected, why


@given(st.integers(0, 2**32 - 1), st.integers(1, 7))
@settings(max_examples=80, deadline=None)
def test_a_mask_on_whole_pixels_snaps_to_itself_at_any_resolution(seed, factor):
    rng = np.random.default_rng(seed)
    full = np.zeros((20, 24), bool)
    y, x, h, w = rng.integers(0, 12), rng.integers(0, 12), rng.integers(1, 8), rng.integers(1, 8)
    full[y : y + h, x : x + w] = rng.random((h, w)) < 0.6
    instance = pixels.whole_instance(full)
    if instance is None:
        return
    noise = rng.normal(0, 1e-5, 4)  # the database keeps fractions
    fine = np.kron(instance.mask, np.ones((factor, factor), bool))
    snapped = pixels.snap_mask(fine, tuple(np.array(instance.box) + noise), full.shape)
    assert snapped is not None
    assert snapped.box == instance.box
    assert (snapped.mask == instance.mask).all()


def test_snapping_counts_covered_area():
    mask = np.ones((1, 1), bool)
    found = pixels.snap_mask(mask, (3.4, 2.0, 6.6, 4.4), (10, 10))
    assert found is not None
    assert found.box == (3, 2, 7, 4), "columns 3 and 6 are covered by 0.6, row 4 by 0.4"
    thin = pixels.snap_mask(mask, (3.4, 2.1, 3.6, 2.3), (10, 10))
    assert thin is not None
    assert thin.box == (3, 2, 4, 3), "the pixel it covers most"
    assert pixels.snap_mask(mask, (20, 20, 22, 22), (10, 10)) is None
    assert pixels.snap_mask(~mask, (2, 2, 4, 4), (10, 10)) is None


def test_growing_finds_the_target_and_not_its_neighbour():
    rng = np.random.default_rng(0)
    image = rng.normal(100, 2, (40, 40))
    truth = np.zeros((40, 40), bool)
    truth[10:13, 10:15] = True
    image[truth] += 50
    image[10:13, 17:19] += 90
    picture = image.astype(np.uint8)
    other = Instance((17, 10, 19, 13), np.ones((3, 2), bool))
    found = pixels.grow(picture, (8.5, 8.5, 18.2, 14.5), others=[other])
    assert found is not None
    assert (instances_to_mask([found], (40, 40)) == truth).all()
    dark = pixels.grow((200 - picture).astype(np.uint8), (8.5, 8.5, 16.2, 14.5))
    assert dark is not None
    assert (instances_to_mask([dark], (40, 40)) == truth).all()
    assert pixels.grow(np.full((20, 20), 7, np.uint8), (3, 3, 9, 9)) is None
    assert pixels.grow(picture, (60, 60, 70, 70)) is None


def test_split_and_merge_are_inverse_on_pixels():
    parts = np.zeros((5, 9), bool)
    parts[1:4, 1:3] = parts[1:3, 6:8] = True
    apart = pixels.whole_instance(parts)
    joined = Instance((2, 3, 12, 5), np.ones((2, 10), bool))
    diagonal = Instance((4, 4, 6, 6), np.eye(2, dtype=bool))
    for instance, boxes in (
        (apart, {(1, 1, 3, 4), (6, 1, 8, 3)}),
        (joined, {(2, 3, 7, 5), (7, 3, 12, 5)}),
        (diagonal, {(4, 4, 5, 5), (5, 5, 6, 6)}),
    ):
        found = pixels.split(instance)
        assert {i.box for i in found} == boxes
        back = pixels.merge(found, (20, 20))
        assert back.box == instance.box
        assert (back.mask == instance.mask).all()
    one = Instance((0, 0, 1, 1), np.ones((1, 1), bool))
    assert pixels.split(one) == [one]


def test_following_a_target_along_a_sequence_until_it_is_gone():
    rng = np.random.default_rng(1)
    base = np.clip(rng.normal(100, 3, (60, 80)), 0, 255)
    frames = []
    for k in range(7):
        image = base + rng.normal(0, 1, base.shape)
        if k < 5:
            image[20 + 2 * k : 24 + 2 * k, 10 + 5 * k : 14 + 5 * k] += 60
        frames.append(image.astype(np.uint8))
    found = list(pixels.follow(frames[0], (10, 20, 14, 24), frames[1:]))
    assert [box for box, _ in found[:4]] == [
        (10 + 5 * k, 20 + 2 * k, 14 + 5 * k, 24 + 2 * k) for k in range(1, 5)
    ]
    assert len(found) == 4


# ------------------------------------------------------------------------------------------ documents


def coco(*labels: dict, images: int = 2) -> dict:
    listed = [{"id": k, "file_name": f"{k}.png", "width": 20, "height": 10} for k in range(1, images + 1)]
    return {"images": listed, "annotations": [{"image_id": 1, **label} for label in labels]}


def block(number: int, x: int, y: int, side: int = 3, **extra) -> dict:
    instance = Instance((x, y, x + side, y + side), np.ones((side, side), bool))
    return {"id": number, **mask_annotation(instance, (10, 20)), **extra}


def test_a_difference_says_what_was_added_moved_and_deleted():
    a = coco(
        block(1, 1, 1),
        block(2, 6, 1),
        block(3, 12, 1),
        block(4, 1, 6),
        block(5, 6, 6, attributes={"kind": "spot"}),
    )
    b = coco(
        block(1, 1, 1), block(2, 7, 1), block(9, 12, 2, side=4), block(6, 16, 6), block(5, 6, 6, attributes={"kind": "point"})
    )  # fmt: skip
    found = compare(a, b)
    assert found.same == 1
    assert {(r["kind"], r.get("id")) for r in found.rows} == {
        ("moved", 2), ("reshaped", 3), ("attributes", 5), ("deleted", 4), ("added", 6),
    }  # fmt: skip
    assert compare(a, a).empty()
    back = compare(b, a).counts()
    assert (back["added"], back["deleted"], back["moved"]) == (1, 1, 1)


def test_a_difference_of_ids_alone_is_one_of_ids():
    found = compare(coco(block(1, 1, 1)), coco(block(7, 1, 1)))
    assert found.counts() == {"added": 0, "deleted": 0, "moved": 0, "reshaped": 0, "attributes": 0, "ids": 1}


def test_images_in_one_file_only_are_named():
    found = compare(coco(images=2), coco(images=3))
    assert (found.only_a, found.only_b, found.images) == ([], ["3.png"], 2)
    assert not found.empty()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda d: d["images"][0].update(width=21), "20x10"),
        (lambda d: d["images"][1].update(file_name="1.png"), "listed twice"),
        (lambda d: d["annotations"][0].update(image_id=77), "not listed"),
        (lambda d: d["annotations"][0].update(image_id=None), "no image_id"),
        (lambda d: d["annotations"][0].update(bbox=[1, 2]), "not a label"),
        (
            lambda d: d["annotations"][0].update(segmentation={"size": [1, 1], "counts": "x"}),
            "RLE is of size",
        ),
    ],
)
def test_documents_that_cannot_be_compared(change, match):
    b = json.loads(json.dumps(coco(block(1, 2, 1))))
    change(b)
    with pytest.raises(IrstkitError, match=match):
        compare(coco(block(1, 1, 1)), b, names=("a.json", "b.json"))


def test_diff_command(tmp_path, irstkit):
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    a.write_text(json.dumps(coco(block(1, 1, 1))))
    b.write_text(json.dumps(coco(block(1, 2, 1))))
    result = irstkit("data", "diff", a, b, "--exit-code")
    assert result.exit_code == 1
    assert "1.png: moved [1, 1, 3, 3] -> [2, 1, 3, 3]" in result.stdout
    assert irstkit("data", "diff", a, a, "--exit-code").exit_code == 0
    assert json.loads(irstkit("data", "diff", a, b, "--json").stdout)["moved"] == 1
    (tmp_path / "c.json").write_text("{")
    broken = irstkit("data", "diff", a, tmp_path / "c.json")
    assert (broken.exit_code, "c.json" in broken.stderr) == (1, True)


def test_polygons_are_read_as_pixels():
    rectangle = to_instance([[5, 7, 8, 7, 8, 10, 5, 10]], (20, 20))
    assert rectangle is not None
    assert (rectangle.box, rectangle.area) == ((5, 7, 8, 10), 9)
    assert to_instance([], (20, 20)) is None
    for bad in ([[1, 2, 3, 4]], "text", [1, 2], {"size": [5, 5], "counts": [25]}):
        with pytest.raises(ValueError, match=r"polygon|neither|size"):
            to_instance(bad, (20, 20))


# -------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("name", "expected"),
    [("kind", "kind"), ("odd key!", "odd_key_"), ("label", "attr_label"), ("scr", "attr_scr"), ("_x", "x"),
     ("3d", "attr_3d"), ("match", "attr_match"), ("", "attribute")],
)  # fmt: skip
def test_attribute_names_as_fields(name, expected):
    assert fields.field_name(name) == expected


def test_prediction_options(tmp_path):
    found = parse_options(["a.json", "net=b.json"])
    assert [(f.name, str(f.path)) for f in found] == [("predictions", "a.json"), ("net", "b.json")]
    with pytest.raises(IrstkitError, match="two files"):
        parse_options(["net=a.json", "net=b.json"])
    with pytest.raises(IrstkitError, match="cannot be the name"):
        parse_options(["ground_truth=a.json"])
    with pytest.raises(IrstkitError, match="cannot be the name"):
        parse_options(["a b=a.json"])


def test_embeddings_that_are_not_ones(tmp_path):
    path = tmp_path / "e.npz"
    for arrays, match in (
        ({"ids": np.array(["a"])}, "'embeddings' is missing"),
        ({"ids": np.array([1]), "embeddings": np.zeros((1, 2))}, "ids are N names"),
        ({"ids": np.array(["a"]), "embeddings": np.zeros((2, 2))}, r"\(1, D\) floats"),
        ({"ids": np.array(["a"]), "embeddings": np.full((1, 2), np.nan)}, "not finite"),
    ):
        np.savez(path, **arrays)
        with pytest.raises(IrstkitError, match=match):
            read_embeddings(path)
    path.write_bytes(b"not a zip")
    with pytest.raises(IrstkitError, match=r"not an \.npz"):
        read_embeddings(path)


def test_a_box_annotation_is_marked_as_derived():
    label = box_annotation((1.5, 2.0, 4.0, 3.0))
    assert (label["bbox"], label["area"], label["segmentation_source"]) == ([1.5, 2.0, 2.5, 1.0], 2.5, "box")
