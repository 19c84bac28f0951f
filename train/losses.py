"""Losses on logits, by name. Finite in half precision and for images without targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..annotate.errors import IrstkitError
from .models.layers import resize

Loss = Callable[[Tensor, Tensor], Tensor]
"""``loss(logits (B, 1, H, W), masks (B, 1, H, W) of 0 and 1) -> scalar``."""


def _probabilities(logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Both as (B, pixels) in at least float32: a sum over 256 x 256 pixels passes the range of float16."""
    if logits.shape != masks.shape:
        raise ValueError(
            f"logits are {tuple(logits.shape)}, masks {tuple(masks.shape)}: one shape was expected"
        )
    wide = torch.promote_types(logits.dtype, torch.float32)
    return torch.sigmoid(logits.to(wide)).flatten(1), masks.to(wide).flatten(1)


def soft_iou(logits: Tensor, masks: Tensor, *, smooth: float = 1.0) -> Tensor:
    """Soft-IoU, 1 - (I + s) / (U + s) on probabilities, sums over the whole batch, s = 1.

    As in the SD2Net and DNA-Net code (Rahman and Wang, 2016). Without any target the loss is
    1 - s / (sum of probabilities + s): finite, and its gradient still pushes the background down.
    """
    p, t = _probabilities(logits, masks)
    intersection = (p * t).sum()
    union = p.sum() + t.sum() - intersection
    return 1 - (intersection + smooth) / (union + smooth)


def soft_iou_each(logits: Tensor, masks: Tensor, *, smooth: float = 1.0) -> Tensor:
    """Soft-IoU of each image, averaged: every image weighs the same, however large its targets."""
    p, t = _probabilities(logits, masks)
    intersection = (p * t).sum(dim=1)
    union = p.sum(dim=1) + t.sum(dim=1) - intersection
    return (1 - (intersection + smooth) / (union + smooth)).mean()


def dice(logits: Tensor, masks: Tensor, *, smooth: float = 1.0) -> Tensor:
    """Dice, 1 - (2 I + s) / (sum p + sum t + s), sums over the whole batch (Milletari et al., 2016)."""
    p, t = _probabilities(logits, masks)
    return 1 - (2 * (p * t).sum() + smooth) / (p.sum() + t.sum() + smooth)


def bce(logits: Tensor, masks: Tensor) -> Tensor:
    """Binary cross entropy, mean over pixels, from logits (no logarithm of zero)."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    return F.binary_cross_entropy_with_logits(logits.to(wide), masks.to(wide))


def focal(logits: Tensor, masks: Tensor, *, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal loss (Lin et al., 2017), summed and divided by the number of target pixels (at least 1)."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    x, t = logits.to(wide), masks.to(wide)
    entropy = F.binary_cross_entropy_with_logits(x, t, reduction="none")
    p = torch.sigmoid(x)
    missing = p * (1 - t) + (1 - p) * t  # 1 - p_t
    weight = alpha * t + (1 - alpha) * (1 - t)
    return (weight * missing.pow(gamma) * entropy).sum() / t.sum().clamp_min(1)


def bce_soft_iou(logits: Tensor, masks: Tensor) -> Tensor:
    """Cross entropy plus Soft-IoU."""
    return bce(logits, masks) + soft_iou(logits, masks)


LOSSES: dict[str, Loss] = {
    "soft_iou": soft_iou,
    "soft_iou_each": soft_iou_each,
    "dice": dice,
    "bce": bce,
    "focal": focal,
    "bce_soft_iou": bce_soft_iou,
}


def get_loss(name: str) -> Loss:
    """The loss of that name, or an error that lists them."""
    try:
        return LOSSES[name]
    except KeyError:
        raise IrstkitError(f"no loss {name!r}", hint=f"there are: {', '.join(LOSSES)}") from None


def supervised(loss: Loss, output: Tensor | Sequence[Tensor], masks: Tensor) -> Tensor:
    """The loss of a network's output; of several maps (deep supervision, as in DNA-Net) the mean of theirs.

    Maps of another size than the masks are brought to it bilinearly; masks are never resized.
    """
    if isinstance(output, Tensor):
        return loss(output, masks)
    maps = [
        o if o.shape[-2:] == masks.shape[-2:]
        else resize(o, masks.shape[-2:], corners=False)
        for o in output
    ]  # fmt: skip
    return torch.stack([loss(o, masks) for o in maps]).mean()


def final(output: Tensor | Sequence[Tensor]) -> Tensor:
    """The prediction of a network's output: the last of several maps."""
    return output if isinstance(output, Tensor) else output[-1]
