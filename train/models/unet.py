"""A plain U-Net: the yardstick for everything else.

Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015.

Chosen where the field's use differs from the paper: "same" convolutions (the output has the input's size)
with batch normalisation, and 16 channels at full size instead of 64 (1,942,289 parameters with one channel).

Sides are multiples of 2 ** ``levels`` (16).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import check_images, conv_relu, whole


def double(channels: int, out: int) -> nn.Sequential:
    """Two convolutions."""
    return nn.Sequential(conv_relu(channels, out, bias=False), conv_relu(out, out, bias=False))


class UNet(nn.Module):
    """A plain U-Net.

    Parameters
    ----------
    base
        Channels at full size; they double with every level.
    levels
        Times the size is halved.
    in_channels
        1, or 3 equal ones.
    """

    def __init__(self, base: int = 16, levels: int = 4, in_channels: int = 1) -> None:
        super().__init__()
        whole("base", base, 1)
        whole("levels", levels, 1)
        self.in_channels = whole("in_channels", in_channels, 1)
        self.stride = 2**levels
        widths = [base * 2**k for k in range(levels + 1)]
        self.encoder = nn.ModuleList(
            [double(a, b) for a, b in zip([in_channels, *widths], widths, strict=False)]
        )
        self.up = nn.ModuleList([nn.ConvTranspose2d(b, a, 2, 2) for a, b in pairwise(widths)])
        self.decoder = nn.ModuleList([double(2 * a, a) for a in widths[:-1]])
        self.head = nn.Conv2d(base, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to logits (B, 1, H, W)."""
        check_images(images, self.in_channels, self.stride)
        skips: list[Tensor] = []
        x = images
        for k, block in enumerate(self.encoder):
            x = block(F.max_pool2d(x, 2) if k else x)
            skips.append(x)
        for k in range(len(self.up) - 1, -1, -1):
            x = self.decoder[k](torch.cat((skips[k], self.up[k](x)), dim=1))
        return self.head(x)
