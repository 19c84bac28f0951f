"""Batches: exact pixels, order and augmentation by position, the device form equal to the plain one."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from irstkit.annotate.errors import IrstkitError
from irstkit.datasets.batches import Batches, Pixels
from irstkit.datasets.records import Record

torch = pytest.importorskip("torch")


@pytest.fixture
def records(tmp_path):
    """Sizes below, at and above the crop; one image is 16-bit; one has no target."""
    rng = np.random.default_rng(5)
    out = []
    for k, (h, w, depth) in enumerate(
        [(20, 31, 8), (32, 32, 8), (50, 41, 16), (9, 70, 8), (33, 90, 8), (7, 5, 8)]
    ):
        image = rng.integers(0, 2**depth, (h, w)).astype(np.uint16 if depth == 16 else np.uint8)
        mask = np.zeros((h, w), np.uint8)
        if k != 4:
            mask[h - 4 : h - 2, w - 5 : w - 2] = 255
            mask[1, 1] = 255
        for name, pixels in (("i", image), ("m", mask)):
            assert cv2.imwrite(str(tmp_path / f"{name}{k}.png"), pixels)
        out.append(
            Record(f"{k}", tmp_path / f"i{k}.png", tmp_path / f"m{k}.png", size=(h, w), bit_depth=depth)
        )
    return out


def test_pixels_are_those_of_the_files(records):
    pixels = Pixels(records)
    for k, record in enumerate(records):
        assert np.array_equal(pixels.image(k), record.read_image())
        assert pixels.image(k).dtype == record.read_image().dtype
        assert np.array_equal(pixels.mask(k).astype(bool), record.read_mask())


@pytest.mark.parametrize("crop", [32, 16, (24, 40), 100])
@pytest.mark.parametrize("augment", [True, False])
def test_gather_equals_slices(records, crop, augment):
    """The form for devices and the form for the CPU give the same bits, padding and 16-bit included."""
    batches = Batches(records, batch=5, crop=crop, seed=3, augment=augment)
    batches._load()
    for step in range(12):
        chosen = batches.indices(step)
        plan = [batches._place(k, step * 5 + j) for j, k in enumerate(chosen)]
        for a, b in zip(
            batches._cut(chosen, plan), batches._gather(chosen, np.array(plan, np.int64)), strict=True
        ):
            assert torch.equal(a, b)


def test_without_augmentation_pixels_are_normalised_and_padded(records):
    images, masks = Batches(records, batch=6, crop=32, augment=False, shuffle=False).batch(0)
    assert images.dtype == masks.dtype == torch.float32 and images.shape == masks.shape == (6, 1, 32, 32)
    first, truth = records[0].read_image(), records[0].read_mask()
    padded = np.pad(first, ((0, 12), (0, 1)), mode="reflect")
    assert np.array_equal(images[0, 0].numpy(), padded.astype(np.float32) / np.float32(255))
    assert np.array_equal(masks[0, 0].numpy(), np.pad(truth, ((0, 12), (0, 1))).astype(np.float32))
    wide = images[2, 0].numpy() * np.float32(65535)
    assert set(np.rint(wide).astype(int).ravel()) <= set(records[2].read_image().astype(int).ravel())


def test_batches_are_a_function_of_seed_and_position(records):
    whole = Batches(records, batch=4, crop=32, seed=9)
    one = Batches(records, batch=1, crop=32, seed=9)
    other = Batches(records, batch=4, crop=32, seed=10)
    differs = False
    for step in (5, 0, 7, 2):  # any order: nothing is drawn from a running generator
        images, masks = whole.batch(step)
        again = Batches(records, batch=4, crop=32, seed=9).batch(step)
        assert torch.equal(images, again[0]) and torch.equal(masks, again[1])
        for j in range(4):  # the batch size moves no sample
            assert torch.equal(images[j : j + 1], one.batch(4 * step + j)[0])
        differs |= not torch.equal(images, other.batch(step)[0])
    assert differs


def test_every_epoch_holds_every_image_once_and_the_order_changes(records):
    batches = Batches(records, batch=4, crop=8)
    stream = [k for step in range(6) for k in batches.indices(step)]
    epochs = [tuple(stream[i : i + 6]) for i in range(0, 24, 6)]
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
    assert len(set(epochs)) > 1 and len(batches) == 2


def test_target_share(records):
    """With share 1 every crop of an image with targets holds a whole one; the empty one is cropped."""
    batches = Batches(
        [records[2]] * 3 + [records[4]], batch=4, crop=16, seed=1, target_share=1, shuffle=False
    )
    kept = set()
    for step in range(40):
        _, masks = batches.batch(step)
        areas = masks.sum(dim=(1, 2, 3))
        assert all(int(a) in (1, 6, 7) for a in areas[:3]) and areas[3] == 0
        kept |= {int(a) for a in areas[:3]}
    assert kept >= {1, 6}  # either target
    bare = Batches([records[2]], batch=1, crop=16, seed=1, target_share=0)
    assert any(bare.batch(step)[1].sum() == 0 for step in range(40))


def test_masks_follow_their_images(tmp_path):
    """Where the mask is 1 the image is 255, whatever the crop, flip, transposition and padding."""
    mask = np.zeros((40, 23), np.uint8)
    mask[3:6, 4:9] = mask[30:32, 20:22] = 255
    for name in ("i.png", "m.png"):
        cv2.imwrite(str(tmp_path / name), mask)
    record = Record("a", tmp_path / "i.png", tmp_path / "m.png", size=(40, 23))
    batches = Batches([record], batch=8, crop=23, seed=2)  # never wider than the image: nothing is padded
    for step in range(10):
        images, masks = batches.batch(step)
        assert torch.equal(images, masks)


def test_memory_mapped_buffers_give_the_same_batches(records, monkeypatch):
    plain = Batches(records, batch=4, crop=32, seed=1)
    assert not plain.pixels.mapped
    monkeypatch.setattr("irstkit.datasets.batches.memory_bytes", lambda: 1000)
    mapped = Batches(records, batch=4, crop=32, seed=1)
    assert mapped.pixels.mapped and isinstance(mapped.pixels.images, np.memmap)
    for step in range(5):
        assert all(torch.equal(a, b) for a, b in zip(plain.batch(step), mapped.batch(step), strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_the_cpu(records):
    here, there = (Batches(records, batch=4, crop=32, seed=1, device=d) for d in ("cpu", "cuda"))
    for step in range(8):
        assert all(torch.equal(a, b.cpu()) for a, b in zip(here.batch(step), there.batch(step), strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 0}, "at least 1"),
        ({"crop": 0}, "at least 1"),
        ({"target_share": 1.5}, "between 0 and 1"),
        ({"seed": -1}, "seed"),
    ],
)
def test_wrong_settings_are_named(records, change, message):
    with pytest.raises(IrstkitError, match=message):
        Batches(records, **change)


def test_no_records_and_no_mask(records):
    with pytest.raises(IrstkitError, match="no images"):
        Batches([])
    with pytest.raises(IrstkitError, match="no mask"):
        Batches([Record("x", records[0].image, None, size=records[0].size)])
