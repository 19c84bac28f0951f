"""Everything that can be wrong in a COCO file, found in one pass; what is right becomes labels.

Reading and checking are the same code, so that nothing which the check finds can be read unnoticed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import IrstkitError
from ..findings import Findings
from ..labels import Label, LabelledImage
from ..masks import Instance
from ..polygons import polygons_to_instance
from ..rle import rle_to_instance
from .coco_load import is_number, is_rectangle, is_whole, kind_of, leaves_root, load_coco

IMAGE_KEYS = ("file_name", "width", "height")
ANNOTATION_KEYS = ("image_id", "category_id", "bbox", "area", "segmentation", "iscrowd")
LIMIT = 1e9


@dataclass
class CocoContent:
    """What was right: images in the file's order with their labels, categories, and the other keys."""

    images: list[LabelledImage] = field(default_factory=list)
    categories: list[str] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)
    findings: Findings = field(default_factory=Findings)


def inspect_coco(path: str | Path) -> CocoContent:
    """Read and check a COCO file (not its image files)."""
    document, findings = load_coco(path)
    if document is None:
        return CocoContent(findings=findings)
    return _Inspector(document, findings).content


class _Inspector:
    """One walk over a document."""

    def __init__(self, document: dict[str, Any], findings: Findings) -> None:
        self.findings = findings
        self.content = CocoContent(findings=findings)
        self.content.raw = {k: v for k, v in document.items() if k not in ("images", "annotations")}
        self.by_id: dict[int, LabelledImage] = {}
        self.categories: dict[int, int] = {}
        self.known_images: set[int] = set()  # ids that stand there, also those of images that are unusable
        if "info" in document and not isinstance(document["info"], dict):
            self.wrong("info", "an object", document["info"])
        for index, value in enumerate(self.items(document, "categories")):
            self.category(value, f"categories[{index}]")
        names: dict[str, int] = {}
        for index, value in enumerate(self.items(document, "images")):
            self.image(value, f"images[{index}]", names, index)
        used: set[int] = set()
        ids: dict[int, int] = {}
        annotations = self.items(document, "annotations")
        seen: dict[tuple, int] = {}
        for index, value in enumerate(annotations):
            self.annotation(value, f"annotations[{index}]", ids, used, seen, index)
        if not self.by_id and not any(f.severity == "error" for f in findings):
            self.note("no-images", "the file has no image", "images")
        if not annotations and isinstance(document.get("annotations"), list):
            self.note("no-targets", "the file has no target", "annotations")
        for key in sorted(set(self.categories) - used):
            self.note("unused-category", f"category {key} has no target", "categories")

    # -- small tools

    def note(self, kind: str, message: str, where: str) -> None:
        self.findings.note(kind, message, where)

    def wrong(self, where: str, expected: str, value: Any) -> None:
        self.note("wrong-type", f"expected {expected}, found {kind_of(value)} {str(value)[:40]!r}", where)

    def items(self, document: dict[str, Any], key: str) -> list[Any]:
        if key not in document:
            self.note("missing-key", f"the list {key!r} is missing", key)
            return []
        if not isinstance(document[key], list):
            self.wrong(key, "a list", document[key])
            return []
        return document[key]

    def entry_id(self, entry: dict[str, Any], where: str, what: str) -> int | None:
        if "id" not in entry:
            self.note("missing-key", f"the {what} has no id", f"{where}.id")
            return None
        if not is_whole(entry["id"]):
            self.wrong(f"{where}.id", "a whole number", entry["id"])
            return None
        return entry["id"]

    # -- categories and images

    def category(self, entry: Any, where: str) -> None:
        if not isinstance(entry, dict):
            self.wrong(where, "an object", entry)
            return
        key = self.entry_id(entry, where, "category")
        name = entry.get("name")
        if name is None:
            self.note("missing-key", "the category has no name", f"{where}.name")
        elif not isinstance(name, str):
            self.wrong(f"{where}.name", "text", name)
        if key is None:
            return
        if key in self.categories:
            self.note("duplicate-category-id", f"category id {key} stands twice", f"{where}.id")
            return
        self.categories[key] = len(self.content.categories)
        self.content.categories.append(name if isinstance(name, str) else str(key))

    def image(self, entry: Any, where: str, names: dict[str, int], index: int) -> None:
        if not isinstance(entry, dict):
            self.wrong(where, "an object", entry)
            return
        key = self.entry_id(entry, where, "image")
        size = self.image_size(entry, where)
        name = entry.get("file_name")
        if "file_name" not in entry:
            self.note("missing-key", "the image has no file_name", f"{where}.file_name")
            name = None
        elif not isinstance(name, str) or not name.strip():
            self.wrong(f"{where}.file_name", "the name of a file", name)
            name = None
        elif leaves_root(name):
            self.note("path-leaves-root", f"the path {name!r} leaves the data set", f"{where}.file_name")
            name = None
        elif name in names:
            self.note("duplicate-file-name", f"{name!r} is also images[{names[name]}]", f"{where}.file_name")
        else:
            names[name] = index
        if key is None:
            return
        if key in self.known_images:
            self.note("duplicate-image-id", f"image id {key} stands twice", f"{where}.id")
            return
        self.known_images.add(key)
        if key < 0:
            self.note("id-not-counting-from-1", f"image id {key}", f"{where}.id")
        if name is None or size is None:
            return
        extra = {k: v for k, v in entry.items() if k not in IMAGE_KEYS}
        self.by_id[key] = LabelledImage(name, size, [], extra)
        self.content.images.append(self.by_id[key])

    def image_size(self, entry: dict[str, Any], where: str) -> tuple[int, int] | None:
        sides: list[int] = []
        for side in ("height", "width"):
            value: Any = entry.get(side)
            if side not in entry:
                self.note("missing-key", f"the image has no {side}", f"{where}.{side}")
            elif not is_whole(value):
                self.wrong(f"{where}.{side}", "a whole number", value)
            elif not 0 < value <= 10_000_000:
                self.note("image-bad-size", f"the {side} is {value}", f"{where}.{side}")
            else:
                sides.append(value)
        return (sides[0], sides[1]) if len(sides) == 2 else None

    # -- annotations

    def annotation(
        self,
        entry: Any,
        where: str,
        ids: dict[int, int],
        used: set[int],
        seen: dict[tuple, int],
        index: int,
    ) -> None:
        if not isinstance(entry, dict):
            self.wrong(where, "an object", entry)
            return
        before = len(self.findings.errors)
        key = self.entry_id(entry, where, "annotation")
        if key is not None:
            if key in ids:
                message = f"annotation id {key} is also that of annotations[{ids[key]}]"
                self.note("duplicate-annotation-id", message, f"{where}.id")
            ids.setdefault(key, index)
            if key == 0:
                self.note("zero-annotation-id", "annotation id 0", f"{where}.id")
            elif key < 0:
                self.note("id-not-counting-from-1", f"annotation id {key}", f"{where}.id")
        image_id = self.reference(entry, "image_id", self.known_images, "dangling-image", where)
        category = self.reference(entry, "category_id", self.categories, "dangling-category", where)
        if category is not None:
            used.add(category)
        image = self.by_id.get(image_id) if image_id is not None else None
        self.crowd(entry, where)
        box = self.box(entry, where, image)
        pixels = self.segmentation(entry, where, image, box)
        self.area(entry, where, pixels, box)
        if box is not None and image_id is not None:
            place = (image_id, category, *box)
            if place in seen:
                self.note("box-duplicate", f"the same box as annotations[{seen[place]}]", f"{where}.bbox")
            seen.setdefault(place, index)
        if len(self.findings.errors) > before or image is None or box is None or category is None:
            return
        extra = {k: v for k, v in entry.items() if k not in ANNOTATION_KEYS}
        if entry.get("iscrowd"):
            extra["iscrowd"] = 1
        area = entry.get("area")
        if pixels is not None and area != pixels.area:
            extra["area"] = area  # kept as it stands: the writer's own would be the pixels' number
        segmentation = entry.get("segmentation")
        rle = segmentation if isinstance(segmentation, dict) else None
        if rle is not None and not isinstance(rle.get("counts"), str):
            rle = None
        label = Label(box, self.categories[category], pixels, rle, extra)
        image.labels.append(label)

    def reference(self, entry: dict[str, Any], key: str, known: Any, kind: str, where: str) -> int | None:
        if key not in entry:
            self.note("missing-key", f"the annotation has no {key}", f"{where}.{key}")
            return None
        value = entry[key]
        if not is_whole(value):
            self.wrong(f"{where}.{key}", "a whole number", value)
            return None
        if value not in known:
            self.note(kind, f"{key} {value} does not exist", f"{where}.{key}")
            return None
        return value

    def crowd(self, entry: dict[str, Any], where: str) -> None:
        value = entry.get("iscrowd", 0)
        if type(value) is not int or value not in (0, 1):
            self.wrong(f"{where}.iscrowd", "0 or 1", value)
        elif value == 1:
            self.note("iscrowd", "iscrowd is 1", f"{where}.iscrowd")

    def numbers(self, values: list[Any], where: str) -> bool:
        for index, value in enumerate(values):
            if not is_number(value):
                self.wrong(f"{where}[{index}]", "a number", value)
                return False
            if not math.isfinite(value) or abs(value) > LIMIT:
                self.note("not-finite", f"{str(value)[:40]} is not a coordinate", f"{where}[{index}]")
                return False
        return True

    def box(
        self, entry: dict[str, Any], where: str, image: LabelledImage | None
    ) -> tuple[float, float, float, float] | None:
        where = f"{where}.bbox"
        if "bbox" not in entry:
            self.note("missing-key", "the annotation has no bbox", where)
            return None
        value = entry["bbox"]
        if not isinstance(value, list):
            self.wrong(where, "a list of 4 numbers", value)
            return None
        if len(value) != 4:
            self.note("wrong-type", f"a bbox of {len(value)} numbers, expected 4 (x, y, w, h)", where)
            return None
        if not self.numbers(value, where):
            return None
        x, y, w, h = (float(v) for v in value)
        if w < 0 or h < 0:
            self.note("box-negative", f"a negative side: {value}", where)
            return None
        if w == 0 or h == 0:
            self.note("box-empty", f"a box without area: {value}", where)
            return None
        if image is not None and image.size is not None:
            height, width = image.size
            if x >= width or y >= height or x + w <= 0 or y + h <= 0:
                self.note("box-outside", f"{value} lies outside the image of {width}x{height}", where)
                return None
            if x < -1e-6 or y < -1e-6 or x + w > width + 1e-6 or y + h > height + 1e-6:
                self.note("box-leaves", f"{value} leaves the image of {width}x{height}", where)
        return x, y, x + w, y + h

    def segmentation(
        self,
        entry: dict[str, Any],
        where: str,
        image: LabelledImage | None,
        box: tuple[float, float, float, float] | None,
    ) -> Instance | None:
        where = f"{where}.segmentation"
        if "segmentation" not in entry:
            self.note("segmentation-missing", "no segmentation", where)
            return None
        value = entry["segmentation"]
        if isinstance(value, dict):
            pixels = self.rle(value, where, image)
            slack = 1e-6
        elif isinstance(value, list):
            if value in ([], [[]]):
                self.note("segmentation-empty", f"an empty segmentation: {value}", where)
                return None
            if entry.get("segmentation_source") == "box" and box is not None and is_rectangle(value, box):
                return None  # made of the box: no pixels are known
            pixels = self.polygons(value, where, image)
            slack = 1.0
        else:
            self.note("segmentation-type", f"neither RLE nor polygons: {kind_of(value)}", where)
            return None
        if pixels is None or box is None:
            return None
        if any(abs(a - b) > slack for a, b in zip(pixels.box, box, strict=True)):
            x1, y1, x2, y2 = pixels.box
            message = f"the pixels' box is {[x1, y1, x2 - x1, y2 - y1]}, bbox says {entry['bbox']}"
            self.note("box-against-mask", message, where)
        return pixels

    def rle(self, value: dict[str, Any], where: str, image: LabelledImage | None) -> Instance | None:
        for key in ("size", "counts"):
            if key not in value:
                self.note("missing-key", f"the RLE has no {key}", f"{where}.{key}")
                return None
        if image is not None and image.size is not None and value["size"] != list(image.size):
            size = list(image.size)
            self.note("rle-size", f"the RLE is {str(value['size'])[:40]}, the image {size}", f"{where}.size")
            return None
        try:
            pixels = rle_to_instance(value)
        except (ValueError, OverflowError) as error:
            self.note("rle-damaged", str(error), f"{where}.counts")
            return None
        if pixels is None:
            self.note("rle-empty", "the RLE has no pixel", f"{where}.counts")
        return pixels

    def polygons(self, value: list[Any], where: str, image: LabelledImage | None) -> Instance | None:
        good = True
        for index, polygon in enumerate(value):
            here = f"{where}[{index}]"
            if not isinstance(polygon, list):
                self.note(
                    "segmentation-type", f"a polygon is a list of numbers, found {kind_of(polygon)}", here
                )
                return None
            if len(polygon) % 2:
                self.note("polygon-odd", f"{len(polygon)} numbers: coordinates come in pairs", here)
                good = False
            elif len(polygon) < 6:
                self.note("polygon-short", f"{len(polygon)} numbers: a polygon has at least 6", here)
                good = False
            elif not self.numbers(polygon, here):
                good = False
        if not good or image is None or image.size is None:
            return None
        height, width = image.size
        xs = [v for p in value for v in p[0::2]]
        ys = [v for p in value for v in p[1::2]]
        if min(xs) < -1 or min(ys) < -1 or max(xs) > width + 1 or max(ys) > height + 1:
            self.note("polygon-outside", f"the polygons leave the image of {width}x{height}", where)
            return None
        pixels = polygons_to_instance(value, image.size)
        if pixels is None:
            self.note("polygon-no-area", "the polygons cover no pixel", where)
        return pixels

    def area(
        self,
        entry: dict[str, Any],
        where: str,
        pixels: Instance | None,
        box: tuple[float, float, float, float] | None,
    ) -> None:
        where = f"{where}.area"
        if "area" not in entry:
            self.note("area-missing", "the annotation has no area", where)
            return
        value = entry["area"]
        if not is_number(value):
            self.wrong(where, "a number", value)
            return
        if not math.isfinite(value):
            self.note("not-finite", f"the area is {value}", where)
            return
        if value < 0:
            self.note("area-negative", f"the area is {value}", where)
            return
        if pixels is not None:
            # a polygon's own area differs from its pixels' number by up to half of its outline
            outline = 0.5 if isinstance(entry.get("segmentation"), dict) else sum(pixels.mask.shape) + 0.5
            if abs(value - pixels.area) > outline:
                self.note(
                    "area-against-mask", f"the area is {value}, the mask has {pixels.area} pixels", where
                )
        elif box is not None:
            full = (box[2] - box[0]) * (box[3] - box[1])
            if value > full * (1 + 1e-6) + 1e-6:
                self.note("area-against-mask", f"the area is {value}, the box has {full:g}", where)


def read_content(path: str | Path) -> CocoContent:
    """As :func:`inspect_coco`, but the first error is raised.

    Raises
    ------
    IrstkitError
        With the first error's place and the number of further ones.
    """
    from ..findings import refuse_errors

    if Path(path).is_dir():
        raise IrstkitError("is a folder, a COCO file was expected", path=path)
    content = inspect_coco(path)
    refuse_errors(content.findings, path)
    return content
