"""DNA-Net, the dense nested attention network.

Li et al., "Dense Nested Attention Network for Infrared Small Target Detection", IEEE TIP 2023
(arXiv 2106.00487).

What the paper leaves open, and what was chosen
-----------------------------------------------
- The down-going arrows of the nested columns: the paper's equation (2) says max-pooling, the released code
  halves by bilinear interpolation. The code's operator is the default, since the published numbers come from
  it; ``nested_down="maxpool"`` is the paper's.
- "Average pooling with stride 2" in the channel attention: its map is C x 1 x 1, so global pooling is meant.
- Hidden width of the channel attention C // 16: zero for C < 16, with which the half-width ("Light") network
  cannot run; at least 1 here.
- Channels: the paper is silent, the code feeds gray as three equal channels. One is the default.
- Deep supervision (four logit maps in training, all against the full-size mask) is in the code and confirmed
  by the authors, but not in the paper.

Parameters with 1 / 3 channels: ResNet-10 2,611,876 / 2,612,196; ResNet-18 4,696,568 / 4,696,888; ResNet-34
8,792,382 / 8,792,702; VGG-10 2,455,732 / 2,456,020; Light 656,356 / 656,516.

H and W are multiples of 16.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import check_images, conv_norm, one_of, resize, whole, xavier_

BACKBONES: dict[str, tuple[tuple[int, int, int, int], bool, int]] = {
    "resnet10": ((1, 1, 1, 1), True, 16),
    "resnet18": ((2, 2, 2, 2), True, 16),
    "resnet34": ((3, 4, 6, 3), True, 16),
    "vgg10": ((1, 1, 1, 1), False, 16),
    "light": ((1, 1, 1, 1), True, 8),
}
"""Blocks of a node at levels 1 to 4 (one at level 0), with shortcuts or not, width at level 0."""


class ChannelAttention(nn.Module):
    """A weight a channel from its mean and its maximum (CBAM)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // 16)
        self.body = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, channels, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        # adaptive_max_pool2d gives a whole plane to one thread of a GPU: two fifths of the training step
        mean, top = F.adaptive_avg_pool2d(x, 1), x.flatten(2).max(dim=2).values[:, :, None, None]
        return x * torch.sigmoid(self.body(mean) + self.body(top))


class SpatialAttention(nn.Module):
    """A weight a pixel from the mean and the maximum over its channels (CBAM)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat((x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)), dim=1)
        return x * torch.sigmoid(self.conv(both))


class Block(nn.Module):
    """Two convolutions, both attentions, and the shortcut where ``residual``."""

    def __init__(self, channels: int, out: int, residual: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *conv_norm(channels, out),
            nn.ReLU(inplace=True),
            *conv_norm(out, out),
            ChannelAttention(out),
            SpatialAttention(),
        )
        self.shortcut: nn.Module | None = None
        if residual:
            self.shortcut = nn.Identity() if channels == out else nn.Sequential(*conv_norm(channels, out, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return F.relu(y if self.shortcut is None else y + self.shortcut(x))


class DNANet(nn.Module):
    """DNA-Net (module docstring).

    Parameters
    ----------
    backbone
        ``resnet18`` (default, the paper's 4.70 M), ``resnet10``, ``resnet34``, ``vgg10`` or ``light``.
    in_channels
        1, or 3 equal ones (as the public weights expect).
    nested_down
        ``bilinear`` (released code) or ``maxpool`` (the paper's equation).
    deep_supervision
        In training, logits of L01, L02, L03 and of the fused map; else of the fused map only.
    base
        Width at level 0, where not the backbone's own (16; ``light`` 8).
    init
        ``xavier`` (paper and code) or ``default`` (PyTorch's).
    """

    stride = 16

    def __init__(
        self,
        backbone: str = "resnet18",
        in_channels: int = 1,
        nested_down: str = "bilinear",
        deep_supervision: bool = True,
        base: int | None = None,
        init: str = "xavier",
    ) -> None:
        super().__init__()
        blocks, residual, width = BACKBONES[one_of("backbone", backbone, tuple(BACKBONES))]
        width = width if base is None else whole("base", base, 1)
        if not isinstance(deep_supervision, bool):  # the text "False" would be true
            raise ValueError(f"deep_supervision is true or false, got {deep_supervision!r}")
        self.in_channels = whole("in_channels", in_channels, 1)
        self.nested_down = one_of("nested_down", nested_down, ("bilinear", "maxpool"))
        one_of("init", init, ("xavier", "default"))
        f = [width * 2**k for k in range(5)]
        count = (1, *blocks)

        def node(level: int, channels: int) -> nn.Sequential:
            sizes = [channels] + [f[level]] * count[level]
            return nn.Sequential(*(Block(a, b, residual) for a, b in pairwise(sizes)))

        self.nodes = nn.ModuleDict()
        for column in range(5):
            for level in range(5 - column):
                if column:
                    channels = column * f[level] + f[level + 1] + (f[level - 1] if level else 0)
                else:
                    channels = f[level - 1] if level else in_channels
                self.nodes[f"L{level}{column}"] = node(level, channels)
        self.narrow = nn.ModuleList([nn.Conv2d(f[level], f[0], 1) for level in range(1, 5)])
        self.fuse = Block(5 * f[0], f[0], residual)
        self.head = nn.Conv2d(f[0], 1, 1)
        self.side_heads = nn.ModuleList([nn.Conv2d(f[0], 1, 1) for _ in range(3 if deep_supervision else 0)])
        if init == "xavier":
            xavier_(self)

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """(B, C, H, W) to logits (B, 1, H, W); in training with deep supervision four of them, fused last."""
        check_images(images, self.in_channels, self.stride)
        rows: list[list[Tensor]] = []  # rows[level][column]
        x = images
        for level in range(5):
            rows.append([self.nodes[f"L{level}0"](F.max_pool2d(x, 2) if level else x)])
            x = rows[level][0]
        for column in range(1, 5):
            for level in range(5 - column):
                deep = rows[level + 1][column - 1]
                parts = [*rows[level], resize(deep, _size(rows[level][0]), corners=True)]
                if level:
                    parts.append(self._down(rows[level - 1][column]))
                rows[level].append(self.nodes[f"L{level}{column}"](torch.cat(parts, dim=1)))
        full = _size(images)
        pyramid = [resize(self.narrow[k - 1](rows[k][-1]), full, corners=True) for k in (4, 3, 2, 1)]
        fused = self.head(self.fuse(torch.cat([*pyramid, rows[0][4]], dim=1)))
        if not self.training or not len(self.side_heads):
            return fused
        return [head(rows[0][k]) for k, head in enumerate(self.side_heads, start=1)] + [fused]

    def _down(self, x: Tensor) -> Tensor:
        if self.nested_down == "maxpool":
            return F.max_pool2d(x, 2)
        height, width = _size(x)
        return resize(x, (height // 2, width // 2), corners=True)


def _size(x: Tensor) -> tuple[int, int]:
    return x.shape[-2], x.shape[-1]
