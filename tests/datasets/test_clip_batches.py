"""Batches of clips: frames cut alike, no visible target without its label, a pure function of the step."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from irstkit.annotate.errors import IrstkitError
from irstkit.annotate.masks import label_mask
from irstkit.datasets.clip_batches import ClipBatches, Images, Sample, turned
from irstkit.datasets.clips import Clips
from irstkit.datasets.records import Record


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Two sequences of 4 frames, gray 20 with bright targets of 200 that move a pixel a frame."""
    root, out = tmp_path_factory.mktemp("clips"), []
    rng = np.random.default_rng(0)
    for s, size in enumerate([(40, 56), (24, 30)]):
        start = rng.integers(4, 16, (2, 2))
        for n in range(4):
            image, mask, boxes = np.full(size, 20, np.uint8), np.zeros(size, np.uint8), []
            for y, x in start + np.array([0, n]):
                image[y : y + 3, x : x + 4], mask[y : y + 3, x : x + 4] = 200, 255
                boxes.append([x, y, x + 4, y + 3])
            for kind, values in (("i", image), ("m", mask)):
                cv2.imwrite(str(root / f"{kind}{s}_{n}.png"), values)
            out.append(
                Record(
                    f"{s}/{n}", root / f"i{s}_{n}.png", mask=root / f"m{s}_{n}.png",
                    boxes=np.array(boxes, float), size=size, sequence=str(s), frame=n,
                )
            )  # fmt: skip
    return out


def covered(frame, boxes, level):
    """Every component brighter than ``level`` touches a box, and every box holds such a pixel."""
    labels, _ = label_mask(frame > level)
    inside = np.zeros(frame.shape, bool)
    for x1, y1, x2, y2 in boxes:
        part = np.s_[int(np.floor(y1)) : int(np.ceil(y2)), int(np.floor(x1)) : int(np.ceil(x2))]
        inside[part] = True
    return set(np.unique(labels)) == {0} | set(np.unique(labels[inside]))


@pytest.mark.parametrize(
    ("scale", "mosaic"), [((1.0, 1.0), 0.0), ((0.5, 2.0), 0.0), ((1.0, 1.0), 1.0), ((0.5, 2.0), 1.0)]
)
def test_no_visible_target_is_left_without_a_label(records, scale, mosaic):
    batches = ClipBatches(Images(records), 4, 32, seed=1, single=True, scale=scale, mosaic=mosaic)
    seen = 0
    for step in range(12):
        images, boxes = batches.batch(step)
        assert images.shape == (4, 1, 32, 32)
        for image, truth in zip(images.numpy(), boxes, strict=True):
            seen += len(truth)
            assert covered(image[0], truth.numpy(), 100 / 255)
            assert (truth[:, 2:] > truth[:, :2]).all() and (truth >= 0).all() and (truth <= 32).all()
    assert seen > 20


def test_boxes_are_those_of_the_pixels_without_scaling(records):
    batches = ClipBatches(Images(records), 4, 24, seed=3, single=True)
    for step in range(8):
        images, boxes = batches.batch(step)
        for image, truth in zip(images.numpy(), boxes, strict=True):
            painted = np.zeros((24, 24), bool)
            for x1, y1, x2, y2 in truth.int().tolist():
                painted[y1:y2, x1:x2] = True
            assert np.array_equal(painted, image[0] > 100 / 255)


def test_frames_of_a_clip_are_cut_alike_and_masks_follow(records):
    clips = Clips(records, 3, 1, "clamp", masks=True)
    batches = ClipBatches(clips, 2, 24, seed=2, targets="masks")
    for step in range(6):
        images, masks = batches.batch(step)
        assert images.shape == (2, 3, 1, 24, 24) and masks.shape == (2, 1, 24, 24)
        assert np.array_equal(images[:, 1, 0].numpy() > 100 / 255, masks[:, 0].numpy() > 0)
    whole = ClipBatches(clips, 1, 64, augment=False)
    k = next(k for k, r in enumerate(clips.records) if r.id == "1/0")
    sample = whole.sample(k, 0)
    # the border rule clamps: the frame before the first is the first; the one after has moved by a pixel
    assert np.array_equal(sample.frames[0], sample.frames[1])
    assert np.array_equal(sample.frames[2][:24, 1:30], sample.frames[1][:24, :29])
    assert np.allclose(sample.frames[1][24:], clips.images[k].mean() / 255)  # beyond the image: its mean


def test_a_batch_is_a_function_of_the_step(records):
    a, b = (ClipBatches(Images(records), 3, 16, seed=5, single=True, mosaic=0.5) for _ in range(2))
    b.batch(0)
    for step in (4, 9):
        (images, boxes), (same, same_boxes) = a.batch(step), b.batch(step)
        assert (images == same).all()
        assert all((x == y).all() for x, y in zip(boxes, same_boxes, strict=True))
    assert sorted(k for step in range(len(a)) for k in a.indices(step))[: len(records)]
    assert not (a.batch(0)[0] == ClipBatches(Images(records), 3, 16, seed=6, single=True).batch(0)[0]).all()


@pytest.mark.parametrize("way", range(8))
def test_turning_moves_boxes_with_their_pixels(way):
    frames = np.zeros((2, 6, 6), np.float32)
    frames[:, 1:3, 2:5] = 1
    up, left, turn = (bool(way & bit) for bit in (1, 2, 4))
    out = turned(Sample(frames, np.array([[2.0, 1, 5, 3]]), (frames[0] > 0).astype(np.uint8)), up, left, turn)
    x1, y1, x2, y2 = out.boxes[0].astype(int)
    painted = np.zeros((6, 6))
    painted[y1:y2, x1:x2] = 1
    assert (out.frames == painted).all() and (out.mask == painted).all()


def test_masks_are_never_resized(records):
    with pytest.raises(IrstkitError, match="masks are never resized"):
        ClipBatches(Clips(records, 3, 1, masks=True), targets="masks", mosaic=0.5)
