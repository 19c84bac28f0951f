"""Losses of box detectors: ATFL, NWD, YOLOX's terms. All computed in float32, finite for any finite logit.

EFLNet: Yang et al., IEEE TGRS 62, 2024 (ATFL). NWD: Wang et al., arXiv 2110.13389. DFAR's detection loss is
YOLOX's (Ge et al., arXiv 2107.08430); its motion-compensation loss is with the network (:mod:`.models.dfar`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .assign import assign_yolox


def nwd(a: Tensor, b: Tensor, c: float, *, eps: float = 1e-7) -> Tensor:
    """Normalised Wasserstein similarity of pairs of boxes (..., 4) as (cx, cy, w, h): exp(-sqrt(W2) / C).

    ``c`` is in the unit of the boxes; ``eps`` keeps the root's gradient finite, so equal boxes give
    exp(-sqrt(eps) / C).
    """
    wide = torch.promote_types(a.dtype, torch.float32)
    a, b = a.to(wide), b.to(wide)
    centre = ((a[..., :2] - b[..., :2]) ** 2).sum(dim=-1) + eps
    side = ((a[..., 2:] - b[..., 2:]) ** 2).sum(dim=-1) / 4
    return torch.exp(-torch.sqrt(centre + side) / c)


DETACH = ("exponents", "factor", "none")


class ATFL(nn.Module):
    """Adaptive threshold focal loss on logits with (soft) targets in 0..1.

    With q = t p + (1 - t)(1 - p): (lambda - q)^(-ln q) BCE where q <= tau, (1 - q)^(-ln p_hat) BCE above,
    p_hat = s h + (1 - s) m of the history h (mean of the finished epochs' means) and the batch's mean m.
    The published code keeps no history (``smoothing=0``), has no bound (``f_max=None``) and lets gradients
    flow through the exponents (``detach="none"``), which gives easy samples a gradient of the wrong sign.

    Parameters
    ----------
    levels
        Prediction levels, each with a history of its own.
    lam, tau, smoothing
        lambda (3.5; released 1.5), the threshold, the weight s of the history (0: none).
    p_min, f_max
        Lower clamp of q and p_hat; upper bound of the factor, or None.
    over
        What m is the mean of: ``all`` elements, or ``positives`` where the caller says which those are.
    detach
        ``exponents``, ``factor`` or ``none``: what carries no gradient.
    exponent
        A fixed exponent of the easy branch in place of the adaptive -ln p_hat, or None.
    """

    epoch_sum: Tensor
    epoch_count: Tensor
    running_sum: Tensor
    running_count: Tensor

    def __init__(
        self,
        levels: int = 1,
        *,
        lam: float = 3.5,
        tau: float = 0.5,
        smoothing: float = 0.05,
        p_min: float = 1e-6,
        f_max: float | None = 1000.0,
        over: str = "all",
        detach: str = "exponents",
        exponent: float | None = None,
    ) -> None:
        super().__init__()
        if not 0 < tau < 1 or lam <= tau:
            raise ValueError(f"lambda is above tau, tau between 0 and 1; got {lam} and {tau}")
        if not 0 <= smoothing <= 1:
            raise ValueError(f"smoothing lies between 0 and 1, got {smoothing}")
        if over not in ("all", "positives"):
            raise ValueError(f"over is 'all' or 'positives', got {over!r}")
        if detach not in DETACH:
            raise ValueError(f"detach is one of {', '.join(DETACH)}, got {detach!r}")
        self.lam, self.tau, self.smoothing, self.p_min, self.f_max = lam, tau, smoothing, p_min, f_max
        self.over, self.detach, self.exponent = over, detach, exponent
        for name in ("epoch_sum", "epoch_count", "running_sum", "running_count"):
            self.register_buffer(name, torch.zeros(levels, dtype=torch.float64))

    def end_epoch(self) -> None:
        """Close the epoch: its mean joins the history. An epoch without a batch leaves nothing."""
        seen = self.running_count > 0
        self.epoch_sum += torch.where(seen, self.running_sum / self.running_count.clamp_min(1), 0)
        self.epoch_count += seen.to(self.epoch_count.dtype)
        self.running_sum.zero_()
        self.running_count.zero_()

    def history(self, level: int = 0) -> Tensor | None:
        """h of a level, None in the first epoch."""
        return self.epoch_sum[level] / self.epoch_count[level] if self.epoch_count[level] > 0 else None

    def _p_hat(self, q: Tensor, level: int, positives: Tensor | None) -> Tensor:
        history = self.history(level)
        if self.over == "positives" and positives is not None:
            q_of = q[positives]
            if not len(q_of):
                mean = q.mean() if history is None else history.to(q.dtype)
            else:
                mean = q_of.mean()
        else:
            mean = q.mean()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            mean = mean.clone()
            torch.distributed.all_reduce(mean)
            mean = mean / torch.distributed.get_world_size()
        if self.training:
            self.running_sum[level] += mean.to(self.running_sum.dtype)
            self.running_count[level] += 1
        if history is None or not self.smoothing:
            return mean
        return self.smoothing * history.to(q.dtype) + (1 - self.smoothing) * mean

    def elements(
        self, logits: Tensor, targets: Tensor, *, level: int = 0, positives: Tensor | None = None
    ) -> Tensor:
        """The loss of each element; the mean of these is the loss of a level."""
        with torch.autocast(logits.device.type, enabled=False):
            wide = torch.promote_types(logits.dtype, torch.float32)
            x, t = logits.to(wide), targets.to(wide)
            p = torch.sigmoid(x)
            q = (t * p + (1 - t) * (1 - p)).clamp(self.p_min, 1)
            p_hat = self._p_hat(q if self.detach == "none" else q.detach(), level, positives)
            eta = -torch.log(p_hat.clamp(self.p_min, 1))
            if self.exponent is not None:
                eta = torch.full_like(eta, self.exponent)
            gamma = -torch.log(q)
            if self.detach != "none":
                gamma, eta = gamma.detach(), eta.detach()
            hard = q <= self.tau
            # each branch sees only its own elements' values, so that no other one's gradient is infinite
            half = torch.full_like(q, self.tau)
            factor = torch.where(
                hard,
                (self.lam - torch.where(hard, q, half)) ** gamma,
                (1 - torch.where(hard, half, q) + 1e-6) ** eta,
            )
            if self.f_max is not None:
                factor = factor.clamp(max=self.f_max)
            if self.detach == "factor":
                factor = factor.detach()
            return factor * F.binary_cross_entropy_with_logits(x, t, reduction="none")

    def forward(
        self, logits: Tensor, targets: Tensor, *, level: int = 0, positives: Tensor | None = None
    ) -> Tensor:
        """Mean over all elements of a level, a scalar."""
        return self.elements(logits, targets, level=level, positives=positives).mean()


def yolox_losses(
    raw: Tensor, targets: list[Tensor], *, stride: int = 8, radius: float = 2.5
) -> dict[str, Tensor]:
    """DFAR's detection loss, (5 L_reg + L_obj + L_cls) / N with N = max(1, number of positives in the batch).

    Parameters
    ----------
    raw
        (B, 5 + 1, h, w): x, y, w, h, objectness, class.
    targets
        One (T, 4) half-open xyxy tensor an image, pixels; T may be 0.

    Returns
    -------
    ``box`` (sum of 1 - IoU^2), ``objectness`` (sum of cross entropies over all cells), ``class`` (against the
    IoU of the match), ``positives`` (a count) and ``total``. A batch without targets keeps the
    background's cross entropy; its other terms are 0.
    """
    from .models.dfar import decode_cells

    if len(targets) != len(raw):
        raise ValueError(f"{len(targets)} lists of targets for {len(raw)} images")
    with torch.autocast(raw.device.type, enabled=False):
        size = (raw.shape[-2], raw.shape[-1])
        flat = raw.float().flatten(2).transpose(1, 2)  # (B, A, 6)
        boxes = decode_cells(flat, size, stride)
        wanted = torch.zeros_like(flat[..., 4])
        box_sum = class_sum = flat.sum() * 0
        positives = 0
        for k, truth in enumerate(targets):
            truth = truth.to(flat.device, flat.dtype)
            with torch.no_grad():
                found = assign_yolox(boxes[k], flat[k, :, 4], flat[k, :, 5:], truth, size, stride, radius)
            if not len(found.cells):
                continue
            positives += len(found.cells)
            wanted[k, found.cells] = 1
            box_sum = box_sum + (1 - paired_iou(boxes[k, found.cells], truth[found.targets]) ** 2).sum()
            class_sum = class_sum + F.binary_cross_entropy_with_logits(
                flat[k, found.cells, 5], found.iou.to(flat.dtype), reduction="sum"
            )
        objectness = F.binary_cross_entropy_with_logits(flat[..., 4], wanted, reduction="sum")
        total = (5 * box_sum + objectness + class_sum) / max(1, positives)
    return {
        "total": total,
        "box": box_sum,
        "objectness": objectness,
        "class": class_sum,
        "positives": torch.tensor(float(positives), device=raw.device),
    }


def paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of pairs of half-open xyxy boxes (N, 4), differentiable; 1e-16 is added to the union."""
    overlap = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp_min(0)
    intersection = overlap.prod(dim=1)
    union = (a[:, 2:] - a[:, :2]).prod(dim=1) + (b[:, 2:] - b[:, :2]).prod(dim=1) - intersection
    return intersection / (union + 1e-16)
