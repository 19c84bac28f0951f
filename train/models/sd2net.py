"""SD2Net, the spatial difference decomposition network.

Hu et al., "Difference Decomposition Networks for Infrared Small Target Detection", arXiv 2512.03470 (2025).

What the paper leaves open, and what was chosen
-----------------------------------------------
The public code holds many states under one name and none reproduces all parameter counts of the paper. Here
is the reading that follows the text and gives its 0.27 M at base width 8 (269,819 parameters; 68,271,
1,072,911 and 4,278,587 at 4, 16 and 32): SD2M without a channel bottleneck, one 1x1 convolution as original
feature, and pooling split in three branches (maximum, average, SD3M). "Equal" thirds are impossible for 16,
32 and 64 channels: the branches take chunks of ceil(C/3).

Input: one channel, gray / largest value. Output: logits (the paper's code applies the sigmoid inside).
Sides are multiples of 16. The decomposition coefficients are sums over the whole image, so tiling, cropping
and padding change the output. ``padding="reflect"`` keeps the image's border from entering SD2M's norms;
``zeros`` is the published form.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .differences import recombine
from .layers import resize


class SD2M(nn.Module):
    """Spatial difference decomposition: C to C channels, any size; C^2 + C^2 + 3C parameters."""

    def __init__(self, channels: int, *, padding: str = "zeros") -> None:
        super().__init__()
        if padding not in ("zeros", "reflect"):
            raise ValueError(f"padding is 'zeros' or 'reflect', got {padding!r}")
        self.padding = padding
        self.original = nn.Conv2d(channels, channels, 1, bias=False)
        self.out = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(recombine(x, self.original(x), mode=self.padding))


class SD3M(nn.Module):
    """Down-sampling decomposition: C to C channels at half the resolution.

    Original: average pool, then a 1x1 convolution. Bases: the maximum pool, and the horizontal, vertical and
    diagonal differences of each 2x2 block. No output convolution.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.original = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # squared norms pass the range of half precision
            wide = x if x.dtype == torch.float64 else x.float()
            a, b = wide[..., ::2, ::2], wide[..., ::2, 1::2]
            c, d = wide[..., 1::2, ::2], wide[..., 1::2, 1::2]
            left, right, falling = a + c, b + d, a + d
            bases = torch.stack(
                (F.max_pool2d(wide, 2), left - right, (a + b) - (c + d), falling - (b + c)), dim=2
            )
            flat = bases.flatten(3)
            unit = flat / flat.norm(dim=3, keepdim=True).clamp_min(1e-12)
        original = self.original(F.avg_pool2d(x, 2))
        with torch.autocast(x.device.type, enabled=False):
            o = original.to(unit.dtype).flatten(2).unsqueeze(3)
            coefficients = unit @ o
            out = (unit * coefficients).sum(dim=2)
        return out.view_as(original).to(original.dtype)


class InceptionPool(nn.Module):
    """Half the resolution: maximum, average and SD3M, each on about a third of the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        third = -(-channels // 3)
        self.widths = (third, third, channels - 2 * third)
        self.difference = SD3M(self.widths[2])

    def forward(self, x: Tensor) -> Tensor:
        top, mean, rest = x.split(self.widths, dim=1)
        return torch.cat((F.max_pool2d(top, 2), F.avg_pool2d(mean, 2), self.difference(rest)), dim=1)


def conv_relu(channels: int, out: int) -> nn.Sequential:
    """3x3 convolution, batch normalisation, ReLU."""
    return nn.Sequential(nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(inplace=True))


class RSU7(nn.Module):
    """Residual U-block with six levels (U2-Net's RSU-7 with an undilated bottom): any size, lowest 1/32."""

    def __init__(self, channels: int, middle: int, out: int) -> None:
        super().__init__()
        self.first = conv_relu(channels, out)
        self.down = nn.ModuleList([conv_relu(out if k == 0 else middle, middle) for k in range(6)])
        self.bottom = conv_relu(middle, middle)
        self.up = nn.ModuleList([conv_relu(2 * middle, out if k == 0 else middle) for k in range(6)])

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        levels = [self.down[0](first)]
        for block in self.down[1:]:
            levels.append(block(F.max_pool2d(levels[-1], 2, ceil_mode=True)))
        y = self.bottom(levels[-1])
        for k in range(5, -1, -1):
            y = self.up[k](torch.cat((y, levels[k]), dim=1))
            if k:
                y = resize(y, levels[k - 1].shape[-2:], corners=False)
        return y + first


class Residual(nn.Module):
    """Two 3x3 convolutions with a shortcut."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, out, 3, padding=1),
            nn.BatchNorm2d(out),
            nn.LeakyReLU(0.01, inplace=True),
            nn.Conv2d(out, out, 3, padding=1),
            nn.BatchNorm2d(out),
        )
        self.shortcut: nn.Module = (
            nn.Identity()
            if channels == out
            else nn.Sequential(nn.Conv2d(channels, out, 1), nn.BatchNorm2d(out))
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.body(x) + self.shortcut(x), 0.01)


class Up(nn.Module):
    """Up-sample the deep feature, gate it by the skip, join both and convolve twice."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.gate = nn.Conv2d(channels, channels, 1)
        self.body = nn.Sequential(conv_relu(2 * channels, out), conv_relu(out, out))

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        deep = resize(deep, skip.shape[-2:], corners=False)
        return self.body(torch.cat((skip, deep * torch.sigmoid(self.gate(skip))), dim=1))


class SD2Net(nn.Module):
    """The paper-literal SD2Net (module docstring).

    Parameters
    ----------
    base
        Base width c: 4, 8 (default), 16 or 32 in the paper; any whole number of at least 3.
    padding
        Of SD2M's differences: ``zeros`` (published) or ``reflect``.
    head_bias
        Start value of the last bias; None is PyTorch's default. -4 starts from "almost no target", which
        shortens the first phase of Soft-IoU training (not in the paper).
    """

    stride = 16
    in_channels = 1
    embedding_layer = "encoder.3"

    def __init__(self, base: int = 8, padding: str = "zeros", head_bias: float | None = None) -> None:
        super().__init__()
        if not isinstance(base, int) or isinstance(base, bool) or base < 3:
            raise ValueError(f"base is a whole number of at least 3, got {base!r}")
        c = base
        widths = (2 * c, 2 * c, 4 * c, 8 * c)
        self.coarse = RSU7(1, c, 2 * c)
        self.pools = nn.ModuleList([InceptionPool(w) for w in widths])
        self.encoder = nn.ModuleList(
            [Residual(2 * c, 2 * c), Residual(2 * c, 4 * c), Residual(4 * c, 8 * c), Residual(8 * c, 8 * c)]
        )
        self.skips = nn.ModuleList([SD2M(w, padding=padding) for w in widths])
        self.decoder = nn.ModuleList([Up(8 * c, 4 * c), Up(4 * c, 2 * c), Up(2 * c, 2 * c), Up(2 * c, 2 * c)])
        self.refine = RSU7(2 * c, c, 2 * c)
        self.head = nn.Conv2d(2 * c, 1, 1)
        if head_bias is not None:
            nn.init.constant_(self.head.bias, float(head_bias))  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, H, W) images in 0..1 to logits (B, 1, H, W); H and W multiples of 16."""
        if images.dim() != 4 or images.shape[1] != 1 or images.shape[2] % 16 or images.shape[3] % 16:
            raise ValueError(f"expected (B, 1, H, W) with H and W multiples of 16, got {tuple(images.shape)}")
        features = [self.coarse(images)]
        for pool, block in zip(self.pools, self.encoder, strict=True):
            features.append(block(pool(features[-1])))
        y = features[-1]
        for k, up in zip((3, 2, 1, 0), self.decoder, strict=True):
            y = up(y, self.skips[k](features[k]))
        return self.head(self.refine(y))
