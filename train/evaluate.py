"""Scoring predictions on a split: native resolution, the corrected metrics first."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..annotate.console import note, track
from ..annotate.errors import IrstkitError
from ..datasets.readers import open_dataset
from ..datasets.records import Dataset, Record, split_hash
from .device_sums import LEVELS, Pending
from .metrics import SegmentationMeter, Settings, as_binary
from .metrics_report import attribute_lookup, bootstrap, breakdown
from .metrics_roc import PixelRoc, PixelRocMeter, TargetRoc, merge_target_rocs, target_roc
from .metrics_shooting import ShootingMeter
from .predictor import Predictor
from .sources import NetworkSource, Source
from .unseen import Unseen, left_out_line

FA_LIMITS = (1e-6, 1e-5, 1e-4)
BREAKDOWNS = ("kind", "size", "scr", "scene", "sequence")


@dataclass
class Scores:
    """The sums over a split, and curves where they were asked for."""

    meter: SegmentationMeter
    target: TargetRoc | None = None
    pixel: PixelRoc | None = None
    shooting: ShootingMeter | None = None
    seconds: float = 0.0
    maps: dict[str, NDArray] = field(default_factory=dict)


def labelled_part(data: Dataset, split: str | None) -> tuple[list[Record], str]:
    """The records of a split with masks, and its full name; None means the default scheme's ``test``.

    Raises
    ------
    IrstkitError
        For an unknown split (listing those there are) or images without masks.
    """
    if split is None:
        split = f"{data.default_scheme}/test" if data.schemes() else "all"
    elif split != "all" and "/" not in split:
        split = f"{data.default_scheme}/{split}"
    records = data.part(split)
    bare = [r for r in records if r.mask is None]
    if bare:
        raise IrstkitError(
            f"{len(bare)} of {len(records)} images have no mask, the first is {bare[0].id!r}", path=data.root
        )
    return records, split


def score(
    source: Source,
    records: Sequence[Record],
    settings: Settings | None = None,
    *,
    curves: bool = False,
    shooting: bool = False,
    keep: bool = False,
    workers: int = 2,
) -> Scores:
    """Score the maps of ``source``, an image after the other.

    Threads read images and masks ahead and look at components behind; between them this thread keeps the
    network busy, whose device sums the pixels (:mod:`.device_sums`). Results are collected in the order of the
    records: no number depends on ``workers``.

    Parameters
    ----------
    curves
        The target ROC and the pixel ROC too, at :data:`LEVELS`.
    shooting
        The shooting rules too (:mod:`.metrics_shooting`).
    keep
        Keep the masks, for a gallery.
    workers
        Threads beside this one.
    """
    settings = settings or Settings()
    out = Scores(_meter(settings))
    pixels = PixelRocMeter("exact")
    rocs: list[TargetRoc] = []
    out.shooting = ShootingMeter(connectivity=settings.connectivity) if shooting else None
    network = isinstance(source, NetworkSource) and not shooting  # whose device gives no probabilities

    def read(record: Record) -> tuple[NDArray | None, NDArray[np.bool_]]:
        return (record.read_image() if network else None), record.read_mask()

    def one(record: Record, found: NDArray | Pending, mask: NDArray[np.bool_]) -> _Part:
        meter, roc, part = _meter(settings), None, PixelRocMeter("exact")
        aimed = ShootingMeter(connectivity=settings.connectivity) if shooting else None
        if isinstance(found, Pending):
            try:
                answer = found.wait()
            except IrstkitError as error:
                raise IrstkitError(error.message, where=f"image {record.id}", hint=error.hint) from error
            values, ranks = answer.positive, answer.ranks
            meter.update(values, mask, id=record.id, sums=answer.sums)
            if answer.counts is not None:
                seen = np.flatnonzero(answer.counts.any(axis=0))
                part.add(_as_values(seen), answer.counts[:, seen])
        else:
            values, ranks = found, None
            meter.update(values, mask, id=record.id)
            if aimed is not None:
                aimed.update_levels(values, mask, settings.threshold, id=record.id)
            if curves:
                ranks = to_ranks(values)
                part.update(_as_values(ranks), mask, id=record.id)
        if ranks is not None:
            roc = target_roc(
                _as_values(ranks),
                mask,
                distance=settings.distance,
                connectivity=settings.connectivity,
                id=record.id,
            )
        positive = as_binary(values, settings.threshold, record.id) if keep else None
        return _Part(meter, roc, part, positive, aimed)

    def collect(record: Record, done: Future[_Part]) -> None:
        part = done.result()
        out.meter.merge(part.meter)
        if part.target is not None:
            rocs.append(part.target)
            pixels.merge(part.pixel)
        if part.positive is not None:
            out.maps[record.id] = part.positive
        if part.shooting is not None and out.shooting is not None:
            out.shooting.merge(part.shooting)

    with ThreadPoolExecutor(workers) as pool:
        behind: deque[tuple[Record, Future[_Part]]] = deque()
        ahead: deque[Future] = deque()
        left = iter(records)

        def prefetch(count: int) -> None:
            ahead.extend(pool.submit(read, record) for record in islice(left, count))

        prefetch(2 * workers)
        for record in track(records, f"evaluating {source.name}"):
            image, mask = ahead.popleft().result()
            prefetch(1)
            start = time.perf_counter()
            found: NDArray | Pending
            if isinstance(source, NetworkSource) and image is not None and not shooting:
                found = source.begin(image, _of_size(mask, image, record), settings.threshold, curves=curves)
            else:
                found = source.map(record)
            out.seconds += time.perf_counter() - start
            behind.append((record, pool.submit(one, record, found, mask)))
            while len(behind) > 4 * workers:  # in order, so that every list is a function of the records
                collect(*behind.popleft())
        while behind:
            collect(*behind.popleft())
    if curves and rocs:
        merged = merge_target_rocs(rocs)
        out.target = TargetRoc(
            from_ranks(merged.thresholds), merged.detected, merged.false_pixels, merged.targets, merged.pixels
        )
        curve = pixels.compute()
        out.pixel = PixelRoc(from_ranks(curve.thresholds), curve.tpr, curve.fpr, curve.auc)
    return out


@dataclass(frozen=True)
class _Part:
    """What one image adds."""

    meter: SegmentationMeter
    target: TargetRoc | None
    pixel: PixelRocMeter
    positive: NDArray[np.bool_] | None
    shooting: ShootingMeter | None = None


def _meter(s: Settings) -> SegmentationMeter:
    return SegmentationMeter(s.threshold, s.distance, s.matching, s.connectivity, s.empty)


def _of_size(mask: NDArray[np.bool_], image: NDArray, record: Record) -> NDArray[np.bool_]:
    if mask.shape != image.shape:
        raise IrstkitError(
            f"the image is {image.shape[1]}x{image.shape[0]}, its mask {mask.shape[1]}x{mask.shape[0]}",
            path=record.mask,
        )
    return mask


def to_ranks(values: NDArray) -> NDArray[np.int16]:
    """How many of :data:`LEVELS` lie below each probability: thresholds among them are kept exactly."""
    probability = values.astype(np.float64) if values.dtype != bool else values * 1.0
    return np.searchsorted(LEVELS, probability, side="left").astype(np.int16)


def _as_values(ranks: NDArray[np.integer]) -> NDArray[np.float32]:
    """Ranks as the metrics take them, from 0 to 1; exact, since 2048 is a power of two."""
    return ranks.astype(np.float32) / np.float32(len(LEVELS))


def from_ranks(thresholds: NDArray) -> NDArray[np.float64]:
    """Thresholds on ranks back to thresholds on probabilities."""
    padded = np.append(LEVELS, 1.0)
    at = np.rint(np.clip(thresholds, 0, 1) * len(LEVELS)).astype(int)
    return np.where(np.isinf(thresholds), -np.inf, padded[at])


def evaluate(
    source: Source | Predictor,
    data: str | Path | Dataset,
    split: str | None = None,
    *,
    settings: Settings | None = None,
    curves: bool = False,
    shooting: bool = False,
    by: Sequence[str] = (),
    resamples: int = 0,
    distances: Sequence[float] = (),
    unseen: Unseen | None = None,
) -> dict[str, Any]:
    """Metrics on ``SCHEME/PART``, with all that they depend on beside them (ready for JSON).

    Parameters
    ----------
    settings
        Threshold, matching distance and rule, connectivity: see :class:`.metrics.Settings`.
    curves
        ``roc``: pixel AUC, target AUC up to Fa 1e-4, Pd at Fa 1e-6, 1e-5, 1e-4.
    shooting
        ``shooting``: Pd, Fa and AUC by the rules that STD2Net and DTUM publish.
    by
        Break the numbers down: ``kind``, ``size``, ``scr``, ``scene``, ``sequence``.
    resamples
        Bootstrap intervals (95 %) from so many redrawn sets; sequences are drawn whole.
    distances
        Pd and Fa of other matching distances, in pixels, from the same masks.
    unseen
        Score these of the split's images only (:func:`.unseen.unseen`).
    """
    settings = settings or Settings()
    source = NetworkSource(source) if isinstance(source, Predictor) else source
    data = data if isinstance(data, Dataset) else open_dataset(data)
    records, name = labelled_part(data, split)
    records = records if unseen is None else list(unseen.records)
    scores = score(source, records, settings, curves=curves, shooting=shooting, keep=bool(distances))
    result = report(source, data, records, name, scores, by=by, resamples=resamples)
    if unseen is not None:
        result["unseen"] = unseen.as_dict()
    if distances:
        result["by_distance"] = {f"{d:g}": _at_distance(d, scores, records, settings) for d in distances}
    return result


def _at_distance(
    distance: float, scores: Scores, records: Sequence[Record], settings: Settings
) -> dict[str, Any]:
    meter = _meter(replace(settings, distance=distance))
    for record in records:
        meter.update(scores.maps[record.id], record.read_mask(), id=record.id)
    found = meter.compute()
    return {k: found[k] for k in ("pd", "fa", "detected", "targets", "false_components", "false_pixels")}


def report(
    source: Source,
    data: Dataset,
    records: Sequence[Record],
    split: str,
    scores: Scores,
    *,
    by: Sequence[str] = (),
    resamples: int = 0,
) -> dict[str, Any]:
    """The result of :func:`evaluate` from scores."""
    seen = set(source.seen.get(data.root.resolve().name, ()))
    known = sum(r.id in seen for r in records)
    if known:
        note(f"{known} of these {len(records)} images were trained or selected on: the numbers flatter")
    sizes = sorted({r.size for r in records})
    result: dict[str, Any] = {
        **scores.meter.compute(),
        "data": data.root.resolve().name,
        "layout": data.layout,
        "split": split,
        "split_hash": split_hash(r.id for r in records),
        "seen_in_training": known,
        "input": {
            **source.described(),
            "smallest": list(sizes[0]),
            "largest": list(sizes[-1]),
            "sizes": len(sizes),
        },
        "seconds_predicting": round(scores.seconds, 3),
        **source.about,
    }
    if scores.target is not None and scores.pixel is not None:
        points = {f"{limit:g}": scores.target.pd_at_fa(limit) for limit in FA_LIMITS}
        result["roc"] = {
            "pixel_auc": scores.pixel.auc,
            "target_auc": scores.target.auc(FA_LIMITS[-1]),
            "target_auc_up_to_fa": FA_LIMITS[-1],
            "pd_at_fa": {
                k: None if p is None else {"pd": p[0], "threshold": p[1]} for k, p in points.items()
            },
            "thresholds": f"{len(LEVELS)}, equally spaced in logit from -20 to 30",
        }
    if scores.shooting is not None:
        result["shooting"] = scores.shooting.compute(scores.meter.settings.threshold)
    if resamples:
        groups: dict[Any, Any] = {r.id: r.sequence if r.sequence is not None else r.id for r in records}
        found = bootstrap(scores.meter, resamples=resamples, groups=groups)
        result["intervals_95"] = {k: None if v is None else list(v) for k, v in found.items()}
        result["resamples"] = resamples
    if by:
        images: dict[Any, Any] = {r.id: {"scene": r.scene, "sequence": r.sequence} for r in records}
        lookup = attribute_lookup({r.id: _attributes(r) for r in records})
        described = any(r.attributes.get("targets") for r in records)
        result["by"] = {
            key: breakdown(scores.meter, key, images=images, targets=lookup if described else None)
            for key in by
        }
    return result


def _attributes(record: Record) -> list[dict[str, Any]]:
    """What is known of a record's targets, each with its centre (pixel centres at whole numbers)."""
    known = record.attributes.get("targets") or ()
    if record.boxes is None or len(record.boxes) != len(known):
        return []
    rows = []
    for box, attributes in zip(record.boxes, known, strict=True):
        x1, y1, x2, y2 = box.tolist()
        rows.append({"x": (x1 + x2 - 1) / 2, "y": (y1 + y2 - 1) / 2, **attributes, "box": (x1, y1, x2, y2)})
    return rows


def staircase(roc: TargetRoc) -> list[tuple[float, float, float]]:
    """(Fa, Pd, threshold) wherever a larger Fa allows a larger Pd: the curve worth drawing."""
    order = np.lexsort((-roc.detected, roc.false_pixels))
    best = np.maximum.accumulate(roc.detected[order])
    new = np.flatnonzero(np.diff(best, prepend=-1))
    rows = order[new]
    return [(float(roc.fa[k]), float(roc.pd[k]), float(roc.thresholds[k])) for k in rows]


def table(result: dict[str, Any]) -> str:
    """The result as text for people."""

    def show(value: float | None, scale: float = 100, digits: int = 2) -> str:
        return "undefined" if value is None else f"{value * scale:.{digits}f}"

    def interval(key: str, scale: float = 100) -> str:
        found = result.get("intervals_95", {}).get(key)
        return "" if found is None else f" [{found[0] * scale:.2f}, {found[1] * scale:.2f}]"

    r = result
    lines = [
        f"IoU        {show(r['iou'])} %{interval('iou')}",
        f"nIoU       {show(r['niou'])} %{interval('niou')}   "
        f"({r['niou_skipped']} images without target and detection skipped)",
        f"Pd         {show(r['pd'])} %{interval('pd')}   ({r['detected']} of {r['targets']} targets)",
        f"Fa         {show(r['fa'], 1e6)} x 1e-6{interval('fa', 1e6)}   "
        f"({r['false_pixels']} pixels in {r['false_components']} components)",
        f"precision  {show(r['precision'])} %   recall {show(r['recall'])} %   F1 {show(r['f1'])} %",
    ]
    if "roc" in r:
        roc = r["roc"]
        points = [
            f"{'undefined' if p is None else show(p['pd'])} % at Fa {k}" for k, p in roc["pd_at_fa"].items()
        ]
        lines.append(
            f"AUC        pixel {show(roc['pixel_auc'])} %, target up to Fa 1e-4 {show(roc['target_auc'])} %"
        )
        lines.append(f"Pd         {', '.join(points)}")
    for distance, d in r.get("by_distance", {}).items():
        lines.append(f"below {distance} px  Pd {show(d['pd'])} %   Fa {show(d['fa'], 1e6)} x 1e-6")
    if "shooting" in r:
        s = r["shooting"]
        lines.append(
            f"shooting   Pd {show(s['pd'])} %   Fa {show(s['fa'], 1e6)} x 1e-6   AUC {show(s['auc'], 1, 4)}   "
            f"(as STD2Net and DTUM publish; {s['rule'].removeprefix('shooting, ')}, >= {s['threshold']:g})"
        )
    lines += [
        "",
        f"{r['images']} images of {r['data']} {r['split']} (hash {r['split_hash']}), {r['pixels']} pixels",
        f"threshold > {r['threshold']:g}, matching {r['matching']} below {r['distance']:g} px, "
        f"{r['connectivity']}-connected",
    ]
    if "padding" in r["input"]:
        lines.append(f"input at native size, padding: {r['input']['padding']}")
    else:
        lines.append(f"predictions: {r['input']['files']}")
    if "unseen" in r:
        lines.append(left_out_line(r["unseen"]))
    if r["seen_in_training"]:
        lines.append(f"NOT A TEST: {r['seen_in_training']} of these images were trained or selected on")
    if "model" in r:
        lines.append(f"{r['model']}, step {r['step']}, weights {r['weights'][:12]}")
    for key, groups in r.get("by", {}).items():
        lines += ["", f"by {key}:"]
        for group, numbers in groups.items():
            shown = [f"{k} {show(numbers[k])} %" for k in ("iou", "pd", "recall") if k in numbers]
            if "fa" in numbers:
                shown.append(f"Fa {show(numbers['fa'], 1e6)}e-6")
            count = f"{numbers['targets']} targets"
            lines.append(f"  {group:<16}{count:>14}   {'   '.join(shown)}")
    return "\n".join(lines)
