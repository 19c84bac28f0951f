"""YOLO label files: one ``class cx cy w h`` a line, fractions of the image, one file an image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..boxes import Boxes, xyxy_to_yolo, yolo_to_xyxy
from ..findings import Findings
from .numbers import number, read_lines, whole

MAX_CLASS = 9999


@dataclass(frozen=True, eq=False)
class YoloFile:
    """The good lines of a YOLO label file.

    ``fractions`` (N, 4) float64 cx, cy, w, h; ``classes`` (N,) from 0; ``lines`` (N,) line numbers from 1.
    """

    fractions: NDArray[np.float64]
    classes: NDArray[np.int64]
    lines: NDArray[np.int64]
    findings: Findings

    def boxes(self, size: tuple[int, int]) -> Boxes:
        """(N, 4) half-open xyxy in pixels of an image of (height, width)."""
        return yolo_to_xyxy(self.fractions, size)


def parse_yolo(path: str | Path) -> YoloFile:
    """Read a YOLO label file; every line that is not a box is a finding with its number.

    Files of published sets round to 6 decimals: up to 0.004 px in an image of 4096.

    Raises
    ------
    IrstkitError
        When the file is missing or not text.
    """
    findings = Findings(path)
    rows: list[tuple[float, ...]] = []
    classes: list[int] = []
    lines: list[int] = []
    seen: dict[tuple, int] = {}
    for count, line in enumerate(read_lines(path), start=1):
        fields = line.split()
        where = f"line {count}"
        if not fields:
            findings.note("empty-line", "an empty line", where)
            continue
        if len(fields) != 5:
            findings.note("bad-line", f"expected 5 fields (class cx cy w h), found {len(fields)}", where)
            continue
        kind, values = whole(fields[0]), tuple(number(f) for f in fields[1:])
        if kind is None or None in values:
            findings.note("bad-line", f"not five finite numbers: {line.strip()[:80]!r}", where)
            continue
        if not 0 <= kind <= MAX_CLASS:
            findings.note("class-range", f"class {kind} (expected 0 to {MAX_CLASS})", where)
            continue
        cx, cy, w, h = (float(v) for v in values if v is not None)
        if w < 0 or h < 0:
            findings.note("box-negative", f"a negative side: {w} x {h}", where)
            continue
        if w == 0 or h == 0:
            findings.note("box-empty", "a box without area", where)
            continue
        if cx - w / 2 >= 1 or cy - h / 2 >= 1 or cx + w / 2 <= 0 or cy + h / 2 <= 0:
            findings.note("box-outside", f"the box lies outside the image: {line.strip()}", where)
            continue
        slack = 2e-6  # what rounding to 6 decimals can do
        if min(cx - w / 2, cy - h / 2) < -slack or max(cx + w / 2, cy + h / 2) > 1 + slack:
            findings.note("box-leaves", f"the box leaves the image: {line.strip()}", where)
        key = (kind, cx, cy, w, h)
        if key in seen:
            findings.note("box-duplicate", f"the same box as in line {seen[key]}", where)
        seen.setdefault(key, count)
        rows.append((cx, cy, w, h))
        classes.append(kind)
        lines.append(count)
    return YoloFile(
        np.array(rows, dtype=np.float64).reshape(-1, 4),
        np.array(classes, dtype=np.int64),
        np.array(lines, dtype=np.int64),
        findings,
    )


def yolo_text(
    boxes: Boxes, size: tuple[int, int], classes: list[int] | None = None, *, digits: int = 6
) -> str:
    """The lines of a YOLO label file for half-open boxes in an image of (height, width).

    6 digits are the published convention; 10 give every corner back to 1e-6 px in images up to 13,000 wide.
    """
    rows = xyxy_to_yolo(boxes, size).tolist()
    kinds = classes if classes is not None else [0] * len(rows)
    return "".join(
        f"{kind} " + " ".join(f"{v:.{digits}f}" for v in row) + "\n"
        for kind, row in zip(kinds, rows, strict=True)
    )
