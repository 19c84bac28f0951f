"""What of an image's score is sums over pixels, computed where the network runs.

The network's output stays on its device: thresholding, pixel sums, levels and their counts are queued behind the
forward pass, and only the answer and two bytes a pixel come back, into pinned memory. Nothing waits for the device
but the thread that labels the components of that image, while the network is at the next one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..annotate.errors import IrstkitError
from .predictor import DIVERGED

LEVELS = 1 / (1 + np.exp(-np.linspace(-20, 30, 2048)))
"""Thresholds of a set's curves: 2048, equally spaced in logit. At each of them the curve is exact."""


@dataclass(frozen=True, eq=False)
class PixelSums:
    """One image: (H, W) ``positive`` pixels, ``sums`` = (TP, FP, FN), and, for curves, the number of
    :data:`LEVELS` below each pixel (``ranks``, int16) and the pixels of each rank (``counts``, (2, 2049):
    background, target)."""

    positive: NDArray[np.bool_]
    sums: tuple[int, int, int]
    ranks: NDArray[np.int16] | None = None
    counts: NDArray[np.int64] | None = None


@lru_cache(maxsize=4)
def _levels(device: torch.device) -> Tensor:
    return torch.from_numpy(LEVELS).to(device)


class Pending:
    """Pixel sums under way; :meth:`wait` gives them, in any thread."""

    def __init__(self, tensors: list[Tensor]) -> None:
        self._event: Any = None
        if tensors[0].is_cuda:
            self._tensors = [
                torch.empty(t.shape, dtype=t.dtype, pin_memory=True).copy_(t, non_blocking=True)
                for t in tensors
            ]
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(tensors[0].device))
        else:
            self._tensors = [t.cpu() for t in tensors]

    def wait(self) -> PixelSums:
        """The sums, once the device has them.

        Raises
        ------
        IrstkitError
            Where the network's answer holds not-a-number.
        """
        if self._event is not None:
            self._event.synchronize()
        positive, sums, *curves = (t.numpy() for t in self._tensors)
        tp, fp, fn, invalid = (int(n) for n in sums)
        if invalid:
            raise IrstkitError(f"{invalid} pixels of the network's answer are not numbers", hint=DIVERGED)
        return PixelSums(positive, (tp, fp, fn), *curves)


@torch.inference_mode()
def begin(logits: Tensor, truth: NDArray[np.bool_], threshold: float, *, curves: bool = False) -> Pending:
    """Queue the sums of an image behind its forward pass.

    Parameters
    ----------
    logits
        (H, W), on any device.
    truth
        (H, W) mask.
    threshold
        Positive: probability > threshold.
    curves
        Ranks and their counts too.

    The numbers are those of :func:`.metrics.evaluate_image` on the probabilities, to the bit on the CPU; a
    device without double precision (MPS) leaves them to the CPU.
    """
    if logits.device.type == "mps":
        logits = logits.cpu()
    device = logits.device
    # in float32 every logit above 17 is the probability 1, and curves lose their confident end
    probability = torch.sigmoid(logits.double())
    mask = torch.from_numpy(truth).to(device, non_blocking=True)
    positive = probability > threshold
    tp = (positive & mask).sum()
    invalid = torch.isnan(probability).sum()
    tensors = [positive, torch.stack([tp, positive.sum() - tp, mask.sum() - tp, invalid])]
    if curves:
        rank = torch.searchsorted(_levels(device), probability.contiguous())
        n = len(LEVELS) + 1
        counts = torch.bincount((rank + n * mask).ravel(), minlength=2 * n)
        tensors += [rank.to(torch.int16), counts.reshape(2, n)]
    return Pending(tensors)
