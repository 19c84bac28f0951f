"""COCO: read with everything it holds, written an image at a time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from ..coco import CATEGORY
from ..console import track
from ..errors import IrstkitError
from ..files import Below, atomic_path, refuse_existing
from ..findings import Findings
from ..labels import Format, Label, LabelledImage, LabelSet, ReadOptions, WriteOptions
from ..polygons import instance_polygons
from ..rle import encode_instance
from .coco_check import inspect_coco, read_content
from .image_folder import examine_image


def read(path: Path, options: ReadOptions) -> LabelSet:
    """Read a COCO file; its first error is raised. Ids and unknown keys are kept."""
    content = read_content(path)
    raw = content.raw
    info = raw.get("info") if isinstance(raw.get("info"), dict) else {}
    return LabelSet(
        content.images, len(content.images), tuple(content.categories), info or {}, content.findings, raw
    )


class CocoStream:
    """Writes a COCO file an image at a time, in memory that does not grow with their number.

    Image entries go to the file at once, annotations to one beside it, which is appended at the end. Use as
    a context manager on a temporary path.
    """

    def __init__(
        self,
        path: Path,
        info: dict[str, Any],
        categories: list[dict[str, Any]],
        *,
        polygons: bool = False,
        head: dict[str, Any] | None = None,
    ) -> None:
        self._path = path
        self._side = path.with_name(path.name + ".annotations")
        self._info, self._categories, self._polygons = info, categories, polygons
        self._head = head or {"licenses": []}
        self._images = self._annotations = 0
        self._all_pixels = True

    def __enter__(self) -> CocoStream:
        self._out = self._path.open("wb")
        self._rest = self._side.open("w+b")
        head = "".join(f", {_json(k)}: {_json(v)}" for k, v in self._head.items())
        self._out.write(f'{{"info": {_json(self._info)}{head}, "images": ['.encode())
        return self

    def add(self, image: LabelledImage) -> None:
        """Append one image and its annotations (ids that the labels bring along are kept)."""
        self._images += 1
        height, width = image.known_size()
        extra = dict(image.extra)
        key = extra.pop("id", self._images)
        entry = {"id": key, "file_name": image.name, "width": width, "height": height, **extra}
        self._out.write(f"{',' if self._images > 1 else ''}\n{_json(entry)}".encode())
        first = self._annotations + 1
        for label in image.labels:
            self._annotations += 1
            row = self._annotation(label, key, (height, width), first)
            self._rest.write(f"{',' if self._annotations > 1 else ''}\n{_json(row)}".encode())

    def _annotation(self, label: Label, image_id: int, size: tuple[int, int], first: int) -> dict[str, Any]:
        x1, y1, x2, y2 = label.box
        extra = dict(label.extra)
        row: dict[str, Any] = {
            "id": extra.pop("id", self._annotations),
            "image_id": image_id,
            "category_id": self._categories[label.category]["id"],
            "iscrowd": extra.pop("iscrowd", 0),
            "bbox": [_plain(v) for v in (x1, y1, x2 - x1, y2 - y1)],
        }
        if label.instance is not None:
            row["area"] = extra.pop("area", label.instance.area)
            extra.pop("segmentation_source", None)
            if self._polygons:
                row["segmentation"] = instance_polygons(label.instance)
            else:
                row["segmentation"] = label.rle or encode_instance(label.instance, size)
        else:
            row["area"] = _plain(extra.pop("area", (x2 - x1) * (y2 - y1)))
            row["segmentation"] = [[_plain(v) for v in (x1, y1, x2, y1, x2, y2, x1, y2)]]
            row["segmentation_source"] = "box"
        if label.parent is not None:
            extra["attributes"] = {"contour": "hole", "parent": first + label.parent}
        return {**row, **extra}

    def __exit__(self, kind: Any, *_: Any) -> None:
        try:
            if kind is None:
                self._out.write(b'\n], "annotations": [')
                self._rest.seek(0)
                shutil.copyfileobj(self._rest, self._out)
                self._out.write(f'\n], "categories": {_json(self._categories)}}}\n'.encode())
        finally:
            self._out.close()
            self._rest.close()
            self._side.unlink()


def _plain(value: float) -> float | int:
    return int(value) if value == int(value) else value


_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def categories_of(labels: LabelSet) -> list[dict[str, Any]]:
    """COCO's categories: those of the source file, or the set's names from id 1."""
    raw = (labels.raw or {}).get("categories")
    if raw:
        return raw
    return [{**CATEGORY, "id": k, "name": name} for k, name in enumerate(labels.categories or ["target"], 1)]


def write(labels: LabelSet, out: Path, options: WriteOptions) -> None:
    """Write a COCO file atomically: RLE (default) or pixel-edge polygons, boxes without pixels as rectangles
    marked ``segmentation_source: box``."""
    refuse_existing(out, overwrite=options.overwrite, folder=False)
    head = {k: v for k, v in (labels.raw or {"licenses": []}).items() if k not in ("info", "categories")}
    categories = categories_of(labels)
    try:
        with (
            atomic_path(out) as temporary,
            CocoStream(temporary, labels.info, categories, polygons=options.polygons, head=head) as stream,
        ):
            for image in labels.images:
                stream.add(image)
    except (UnicodeEncodeError, ValueError) as error:
        raise IrstkitError(f"cannot be written as JSON: {error}", path=out) from error


def check(path: Path, options: ReadOptions) -> Findings:
    """Everything wrong in the file, and with its images where they are at hand."""
    content = inspect_coco(path)
    check_image_files(content.images, (options.beside or Path(path)).parent, options, content.findings)
    return content.findings


def check_image_files(
    images: list[LabelledImage], folder: Path, options: ReadOptions, findings: Findings
) -> None:
    """Missing, damaged and wrongly sized image files; nothing when no image is at hand and none was asked for."""
    roots = [options.images] if options.images is not None else [folder, folder / "images"]
    places = [Below(root) for root in roots]

    def locate(name: str) -> Path | None:
        for below in places:
            try:
                path = below(name)
            except IrstkitError:
                return None
            if path.is_file():
                return path
        return None

    found = {image.name: locate(image.name) for image in images}
    if options.images is None and not any(found.values()):
        return
    for image in track(images, "reading images"):
        path = found[image.name]
        if path is None:
            findings.note("image-missing", f"no file {image.name!r} in {roots[0]}", "images")
            continue
        shape = examine_image(path, findings)
        if shape is not None and image.size is not None and shape != image.size:
            height, width = image.size
            message = f"the file is {shape[1]}x{shape[0]}, the labels say {width}x{height}"
            findings.note("image-size", message, path=path)


def recognise(path: Path) -> bool:
    """A JSON file with COCO's lists near its beginning or simply ``.json`` text that names them."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    with path.open("rb") as stream:
        data = stream.read()
    return b'"images"' in data and b'"annotations"' in data


FORMAT = Format(
    "coco", "COCO file: RLE or polygons, boxes, ids, any further keys", read, write, check, recognise
)
