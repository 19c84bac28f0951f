"""Boxes and tracks as files: COCO, overlays, and an overlay video a sequence."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..annotate.coco import add_box, add_image, new_coco
from ..annotate.console import note, track
from ..annotate.draw import enlarge, outline_boxes, stretch
from ..annotate.errors import IrstkitError
from ..annotate.files import write_json, write_png
from ..annotate.video import frame_rate
from ..datasets.records import Record, split_hash
from .box_predictor import BoxPredictor
from .predict import PREDICTED, TRUTH, _new_folder
from .sequence import is_clip_model
from .tracks import Tracker


def in_sequence(records: Sequence[Record], name: str) -> list[Record]:
    """Records of no sequence as the frames of one, in their order: a folder of frames is a sequence."""
    if all(r.sequence is not None and r.frame is not None for r in records):
        return list(records)
    if any(r.sequence is not None for r in records):
        raise IrstkitError("some images are of a sequence and some are not", path=name)
    sizes = {r.size for r in records}
    if len(sizes) > 1:
        raise IrstkitError(
            f"images of {len(sizes)} sizes are no sequence", path=name, hint="name a folder of frames"
        )
    note(f"{len(records)} images taken as the frames of one sequence, in the order of their names")
    return [replace(r, sequence=Path(name).name, frame=k) for k, r in enumerate(records)]


def predict_boxes(
    predictor: BoxPredictor,
    records: Sequence[Record],
    out: str | Path,
    *,
    score: float = 0.5,
    source: str = "",
    video: bool = False,
    rate: float | None = None,
) -> dict[str, Any]:
    """Write ``predictions.json`` (COCO, with scores and track ids) and ``overlays/`` to the new folder ``out``.

    Parameters
    ----------
    score
        Detections below it are left out.
    video
        Write ``videos/SEQUENCE.mp4`` instead of overlay images where there are sequences.
    rate
        Frames a second of these; None: those of the video that a sequence was read from, else 25.
    """
    if is_clip_model(predictor.network):
        records = in_sequence(records, source)
    items = (
        (r, r.read_image(), found, r.boxes if r.boxes is not None else None)
        for r, found in track(predictor.records(records), "predicting", len(records))
    )
    digest = split_hash(r.id for r in records)
    return _write(predictor, items, out, score=score, video=video, images_hash=digest, rate=rate)


def _write(
    predictor: BoxPredictor,
    items: Iterator[tuple[Record, NDArray, Any, Any]],
    out: str | Path,
    *,
    score: float,
    video: bool,
    images_hash: str,
    rate: float | None = None,
) -> dict[str, Any]:
    if not 0 <= score <= 1:
        raise IrstkitError(f"the score is a number from 0 to 1, got {score}")
    coco = new_coco(
        description="Predictions of irstkit",
        score=score,
        input=predictor.described(),
        images_hash=images_hash,
        **{k: predictor.about[k] for k in ("model", "step", "weights") if k in predictor.about},
    )
    trackers: dict[str, Tracker] = defaultdict(Tracker)
    writers: dict[str, Any] = {}
    with _new_folder(Path(out)) as folder:
        try:
            for record, image, (boxes, scores), truth in items:
                kept = scores >= score
                boxes, scores = boxes[kept], scores[kept]
                name = record.id + record.suffix
                extra = (
                    {} if record.sequence is None else {"sequence": record.sequence, "frame": record.frame}
                )
                image_id = add_image(coco, name, image.shape, source=record.source, **extra)
                ids = None
                if record.sequence is not None and record.frame is not None:
                    ids = trackers[record.sequence].update(boxes, record.frame)
                for k, (box, value) in enumerate(zip(boxes, scores, strict=True)):
                    named = {} if ids is None else {"track_id": int(ids[k])}
                    add_box(coco, image_id, box, score=round(float(value), 6), **named)
                picture = overlay_boxes(image, boxes, truth, ids)
                if video and record.sequence is not None:
                    if record.sequence not in writers:
                        read_from = frame_rate(record.image) if record.video_frame is not None else 25.0
                        writers[record.sequence] = _video(
                            folder, record.sequence, picture.shape, rate or read_from
                        )
                    writers[record.sequence].write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
                else:
                    write_png(folder / "overlays" / f"{record.id.removeprefix('images/')}.png", picture)
        finally:
            for writer in writers.values():
                writer.release()
        write_json(folder / "predictions.json", coco)
    tracks = {
        (a["track_id"], coco["images"][a["image_id"] - 1]["sequence"])
        for a in coco["annotations"]
        if "track_id" in a
    }
    return {
        "out": str(out),
        "images": len(coco["images"]),
        "boxes": len(coco["annotations"]),
        "tracks": len(tracks),
        "score": score,
        "images_hash": images_hash,
    }


def overlay_boxes(
    image: NDArray,
    boxes: NDArray,
    truth: NDArray | None = None,
    ids: NDArray | None = None,
    *,
    side: int = 512,
) -> NDArray[np.uint8]:
    """The image enlarged a whole number of times to about ``side`` pixels, boxes orange, truth cyan, RGB."""
    scale = max(1, round(side / max(image.shape)))
    picture = enlarge(stretch(image), scale)
    if truth is not None:
        outline_boxes(picture, truth, TRUTH, scale=scale, margin=3)
    outline_boxes(picture, boxes, PREDICTED, scale=scale)
    for box, number in zip(boxes, [] if ids is None else ids, strict=False):
        corner = (int((box[2] + 3) * scale), max(int(box[1] * scale), 10))
        cv2.putText(picture, str(int(number)), corner, cv2.FONT_HERSHEY_SIMPLEX, 0.4, PREDICTED, 1)
    return picture


def _video(folder: Path, name: str, shape: tuple[int, ...], rate: float) -> Any:
    path = folder / "videos" / f"{name.replace('/', '_')}.mp4"
    path.parent.mkdir(exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, (shape[1], shape[0]))
    if not writer.isOpened():
        raise IrstkitError("OpenCV cannot write mp4 videos here", path=path)
    return writer
