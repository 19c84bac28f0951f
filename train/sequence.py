"""Inference over a sequence: each frame is encoded once, however many clips it is part of.

A network of clips offers ``encode`` (frames to features), ``fuse`` (a clip's features to the output) and the
attributes ``window``, ``key``, ``border``. A frame's features are dropped when no later clip needs them, so a
long sequence takes no more memory than a short one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..annotate.errors import IrstkitError
from ..datasets.clips import window_positions


def is_clip_model(network: nn.Module) -> bool:
    """Whether the network takes clips."""
    return hasattr(network, "window") and hasattr(network, "encode")


@torch.inference_mode()
def outputs(
    network: nn.Module,
    frames: Sequence[Any],
    prepare: Callable[[Any], Tensor],
    *,
    numbers: Sequence[int] | None = None,
    border: str | None = None,
) -> Iterator[Any]:
    """The network's output for each frame of a sequence as key frame, in order.

    Equal to each clip on its own up to rounding (1e-5), since evaluation mode treats every frame alone.

    Parameters
    ----------
    network
        A clip network in evaluation mode.
    frames
        The sequence: anything indexable; ``prepare`` turns one into a (C, H, W) tensor on the device.
    numbers
        Frame numbers, where some are missing; 0, 1, ... otherwise.
    border
        The network's own rule by default.
    """
    if network.training:
        raise ValueError("inference over a sequence needs the network in evaluation mode")
    net: Any = network
    numbers = range(len(frames)) if numbers is None else list(numbers)
    if len(numbers) != len(frames):
        raise IrstkitError(f"{len(frames)} frames with {len(numbers)} numbers")
    rule = border or net.border
    windows = [window_positions(numbers, k, net.window, net.key, rule) for k in range(len(frames))]
    last_use = {p: k for k, places in enumerate(windows) for p in places}
    cache: dict[int, tuple[Tensor, Tensor]] = {}
    for k, places in enumerate(windows):
        for p in places:
            if p not in cache:
                frame = prepare(frames[p])
                cache[p] = (frame, net.encode(frame[None])[0])
        features = torch.stack([cache[p][1] for p in places])[None]
        current = cache[places[net.key]][0]
        same = torch.tensor(
            [[bool(torch.equal(cache[p][0], current)) for p in places]], device=current.device
        )
        yield net.fuse(features, same)
        for p in [p for p in cache if last_use[p] <= k]:
            del cache[p]


def clip_of(frames: Sequence[Any], places: Sequence[int], prepare: Callable[[Any], Tensor]) -> Tensor:
    """(1, T, C, H, W): a clip on its own."""
    return torch.stack([prepare(frames[p]) for p in places])[None]


def folded(network: nn.Module) -> nn.Module:
    """A copy for inference: normalisation folded into the convolution before it, branches merged.

    Equal in evaluation mode up to rounding. The copy cannot be trained further. The layers that see frames at full
    resolution (``extract``, where a network names them so) keep channels last in memory: a fifth faster.
    """
    net = copy.deepcopy(network).eval()
    _fold(net)
    extract = getattr(net, "extract", None)
    if isinstance(extract, nn.Module):
        extract.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net


def _fold(module: nn.Module) -> None:
    for name, child in list(module.named_children()):
        merged = getattr(child, "merged", None)
        if merged is not None:
            setattr(module, name, merged())
            continue
        _fold(child)
    if isinstance(module, nn.Sequential):
        for k in range(len(module) - 1):
            first, second = module[k], module[k + 1]
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                module[k] = torch.nn.utils.fuse_conv_bn_eval(first, second)
                module[k + 1] = nn.Identity()


def to_tensor(
    image: NDArray, *, channels: int = 1, mean: float = 0.0, std: float = 1.0, multiple: int = 1
) -> Tensor:
    """A (H, W) uint8 or uint16 image as (C, H', W') float32: /255 or /65535, normalised, padded by reflection.

    H' and W' are H and W rounded up to ``multiple``.
    """
    values = np.divide(image, np.float32(65535 if image.dtype == np.uint16 else 255), dtype=np.float32)
    more = [(0, -side % multiple) for side in values.shape]
    if any(after for _, after in more):
        values = np.pad(values, more, mode="reflect")
    tensor = (torch.from_numpy(np.ascontiguousarray(values)) - mean) / std
    return tensor.expand(channels, -1, -1)
