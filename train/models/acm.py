"""ACM, asymmetric contextual modulation, on a small ResNet: as a feature pyramid or as a U-Net.

Dai et al., "Asymmetric Contextual Modulation for Infrared Small Target Detection", WACV 2021.

What is open, and what was chosen
---------------------------------
- Which network "ACM" means in other papers' tables (0.40 M): the U-Net with three residual blocks a stage
  (397,965 parameters with three channels, 397,821 with one). It is the default.
- The published MXNet code is followed, not its ports: batch normalisation of the input without scale and
  shift; its momentum of 0.9 is PyTorch's 0.1 (the ports copied the number, which makes running statistics
  those of the last batch); resizing with aligned corners.
- Start values: the code's Gaussian of He for PReLU (``init="msra"``).

Parameters with 3 channels: U-Net of 1, 2, 3, 4 blocks 157,069, 277,517, 397,965, 518,413; FPN 95,533, 192,749,
289,965, 387,181; with one channel 144 less (of ``tiny``, whose first layer is larger, 288 less).

Sides: U-Net multiples of 16 (``tiny``: 4), FPN any. Batches of one image cannot train it: the global context
of a channel is then one value, which no norm can scale.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from .layers import check_images, conv_norm, conv_relu, msra_prelu_, one_of, resize, whole


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut; biases are left to the norms."""

    def __init__(self, channels: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *conv_norm(channels, out, 3, stride, bias=False),
            nn.ReLU(inplace=True),
            *conv_norm(out, out, bias=False),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != out:
            self.shortcut = nn.Sequential(*conv_norm(channels, out, 1, stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


def stage(channels: int, out: int, blocks: int, stride: int) -> nn.Sequential:
    """``blocks`` residual blocks, the first one strided."""
    return nn.Sequential(
        BasicBlock(channels, out, stride), *(BasicBlock(out, out) for _ in range(blocks - 1))
    )


class Modulation(nn.Module):
    """Asymmetric fusion of a deep and a shallow feature of one size.

    The deep feature weighs the shallow one's channels (global context, top-down), the shallow feature weighs
    the deep one's pixels (point-wise, bottom-up): 2 xl w(xh) + 2 xh w(xl), then a convolution. With
    ``deep != channels`` the deep feature is narrowed first.
    """

    def __init__(self, channels: int, deep: int | None = None) -> None:
        super().__init__()
        hidden = max(1, channels // 4)

        def weights() -> list[nn.Module]:
            return [*conv_relu(channels, hidden, 1), *conv_norm(hidden, channels, 1), nn.Sigmoid()]

        self.narrow: nn.Module = nn.Identity() if deep is None else conv_relu(deep, channels, 1)
        self.top_down = nn.Sequential(nn.AdaptiveAvgPool2d(1), *weights())
        self.bottom_up = nn.Sequential(*weights())
        self.post = conv_relu(channels, channels)

    def forward(self, deep: Tensor, shallow: Tensor) -> Tensor:
        deep = self.narrow(deep)
        return self.post(2 * shallow * self.top_down(deep) + 2 * deep * self.bottom_up(shallow))


class ACM(nn.Module):
    """ACM-UNet or ACM-FPN (module docstring).

    Parameters
    ----------
    variant
        ``unet`` (default) or ``fpn``.
    blocks
        Residual blocks a stage: 3 (ResNet-20; default), 4 in the published training command.
    in_channels
        1, or 3 equal ones (original).
    base
        Stem width; stages have 2, 4 and 8 times as many channels. 8 in the paper.
    tiny
        No down-sampling stem: the network works at full resolution.
    init
        ``msra`` (original) or ``default`` (PyTorch's).
    """

    def __init__(
        self,
        variant: str = "unet",
        blocks: int = 3,
        in_channels: int = 1,
        base: int = 8,
        tiny: bool = False,
        init: str = "msra",
    ) -> None:
        super().__init__()
        self.variant = one_of("variant", variant, ("unet", "fpn"))
        one_of("init", init, ("msra", "default"))
        whole("blocks", blocks, 1)
        self.in_channels = whole("in_channels", in_channels, 1)
        c = whole("base", base, 2)
        self.stride = 1 if variant == "fpn" else 4 if tiny else 16
        one, two, three = 2 * c, 4 * c, 8 * c
        layers: list[nn.Module] = [nn.BatchNorm2d(in_channels, affine=False)]
        if tiny:
            layers += conv_relu(in_channels, one, bias=False)
        else:
            layers += [
                *conv_relu(in_channels, c, 3, 2, bias=False),
                *conv_relu(c, c, bias=False),
                *conv_relu(c, one, bias=False),
                nn.MaxPool2d(3, 2, 1),
            ]
        self.stem = nn.Sequential(*layers)
        self.stage1, self.stage2 = stage(one, one, blocks, 1), stage(one, two, blocks, 2)
        self.stage3 = stage(two, three, blocks, 2)
        if variant == "unet":
            self.up2, self.up1 = (
                nn.ConvTranspose2d(three, two, 4, 2, 1),
                nn.ConvTranspose2d(two, one, 4, 2, 1),
            )
            self.fuse2, self.fuse1 = Modulation(two), Modulation(one)
            self.decode2, self.decode1 = stage(two, two, blocks, 1), stage(one, one, blocks, 1)
        else:
            self.fuse2, self.fuse1 = Modulation(two, three), Modulation(one, two)
        hidden = max(1, one // 4)
        self.head = nn.Sequential(
            *conv_relu(one, hidden, bias=False), nn.Dropout(0.1), nn.Conv2d(hidden, 1, 1)
        )
        if init == "msra":
            msra_prelu_(self)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to logits (B, 1, H, W)."""
        check_images(images, self.in_channels, self.stride)
        if self.training and images.shape[0] == 1:  # its context is one value a channel: no deviation
            raise ValueError("ACM trains on batches of two images or more, got a batch of one")
        one = self.stage1(self.stem(images))
        two = self.stage2(one)
        three = self.stage3(two)
        if self.variant == "unet":
            y = self.decode2(self.fuse2(self.up2(three), two))
            y = self.decode1(self.fuse1(self.up1(y), one))
        else:
            y = self.fuse2(resize(three, two.shape[-2:], corners=True), two)
            y = self.fuse1(resize(y, one.shape[-2:], corners=True), one)
        return resize(self.head(y), (images.shape[-2], images.shape[-1]), corners=True)
