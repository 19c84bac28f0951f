"""DAUB and IRDST as SSTNet, Tridos and DFAR use them: lists ``path x1,y1,x2,y2,class ...`` and frame folders.

``coco_train_NAME.txt`` and ``coco_val_NAME.txt`` (in the folder or in ``annotations/``); the ``val`` list is the
test set. Paths in the lists are those of another machine: what follows ``images/`` is looked for below the root.
Boxes are half-open; those that leave the image are listed and cut to it. Sizes come from the files (the COCO
files that circulate beside the lists declare 720x480 for frames that are 992x742).

Where none of the frames is at hand the lists can still be looked at: sizes are then the published ones, boxes stay
uncut, and using an image is refused with one error.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

from ...annotate.errors import IrstkitError
from ...annotate.files import natural_key
from ...annotate.formats.list_files import ListEntry, parse_list
from ..records import Dataset, Finding, Record
from .probe import Builder, Match, Probe

DAUB, IRDST = "daub-sstnet", "irdst-sstnet"
SCHEME = "sstnet"
_LIST = re.compile(r"coco_(train|val|test)_(DAUB|IRDST)\.txt")


def match_daub(probe: Probe) -> Match:
    """coco_train_DAUB.txt or coco_val_DAUB.txt."""
    return _match(probe, "DAUB")


def match_irdst(probe: Probe) -> Match:
    """coco_train_IRDST.txt or coco_val_IRDST.txt."""
    return _match(probe, "IRDST")


def read_daub(probe: Probe) -> Dataset:
    """Frames in the order of sequence and frame numbers; ids such as ``train/data5/0``."""
    return _read(probe, "DAUB", DAUB)


def read_irdst(probe: Probe) -> Dataset:
    """Frames in the order of sequence and frame numbers; ids such as ``1/0``."""
    return _read(probe, "IRDST", IRDST)


def published_size(name: str, sequence: str) -> tuple[int, int]:
    """(height, width) as published, for lists without their frames."""
    if name == "DAUB":
        return 256, 256
    return (742, 992) if sequence in ("1", "2", "3", "4") else (480, 720)


def _lists(probe: Probe, name: str) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in (".", "annotations"):
        for entry in probe.entries(folder):
            matched = _LIST.fullmatch(entry)
            if matched and matched[2] == name:
                part = "train" if matched[1] == "train" else "test"
                found.setdefault(part, probe.root / folder / entry)
    return found


def _match(probe: Probe, name: str) -> Match:
    lists = _lists(probe, name)
    if not lists:
        return Match(False, f"no list coco_train_{name}.txt")
    return Match(True, "lists " + ", ".join(probe.show(p) for p in lists.values()))


def _read(probe: Probe, name: str, layout: str) -> Dataset:
    builder = Builder(probe)
    rows: list[tuple[str, ListEntry, str]] = []
    seen: dict[str, str] = {}
    for part, path in sorted(_lists(probe, name).items(), reverse=True):
        try:
            found = parse_list(path)
        except IrstkitError as error:
            builder.find("error", "list-unreadable", error.message, path, split=f"{SCHEME}/{part}")
            continue
        builder.adopt(found.findings, split=f"{SCHEME}/{part}")
        for entry in found.entries:
            id = PurePosixPath(entry.relative()).with_suffix("").as_posix()
            if id in seen:
                text = f"{id} is in {SCHEME}/{seen[id]} already"
                where = f"line {entry.line}"
                builder.find("error", "list-overlap", text, path, where=where, split=f"{SCHEME}/{part}")
                continue
            seen[id] = part
            rows.append((id, entry, part))
    rows.sort(key=lambda row: (row[2] != "train", natural_key(row[0])))
    on_disk = _Frames(probe)
    files = {id: on_disk.find(entry) for id, entry, _ in rows}
    missing = [id for id, file in files.items() if file is None]
    without_frames = bool(rows) and len(missing) == len(rows)
    if without_frames:
        example = rows[0][1].relative()
        text = f"none of the {len(rows)} frames that the lists name is here (such as images/{example})"
        builder.find("error", "image-missing", text)
    for id, entry, part in rows:
        known: dict[str, Any] = {
            "sequence": entry.sequence,
            "frame": entry.frame,
            "splits": {SCHEME: part},
        }
        file = files[id]
        if file is not None:
            builder.add(id, file, **known)
            builder.set_boxes(entry.boxes)
            continue
        wanted = probe.root / "images" / entry.relative()
        if not without_frames:
            builder.find("error", "image-missing", "a frame of the list is not here", wanted, record=id)
        size = published_size(name, entry.sequence)
        record = Record(
            id, wanted, boxes=entry.boxes, size=size, attributes={"size_from": "published"}, **known
        )
        builder.records.append(record)
        builder.note_leaving(record)
    extra = sorted(set(on_disk.images) - {file for file in files.values() if file is not None})
    if extra:
        text = f"{len(extra)} images that no list names (such as {probe.show(extra[0])})"
        builder.findings.append(Finding("info", "image-unlisted", text))
    parts = {row[2] for row in rows}
    unions = {f"{SCHEME}/val": ("test",)} if "test" in parts else {}
    return Dataset(probe.root, layout, tuple(builder.records), SCHEME, tuple(builder.findings), unions)


class _Frames:
    """Frames below the root by their list path: under images/, directly, or without the part's folder."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        self.images = set(probe.images(".").values())

    def find(self, entry: ListEntry) -> Path | None:
        relative = PurePosixPath(entry.relative())
        short = PurePosixPath(*relative.parts[-2:])
        for candidate in dict.fromkeys((f"images/{relative}", f"{relative}", f"images/{short}", f"{short}")):
            path = self.probe.root / candidate
            if path in self.images:  # files found by walking: a path that leaves the root is none of them
                return path
        return None
