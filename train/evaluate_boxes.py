"""Scoring boxes on a split: detectors by their boxes, segmenters by their components, in one table."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..annotate.console import note, track
from ..annotate.errors import IrstkitError
from ..datasets.records import Dataset, Record, split_hash
from .box_predictor import BoxPredictor, Found
from .checkpoint import load_checkpoint
from .detection_match import boxes_of_map
from .detection_metrics import DetectionMeter, DetectionSettings
from .detection_metrics import table as metrics_table
from .models import task_of_model
from .sources import Source, open_source


def is_box_checkpoint(path: str | Path) -> bool:
    """Whether ``path`` is a checkpoint (or a run's folder) of a network of boxes."""
    path = Path(path)
    if path.suffix.lower() != ".pt" and not (path.is_dir() and (path / "best.pt").exists()):
        return False
    return task_of_model(load_checkpoint(path)["model"]["name"]) == "boxes"


def labelled_boxes(data: Dataset, split: str | None) -> tuple[list[Record], str]:
    """The records of a split with boxes or masks, and its full name; None: the default scheme's ``test``."""
    if split is None:
        split = f"{data.default_scheme}/test" if data.schemes() else "all"
    name = data.full_split(split)
    records = data.part(name)
    bare = [r for r in records if r.mask is None and r.boxes is None]
    if bare:
        raise IrstkitError(
            f"{len(bare)} of {len(records)} images have neither boxes nor a mask, the first is {bare[0].id!r}",
            path=data.root,
        )
    return records, name


def of_source(source: Source, records: Sequence[Record], threshold: float) -> Iterator[tuple[Record, Found]]:
    """A segmenter's detections: components above ``threshold``, scored by their largest probability."""
    for record in records:
        yield record, boxes_of_map(source.map(record), threshold)


def evaluate_boxes(
    found: Iterable[tuple[Record, Found]],
    data: Dataset,
    records: Sequence[Record],
    split: str,
    *,
    settings: DetectionSettings,
    about: dict[str, Any],
    described: dict[str, Any],
    seen: dict[str, list[str]],
    score_from: str,
) -> dict[str, Any]:
    """Every number of :mod:`.detection_metrics`, with all that they depend on beside them (ready for JSON).

    ``score_from`` says where the score of the operating point comes from.
    """
    meter, spent = DetectionMeter(settings), 0.0
    stream = iter(found)
    for _ in track(range(len(records)), f"evaluating {split}"):
        start = time.perf_counter()
        record, (boxes, scores) = next(stream)
        spent += time.perf_counter() - start
        meter.update(
            boxes, scores, record.read_boxes(), id=record.id, size=record.size, sequence=record.sequence
        )
    known = sum(r.id in set(seen.get(data.root.resolve().name, ())) for r in records)
    if known:
        note(f"{known} of these {len(records)} images were trained or selected on: the numbers flatter")
    result = meter.compute()
    return {
        **result,
        "score_from": score_from,
        "curve": meter.curve(),
        "data": data.root.resolve().name,
        "layout": data.layout,
        "split": split,
        "split_hash": split_hash(r.id for r in records),
        "seen_in_training": known,
        "input": described,
        "seconds_predicting": round(spent, 3),
        **about,
    }


def operating_score(path: str | Path) -> tuple[float, str] | None:
    """The score that a run chose on its validation part (largest F1), and words for it; None without one."""
    metrics = load_checkpoint(path).get("metrics") or {}
    chosen = metrics.get("chosen_score")
    return None if chosen is None else (float(chosen), "largest F1 on the run's validation part")


def evaluate_checkpoint(
    path: str | Path,
    data: Dataset,
    split: str | None,
    *,
    score: float | None = None,
    distance: float = 3.0,
    device: str = "auto",
    model: str | None = None,
    nms: float = 0.65,
) -> dict[str, Any]:
    """Score a checkpoint of a network of boxes.

    ``score``: of the operating point; None: the one chosen on the run's validation part, else 0.5.
    """
    records, name = labelled_boxes(data, split)
    predictor = BoxPredictor.load(path, device=device, model=model, nms=nms)
    where = "given"
    if score is None:
        score, where = operating_score(path) or (0.5, "default: the run has chosen none")
    return evaluate_boxes(
        predictor.records(records),
        data,
        records,
        name,
        settings=DetectionSettings(score=score, distance=distance),
        about=predictor.about,
        described=predictor.described(),
        seen=predictor.seen,
        score_from=where,
    )


def score_boxes(
    path: str | Path,
    data: Dataset,
    split: str | None,
    *,
    score: float | None = None,
    distance: float = 3.0,
    device: str = "auto",
    model: str | None = None,
    padding: str = "reflect",
    kind: str = "auto",
) -> dict[str, Any]:
    """Boxes of anything that ``evaluate`` takes: a detector's own, a segmenter's or a file's components.

    A segmenter's components are those above ``score`` (0.5 where None).
    """
    if is_box_checkpoint(path):
        return evaluate_checkpoint(
            path, data, split, score=score, distance=distance, device=device, model=model
        )
    records, name = labelled_boxes(data, split)
    source = open_source(path, records, device=device, padding=padding, model=model, kind=kind)
    threshold = 0.5 if score is None else score
    return evaluate_boxes(
        of_source(source, records, threshold),
        data,
        records,
        name,
        settings=DetectionSettings(score=threshold, distance=distance),
        about=source.about,
        described={**source.described(), "boxes": f"8-connected components above {threshold:g}"},
        seen=source.seen,
        score_from="given" if score is not None else "default",
    )


def table(result: dict[str, Any]) -> str:
    """The result as text for people."""
    lines = [
        metrics_table(result),
        f"{result['data']} {result['split']} (hash {result['split_hash']}); score: {result['score_from']}",
    ]
    if "nms_iou" in result["input"]:
        lines.append(
            f"input at native size; NMS IoU {result['input']['nms_iou']:g}, "
            f"score floor {result['input']['score_floor']:g}"
        )
    if result["seen_in_training"]:
        lines.append(f"NOT A TEST: {result['seen_in_training']} of these images were trained or selected on")
    if "model" in result:
        lines.append(f"{result['model']}, step {result['step']}, weights {result['weights'][:12]}")
    return "\n".join(lines)
