"""The fields of a pushed data set: names, types, what may be edited, and attributes of annotations in and out."""

from __future__ import annotations

import json
import re
from typing import Any

from .sources import Source

SAMPLE_FIELDS = {
    "record_id": "str", "set_name": "str", "source": "str", "scene": "str", "sequence_id": "str",
    "frame_number": "int", "split": "str", "preview": "str", "targets": "int", "scr_min": "float",
    "side_min": "float", "at_border": "bool", "twin_group": "int", "twins_across_splits": "bool",
    "suspicion": "float", "doubt": "str", "reviewed": "bool",
}  # fmt: skip
DERIVED = {
    "area": "float", "side": "float", "scr": "float", "at_border": "bool", "match": "str", "ann_id": "int",
    "suspicion": "float", "doubt": "str",
}  # fmt: skip
"""Attributes of a label that follow from others: shown, read-only, never written back."""
RESERVED = {
    "_id", "_cls", "id", "tags", "label", "bounding_box", "mask", "mask_path", "confidence", "index", "instance",
    "attributes", "keyframe",
}  # fmt: skip
TRACK = "track_id"
EDITABLE = {"kind": ["point", "spot", "extended"], "polarity": None}
TYPES = {bool: "bool", int: "int", float: "float", str: "str"}


def field_name(name: str) -> str:
    """An attribute's name as a field: letters, digits and _, none that FiftyOne or we use."""
    plain = re.sub(r"\W", "_", name, flags=re.ASCII).lstrip("_") or "attribute"
    if plain[0].isdigit() or plain in RESERVED or plain in DERIVED or plain.startswith("match"):
        plain = f"attr_{plain}"
    return plain


def attribute_types(sources: list[Source]) -> dict[str, str]:
    """``{field: type}`` of all annotations' attributes; int and float are float, any other mix is text."""
    found: dict[str, set[str]] = {"kind": {"str"}, "polarity": {"int"}, TRACK: {"int"}}
    for source in sources:
        for entry in source.entries:
            for annotation in entry.annotations or ():
                for name, value in attributes_of(annotation):
                    if value is not None:
                        found.setdefault(name, set()).add(TYPES.get(type(value), "str"))
    return {name: _joined(kinds) for name, kinds in sorted(found.items())}


def _joined(kinds: set[str]) -> str:
    if len(kinds) == 1:
        return next(iter(kinds))
    return "float" if kinds == {"int", "float"} else "str"


def attributes_of(annotation: dict[str, Any]) -> list[tuple[str, Any]]:
    """``(field name, value)`` of an annotation's attributes and track id."""
    known = annotation.get("attributes")
    pairs = [(field_name(k), v) for k, v in known.items()] if isinstance(known, dict) else []
    if annotation.get(TRACK) is not None:
        pairs.append((TRACK, annotation[TRACK]))
    return pairs


def stored_value(value: Any, kind: str) -> Any:
    """A value as a field of a type of :func:`attribute_types`."""
    if value is None:
        return None
    if kind == "str":
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    return float(value) if kind == "float" else value


def with_attribute(annotation: dict[str, Any], field: str, value: Any) -> None:
    """Set in place the attribute that is shown as ``field``; a removed one (None) is removed."""
    if field == TRACK:
        if value is None:
            annotation.pop(TRACK, None)
        else:
            annotation[TRACK] = value
        return
    attributes = dict(annotation.get("attributes") or {})
    name = next((k for k in attributes if field_name(k) == field), field)
    if value is None:
        attributes.pop(name, None)
    else:
        old = attributes.get(name)
        if (
            isinstance(old, int)
            and not isinstance(old, bool)
            and isinstance(value, float)
            and value.is_integer()
        ):
            value = int(value)
        attributes[name] = value
    annotation["attributes"] = attributes
    if not attributes:
        annotation.pop("attributes")
