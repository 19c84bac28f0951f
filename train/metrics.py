"""The numbers of infrared small-target segmentation, summed over a data set.

Definitions (all sums run over the **whole set**, so neither batch size nor order nor the number of parts
changes any number):

- ``iou`` = TP / (TP + FP + FN) over foreground pixels. The tables of DNA-Net, DATransNet, SD2Net and
  BasicIRSTD print this under IoU or mIoU. ``f1`` = 2 IoU / (1 + IoU), ``precision``, ``recall`` (pixAcc)
  from the same sums.
- ``niou``: mean over images of their IoU (ACM, WACV 2021). An image without target and without detection has
  none; by default it is skipped, and ``niou_skipped`` says how many were.
- ``pd``: detected targets / targets. ``fa``: pixels of unmatched detections / all pixels, a fraction (the
  literature prints it times 1e6). See :mod:`.metrics_match` for what "detected" means.

A number whose denominator is zero is undefined and given as None: ``pd`` without targets, ``precision``
without detected pixels, ``recall`` without target pixels, ``iou`` and ``f1`` without either, ``fa`` without
pixels, ``niou`` when every image was skipped.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..annotate.errors import IrstkitError
from ..annotate.files import binarise
from .metrics_match import MATCHINGS, Components, Match, Matching, components_at, match

Empty = Literal["skip", "one", "zero"]


class ImageRow(NamedTuple):
    """What one image adds to the sums."""

    id: Hashable
    pixels: int
    tp: int
    fp: int
    fn: int
    targets: int
    detected: int
    false_components: int
    false_pixels: int


class TargetRow(NamedTuple):
    """One target of a mask.

    ``target`` is its number, from 0, in raster order of first pixels; ``x``, ``y`` its centroid in pixels;
    ``distance`` that to the matched detection's centroid and ``detection_area`` its pixels, None for a miss;
    ``covered`` those of its ``area`` pixels that are predicted positive.
    """

    id: Hashable
    target: int
    area: int
    x: float
    y: float
    distance: float | None
    detection_area: int | None
    covered: int

    @property
    def detected(self) -> bool:
        """Whether a detection was matched to it."""
        return self.distance is not None


@dataclass(frozen=True)
class ImageResult:
    """One image: its row, its targets, and the components behind them."""

    row: ImageRow
    target_rows: tuple[TargetRow, ...]
    targets: Components
    predictions: Components
    match: Match


@dataclass(frozen=True)
class Settings:
    """What must be equal for two results to be comparable.

    ``threshold``: a pixel is positive when its probability is **greater**. ``distance``: centroids strictly
    nearer match, in pixels. ``matching``: ``optimal``, ``greedy`` or ``dnanet``. ``empty``: nIoU of an image
    with neither target nor detection: ``skip``, ``one``, or ``zero`` (the released code of ACM).
    """

    threshold: float = 0.5
    distance: float = 3.0
    matching: Matching = "optimal"
    connectivity: int = 8
    empty: Empty = "skip"

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise IrstkitError(f"the threshold is a probability from 0 to 1, got {self.threshold}")
        if not (self.distance > 0 and math.isfinite(self.distance)):
            raise IrstkitError(f"the matching distance is a positive number of pixels, got {self.distance}")
        if self.matching not in MATCHINGS:
            raise IrstkitError(f"matching is one of {', '.join(MATCHINGS)}, got {self.matching!r}")
        if self.connectivity not in (4, 8):
            raise IrstkitError(f"connectivity is 4 or 8, got {self.connectivity}")
        if self.empty not in ("skip", "one", "zero"):
            raise IrstkitError(f"empty is skip, one or zero, got {self.empty!r}")


def evaluate_image(
    prediction: Any,
    target: Any,
    settings: Settings,
    *,
    id: Hashable = None,
    sums: tuple[int, int, int] | None = None,
) -> ImageResult:
    """Score one image.

    Parameters
    ----------
    prediction
        (H, W) probabilities in [0, 1] (floating point) or a boolean mask; NumPy or a torch tensor; leading
        axes of length one are dropped.
    target
        (H, W) boolean mask; stored gray values (uint8; positive above 127, or == 1 where 1 is the largest)
        and floats (positive above 0.5) are taken too.
    id
        Named in errors and rows.
    sums
        (TP, FP, FN), where they are known already; components are looked at all the same.

    Raises
    ------
    IrstkitError
        For shapes that differ, for logits or other values outside [0, 1], for not-a-number.
    """
    positive = as_binary(prediction, settings.threshold, id)
    truth = as_mask(target, id)
    if positive.shape != truth.shape:
        raise IrstkitError(
            f"the prediction is {positive.shape[1]}x{positive.shape[0]}, "
            f"the mask {truth.shape[1]}x{truth.shape[0]}",
            where=_name(id),
            hint="predict at the mask's size (pad and crop); masks are never resized",
        )
    ours, theirs = np.flatnonzero(truth), np.flatnonzero(positive)
    hit = positive.ravel()[ours]
    if sums is None:
        tp = int(np.count_nonzero(hit))
        sums = tp, len(theirs) - tp, len(ours) - tp
    tp, fp, fn = sums
    targets = components_at(ours, truth, settings.connectivity)
    predictions = components_at(theirs, positive, settings.connectivity)
    matched = match(targets, predictions, distance=settings.distance, matching=settings.matching)
    if len(targets) == 1:
        covered = [tp]
    else:
        covered = (
            np.bincount(targets.members()[hit], minlength=len(targets)).tolist() if tp else [0] * len(targets)
        )
    rows = tuple(
        TargetRow(id, k, area, x, y, d, None if p is None else predictions.area[p], c)
        for k, (area, (x, y), d, p, c) in enumerate(
            zip(targets.area, targets.centroids(), matched.distance, matched.prediction, covered, strict=True)
        )
    )
    row = ImageRow(
        id,
        truth.size,
        tp,
        fp,
        fn,
        len(targets),
        matched.detected,
        len(matched.false),
        matched.false_pixels,
    )
    return ImageResult(row, rows, targets, predictions, matched)


class SegmentationMeter:
    """Sums of a data set, image by image.

    >>> meter = SegmentationMeter()
    >>> mask = np.zeros((32, 32), bool); mask[4:6, 4:6] = True
    >>> _ = meter.update(mask, mask)
    >>> meter.compute()["pd"]
    1.0

    Parameters
    ----------
    threshold, distance, matching, connectivity, empty
        See :class:`Settings`.
    """

    def __init__(
        self,
        threshold: float = 0.5,
        distance: float = 3.0,
        matching: Matching = "optimal",
        connectivity: int = 8,
        empty: Empty = "skip",
    ) -> None:
        self.settings = Settings(threshold, distance, matching, connectivity, empty)
        self.rows: list[ImageRow] = []
        self.target_rows: list[TargetRow] = []
        self._ids: set[Hashable] = set()

    def update(
        self,
        prediction: Any,
        target: Any,
        *,
        id: Hashable = None,
        sums: tuple[int, int, int] | None = None,
    ) -> ImageResult:
        """Add one image (see :func:`evaluate_image`); an ``id`` seen before is refused."""
        if id is not None and id in self._ids:
            raise IrstkitError("this image was already counted", where=_name(id))
        result = evaluate_image(prediction, target, self.settings, id=id, sums=sums)
        self.rows.append(result.row)
        self.target_rows.extend(result.target_rows)
        if id is not None:
            self._ids.add(id)
        return result

    def update_batch(self, predictions: Any, targets: Any, *, ids: Any = None) -> None:
        """Add (B, H, W) or (B, 1, H, W) predictions and masks, one image at a time."""
        names = [None] * len(predictions) if ids is None else list(ids)
        for prediction, target, id in zip(predictions, targets, names, strict=True):
            self.update(prediction, target, id=id)

    def merge(self, other: SegmentationMeter) -> SegmentationMeter:
        """Add the images of ``other`` (another part, another process) and return ``self``."""
        if other.settings != self.settings:
            raise IrstkitError(f"parts of different settings: {self.settings} and {other.settings}")
        twice = self._ids & other._ids
        if twice:
            raise IrstkitError(
                f"{len(twice)} images are in both parts, the first is {min(twice, key=str)}",
                hint="split the data set without padding it to equal parts",
            )
        self.rows.extend(other.rows)
        self.target_rows.extend(other.target_rows)
        self._ids |= other._ids
        return self

    def compute(self) -> dict[str, Any]:
        """All numbers and the settings they hold for; undefined ones are None (ready for JSON)."""
        return summarise(self.rows, self.settings)


def summarise(rows: list[ImageRow], settings: Settings) -> dict[str, Any]:
    """The numbers of :meth:`SegmentationMeter.compute` from image rows, whatever their order."""
    pixels, tp, fp, fn, targets, detected, false_components, false_pixels = (
        [sum(column) for column in list(zip(*rows, strict=True))[1:]] if rows else [0] * 8
    )
    each = [r.tp / total for r in rows if (total := r.tp + r.fp + r.fn)]
    blank = len(rows) - len(each)
    counted = len(each) if settings.empty == "skip" else len(rows)
    # fsum is exact, hence independent of the order in which parts were merged
    total_niou = math.fsum(each) + (blank if settings.empty == "one" else 0)
    return {
        "iou": _ratio(tp, tp + fp + fn),
        "niou": _ratio(total_niou, counted),
        "precision": _ratio(tp, tp + fp),
        "recall": _ratio(tp, tp + fn),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "pd": _ratio(detected, targets),
        "fa": _ratio(false_pixels, pixels),
        "detected": detected,
        "targets": targets,
        "false_components": false_components,
        "false_pixels": false_pixels,
        "pixels": pixels,
        "images": len(rows),
        "tp": tp,
        "fp": fp,
        "fn": fn,
        "niou_empty": settings.empty,
        "niou_skipped": blank if settings.empty == "skip" else 0,
        "threshold": settings.threshold,
        "distance": settings.distance,
        "matching": settings.matching,
        "connectivity": settings.connectivity,
    }


def _ratio(numerator: float, denominator: float) -> float | None:
    return numerator / denominator if denominator else None


def _name(id: Hashable) -> str | None:
    return None if id is None else f"image {id}"


# ---------------------------------------------------------------------------------------------- inputs


def as_numpy(value: Any, id: Hashable = None) -> NDArray:
    """A contiguous (H, W) NumPy array of an array or torch tensor; leading axes of length 1 are dropped."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":  # NumPy has no such type
            value = value.float()
        value = value.numpy()
    array = np.asarray(value)
    while array.ndim > 2 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 2 or not array.size:
        raise IrstkitError(f"expected a (H, W) array, got shape {array.shape}", where=_name(id))
    return np.ascontiguousarray(array)


def as_probability(value: Any, id: Hashable = None) -> NDArray:
    """A (H, W) array of probabilities in [0, 1] or of booleans, checked."""
    array = as_numpy(value, id)
    if array.dtype == bool:
        return array
    if array.dtype.kind != "f":
        raise IrstkitError(
            f"expected probabilities (floating point) or a boolean mask, got {array.dtype}",
            where=_name(id),
            hint="divide a map stored as gray values by 255",
        )
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 1):  # also false for not-a-number
        raise IrstkitError(
            f"expected probabilities from 0 to 1, got values from {low:g} to {high:g}",
            where=_name(id),
            hint="apply the sigmoid to logits first",
        )
    return array


def as_binary(value: Any, threshold: float, id: Hashable = None) -> NDArray[np.bool_]:
    """``probability > threshold``; boolean masks are taken as they are."""
    array = as_probability(value, id)
    return array if array.dtype == bool else array > threshold


def as_mask(value: Any, id: Hashable = None) -> NDArray[np.bool_]:
    """The mask as (H, W) bool: booleans as they are, uint8 by :func:`binarise`, floats above 0.5."""
    array = as_numpy(value, id)
    if array.dtype == bool:
        return array
    if array.dtype == np.uint8:
        return binarise(array)
    if array.dtype.kind == "f":
        return as_probability(array, id) > 0.5
    raise IrstkitError(f"expected a boolean mask, got {array.dtype}", where=_name(id))
