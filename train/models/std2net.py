"""STD2Net, the spatio-temporal difference decomposition network: SD2Net on a window of frames.

Hu et al., "Difference Decomposition Networks for Infrared Small Target Detection", arXiv 2512.03470 (2025).

What the paper leaves open, and what was chosen
-----------------------------------------------
The public states of the temporal module disagree; this is the reading of the paper's text (461,195 parameters;
318,139 with ``features=16``). Each frame of the window goes through one shared SD2Net whose last convolution
is widened to ``features`` channels; these maps, not probabilities, are compared. The original feature is a 1x1
convolution of all frames' maps; the bases are current minus each reference, and the current map itself (the
text's five). The recombined map goes through one U-Module and a 1x1 convolution, without normalisation or
activation between. Left out: the uniform random noise that one public state adds, at test time too.

Frames are on axis 1, in time order, and the **last** one is the current one, whose mask is predicted. A window
of fewer frames (start of a sequence) repeats its first frame (border rule ``clamp``). A reference that is the
current frame again has the difference zero and adds nothing. That must not hang on rounding: the unit norm
would turn 1e-8 into a full-strength basis, so equal frames are recognised and their difference is set to zero.

The published code calls SD2Net frame by frame in training (batch statistics a frame position, running ones
updated five times a step). Here the frames are folded into the batch: equal in evaluation mode, faster.
Published training: Soft-IoU, Adam 1e-3 with betas (0.9, 0.99), halved every 3 of 20 epochs, batch 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import checked_border
from .sd2net import RSU7, SD2Net


class TD2M(nn.Module):
    """Temporal difference decomposition: T maps of C channels to one of C; T C^2 + C parameters."""

    def __init__(self, channels: int, window: int) -> None:
        super().__init__()
        self.original = nn.Conv2d(window * channels, channels, 1)

    def forward(self, features: Tensor, same: Tensor | None = None) -> Tensor:
        """(B, T, C, H, W) maps, the current one last, to (B, C, H, W).

        ``same``: (B, T) bool, which frames are the current frame again.
        """
        original = self.original(features.flatten(1, 2))
        with torch.autocast(features.device.type, enabled=False):  # norms over the plane pass float16's range
            wide = features if features.dtype == torch.float64 else features.float()
            current, references = wide[:, -1:], wide[:, :-1]
            differences = current - references  # explicit: expanded squares cancel on still scenes
            if same is not None:
                differences = differences.masked_fill(same[:, :-1, None, None, None], 0)
            bases = torch.cat((differences, current), dim=1).flatten(3)
            unit = bases / bases.norm(dim=3, keepdim=True).clamp_min(1e-12)
            coefficients = (unit * original.to(unit.dtype).flatten(2).unsqueeze(1)).sum(dim=3, keepdim=True)
            out = (unit * coefficients).sum(dim=1)
        return out.view_as(original).to(original.dtype)


class STD2Net(nn.Module):
    """The paper-literal STD2Net (module docstring).

    Parameters
    ----------
    window
        Frames a clip, the current one included (paper: 5); at least 2.
    base
        SD2Net's base width.
    features
        Channels of a frame's map, C (32 in the public configuration; 16 is a light variant).
    padding
        Of SD2Net's differences: ``zeros`` (published) or ``reflect``.
    head_bias
        Start value of the last bias; None is PyTorch's default.
    border
        ``clamp``, ``target``, ``reflect`` or ``still`` (see :mod:`irstkit.datasets.clips`).
    """

    task = "mask"
    stride = 16
    in_channels = 1

    def __init__(
        self,
        window: int = 5,
        base: int = 8,
        features: int = 32,
        padding: str = "zeros",
        head_bias: float | None = None,
        border: str = "clamp",
    ) -> None:
        super().__init__()
        for name, value, least in (("window", window, 2), ("features", features, 1)):
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} is a whole number of at least {least}, got {value!r}")
        self.window, self.key, self.border = window, window - 1, checked_border(border)
        self.frame = SD2Net(base, padding)
        self.frame.head = nn.Conv2d(2 * base, features, 1)
        self.temporal = TD2M(features, window)
        self.refine = RSU7(features, features, features)
        self.head = nn.Conv2d(features, 1, 1)
        if head_bias is not None:
            nn.init.constant_(self.head.bias, float(head_bias))  # type: ignore[arg-type]

    def encode(self, frames: Tensor) -> Tensor:
        """(N, 1, H, W) frames in 0..1 to their maps (N, C, H, W): what a sequence needs once a frame."""
        return self.frame(frames)

    def fuse(self, features: Tensor, same: Tensor | None = None) -> Tensor:
        """(B, T, C, H, W) maps of a window to the current frame's logits (B, 1, H, W).

        ``same``: (B, T) bool, frames that repeat the current one; a repeated frame must be given as the
        same map, not as one computed anew, or be marked here.
        """
        if features.dim() != 5 or features.shape[1] != self.window:
            raise ValueError(f"expected (B, {self.window}, C, H, W) maps, got {tuple(features.shape)}")
        return self.head(self.refine(self.temporal(features, same)))

    def forward(self, clip: Tensor) -> Tensor:
        """(B, T, 1, H, W) clip, time on axis 1, current frame last, to logits (B, 1, H, W)."""
        if clip.dim() != 5 or clip.shape[1] != self.window or clip.shape[2] != 1:
            raise ValueError(f"expected a clip (B, {self.window}, 1, H, W), got {tuple(clip.shape)}")
        features = self.encode(clip.flatten(0, 1)).unflatten(0, clip.shape[:2])
        return self.fuse(features, repeats(clip, self.key))


def repeats(clip: Tensor, key: int) -> Tensor:
    """(B, T) bool: which frames of a (B, T, ...) clip are equal to frame ``key``, itself included."""
    return (clip == clip[:, key : key + 1]).flatten(2).all(dim=2)
