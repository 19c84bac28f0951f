"""Write pulled labels into the data set itself: its COCO file, its masks; what was there is kept beside.

Order: copies of what is replaced, masks, the COCO file, FiftyOne's labels, the baseline. Every write is whole or
not at all, and a run that was cut off is finished by running it again: it comes to the same files.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ...annotate.console import track
from ...annotate.errors import IrstkitError
from ...annotate.files import write_atomic, write_json
from ...annotate.masks import Instance, instances_to_mask
from . import changes, store
from .pull import Image, Pulled
from .sources import Annotation, has_mask, open_sources, to_instance

KEPT = ".irstkit-before"


@dataclass(frozen=True)
class Applied:
    """What was written: masks and whether the COCO file, and where the former ones are."""

    masks: int
    document: Path | None
    kept: Path | None


def check(pulled: Pulled) -> None:
    """Refuse what cannot be written into a data set of this layout.

    Raises
    ------
    IrstkitError
        When neither a COCO file nor masks hold its labels, or its folder is gone.
    """
    root = Path(pulled.source["root"])
    if not root.is_dir():
        raise IrstkitError("the data set's folder is gone", path=root)
    if pulled.source["document"] is not None:
        return
    if pulled.source["box_only"] or any(image.base.get("mask") is None for image in pulled.touched):
        raise IrstkitError(
            f"labels cannot be written into the layout {pulled.source['layout']!r}",
            path=root,
            hint="--out FILE alone writes them as COCO",
        )


def apply(dataset: Any, pulled: Pulled) -> Applied:
    """Write the touched images' labels into the data set and take the result as the new baseline."""
    check(pulled)
    source = pulled.source
    root = Path(source["root"])
    if not pulled.touched:
        return Applied(0, None, None)
    document = None if source["document"] is None else Path(source["document"])
    masks = {Path(image.base["mask"]): image for image in pulled.touched if image.base.get("mask")}
    kept = _keep(root, [*masks, *([document] if document else [])])
    for path, image in track(masks.items(), "writing masks", len(masks)):
        _write_mask(path, image)
    if document is not None:
        write_json(document, pulled.document)
    with store.database_errors("settling the labels"):
        _settle(dataset, pulled, root)
    return Applied(len(masks), document, kept)


def _keep(root: Path, files: list[Path]) -> Path:
    """Copy files to a fresh folder ``.irstkit-before/N`` of the data set."""
    number = 1
    while (root / KEPT / str(number)).exists():
        number += 1
    folder = root / KEPT / str(number)
    for file in files:
        if file.exists():
            inner = file.resolve().relative_to(root.resolve())
            target = folder / inner
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, target)
            except OSError as error:
                raise IrstkitError(f"cannot keep a copy: {error.strerror or error}", path=file) from error
    return folder


def _write_mask(path: Path, image: Image) -> None:
    assert image.sample is not None
    size = changes.size_of(image.sample)
    instances = [_pixels(annotation, size) for _, annotation in image.labels]
    mask = instances_to_mask(instances, size).astype(np.uint8) * 255
    suffix = path.suffix.lower()
    if suffix in (".jpg", ".jpeg"):
        raise IrstkitError("a mask cannot be written as JPEG", path=path, hint="use --out without --apply")
    done, data = cv2.imencode(suffix, mask)
    if not done:
        raise IrstkitError("cannot encode a mask in this format", path=path)
    write_atomic(path, data.tobytes())


def _pixels(annotation: Annotation, size: tuple[int, int]) -> Instance:
    found = to_instance(annotation["segmentation"], size) if has_mask(annotation) else None
    if found is not None:
        return found
    x, y, w, h = (round(v) for v in annotation["bbox"])
    return Instance((x, y, x + w, y + h), np.ones((h, w), dtype=bool))


def _settle(dataset: Any, pulled: Pulled, root: Path) -> None:
    """FiftyOne's labels become those that were written, and these the baseline."""
    source = next(s for s in open_sources([root]) if _same(s.document, pulled.source["document"]))
    prints = {e.key.split("/", 1)[1]: e for e in source.entries}
    collection = store.samples(dataset)
    bases = []
    for image in pulled.touched:
        assert image.sample is not None
        size = changes.size_of(image.sample)
        entry = prints[image.sample["record_id"]]
        places = [p for p, _ in image.labels]
        if entry.annotations is not None:
            ids = {a.get("id"): p for p, a in zip(entry.positions, entry.annotations, strict=True)}
            places = [ids[a["id"]] for _, a in image.labels]
        else:
            places = list(range(len(image.labels)))
        stored, states = [], []
        for place, (state, instance, box), (_, annotation) in zip(
            places, image.written, image.labels, strict=True
        ):
            detection = dict(state.stored)
            x1, y1, x2, y2 = box
            if state.touched:
                detection["bounding_box"] = [
                    x1 / size[1], y1 / size[0], (x2 - x1) / size[1], (y2 - y1) / size[0],
                ]  # fmt: skip
                if instance is not None:
                    detection["mask"] = store.pack(instance.mask)
                detection["area"] = float(annotation["area"])
                detection["side"] = float(min(x2 - x1, y2 - y1))
            stored.append(detection)
            kept = annotation
            if entry.annotations is None:
                kept = {k: v for k, v in annotation.items() if k not in ("id", "image_id")}
            states.append(
                {
                    "id": str(detection["_id"]), "pos": place, "json": json.dumps(kept, ensure_ascii=False),
                    "box": list(detection["bounding_box"]),
                    "mask": store.hash_mask(store.unpack(detection.get("mask"))),
                    "bytes": store.hash_bytes(detection.get("mask")),
                    "attrs": {k: v for k, v in changes._attributes(detection).items() if v is not None},
                    "tags": list(detection.get("tags") or []),
                }
            )  # fmt: skip
        collection.update_one(
            {"_id": image.sample["_id"]},
            {
                "$set": {f"{store.FIELD}.detections": stored, "targets": len(stored)},
                "$currentDate": {"last_modified_at": True},
            },
        )
        bases.append({**image.base, "fp": entry.fingerprint(), "at": entry.place(), "labels": states})
    store.put_all(store.baseline(dataset), bases)
    store.reposition(store.baseline(dataset), pulled.source["name"], source.entries)


def _same(document: Path | None, stored: str | None) -> bool:
    return (None if document is None else str(document)) == stored
