"""What somebody did to labels in FiftyOne, by comparison with what was pushed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from . import fields, store

SAME = 1e-3
"""Boxes that differ by less than this many pixels are the same: the App computes in fractions of the image."""


@dataclass
class LabelState:
    """One label as it is now. ``base`` is how it was pushed, None for a new one.

    ``moved`` and ``resized`` are about the box, ``painted`` about the mask; ``attributes`` holds the ones that
    differ, with their values now (None: removed); ``tags`` is None where they do not.
    """

    stored: dict[str, Any]
    base: dict[str, Any] | None
    box: tuple[float, float, float, float]
    moved: bool = False
    resized: bool = False
    painted: bool = False
    attributes: dict[str, Any] = field(default_factory=dict)
    tags: list[str] | None = None

    @property
    def touched(self) -> bool:
        """Whether it is not just what was pushed."""
        return bool(
            self.base is None
            or self.moved
            or self.resized
            or self.painted
            or self.attributes
            or self.tags is not None
        )


def detections(sample: dict[str, Any]) -> list[dict[str, Any]]:
    """The stored labels of a stored sample."""
    return (sample.get(store.FIELD) or {}).get("detections") or []


def size_of(sample: dict[str, Any]) -> tuple[int, int]:
    """(height, width) of a stored sample's image."""
    return sample["metadata"]["height"], sample["metadata"]["width"]


def pixel_box(box: list[float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """A stored box (x, y, w, h as fractions) as half-open xyxy in pixels of a (height, width) image."""
    x, y, w, h = box
    return x * size[1], y * size[0], (x + w) * size[1], (y + h) * size[0]


def label_states(
    base: dict[str, Any], sample: dict[str, Any]
) -> tuple[list[LabelState], list[dict[str, Any]]]:
    """(the labels there are, in their order; the baseline's labels that were deleted)."""
    size = size_of(sample)
    left = {label["id"]: label for label in base["labels"]}
    out = []
    for stored in detections(sample):
        before = left.pop(str(stored["_id"]), None)
        out.append(_state(stored, before, size))
    return out, list(left.values())


def edited(base: dict[str, Any], sample: dict[str, Any]) -> bool:
    """Whether any label of the sample was added, changed or deleted."""
    states, deleted = label_states(base, sample)
    return bool(deleted) or any(state.touched for state in states)


def _state(stored: dict[str, Any], base: dict[str, Any] | None, size: tuple[int, int]) -> LabelState:
    box = pixel_box(stored["bounding_box"], size)
    tags = list(stored.get("tags") or [])
    known = [] if base is None else base.get("tags", [])
    state = LabelState(stored, base, box, tags=None if tags == known else tags)
    if base is None:
        state.attributes = {k: v for k, v in _attributes(stored).items() if v is not None}
        return state
    old = pixel_box(base["box"], size)
    if stored["bounding_box"] != base["box"]:
        if max(abs(a - b) for a, b in zip(box, old, strict=True)) >= SAME:
            dw, dh = (box[2] - box[0]) - (old[2] - old[0]), (box[3] - box[1]) - (old[3] - old[1])
            state.resized = max(abs(dw), abs(dh)) >= 0.5
            state.moved = not state.resized
        else:
            state.box = old
    mask = stored.get("mask")
    if store.hash_bytes(mask) != base["bytes"]:
        state.painted = store.hash_mask(store.unpack(mask)) != base["mask"]
    now, then = _attributes(stored), base["attrs"]
    for name in now.keys() | then.keys():
        if store.canonical(now.get(name)) != store.canonical(then.get(name)):
            state.attributes[name] = now.get(name)
    return state


def _attributes(stored: dict[str, Any]) -> dict[str, Any]:
    """The attributes that are the user's: neither FiftyOne's own nor derived ones."""
    return {
        name: value
        for name, value in stored.items()
        if name not in fields.RESERVED and name not in fields.DERIVED and not name.startswith(("_", "match"))
    }
