"""Blocks that the box detectors share: convolution with normalisation, modulated deformable convolution."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...annotate.errors import IrstkitError


def cbs(channels: int, out: int, kernel: int = 3, stride: int = 1, *, bias: bool = True) -> nn.Sequential:
    """Convolution, batch normalisation (eps 1e-3, momentum 0.03), SiLU; sides are rounded up by strides."""
    return nn.Sequential(
        nn.Conv2d(channels, out, kernel, stride, (kernel - 1) // 2, bias=bias),
        nn.BatchNorm2d(out, eps=1e-3, momentum=0.03),
        nn.SiLU(inplace=True),
    )


class DeformConv(nn.Module):
    """Modulated 3x3 deformable convolution (DCNv2, Zhu et al., CVPR 2019).

    Computed by torchvision's operator, on the CPU by :func:`deform_by_sampling`, whose sampling is vectorised
    there (a training step of EFLNet takes 0.45 of the time, of DFAR 0.75); ``sampled`` (True, False) chooses.
    Always computed in float32 (or float64): positions in half precision lose the fraction of a pixel. A
    position that is not finite is refused: the operator reads outside its memory with it.
    """

    sampled: bool | None = None

    def __init__(
        self, channels: int, out: int, *, groups: int = 1, stride: int = 1, bias: bool = True
    ) -> None:
        super().__init__()
        if channels % groups:
            raise ValueError(f"{channels} channels do not divide into {groups} offset groups")
        self.groups, self.stride = groups, stride
        self.weight = nn.Parameter(torch.empty(out, channels, 3, 3))
        bound = 1 / math.sqrt(9 * channels)
        nn.init.uniform_(self.weight, -bound, bound)
        self.bias = nn.Parameter(torch.zeros(out)) if bias else None

    def forward(self, x: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        """(B, C, H, W) to (B, out, H', W'), H' = ceil(H / stride).

        ``offset``: (B, 18 groups, H', W'), (dy, dx) a tap in pixels of ``x``; ``mask``: (B, 9 groups, H', W').
        """
        from torchvision.ops import deform_conv2d

        with torch.autocast(x.device.type, enabled=False):
            kind = torch.float64 if x.dtype == torch.float64 else torch.float32
            offset, mask = offset.to(kind), mask.to(kind)
            if not torch.compiler.is_exporting() and not torch.jit.is_tracing():
                require_finite(offset, mask)
            bias = None if self.bias is None else self.bias.to(kind)
            weight = self.weight.to(kind)
            if self.sampled or (self.sampled is None and x.device.type == "cpu"):
                out = deform_by_sampling(x.to(kind), offset, mask, weight, bias, stride=self.stride)
            else:
                out = deform_conv2d(
                    x.to(kind), offset, weight, bias, stride=self.stride, padding=1, mask=mask
                )
        return out.to(x.dtype)

    def extra_repr(self) -> str:
        out, channels = self.weight.shape[:2]
        return f"{channels}, {out}, groups={self.groups}, stride={self.stride}"


def deform_by_sampling(
    x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int = 1
) -> Tensor:
    """The 3x3 modulated deformable convolution from bilinear sampling and a 1x1 convolution.

    Shapes as in :meth:`DeformConv.forward`. Equal to torchvision's operator up to the rounding of positions to
    -1..1 (1e-5 of the output on maps of 100 pixels); nine times the memory of the output map.
    """
    batch, channels, height, width = x.shape
    groups, (rows, columns) = offset.shape[1] // 18, offset.shape[2:]
    y = torch.arange(rows, device=x.device, dtype=x.dtype) * stride - 1
    z = torch.arange(columns, device=x.device, dtype=x.dtype) * stride - 1
    tap = torch.arange(3, device=x.device, dtype=x.dtype)
    moved = offset.reshape(batch * groups, 3, 3, 2, rows, columns)  # (dy, dx) a tap, row by row
    at_y = moved[:, :, :, 0] + tap[:, None, None, None] + y[:, None]
    at_x = moved[:, :, :, 1] + tap[:, None, None] + z
    grid = torch.stack(((2 * at_x + 1) / width - 1, (2 * at_y + 1) / height - 1), dim=-1)
    found = F.grid_sample(
        x.reshape(batch * groups, channels // groups, height, width),
        grid.reshape(batch * groups, 9 * rows, columns, 2),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    ).reshape(batch * groups, channels // groups, 9, rows, columns)
    found = found * mask.reshape(batch * groups, 1, 9, rows, columns)
    return F.conv2d(
        found.reshape(batch, channels * 9, rows, columns), weight.flatten(1)[:, :, None, None], bias
    )


class Pooled(nn.Conv2d):
    """A 1x1 convolution of a pooled map (B, C, 1, 1), as the matrix product that it is (much faster)."""

    def __init__(self, channels: int, out: int, *, bias: bool = True) -> None:
        super().__init__(channels, out, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.flatten(1), self.weight.flatten(1), self.bias)[:, :, None, None]


def require_finite(offset: Tensor, mask: Tensor) -> None:
    """Raise where an offset or a mask value is not finite."""
    for name, values in (("offset", offset), ("mask", mask)):
        # a sum is finite only if every value is; it may overflow where all are
        if not bool(torch.isfinite(values.sum())) and (bad := int((~torch.isfinite(values)).sum())):
            raise IrstkitError(
                f"{bad} of {values.numel()} deformable {name} values are not finite: the network has diverged",
                hint="a smaller --lr, --clip 10, --warmup 500 or --precision 32-true; check the input for NaN",
            )


def split_offset_mask(predicted: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 27 g, H, W) to offsets (B, 18 g, H, W) and masks (B, 9 g, H, W) in 0..1."""
    wide = 2 * predicted.shape[1] // 3
    return predicted[:, :wide], torch.sigmoid(predicted[:, wide:])
