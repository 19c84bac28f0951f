"""EFLNet's loss: SimOTA on YOLOv7's candidates, NWD (or CIoU) for boxes, ATFL (or cross entropy) for objects.

total = batch (0.05 L_box + 0.7 (S / 640)^2 L_obj + 0.3 (classes / 80) L_cls), S^2 the area of the input.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..assign import anchor_candidates, assign_candidates
from ..box_losses import ATFL, nwd

BALANCE = (4.0, 1.0, 0.4)
WEIGHTS = {"box": 0.05, "objectness": 0.7, "class": 0.3}


class EFLNetLoss(nn.Module):
    """See the module docstring; options as those of :class:`.eflnet.EFLNet`. Holds ATFL's history."""

    def __init__(
        self,
        classes: int,
        *,
        atfl: bool,
        nwd: bool,
        nwd_c: float,
        nwd_unit: str,
        duplicates: str,
        **options: Any,
    ) -> None:
        super().__init__()
        if nwd_unit not in ("pixels", "grid"):
            raise ValueError(f"nwd_unit is 'pixels' or 'grid', got {nwd_unit!r}")
        if not (nwd_c > 0 and math.isfinite(nwd_c)):
            raise ValueError(f"nwd_c is a number above 0, got {nwd_c!r}")
        if duplicates not in ("remove", "keep"):
            raise ValueError(f"duplicates is 'remove' or 'keep', got {duplicates!r}")
        self.classes, self.nwd, self.nwd_c, self.grid = classes, nwd, nwd_c, nwd_unit == "grid"
        self.duplicates = duplicates
        self.focal = ATFL(len(BALANCE), **options) if atfl else None
        self.class_focal = ATFL(len(BALANCE), **options) if atfl and classes > 1 else None

    def end_epoch(self) -> None:
        """Close the epoch of the histories."""
        for focal in (self.focal, self.class_focal):
            if focal is not None:
                focal.end_epoch()

    def similarity(self, boxes: Tensor, truth: Tensor, stride: int) -> Tensor:
        """NWD or CIoU of pairs of (cx, cy, w, h) boxes in pixels."""
        if self.nwd:
            unit = stride if self.grid else 1
            return nwd(boxes / unit, truth / unit, self.nwd_c)
        from torchvision.ops import complete_box_iou_loss

        from .eflnet import to_xyxy

        return 1 - complete_box_iou_loss(to_xyxy(boxes), to_xyxy(truth))

    def forward(self, raw: list[Tensor], targets: list[Tensor], anchors: Tensor) -> dict[str, Tensor]:
        """Terms by name: ``box``, ``objectness``, ``class`` (weighted), ``total``, ``positives``, ``orphans``.

        ``orphans`` counts targets without any candidate: too small or too large for every anchor.
        """
        from .eflnet import STRIDES, decode_level

        batch = len(raw[0])
        if len(targets) != batch:
            raise ValueError(f"{len(targets)} lists of targets for {batch} images")
        with torch.autocast(raw[0].device.type, enabled=False):
            raw = [r.float() for r in raw]
            device = raw[0].device
            decoded = [
                decode_level(r, anchors[k], s) for k, (r, s) in enumerate(zip(raw, STRIDES, strict=True))
            ]
            truth = [t.to(device, torch.float32) for t in targets]
            found, orphans = self._assign(raw, decoded, truth, anchors)
            area = raw[0].shape[2] * raw[0].shape[3] * STRIDES[0] ** 2
            box = objectness = kind = raw[0].sum() * 0
            positives = 0
            for level, (values, stride) in enumerate(zip(raw, STRIDES, strict=True)):
                image, anchor, row, column, box_of = found[level]
                wanted = torch.zeros_like(values[..., 4])
                positive = torch.zeros_like(wanted, dtype=torch.bool)
                if len(image):
                    positives += len(image)
                    place = (image, anchor, row, column)
                    similar = self.similarity(decoded[level][place], box_of, stride)
                    box = box + (1 - similar).mean()
                    wanted[place] = similar.detach().clamp(0, 1)
                    positive[place] = True
                    if self.classes > 1:
                        kind = kind + self._class_loss(values[place][:, 5:], level)
                logits = values[..., 4]
                if self.focal is None:
                    term = F.binary_cross_entropy_with_logits(logits, wanted)
                else:
                    term = self.focal(logits, wanted, level=level, positives=positive)
                objectness = objectness + BALANCE[level] * term
            terms = {
                "box": WEIGHTS["box"] * box,
                "objectness": WEIGHTS["objectness"] * (area / 640**2) * objectness,
                "class": WEIGHTS["class"] * (self.classes / 80) * kind,
            }
            total = batch * (terms["box"] + terms["objectness"] + terms["class"])
        counts = {"positives": positives, "orphans": orphans}
        return {
            "total": total,
            **terms,
            **{k: torch.tensor(float(v), device=device) for k, v in counts.items()},
        }

    def _class_loss(self, logits: Tensor, level: int) -> Tensor:
        """All targets are of class 0: irstkit's data sets have one."""
        wanted = torch.zeros_like(logits)
        wanted[:, 0] = 1
        if self.class_focal is None:
            return F.binary_cross_entropy_with_logits(logits, wanted)
        return self.class_focal(logits, wanted, level=level, positives=wanted > 0)

    @torch.no_grad()
    def _assign(
        self, raw: list[Tensor], decoded: list[Tensor], truth: list[Tensor], anchors: Tensor
    ) -> tuple[list[tuple[Tensor, ...]], int]:
        """Positives a level: image, anchor, row, column and the target's (cx, cy, w, h) of each."""
        from .eflnet import STRIDES, to_xyxy

        sizes = [(r.shape[2], r.shape[3]) for r in raw]
        device = raw[0].device
        parts: list[list[tuple[Tensor, ...]]] = [[] for _ in raw]
        orphans = 0
        for image, boxes in enumerate(truth):
            if not len(boxes):
                continue
            cells = anchor_candidates(boxes, anchors, STRIDES, sizes, duplicates=self.duplicates)
            values = torch.cat(
                [r[image, cells.anchor[m], cells.row[m], cells.column[m]] for r, m in _by_level(raw, cells)]
            )
            places = torch.cat(
                [
                    d[image, cells.anchor[m], cells.row[m], cells.column[m]]
                    for d, m in _by_level(decoded, cells)
                ]
            )
            order = torch.cat([m.nonzero().flatten() for _, m in _by_level(raw, cells)])
            labels = torch.zeros(len(boxes), dtype=torch.long, device=device)
            found = assign_candidates(to_xyxy(places), values[:, 4], values[:, 5:], boxes, labels)
            orphans += int(_orphans(boxes, anchors))
            chosen = order[found.cells]
            centred = torch.cat(((boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]), dim=1)
            for level in range(len(raw)):
                here = cells.level[chosen] == level
                at = chosen[here]
                parts[level].append(
                    (
                        torch.full_like(at, image),
                        cells.anchor[at],
                        cells.row[at],
                        cells.column[at],
                        centred[found.targets[here]],
                    )
                )
        empty = torch.zeros(0, dtype=torch.long, device=device)
        nothing = (empty, empty, empty, empty, torch.zeros(0, 4, device=device))
        return [
            tuple(torch.cat(column) for column in zip(*p, strict=True)) if p else nothing for p in parts
        ], orphans


def _by_level(maps: list[Tensor], cells: Any) -> list[tuple[Tensor, Tensor]]:
    return [(m, cells.level == level) for level, m in enumerate(maps)]


def _orphans(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Number of targets that no anchor fits within a factor 4."""
    side = boxes[:, 2:] - boxes[:, :2]
    factor = side[:, None] / anchors.reshape(1, -1, 2)
    return (torch.maximum(factor, 1 / factor).amax(dim=2) >= 4).all(dim=1).sum()
