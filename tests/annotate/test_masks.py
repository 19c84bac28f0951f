"""Masks, instances, boxes and RLE against brute force and pycocotools."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from irstkit.annotate.boxes import (
    box_iou,
    eflnet_contours,
    mask_to_boxes,
    xywh_to_xyxy,
    xyxy_to_xywh,
    xyxy_to_yolo,
    yolo_to_xyxy,
)
from irstkit.annotate.masks import (
    Instance,
    instances_to_labels,
    instances_to_mask,
    label_mask,
    labels_to_instances,
    mask_to_instances,
)
from irstkit.annotate.rle import (
    decode_rle,
    encode_instance,
    encode_mask,
    instance_runs,
    rle_to_instance,
    unpack,
)

masks = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(
    lambda shape: st.one_of(
        arrays(np.bool_, shape),
        st.integers(0, 2**32 - 1).map(lambda s: np.random.default_rng(s).random(shape) < 0.15),
    )
)


def picture(*rows: str) -> np.ndarray:
    return np.array([[c == "#" for c in row] for row in rows])


@settings(max_examples=200, deadline=None)
@given(masks, st.sampled_from([4, 8]))
def test_instances(mask, connectivity):
    """Components equal scipy's, in raster order; they paint the mask back; their RLE is pycocotools'."""
    expected, count = scipy.ndimage.label(mask, np.ones((3, 3)) if connectivity == 8 else None)
    labels, stats = label_mask(mask, connectivity=connectivity)
    assert len(stats) == count
    np.testing.assert_array_equal(labels, expected)
    instances = mask_to_instances(mask, connectivity=connectivity)
    np.testing.assert_array_equal(instances_to_mask(instances, mask.shape), mask)
    for k, instance in enumerate(instances, start=1):
        alone = expected == k
        np.testing.assert_array_equal(instances_to_mask([instance], mask.shape), alone)
        rle = encode_instance(instance, mask.shape)
        assert rle == encode_mask(alone)
        assert coco_mask.toBbox(rle).tolist() == xyxy_to_xywh([instance.box])[0].tolist()
        assert int(coco_mask.area(rle)) == instance.area == stats[k - 1, 4]
        back = rle_to_instance(rle)
        assert back is not None and back.box == instance.box
        np.testing.assert_array_equal(back.mask, instance.mask)
        assert unpack(rle["counts"]) == instance_runs(instance, mask.shape)


@settings(max_examples=100, deadline=None)
@given(masks)
def test_rle(mask):
    rle = encode_mask(mask)
    np.testing.assert_array_equal(decode_rle(rle), mask)
    np.testing.assert_array_equal(decode_rle({"size": rle["size"], "counts": unpack(rle["counts"])}), mask)
    assert (rle_to_instance(rle) is None) == (not mask.any())


@settings(max_examples=100, deadline=None)
@given(masks)
def test_label_images(mask):
    instances = mask_to_instances(mask)
    back = labels_to_instances(instances_to_labels(instances, mask.shape))
    assert [i.box for i in back] == [i.box for i in instances]
    assert all((a.mask == b.mask).all() for a, b in zip(back, instances, strict=True))


def test_instances_beyond_the_border_are_cut():
    instance = Instance((-1, -1, 2, 2), np.ones((3, 3), bool))
    assert instances_to_labels([instance], (4, 4)).sum() == instances_to_mask([instance], (4, 4)).sum() == 4
    with pytest.raises(ValueError, match="leaves"):
        encode_instance(instance, (4, 4))
    with pytest.raises(ValueError, match="shares"):
        instances_to_labels([instance, instance], (4, 4))


@pytest.mark.parametrize(
    ("rle", "says"),
    [
        ({"size": [2, 2], "counts": [1, 2]}, "add up"),
        ({"size": [2, 2], "counts": [5, -1]}, "negative"),
        ({"size": [2, 2], "counts": [1.0, 3.0]}, "whole numbers"),
        ({"size": [2, 2], "counts": "4\x7f"}, "character"),
        ({"size": [2, 2], "counts": "o"}, "inside a number"),
        ({"size": [2, 2], "counts": None}, "counts"),
        ({"size": [2, 2, 1], "counts": "4"}, "size"),
        ({"size": ["2", 2], "counts": "4"}, "size"),
        ({"size": [0, 2], "counts": ""}, "size"),
        ({"counts": "4"}, "size"),
        ([1, 2], "size"),
        ({"size": [2, 2], "counts": "oooooooooooooooooooo0"}, "character"),
    ],
)
def test_broken_rle(rle, says):
    with pytest.raises(ValueError, match=says):
        rle_to_instance(rle)


RING = picture("....", ".###", ".#.#", ".###")


@pytest.mark.parametrize(
    ("mask", "components", "eflnet", "reason"),
    [
        (picture("..", ".."), [], [], "no target"),
        (picture("#."), [(0, 0, 1, 1)], [(0, 0, 1, 1)], "one pixel is 1 wide"),
        (picture("..#", "...", "#.."), [(2, 0, 3, 1), (0, 2, 1, 3)], [(0, 2, 1, 3), (2, 0, 3, 1)], "orders differ"),
        (picture("#.", ".#"), [(0, 0, 2, 2)], [(0, 0, 2, 2)], "a diagonal pair is one target"),
        (RING, [(1, 1, 4, 4)], [(1, 1, 4, 4), (1, 1, 4, 4)], "a hole gives a second box, one pixel larger than it"),
        (picture("###", "###"), [(0, 0, 3, 2)], [(0, 0, 3, 2)], "the whole frame"),
    ],
)  # fmt: skip
def test_conventions(mask, components, eflnet, reason):
    assert mask_to_boxes(mask).tolist() == [list(map(float, b)) for b in components]
    assert mask_to_boxes(mask, convention="eflnet").tolist() == [list(map(float, b)) for b in eflnet]


def test_connectivity_four():
    assert len(mask_to_boxes(picture("#.", ".#"), connectivity=4)) == 2
    with pytest.raises(ValueError, match="8-connected"):
        mask_to_boxes(RING, convention="eflnet", connectivity=4)
    with pytest.raises(ValueError, match="no box convention"):
        mask_to_boxes(RING, convention="other")


@settings(max_examples=100, deadline=None)
@given(masks)
def test_eflnet_holes(mask):
    """Outer contours are the components; every hole's box is the hole's own plus one pixel a side."""
    contours = eflnet_contours(mask)
    outer = sorted(c.box for c in contours if not c.hole)
    assert outer == sorted(tuple(map(int, b)) for b in mask_to_boxes(mask))
    assert all(mask[c.pixel[1], c.pixel[0]] for c in contours)
    outside, count = scipy.ndimage.label(np.pad(~mask, 1, constant_values=True))
    holes = [s for k, s in enumerate(scipy.ndimage.find_objects(outside), 1) if k != outside[0, 0]]
    expected = sorted((x.start - 2, y.start - 2, x.stop, y.stop) for y, x in holes)
    assert sorted(c.box for c in contours if c.hole) == expected
    assert count == len(holes) + 1


boxes = st.lists(
    st.tuples(st.floats(0, 500), st.floats(0, 500), st.floats(0.5, 200), st.floats(0.5, 200)), max_size=5
)


@given(boxes, st.integers(1, 4096), st.integers(1, 4096))
def test_box_conventions_round_trip(xywh, height, width):
    xyxy = xywh_to_xyxy(xywh)
    np.testing.assert_allclose(xyxy_to_xywh(xyxy), np.reshape(xywh, (-1, 4)), atol=1e-9)
    np.testing.assert_allclose(
        yolo_to_xyxy(xyxy_to_yolo(xyxy, (height, width)), (height, width)), xyxy, atol=1e-9
    )


def test_iou_vectors():
    a = xywh_to_xyxy([(10, 10, 3, 3)])
    assert box_iou(a, xywh_to_xyxy([(11, 10, 3, 3)]))[0, 0] == 0.5
    assert box_iou(a, xywh_to_xyxy([(11, 11, 3, 3)]))[0, 0] == pytest.approx(2 / 7)
    assert box_iou(a, [])[0].tolist() == [] and box_iou([(0, 0, 0, 0)], [(0, 0, 0, 0)])[0, 0] == 0
