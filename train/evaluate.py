"""Scoring a checkpoint on a split: native resolution, the corrected metrics first."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ..annotate.console import note, track
from ..annotate.errors import IrstkitError
from ..datasets.readers import open_dataset
from ..datasets.records import Dataset, Record, split_hash
from .metrics import SegmentationMeter, Settings
from .predictor import Predictor


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


def evaluate(
    predictor: Predictor,
    data: str | Path | Dataset,
    split: str | None = None,
    *,
    settings: Settings | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Metrics of a network on ``SCHEME/PART``, with all that they depend on beside them (ready for JSON).

    Parameters
    ----------
    settings
        Threshold, matching distance and rule, connectivity: see :class:`.metrics.Settings`.
    """
    settings = settings or Settings()
    data = data if isinstance(data, Dataset) else open_dataset(data)
    records, name = labelled_part(data, split)
    meter = SegmentationMeter(
        settings.threshold, settings.distance, settings.matching, settings.connectivity, settings.empty
    )
    spent = 0.0
    for record in track(records, f"evaluating {name}") if progress else records:
        image, mask = record.read_image(), record.read_mask()
        start = time.perf_counter()
        probability = predictor.probability(image)
        spent += time.perf_counter() - start
        meter.update(probability, mask, id=record.id)
    sizes = sorted({r.size for r in records})
    seen = set(predictor.seen.get(data.root.resolve().name, ()))
    known = sum(r.id in seen for r in records)
    if known:
        note(f"{known} of these {len(records)} images were trained or selected on: the numbers flatter")
    return {
        **meter.compute(),
        "data": data.root.resolve().name,
        "layout": data.layout,
        "split": name,
        "split_hash": split_hash(r.id for r in records),
        "seen_in_training": known,
        "input": {
            **predictor.described(),
            "smallest": list(min(sizes)),
            "largest": list(max(sizes)),
            "sizes": len(sizes),
        },
        "device": str(predictor.device),
        "seconds_predicting": round(spent, 3),
        **predictor.about,
    }


def table(result: dict[str, Any]) -> str:
    """The result as text for people."""

    def show(value: float | None, scale: float = 100, digits: int = 2) -> str:
        return "undefined" if value is None else f"{value * scale:.{digits}f}"

    fa = show(result["fa"], 1e6)
    lines = [
        f"IoU        {show(result['iou'])} %",
        f"nIoU       {show(result['niou'])} %   "
        f"({result['niou_skipped']} images without target and detection skipped)",
        f"Pd         {show(result['pd'])} %   ({result['detected']} of {result['targets']} targets)",
        f"Fa         {fa} x 1e-6   "
        f"({result['false_pixels']} pixels in {result['false_components']} components)",
        f"precision  {show(result['precision'])} %   recall {show(result['recall'])} %   "
        f"F1 {show(result['f1'])} %",
        "",
        f"{result['images']} images of {result['data']} {result['split']} (hash {result['split_hash']}), "
        f"{result['pixels']} pixels",
        f"threshold > {result['threshold']:g}, "
        f"matching {result['matching']} below {result['distance']:g} px, "
        f"{result['connectivity']}-connected",
    ]
    if "input" in result:
        lines.append(f"input at native size, padding: {result['input']['padding']}")
    if result.get("seen_in_training"):
        lines.append(f"NOT A TEST: {result['seen_in_training']} of these images were trained or selected on")
    if "model" in result:
        lines.append(f"{result['model']}, step {result['step']}, weights {result['weights'][:12]}")
    return "\n".join(lines)
