"""COCO's JSON and the small tests that its checks are made of."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

from ..files import read_bytes
from ..findings import Findings


def load_coco(path: str | Path) -> tuple[dict[str, Any] | None, Findings]:
    """The JSON object of a COCO file and what is wrong with it as JSON; None when nothing can be used."""
    findings = Findings(path)
    data = read_bytes(path)
    repeated: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        out = dict(items)
        if len(out) < len(items):
            keys = [k for k, _ in items]
            repeated.extend(sorted({k for k in keys if keys.count(k) > 1}))
        return out

    try:
        document = json.loads(data.decode("utf-8-sig"), object_pairs_hook=pairs)
    except UnicodeDecodeError as error:
        findings.note("encoding", f"not UTF-8 text (byte {error.start})")
        return None, findings
    except json.JSONDecodeError as error:
        findings.note(
            "not-json", f"not valid JSON: {error.msg}", f"line {error.lineno}, column {error.colno}"
        )
        return None, findings
    except RecursionError:
        findings.note("not-json", "not valid JSON: nested too deeply")
        return None, findings
    except ValueError:
        findings.note("not-json", "not valid JSON: a number of thousands of digits")
        return None, findings
    for key in repeated:
        findings.note("duplicate-key", f"the key {key[:60]!r} stands twice in one object")
    if not isinstance(document, dict):
        hint = " (a list of detections? those are COCO results)" if isinstance(document, list) else ""
        findings.note("wrong-type", f"expected an object, found {kind_of(document)}{hint}", "$")
        return None, findings
    return document, findings


def kind_of(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true/false", type(None): "null"}
    return names.get(type(value), "a number")


def is_whole(value: Any) -> bool:
    return type(value) is int and abs(value) < 2**53


def is_number(value: Any) -> bool:
    return type(value) in (int, float)


def leaves_root(name: str) -> bool:
    """Whether a file name is absolute or climbs out of its folder (with either kind of slash)."""
    flat = name.replace("\\", "/")
    drive = len(flat) > 1 and flat[1] == ":" and flat[0].isalpha()
    return drive or "\0" in flat or PurePosixPath(flat).is_absolute() or ".." in PurePosixPath(flat).parts


def is_rectangle(value: list[Any], box: tuple[float, float, float, float]) -> bool:
    """Whether a segmentation is the box's rectangle, as written for boxes without pixels."""
    x1, y1, x2, y2 = box
    corners = [x1, y1, x2, y1, x2, y2, x1, y2]
    if (
        len(value) != 1
        or not isinstance(value[0], list)
        or len(value[0]) != 8
        or not all(map(is_number, value[0]))
    ):
        return False
    return all(abs(a - b) <= 1e-6 for a, b in zip(value[0], corners, strict=True))
