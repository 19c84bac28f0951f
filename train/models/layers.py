"""Blocks and checks that several networks share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def check_images(images: Tensor, channels: int, stride: int, smallest: int = 0) -> None:
    """Refuse what is not (B, ``channels``, H, W) with H and W multiples of ``stride``.

    Raises
    ------
    ValueError
        With the expected and the actual shape.
    """
    shape = tuple(images.shape)
    sides = shape[2:]
    if len(shape) != 4 or shape[1] != channels or any(s % stride or s < max(smallest, 1) for s in sides):
        size = f"multiples of {stride}" if stride > 1 else "any size"
        if smallest > stride:
            size += f", at least {smallest}"
        raise ValueError(f"expected (B, {channels}, H, W) with H and W {size}, got {shape}")


def checked_border(border: object) -> str:
    """``border`` if it is a rule of :mod:`irstkit.datasets.clips`."""
    from ...datasets.clips import RULES

    if border not in RULES:
        raise ValueError(f"border is one of {', '.join(RULES)}, got {border!r}")
    return str(border)


def whole(name: str, value: object, least: int) -> int:
    """``value`` if it is a whole number of at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} is a whole number of at least {least}, got {value!r}")
    return value


def one_of(name: str, value: object, choices: tuple[str, ...]) -> str:
    """``value`` if it is one of the names."""
    if value not in choices:
        raise ValueError(f"{name} is one of {', '.join(choices)}, got {value!r}")
    return str(value)


def conv_norm(
    channels: int, out: int, size: int = 3, stride: int = 1, *, bias: bool = True
) -> list[nn.Module]:
    """A "same" convolution and its batch normalisation."""
    return [nn.Conv2d(channels, out, size, stride, size // 2, bias=bias), nn.BatchNorm2d(out)]


def conv_relu(channels: int, out: int, size: int = 3, stride: int = 1, *, bias: bool = True) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU."""
    return nn.Sequential(*conv_norm(channels, out, size, stride, bias=bias), nn.ReLU(inplace=True))


def resize(x: Tensor, size: Sequence[int], *, corners: bool) -> Tensor:
    """Bilinear, to (H, W); the same on every run, and fast, on a GPU too.

    PyTorch's own is there either not reproducible (its gradient adds up in any order) or, when deterministic
    algorithms are asked for, a gather whose gradient sorts all indices. As two matrix products it is neither.
    """
    if x.device.type == "cuda" and torch.are_deterministic_algorithms_enabled():
        if torch.is_grad_enabled() and x.requires_grad:
            return resize_by_products(x, size, corners=corners)
        return torch.ops.aten.upsample_bilinear2d(x, list(size), corners)  # forward it is reproducible
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=corners)


def resize_by_products(x: Tensor, size: Sequence[int], *, corners: bool) -> Tensor:
    """:func:`resize` as (H, h) (h, w) (w, W) matrices, in at least float32; x is (B, C, h, w)."""
    wide = torch.promote_types(x.dtype, torch.float32)
    with torch.autocast(x.device.type, enabled=False):
        rows = _bilinear(x.shape[-2], size[0], corners, wide, x.device)
        columns = _bilinear(x.shape[-1], size[1], corners, wide, x.device)
        return (rows @ (x.to(wide) @ columns.T)).to(x.dtype)


@cache  # never dropped: a recorded step reads them where they lie; a training has a few dozen
def _bilinear(source: int, target: int, corners: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(target, source): the weights of bilinear interpolation along one axis, rows summing to 1."""
    at = torch.arange(target, dtype=torch.float64)
    if corners:
        at = at * ((source - 1) / (target - 1)) if target > 1 else at * 0
    else:
        at = ((at + 0.5) * (source / target) - 0.5).clamp_min(0)
    low = at.floor().clamp_max(source - 1)
    share = at - low
    weights = torch.zeros(target, source, dtype=torch.float64)
    weights.scatter_add_(1, low.long()[:, None], (1 - share)[:, None])
    weights.scatter_add_(1, (low.long() + 1).clamp_max(source - 1)[:, None], share[:, None])
    return weights.to(device, dtype)


def xavier_(module: nn.Module) -> None:
    """Xavier-normal weights of convolutions; biases and norms keep PyTorch's defaults."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.xavier_normal_(part.weight)


def msra_prelu_(module: nn.Module, slope: float = 0.25) -> None:
    """He's Gaussian for PReLU with the mean of fan-in and fan-out, biases zero (MXNet's MSRAPrelu)."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(part.weight)
            nn.init.normal_(part.weight, 0.0, math.sqrt(2 / (1 + slope**2) / ((fan_in + fan_out) / 2)))
            if part.bias is not None:
                nn.init.zeros_(part.bias)
