"""Batches for training: the whole set decoded once, crops cut on the device, exact to the step.

A data set of this field fits in memory, so nothing is decoded twice: :class:`Pixels` keeps every image in its
native depth in one flat buffer, with offsets and shapes. :class:`Batches` turns it into batches. The order of
the samples and every augmentation are a pure function of (seed, position in the stream of samples), so that a
run that resumes at step K sees the bytes that an uninterrupted run sees, and on every device the same.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..annotate.console import note, track
from ..annotate.errors import IrstkitError, require
from ..annotate.files import GrayImage
from ..annotate.masks import label_mask
from .curriculum import Curriculum
from .real_share import RealShare
from .records import Record

if TYPE_CHECKING:
    import torch

Place = tuple[int, int, bool, bool, bool]
"""First row, first column, rows flipped, columns flipped, transposed."""

_ORDER, _AUGMENT, _CURRICULUM, _SHARE = 1, 2, 3, 4  # streams of random numbers: neither may move the other


def memory_bytes() -> int:
    """The machine's memory, in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _buffer(size: int, *, mapped: bool) -> NDArray[np.uint8]:
    if not mapped:
        return np.zeros(size, np.uint8)
    file = tempfile.TemporaryFile(prefix="irstkit-pixels-")  # noqa: SIM115 (lives as long as the map)
    try:
        os.posix_fallocate(file.fileno(), 0, size)  # a full disk is told now, not by a crash while writing
    except OSError as error:
        raise IrstkitError(
            f"{size / 2**30:.1f} GiB of decoded images fit neither half of the memory nor the temporary folder",
            path=tempfile.gettempdir(),
            hint="set TMPDIR to a folder with more space",
        ) from error
    return np.memmap(file, np.uint8, mode="r+", shape=(size,))


class Pixels:
    """Images and masks of records, decoded once into flat buffers.

    Attributes
    ----------
    images
        (bytes,) uint8: all images in their native depth (16-bit ones as two little-endian bytes a pixel),
        each starting at an even byte.
    masks
        (pixels,) uint8 of 0 and 1.
    image_offsets, mask_offsets
        (N,) int64: first byte of each image, first pixel of each mask.
    shapes
        (N, 2) int64: height, width.
    depths
        (N,) int64: 8 or 16.
    boxes
        One (T, 4) int64 array an image: half-open xyxy boxes of its mask's 8-connected components.
    mapped
        Whether the buffers lie in a temporary file, memory-mapped: above half of the machine's memory.
    """

    def __init__(self, records: Sequence[Record], *, workers: int = 2, shown: bool = True) -> None:
        """Decode ``records`` (images and masks) on ``workers`` threads; the result does not depend on them.

        ``shown``: with a progress bar, where the caller has none of its own.

        Raises
        ------
        IrstkitError
            When there is no record, a record has no mask, or a file cannot be read.
        """
        if not records:
            raise IrstkitError("no images to make batches of")
        self.ids = [r.id for r in records]
        shapes = np.array([r.size for r in records], np.int64)
        sizes = shapes.prod(axis=1)
        depths = np.array([r.bit_depth for r in records], np.int64)
        even = (sizes * (depths // 8) + 1) // 2 * 2
        self.shapes, self.depths = shapes, depths
        self.image_offsets = np.concatenate([[0], np.cumsum(even)[:-1]])
        self.mask_offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        self.mapped = int(even.sum() + sizes.sum()) > memory_bytes() // 2
        self.images = _buffer(int(even.sum()), mapped=self.mapped)
        self.masks = _buffer(int(sizes.sum()), mapped=self.mapped)
        self.boxes: list[NDArray[np.int64]] = []

        def decode(k: int) -> NDArray[np.int64]:
            record = records[k]
            image = record.read_image()
            if image.dtype.itemsize * 8 != record.bit_depth:
                raise IrstkitError(
                    f"{image.dtype} pixels, {record.bit_depth} bit expected", path=record.image
                )
            mask = record.read_mask()
            self.image(k)[...] = image
            self.mask(k)[...] = mask
            _, stats = label_mask(mask)
            boxes = stats[:, :4].astype(np.int64)
            boxes[:, 2:] += boxes[:, :2]
            return boxes

        with ThreadPoolExecutor(workers) as pool:
            decoded = pool.map(decode, range(len(records)))
            self.boxes = list(track(decoded, "decoding", len(records)) if shown else decoded)

    def __len__(self) -> int:
        return len(self.ids)

    def image(self, k: int) -> GrayImage:
        """Image ``k``, (H, W) uint8 or uint16: a view of the buffer."""
        h, w = self.shapes[k]
        start, wide = self.image_offsets[k], self.depths[k] // 8
        return self.images[start : start + h * w * wide].view("<u2" if wide == 2 else "u1").reshape(h, w)

    def mask(self, k: int) -> NDArray[np.uint8]:
        """Mask ``k``, (H, W) uint8 of 0 and 1: a view of the buffer."""
        h, w = self.shapes[k]
        start = self.mask_offsets[k]
        return self.masks[start : start + h * w].reshape(h, w)


class Batches:
    """Training batches: crops first, then flips and transposition, then normalisation, on ``device``.

    Samples come in a shuffled order, new in each epoch; the stream of samples runs on over the epochs, so
    that every batch is full. Images smaller than the crop are filled at the right and bottom by reflection
    (the mask by zeros); in larger ones the crop keeps a randomly chosen target whole in ``target_share`` of
    the samples and lies anywhere in the others.

    Parameters
    ----------
    records
        Images with masks, or a :class:`Pixels` made before.
    batch
        Samples a batch.
    crop
        Side of the square crop in pixels, or (height, width).
    seed
        Of the order and of the augmentation.
    augment
        Crops at random places, flips, transposition; without it the crop is centred on the first target of an
        image that is larger (top left where that is not possible) and nothing is flipped.
    device
        Where the batches are made: the buffers are kept there.
    target_share
        0 to 1.
    shuffle
        False keeps the order of ``records``.
    workers
        Decoding threads.
    curriculum
        Which images the first batches may hold; within a stage its images come in a shuffled order, again and
        again. After it the stream goes on as without.
    real_share
        How often the first records come; without it every record comes once an epoch.
    """

    def __init__(
        self,
        records: Sequence[Record] | Pixels,
        batch: int = 4,
        crop: int | tuple[int, int] = 256,
        seed: int = 0,
        augment: bool = True,
        device: str | torch.device = "cpu",
        *,
        target_share: float = 0.5,
        shuffle: bool = True,
        workers: int = 2,
        curriculum: Curriculum | None = None,
        real_share: RealShare | None = None,
    ) -> None:
        torch = self._torch = require("torch", "train")
        self.crop = (crop, crop) if isinstance(crop, int) else (int(crop[0]), int(crop[1]))
        if batch < 1 or min(self.crop) < 1:
            raise IrstkitError(f"batch and crop are at least 1, got {batch} and {self.crop}")
        if not 0 <= target_share <= 1:
            raise IrstkitError(f"target_share lies between 0 and 1, got {target_share}")
        if seed < 0:
            raise IrstkitError(f"the seed is a whole number from 0, got {seed}")
        self.pixels = records if isinstance(records, Pixels) else Pixels(records, workers=workers)
        self.batch_size, self.seed, self.augment, self.shuffle = batch, seed, augment, shuffle
        self.target_share, self.curriculum = target_share, curriculum
        if curriculum is not None and len(curriculum.scores) != len(self.pixels):
            raise IrstkitError(f"a curriculum of {len(curriculum.scores)} images for {len(self.pixels)}")
        if real_share is not None and real_share.count != len(self.pixels):
            raise IrstkitError(f"a real share of {real_share.count} images for {len(self.pixels)}")
        self.device = torch.device(device)
        self._key = np.random.SeedSequence(seed).generate_state(2, np.uint64)
        self._images: Any = None
        self._wide: Any = None
        self._masks: Any = None
        if self.device.type != "cpu" and self._fits():
            self._load()
        self._order = lru_cache(maxsize=2)(self._make_order)
        self._at = self._in_epochs if real_share is None else real_share.order(self._round)
        self._stage_order: tuple[int, NDArray[np.int64]] = (-1, np.zeros(0, np.int64))

    def __len__(self) -> int:
        """Steps an epoch: as many samples as images, each once but with a real share (the last batch goes on into the next)."""
        return -(-len(self.pixels) // self.batch_size)

    def _generator(self, stream: int, index: int) -> np.random.Generator:
        # Philox by counter: the numbers of one sample are reached without drawing those before it
        return np.random.Generator(np.random.Philox(key=self._key, counter=[0, 0, index, stream]))

    def _make_order(self, epoch: int) -> NDArray[np.int64]:
        count = len(self.pixels)
        return self._generator(_ORDER, epoch).permutation(count) if self.shuffle else np.arange(count)

    def _in_epochs(self, position: int) -> int:
        epoch, place = divmod(position, len(self.pixels))
        return int(self._order(epoch)[place])

    def _round(self, source: int, number: int, count: int) -> NDArray[np.int64]:
        if not self.shuffle:
            return np.arange(count)
        return self._generator(_SHARE, (source << 40) + number).permutation(count)

    def indices(self, step: int) -> list[int]:
        """Which images batch ``step`` holds, as indices into the records."""
        start = step * self.batch_size
        stage = self.curriculum.stage(step) if self.curriculum else None
        if stage is not None:
            return self._admitted(step, *stage)
        return [self._at(p) for p in range(start, start + self.batch_size)]

    def _admitted(self, step: int, number: int, first: int, count: int) -> list[int]:
        """The images of a batch within a stage of the curriculum."""
        assert self.curriculum is not None
        start, out = (step - first) * self.batch_size, []
        for p in range(start, start + self.batch_size):
            round_ = (number << 40) + p // count
            if self.shuffle:
                if self._stage_order[0] != round_:
                    self._stage_order = round_, self._generator(_CURRICULUM, round_).permutation(count)
                place = int(self._stage_order[1][p % count])
            else:
                place = p % count
            out.append(int(self.curriculum.order[place]))
        return out

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Batch ``step`` (0, 1, ... over all epochs).

        Returns
        -------
        images
            (B, 1, H, W) float32 in 0..1: 8-bit values / 255, 16-bit values / 65535.
        masks
            (B, 1, H, W) float32 of 0 and 1.
        """
        chosen = self.indices(step)
        plan = [self._place(k, step * self.batch_size + j) for j, k in enumerate(chosen)]
        if self._images is None:
            images, masks = self._cut(chosen, plan)
            if self.device.type == "cpu":
                return images, masks
            return (images.pin_memory().to(self.device, non_blocking=True),
                    masks.pin_memory().to(self.device, non_blocking=True))  # fmt: skip
        return self._gather(chosen, np.array(plan, np.int64))

    def one(self, k: int, position: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Image ``k`` cut and turned as sample ``position`` of a stream, on the CPU: (1, 1, H, W) each."""
        return self._cut([k], [self._place(k, position)])

    def _load(self) -> None:
        """Bring the buffers to the device."""
        torch = self._torch
        self._images = torch.from_numpy(self.pixels.images).to(self.device)
        if (self.pixels.depths == 16).any():
            self._wide = self._images.view(torch.int16)
        self._masks = torch.from_numpy(self.pixels.masks).to(self.device)

    def _fits(self) -> bool:
        """Whether the buffers take at most half of what is free on the device."""
        if self.device.type != "cuda":
            return True
        free, _ = self._torch.cuda.mem_get_info(self.device)
        needed = self.pixels.images.nbytes + self.pixels.masks.nbytes
        if needed <= free // 2:
            return True
        note(f"images stay in the memory of the machine: {needed / 2**30:.1f} of {free / 2**30:.1f} GiB free")
        return False

    def _cut(self, chosen: list[int], plan: list[Place]) -> tuple[torch.Tensor, torch.Tensor]:
        """The crops of a batch as slices, on the CPU."""
        height, width = self.crop
        images, masks = np.empty((2, len(chosen), 1, height, width), np.float32)
        for k, (y, x, up, left, turn), image_out, mask_out in zip(chosen, plan, images, masks, strict=True):
            image: NDArray = self.pixels.image(k)[y : y + height, x : x + width]
            mask = self.pixels.mask(k)[y : y + height, x : x + width]
            missing = (height - image.shape[0], width - image.shape[1])
            if any(missing):
                image = np.pad(image, ((0, missing[0]), (0, missing[1])), mode="reflect")
                mask = np.pad(mask, ((0, missing[0]), (0, missing[1])))
            flips = (slice(None, None, -1 if up else 1), slice(None, None, -1 if left else 1))
            image, mask = image[flips], mask[flips]
            if turn:
                image, mask = image.T, mask.T
            top = np.float32(65535 if image.dtype.itemsize == 2 else 255)
            np.divide(image, top, out=image_out[0], dtype=np.float32)
            mask_out[0] = mask
        return self._torch.from_numpy(images), self._torch.from_numpy(masks)

    def _gather(self, chosen: list[int], plan: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """The crops of a batch as one gather from the flat buffers, on the device; equal to :meth:`_cut`."""
        torch, (height, width), pixels = self._torch, self.crop, self.pixels
        sizes, wide = pixels.shapes[chosen], pixels.depths[chosen] == 16
        rows, rows_inside = _axis(plan[:, 0], sizes[:, 0], height, plan[:, 2])
        cols, cols_inside = _axis(plan[:, 1], sizes[:, 1], width, plan[:, 3])
        local = torch.from_numpy(rows * sizes[:, 1:]).to(self.device)[:, :, None]
        local = local + torch.from_numpy(cols).to(self.device)[:, None, :]

        def offsets(values: NDArray[np.int64]) -> Any:
            return torch.from_numpy(values).to(self.device)[:, None, None]

        images = torch.empty((len(chosen), height, width), dtype=torch.float32, device=self.device)
        for sixteen in (False, True):
            which = np.flatnonzero(wide == sixteen)
            if not len(which):
                continue
            here = torch.from_numpy(which).to(self.device)
            starts = offsets(pixels.image_offsets[chosen][which] // (2 if sixteen else 1))
            if sixteen:  # int16 is indexed on every device; its bits are the unsigned value's
                values = self._wide[local[here] + starts].to(torch.int32) & 0xFFFF
            else:
                values = self._images[local[here] + starts]
            # by a tensor: a GPU multiplies by a number's reciprocal, which is another float32 now and then
            top = torch.full((1,), 65535 if sixteen else 255, dtype=torch.float32, device=self.device)
            images[here] = values.to(torch.float32) / top
        masks = self._masks[local + offsets(pixels.mask_offsets[chosen])].to(torch.float32)
        if not (rows_inside.all() and cols_inside.all()):
            masks *= torch.from_numpy(rows_inside[:, :, None] & cols_inside[:, None, :]).to(self.device)
        if plan[:, 4].any():
            turn = torch.from_numpy(plan[:, 4].astype(bool)).to(self.device)[:, None, None]
            images = torch.where(turn, images.transpose(1, 2), images)
            masks = torch.where(turn, masks.transpose(1, 2), masks)
        return images[:, None].contiguous(), masks[:, None].contiguous()

    def _place(self, k: int, position: int) -> Place:
        """Where image ``k`` is cut and how it is turned as sample ``position`` of the stream."""
        free = np.maximum(self.pixels.shapes[k] - np.array(self.crop), 0)
        boxes = self.pixels.boxes[k]
        if not self.augment:
            start = np.zeros(2, np.int64)
            if len(boxes) and free.any():
                centre = (boxes[0, [1, 0]] + boxes[0, [3, 2]]) // 2
                start = np.clip(centre - np.array(self.crop) // 2, 0, free)
            return int(start[0]), int(start[1]), False, False, False
        keep, which, y, x, up, left, turn = self._generator(_AUGMENT, position).random(7)
        low, high = np.zeros(2, np.int64), free
        if len(boxes) and keep < self.target_share:
            box = boxes[int(which * len(boxes))]
            first = np.clip(box[[3, 2]] - np.array(self.crop), 0, free)  # the latest edge inside
            last = np.clip(box[[1, 0]], 0, free)
            low, high = np.minimum(first, last), np.maximum(first, last)  # swapped: larger than the crop
        start = low + (np.array([y, x]) * (high - low + 1)).astype(np.int64)
        return int(start[0]), int(start[1]), up < 0.5, left < 0.5, self.crop[0] == self.crop[1] and turn < 0.5


def _axis(
    start: NDArray[np.int64], size: NDArray[np.int64], length: int, flip: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(B, length) source coordinates along one axis, reflected beyond the end, and which lie inside."""
    at = start[:, None] + np.arange(length)[None, :]
    inside = at < size[:, None]
    period = np.maximum(2 * size - 2, 1)[:, None]  # reflection without repeating the edge, as often as needed
    folded = at % period
    folded = np.where(folded < size[:, None], folded, period - folded)
    backwards = flip.astype(bool)[:, None]
    return np.where(backwards, folded[:, ::-1], folded), np.where(backwards, inside[:, ::-1], inside)
