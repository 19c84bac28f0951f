"""DATransNet, the dynamic attention transformer network.

Hu et al., "Dynamic Attention Transformer Network for Infrared Small Target Detection", IEEE GRSL 2025
(doi 10.1109/LGRS.2025.3557021).

What the paper leaves open, and what was chosen
-----------------------------------------------
- No public state of the code has the 4.46 M parameters of the paper's table. ``paper`` (default) is the
  network of its equations at full width: 4,038,945 parameters, two heads of dilations 1 and 3 at all four
  levels, a 1x1 convolution as head. ``release`` is the code since April 2025 without the two modules that it
  never calls: 2,175,401 parameters, narrower attention at levels 3 and 4, one dilation at level 4, an
  inception head, and each "head" of the attention receiving the channels of both dilations interleaved (a
  view of an axis order other than the one stacked). Compatibility with released weight files is not claimed.
- Differences: neighbour minus centre (equation 1, and the released code), borders by reflection (code).
- Q and K are normalised over space, and scores get an instance norm with eps 1e-5 before the softmax (code
  only). The scores are divided by sqrt(H W) of the map itself; the code uses the nominal size of the
  training images. The division is not harmless: the eps makes the function depend on it.
- GFEM (its dimensions are only in the code): the non-local branch ends in a norm whose scale and shift start
  at zero, without residual, so that ten tensors get a zero gradient in the very first step.
- Output: logits (the code applies the sigmoid inside).

H and W are multiples of 32, one channel, gray / largest value.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import check_images, conv_relu, one_of, resize, whole
from .sd2net import Residual

NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
"""(row, column) steps, in the order of the difference channels."""


def differences(x: Tensor, dilation: int) -> Tensor:
    """(B, C, H, W) to (B, 8C, H, W): neighbour minus centre, all channels of the first neighbour first."""
    height, width = x.shape[-2:]
    padded = F.pad(x, (dilation,) * 4, mode="reflect")
    shifted = [
        padded[
            ...,
            (1 + r) * dilation : (1 + r) * dilation + height,
            (1 + c) * dilation : (1 + c) * dilation + width,
        ]
        for r, c in NEIGHBOURS
    ]
    return torch.cat([s - x for s in shifted], dim=1)


class DATrans(nn.Module):
    """Attention of a feature's channels to the channels of its differences; C to C channels.

    Parameters
    ----------
    inner
        Channels of all heads together.
    dilations
        One a head.
    interleaved
        Regroup the channels of all heads as the released code does.
    """

    def __init__(
        self, channels: int, inner: int, dilations: tuple[int, ...] = (1, 3), *, interleaved: bool = False
    ) -> None:
        super().__init__()
        if inner % len(dilations):
            raise ValueError(f"{inner} channels cannot be shared by {len(dilations)} heads")
        t = inner // len(dilations)
        self.dilations, self.interleaved = dilations, interleaved
        self.query = nn.ModuleList([nn.Conv2d(channels, t, 1, bias=False) for _ in dilations])
        self.key = nn.ModuleList([nn.Conv2d(8 * channels, 8 * t, 1, bias=False) for _ in dilations])
        self.value = nn.ModuleList([nn.Conv2d(8 * channels, 8 * t, 1, bias=False) for _ in dilations])
        self.out = nn.Sequential(*conv_relu(inner, channels, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        steps = [differences(x, d) for d in self.dilations]
        q = self._heads([layer(x) for layer in self.query])
        k = self._heads([layer(d) for layer, d in zip(self.key, steps, strict=True)])
        v = self._heads([layer(d) for layer, d in zip(self.value, steps, strict=True)])
        with torch.autocast(x.device.type, enabled=False):  # cosines / 256 against an eps of 1e-5
            wide = torch.promote_types(q.dtype, torch.float32)
            q, k, v = q.to(wide), k.to(wide), v.to(wide)
            q, k = F.normalize(q, dim=3), F.normalize(k, dim=3)
            scores = q @ k.transpose(2, 3) / math.sqrt(x.shape[-2] * x.shape[-1])
            centred = scores - scores.mean(dim=(2, 3), keepdim=True)
            scores = centred / torch.sqrt(centred.square().mean(dim=(2, 3), keepdim=True) + 1e-5)
            y = torch.softmax(scores, dim=3) @ v
        return self.out(y.flatten(1, 2).unflatten(2, (x.shape[-2], x.shape[-1])).to(x.dtype))

    def _heads(self, maps: list[Tensor]) -> Tensor:
        """(B, heads, channels, H W)."""
        if not self.interleaved:
            return torch.stack(maps, dim=1).flatten(3)
        one = maps[0]
        return torch.stack(maps, dim=2).reshape(one.shape[0], len(maps), one.shape[1], -1)


class GFEM(nn.Module):
    """Global feature extraction on the deepest map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // 8
        self.theta, self.phi, self.g = (nn.Conv2d(channels, hidden, 1) for _ in range(3))
        self.back = nn.Conv2d(hidden, channels, 1)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm.weight)
        nn.init.zeros_(self.norm.bias)
        self.gate = nn.Conv2d(channels, channels, 1, bias=False)
        self.pooled = nn.Conv2d(channels, channels, 3, padding=1)
        self.direct = nn.Conv2d(channels, channels, 1)
        self.out = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        size = (x.shape[-2], x.shape[-1])
        theta = self.theta(x).flatten(2)
        phi, g = F.max_pool2d(self.phi(x), 2).flatten(2), F.max_pool2d(self.g(x), 2).flatten(2)
        attention = torch.softmax(theta.transpose(1, 2) @ phi, dim=2)  # (B, H W, pooled positions)
        y = (g @ attention.transpose(1, 2)).unflatten(2, size)
        s = self.norm(self.back(y))
        gate = torch.sigmoid(self.gate(F.adaptive_avg_pool2d(s, 1)))
        t = self.pooled(resize(gate * F.max_pool2d(x, 2), size, corners=False))
        return self.out(self.direct(s) + t)


class Up(nn.Module):
    """The deep feature, enlarged and gated by the encoder's, joined with the attended skip."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.gate = nn.Conv2d(channels, channels, 1)
        self.body = nn.Sequential(conv_relu(2 * channels, out), conv_relu(out, out))

    def forward(self, deep: Tensor, attended: Tensor, skip: Tensor) -> Tensor:
        deep = resize(deep, (skip.shape[-2], skip.shape[-1]), corners=False)
        return self.body(torch.cat((attended, deep * torch.sigmoid(self.gate(skip))), dim=1))


class InceptionHead(nn.Module):
    """Quarters of the channels: as they are, 3x3, 1x11 and 11x1 depthwise; then a 1x1 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        q = channels // 4
        self.widths = [channels - 3 * q, q, q, q]
        self.square = nn.Conv2d(q, q, 3, padding=1, groups=q)
        self.row = nn.Conv2d(q, q, (1, 11), padding=(0, 5), groups=q)
        self.column = nn.Conv2d(q, q, (11, 1), padding=(5, 0), groups=q)
        self.out = nn.Conv2d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        same, a, b, c = x.split(self.widths, dim=1)
        return self.out(torch.cat((same, self.square(a), self.row(b), self.column(c)), dim=1))


class DATransNet(nn.Module):
    """DATransNet (module docstring).

    Parameters
    ----------
    variant
        ``paper`` (default) or ``release``.
    base
        Width at full resolution, 16 in the paper; a multiple of 4.
    """

    stride = 32
    in_channels = 1

    def __init__(self, variant: str = "paper", base: int = 16) -> None:
        super().__init__()
        release = one_of("variant", variant, ("paper", "release")) == "release"
        c = whole("base", base, 4)
        if c % 4:
            raise ValueError(f"base is a multiple of 4, got {base}")
        widths = (c, 2 * c, 4 * c, 8 * c, 8 * c)
        self.encoder = nn.ModuleList([Residual(a, b) for a, b in zip((1, *widths), widths, strict=False)])
        self.global_features = GFEM(8 * c)
        inner = (c, 2 * c, 2 * c, 2 * c) if release else widths[:4]
        self.attention = nn.ModuleList(
            [
                DATrans(w, t, (1,) if release and k == 3 else (1, 3), interleaved=release)
                for k, (w, t) in enumerate(zip(widths, inner, strict=False))
            ]
        )
        self.decoder = nn.ModuleList(
            [Up(w, out) for w, out in zip(widths, (c, c, 2 * c, 4 * c), strict=False)]
        )
        self.head: nn.Module = InceptionHead(c) if release else nn.Conv2d(c, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, H, W) to logits (B, 1, H, W)."""
        check_images(images, 1, self.stride)
        maps: list[Tensor] = []
        x = images
        for k, block in enumerate(self.encoder):
            x = block(F.max_pool2d(x, 2) if k else x)
            maps.append(x)
        y = self.global_features(x)
        for k in (3, 2, 1, 0):
            y = self.decoder[k](y, self.attention[k](maps[k]), maps[k])
        return self.head(y)
