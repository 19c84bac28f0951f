"""Boxes of a trained detector on images and sequences: native size, padded at the right and bottom."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..annotate.console import note
from ..annotate.errors import IrstkitError
from ..datasets.clips import sequences_of
from ..datasets.records import Record
from .checkpoint import about_checkpoint, build_from, load_checkpoint
from .predictor import DIVERGED, choose_device
from .sequence import folded, is_clip_model, outputs, to_tensor

Found = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Half-open xyxy boxes (N, 4) in native pixels and scores (N,), by falling score."""


def suppress(
    boxes: Tensor, scores: Tensor, size: tuple[int, int], *, floor: float, nms: float, limit: int
) -> Found:
    """Detections of one image: those of at least ``floor``, cut to the image, without doubles.

    A detection is dropped when its IoU with a better one is above ``nms``. What lies outside of the image
    (in the padding) is dropped; at most ``limit`` are kept.
    """
    from torchvision.ops import nms as suppressed

    height, width = size
    if bad := int(torch.isnan(scores).sum()):  # no comparison finds them
        raise IrstkitError(f"{bad} of {len(scores)} scores of the network are not numbers", hint=DIVERGED)
    good = (scores >= floor) & torch.isfinite(boxes).all(dim=1)
    boxes, scores = boxes[good].double(), scores[good].double()
    most = boxes.new_tensor([width, height, width, height])
    boxes = torch.minimum(boxes.clamp_min(0), most)
    inside = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    boxes, scores = boxes[inside], scores[inside]
    order = scores.argsort(descending=True, stable=True)[: 50 * limit]
    boxes, scores = boxes[order], scores[order]
    kept = suppressed(boxes, scores, nms)[:limit]
    return boxes[kept].cpu().numpy(), scores[kept].cpu().numpy()


class BoxPredictor:
    """Detections of a network of boxes; a clip network sees whole sequences, each frame encoded once.

    Parameters
    ----------
    floor, nms, limit
        Smallest score, largest IoU of two detections that are both kept, detections an image (DAUB / IRDST
        protocol: 0.001, 0.65, 100).
    fast
        Fold normalisation into convolutions (equal up to rounding).
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        device: torch.device | str = "cpu",
        mean: float = 0.0,
        std: float = 1.0,
        floor: float = 0.001,
        nms: float = 0.65,
        limit: int = 100,
        border: str | None = None,
        fast: bool = True,
    ) -> None:
        if getattr(network, "task", "mask") != "boxes":
            raise IrstkitError("this network predicts masks, not boxes")
        self.device = torch.device(device)
        self.network: Any = (folded(network) if fast else network).to(self.device)
        self.mean, self.std, self.floor, self.nms, self.limit = mean, std, floor, nms, limit
        self.border = border or getattr(network, "border", None)
        self.about: dict[str, Any] = {}
        self.seen: dict[str, list[str]] = {}

    @classmethod
    def load(
        cls, path: str | Path, *, device: str = "auto", model: str | None = None, **options: Any
    ) -> BoxPredictor:
        """The predictor of a checkpoint, which ``about`` then tells of."""
        content = load_checkpoint(path, model=model)
        network = build_from(content, path)
        predictor = cls(network, device=choose_device(device), **content["normalisation"], **options)
        predictor.about = about_checkpoint(content, path)
        predictor.seen = content["seen"]
        return predictor

    def _prepare(self, image: NDArray) -> Tensor:
        channels = int(self.network.in_channels)
        tensor = to_tensor(
            image, channels=channels, mean=self.mean, std=self.std, multiple=int(self.network.stride)
        )
        return tensor.to(self.device)

    def _found(self, raw: Any, size: tuple[int, int]) -> Found:
        boxes, scores = self.network.decode(raw)
        return suppress(boxes[0], scores[0], size, floor=self.floor, nms=self.nms, limit=self.limit)

    @torch.inference_mode()
    def image(self, image: NDArray) -> Found:
        """Detections in one (H, W) image; for clip networks, as a sequence of one frame."""
        return next(self.sequence([image]))

    @torch.inference_mode()
    def sequence(self, frames: Sequence[NDArray], numbers: Sequence[int] | None = None) -> Iterator[Found]:
        """Detections of each frame of a sequence, in order; images on their own for single-frame networks."""
        self.network.eval()
        if not is_clip_model(self.network):
            for frame in frames:
                yield self._found(self.network(self._prepare(frame)[None]), frame.shape)
            return
        size: list[tuple[int, int]] = []

        def prepare(frame: NDArray) -> Tensor:
            size[:] = [frame.shape]  # type: ignore[list-item]
            return self._prepare(frame)

        for raw in outputs(self.network, frames, prepare, numbers=numbers, border=self.border):
            yield self._found(raw, size[0])

    def records(
        self, records: Sequence[Record], *, read: Callable[[Record], NDArray] = Record.read_image
    ) -> Iterator[tuple[Record, Found]]:
        """Detections of each record, sequence after sequence; each image is read (by ``read``) once."""
        if not is_clip_model(self.network):
            for record in records:
                yield record, self.image(read(record))
            return
        groups, findings = sequences_of(records)
        for finding in findings:
            note(f"warning: {finding}")
        for group in groups:
            found = self.sequence(_Reader(group.records, read), group.numbers)
            yield from zip(group.records, found, strict=True)

    def described(self) -> dict[str, Any]:
        """How images go in and detections come out, for results."""
        about: dict[str, Any] = {
            "size": "native",
            "padding": f"reflect at the right and bottom to multiples of {self.network.stride}",
            "mean": self.mean,
            "std": self.std,
            "score_floor": self.floor,
            "nms_iou": self.nms,
            "max_detections": self.limit,
        }
        if is_clip_model(self.network):
            about |= {"window": self.network.window, "key": self.network.key, "border": self.border}
        return about


class _Reader(Sequence):
    """Images of records, read as they are asked for."""

    def __init__(self, records: Sequence[Record], read: Callable[[Record], NDArray]) -> None:
        self._records, self._read = records, read

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: Any) -> Any:
        return self._read(self._records[index])
