"""Repairs of a COCO file that need no guess; everything else is left as it stands."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ..errors import IrstkitError
from ..files import inside, read_header, write_json
from ..labels import ReadOptions
from ..rle import rle_to_instance
from .coco_load import load_coco
from .numbers import number

Repairs = list[str]
_INTEGERS = ("id", "image_id", "category_id", "width", "height", "iscrowd")


def fix(path: Path, out: Path, options: ReadOptions) -> Repairs:
    """Write a repaired copy and say what was done.

    Raises
    ------
    IrstkitError
        When the file is not JSON, or a key stands twice in an object (which value is meant?).
    """
    document, findings = load_coco(path)
    if document is None or findings:
        first = findings[0]
        raise IrstkitError(f"cannot be repaired: {first.message}", path=path, where=first.where)
    repairs: Repairs = []
    _numbers(document, repairs)
    images = {i["id"]: i for i in _objects(document, "images") if type(i.get("id")) is int}
    _sizes(document, Path(path).parent, options, repairs)
    for index, entry in _indexed(document, "annotations"):
        _annotation(entry, f"annotations[{index}]", images.get(_id(entry.get("image_id"))), repairs)
    _twice(document, repairs)
    _ids(document, repairs)
    write_json(out, document)
    return repairs


def _objects(document: dict[str, Any], key: str) -> list[dict[str, Any]]:
    return [entry for _, entry in _indexed(document, key)]


def _indexed(document: dict[str, Any], key: str) -> list[tuple[int, dict[str, Any]]]:
    values = document.get(key)
    return [(k, v) for k, v in enumerate(values) if isinstance(v, dict)] if isinstance(values, list) else []


def _id(value: Any) -> int | None:
    return value if type(value) is int else None


def _numbers(document: dict[str, Any], repairs: Repairs) -> None:
    """Numbers written as text, whole numbers written with a fraction, true and false for 1 and 0."""

    def better(key: str, value: Any) -> Any:
        if isinstance(value, str):
            read = number(value.strip())
            value = value if read is None else read
        elif isinstance(value, bool) and key == "iscrowd":
            value = int(value)
        if key in _INTEGERS and isinstance(value, float) and math.isfinite(value) and value == int(value):
            return int(value)
        return value

    for part in ("images", "annotations", "categories"):
        for index, entry in _indexed(document, part):
            for key in (*_INTEGERS, "area"):
                if key in entry and (new := better(key, entry[key])) is not entry[key]:
                    repairs.append(f"{part}[{index}].{key}: {entry[key]!r} is now the number {new!r}")
                    entry[key] = new
            box = entry.get("bbox")
            if isinstance(box, list) and any(isinstance(v, str) for v in box):
                new_box = [better("bbox", v) for v in box]
                if new_box != box:
                    repairs.append(f"{part}[{index}].bbox: {box} is now {new_box}")
                    entry["bbox"] = new_box


def _sizes(document: dict[str, Any], folder: Path, options: ReadOptions, repairs: Repairs) -> None:
    """Missing width and height, from the image file where it is at hand."""
    roots = [options.images] if options.images is not None else [folder, folder / "images"]
    for index, entry in _indexed(document, "images"):
        if ("width" in entry and "height" in entry) or not isinstance(entry.get("file_name"), str):
            continue
        for root in roots:
            try:
                header = read_header(inside(root, entry["file_name"]))
            except IrstkitError:
                continue
            entry["width"], entry["height"] = header.width, header.height
            repairs.append(f"images[{index}]: size {header.width}x{header.height} taken from the file")
            break


def _good_box(value: Any) -> bool:
    numbers = isinstance(value, list) and len(value) == 4 and all(type(v) in (int, float) for v in value)
    return numbers and all(math.isfinite(v) for v in value) and value[2] > 0 and value[3] > 0


def _annotation(entry: dict[str, Any], where: str, image: dict[str, Any] | None, repairs: Repairs) -> None:
    if "iscrowd" not in entry:
        entry["iscrowd"] = 0
        repairs.append(f"{where}.iscrowd: 0 added")
    segmentation = entry.get("segmentation")
    pixels = None
    if isinstance(segmentation, dict):
        try:
            pixels = rle_to_instance(segmentation)
        except (ValueError, OverflowError):
            return
        if pixels is None:
            return
        x1, y1, x2, y2 = pixels.box
        if "bbox" not in entry:
            entry["bbox"] = [x1, y1, x2 - x1, y2 - y1]
            repairs.append(f"{where}.bbox: {entry['bbox']} taken from the mask")
        if entry.get("area") != pixels.area:
            repairs.append(f"{where}.area: {entry.get('area', 'missing')} is now the mask's {pixels.area}")
            entry["area"] = pixels.area
        return
    if not _good_box(entry.get("bbox")):
        return
    derived = entry.get("segmentation_source") == "box" or segmentation in (None, [], [[]])
    if not derived:
        return
    clipped = _clip(entry["bbox"], image)
    if clipped is not None and clipped != entry["bbox"]:
        repairs.append(f"{where}.bbox: {entry['bbox']} is clipped to the image: {clipped}")
        entry["bbox"] = clipped
        entry["area"] = clipped[2] * clipped[3]
    x, y, w, h = entry["bbox"]
    rectangle = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    if segmentation != rectangle:
        entry["segmentation"] = rectangle
        entry["segmentation_source"] = "box"
        repairs.append(f"{where}.segmentation: the box's rectangle, marked segmentation_source = box")
    if "area" not in entry:
        entry["area"] = w * h
        repairs.append(f"{where}.area: {w * h} taken from the box")


def _clip(box: list[float], image: dict[str, Any] | None) -> list[float] | None:
    """The part of a box inside its image, None when there is none or the image's size is unknown."""
    if image is None or any(type(image.get(k)) is not int or image[k] <= 0 for k in ("width", "height")):
        return None
    x, y, w, h = box
    x1, y1 = max(x, 0), max(y, 0)
    x2, y2 = min(x + w, image["width"]), min(y + h, image["height"])
    if (x1, y1, x2, y2) == (x, y, x + w, y + h):
        return box
    return [x1, y1, x2 - x1, y2 - y1] if x2 > x1 and y2 > y1 else None


def _twice(document: dict[str, Any], repairs: Repairs) -> None:
    """Annotations that repeat an earlier one in everything but the id."""
    if not isinstance(document.get("annotations"), list):
        return
    seen: dict[str, int] = {}
    kept = []
    for index, entry in enumerate(document["annotations"]):
        if isinstance(entry, dict):
            text = json.dumps({k: v for k, v in entry.items() if k != "id"}, sort_keys=True)
            if text in seen:
                repairs.append(f"annotations[{index}]: removed, it repeats annotations[{seen[text]}]")
                continue
            seen[text] = index
        kept.append(entry)
    document["annotations"] = kept


def _ids(document: dict[str, Any], repairs: Repairs) -> None:
    """New ids above the largest for annotations whose id is missing, zero, negative or taken."""
    entries = _objects(document, "annotations")
    known = [e["id"] for e in entries if type(e.get("id")) is int]
    fresh = max([0, *known]) + 1
    taken: set[int] = set()
    for entry in entries:
        key = entry.get("id")
        usable = type(key) is int and key > 0 and key not in taken
        if not usable and (key is None or type(key) is int):
            entry["id"], key = fresh, fresh
            fresh += 1
            repairs.append(f"an annotation of image {entry.get('image_id')} has the new id {key}")
        if type(key) is int:
            taken.add(key)
