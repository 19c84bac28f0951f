"""DFAR, deformable feature alignment and refinement: boxes of the key frame from a clip of 2R + 1 frames.

Luo et al., "Deformable Feature Alignment and Refinement for Moving Infrared Dim-Small Target Detection",
arXiv 2407.07289, Pattern Recognition 2025, 111894.

7,711,190 parameters (the paper's 7.53 M is a profiler's count that misses the deformable layers and the bare
scalars). One map at stride 8, (B, 6, ceil(H/8), ceil(W/8)): x, y, w, h, objectness, class.

What the paper leaves open or the public code does otherwise, and what was chosen
---------------------------------------------------------------------------------
- The four neighbours have fusion and alignment weights of their own, and a seventh convolution ends the
  extractor (48 to 64), as the parameter count demands; so do the convolutions before and after AGDF.
- The two scalars of DCAF's residual are uninitialised memory in the public code: here alpha 1, ``residual``
  (1) for beta.
- Offset and mask convolutions start at zero (``init="zero"``): offsets 0, masks 0.5. ``init="identity"``
  also lets AGDF start close to the identity: four of them in a row, without a skip connection, otherwise
  leave nothing of a dim target at the start (docs/detectors.md). ``init="released"`` is the public rule
  N(0, 0.02) for every convolution, without prior.
- Objectness and class start at probability 0.01 (YOLOX's prior), which the public code leaves out.
- Frames out of the sequence are the key frame (border rule ``target``, the paper's); the public code
  repeats the border frame (``clamp``).
- The public code encodes frame by frame and so updates the extractor's running statistics 2R + 1 times a
  step; here frames are folded into the batch: equal in evaluation mode.
- Input: three equal channels (gray), /255, ImageNet mean and deviation in the paper's scripts.

Switches (tables III and IV): ``tda`` (alignment, with it the motion-compensation loss), ``afs`` and ``agdf``
(together the refinement FR). Without AFS the maps are fused by the paper's baseline, a 3x3 convolution with
as many filters as the maps have channels together; without TDA the neighbours go in as they are.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .deform import DeformConv, Pooled, cbs, split_offset_mask
from .layers import checked_border, resize

WIDTH = 64


class DCAF(nn.Module):
    """Dilated convolution attention fusion: four dilations of one map, weighted by channel; C to C."""

    def __init__(self, channels: int, residual: float = 1.0) -> None:
        super().__init__()
        half = channels // 2
        wide = channels + 4 * half
        self.reduce = nn.Conv2d(channels, half, 3, padding=1)
        self.dilated = nn.ModuleList([nn.Conv2d(half, half, 3, padding=r, dilation=r) for r in (1, 2, 3, 4)])
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            Pooled(wide, wide // 2),
            nn.ReLU(),
            Pooled(wide // 2, wide),
            nn.Sigmoid(),
        )
        self.out = nn.Conv2d(wide, channels, 1)
        self.alpha = nn.Parameter(torch.ones(()))
        self.beta = nn.Parameter(torch.tensor(float(residual)))

    def forward(self, x: Tensor) -> Tensor:
        t = F.leaky_relu(self.reduce(x), 0.1)
        sums = [self.dilated[0](t)]
        first = sums[0]
        for k, branch in enumerate(self.dilated[1:]):
            sums.append((first if k == 0 else sums[-1]) + branch(t))
        z = torch.cat((x, *sums), dim=1)
        y = self.out(F.leaky_relu(self.attention(z) * z, 0.1))
        return self.alpha * x + self.beta * y


class Alignment(nn.Module):
    """TDA for one neighbour: where each of its pixels stands in the key frame, then its features taken there."""

    def __init__(self, channels: int, residual: float = 1.0) -> None:
        super().__init__()
        self.fusion = nn.Sequential(
            cbs(2 * channels, channels),
            *(DCAF(channels, residual) for _ in range(4)),
            cbs(channels, channels),
        )
        self.offset = nn.Conv2d(channels, 8 * 27, 3, padding=1)
        self.sample = DeformConv(channels, channels, groups=8)

    def forward(self, neighbour: Tensor, target: Tensor) -> Tensor:
        fused = self.fusion(torch.cat((neighbour, target), dim=1))
        return F.relu(self.sample(neighbour, *split_offset_mask(self.offset(fused))))


class AFS(nn.Module):
    """Attention-guided fusion of the frames' maps: linear weights a frame and channel, no softmax."""

    def __init__(self, channels: int, frames: int) -> None:
        super().__init__()
        self.summary = nn.Sequential(nn.Conv2d(frames * channels, channels, 1), nn.ReLU())
        self.squeeze = nn.Sequential(Pooled(channels, channels // 2), nn.ReLU())
        self.weights = nn.ModuleList([Pooled(channels // 2, channels) for _ in range(frames)])
        self.out = nn.Sequential(nn.Conv2d(frames * channels, channels, 1), nn.ReLU())

    def forward(self, maps: list[Tensor]) -> Tensor:
        squeezed = self.squeeze(self.summary(torch.cat(maps, dim=1)).mean(dim=(2, 3), keepdim=True))
        weighted = [m * w(squeezed) for m, w in zip(maps, self.weights, strict=True)]
        return self.out(torch.cat(weighted, dim=1))


class AGDF(nn.Module):
    """Attention-guided deformable fusion: spatial and channel statistics, then one offset group a channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.reduce = cbs(channels, half)
        self.spatial = nn.Conv2d(2, half, 7, padding=3, bias=False)
        self.mlp = nn.Sequential(
            Pooled(half, half // 2, bias=False), nn.ReLU(), Pooled(half // 2, half, bias=False)
        )
        self.join = cbs(2 * half, half, 1)
        self.offset = nn.Conv2d(half, 27 * half, 3, padding=1)
        self.halve = cbs(half, half, 3, 2)
        self.offset_coarse = nn.Conv2d(half, 27 * half, 3, padding=1)
        self.sample = DeformConv(half, half, groups=half)
        self.expand = cbs(half, channels)

    def near_identity(self) -> None:
        """Start where signals pass: delta-orthogonal convolutions (Xiao et al., arXiv 1806.05393), and a
        deformable one that returns its input at offset 0 and mask 0.5."""
        for convolution in (self.reduce[0], self.spatial, self.join[0], self.expand[0]):
            weight: Tensor = convolution.weight  # type: ignore[assignment]
            middle = weight.shape[-1] // 2
            nn.init.zeros_(weight)
            with torch.no_grad():
                weight[:, :, middle, middle] = nn.init.orthogonal_(torch.empty(weight.shape[:2]))
        nn.init.dirac_(self.sample.weight)
        with torch.no_grad():
            self.sample.weight.mul_(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.reduce(x)
        statistics = self.spatial(torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), dim=1))
        spatial = F.silu(statistics)  # the response times its own sigmoid, as in the public code
        gate = self.mlp(x.mean((2, 3), keepdim=True)) + self.mlp(x.amax((2, 3), keepdim=True))
        f = self.join(torch.cat((spatial, x * torch.sigmoid(gate)), dim=1))
        fine = self.offset(f)
        coarse = self.offset_coarse(self.halve(f))
        coarse = resize(coarse, fine.shape[-2:], corners=False)
        return self.expand(F.relu(self.sample(f, *split_offset_mask(fine + coarse))))


class Head(nn.Module):
    """YOLOX's decoupled head on one level: box and objectness from one branch, the class from the other."""

    def __init__(self, channels: int, wide: int, classes: int) -> None:
        super().__init__()
        self.stem = cbs(channels, wide, 1)
        self.class_branch = nn.Sequential(cbs(wide, wide), cbs(wide, wide))
        self.box_branch = nn.Sequential(cbs(wide, wide), cbs(wide, wide))
        self.classes = nn.Conv2d(wide, classes, 1)
        self.box = nn.Conv2d(wide, 4, 1)
        self.objectness = nn.Conv2d(wide, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        box = self.box_branch(x)
        return torch.cat((self.box(box), self.objectness(box), self.classes(self.class_branch(x))), dim=1)


class DFAR(nn.Module):
    """The paper's DFAR (module docstring).

    Parameters
    ----------
    radius
        R, frames on each side of the key frame (paper: 2; at least 1).
    tda, afs, agdf
        The ablation's switches.
    eta
        Weight of the motion-compensation loss (paper: 1.0 for DAUB, 1.4 best for IRDST).
    detach_target
        Keep that loss from shrinking the key frame's features (off: published).
    residual
        Start of DCAF's beta.
    init
        ``zero`` (default), ``identity`` or ``released``.
    radius_cells
        SimOTA's centre radius in strides.
    width
        Factor of every channel count, a multiple of 1/8, for tests and small machines; 1 is the paper's.
    border
        What stands in for frames that the sequence does not have: ``target``, ``clamp``, ``reflect``; or
        ``still``, the key frame in place of all its neighbours (see :mod:`irstkit.datasets.clips`).
    """

    task = "boxes"
    stride = 8
    in_channels = 3

    def __init__(
        self,
        radius: int = 2,
        tda: bool = True,
        afs: bool = True,
        agdf: bool = True,
        eta: float = 1.0,
        detach_target: bool = False,
        residual: float = 1.0,
        init: str = "zero",
        radius_cells: float = 2.5,
        width: float = 1.0,
        border: str = "target",
    ) -> None:
        super().__init__()
        if not isinstance(radius, int) or isinstance(radius, bool) or radius < 1:
            raise ValueError(f"radius is a whole number of at least 1, got {radius!r}")
        if init not in ("zero", "identity", "released"):
            raise ValueError(f"init is 'zero', 'identity' or 'released', got {init!r}")
        if not (eta >= 0 and math.isfinite(eta)):
            raise ValueError(f"eta is a number of at least 0, got {eta!r}")
        self.window, self.key, self.border = 2 * radius + 1, radius, checked_border(border)
        self.eta, self.detach_target, self.radius_cells = float(eta), detach_target, float(radius_cells)
        if not 0 < width <= 4 or (8 * width) % 1:
            raise ValueError(f"width is a multiple of 1/8 from 0.125 to 4, got {width!r}")
        c, w = int(48 * width), int(WIDTH * width)
        self.extract = nn.Sequential(
            cbs(3, c), cbs(c, c, 3, 2), cbs(c, c), cbs(c, c, 3, 2), cbs(c, c), cbs(c, c, 3, 2), cbs(c, w)
        )
        self.align = nn.ModuleList([Alignment(w, residual) for _ in range(2 * radius)] if tda else [])
        joined = self.window * w
        self.fuse_frames: nn.Module = AFS(w, self.window) if afs else cbs(joined, joined)
        self.mid = cbs(w if afs else joined, w)
        self.refine = nn.Sequential(*(AGDF(w) for _ in range(4 if agdf else 0)))
        self.out = cbs(w, 2 * w)
        self.head = Head(2 * w, 4 * w, 1)
        self._initialise(init)

    def _initialise(self, init: str) -> None:
        if init == "released":
            for module in self.modules():
                if isinstance(module, (nn.Conv2d, DeformConv)):
                    nn.init.normal_(module.weight, 0.0, 0.02)
                elif isinstance(module, nn.BatchNorm2d):
                    nn.init.normal_(module.weight, 1.0, 0.02)
            return
        for module in self.modules():
            if isinstance(module, Alignment):
                convolutions = [module.offset]
            elif isinstance(module, AGDF):
                if init == "identity":
                    module.near_identity()
                convolutions = [module.offset, module.offset_coarse]
            else:
                continue
            for convolution in convolutions:
                nn.init.zeros_(convolution.weight)
                nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
        for convolution in (self.head.objectness, self.head.classes):
            nn.init.constant_(convolution.bias, -math.log(99))  # type: ignore[arg-type]

    def encode(self, frames: Tensor) -> Tensor:
        """(N, 3, H, W) frames to their features (N, 64, ceil(H/8), ceil(W/8)): needed once a frame."""
        return self.extract(frames)

    def fuse(self, features: Tensor, same: Tensor | None = None) -> Tensor:
        """(B, T, 64, h, w) features of a clip in time order to the raw map (B, 6, h, w)."""
        return self._fuse(features)[0]

    def _fuse(self, features: Tensor) -> tuple[Tensor, Tensor]:
        if features.dim() != 5 or features.shape[1] != self.window:
            raise ValueError(f"expected (B, {self.window}, C, h, w) features, got {tuple(features.shape)}")
        maps = list(features.unbind(1))
        target = maps[self.key]
        motion = features.new_zeros((), dtype=torch.float32)
        if len(self.align):
            neighbours = [k for k in range(self.window) if k != self.key]
            for k, block in zip(neighbours, self.align, strict=True):
                maps[k] = block(maps[k], target)
                if self.training:
                    motion = motion + motion_compensation(maps[k], target, detach_target=self.detach_target)
        joined = self.fuse_frames(maps if isinstance(self.fuse_frames, AFS) else torch.cat(maps, dim=1))
        return self.head(self.out(self.refine(self.mid(joined)))), motion

    def forward(self, clip: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """(B, T, 3, H, W) clip, time on axis 1, to the raw map; in training with the motion loss beside it."""
        if clip.dim() != 5 or clip.shape[1] != self.window or clip.shape[2] != 3:
            raise ValueError(f"expected a clip (B, {self.window}, 3, H, W), got {tuple(clip.shape)}")
        features = self.encode(clip.flatten(0, 1)).unflatten(0, clip.shape[:2])
        raw, motion = self._fuse(features)
        return (raw, motion) if self.training else raw

    def decode(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Raw map to boxes (B, A, 4), half-open xyxy in pixels of the input, and scores (B, A) in 0..1."""
        flat = raw.float().flatten(2).transpose(1, 2)
        return decode_cells(flat, raw.shape[-2:], self.stride), flat[..., 4].sigmoid() * flat[
            ..., 5
        ].sigmoid()

    def losses(self, output: Tensor | tuple[Tensor, Tensor], targets: list[Tensor]) -> dict[str, Tensor]:
        """Loss terms by name; ``total`` is what to minimise, ``positives`` the cells that were assigned.

        ``targets``: one (N, 4) tensor of half-open xyxy boxes an image, in pixels of the input; N may be 0.
        """
        from ..box_losses import yolox_losses

        raw, motion = output if isinstance(output, tuple) else (output, None)
        terms = yolox_losses(raw, targets, stride=self.stride, radius=self.radius_cells)
        if motion is not None:
            terms["motion"] = motion
            terms["total"] = terms["total"] + self.eta * motion
        return terms


def motion_compensation(aligned: Tensor, target: Tensor, *, detach_target: bool = False) -> Tensor:
    """L_MC of one neighbour: mean absolute difference of aligned and key features (paper, section on TDA).

    Mean over batch, channels and positions, in float32; the neighbours' values are summed.
    """
    if aligned.shape != target.shape:
        raise ValueError(f"aligned is {tuple(aligned.shape)}, target {tuple(target.shape)}")
    wide = torch.promote_types(aligned.dtype, torch.float32)
    return (aligned.to(wide) - (target.detach() if detach_target else target).to(wide)).abs().mean()


def decode_cells(flat: Tensor, size: tuple[int, ...], stride: int) -> Tensor:
    """YOLOX's decoding: (B, A, 4+) raw values, row by row, to (B, A, 4) half-open xyxy boxes in pixels.

    The centre counts from the cell's corner; exponents are limited to e^10 strides against overflow.
    """
    height, width = size
    rows, columns = torch.meshgrid(
        torch.arange(height, device=flat.device), torch.arange(width, device=flat.device), indexing="ij"
    )
    corner = torch.stack((columns, rows), dim=-1).reshape(1, -1, 2).to(flat.dtype)
    centre = (flat[..., :2] + corner) * stride
    side = flat[..., 2:4].clamp(max=10).exp() * stride
    return torch.cat((centre - side / 2, centre + side / 2), dim=-1)
