"""Predictions as files: masks, COCO instances with scores, overlays."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..annotate.console import track
from ..annotate.errors import IrstkitError
from ..annotate.files import IMAGE_SUFFIXES, GrayImage, list_images, read_header, write_json, write_png
from ..annotate.video import VIDEO_SUFFIXES, video_frames
from ..datasets.readers import open_dataset
from ..datasets.records import Record, split_hash
from .predictor import Predictor, of_image

TRUTH = (0, 200, 255)
PREDICTED = (255, 120, 0)
"""Outline colours, RGB: cyan and orange are told apart by colour-blind eyes too."""


def gather(source: str | Path, split: str | None = None) -> tuple[list[Record], str]:
    """The images meant by a file, a video, a folder of images or a data set, and a word on which it was.

    Raises
    ------
    IrstkitError
        Nothing there, no image in it, two images of one name, or an unknown split.
    """
    source = Path(source)
    if source.is_file() and source.suffix.lower() in VIDEO_SUFFIXES:
        if split is not None:
            raise IrstkitError(f"no split {split!r}: this is a video", path=source)
        frames = video_frames(source)
        named = [f"{source.stem}/{k:06d}" for k in range(len(frames))]
        return [
            Record(id, source, size=f.shape[:2], sequence=source.stem, frame=k, video_frame=k)
            for k, (id, f) in enumerate(zip(named, frames, strict=True))
        ], "video"
    if source.is_file():
        if source.suffix.lower() not in IMAGE_SUFFIXES:
            known = " ".join((*IMAGE_SUFFIXES, *VIDEO_SUFFIXES))
            raise IrstkitError("neither an image nor a video by its name", path=source, hint=known)
        files = [source]
    elif source.is_dir() and _has_images(source):
        files = list_images(source)
    else:
        data = open_dataset(source)
        records = data.part(split) if split is not None else list(data)
        return records, f"{data.layout} data set{f', split {split}' if split else ''}"
    if split is not None:
        raise IrstkitError(f"no split {split!r}: these are images without lists", path=source)
    names: dict[str, Path] = {}
    for f in files:
        if f.stem in names:
            raise IrstkitError(f"two images of one name: {names[f.stem].name} and {f.name}", path=source)
        names[f.stem] = f
    records = []
    for name, f in names.items():
        header = read_header(f)
        records.append(Record(name, f, size=(header.height, header.width), bit_depth=header.bit_depth))
    return records, "image" if source.is_file() else "folder of images"


def _has_images(folder: Path) -> bool:
    return any(f.suffix.lower() in IMAGE_SUFFIXES and not f.name.startswith(".") for f in folder.iterdir())


def predict(
    predictor: Predictor,
    records: Sequence[Record],
    out: str | Path,
    *,
    threshold: float = 0.5,
    probabilities: bool = False,
    maps: Callable[[Record], NDArray] | None = None,
) -> dict[str, Any]:
    """Write ``masks/``, ``overlays/`` and ``predictions.json`` (COCO) to the new folder ``out``.

    All or nothing: the folder appears when everything is in it. Instances are 8-connected; an instance's
    ``score`` is the largest probability among its pixels.

    Parameters
    ----------
    threshold
        A pixel is positive when its probability is greater.
    probabilities
        Write ``probabilities/NAME.png`` too, 16-bit, 65535 for 1.
    maps
        What gives a record's probabilities in place of ``predictor`` (networks of clips).

    Raises
    ------
    IrstkitError
        When ``out`` exists and is not empty, or an image cannot be read.
    """
    from ..annotate.coco import add_image, add_instance, new_coco
    from ..annotate.masks import mask_to_instances

    coco = new_coco(
        description="Predictions of irstkit",
        threshold=threshold,
        connectivity=8,
        score="largest probability among the instance's pixels",
        input=predictor.described(),
        images_hash=split_hash(r.id for r in records),
        **{k: predictor.about[k] for k in ("model", "step", "weights") if k in predictor.about},
    )
    found = 0
    with _new_folder(Path(out)) as folder:
        for record in track(records, "predicting"):
            image = record.read_image()
            with of_image(record.id):
                probability = predictor.probability(image) if maps is None else maps(record)
            mask = probability > threshold
            image_id = add_image(coco, record.id + record.suffix, image.shape, source=record.source)
            for instance in mask_to_instances(mask):
                x1, y1, x2, y2 = instance.box
                score = float(probability[y1:y2, x1:x2][instance.mask].max())
                add_instance(coco, image_id, instance, image.shape, score=round(score, 6))
                found += 1
            name = f"{record.id.removeprefix('images/')}.png"
            write_png(folder / "masks" / name, mask.astype(np.uint8) * 255)
            truth = record.read_mask() if record.mask is not None else None
            write_png(folder / "overlays" / name, overlay(image, mask, truth))
            if probabilities:
                write_png(folder / "probabilities" / name, np.rint(probability * 65535).astype(np.uint16))
        write_json(folder / "predictions.json", coco)
    return {
        "out": str(out),
        "images": len(records),
        "instances": found,
        "threshold": threshold,
        "images_hash": coco["info"]["images_hash"],
    }


def overlay(
    image: GrayImage,
    prediction: NDArray[np.bool_],
    truth: NDArray[np.bool_] | None = None,
    *,
    side: int = 512,
) -> NDArray[np.uint8]:
    """The image enlarged a whole number of times to about ``side`` pixels, outlined: (H, W, 3) uint8 RGB.

    Truth is outlined in cyan, the prediction in orange around it; 16-bit images are stretched from their
    0.1 to their 99.9 percentile.
    """
    if image.dtype == np.uint16:
        low, high = np.percentile(image, (0.1, 99.9))
        image = np.clip((image - low) * (255 / max(high - low, 1)), 0, 255).astype(np.uint8)
    scale = max(1, side // max(image.shape))
    size = (image.shape[1] * scale, image.shape[0] * scale)
    canvas = cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_NEAREST), cv2.COLOR_GRAY2RGB)
    for mask, colour, gap in ((truth, TRUTH, 1), (prediction, PREDICTED, 3)):
        if mask is None or not mask.any():
            continue
        large = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        outer = cv2.dilate(large, np.ones((2 * gap + 1, 2 * gap + 1), np.uint8))
        inner = cv2.dilate(large, np.ones((2 * gap - 1, 2 * gap - 1), np.uint8))
        canvas[(outer > 0) & (inner == 0)] = colour
    return np.asarray(canvas, np.uint8)


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside ``out`` that becomes it on success and vanishes on any error."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise IrstkitError("exists and is not empty: not overwritten", path=out, hint="name another --out")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise IrstkitError(f"cannot write here: {error.strerror or error}", path=out) from error
    try:
        yield temporary
        temporary.chmod(0o755)
        with suppress(OSError):
            out.rmdir()
        temporary.replace(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
