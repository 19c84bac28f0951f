"""The numbers of box detection for tiny targets: COCO's, an operating point, centre distance, per sequence.

- ``ap50``, ``ap75``, ``ap`` (mean over IoU 0.50:0.05:0.95), ``ar`` (at ``max_detections``): COCO's, all frames
  pooled, frames without targets included, computed by faster-coco-eval (pycocotools' numbers). ``ap50_by_size``:
  AI-TOD's ranges on box areas in native pixels: very tiny to 8^2, tiny to 16^2, small to 32^2, medium above.
- ``operating``: precision, recall, F1 and false alarms a frame and a megapixel at **one** stated score. Choose
  it on validation data (:meth:`DetectionMeter.best_score`), never on the images that are scored.
- ``centre``: Pd and false alarms by the segmenters' rule, centres strictly nearer than ``distance`` pixels,
  matched one to one, so that detectors and segmenters stand in one table. ``fa`` is the area of the unmatched
  boxes (of a segmenter's components: their pixels) over all pixels.
- ``published``: the DAUB / IRDST tables' protocol, by name and with what is wrong with it (:data:`PUBLISHED`).

A number whose denominator is zero is None: AP without targets, precision without detections. Boxes are
half-open xyxy in native pixels; nowhere is +1 added.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..annotate.boxes import as_boxes
from ..annotate.errors import IrstkitError
from .detection_coco import Frame, coco
from .detection_match import centre_match, greedy_match, order_of

FLOOR = 0.001
"""Detections below it are left out by the published DAUB / IRDST protocol."""

PUBLISHED = (
    "SSTNet/DFAR tables: frames with targets only, scores from 0.001. 're' is the recall at the lowest score, "
    "'pr' the mean of the interpolated precision at the first int(100 re) of 101 recall points, so neither is "
    "an operating point: false alarms below the last hit, and all on frames without targets, cost nothing."
)


@dataclass(frozen=True)
class DetectionSettings:
    """What must be equal for two results to be comparable.

    ``score``: detections of at least it count at the operating point. ``iou``: a hit needs at least it
    (``strict``: more; ``tolerance`` is subtracted). ``distance``: of centres, strictly nearer, in pixels.
    ``max_detections``: the best ones an image are kept, as in COCO.
    """

    score: float = 0.5
    iou: float = 0.5
    distance: float = 3.0
    max_detections: int = 100
    strict: bool = False
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.score <= 1:
            raise IrstkitError(f"the score is a number from 0 to 1, got {self.score}")
        if not 0 < self.iou <= 1:
            raise IrstkitError(f"the IoU of a hit is above 0 and at most 1, got {self.iou}")
        if not (self.distance > 0 and math.isfinite(self.distance)):
            raise IrstkitError(f"the matching distance is a positive number of pixels, got {self.distance}")
        if self.max_detections < 1:
            raise IrstkitError(f"max_detections is at least 1, got {self.max_detections}")
        if not 0 <= self.tolerance < self.iou:
            raise IrstkitError(f"the tolerance lies between 0 and the IoU, got {self.tolerance}")


class DetectionMeter:
    """Collects frames, then computes every number over all of them: neither order nor parts change any.

    Examples
    --------
    >>> meter = DetectionMeter()
    >>> meter.update([[10, 10, 13, 13]], [0.9], [[11, 10, 14, 13]], id="a", size=(64, 64))
    >>> round(meter.compute()["ap50"], 6)
    1.0
    """

    def __init__(self, settings: DetectionSettings | None = None) -> None:
        self.settings = settings or DetectionSettings()
        self.frames: list[Frame] = []
        self._ids: set[Hashable] = set()

    def update(
        self,
        boxes: ArrayLike,
        scores: ArrayLike,
        targets: ArrayLike,
        *,
        id: Hashable,
        size: tuple[int, int],
        sequence: str | None = None,
        areas: ArrayLike | None = None,
    ) -> None:
        """Add one image: detections (N, 4) with scores (N,), targets (M, 4); N and M may be 0.

        ``areas`` (N,): pixels that a detection stands for, its box's where None.

        Raises
        ------
        IrstkitError
            For an id seen before, numbers that are not finite, targets of zero size, scores outside 0..1.
        """
        where = f"image {id}"
        if id in self._ids:
            raise IrstkitError("an image is scored once, this id came before", where=where)
        try:
            found, truth = as_boxes(boxes), as_boxes(targets)
        except ValueError as error:
            raise IrstkitError(str(error), where=where) from error
        values = np.asarray(scores, np.float64).reshape(-1)
        if len(values) != len(found):
            raise IrstkitError(f"{len(found)} boxes with {len(values)} scores", where=where)
        if not (np.isfinite(found).all() and np.isfinite(truth).all()):
            raise IrstkitError("boxes are finite numbers", where=where)
        if not ((values >= 0) & (values <= 1)).all():
            raise IrstkitError("scores are numbers from 0 to 1", where=where, hint="apply the sigmoid first")
        if not (truth[:, 2:] > truth[:, :2]).all():
            bad = truth[~(truth[:, 2:] > truth[:, :2]).all(axis=1)][0]
            raise IrstkitError(f"a target of zero size: {bad.tolist()}", where=where)
        if not (found[:, 2:] >= found[:, :2]).all():
            raise IrstkitError("a detection ends before it begins (boxes are x1, y1, x2, y2)", where=where)
        order = order_of(found, values)
        pixels = None if areas is None else np.asarray(areas, np.float64).reshape(-1)
        if pixels is not None and pixels.shape != values.shape:
            raise IrstkitError(f"{len(found)} boxes with {len(pixels)} areas", where=where)
        self._ids.add(id)
        self.frames.append(
            Frame(
                id, (int(size[0]), int(size[1])), sequence, found[order], values[order], truth,
                None if pixels is None else pixels[order],
            )
        )  # fmt: skip

    def update_xywh(self, boxes: ArrayLike, scores: ArrayLike, targets: ArrayLike, **given: Any) -> None:
        """:meth:`update` with COCO's (x, y, w, h)."""
        both = [as_boxes(b).copy() for b in (boxes, targets)]
        for b in both:
            b[:, 2:] += b[:, :2]
        self.update(both[0], scores, both[1], **given)

    # -------------------------------------------------------------------------------------------- results

    def compute(self, *, sequences: bool = True) -> dict[str, Any]:
        """Every number (module docstring), with the settings beside them; ready for JSON.

        ``sequences``: a table row a sequence, where frames name one, and the mean over sequences.
        """
        s, frames = self.settings, self.frames
        ap = coco(frames, max_detections=s.max_detections)
        result: dict[str, Any] = {
            **{k: ap[k] for k in ("ap50", "ap75", "ap", "ar", "ap50_by_size")},
            "operating": self._operating(frames, s.score),
            "centre": self._centre(frames, s.score),
            "published": published(frames, max_detections=s.max_detections),
            "frames": len(frames),
            "frames_without_target": sum(not len(f.targets) for f in frames),
            "targets": sum(len(f.targets) for f in frames),
            "detections": sum(len(f.scores) for f in frames),
            "score": s.score,
            "iou": s.iou,
            "iou_rule": "more than" if s.strict else "at least",
            "tolerance": s.tolerance,
            "distance": s.distance,
            "max_detections": s.max_detections,
            "edges": "half-open, native pixels",
        }
        names = dict.fromkeys(f.sequence for f in frames)
        if sequences and any(name is not None for name in names):
            result["sequences"] = [self._sequence(name) for name in names]
            result["sequence_mean"] = {
                key: _mean(row[key] for row in result["sequences"])
                for key in ("ap50", "precision", "recall", "f1", "pd")
            }
        return result

    def _sequence(self, name: str | None) -> dict[str, Any]:
        frames = [f for f in self.frames if f.sequence == name]
        at = self._operating(frames, self.settings.score)
        return {
            "sequence": name,
            "frames": len(frames),
            "targets": sum(len(f.targets) for f in frames),
            "ap50": coco(frames, max_detections=self.settings.max_detections, only_50=True)["ap50"],
            **{k: at[k] for k in ("precision", "recall", "f1", "false_alarms", "false_alarms_per_frame")},
            "pd": self._centre(frames, self.settings.score)["pd"],
        }

    def _hits(self, frames: Iterable[Frame]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Scores and hits of all detections (at most ``max_detections`` a frame), in frame order."""
        s = self.settings
        scores, hits = [np.zeros(0)], [np.zeros(0, bool)]
        for f in frames:
            n = s.max_detections
            found = greedy_match(f.boxes[:n], f.targets, iou=s.iou, strict=s.strict, tolerance=s.tolerance)
            scores.append(f.scores[:n])
            hits.append(found >= 0)
        return np.concatenate(scores), np.concatenate(hits)

    def _operating(self, frames: list[Frame], score: float) -> dict[str, Any]:
        scores, hits = self._hits(frames)
        tp, total = int(hits[scores >= score].sum()), int((scores >= score).sum())
        targets = sum(len(f.targets) for f in frames)
        pixels = sum(f.size[0] * f.size[1] for f in frames)
        return {
            "score": score,
            **_rates(tp, total - tp, targets - tp),
            "hits": tp,
            "false_alarms": total - tp,
            "misses": targets - tp,
            "false_alarms_per_frame": _ratio(total - tp, len(frames)),
            "false_alarms_per_megapixel": _ratio(1e6 * (total - tp), pixels),
        }

    def _centre(self, frames: list[Frame], score: float) -> dict[str, Any]:
        detected = false = targets = pixels = 0
        area = 0.0
        for f in frames:
            n = min(int((f.scores >= score).sum()), self.settings.max_detections)
            missed = centre_match(f.boxes[:n], f.targets, distance=self.settings.distance) < 0
            detected += int(n - missed.sum())
            false += int(missed.sum())
            targets += len(f.targets)
            pixels += f.size[0] * f.size[1]
            if f.areas is not None:
                area += float(f.areas[:n][missed].sum())
                continue
            inside = f.boxes[:n][missed].clip(0, [f.size[1], f.size[0]] * 2)
            area += float((inside[:, 2:] - inside[:, :2]).prod(axis=1).sum())
        return {
            "pd": _ratio(detected, targets),
            "fa": _ratio(area, pixels),
            **{k: v for k, v in _rates(detected, false, targets - detected).items() if k != "recall"},
            "detected": detected,
            "targets": targets,
            "false_alarms": false,
            "false_alarms_per_frame": _ratio(false, len(frames)),
            "false_alarms_per_megapixel": _ratio(1e6 * false, pixels),
        }

    def best_score(self) -> dict[str, Any]:
        """The score with the largest F1 on these frames: to be called on **validation** data.

        Of equal ones the highest. None where there is no hit. The answer goes into the settings of the meter
        of the test frames.
        """
        scores, hits = self._hits(self.frames)
        order = np.argsort(-scores, kind="stable")
        scores, tp = scores[order], np.cumsum(hits[order])
        targets = sum(len(f.targets) for f in self.frames)
        last = np.append(scores[1:] != scores[:-1], True) if len(scores) else np.zeros(0, bool)
        if not len(scores) or not tp[-1]:
            return {"score": None, "f1": None if not targets else 0.0, "targets": targets}
        f1 = np.where(last, 2 * tp / (np.arange(1, len(scores) + 1) + targets), -1.0)
        best = int(f1.argmax())
        return {"score": float(scores[best]), "f1": float(f1[best]), "targets": targets}

    def curve(self) -> dict[str, list[float | None]]:
        """COCO's precision at the 101 recalls at IoU 0.5, and the score at which each is reached."""
        ap = coco(self.frames, max_detections=self.settings.max_detections, only_50=True)
        return {
            "recall": [k / 100 for k in range(101)],
            "precision": [] if ap["precision"] is None else ap["precision"].tolist(),
            "score": [] if ap["scores"] is None else ap["scores"].tolist(),
        }


def published(frames: list[Frame], *, max_detections: int = 100) -> dict[str, Any]:
    """The numbers of the DAUB / IRDST tables, as fractions: ``sst_map50``, ``sst_re``, ``sst_pr``, ``sst_f1``.

    ``sst_pr_corrected`` takes all recall points up to the recall reached (the published truncation of
    100 times a float loses one now and then, as 0.29 gives 28).
    """
    kept = []
    for f in frames:
        if len(f.targets):
            good = f.scores >= FLOOR
            kept.append(f._replace(boxes=f.boxes[good], scores=f.scores[good]))
    numbers = coco(kept, max_detections=max_detections, only_50=True)
    recall, curve = numbers["recall50"], numbers["precision"]
    out: dict[str, Any] = {"sst_map50": numbers["ap50"], "sst_re": recall, "sst_pr": None, "sst_f1": None}
    out["sst_pr_corrected"] = None
    if recall is not None and curve is not None and numbers["ap50"] is not None:
        points = int(100 * recall)
        if points:
            out["sst_pr"] = float(curve[:points].mean())
            out["sst_f1"] = 2 * out["sst_pr"] * recall / (out["sst_pr"] + recall)
        if recall > 0:
            reached = np.linspace(0, 1, 101) <= recall + 1e-9
            out["sst_pr_corrected"] = float(curve[reached].mean())
    return {**out, "frames": len(kept), "score_floor": FLOOR, "note": PUBLISHED}


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _rates(tp: int, fp: int, fn: int) -> dict[str, float | None]:
    return {
        "precision": _ratio(tp, tp + fp),
        "recall": _ratio(tp, tp + fn),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
    }


def _mean(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None


def table(result: dict[str, Any], protocol: str = "irstkit") -> str:
    """The result as text for people; ``protocol`` ``sstnet``: the published numbers and what they are."""

    def show(value: float | None, scale: float = 100, digits: int = 2) -> str:
        return "undefined" if value is None else f"{value * scale:.{digits}f}"

    at, centre, old = result["operating"], result["centre"], result["published"]
    lines = [
        f"AP50       {show(result['ap50'])} %   AP75 {show(result['ap75'])} %   "
        f"AP50:95 {show(result['ap'])} %   AR{result['max_detections']} {show(result['ar'])} %",
        f"precision  {show(at['precision'])} %   recall {show(at['recall'])} %   F1 {show(at['f1'])} %   "
        f"at score >= {at['score']:g}",
        f"false alarms {show(at['false_alarms_per_frame'], 1, 4)} a frame, "
        f"{show(at['false_alarms_per_megapixel'], 1, 3)} a megapixel",
        f"Pd         {show(centre['pd'])} %   Fa {show(centre['fa'], 1e6)} x 1e-6   "
        f"(centres nearer than {result['distance']:g} px, score >= {at['score']:g})",
        f"as published for DAUB/IRDST (no operating point): mAP50 {show(old['sst_map50'])}  "
        f"Pr {show(old['sst_pr'])}  Re {show(old['sst_re'])}  F1 {show(old['sst_f1'])}",
    ]
    if protocol == "sstnet":
        lines = [
            f"mAP50 {show(old['sst_map50'])}   Pr {show(old['sst_pr'])}   Re {show(old['sst_re'])}   "
            f"F1 {show(old['sst_f1'])}   (percent, on {old['frames']} frames with targets)",
            PUBLISHED,
        ]
    lines += [
        "",
        f"{result['frames']} frames ({result['frames_without_target']} without target), "
        f"{result['targets']} targets, {result['detections']} detections; "
        f"hit: IoU {result['iou_rule']} {result['iou']:g}",
    ]
    if protocol == "sstnet":
        return "\n".join(lines)
    for row in result.get("sequences", []):
        lines.append(
            f"  {row['sequence']!s:<16} {row['frames']:>6} frames  AP50 {show(row['ap50']):>9}  "
            f"P {show(row['precision']):>9}  R {show(row['recall']):>9}  Pd {show(row['pd']):>9}"
        )
    if "sequence_mean" in result:
        lines.append(f"  mean over sequences      AP50 {show(result['sequence_mean']['ap50'])} %")
    return "\n".join(lines)
