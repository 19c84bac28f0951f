"""COCO's average precision of boxes by faster-coco-eval, whose numbers are pycocotools'."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Hashable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..annotate.errors import require

IOUS = np.linspace(0.5, 0.95, 10)
SIZES = {
    "all": (0.0, 1e10),
    "very_tiny": (0.0, 64.0),
    "tiny": (64.0, 256.0),
    "small": (256.0, 1024.0),
    "medium": (1024.0, 1e10),
}


class Frame(NamedTuple):
    """One image as it was scored: detections by falling score."""

    id: Hashable
    size: tuple[int, int]
    sequence: str | None
    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    targets: NDArray[np.float64]
    areas: NDArray[np.float64] | None = None


def coco(frames: list[Frame], *, max_detections: int = 100, only_50: bool = False) -> dict[str, Any]:
    """COCO's numbers by faster-coco-eval. No targets: all None. No detections: AP and recall 0.

    Returns
    -------
    ``ap50``, ``ap75``, ``ap``, ``ar``, ``ap50_by_size`` (None where a size has no target), ``recall50``, and
    the curve at IoU 0.5: ``precision`` and ``scores``, (101,) each.
    """
    sized = {k: None for k in SIZES if k != "all"}
    nothing: dict[str, Any] = {
        "ap50": None, "ap75": None, "ap": None, "ar": None, "recall50": None, "precision": None, "scores": None,
        "ap50_by_size": sized,
    }  # fmt: skip
    if not any(len(f.targets) for f in frames):
        return nothing
    if not any(len(f.scores) for f in frames):  # an empty result list cannot be loaded
        areas = np.concatenate([(f.targets[:, 2:] - f.targets[:, :2]).prod(axis=1) for f in frames])
        by_size = {k: 0.0 if ((areas >= SIZES[k][0]) & (areas <= SIZES[k][1])).any() else None for k in sized}
        zero = dict.fromkeys(("ap50", "ap75", "ap", "ar", "recall50"), 0.0)
        return {
            **nothing,
            **zero,
            "precision": np.zeros(101),
            "scores": np.zeros(101),
            "ap50_by_size": by_size,
        }
    engine = _evaluated(frames, max_detections, only_50)
    precision, recall = engine["precision"], engine["recall"]  # (T, R, 1, A, M), (T, 1, A, M)
    out = {
        **nothing,
        "ap50": _over_valid(precision[0, :, 0, 0, -1]),
        "recall50": _over_valid(recall[0, :, 0, -1]),
        "precision": precision[0, :, 0, 0, -1],
        "scores": engine["scores"][0, :, 0, 0, -1],
    }
    if not only_50:
        out["ap75"] = _over_valid(precision[5, :, 0, 0, -1])
        out["ap"] = _over_valid(precision[:, :, 0, 0, -1])
        out["ar"] = _over_valid(recall[:, 0, 0, -1])
        out["ap50_by_size"] = {
            name: _over_valid(precision[0, :, 0, k, -1]) for k, name in enumerate(SIZES) if name != "all"
        }
    return out


def in_order(frames: list[Frame]) -> list[Frame]:
    """Frames sorted by their ids' text."""
    return sorted(frames, key=lambda f: str(f.id))


def coco_lists(frames: list[Frame]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Targets as a COCO data set (ids from 1: an annotation with id 0 can never be hit) and detections.

    Frames in the order of their ids: equal scores in two frames are decided by it.
    """
    frames = in_order(frames)
    truth: dict[str, Any] = {
        "info": {},
        "images": [
            {"id": k, "width": int(f.size[1]), "height": int(f.size[0])}
            for k, f in enumerate(frames, start=1)
        ],
        "annotations": [],
        "categories": [{"id": 1, "name": "target"}],
    }
    found = []
    for k, f in enumerate(frames, start=1):
        for box in _xywh(f.targets):
            truth["annotations"].append(
                {
                    "id": len(truth["annotations"]) + 1,
                    "image_id": k,
                    "category_id": 1,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
        found += [
            {"image_id": k, "category_id": 1, "bbox": box, "score": float(score)}
            for box, score in zip(_xywh(f.boxes), f.scores, strict=True)
        ]
    return truth, found


def _evaluated(frames: list[Frame], max_detections: int, only_50: bool) -> dict[str, NDArray[np.float64]]:
    module = require("faster_coco_eval", "train")
    truth, found = coco_lists(frames)
    with contextlib.redirect_stdout(io.StringIO()):
        targets = module.COCO(truth)
        engine = module.COCOeval_faster(targets, targets.loadRes(found), iouType="bbox")
        sizes = ["all"] if only_50 else list(SIZES)
        engine.params.iouThrs = IOUS[:1] if only_50 else IOUS
        engine.params.maxDets = [max_detections]
        engine.params.areaRng = [list(SIZES[k]) for k in sizes]
        engine.params.areaRngLbl = sizes
        engine.evaluate()
        engine.accumulate()
    return {k: np.asarray(engine.eval[k], np.float64) for k in ("precision", "recall", "scores")}


def _xywh(boxes: NDArray[np.float64]) -> list[list[float]]:
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).tolist()


def _over_valid(values: NDArray[np.float64]) -> float | None:
    good = values[values > -1]
    return float(good.mean()) if good.size else None
