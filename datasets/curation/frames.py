"""Stored samples with the pixels of their labels, for whoever edits or judges them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ...annotate.files import GrayImage, read_image
from ...annotate.masks import Instance
from ...annotate.scr import measure_contrast
from . import changes, pixels, store


def find_samples(
    dataset: Any, labels: Iterable[str], name: str = store.FIELD
) -> list[tuple[dict, list[dict]]]:
    """``(sample, its labels among these ids)``, as stored, in the data set's order."""
    from bson import ObjectId

    wanted = {ObjectId(i) for i in labels}
    rows = store.samples(dataset).find({f"{name}.detections._id": {"$in": list(wanted)}}).sort("_id", 1)
    return [(row, [d for d in row[name]["detections"] if d["_id"] in wanted]) for row in rows]


class Frame:
    """The image of a sample and the pixels of its labels."""

    def __init__(self, sample: dict[str, Any]) -> None:
        self.sample, self.size = sample, changes.size_of(sample)
        self._image: GrayImage | None = None

    @property
    def image(self) -> GrayImage:
        """Read when it is asked for."""
        if self._image is None:
            self._image = read_image(Path(self.sample["filepath"]))
        return self._image

    def instance(self, label: dict[str, Any]) -> Instance | None:
        """A label's mask on whole pixels."""
        mask = store.unpack(label.get("mask"))
        box = changes.pixel_box(label["bounding_box"], self.size)
        return None if mask is None else pixels.snap_mask(mask, box, self.size)

    def others(self, *labels: dict[str, Any]) -> list[Instance]:
        """The pixels of the sample's other labels."""
        ids = {label["_id"] for label in labels}
        found = (self.instance(d) for d in changes.detections(self.sample) if d["_id"] not in ids)
        return [instance for instance in found if instance is not None]

    def with_mask(
        self, label: dict[str, Any], instance: Instance, *, keep_mask: bool = True
    ) -> dict[str, Any]:
        """A label with these pixels, and what follows from them."""
        x1, y1, x2, y2 = instance.box
        height, width = self.size
        contrast = measure_contrast(self.image, [instance, *self.others(label)])[0].scr
        new = {
            **label,
            "bounding_box": [x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height],
            "area": float(instance.area), "side": float(min(x2 - x1, y2 - y1)),
            "scr": None if contrast is None else abs(contrast),
            "at_border": x1 <= 0 or y1 <= 0 or x2 >= width or y2 >= height,
        }  # fmt: skip
        if keep_mask:
            new["mask"] = store.pack(instance.mask)
        return new


def rectangle(box: tuple[int, int, int, int]) -> Instance:
    """All pixels of a box."""
    return Instance(box, np.ones((box[3] - box[1], box[2] - box[0]), dtype=bool))
