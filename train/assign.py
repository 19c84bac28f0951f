"""Which cells of a detector answer for which target: SimOTA as in YOLOX, and on YOLOv7's candidates.

Sources: Ge et al., YOLOX (arXiv 2107.08430), in the older form that DFAR uses; Wang et al., YOLOv7
(arXiv 2207.02696), which EFLNet uses. Nothing here carries a gradient. Ties are decided by the order of the
cells (row by row) and of the targets, so that a result is the same on every device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

IOU_WEIGHT = 3.0
TOP = 10
"""IoUs that are summed for the number of cells of a target."""


class Assignment(NamedTuple):
    """The positives of one image: index of the cell (or candidate), index of its target, their IoU."""

    cells: Tensor
    targets: Tensor
    iou: Tensor
    candidates: int


def pair_iou(a: Tensor, b: Tensor) -> Tensor:
    """(N, 4) and (M, 4) half-open xyxy boxes to plain IoU (N, M); 0 unless they overlap on both axes."""
    low = torch.maximum(a[:, None, :2], b[None, :, :2])
    high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    intersection = (high - low).clamp_min(0).prod(dim=2)
    area_a, area_b = (a[:, 2:] - a[:, :2]).prod(dim=1), (b[:, 2:] - b[:, :2]).prod(dim=1)
    union = area_a[:, None] + area_b[None, :] - intersection
    return intersection / union.clamp_min(1e-16)


def score_cost(objectness: Tensor, classes: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of sqrt(p_class p_object) against the target's class, summed over classes.

    ``objectness`` (P,) and ``classes`` (P, C) logits, ``labels`` (T,) to (T, P). From logarithms, so that no
    confident cell gives an infinity.
    """
    log_y = 0.5 * (F.logsigmoid(classes.float()) + F.logsigmoid(objectness.float())[:, None])  # (P, C)
    wrong = -torch.log1p(-log_y.exp().clamp(max=1 - 1e-7))
    # every class counts as wrong, but for the target's own, which counts as right
    return (wrong.sum(dim=1)[:, None] - wrong[:, labels] - log_y[:, labels]).t()


def simota(cost: Tensor, iou: Tensor, outside: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The matching of SimOTA.

    Parameters
    ----------
    cost, iou
        (T, P) of targets and candidates.
    outside
        (T, P) bool: candidates that come after all others for this target (the published code adds 1e5 to
        their cost, which leaves float32 a resolution of 0.008; here the order is exact).

    Returns
    -------
    The matched candidates, ascending, and the target of each. k = max(1, floor of the sum of a target's ten
    largest IoUs) cheapest candidates; a candidate that several targets take goes to the cheapest of **all**
    targets of the image.
    """
    targets, pool = cost.shape
    if not targets or not pool:
        empty = torch.zeros(0, dtype=torch.long, device=cost.device)
        return empty, empty
    outside = torch.zeros_like(cost, dtype=torch.bool) if outside is None else outside
    k = iou.topk(min(TOP, pool), dim=1).values.sum(dim=1).int().clamp(min=1)
    by_cost = cost.argsort(dim=1, stable=True)
    order = by_cost.gather(1, outside.gather(1, by_cost).int().argsort(dim=1, stable=True))
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(pool, device=cost.device).expand(targets, pool)
    )
    taken = rank < k[:, None]
    count = taken.sum(dim=0)
    # an outside pair wins a candidate only where every pair of it is outside
    contest = cost.masked_fill(outside & ~outside.all(dim=0), torch.inf)
    owner = torch.where(count > 1, contest.argmin(dim=0), taken.int().argmax(dim=0))
    matched = (count > 0).nonzero().flatten()
    return matched, owner[matched]


def assign_yolox(
    boxes: Tensor,
    objectness: Tensor,
    classes: Tensor,
    targets: Tensor,
    size: tuple[int, int],
    stride: int,
    radius: float = 2.5,
) -> Assignment:
    """SimOTA of YOLOX's older form on one level, as DFAR uses it.

    Parameters
    ----------
    boxes, objectness, classes
        (A, 4) decoded half-open xyxy, (A,) and (A, C) logits of the cells, row by row.
    targets
        (T, 4) half-open xyxy, pixels; all of class 0.
    size, stride
        (rows, columns) of the map and its stride in pixels.
    radius
        Of the centre region, in strides, measured on each axis.
    """
    device = boxes.device
    rows, columns = size
    centre = torch.stack(
        torch.meshgrid(
            (torch.arange(columns, device=device) + 0.5) * stride,
            (torch.arange(rows, device=device) + 0.5) * stride,
            indexing="xy",
        ),
        dim=-1,
    ).reshape(-1, 2)
    targets = targets.to(boxes.dtype)
    inside = ((centre > targets[:, None, :2]) & (centre < targets[:, None, 2:])).all(dim=2)
    middle = (targets[:, :2] + targets[:, 2:]) / 2
    near = ((centre - middle[:, None]).abs() < radius * stride).all(dim=2)
    pool = (inside | near).any(dim=0).nonzero().flatten() if len(targets) else centre.new_zeros(0).long()
    if not len(pool):
        empty = torch.zeros(0, dtype=torch.long, device=device)
        return Assignment(empty, empty, boxes.new_zeros(0), 0)
    iou = pair_iou(targets, boxes[pool])
    labels = torch.zeros(len(targets), dtype=torch.long, device=device)
    cost = score_cost(objectness[pool], classes[pool], labels) - IOU_WEIGHT * torch.log(iou + 1e-8)
    chosen, owner = simota(cost, iou, ~(inside & near)[:, pool])
    return Assignment(pool[chosen], owner, iou[owner, chosen], len(pool))


class Cells(NamedTuple):
    """Candidates of one image over levels: level, anchor, row, column of each, (P,) each."""

    level: Tensor
    anchor: Tensor
    row: Tensor
    column: Tensor


def anchor_candidates(
    targets: Tensor,
    anchors: Tensor,
    strides: Sequence[int],
    sizes: Sequence[tuple[int, int]],
    *,
    ratio: float = 4.0,
    duplicates: str = "remove",
) -> Cells:
    """YOLOv7's candidates: cells near a target's centre, for anchors within a factor ``ratio`` of its size.

    The centre's cell, the neighbour on the nearer side of each axis (in u = centre / stride: the left one
    where the fraction is below 1/2 and u > 1, the right one where it is above and a cell is left). On a whole
    u the published code takes the left neighbour and its own cell once more.

    Parameters
    ----------
    targets
        (T, 4) half-open xyxy, pixels.
    anchors
        (levels, anchors, 2) widths and heights, pixels.
    sizes
        (rows, columns) of each level's map.
    duplicates
        ``remove``: a cell once an image; ``keep``: as often as targets reach it (the released behaviour).
    """
    if duplicates not in ("remove", "keep"):
        raise ValueError(f"duplicates is 'remove' or 'keep', got {duplicates!r}")
    device = targets.device
    centre = (targets[:, :2] + targets[:, 2:]) / 2
    side = targets[:, 2:] - targets[:, :2]
    found: list[Tensor] = []
    for level, (stride, (rows, columns)) in enumerate(zip(strides, sizes, strict=True)):
        factor = side[None] / anchors[level].to(side)[:, None]  # (anchors, T, 2)
        fits = torch.maximum(factor, 1 / factor).amax(dim=2) < ratio
        u = centre / stride
        extent = u.new_tensor([columns, rows])
        left = ((u % 1) < 0.5) & (u > 1)
        right = (((extent - u) % 1) < 0.5) & ((extent - u) > 1)
        half = u.new_tensor(
            [[0.0, 0.0], [-0.5, 0.0], [0.0, -0.5], [0.5, 0.0], [0.0, 0.5]]
        )  # the order of the published code
        use = torch.stack((torch.ones_like(left[:, 0]), left[:, 0], left[:, 1], right[:, 0], right[:, 1]))
        cell = (u[None] + half[:, None]).floor().long()  # (5, T, 2)
        last = torch.tensor([columns - 1, rows - 1], device=device)
        cell = cell.clamp(min=torch.zeros_like(last), max=last)
        step, anchor, target = (use[:, None] & fits[None]).nonzero(as_tuple=True)
        place = cell[step, target]
        found.append(torch.stack((torch.full_like(anchor, level), anchor, place[:, 1], place[:, 0]), dim=1))
    every = torch.cat(found) if found else torch.zeros(0, 4, dtype=torch.long, device=device)
    if duplicates == "remove" and len(every):
        every = every.unique(dim=0)
    return Cells(*every.unbind(dim=1))


def assign_candidates(
    boxes: Tensor, objectness: Tensor, classes: Tensor, targets: Tensor, labels: Tensor
) -> Assignment:
    """SimOTA of YOLOv7: no centre prior; every target competes for the whole pool of the image.

    ``boxes`` (P, 4) decoded half-open xyxy, ``objectness`` (P,) and ``classes`` (P, C) logits of the
    candidates; ``targets`` (T, 4) half-open xyxy and ``labels`` (T,).
    """
    pool = len(boxes)
    if not pool or not len(targets):
        empty = torch.zeros(0, dtype=torch.long, device=boxes.device)
        return Assignment(empty, empty, boxes.new_zeros(0), pool)
    iou = pair_iou(targets.to(boxes.dtype), boxes)
    cost = score_cost(objectness, classes, labels) - IOU_WEIGHT * torch.log(iou + 1e-8)
    chosen, owner = simota(cost, iou)
    return Assignment(chosen, owner, iou[owner, chosen], pool)
