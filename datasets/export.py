"""Data sets in the layouts that detectors are trained from: COCO, YOLO, VOC, SSTNet lists, masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..annotate.boxes import Boxes, as_boxes
from ..annotate.coco import add_box, add_image, add_instance, new_coco, write_coco
from ..annotate.console import track
from ..annotate.decode import check_bytes
from ..annotate.errors import IrstkitError
from ..annotate.files import atomic_folder, encode_png, read_bytes
from ..annotate.formats.list_files import list_text
from ..annotate.formats.voc_files import voc_text
from ..annotate.formats.yolo_files import yolo_text
from ..annotate.masks import instances_to_mask
from .records import Dataset, Record
from .targets import Target, targets_of
from .write import ordered

FORMATS = ("coco", "yolo", "voc", "sstnet", "masks")
IMAGES = ("copy", "png", "none")


@dataclass
class Exported:
    """Counts of an export."""

    images: int = 0
    targets: int = 0
    parts: int = 0


def export_dataset(
    dataset: Dataset,
    out: str | Path,
    kind: str,
    *,
    scheme: str | None = None,
    images: str = "copy",
    digits: int = 6,
    overwrite: bool = False,
) -> Exported:
    """Write a data set in another layout, all of it or nothing.

    ``coco``: ``annotations/instances_PART.json`` and ``images/``; ``yolo``: ``images/PART``, ``labels/PART`` and
    ``data.yaml``; ``voc``: ``images/``, ``annotations/*.xml`` (1-based inclusive), ``splits/PART.txt``; ``sstnet``:
    ``images/`` and ``coco_PART_NAME.txt`` whose paths are relative; ``masks``: ``images/`` and ``masks/``.

    Parameters
    ----------
    scheme
        The split scheme whose parts are written apart (default: the data set's own); images in none of its
        parts are left out. Without any scheme everything is the part ``all``.
    images
        ``copy``: the files as they are; ``png``: gray PNGs; ``none``: labels only.
    digits
        Decimals of YOLO's fractions (6 is customary, 10 is exact to 1e-6 px).

    Raises
    ------
    IrstkitError
        When an image is not labelled, has boxes alone where masks are asked for, or ``out`` holds something.
    """
    if kind not in FORMATS or images not in IMAGES:
        raise IrstkitError(f"formats are {', '.join(FORMATS)}; images {', '.join(IMAGES)}")
    scheme = scheme or dataset.default_scheme
    if scheme is not None and scheme not in dataset.schemes():
        known = ", ".join(dataset.schemes()) or "none"
        raise IrstkitError(f"no split scheme {scheme!r} here", path=dataset.root, hint=f"there are: {known}")
    chosen = [r for r in dataset.records if scheme is None or scheme in r.splits]
    dataset.require_clean(chosen)
    parts: dict[str, list[Record]] = {}
    for record in chosen:
        parts.setdefault("all" if scheme is None else record.splits[scheme], []).append(record)
    done = Exported(parts=len(parts))
    with atomic_folder(out, overwrite=overwrite) as folder:
        for part, records in parts.items():
            writer = _Writer(folder, kind, part, "" if kind != "yolo" else f"{part}/", images, digits)
            rows = ordered(targets_of, records)
            for record, targets in zip(records, track(rows, f"writing {part}", len(records)), strict=True):
                if targets is None:
                    raise IrstkitError("not labelled: there is nothing to export", path=record.image)
                writer.add(record, targets)
                done.images += 1
                done.targets += len(targets)
            writer.close(dataset.root.resolve().name)
        if kind == "yolo":
            (folder / "data.yaml").write_text(_yolo_yaml(list(parts)), encoding="utf-8")
    return done


class _Writer:
    """One part of an export."""

    def __init__(self, folder: Path, kind: str, part: str, prefix: str, images: str, digits: int) -> None:
        self.folder, self.kind, self.part, self.prefix = folder, kind, part, prefix
        self.images, self.digits = images, digits
        self.coco = new_coco(made_by="irstkit data export")
        self.rows: list[tuple[str, Boxes, list[int]]] = []
        self.ids: list[str] = []

    def add(self, record: Record, targets: Sequence[Target]) -> None:
        name = record.id.removeprefix("images/")
        suffix = ".png" if self.images == "png" else record.suffix
        self._image(record, self.folder / "images" / f"{self.prefix}{name}{suffix}")
        boxes = as_boxes([t.box for t in targets])
        self.ids.append(name)
        if self.kind == "coco":
            self._coco(record, f"{name}{suffix}", targets)
        elif self.kind == "yolo":
            self._text(f"labels/{self.prefix}{name}.txt", yolo_text(boxes, record.size, digits=self.digits))
        elif self.kind == "voc":
            self._text(f"annotations/{name}.xml", voc_text(f"{name}{suffix}", record.size, boxes))
        elif self.kind == "sstnet":
            self.rows.append((f"images/{name}{suffix}", boxes, [0] * len(boxes)))
        else:
            self._mask(record, name, targets)

    def _coco(self, record: Record, file_name: str, targets: Sequence[Target]) -> None:
        extra: dict[str, Any] = {"source": record.source}
        for key in ("sequence", "frame", "scene"):
            if getattr(record, key) is not None:
                extra[key] = getattr(record, key)
        image_id = add_image(self.coco, file_name, record.size, **extra)
        for target in targets:
            if target.instance is None:
                add_box(self.coco, image_id, target.box, **target.extra)
            else:
                add_instance(self.coco, image_id, target.instance, record.size, **target.extra)

    def _mask(self, record: Record, name: str, targets: Sequence[Target]) -> None:
        instances = [t.instance for t in targets if t.instance is not None]
        if len(instances) < len(targets):
            raise IrstkitError("has boxes alone: there is no mask to write", path=record.image)
        path = self.folder / "masks" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(instances_to_mask(instances, record.size).astype(np.uint8) * 255))

    def _image(self, record: Record, path: Path) -> None:
        if self.images == "none":
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.images == "copy" and record.video_frame is None:
            data = read_bytes(record.image)
            check_bytes(data, record.image)
            path.write_bytes(data)
        else:
            path.write_bytes(encode_png(record.read_image()))

    def _text(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")

    def close(self, name: str) -> None:
        if self.kind == "coco":
            write_coco(self.folder / "annotations" / f"instances_{self.part}.json", self.coco)
        elif self.kind == "sstnet":
            self._text(f"coco_{self.part}_{name}.txt", list_text(self.rows))
        if self.kind in ("voc", "masks", "sstnet") and self.part != "all":
            self._text(f"splits/export/{self.part}.txt", "".join(f"{id}\n" for id in self.ids))


def _yolo_yaml(parts: list[str]) -> str:
    lines = ["# paths relative to this file", "path: .", *(f"{part}: images/{part}" for part in parts)]
    if "val" not in parts:  # trainers insist on one
        lines.append(f"val: images/{'test' if 'test' in parts else parts[0]}")
    return "\n".join([*lines, "nc: 1", "names: ['target']", ""])
