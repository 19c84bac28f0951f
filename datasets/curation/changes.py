"""What somebody did to labels in FiftyOne, by comparison with what was pushed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from . import fields, store
from .pixels import round_half_up
from .sources import to_instance

NONE_ASIDE: Mapping[Any, dict[str, Any]] = MappingProxyType({})

SAME = 1e-3
"""Boxes that differ by less than this many pixels are the same: the App computes in fractions of the image."""


@dataclass
class LabelState:
    """One label as it is now. ``base`` is how it was pushed, None for a new one.

    ``moved`` and ``resized`` are about the box, ``painted`` about the mask; ``attributes`` holds the ones that
    differ, with their values now (None: removed); ``tags`` is None where they do not.
    ``regrow``: its mask was set aside and its box is of another size now.
    """

    stored: dict[str, Any]
    base: dict[str, Any] | None
    box: tuple[float, float, float, float]
    moved: bool = False
    resized: bool = False
    painted: bool = False
    attributes: dict[str, Any] = field(default_factory=dict)
    tags: list[str] | None = None
    regrow: bool = False

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
    base: dict[str, Any], sample: dict[str, Any], aside: Mapping[Any, dict[str, Any]] = NONE_ASIDE
) -> tuple[list[LabelState], list[dict[str, Any]]]:
    """(the labels there are, in their order; the baseline's labels that were deleted)."""
    size = size_of(sample)
    left = {label["id"]: label for label in base["labels"]}
    out = []
    for stored in detections(sample):
        before = left.pop(str(stored["_id"]), None)
        whole, regrow = restore(stored, before, aside.get(stored["_id"]), size)
        out.append(_state(whole, before, size))
        out[-1].regrow = regrow
    return out, list(left.values())


def restore(
    stored: dict[str, Any], base: dict[str, Any] | None, kept: Mapping[str, Any] | None, size: tuple[int, int]
) -> tuple[dict[str, Any], bool]:
    """A label whose mask was set aside (or taken off in the App) with its mask, by whole pixels where its box is now.

    The App cannot move a box that has a mask. The mask is that of ``kept`` (``box``, ``mask`` as stored), else the
    pushed one.

    Returns
    -------
    The label as stored, and whether its box is of another size, so that the mask has to be grown anew.
    """
    if stored.get("mask") is not None:
        return stored, False
    if kept is None and base is not None and base["mask"] is not None:
        instance = to_instance(json.loads(base["json"])["segmentation"], size)
        kept = None if instance is None else {"box": base["box"], "mask": store.pack(instance.mask)}
    if kept is None:
        return stored, False
    now, then = pixel_box(stored["bounding_box"], size), pixel_box(kept["box"], size)
    steps = [a - b for a, b in zip(now, then, strict=True)]
    if max(abs(steps[2] - steps[0]), abs(steps[3] - steps[1])) >= 0.5:
        return stored, True
    dx, dy = round_half_up(steps[0]), round_half_up(steps[1])
    x, y, w, h = kept["box"]
    box = list(kept["box"]) if (dx, dy) == (0, 0) else [x + dx / size[1], y + dy / size[0], w, h]
    return {**stored, "bounding_box": box, "mask": kept["mask"]}, False


def stretched(stored: dict[str, Any], base: dict[str, Any] | None, size: tuple[int, int]) -> bool:
    """Whether a label has its mask as pushed in a box of another size: resized where the mask was out of sight."""
    if base is None or stored.get("mask") is None or store.hash_bytes(stored["mask"]) != base["bytes"]:
        return False
    now, then = pixel_box(stored["bounding_box"], size), pixel_box(base["box"], size)
    wider = (now[2] - now[0]) - (then[2] - then[0])
    higher = (now[3] - now[1]) - (then[3] - then[1])
    return max(abs(wider), abs(higher)) >= 0.5


def edited(
    base: dict[str, Any], sample: dict[str, Any], aside: Mapping[Any, dict[str, Any]] = NONE_ASIDE
) -> bool:
    """Whether any label of the sample was added, changed or deleted."""
    states, deleted = label_states(base, sample, aside)
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
    if mask is not None and store.hash_bytes(mask) != base["bytes"]:
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
