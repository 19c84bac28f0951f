"""Where predictions come from: a checkpoint, or files that anyone's program wrote.

A source gives a (H, W) map a record: probabilities in 0..1, or a boolean mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..annotate.console import note
from ..annotate.errors import IrstkitError
from ..annotate.files import IMAGE_SUFFIXES, GrayImage, decode_image, read_json
from ..datasets.records import Record
from .device_sums import Pending, begin
from .predictor import Predictor, of_image
from .sequence import is_clip_model

MARKS = ("", "_pred", "-pred", "_prediction", "_mask", "-mask")
"""What programs put behind an image's name (``Misc_1_Pred.png``), in any case."""


class Source(Protocol):
    """Predictions by record. ``about`` and ``described`` go into results; ``seen`` tells training images."""

    about: dict[str, Any]
    seen: dict[str, list[str]]
    name: str

    def map(self, record: Record) -> NDArray:
        """(H, W) probabilities or boolean mask."""
        ...

    def described(self) -> dict[str, Any]:
        """How images went in, or what the files hold."""
        ...


class NetworkSource:
    """A checkpoint's predictions, made as they are asked for."""

    def __init__(self, predictor: Predictor, name: str = "network") -> None:
        self.predictor, self.name = predictor, name
        self.about, self.seen = {**predictor.about, "device": str(predictor.device)}, predictor.seen

    def map(self, record: Record) -> NDArray:
        image = record.read_image()
        with of_image(record.id):
            return self.predictor.probability(image)

    def begin(
        self, image: GrayImage, truth: NDArray[np.bool_], threshold: float, *, curves: bool = False
    ) -> Pending:
        """Start predicting an image and summing its pixels on the device (see :mod:`.device_sums`)."""
        return begin(self.predictor.logits(image), truth, threshold, curves=curves)

    def described(self) -> dict[str, Any]:
        return self.predictor.described()


class FileSource:
    """Masks or probability maps, a file an image: PNG and the like, ``.npy`` or ``.npz``.

    Integer maps are masks where no file of the folder holds more than two values, 0 and one more; otherwise
    probabilities, divided by the largest value of their depth (8 or 16 bit). ``.npy`` holds booleans, such
    integers, or probabilities as floating-point numbers.

    Parameters
    ----------
    kind
        ``auto`` (the rule above), ``mask`` or ``probability``.
    """

    def __init__(self, folder: str | Path, records: Sequence[Record], *, kind: str = "auto") -> None:
        self.folder, self.name = Path(folder), Path(folder).name
        self.files = _match(self.folder, records)
        self.about: dict[str, Any] = {"predictions": str(folder)}
        self.seen: dict[str, list[str]] = {}
        self.kind = kind
        if kind == "auto":
            self.kind = "mask" if all(self._two_valued(f) for f in self.files.values()) else "probability"

    def map(self, record: Record) -> NDArray:
        path = self.files[record.id]
        values = _read(path)
        if self.kind == "mask":
            return values > (values.max(initial=0) / 2)
        if values.dtype == bool or values.dtype.kind == "f":
            return values
        if values.dtype not in (np.uint8, np.uint16):
            raise IrstkitError(
                f"{values.dtype} with more than two values is neither a mask nor probabilities of 8 or 16 bit",
                path=path,
                hint="--as mask takes what is above half of a file's largest value",
            )
        return values / np.float32(np.iinfo(values.dtype).max)

    def described(self) -> dict[str, Any]:
        return {"files": f"{self.kind} maps", "count": len(self.files)}

    @staticmethod
    def _two_valued(path: Path) -> bool:
        values = _read(path)
        if values.dtype.kind == "f":  # probabilities, also where a map is all of one value
            return False
        return bool(((values == 0) | (values == values.max(initial=0))).all())


class CocoSource:
    """COCO detections: a results list, or a document whose annotations have a ``score``.

    An instance paints its pixels with its score (the larger where two overlap; 1 without a score). Boxes
    without a segmentation are painted whole and counted: centroids, Pd and Fa mean something then, IoU little.
    """

    def __init__(self, path: str | Path, records: Sequence[Record]) -> None:
        self.path, self.name = Path(path), Path(path).stem
        self.about: dict[str, Any] = {"predictions": str(path)}
        self.seen: dict[str, list[str]] = {}
        self.boxes_filled = 0
        content = read_json(path)
        annotations = content.get("annotations") if isinstance(content, dict) else content
        if not isinstance(annotations, list):
            raise IrstkitError("neither a COCO document nor a list of results", path=path)
        names = self._names(content, records)
        self.found: dict[str, list[tuple[str, dict[str, Any]]]] = {r.id: [] for r in records}
        outside = 0
        for k, annotation in enumerate(annotations):
            where = f"$.annotations[{k}]" if isinstance(content, dict) else f"$[{k}]"
            if not isinstance(annotation, dict) or "image_id" not in annotation:
                raise IrstkitError("a detection without image_id", path=path, where=where)
            if not isinstance(annotation["image_id"], (int, str)):
                raise IrstkitError(
                    f"image_id is {annotation['image_id']!r}, expected a number or a name",
                    path=path,
                    where=where,
                )
            id = names.get(annotation["image_id"])
            if id is None:
                outside += 1
            else:
                self.found[id].append((where, annotation))
        if outside == len(annotations) > 0:
            raise IrstkitError(
                f"no image_id is of this data set (the first is {annotations[0]['image_id']!r})",
                path=path,
                hint="image_id is an id of the document's images, or an image's name",
            )
        if outside:
            note(f"{outside} of {len(annotations)} detections are of images that are not scored")

    def _names(self, content: Any, records: Sequence[Record]) -> dict[Any, str]:
        """``{image_id: record id}``."""
        whole = {name: r.id for r in records for name in (r.id, r.id.removeprefix("images/"))}
        by_name = dict(whole)
        short: dict[str, set[str]] = {}
        for r in records:
            last = r.id.rpartition("/")[2]
            for name in (last, last + r.suffix):
                short.setdefault(name, set()).add(r.id)
        # every sequence has a frame 000000: such a name alone says nothing
        by_name.update({n: next(iter(ids)) for n, ids in short.items() if len(ids) == 1 and n not in whole})
        if isinstance(content, list):
            return dict(by_name)
        names: dict[Any, str] = {}
        listed: set[str] = set()
        every: set[int | str] = set()
        images = content.get("images", [])
        if not isinstance(images, list):
            raise IrstkitError("images is no list", path=self.path, where="$.images")
        for k, image in enumerate(images):
            where = f"$.images[{k}]"
            if not isinstance(image, dict) or not isinstance(image.get("id"), (int, str)):
                raise IrstkitError("an image without id, a number or a name", path=self.path, where=where)
            if image["id"] in every:
                raise IrstkitError(f"two images of the id {image['id']!r}", path=self.path, where=where)
            every.add(image["id"])
            file = str(image.get("file_name", ""))
            stem = file.rpartition(".")[0] or file
            id = by_name.get(stem) or by_name.get(file) or by_name.get(stem.rpartition("/")[2])
            if id is not None:
                names[image["id"]] = id
                listed.add(id)
        missing = [r.id for r in records if r.id not in listed]
        if missing:
            raise IrstkitError(
                f"{len(missing)} of {len(records)} images are not in its images, the first is {missing[0]!r}",
                path=self.path,
            )
        return names

    def map(self, record: Record) -> NDArray:
        from ..annotate.rle import decode_rle

        out = np.zeros(record.size, np.float32)
        for where, annotation in self.found[record.id]:
            try:
                score = _score(annotation)
                mask = annotation.get("segmentation")
                if isinstance(mask, dict):
                    painted = decode_rle(mask)
                    if painted.shape != record.size:
                        raise ValueError(
                            f"an RLE of {painted.shape}, the image is {record.size} (height, width)"
                        )
                elif isinstance(mask, list) and mask:
                    painted = _polygons(mask, record.size)
                else:
                    painted = _box(_xywh(annotation), record.size)
                    self.boxes_filled += 1
            except (TypeError, ValueError) as error:
                raise IrstkitError(str(error), path=self.path, where=where) from error
            np.maximum(out, np.float32(score), out=out, where=painted)
        return out

    def boxes(self, record: Record) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Half-open boxes (N, 4) and scores (N,) as they are written, nothing painted or merged."""
        boxes, scores = [], []
        for where, annotation in self.found[record.id]:
            try:
                x, y, w, h = _xywh(annotation)
                score = _score(annotation)
            except ValueError as error:
                raise IrstkitError(str(error), path=self.path, where=where) from error
            boxes.append([x, y, x + w, y + h])
            scores.append(score)
        return np.array(boxes, np.float64).reshape(-1, 4), np.array(scores, np.float64)

    def described(self) -> dict[str, Any]:
        return {
            "files": "COCO detections",
            "count": sum(map(len, self.found.values())),
            "boxes_filled": self.boxes_filled,
        }


def _polygons(polygons: list[Any], size: tuple[int, int]) -> NDArray[np.bool_]:
    from pycocotools import mask as coco_mask

    if any(not isinstance(p, list) or len(p) < 6 or len(p) % 2 for p in polygons):
        raise ValueError("a polygon is a list of 3 or more x, y pairs")
    rle = coco_mask.merge(coco_mask.frPyObjects(polygons, *size))
    return coco_mask.decode(rle).astype(bool)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _score(annotation: dict[str, Any]) -> float:
    score = annotation.get("score", 1.0)
    if not _number(score) or not 0 <= score <= 1:
        raise ValueError(f"score {score!r} is not a probability")
    return float(score)


def _xywh(annotation: dict[str, Any]) -> tuple[float, float, float, float]:
    """A detection's box; a number beyond any image is none: its square would overflow."""
    if "bbox" not in annotation:
        raise ValueError("a detection without bbox")
    box = annotation["bbox"]
    good = isinstance(box, list) and len(box) == 4 and all(_number(v) and abs(v) < 1e9 for v in box)
    if not good or min(box[2:]) < 0:
        raise ValueError(f"not a box: {box!r}, expected x, y, width and height in pixels")
    x, y, w, h = map(float, box)
    return x, y, w, h


def _box(box: Sequence[float], size: tuple[int, int]) -> NDArray[np.bool_]:
    x, y, w, h = box
    out = np.zeros(size, bool)
    out[max(0, round(y)) : max(0, round(y + h)), max(0, round(x)) : max(0, round(x + w))] = True
    return out


def is_network(path: str | Path) -> bool:
    """Whether ``path`` is a checkpoint or a run's folder; else it is what some program wrote."""
    path = Path(path)
    return path.suffix.lower() == ".pt" or (path / "best.pt").exists()


def open_source(
    path: str | Path,
    records: Sequence[Record],
    *,
    context: Sequence[Record] = (),
    device: str = "auto",
    padding: str = "reflect",
    model: str | None = None,
    kind: str = "auto",
    border: str | None = None,
) -> Source:
    """The source that ``path`` is: a checkpoint or a run's folder, a COCO file, a folder of maps.

    ``border``: a rule of :mod:`irstkit.datasets.clips` in place of the network's own; networks of clips only.
    ``context``: frames beside ``records`` that such networks look at; no map is asked of them.

    A folder with ``predictions.json`` and no maps of its own is that file; a folder written by
    ``irstkit train predict`` is its probabilities, else its masks.
    """
    path = Path(path)
    if border is not None and not is_network(path):
        raise IrstkitError("no network: a border rule is for networks of clips", path=path)
    if path.is_dir() and not is_network(path):
        for name in ("probabilities", "masks"):
            if (path / name).is_dir():
                return FileSource(path / name, records, kind=kind)
        drawn = path / "overlays"  # by `irstkit train predict`, beside predictions.json
        maps = (f for f in path.rglob("*") if f.suffix.lower() in (*IMAGE_SUFFIXES, ".npy", ".npz"))
        if any(not f.is_relative_to(drawn) for f in maps):
            return FileSource(path, records, kind=kind)
        if (path / "predictions.json").exists():
            return CocoSource(path / "predictions.json", records)
        if (path / "run.json").exists():
            raise IrstkitError("a run without best.pt: it has not ended its first epoch", path=path)
        raise IrstkitError(
            "holds neither best.pt, predictions.json nor maps",
            path=path,
            hint="name a checkpoint, a run's folder, a COCO file or a folder of masks or probability maps",
        )
    if path.suffix.lower() == ".json":
        return CocoSource(path, records)
    name = path.name if path.is_dir() else f"{path.parent.name}/{path.name}".lstrip("/")
    predictor = Predictor.load(path, device=device, padding=padding, model=model)
    set_border(predictor.network, border, path)
    if is_clip_model(predictor.network):
        from .tasks import clip_source

        return clip_source(predictor, records, name, context)
    return NetworkSource(predictor, name)


def set_border(network: Any, border: str | None, path: str | Path) -> None:
    """Give a network of clips another border rule; None: its own."""
    if border is None:
        return
    if not is_clip_model(network):
        raise IrstkitError("sees single images: a border rule is for networks of clips", path=path)
    network.border = border


def _match(folder: Path, records: Sequence[Record]) -> dict[str, Path]:
    """The file of each record, by its id or its last part, with any of :data:`MARKS` behind it."""
    found: dict[str, Path] = {}
    for f in sorted(folder.rglob("*")):
        if f.suffix.lower() not in (*IMAGE_SUFFIXES, ".npy", ".npz") or f.name.startswith("."):
            continue
        name = f.relative_to(folder).with_suffix("").as_posix().lower()
        if name in found:
            raise IrstkitError(f"two predictions of one name: {found[name].name} and {f.name}", path=folder)
        found[name] = f
    matched: dict[str, Path] = {}
    missing: list[str] = []
    for record in records:
        stems = (record.id, record.id.removeprefix("images/"), record.id.rpartition("/")[2])
        tried = [f"{stem}{mark}".lower() for stem in stems for mark in MARKS]
        hit = next((found[name] for name in tried if name in found), None)
        if hit is None:
            missing.append(record.id)
        else:
            matched[record.id] = hit
    uses: dict[Path, str] = {}
    for id, path in matched.items():
        if path in uses:  # every sequence has a frame 000000
            raise IrstkitError(
                f"one prediction for two images: {path.name} for {uses[path]!r} and {id!r}",
                path=folder,
                hint="name predictions by the images' ids, sequences as folders",
            )
        uses[path] = id
    if missing:
        raise IrstkitError(
            f"no prediction for {len(missing)} of {len(records)} images, the first is {missing[0]!r}",
            path=folder,
        )
    more = len(found) - len(set(matched.values()))
    if more:
        note(f"{more} files in {folder} are of images that are not scored")
    return matched


def _read(path: Path) -> NDArray:
    if path.suffix.lower() not in (".npy", ".npz"):
        decoded = decode_image(path)
        if not decoded.gray_equal:
            raise IrstkitError("a map in colour: its channels differ", path=path, hint="an overlay?")
        return decoded.gray
    try:
        loaded = np.load(path, allow_pickle=False)
        if path.suffix.lower() == ".npz":
            if len(loaded.files) != 1:
                raise ValueError(f"{len(loaded.files)} arrays, one was expected")
            loaded = loaded[loaded.files[0]]
    except (OSError, ValueError, EOFError) as error:
        raise IrstkitError(f"cannot be read as an array: {error}", path=path) from error
    values = np.asarray(loaded)
    while values.ndim > 2 and values.shape[0] == 1:
        values = values[0]
    if values.ndim != 2 or values.dtype.kind not in "buif":
        raise IrstkitError(f"expected a (H, W) map, got {values.dtype} {values.shape}", path=path)
    if bad := int(np.isnan(values).sum()):  # "not above the threshold", else
        raise IrstkitError(f"{bad} of its pixels are not numbers", path=path)
    return values
