"""Training batches of clips, and of images with boxes: exact to the step, as :mod:`.batches` is for masks.

All frames of a clip are cut and turned alike. A target that can be seen is never left without its label: boxes
are cut at the crop's edge and kept while anything of them is inside, however small they become, and what lies
beyond an image is filled with its mean, not with a reflection that would show targets twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ..annotate.boxes import Boxes, as_boxes
from ..annotate.errors import IrstkitError, require
from .clips import Clips, decode
from .real_share import RealShare
from .records import Record

if TYPE_CHECKING:
    import torch

_ORDER, _AUGMENT, _SHARE = 1, 2, 3


class Images:
    """Images with boxes, decoded once, in the form of :class:`.clips.Clips` with a window of one."""

    def __init__(self, records: Sequence[Record], *, workers: int = 2) -> None:
        self.records = list(records)
        self.windows = np.arange(len(self.records))[:, None]
        self.images, self.boxes, self.masks = decode(self.records, workers=workers)

    def __len__(self) -> int:
        return len(self.records)


class Sample(NamedTuple):
    """(T, H, W) float32 in 0..1, half-open boxes (N, 4), and the key frame's mask or None."""

    frames: NDArray[np.float32]
    boxes: Boxes
    mask: NDArray[np.uint8] | None


class ClipBatches:
    """Batches of clips: a pure function of (seed, step).

    Parameters
    ----------
    clips
        Decoded clips or images.
    batch, crop, seed, augment, device
        As for :class:`.batches.Batches`.
    targets
        ``boxes`` or ``masks``.
    single
        Drop the time axis: batches for networks of single images.
    scale
        Range of a random magnification of the crop's content (boxes only).
    mosaic
        Share of the samples that are four crops side by side (boxes only).
    target_share
        Share of the crops that keep a randomly chosen target whole.
    real_share
        How often the first clips come, as a sample or as a part of a mosaic; without it every clip comes once
        an epoch.
    """

    def __init__(
        self,
        clips: Clips | Images,
        batch: int = 4,
        crop: int = 256,
        seed: int = 0,
        augment: bool = True,
        device: str | torch.device = "cpu",
        *,
        targets: str = "boxes",
        single: bool = False,
        scale: tuple[float, float] = (1.0, 1.0),
        mosaic: float = 0.0,
        target_share: float = 0.5,
        real_share: RealShare | None = None,
    ) -> None:
        self._torch = require("torch", "train")
        if not len(clips):
            raise IrstkitError("no clips to make batches of")
        if batch < 1 or crop < 1 or seed < 0:
            raise IrstkitError(
                f"batch and crop are at least 1, the seed at least 0, got {batch}, {crop}, {seed}"
            )
        if targets not in ("boxes", "masks"):
            raise ValueError(f"targets is 'boxes' or 'masks', got {targets!r}")
        if not 0 < scale[0] <= scale[1] or not 0 <= mosaic <= 1:
            raise IrstkitError(
                f"scale is two rising numbers above 0, mosaic a share, got {scale} and {mosaic}"
            )
        if targets == "masks" and (tuple(scale) != (1.0, 1.0) or mosaic):
            raise IrstkitError("scale and mosaic are for networks of boxes: masks are never resized")
        self.clips, self.batch_size, self.crop, self.augment = clips, batch, crop, augment
        self.targets, self.single, self.scale, self.mosaic = targets, single, scale, mosaic
        self.target_share = target_share
        self.device = self._torch.device(device)
        self._key = np.random.SeedSequence(seed).generate_state(2, np.uint64)
        if real_share is not None and real_share.count != len(clips):
            raise IrstkitError(f"a real share of {real_share.count} clips for {len(clips)}")
        self.real_share = real_share
        self._order = lru_cache(maxsize=2)(self._make_order)
        self._at = self._in_epochs if real_share is None else real_share.order(self._round)

    def __len__(self) -> int:
        """Steps an epoch."""
        return -(-len(self.clips) // self.batch_size)

    def _generator(self, stream: int, index: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=self._key, counter=[0, 0, index, stream]))

    def _make_order(self, epoch: int) -> NDArray[np.int64]:
        return self._generator(_ORDER, epoch).permutation(len(self.clips))

    def _in_epochs(self, position: int) -> int:
        epoch, place = divmod(position, len(self.clips))
        return int(self._order(epoch)[place])

    def _round(self, source: int, number: int, count: int) -> NDArray[np.int64]:
        return self._generator(_SHARE, (source << 40) + number).permutation(count)

    def indices(self, step: int) -> list[int]:
        """Which clips batch ``step`` holds."""
        start = step * self.batch_size
        return [self._at(p) for p in range(start, start + self.batch_size)]

    def batch(self, step: int) -> tuple[torch.Tensor, Any]:
        """Batch ``step``: (B, T, 1, H, W) float32 in 0..1 (``single``: (B, 1, H, W)), and the targets.

        Targets: (B, 1, H, W) masks of 0 and 1, or one (N, 4) float32 tensor of half-open xyxy boxes a clip.
        """
        torch = self._torch
        samples = [self.sample(k, step * self.batch_size + j) for j, k in enumerate(self.indices(step))]
        images = torch.from_numpy(np.stack([s.frames for s in samples])).to(self.device)
        images = images if self.single else images.unsqueeze(2)
        if self.targets == "masks":
            masks = np.stack([s.mask for s in samples if s.mask is not None])[:, None].astype(np.float32)
            return images, torch.from_numpy(masks).to(self.device)
        return images, [torch.from_numpy(s.boxes.astype(np.float32)).to(self.device) for s in samples]

    def sample(self, k: int, position: int) -> Sample:
        """Clip ``k`` as sample ``position`` of the stream."""
        rng, size = self._generator(_AUGMENT, position), self.crop
        if not self.augment:
            return self._cut(None, k, size, size)
        if rng.random() < self.mosaic:
            sample = self._mosaic(rng, k)
        else:
            sample = self._cut(rng, k, size, size)
        return turned(sample, *(rng.random(3) < 0.5))

    def _mosaic(self, rng: np.random.Generator, k: int) -> Sample:
        size = self.crop
        across, down = (rng.uniform(0.3, 0.7, 2) * size).round().astype(int)
        share = self.real_share
        others = rng.integers(len(self.clips), size=3) if share is None else share.any(rng, 3)
        rows, columns = ((0, down), (down, size)), ((0, across), (across, size))
        frames, boxes = np.zeros((self.clips.windows.shape[1], size, size), np.float32), []
        tiles = [(y, x) for y in rows for x in columns]
        for which, (y, x) in zip((k, *others), tiles, strict=True):
            part = self._cut(rng, int(which), y[1] - y[0], x[1] - x[0])
            frames[:, y[0] : y[1], x[0] : x[1]] = part.frames
            boxes.append(part.boxes + np.array([x[0], y[0], x[0], y[0]]))
        return Sample(frames, np.concatenate(boxes), None)

    def _cut(self, rng: np.random.Generator | None, k: int, height: int, width: int) -> Sample:
        """A crop of clip ``k``; without ``rng`` centred on the first target."""
        places = self.clips.windows[k]
        first = self.clips.images[k]
        factor = 1.0
        if rng is not None and self.scale[0] < self.scale[1]:
            factor = float(np.exp(rng.uniform(*np.log(self.scale))))
        elif self.scale[0] == self.scale[1]:
            factor = self.scale[0]
        patch = np.maximum(1, np.rint(np.array([height, width]) / factor).astype(int))
        top, left = self._corner(rng, first.shape, self.clips.boxes[k], patch)
        there = np.s_[top : top + patch[0], left : left + patch[1]]
        full = np.float32(65535 if first.dtype.itemsize == 2 else 255)
        frames = np.empty((len(places), height, width), np.float32)
        for out, place in zip(frames, places, strict=True):
            image = self.clips.images[place]
            cut = np.divide(image[there], full, dtype=np.float32)
            if cut.shape != tuple(patch):
                filled = np.full(patch, image.mean() / full, np.float32)
                filled[: cut.shape[0], : cut.shape[1]] = cut
                cut = filled
            if cut.shape != (height, width):
                way = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
                cut = np.asarray(cv2.resize(cut, (width, height), interpolation=way))
            out[...] = cut
        boxes = as_boxes(self.clips.boxes[k]) - [left, top, left, top]
        boxes = boxes.clip(0, [patch[1], patch[0]] * 2)
        boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]
        boxes = boxes * np.array([width / patch[1], height / patch[0]] * 2)
        mask = None
        if self.targets == "masks":
            mask = np.zeros((height, width), np.uint8)
            inside = self.clips.masks[k][there]
            mask[: inside.shape[0], : inside.shape[1]] = inside
        return Sample(frames, boxes, mask)

    def _corner(
        self, rng: np.random.Generator | None, shape: tuple[int, ...], boxes: Boxes, patch: NDArray[np.int64]
    ) -> tuple[int, int]:
        """First row and column of a crop of ``patch`` rows and columns."""
        free = np.maximum(np.array(shape) - patch, 0)
        if rng is None:
            if not len(boxes):
                return 0, 0
            centre = np.floor((boxes[0, [1, 0]] + boxes[0, [3, 2]]) / 2).astype(int)
            start = np.clip(centre - patch // 2, 0, free)
            return int(start[0]), int(start[1])
        keep, which, y, x = rng.random(4)
        low, high = np.zeros(2, int), free
        if len(boxes) and keep < self.target_share:
            box = boxes[int(which * len(boxes))]
            first = np.clip(np.ceil(box[[3, 2]]).astype(int) - patch, 0, free)
            last = np.clip(np.floor(box[[1, 0]]).astype(int), 0, free)
            low, high = np.minimum(first, last), np.maximum(first, last)
        start = low + (np.array([y, x]) * (high - low + 1)).astype(int)
        return int(start[0]), int(start[1])


def turned(sample: Sample, up: bool, left: bool, turn: bool) -> Sample:
    """A sample with rows and columns reversed and axes exchanged (square ones only)."""
    frames, boxes, mask = sample
    height, width = frames.shape[1:]
    boxes = boxes.copy()
    if up:
        frames = frames[:, ::-1]
        boxes[:, [1, 3]] = height - boxes[:, [3, 1]]
    if left:
        frames = frames[:, :, ::-1]
        boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    if turn:
        frames, boxes = frames.transpose(0, 2, 1), boxes[:, [1, 0, 3, 2]]
    if mask is not None:
        mask = mask[:: -1 if up else 1, :: -1 if left else 1]
        mask = mask.T if turn else mask
    return Sample(np.ascontiguousarray(frames), boxes, mask)
