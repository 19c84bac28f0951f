"""Bring labels back from FiftyOne as COCO: what nobody touched as it was, what somebody did on whole pixels."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...annotate.console import track
from ...annotate.errors import IrstkitError
from ...annotate.files import GrayImage, read_image
from ...annotate.masks import Instance
from ...annotate.scr import DEFAULT_RING, measure_contrast
from . import changes, store
from .changes import LabelState
from .documents import Assembly
from .fields import with_attribute
from .pixels import Box, cover_box, grow, move, round_half_up, snap_box, snap_mask
from .sources import Annotation, box_annotation, mask_annotation

KINDS = {
    "added": "new labels",
    "moved": "moved with their masks",
    "redrawn": "boxes drawn anew",
    "painted": "masks painted",
    "attributes": "attributes or tags changed",
    "deleted": "deleted",
}


@dataclass
class Change:
    """One label that is not what was pushed: ``label`` is its FiftyOne id."""

    kind: str
    image: str
    label: str
    was: list[float] | None = None
    now: list[float] | None = None
    note: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON: every field that is set."""
        return {k: v for k, v in vars(self).items() if v is not None}


@dataclass
class Image:
    """One image on its way out: what was pushed, what is stored, and the labels to write."""

    base: dict[str, Any]
    sample: dict[str, Any] | None
    entry: dict[str, Any]
    labels: list[tuple[int | None, Annotation]]
    changes: list[Change] = field(default_factory=list)
    written: list[tuple[LabelState, Instance | None, Box]] = field(default_factory=list)


@dataclass
class Pulled:
    """The document of one source and what is different in it."""

    source: dict[str, Any]
    document: dict[str, Any]
    touched: list[Image]
    images: int = 0
    untouched: int = 0
    missing: int = 0

    def changes(self) -> list[Change]:
        """Every label that was added, changed or deleted, in the order of the images."""
        return [change for image in self.touched for change in image.changes]

    def summary(self) -> dict[str, Any]:
        """For JSON."""
        counts = Counter(c.kind for c in self.changes())
        return {
            "set": self.source["name"],
            "images": self.images,
            "labels": len(self.document["annotations"]),
            "untouched": self.untouched,
            **{kind: counts.get(kind, 0) for kind in KINDS},
            "images_not_in_fiftyone": self.missing,
            "changes": [c.as_dict() for c in self.changes()],
        }

    def lines(self) -> list[str]:
        """For people."""
        found = self.summary()
        told = [f"{found[k]} {text}" for k, text in KINDS.items() if found[k]]
        out = [
            f"{found['set']}: {found['images']} images, {found['labels']} labels; "
            f"{found['untouched']} labels untouched" + (", " + ", ".join(told) if told else "")
        ]
        notes = Counter(c.note for c in self.changes() if c.note)
        out += [f"  {count} of them: {text}" for text, count in sorted(notes.items())]
        if self.missing:
            out.append(f"  {self.missing} images are not in FiftyOne any more: written as they were pushed")
        return out


def pull(name: str, *, only: str | None = None) -> tuple[Any, list[Pulled]]:
    """The labels of the data set ``name`` as COCO documents, one a source (``only``: the source of this name).

    Raises
    ------
    IrstkitError
        When there is no such data set or source, its last push did not finish, an image that is needed cannot
        be read, or the database is lost.
    """
    with store.database_errors("pulling"):
        dataset = store.open_curated(name)
        info = dataset.info[store.INFO]
        if not info.get("complete"):
            raise IrstkitError(
                f"the last push of {name!r} did not finish", hint="run its 'irstkit data curate' again first"
            )
        if only is not None and only not in info["sources"]:
            raise IrstkitError(f"no source {only!r}", hint=f"there are: {', '.join(info['sources'])}")
        chosen = [s for n, s in info["sources"].items() if only in (None, n)]
        return dataset, [_pull_source(dataset, source) for source in chosen]


def _pull_source(dataset: Any, source: dict[str, Any]) -> Pulled:
    rows = store.samples(dataset).find(
        {"set_name": source["name"]}, {store.FIELD: 1, "metadata": 1, "filepath": 1, "record_id": 1}
    )
    found = {f"{source['name']}/{row['record_id']}": row for row in rows}
    bases = list(store.baseline(dataset).find({"set": source["name"]}, {"thumb": 0}).sort("order", 1))
    result = Pulled(source, {}, [])
    assembly = Assembly(json.loads(source["head"]), source["document"] is not None)
    aside = store.masks_aside(dataset)
    for base in track(bases, f"pulling {source['name']}"):
        image = pull_image(base, found.get(base["_id"]), box_only=source["box_only"], aside=aside)
        assembly_labels = assembly.add(image.entry, image.labels)
        image.labels = [(p, a) for (p, _), a in zip(image.labels, assembly_labels, strict=True)]
        result.images += 1
        result.missing += image.sample is None and not base.get("unused")
        changed = {c.label for c in image.changes}
        result.untouched += len(image.labels) - len(
            changed - {c.label for c in image.changes if c.kind == "deleted"}
        )
        if image.changes:
            result.touched.append(image)
    result.document = assembly.document()
    return result


def pull_image(
    base: dict[str, Any],
    sample: dict[str, Any] | None,
    *,
    box_only: bool,
    aside: Mapping[Any, dict[str, Any]] = changes.NONE_ASIDE,
) -> Image:
    """The labels of one image as annotations."""
    entry = json.loads(base["image"])
    as_pushed = [(label["pos"], json.loads(label["json"])) for label in base["labels"]]
    if sample is None:
        return Image(base, None, entry, as_pushed)
    states, deleted = changes.label_states(base, sample, aside)
    image = Image(base, sample, entry, [])
    name = base["_id"]
    if not deleted and not any(state.touched for state in states):
        image.labels = as_pushed
        image.written = [(state, None, state.box) for state in states]
        return image
    shapes = _Shapes(sample, states)
    ordered = sorted(enumerate(states), key=lambda row: _place(row[1], row[0]))
    for _, state in ordered:
        annotation, instance, box = _write(state, shapes, image, name, box_only)
        if annotation is not None:
            image.labels.append((None if state.base is None else state.base["pos"], annotation))
            image.written.append((state, instance, box))
    image.changes += [
        Change("deleted", name, label["id"], was=_rounded(changes.pixel_box(label["box"], shapes.size)))
        for label in deleted
    ]
    _remeasure(image, shapes)
    return image


def _place(state: LabelState, index: int) -> tuple[int, int]:
    return (0, state.base["pos"]) if state.base is not None else (1, index)


class _Shapes:
    """The image and the pixels of its labels, read when they are asked for."""

    def __init__(self, sample: dict[str, Any], states: list[LabelState]) -> None:
        self.size = changes.size_of(sample)
        self._path = Path(sample["filepath"])
        self._states = states
        self._image: GrayImage | None = None

    @property
    def image(self) -> GrayImage:
        if self._image is None:
            self._image = read_image(self._path)
            if self._image.shape != self.size:
                raise IrstkitError("the image has another size than when it was pushed", path=self._path)
        return self._image

    def instance(self, state: LabelState) -> Instance | None:
        """What is stored as its mask, on whole pixels."""
        mask = store.unpack(state.stored.get("mask"))
        return None if mask is None else snap_mask(mask, state.box, self.size)

    def others(self, state: LabelState) -> list[Instance]:
        """The pixels of all other labels whose masks lie where they were painted."""
        found = (self.instance(s) for s in self._states if s is not state and not s.resized)
        return [instance for instance in found if instance is not None]


def _write(
    state: LabelState, shapes: _Shapes, image: Image, name: str, box_only: bool
) -> tuple[Annotation | None, Instance | None, Box]:
    """(annotation, pixels where they are new, box where it is); None when the label is outside the image."""
    label = str(state.stored["_id"])
    annotation = {} if state.base is None else json.loads(state.base["json"])
    was = None if state.base is None else _rounded(changes.pixel_box(state.base["box"], shapes.size))
    done: list[Change] = []
    instance: Instance | None = None
    box = state.box
    has_mask = state.stored.get("mask") is not None or state.regrow
    told: str | None = None
    kind = ""
    if state.base is None:
        kind = "added"
    elif state.painted:
        kind = "painted"
    elif state.resized:
        kind = "redrawn"
    elif state.moved:
        kind = "moved"
    if kind and cover_box(box, shapes.size) is None:
        image.changes.append(Change("deleted", name, label, was, None, "drawn outside the image: left out"))
        return None, None, box
    drawn = False
    if kind in ("added", "painted") and has_mask and not state.regrow:
        instance = shapes.instance(state)
        if instance is None and kind == "painted":
            image.changes.append(
                Change("deleted", name, label, was, None, "every pixel of its mask was erased")
            )
            return None, None, box
    elif kind == "moved" and has_mask:
        assert state.base is not None
        old = changes.pixel_box(state.base["box"], shapes.size)
        dx, dy = round_half_up(box[0] - old[0]), round_half_up(box[1] - old[1])
        if (dx, dy) == (0, 0):
            kind = ""
            box = old
        else:
            before = snap_mask(store.unpack(state.stored["mask"]), old, shapes.size)  # type: ignore[arg-type]
            instance = None if before is None else move(before, dx, dy, shapes.size)
            for key, step in (("x", dx), ("y", dy)):
                _shift_attribute(annotation, key, step)
    elif kind in ("added", "redrawn") and not box_only and (state.base is None or has_mask):
        instance = grow(shapes.image, box, others=shapes.others(state))
        drawn = instance is not None
    if kind and instance is None and not (box_only or (state.base is not None and not has_mask)):
        told = "no target could be grown in the box: its rectangle is written"
    if kind and instance is not None:
        annotation = _merged(annotation, mask_annotation(instance, shapes.size))
        annotation.pop("segmentation_source", None)
        if drawn:
            with_attribute(annotation, "drawn_box", _xywh(box))
        x1, y1, x2, y2 = instance.box
        box = (float(x1), float(y1), float(x2), float(y2))
        if kind != "moved" and state.base is not None:
            _centre_attributes(annotation, instance)
    elif kind:
        box = _inside(box, shapes.size)
        if told is not None:
            a, b, c, d = snap_box(box, shapes.size)
            box = (float(a), float(b), float(c), float(d))
        annotation = _merged(annotation, box_annotation(box))
    if kind:
        done.append(Change(kind, name, label, was, _rounded(box), told))
    changed = False
    for field_name, value in sorted(state.attributes.items()):
        with_attribute(annotation, field_name, value)
        changed = True
    if state.tags is not None:
        with_attribute(annotation, "tags", list(state.tags) or None)
        changed = True
    if changed and not kind:
        done.append(
            Change("attributes", name, label, was, was, ", ".join(sorted(state.attributes)) or "tags")
        )
    image.changes += done
    return annotation, instance, box


def _merged(old: Annotation, new: Annotation) -> Annotation:
    """The geometry of ``new`` in ``old``, whose other keys stay."""
    geometry = ("bbox", "area", "segmentation", "segmentation_source")
    if not old:
        return dict(new)
    return {**old, **{k: new[k] for k in geometry if k in new}}


def _inside(box: Box, size: tuple[int, int]) -> Box:
    return max(box[0], 0.0), max(box[1], 0.0), min(box[2], float(size[1])), min(box[3], float(size[0]))


def _xywh(box: Box) -> list[float]:
    return [round(v, 6) for v in (box[0], box[1], box[2] - box[0], box[3] - box[1])]


def _rounded(box: Box) -> list[float]:
    return [round(v, 3) for v in box]


def _shift_attribute(annotation: Annotation, key: str, step: int) -> None:
    known = annotation.get("attributes")
    if isinstance(known, dict) and isinstance(known.get(key), (int, float)):
        annotation["attributes"] = {**known, key: known[key] + step}


def _centre_attributes(annotation: Annotation, instance: Instance) -> None:
    known = annotation.get("attributes")
    if isinstance(known, dict) and {"x", "y"} <= known.keys():
        x, y = instance.centroid
        annotation["attributes"] = {**known, "x": round(x, 6), "y": round(y, 6)}


def _remeasure(image: Image, shapes: _Shapes) -> None:
    """``scr_achieved`` of labels whose pixels are other ones now, where it was written."""
    stale = []
    for k, (_, annotation) in enumerate(image.labels):
        known = annotation.get("attributes")
        if image.written[k][1] is not None and isinstance(known, dict) and "scr_achieved" in known:
            stale.append(k)
    if not stale:
        return
    instances = []
    for state, instance, box in image.written:
        found = instance or shapes.instance(state)
        if found is None:
            a, b, c, d = snap_box(box, shapes.size)
            found = Instance((a, b, c, d), _ones(d - b, c - a))
        instances.append(found)
    for k in stale:
        annotation = image.labels[k][1]
        asked = annotation["attributes"].get("scr_ring")
        ring = asked if isinstance(asked, int) else DEFAULT_RING
        row = measure_contrast(shapes.image, instances, ring=ring)[k]
        achieved = None if row.scr is None else round(abs(row.scr), 6)
        annotation["attributes"] = {
            **annotation["attributes"],
            "scr_achieved": achieved,
            "scr_status": "edited",
        }


def _ones(height: int, width: int) -> Any:
    import numpy as np

    return np.ones((height, width), dtype=bool)


def out_files(out: Path, pulled: list[Pulled]) -> Iterator[tuple[Path, Pulled]]:
    """``out`` itself for one source; for several ``STEM-SOURCE.json`` beside it."""
    for one in pulled:
        if len(pulled) == 1:
            yield out, one
        else:
            yield out.with_name(f"{out.stem}-{one.source['name']}{out.suffix or '.json'}"), one
