"""EFLNet, a single-frame box detector: YOLOv7's body, a dynamic head, ATFL and NWD.

Yang et al., "EFLNet: Enhancing Feature Learning Network for Infrared Small Target Detection", IEEE TGRS 62, 2024.
Dynamic head: Dai et al., CVPR 2021. Body and assignment: Wang et al., arXiv 2207.02696.

Parameters: 32,769,434 and 38,518,958 with 80 classes and 0 and 3 dynamic blocks (the paper's column);
38,335,520 and 40,252,028 with one class and 3 and 4 blocks.

What the paper leaves open or the public code does otherwise, and what was chosen
---------------------------------------------------------------------------------
- ``blocks``: 3 (what was released; the text's ablation prefers 4).
- ``offset_mode``: the dynamic head's branch from the coarser level gets offsets of the finer one, twice its
  size, and the public operator reads the wrong memory. ``resize`` (default) brings offsets and masks to the
  coarse grid; ``upsample`` brings the coarse map to the fine grid; ``flat`` repeats the published read.
  Weights trained in one mode are not valid in another.
- ATFL keeps a history, detaches its exponents and is bounded; lambda 3.5. NWD in pixels of the input, C 11.
  ``preset="released"``: lambda 1.5, no history, nothing detached, no bound, C 12 in units of each level's
  grid, duplicate candidates kept, ``flat``.
- Assignment goes by IoU (SimOTA), not NWD, as in the public code.
- One class: no class loss, and the score is the objectness alone.
- Anchors: YOLOv7's on COCO, replaced where fewer than 98 % of the training targets are within a factor 4 of
  one (:mod:`..anchors`); they are saved with the weights.

Input: three equal channels (gray) in 0..1, no mean and deviation; sides are multiples of 32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .deform import cbs
from .dynamic_head import OFFSET_MODES, DynamicBlock

STRIDES = (8, 16, 32)
ANCHORS = (
    ((12, 16), (19, 36), (40, 28)),
    ((36, 75), (76, 55), (72, 146)),
    ((142, 110), (192, 243), (459, 401)),
)
"""Widths and heights in pixels of the input, YOLOv7's on COCO."""

PRESETS: dict[str, dict[str, Any]] = {
    "default": {
        "offset_mode": "resize",
        "lam": 3.5,
        "smoothing": 0.05,
        "detach": "exponents",
        "f_max": 1000.0,
        "nwd_c": 11.0,
        "nwd_unit": "pixels",
        "duplicates": "remove",
    },
    "released": {
        "offset_mode": "flat",
        "lam": 1.5,
        "smoothing": 0.0,
        "detach": "none",
        "f_max": None,
        "nwd_c": 12.0,
        "nwd_unit": "grid",
        "duplicates": "keep",
    },
}


def conv(channels: int, out: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return cbs(channels, out, kernel, stride, bias=False)


class ELAN(nn.Module):
    """YOLOv7's aggregation: two 1x1 branches, one followed by four 3x3 convolutions.

    ``keep``: which of the four are joined with the branches; ``inner``: their width.
    """

    def __init__(self, channels: int, hidden: int, out: int, *, inner: int, keep: Sequence[int]) -> None:
        super().__init__()
        self.keep = tuple(keep)
        self.a, self.b = conv(channels, hidden, 1), conv(channels, hidden, 1)
        self.chain = nn.ModuleList([conv(hidden if k == 0 else inner, inner) for k in range(4)])
        self.out = conv(len(self.keep) * inner + 2 * hidden, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        a, y = self.a(x), self.b(x)
        parts = [a, y]
        for k, block in enumerate(self.chain):
            y = block(y)
            if k in self.keep:
                parts.append(y)
        return self.out(torch.cat(parts[::-1], dim=1))  # newest first: [c4, ..., b, a]


def backbone_elan(channels: int, hidden: int, out: int) -> ELAN:
    return ELAN(channels, hidden, out, inner=hidden, keep=(1, 3))


def neck_elan(channels: int, hidden: int, out: int) -> ELAN:
    return ELAN(channels, hidden, out, inner=hidden // 2, keep=(0, 1, 2, 3))


class Down(nn.Module):
    """Half the resolution by pooling and by a strided convolution, joined: C to 2 h."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.pooled = conv(channels, hidden, 1)
        self.strided = nn.Sequential(conv(channels, hidden, 1), conv(hidden, hidden, 3, 2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.strided(x), self.pooled(F.max_pool2d(x, 2))), dim=1)


class SPPCSPC(nn.Module):
    """Spatial pyramid pooling with a cross-stage shortcut."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.first = nn.Sequential(conv(channels, out, 1), conv(out, out), conv(out, out, 1))
        self.last = nn.Sequential(conv(4 * out, out, 1), conv(out, out))
        self.shortcut = conv(channels, out, 1)
        self.out = conv(2 * out, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        pooled = [F.max_pool2d(y, k, 1, k // 2) for k in (5, 9, 13)]
        return self.out(torch.cat((self.last(torch.cat((y, *pooled), dim=1)), self.shortcut(x)), dim=1))


class RepConv(nn.Module):
    """Sum of a 3x3 convolution, a 1x1 convolution and, where widths are equal, the input, each normalised."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.wide = conv(channels, out)[:2]
        self.narrow = conv(channels, out, 1)[:2]
        self.identity = nn.BatchNorm2d(channels, eps=1e-3, momentum=0.03) if channels == out else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.wide(x) + self.narrow(x)
        return F.silu(y if self.identity is None else y + self.identity(x))

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """One biased 3x3 convolution and the activation: equal in evaluation mode."""
        convolution: nn.Conv2d = self.wide[0]  # type: ignore[assignment]
        out, channels = convolution.weight.shape[:2]
        merged = nn.Conv2d(channels, out, 3, padding=1).to(convolution.weight)
        kernel, bias = _folded(convolution.weight, self.wide[1])
        narrow: nn.Conv2d = self.narrow[0]  # type: ignore[assignment]
        small, small_bias = _folded(narrow.weight, self.narrow[1])
        kernel, bias = kernel + F.pad(small, (1, 1, 1, 1)), bias + small_bias
        if self.identity is not None:
            eye = torch.eye(out).to(kernel)[:, :, None, None]
            same, same_bias = _folded(F.pad(eye, (1, 1, 1, 1)), self.identity)
            kernel, bias = kernel + same, bias + same_bias
        merged.weight.copy_(kernel)
        merged.bias.copy_(bias)  # type: ignore[union-attr]
        return nn.Sequential(merged, nn.SiLU(inplace=True))


def _folded(weight: Tensor, norm: Any) -> tuple[Tensor, Tensor]:
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale


class Predict(nn.Module):
    """YOLOR's implicit knowledge around a 1x1 convolution: (y + a) convolved, times m."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.add = nn.Parameter(torch.randn(1, channels, 1, 1) * 0.02)
        self.conv = nn.Conv2d(channels, out, 1)
        self.multiply = nn.Parameter(1 + torch.randn(1, out, 1, 1) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x + self.add) * self.multiply

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """The convolution with both vectors folded in."""
        out, channels = self.conv.weight.shape[:2]
        merged = nn.Conv2d(channels, out, 1).to(self.conv.weight)
        factor = self.multiply.flatten()
        merged.weight.copy_(self.conv.weight * factor[:, None, None, None])
        shift = self.conv.weight.flatten(1) @ self.add.flatten()
        assert self.conv.bias is not None and merged.bias is not None
        merged.bias.copy_((self.conv.bias + shift) * factor)
        return merged


class EFLNet(nn.Module):
    """The paper's EFLNet (module docstring).

    Parameters
    ----------
    classes, blocks
        Classes (1), dynamic blocks (3; 0 switches the head off).
    width
        Factor of every channel count, for tests and small machines; 1 is the paper's.
    preset
        ``default`` or ``released``: where the options below that are left at None come from.
    offset_mode, offset_scale
        See the module docstring; ``offset_scale`` also scales resized offsets to pixels of the coarse map.
    anchors
        Three levels of three (width, height) pairs in pixels; None: YOLOv7's on COCO.
    atfl, nwd
        The losses' switches (table VII): without them, cross entropy, and CIoU.
    lam, tau, smoothing, detach, f_max, exponent, p_hat_over
        See :class:`..box_losses.ATFL`; ``f_max=0`` is no bound.
    nwd_c, nwd_unit
        C, in ``pixels`` of the input or of the level's ``grid``.
    duplicates
        See :func:`..assign.anchor_candidates`.
    """

    task = "boxes"
    stride = 32
    in_channels = 3

    def __init__(
        self,
        classes: int = 1,
        blocks: int = 3,
        width: float = 1.0,
        preset: str = "default",
        offset_mode: str | None = None,
        offset_scale: bool = False,
        anchors: Any = None,
        atfl: bool = True,
        nwd: bool = True,
        lam: float | None = None,
        tau: float = 0.5,
        smoothing: float | None = None,
        detach: str | None = None,
        f_max: float | None = None,
        exponent: float | None = None,
        p_hat_over: str = "all",
        nwd_c: float | None = None,
        nwd_unit: str | None = None,
        duplicates: str | None = None,
    ) -> None:
        super().__init__()
        from .eflnet_loss import EFLNetLoss

        for name, value, least in (("classes", classes, 1), ("blocks", blocks, 0)):
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} is a whole number of at least {least}, got {value!r}")
        if preset not in PRESETS:
            raise ValueError(f"preset is one of {', '.join(PRESETS)}, got {preset!r}")
        given = {
            "offset_mode": offset_mode, "lam": lam, "smoothing": smoothing, "detach": detach, "f_max": f_max,
            "nwd_c": nwd_c, "nwd_unit": nwd_unit, "duplicates": duplicates,
        }  # fmt: skip
        chosen = PRESETS[preset] | {k: v for k, v in given.items() if v is not None}
        if chosen["offset_mode"] not in OFFSET_MODES:
            raise ValueError(
                f"offset_mode is one of {', '.join(OFFSET_MODES)}, got {chosen['offset_mode']!r}"
            )
        self.classes = classes

        def w(channels: int) -> int:
            return max(8, round(channels * width / 8) * 8)

        if w(256) % 16:
            raise ValueError(f"width is {width}: 256 times it is rounded to {w(256)}, no multiple of 16")
        self.stem = nn.Sequential(
            conv(3, w(32)), conv(w(32), w(64), 3, 2), conv(w(64), w(64)), conv(w(64), w(128), 3, 2)
        )
        self.stages = nn.ModuleList(
            [
                nn.Sequential(
                    backbone_elan(w(128), w(64), w(256)),
                    Down(w(256), w(128)),
                    backbone_elan(2 * w(128), w(128), w(512)),
                ),
                nn.Sequential(Down(w(512), w(256)), backbone_elan(2 * w(256), w(256), w(1024))),
                nn.Sequential(Down(w(1024), w(512)), backbone_elan(2 * w(512), w(256), w(1024))),
            ]
        )
        self.pyramid = SPPCSPC(w(1024), w(512))
        self.up5, self.lat4 = conv(w(512), w(256), 1), conv(w(1024), w(256), 1)
        self.top4 = neck_elan(2 * w(256), w(256), w(256))
        self.up4, self.lat3 = conv(w(256), w(128), 1), conv(w(512), w(128), 1)
        self.top3 = neck_elan(2 * w(128), w(128), w(128))
        self.down4, self.bottom4 = Down(w(128), w(128)), neck_elan(2 * w(128) + w(256), w(256), w(256))
        self.down5, self.bottom5 = Down(w(256), w(256)), neck_elan(2 * w(256) + w(512), w(512), w(512))
        self.rep = nn.ModuleList([RepConv(w(c), w(256)) for c in (128, 256, 512)])
        self.dynamic = nn.ModuleList(
            [DynamicBlock(w(256), chosen["offset_mode"], offset_scale=offset_scale) for _ in range(blocks)]
        )
        layers = [Predict(w(256), 3 * (5 + classes)) for _ in STRIDES]
        self.predict = nn.ModuleList(layers)
        for layer, stride in zip(layers, STRIDES, strict=True):
            assert layer.conv.bias is not None
            bias = layer.conv.bias.data.view(3, -1)
            bias[:, 4] += math.log(8 / (640 / stride) ** 2)
            bias[:, 5:] += math.log(0.6 / (classes - 0.99))
        self.register_buffer("anchors", torch.zeros(3, 3, 2))
        self.set_anchors(ANCHORS if anchors is None else anchors)
        self.criterion = EFLNetLoss(
            classes,
            atfl=atfl,
            nwd=nwd,
            tau=tau,
            exponent=exponent,
            over=p_hat_over,
            lam=chosen["lam"],
            smoothing=chosen["smoothing"],
            detach=chosen["detach"],
            f_max=chosen["f_max"] or None,
            nwd_c=chosen["nwd_c"],
            nwd_unit=chosen["nwd_unit"],
            duplicates=chosen["duplicates"],
        )

    anchors: Tensor

    def set_anchors(self, anchors: Any) -> None:
        """Take other anchors: (3, 3, 2) or (9, 2) widths and heights in pixels, small to large."""
        values = torch.as_tensor(anchors, dtype=torch.float32)
        if values.numel() != 18 or not bool((values > 0).all()):
            raise ValueError(
                f"anchors are 3 levels of 3 (width, height) pairs above 0, got {tuple(values.shape)}"
            )
        self.anchors = values.reshape(3, 3, 2).to(self.anchors.device)

    def features(self, images: Tensor) -> list[Tensor]:
        """Maps of strides 8, 16, 32, all 256 wide, before the prediction layers."""
        x = self.stem(images)
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        c3, c4, c5 = levels
        s5 = self.pyramid(c5)
        t4 = self.top4(torch.cat((self.lat4(c4), F.interpolate(self.up5(s5), scale_factor=2)), dim=1))
        t3 = self.top3(torch.cat((self.lat3(c3), F.interpolate(self.up4(t4), scale_factor=2)), dim=1))
        n4 = self.bottom4(torch.cat((self.down4(t3), t4), dim=1))
        n5 = self.bottom5(torch.cat((self.down5(n4), s5), dim=1))
        maps = [block(m) for block, m in zip(self.rep, (t3, n4, n5), strict=True)]
        for block in self.dynamic:
            maps = block(maps)
        return maps

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) images in 0..1 to three raw maps (B, 3, h, w, 5 + classes): x, y, w, h, object, class."""
        if images.dim() != 4 or images.shape[1] != 3 or images.shape[2] % 32 or images.shape[3] % 32:
            raise ValueError(f"expected (B, 3, H, W) with H and W multiples of 32, got {tuple(images.shape)}")
        raw = [layer(m) for layer, m in zip(self.predict, self.features(images), strict=True)]
        return [r.unflatten(1, (3, -1)).permute(0, 1, 3, 4, 2).contiguous() for r in raw]

    def decode(self, raw: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Raw maps to boxes (B, A, 4), half-open xyxy in pixels of the input, and scores (B, A) in 0..1."""
        boxes, scores = [], []
        for level, (values, stride) in enumerate(zip(raw, STRIDES, strict=True)):
            values = values.float()
            boxes.append(to_xyxy(decode_level(values, self.anchors[level], stride)).flatten(1, 3))
            score = values[..., 4].sigmoid()
            if self.classes > 1:
                score = score * values[..., 5:].sigmoid().amax(dim=-1)
            scores.append(score.flatten(1))
        return torch.cat(boxes, dim=1), torch.cat(scores, dim=1)

    def losses(self, output: list[Tensor], targets: list[Tensor]) -> dict[str, Tensor]:
        """Loss terms by name; ``total`` is what to minimise, ``positives`` the cells that were assigned.

        ``targets``: one (N, 4) tensor of half-open xyxy boxes an image, in pixels of the input; N may be 0.
        """
        return self.criterion(output, targets, self.anchors)

    def end_epoch(self) -> None:
        """Close the epoch of ATFL's history."""
        self.criterion.end_epoch()


def decode_level(raw: Tensor, anchors: Tensor, stride: int) -> Tensor:
    """(B, 3, h, w, 4+) raw values to (B, 3, h, w, 4) boxes (cx, cy, w, h) in pixels."""
    height, width = raw.shape[2:4]
    rows, columns = torch.meshgrid(
        torch.arange(height, device=raw.device), torch.arange(width, device=raw.device), indexing="ij"
    )
    cell = torch.stack((columns, rows), dim=-1).to(raw.dtype)
    share = raw[..., :4].sigmoid()
    centre = (2 * share[..., :2] - 0.5 + cell) * stride
    side = (2 * share[..., 2:]) ** 2 * anchors.to(raw)[None, :, None, None]
    return torch.cat((centre, side), dim=-1)


def to_xyxy(boxes: Tensor) -> Tensor:
    """(..., 4) (cx, cy, w, h) to half-open xyxy."""
    half = boxes[..., 2:] / 2
    return torch.cat((boxes[..., :2] - half, boxes[..., :2] + half), dim=-1)
