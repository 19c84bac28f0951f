"""Scenes (city, field, highlight, sea, cloud) from a table, for data sets that do not carry them."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path, PurePosixPath

from ..annotate.errors import IrstkitError
from ..annotate.files import read_bytes
from .records import Dataset

SCENES = ("city", "field", "highlight", "sea", "cloud")


def read_scenes(path: str | Path, dataset: str | None = None) -> dict[str, str]:
    """``{file stem: scene}`` of a CSV with the columns ``file`` and ``scene`` (and ``dataset``).

    Where there is a column ``dataset``, only the rows of ``dataset`` count (upper and lower case alike).

    Raises
    ------
    IrstkitError
        When a column is missing, a scene is none of the five, or a file has two.
    """
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise IrstkitError(f"not UTF-8 text (byte {error.start})", path=path) from error
    table = csv.DictReader(io.StringIO(text))
    columns = table.fieldnames or []
    if missing := {"file", "scene"} - set(columns):
        raise IrstkitError(
            f"no column {sorted(missing)[0]!r}", path=path, hint=f"columns: {', '.join(columns)}"
        )
    out: dict[str, str] = {}
    for number, row in enumerate(table, start=2):
        if dataset is not None and "dataset" in columns and (row["dataset"] or "").lower() != dataset.lower():
            continue
        stem, scene = PurePosixPath(row["file"] or "").stem, row["scene"] or ""
        if scene not in SCENES:
            text = f"{scene!r} is no scene: {', '.join(SCENES)}"
            raise IrstkitError(text, path=path, where=f"line {number}")
        if out.setdefault(stem, scene) != scene:
            raise IrstkitError(f"{stem} has two scenes", path=path, where=f"line {number}")
    return out


def with_scenes(dataset: Dataset, path: str | Path) -> Dataset:
    """The data set with scenes from a table, by file stem; its ``dataset`` column may name folder or layout.

    Raises
    ------
    IrstkitError
        When the table names none of the images.
    """
    scenes: dict[str, str] = {}
    for name in (dataset.root.resolve().name, dataset.layout):
        scenes = scenes or read_scenes(path, name)
    if not scenes:  # folders are renamed: the row's data set may be a part of the folder's name
        with Path(path).open(encoding="utf-8-sig", newline="") as stream:
            sets = {row.get("dataset") or "" for row in csv.DictReader(stream)}
        folder = dataset.root.resolve().name.lower()
        part = sorted((s for s in sets if s and s.lower() in folder), key=len)
        scenes = read_scenes(path, part[-1]) if part else {}
    known = {r.id: scenes.get(PurePosixPath(r.id).name) for r in dataset.records}
    if not any(known.values()):
        raise IrstkitError(f"no scene for any image of {dataset.root}", path=path)
    records = tuple(replace(r, scene=known[r.id] or r.scene) for r in dataset.records)
    return replace(dataset, records=records)
