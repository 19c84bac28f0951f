"""A trained network applied to images of any size: pad, predict, crop. Masks are never resized."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..annotate.errors import IrstkitError
from ..annotate.files import GrayImage
from .checkpoint import about_checkpoint, build_from, load_checkpoint
from .losses import final

if TYPE_CHECKING:
    from torch import Tensor, nn

PADDINGS = ("reflect", "zeros")
DIVERGED = "the network has diverged: another checkpoint, or a training with --clip 1 or a smaller --lr"


def are_numbers(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """A network's answer, refused where it is not-a-number: a comparison would take that for "no target"."""
    if bad := int(np.isnan(probability).sum()):
        raise IrstkitError(f"{bad} pixels of the network's answer are not numbers", hint=DIVERGED)
    return probability


@contextmanager
def of_image(id: str) -> Iterator[None]:
    """Errors that name no file get the image's id."""
    try:
        yield
    except IrstkitError as error:
        if error.path is not None or error.where is not None:
            raise
        raise IrstkitError(error.message, where=f"image {id}", hint=error.hint) from error


def choose_device(name: str) -> torch.device:
    """``auto`` is the first CUDA device or the CPU; otherwise ``cpu``, ``cuda``, ``cuda:1``, ``mps``."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise IrstkitError(f"no device {name!r}", hint="auto, cpu, cuda, cuda:1 or mps") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise IrstkitError(
            f"no device {name!r} here: {torch.cuda.device_count()} CUDA devices", hint="use --device cpu"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise IrstkitError(f"no device {name!r} here", hint="use --device cpu")
    if device.type not in ("cpu", "cuda", "mps"):
        raise IrstkitError(f"no device {name!r}", hint="auto, cpu, cuda, cuda:1 or mps")
    return device


class Predictor:
    """Probabilities of a network, at the image's own size.

    Images are padded at the right and bottom to multiples of the network's ``stride``, one image a pass, so
    that no number depends on a batch size.

    Parameters
    ----------
    network
        Put in evaluation mode while it predicts, and back into the mode it had.
    padding
        ``reflect`` (default: no artificial edge) or ``zeros``.
    mean, std
        Normalisation of images in 0..1.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        device: torch.device | str = "cpu",
        padding: str = "reflect",
        mean: float = 0.0,
        std: float = 1.0,
    ) -> None:
        if padding not in PADDINGS:
            raise IrstkitError(f"padding is {' or '.join(PADDINGS)}, got {padding!r}")
        self.device = torch.device(device)
        self.network = network.to(self.device)
        self.padding, self.mean, self.std = padding, mean, std
        self.stride = int(getattr(network, "stride", 1))
        self.channels = int(getattr(network, "in_channels", 1))
        self.dtype = next((p.dtype for p in network.parameters()), torch.float32)
        self.about: dict[str, Any] = {}
        self.seen: dict[str, list[str]] = {}

    @classmethod
    def load(
        cls, path: str | Path, *, device: str = "auto", padding: str = "reflect", model: str | None = None
    ) -> Predictor:
        """The predictor of a checkpoint, which ``about`` then tells of (model, step, hash, ...)."""
        content = load_checkpoint(path, model=model)
        network = build_from(content, path)
        normalisation = content["normalisation"]
        predictor = cls(network, device=choose_device(device), padding=padding, **normalisation)
        predictor.about = about_checkpoint(content, path)
        predictor.seen = content["seen"]
        return predictor

    def pad(self, image: GrayImage) -> NDArray[np.float32]:
        """(H, W) gray in its native depth to (H', W') float32 in 0..1, sides multiples of the stride."""
        values = np.divide(image, np.float32(65535 if image.dtype == np.uint16 else 255), dtype=np.float32)
        more = tuple((0, -side % self.stride) for side in values.shape)
        if not any(after for _, after in more):
            return values
        return np.pad(values, more, mode="reflect" if self.padding == "reflect" else "constant")

    @torch.inference_mode()
    def logits(self, image: GrayImage) -> Tensor:
        """(H, W) logits of a (H, W) uint8 or uint16 image, on the device; a GPU is not waited for."""
        height, width = image.shape
        values = torch.from_numpy(self.pad(image)).to(self.device, self.dtype)
        values = (values - self.mean) / self.std
        was_training = self.network.training
        self.network.eval()
        try:
            logits = final(self.network(values.expand(1, self.channels, *values.shape)))
        except RuntimeError as error:
            if "memory" in str(error).lower():
                raise IrstkitError(
                    f"out of memory predicting an image of {width}x{height} on {self.device}"
                ) from error
            raise
        finally:
            self.network.train(was_training)
        return logits[0, 0, :height, :width]

    @torch.inference_mode()
    def probability(self, image: GrayImage) -> NDArray[np.float64]:
        """(H, W) probabilities in 0..1 of a (H, W) uint8 or uint16 image."""
        # in float32 every logit above 17 is the probability 1, and curves lose their confident end
        return are_numbers(torch.sigmoid(self.logits(image).cpu().double()).numpy())

    def described(self) -> dict[str, Any]:
        """How images go in, for results."""
        return {
            "size": "native",
            "padding": f"{self.padding} at the right and bottom to multiples of {self.stride}",
            "stride": self.stride,
            "channels": self.channels,
            "mean": self.mean,
            "std": self.std,
        }
