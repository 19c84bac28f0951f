"""The dynamic head (Dai et al., CVPR 2021): attention over levels, positions and channels, in one block.

No level sees another level's output of the same block, and all levels share the weights. The offsets of the
branch from the coarser level are brought to that level's grid (``offset_mode``, see :mod:`.eflnet`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .deform import DeformConv, Pooled, split_offset_mask
from .layers import resize

OFFSET_MODES = ("resize", "upsample", "flat")


class DeformNorm(nn.Module):
    """Deformable convolution without bias, then group normalisation of 16 groups; no activation."""

    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = DeformConv(channels, channels, stride=stride, bias=False)
        self.norm = nn.GroupNorm(16, channels)

    def forward(self, x: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        return self.norm(self.conv(x, offset, mask))


class DyReLU(nn.Module):
    """Task attention: max of two lines, slopes and intercepts from the pooled map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, channels // 4)
        self.expand = nn.Linear(channels // 4, 4 * channels)

    def forward(self, x: Tensor) -> Tensor:
        values = F.hardsigmoid(self.expand(F.relu(self.squeeze(x.mean(dim=(2, 3))))))
        a1, b1, a2, b2 = values[:, :, None, None].chunk(4, dim=1)
        return torch.maximum((2 * a1) * x + (b1 - 0.5), (2 * a2 - 1) * x + (b2 - 0.5))


class DynamicBlock(nn.Module):
    """One block: maps of all levels, fine to coarse and of one width, to as many."""

    def __init__(self, channels: int, offset_mode: str = "resize", *, offset_scale: bool = False) -> None:
        super().__init__()
        if offset_mode not in OFFSET_MODES:
            raise ValueError(f"offset_mode is one of {', '.join(OFFSET_MODES)}, got {offset_mode!r}")
        self.offset_mode, self.offset_scale = offset_mode, offset_scale
        self.offset = nn.Conv2d(channels, 27, 3, padding=1)
        self.mid, self.low, self.high = (
            DeformNorm(channels),
            DeformNorm(channels, stride=2),
            DeformNorm(channels),
        )
        self.scale = Pooled(channels, 1)
        self.task = DyReLU(channels)
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.scale.weight, 0, 0.01)
        nn.init.zeros_(self.scale.bias)  # type: ignore[arg-type]

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        out = []
        for level, x in enumerate(maps):
            offset, mask = split_offset_mask(self.offset(x))
            parts = [self.mid(x, offset, mask)]
            if level > 0:
                parts.append(self.low(maps[level - 1], offset, mask))
            if level + 1 < len(maps):
                parts.append(self.from_coarse(maps[level + 1], offset, mask))
            parts = [p * self.attention(p) for p in parts]
            out.append(self.task(torch.stack(parts).mean(dim=0)))
        return out

    def attention(self, x: Tensor) -> Tensor:
        """Scale attention, (B, 1, 1, 1) in 0.5..1."""
        return F.hardsigmoid(F.relu(self.scale(x.mean(dim=(2, 3), keepdim=True))))

    def from_coarse(self, coarse: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        """The coarser map through ``high``, at the size of the offsets."""
        size, small = offset.shape[-2:], coarse.shape[-2:]
        if self.offset_mode == "upsample":
            coarse = resize(coarse, size, corners=True)
            return self.high(coarse, offset, mask)
        if self.offset_mode == "resize":
            offset, mask = (resize(v, small, corners=False) for v in (offset, mask))
            if self.offset_scale:
                offset = offset * (small[0] / size[0])
        else:
            offset, mask = (
                v.flatten(1)[:, : v.shape[1] * small.numel()].unflatten(1, (v.shape[1], *small))
                for v in (offset, mask)
            )
        return resize(self.high(coarse, offset, mask), size, corners=True)
