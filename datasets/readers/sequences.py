"""What readers of sequence data share: sequence and frame from a path, parts from folder names."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .lists import PARTS

_LAST_NUMBER = re.compile(r"(\d+)\D*$")


def frame_number(stem: str) -> int | None:
    """The last whole number in a file's stem: 12 of ``frame_0012``, 297 of ``1(297)``."""
    found = _LAST_NUMBER.search(stem)
    return int(found[1]) if found else None


def sequence_of(id: str) -> tuple[str | None, int | None]:
    """(sequence, frame) of an id whose file is a bare number in a folder: ``0001/000010`` is frame 10 of 0001."""
    folder, _, stem = id.rpartition("/")
    if folder and folder not in PARTS and stem.isdigit():
        return folder, int(stem)
    return None, None


def folder_parts(ids: Iterable[str]) -> dict[str, str]:
    """``{id: part}`` where every image lies in a folder called train, val or test; else nothing."""
    out = {}
    for id in ids:
        first = id.split("/")[0]
        if "/" not in id or first not in PARTS:
            return {}
        out[id] = "val" if first == "valid" else first
    return out
