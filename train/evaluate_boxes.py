"""Scoring boxes on a split: detectors by their boxes, segmenters by their components, in one table."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..annotate.console import note, track
from ..annotate.errors import IrstkitError
from ..datasets.records import Dataset, Record, split_hash
from .box_predictor import BoxPredictor
from .checkpoint import load_checkpoint
from .detection_match import boxes_of_map
from .detection_metrics import DetectionMeter, DetectionSettings
from .detection_metrics import table as metrics_table
from .metrics import SegmentationMeter
from .models import task_of_model
from .sequence import is_clip_model
from .sources import CocoSource, Source, is_network, open_source, set_border
from .unseen import Unseen, left_out_line

PROTOCOLS = ("irstkit", "sstnet")
"""``sstnet``: the published DAUB / IRDST tables' numbers first (:data:`.detection_metrics.PUBLISHED`)."""
COMPONENTS = 0.5
"""Where a segmenter's components are cut unless a threshold is given."""


class Detections(NamedTuple):
    """Of one image: half-open boxes (N, 4), scores (N,), and the pixels of each where they are known (N,)."""

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    areas: NDArray[np.float64] | None = None


class BoxSource(Protocol):
    """Detections by record. ``kind``: ``boxes`` or ``masks``, what the thing itself predicts."""

    name: str
    kind: str
    about: dict[str, Any]
    seen: dict[str, list[str]]

    def stream(self, records: Sequence[Record]) -> Iterator[tuple[Record, Detections]]: ...

    def described(self) -> dict[str, Any]: ...

    def masks(self) -> dict[str, Any] | None:
        """IoU, nIoU, Pd and Fa by pixels of what was streamed, where both sides have masks."""
        ...


class DetectorSource:
    """A network of boxes; of clips, it looks at the frames of ``context`` too."""

    kind = "boxes"

    def __init__(self, predictor: BoxPredictor, name: str, context: Sequence[Record] = ()) -> None:
        self.predictor, self.name = predictor, name
        self.about, self.seen = predictor.about, predictor.seen
        self.context = context if is_clip_model(predictor.network) else ()

    def stream(self, records: Sequence[Record]) -> Iterator[tuple[Record, Detections]]:
        beside = {r.id for r in self.context}
        for record, (boxes, scores) in self.predictor.records([*records, *self.context]):
            if record.id not in beside:
                yield record, Detections(boxes, scores)

    def described(self) -> dict[str, Any]:
        return self.predictor.described()

    def masks(self) -> dict[str, Any] | None:
        return None


class FileBoxes:
    """Boxes that anyone's program wrote: COCO results."""

    kind = "boxes"

    def __init__(self, source: CocoSource) -> None:
        self.source, self.name = source, source.name
        self.about, self.seen = source.about, source.seen

    def stream(self, records: Sequence[Record]) -> Iterator[tuple[Record, Detections]]:
        for record in records:
            yield record, Detections(*self.source.boxes(record))

    def described(self) -> dict[str, Any]:
        return {"files": "COCO detections", "count": sum(map(len, self.source.found.values()))}

    def masks(self) -> dict[str, Any] | None:
        return None


class ComponentSource:
    """A segmenter, or files of maps: 8-connected components above a threshold, scored by their largest value."""

    kind = "masks"

    def __init__(self, source: Source, threshold: float, distance: float) -> None:
        self.source, self.name, self.threshold = source, source.name, threshold
        self.about, self.seen = source.about, source.seen
        self._meter = SegmentationMeter(threshold=threshold, distance=distance)
        self._bare = 0

    def stream(self, records: Sequence[Record]) -> Iterator[tuple[Record, Detections]]:
        for record in records:
            found = self.source.map(record)
            if record.mask is None:
                self._bare += 1
            else:
                self._meter.update(found, record.read_mask(), id=record.id)
            yield record, Detections(*boxes_of_map(found, self.threshold))

    def described(self) -> dict[str, Any]:
        return {**self.source.described(), "boxes": f"8-connected components above {self.threshold:g}"}

    def masks(self) -> dict[str, Any] | None:
        if self._bare or not self._meter.rows:
            return None
        numbers = self._meter.compute()
        return {k: numbers[k] for k in ("iou", "niou", "pd", "fa")}


def is_box_checkpoint(path: str | Path) -> bool:
    """Whether ``path`` is a checkpoint (or a run's folder) of a network of boxes."""
    if not is_network(path):
        return False
    name = load_checkpoint(path)["model"]["name"]
    try:
        return task_of_model(name) == "boxes"
    except IrstkitError as error:
        raise IrstkitError(error.message, path=path, hint=error.hint) from error


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


def open_boxes(
    path: str | Path,
    records: Sequence[Record],
    *,
    context: Sequence[Record] = (),
    threshold: float = COMPONENTS,
    distance: float = 3.0,
    nms: float = 0.65,
    device: str = "auto",
    model: str | None = None,
    padding: str = "reflect",
    kind: str = "auto",
    border: str | None = None,
) -> BoxSource:
    """The detections that ``path`` gives: anything that ``irstkit train evaluate`` takes."""
    path = Path(path)
    if is_box_checkpoint(path):
        name = path.name if path.is_dir() else f"{path.parent.name}/{path.name}".lstrip("/")
        predictor = BoxPredictor.load(path, device=device, model=model, nms=nms, border=border)
        set_border(predictor.network, border, path)  # refused where the network sees single images
        return DetectorSource(predictor, name, context)
    source = open_source(
        path, records, context=context, device=device, padding=padding, model=model, kind=kind, border=border
    )
    if isinstance(source, CocoSource):
        return FileBoxes(source)
    return ComponentSource(source, threshold, distance)


def measure(source: BoxSource, records: Sequence[Record], settings: DetectionSettings) -> DetectionMeter:
    """A meter that has seen what ``source`` finds in ``records``."""
    meter = DetectionMeter(settings)
    stream = iter(source.stream(records))
    for _ in track(range(len(records)), f"evaluating {source.name}"):
        record, found = next(stream)
        truth, size = record.read_boxes(), record.size
        meter.update(*found[:2], truth, id=record.id, size=size, sequence=record.sequence, areas=found.areas)
    return meter


def operating_score(path: str | Path) -> tuple[float, str] | None:
    """The score that a run chose on its validation part (largest F1), and words for it; None without one."""
    path = Path(path)
    if not is_box_checkpoint(path):
        return None
    chosen = (load_checkpoint(path).get("metrics") or {}).get("chosen_score")
    return None if chosen is None else (float(chosen), "largest F1 on the run's validation part")


def score_boxes(
    path: str | Path,
    data: Dataset,
    split: str | None,
    *,
    score: float | None = None,
    choose_on: str | None = None,
    distance: float = 3.0,
    nms: float = 0.65,
    unseen: Unseen | None = None,
    **how: Any,
) -> dict[str, Any]:
    """Every number of :mod:`.detection_metrics` for anything that ``evaluate`` takes (ready for JSON).

    Parameters
    ----------
    score
        Of the operating point, and where a segmenter's components are cut. None: the one that a detector's run
        chose on its validation part, else 0.5.
    choose_on
        ``SCHEME/PART`` of ``data`` on which the score with the largest F1 is chosen instead.
    unseen
        Score these of the split's images only (:func:`.unseen.unseen`).
    how
        ``device``, ``model``, ``padding``, ``kind``, ``border``: see :func:`open_boxes`.
    """
    records, name = labelled_boxes(data, split)
    records = records if unseen is None else list(unseen.records)
    threshold = COMPONENTS if score is None else score
    how = {"threshold": threshold, "distance": distance, "nms": nms, **how}
    if choose_on is not None:
        judges, judge = labelled_boxes(data, choose_on)
        if shared := {r.id for r in judges} & {r.id for r in records}:
            raise IrstkitError(
                f"{len(shared)} images of {judge} are of {name}: no score is chosen on what is scored",
                path=data.root,
            )
        best = measure(open_boxes(path, judges, **how), judges, DetectionSettings(distance=distance))
        chosen = best.best_score()["score"]
        if chosen is None:
            raise IrstkitError(f"no hit on {judge}: no score to choose", path=path)
        score, where = float(chosen), f"largest F1 on {judge}"
    elif score is not None:
        where = "given"
    else:
        score, where = operating_score(path) or (COMPONENTS, "default: none was chosen on validation data")
    source = open_boxes(path, records, context=() if unseen is None else unseen.context, **how)
    start = time.perf_counter()
    meter = measure(source, records, DetectionSettings(score=score, distance=distance))
    spent = time.perf_counter() - start
    known = sum(r.id in set(source.seen.get(data.root.resolve().name, ())) for r in records)
    if known:
        note(f"{known} of these {len(records)} images were trained or selected on: the numbers flatter")
    return {
        "run": source.name,
        "kind": source.kind,
        **meter.compute(),
        "masks": source.masks(),
        "score_from": where,
        "curve": meter.curve(),
        "data": data.root.resolve().name,
        "layout": data.layout,
        "split": name,
        "split_hash": split_hash(r.id for r in records),
        "seen_in_training": known,
        **({} if unseen is None else {"unseen": unseen.as_dict()}),
        "input": source.described(),
        "seconds": round(spent, 3),
        **source.about,
    }


def table(result: dict[str, Any], protocol: str = "irstkit") -> str:
    """One result as text for people."""
    lines = [
        metrics_table(result, protocol),
        f"{result['data']} {result['split']} (hash {result['split_hash']}); score: {result['score_from']}",
    ]
    if result["masks"]:
        shown = ["undefined" if v is None else f"{100 * v:.2f} %" for v in result["masks"].values()]
        lines.append(f"as masks: IoU {shown[0]}, nIoU {shown[1]}, Pd {shown[2]}")
    if "nms_iou" in result["input"]:
        lines.append(
            f"input at native size; NMS IoU {result['input']['nms_iou']:g}, "
            f"score floor {result['input']['score_floor']:g}"
        )
    elif "boxes" in result["input"]:
        lines.append(f"boxes: {result['input']['boxes']}")
    if "unseen" in result:
        lines.append(left_out_line(result["unseen"]))
    if result["seen_in_training"]:
        lines.append(f"NOT A TEST: {result['seen_in_training']} of these images were trained or selected on")
    if "model" in result:
        lines.append(f"{result['model']}, step {result['step']}, weights {result['weights'][:12]}")
    return "\n".join(lines)
