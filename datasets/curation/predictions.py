"""Predictions on top of the labels: a field a file, every label a hit or a miss, every prediction a hit or a false alarm."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...annotate.coco import read_coco
from ...annotate.console import note, track
from ...annotate.errors import IrstkitError
from ...annotate.files import inside, read_bytes, read_image, read_json
from ...annotate.masks import Instance
from ..service import load
from . import changes, store
from .fields import RESERVED, SAMPLE_FIELDS, field_name
from .matching import DISTANCE, Shape, match_shapes
from .pixels import snap_mask
from .sources import has_mask, to_instance
from .suspicion import DAMAGED, Judged, collect, judge

MAPS = "probabilities"
"""The folder beside a prediction file with the maps that ``train predict --probabilities`` writes."""


@dataclass(frozen=True)
class PredictionFile:
    """A COCO file of predictions, to be shown as the field ``name``."""

    name: str
    path: Path


def parse_options(options: Sequence[str]) -> list[PredictionFile]:
    """``[NAME=]FILE`` each; without a name ``predictions``, ``predictions_2``, ..."""
    out: list[PredictionFile] = []
    for number, text in enumerate(options, start=1):
        name, mark, path = text.partition("=")
        if not mark or Path(text).exists():
            name, path = "predictions" if number == 1 else f"predictions_{number}", text
        if field_name(name) != name or name in SAMPLE_FIELDS or name in RESERVED or name == store.FIELD:
            raise IrstkitError(f"{name!r} cannot be the name of a field", hint="letters, digits and _")
        if name in [o.name for o in out]:
            raise IrstkitError(f"two files for the field {name!r}", path=path)
        out.append(PredictionFile(name, Path(path)))
    return out


def again(dataset: Any, given: list[PredictionFile]) -> list[PredictionFile]:
    """The files of prediction fields pushed before, to be matched anew with labels that changed."""
    names = {file.name for file in given}
    out = []
    for name, known in dataset.info[store.INFO].get("predictions", {}).items():
        path = Path(known["path"])
        if name in names:
            continue
        if path.is_file():
            out.append(PredictionFile(name, path))
        else:
            note(f"{path} is gone: images pushed anew have no {name}")
    return out


def match_attribute(name: str) -> str:
    """The labels' attribute that says whether the predictions ``name`` found them."""
    return "match" if name == "predictions" else f"match_{name}"


@dataclass
class Predicted:
    """What a file says of one image: its predictions, and where its probability map lies if there is one."""

    shapes: list[Shape]
    map: Path | None = None


def read_predictions(path: Path, sizes: dict[str, tuple[str, tuple[int, int]]]) -> dict[str, Predicted]:
    """``{sample id: what is predicted}`` of every image in the file that is in the data set.

    Parameters
    ----------
    sizes
        ``{name of an image: (sample id, (height, width))}``.

    Raises
    ------
    IrstkitError
        For a damaged file, or one of whose images none is in the data set.
    """
    value = read_json(path)
    if isinstance(value, list):
        raise IrstkitError(
            "a bare list of results does not say which images it is about",
            path=path,
            hint="a COCO file with images and annotations is needed, as train predict writes it",
        )
    coco = read_coco(path)
    found: dict[Any, tuple[str, tuple[int, int]]] = {}
    out: dict[str, Predicted] = {}
    maps = path.parent / MAPS
    for k, image in enumerate(coco["images"]):
        name = image.get("file_name") if isinstance(image, dict) else None
        if not isinstance(name, str):
            raise IrstkitError("no file_name", path=path, where=f"$.images[{k}]")
        known = sizes.get(name) or sizes.get(name.rpartition(".")[0])
        if known is not None:
            if (image.get("height", known[1][0]), image.get("width", known[1][1])) != known[1]:
                raise IrstkitError(
                    f"{name} is {known[1][1]}x{known[1][0]}, not {image.get('width')}x{image.get('height')}",
                    path=path,
                    where=f"$.images[{k}]",
                )
            found[image.get("id")] = known
            out[known[0]] = Predicted([], _map_of(name, maps) if maps.is_dir() else None)
    if not found:
        raise IrstkitError(
            "none of its images is in the data set",
            path=path,
            hint="it is about other images, or other names",
        )
    ids = {image.get("id") for image in coco["images"]}
    for k, annotation in enumerate(coco["annotations"]):
        where = f"$.annotations[{k}]"
        if not isinstance(annotation, dict) or annotation.get("image_id") not in ids:
            raise IrstkitError("of no image of this file", path=path, where=where)
        if annotation["image_id"] not in found:
            continue
        sample, size = found[annotation["image_id"]]
        try:
            x, y, w, h = (float(v) for v in annotation["bbox"])
            score = float(annotation.get("score", 1.0))
            if not all(map(math.isfinite, (x, y, w, h, score))) or w <= 0 or h <= 0:
                raise ValueError(f"bbox {annotation['bbox']}, score {annotation.get('score')}")
            instance = to_instance(annotation["segmentation"], size) if has_mask(annotation) else None
        except (ValueError, TypeError, KeyError) as error:
            raise IrstkitError(f"not a prediction: {error}", path=path, where=where) from error
        out[sample].shapes.append(Shape((x, y, x + w, y + h), instance, score))
    if len(found) < len(coco["images"]):
        note(f"{path}: {len(coco['images']) - len(found)} of its images are not in the data set")
    return out


def _map_of(name: str, folder: Path) -> Path | None:
    """The probability map of the image ``name``, as ``train predict`` names it."""
    file = inside(folder, f"{name.rpartition('.')[0].removeprefix('images/')}.png")
    return file if file.is_file() else None


def read_map(path: Path, size: tuple[int, int]) -> NDArray[np.float32]:
    """A (H, W) map of probabilities from a 16-bit image, 65535 for 1."""
    values = read_image(path)
    if values.dtype != np.uint16 or values.shape != size:
        raise IrstkitError(
            f"a probability map of 16 bits and {size[1]}x{size[0]} was expected, "
            f"this has {8 * values.dtype.itemsize} and {values.shape[1]}x{values.shape[0]}",
            path=path,
        )
    return values.astype(np.float32) / np.float32(65535)


def _digest(path: Path) -> str:
    """Of the file, and of the names, sizes and times of the maps beside it."""
    digest = hashlib.sha256(read_bytes(path))
    maps = path.parent / MAPS
    if maps.is_dir():
        for file in sorted(maps.rglob("*.png")):
            stat = file.stat()
            digest.update(f"{file.relative_to(maps)}|{stat.st_size}|{stat.st_mtime_ns}".encode())
    return digest.hexdigest()


def image_names(dataset: Any) -> dict[str, tuple[str, tuple[int, int]]]:
    """``{name: (sample id, size)}``: record id, path in the data set, and its ends as far as they are unique."""
    out: dict[str, Any] = {}
    rows = store.samples(dataset).find({}, {"record_id": 1, "set_name": 1, "filepath": 1, "metadata": 1})
    for row in rows:
        entry = (str(row["_id"]), changes.size_of(row))
        names = {row["record_id"], f"{row['set_name']}/{row['record_id']}"}
        parts = row["filepath"].split("/")
        for k in range(1, 5):
            end = "/".join(parts[-k:])
            names |= {end, end.rpartition(".")[0]}
        for name in names:
            out[name] = entry if out.get(name, entry) == entry else None
    return {name: entry for name, entry in out.items() if entry is not None}


def label_shape(stored: dict[str, Any], size: tuple[int, int]) -> Shape:
    """A stored label or prediction as a shape."""
    box = changes.pixel_box(stored["bounding_box"], size)
    mask = store.unpack(stored.get("mask"))
    instance: Instance | None = None if mask is None else snap_mask(mask, box, size)
    return Shape(box, instance, float(stored.get("confidence") or 0.0))


def push_predictions(
    dataset: Any, files: list[PredictionFile], *, touched: bool
) -> dict[str, dict[str, int]]:
    """Write prediction fields and match them; files that were pushed before are skipped unless ``touched``.

    Returns
    -------
    ``{field: {hits, misses, false_alarms, images, maps, distance}}``.
    """
    fo = load()
    done = dict(dataset.info[store.INFO].get("predictions", {}))
    out = {}
    for file in files:
        digest = _digest(file.path)
        if not touched and done.get(file.name, {}).get("sha256") == digest:
            out[file.name] = done[file.name]["counts"]
            continue
        with store.database_errors("pushing predictions"):
            found = read_predictions(file.path, image_names(dataset))
            if file.name in dataset.get_field_schema():
                dataset.clear_sample_field(file.name)
            else:
                dataset.add_sample_field(file.name, fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
            schema = dataset.get_field_schema(flat=True)
            for path in (
                f"{file.name}.detections.match",
                f"{file.name}.detections.doubt",
                f"{store.FIELD}.detections.{match_attribute(file.name)}",
            ):
                if path not in schema:
                    dataset.add_sample_field(path, fo.StringField)
            for path in (f"{file.name}.detections.area", f"{file.name}.detections.suspicion"):
                if path not in schema:
                    dataset.add_sample_field(path, fo.FloatField)
            out[file.name] = _write(dataset, file.name, found)
            done[file.name] = {"sha256": digest, "path": str(file.path.absolute()), "counts": out[file.name]}
            dataset.info[store.INFO] = {**dataset.info[store.INFO], "predictions": done}
            dataset.save()
    if out:
        with store.database_errors("comparing predictions"):
            _disagreement(dataset, list(done))
    return out


def _write(dataset: Any, name: str, found: dict[str, Predicted]) -> dict[str, int]:
    from bson import ObjectId

    fo = load()
    maps = sum(p.map is not None for p in found.values())
    counts = {
        "hits": 0, "misses": 0, "false_alarms": 0, "images": len(found), "maps": maps, "distance": int(DISTANCE),
    }  # fmt: skip
    wanted = {"_id": {"$in": [ObjectId(i) for i in found]}}
    query = store.samples(dataset).find(wanted, {"metadata": 1, "filepath": 1, store.FIELD: 1}).sort("_id", 1)
    rows = list(query)
    every = -(-sum(len(changes.detections(row)) for row in rows) // DAMAGED) or 1
    collected, hits = [], []
    for number, row in enumerate(track(rows, f"matching {name}")):
        size, guesses = changes.size_of(row), found[str(row["_id"])]
        truth = [label_shape(d, size) for d in changes.detections(row)]
        pairs = match_shapes(truth, guesses.shapes)
        hits.append(({a for a, _ in pairs}, {b for _, b in pairs}))
        probability = None if guesses.map is None else read_map(guesses.map, size)
        image = read_image(Path(row["filepath"]))
        collected.append(
            collect(image, truth, guesses.shapes, pairs, probability, seed=number, damage=number % every == 0)
        )
    fields: dict[str, Any] = {}
    matches: dict[str, list[str]] = {}
    judged: dict[str, Judged] = {}
    for row, (hit_labels, hit_guesses), verdict in zip(rows, hits, judge(collected), strict=True):
        sample, size = str(row["_id"]), changes.size_of(row)
        shapes = found[sample].shapes
        counts["hits"] += len(hit_labels)
        counts["misses"] += len(verdict.labels) - len(hit_labels)
        counts["false_alarms"] += len(shapes) - len(hit_guesses)
        matches[sample] = ["hit" if k in hit_labels else "miss" for k in range(len(verdict.labels))]
        judged[sample] = verdict
        detections = []
        for k, shape in enumerate(shapes):
            match = "hit" if k in hit_guesses else "false_alarm"
            doubt = verdict.prediction_reasons[k] or None
            detections.append(_detection(shape, size, match, verdict.predictions[k], doubt))
        fields[sample] = fo.Detections(detections=detections)
    labels = f"{store.FIELD}.detections"
    for path, values in (
        (name, fields),
        (f"{labels}.{match_attribute(name)}", matches),
        (f"{labels}.suspicion", {k: v.labels for k, v in judged.items()}),
        (f"{labels}.doubt", {k: [r or None for r in v.label_reasons] for k, v in judged.items()}),
        ("suspicion", {k: v.worst for k, v in judged.items()}),
        ("doubt", {k: v.reason or None for k, v in judged.items()}),
    ):
        dataset.set_values(path, values, key_field="id", progress=False)
    return counts


def _detection(shape: Shape, size: tuple[int, int], match: str, suspicion: float, doubt: str | None) -> Any:
    fo = load()
    x1, y1, x2, y2 = shape.box if shape.instance is None else shape.instance.box
    height, width = size
    return fo.Detection(
        label="target",
        bounding_box=[x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height],
        mask=None if shape.instance is None else shape.instance.mask,
        confidence=shape.score,
        match=match,
        area=float((x2 - x1) * (y2 - y1) if shape.instance is None else shape.instance.area),
        suspicion=suspicion,
        doubt=doubt,
    )


def _disagreement(dataset: Any, names: list[str]) -> None:
    """The sample field ``disagreement``: unmatched shapes between prediction fields (with one: and the labels)."""
    fo = load()
    if "disagreement" not in dataset.get_field_schema():
        dataset.add_sample_field("disagreement", fo.IntField)
    fields = names if len(names) > 1 else [store.FIELD, *names]
    values: dict[str, int] = {}
    rows = store.samples(dataset).find(
        {f: {"$ne": None} for f in fields}, {"metadata": 1, **dict.fromkeys(fields, 1)}
    )
    for row in rows:
        size = changes.size_of(row)
        shapes = [[label_shape(d, size) for d in row[f].get("detections") or []] for f in fields]
        worst = 0
        for k, one in enumerate(shapes):
            for other in shapes[k + 1 :]:
                worst = max(worst, len(one) + len(other) - 2 * len(match_shapes(one, other)))
        values[str(row["_id"])] = worst
    dataset.set_values("disagreement", values, key_field="id", progress=False)
