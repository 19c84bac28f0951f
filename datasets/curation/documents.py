"""COCO documents from images and labels, with the ids and the order of the file they came from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .sources import Annotation, ImageEntry, Source, labels_of

Placed = tuple[int | None, Annotation]
"""(place among the annotations of the original file or image, None for a new one; annotation)."""


@dataclass
class Assembly:
    """Collects images in order and writes the document.

    ``numbered``: the images bring their ids (they come from a COCO file); else ids are given from 1.
    """

    head: dict[str, Any]
    numbered: bool
    images: list[ImageEntry] = field(default_factory=list)
    old: list[tuple[int, Annotation]] = field(default_factory=list)
    new: list[Annotation] = field(default_factory=list)

    def add(self, image: ImageEntry, labels: Iterable[Placed]) -> list[Annotation]:
        """Append an image with its labels; returns the annotations as they will be written (ids may follow)."""
        if not self.numbered:
            image = {"id": len(self.images) + 1, **image}
        self.images.append(image)
        out = []
        for place, annotation in labels:
            if self.numbered:
                if place is None:
                    annotation = {"image_id": image["id"], **annotation}
                    self.new.append(annotation)
                else:
                    self.old.append((place, annotation))
            else:
                number = len(self.old) + 1
                annotation = {"id": number, "image_id": image["id"], **annotation}
                self.old.append((number, annotation))
            out.append(annotation)
        return out

    def document(self) -> dict[str, Any]:
        """The COCO document: original labels in their order, new ones behind them with ids of their own."""
        kept = [annotation for _, annotation in sorted(self.old, key=lambda row: row[0])]
        highest = max((a["id"] for a in kept if type(a.get("id")) is int), default=0)
        for number, annotation in enumerate(self.new, start=highest + 1):
            annotation["id"] = number
        document = dict(self.head)
        new = [{"id": a["id"], **{k: v for k, v in a.items() if k != "id"}} for a in self.new]
        document["images"], document["annotations"] = self.images, kept + new
        document.setdefault("categories", [])
        return document


def as_document(source: Source) -> dict[str, Any]:
    """What a source's labels are as COCO: its file's own entries, or those made from its masks or boxes."""
    assembly = Assembly(source.head, source.document is not None)
    for entry in source.entries:
        if entry.annotations is not None:
            assembly.add(entry.image, zip(entry.positions, entry.annotations, strict=True))
        elif entry.record is not None:
            found = labels_of(entry, source.root)
            assembly.add(entry.image, ((label.position, label.annotation) for label in found))
    return assembly.document()
