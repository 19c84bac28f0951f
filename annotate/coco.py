"""COCO files: the one interchange format.

A COCO file is kept as the plain JSON it is, so that keys which irstkit does not know survive a round trip.
Ids count from 1 (the COCO matcher treats annotation 0 as unmatched), the one category is 1 ``target``,
``iscrowd`` is 0, every image has an entry whether it has targets or not, ``area`` is the number of pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .errors import IrstkitError
from .files import read_json, write_json
from .masks import Instance
from .rle import encode_instance

CATEGORY = {"id": 1, "name": "target", "supercategory": "target"}


def new_coco(**info: Any) -> dict[str, Any]:
    """An empty COCO document; ``info`` goes into its ``info`` part (no date: same input, same bytes)."""
    return {"info": info, "licenses": [], "images": [], "annotations": [], "categories": [dict(CATEGORY)]}


def add_image(coco: dict[str, Any], file_name: str, size: tuple[int, int], **extra: Any) -> int:
    """Append an image of (height, width) and return its id (from 1)."""
    image_id = len(coco["images"]) + 1
    coco["images"].append(
        {"id": image_id, "file_name": file_name, "width": int(size[1]), "height": int(size[0]), **extra}
    )
    return image_id


def add_instance(
    coco: dict[str, Any], image_id: int, instance: Instance, size: tuple[int, int], **extra: Any
) -> int:
    """Append an annotation with RLE, pixel area and half-open box; return its id (from 1)."""
    x1, y1, x2, y2 = instance.box
    annotation_id = len(coco["annotations"]) + 1
    coco["annotations"].append(
        {
            "id": annotation_id,
            "image_id": image_id,
            "category_id": 1,
            "iscrowd": 0,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": instance.area,
            "segmentation": encode_instance(instance, size),
            **extra,
        }
    )
    return annotation_id


def add_box(coco: dict[str, Any], image_id: int, box: Iterable[float], **extra: Any) -> int:
    """Append a box-only annotation: its segmentation is the half-open rectangle, marked as derived."""
    x1, y1, x2, y2 = (float(v) for v in box)
    annotation_id = len(coco["annotations"]) + 1
    coco["annotations"].append(
        {
            "id": annotation_id,
            "image_id": image_id,
            "category_id": 1,
            "iscrowd": 0,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1),
            "segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]],
            "segmentation_source": "box",
            **extra,
        }
    )
    return annotation_id


def read_coco(path: str | Path) -> dict[str, Any]:
    """Read a COCO file and check its frame: an object with the lists ``images`` and ``annotations``."""
    coco = read_json(path)
    if not isinstance(coco, dict):
        raise IrstkitError(f"expected a JSON object, found {type(coco).__name__}", path=path, where="$")
    for key in ("images", "annotations"):
        if not isinstance(coco.get(key), list):
            raise IrstkitError(f"the list {key!r} is missing", path=path, where=f"$.{key}")
    return coco


def write_coco(path: str | Path, coco: dict[str, Any]) -> None:
    """Write a COCO document atomically."""
    write_json(path, coco)
