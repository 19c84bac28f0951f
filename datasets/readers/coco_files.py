"""COCO: one or more annotation files and the images they name, wherever beside them these lie.

``PART.json``, ``instances_PART.json``, ``annotations/...json`` or ``_annotations.coco.json``: the part (train, val,
test) is taken from the file's name or folder. Images are looked for relative to the root, to ``images/``, to the
part's folder and to the annotation file. Boxes, track ids and attributes become the record's; segmentations stay
in the file (``irstkit data import --labels FILE`` writes masks from them).
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...annotate.coco import read_coco
from ...annotate.errors import IrstkitError
from ...annotate.files import Below
from ..records import Dataset
from .probe import Builder, Match, Probe

NAME = "coco"
PLACES = (".", "annotations", "train", "val", "valid", "test")
_PART = re.compile(r"(?<![a-z])(train|val|valid|test)(?![a-z])")
_HEAD = 65536


def match(probe: Probe) -> Match:
    """At least one JSON file with the COCO keys, in the folder, in annotations/ or in a part's folder."""
    files = coco_files(probe)
    if not files:
        return Match(False, "no COCO .json file")
    return Match(True, "COCO: " + ", ".join(probe.show(f) for f in files[:4]) + (" ..." * (len(files) > 4)))


def coco_files(probe: Probe) -> list[Path]:
    """The annotation files, by a look at their first bytes."""
    found = []
    for place in PLACES:
        for name in probe.entries(place):
            path = probe.root / place / name
            if name.endswith(".json") and path.is_file() and _looks_like_coco(path):
                found.append(path)
    return found


def _looks_like_coco(path: Path) -> bool:
    with path.open("rb") as stream:
        head = stream.read(_HEAD)
    keys = sum(key in head for key in (b'"images"', b'"annotations"', b'"categories"', b'"file_name"'))
    if keys >= 2:
        return True
    try:  # small or unusually ordered
        return path.stat().st_size < 1 << 26 and {"images", "annotations"} <= set(
            json.loads(path.read_bytes())
        )
    except (ValueError, TypeError, RecursionError):
        return False


def part_of(path: Path) -> str | None:
    """``train``, ``val`` or ``test`` from a file's name or folder; None where neither says."""
    for text in (path.stem.lower(), path.parent.name.lower()):
        found = _PART.search(text.replace("2017", ""))
        if found:
            return "val" if found[1] == "valid" else found[1]
    return None


def read(probe: Probe) -> Dataset:
    """A record an image of every file."""
    return read_files(probe, coco_files(probe))


def read_files(probe: Probe, files: list[Path]) -> Dataset:
    """A record an image of the given files; the same image in two files is an error."""
    builder, below = Builder(probe), Below(probe.root)
    home: dict[Path, str] = {}
    for file in files:
        part = part_of(file) if len(files) > 1 or part_of(file) else None
        coco = read_coco(file)
        targets = collect_targets(builder, coco, file)
        labelled = is_labelled(coco)
        for k, entry in enumerate(coco["images"]):
            where = f"$.images[{k}]"
            name = entry.get("file_name") if isinstance(entry, dict) else None
            if not isinstance(name, str) or not name:
                builder.find("error", "annotation", "no file_name", file, where=where)
                continue
            try:
                image = _find(probe, below, file, name, part)
            except IrstkitError as error:
                builder.find("error", "annotation", error.message, file, where=f"{where}.file_name")
                continue
            if image is None:
                builder.find("error", "image-missing", f"no image file {name!r}", file, where=where)
                continue
            if image in home:
                text = f"{name!r} is listed already, in {home[image]}"
                builder.find("error", "annotation", text, file, where=where)
                continue
            home[image] = probe.show(file)
            found = targets.get(key_of(entry.get("id")), Targets())
            frame = entry.get("frame")
            builder.add(
                probe.show(image.with_suffix("")),
                image,
                track_ids=found.track_ids(),
                sequence=None if entry.get("sequence") is None else str(entry["sequence"]),
                frame=frame if isinstance(frame, int) else None,
                source=entry["source"] if entry.get("source") in ("real", "synthetic") else "real",
                scene=entry["scene"] if isinstance(entry.get("scene"), str) else None,
                splits={"coco": part} if part else {},
                attributes=found.known(),
            )
            if labelled:
                builder.set_boxes(found.boxes, path=file)
            check_declared_size(builder, entry, file, where)
    default = "coco" if any(r.splits for r in builder.records) else None
    return Dataset(probe.root, NAME, tuple(builder.records), default, tuple(builder.findings))


def is_labelled(coco: dict[str, Any]) -> bool:
    """False for the file of images that nobody has labelled, as ``irstkit data import`` writes it."""
    info = coco.get("info")
    return not (isinstance(info, dict) and info.get("labelled") is False and not coco["annotations"])


def check_declared_size(builder: Builder, entry: dict[str, Any], file: Path, where: str) -> None:
    """Compare the last record's size with the one its entry declares: the image's own counts."""
    record = builder.records[-1]
    declared = (entry.get("height"), entry.get("width"))
    if record.size == (0, 0) or declared == record.size:
        return
    text = f"says {declared[1]}x{declared[0]}, the image is {record.size[1]}x{record.size[0]}"
    builder.find("error", "image-size", text, file, where=where, record=record.id)


@dataclass
class Targets:
    """The annotations of one image."""

    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    tracks: list[int | None] = field(default_factory=list)
    attributes: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)

    def known(self) -> dict[str, Any]:
        """For a record's attributes: ``targets``, what is known of each, and ``annotations``, as they are."""
        return {"targets": tuple(self.attributes), "annotations": tuple(self.annotations)}

    def track_ids(self) -> tuple[int, ...] | None:
        """The track ids where every target has one."""
        known = [t for t in self.tracks if t is not None]
        return tuple(known) if known and len(known) == len(self.tracks) else None


def collect_targets(builder: Builder, coco: dict[str, Any], file: Path) -> dict[Any, Targets]:
    """``{image id: its targets}``; malformed annotations become findings."""
    out: dict[Any, Targets] = defaultdict(Targets)
    ids = {key_of(i.get("id")) for i in coco["images"] if isinstance(i, dict)}
    for k, annotation in enumerate(coco["annotations"]):
        where = f"$.annotations[{k}]"
        if not isinstance(annotation, dict):
            builder.find("error", "annotation", "expected an object", file, where=where)
            continue
        image_id, bbox = key_of(annotation.get("image_id")), annotation.get("bbox", ())
        if image_id is None or image_id not in ids:
            builder.find("error", "annotation", f"no image {image_id!r}", file, where=f"{where}.image_id")
            continue
        if not _four_numbers(bbox):
            builder.find("error", "annotation", "bbox is not four numbers", file, where=f"{where}.bbox")
            continue
        x, y, w, h = bbox
        if w <= 0 or h <= 0:
            builder.find("error", "annotation", f"an empty box, {w:g} x {h:g}", file, where=f"{where}.bbox")
            continue
        track, known = annotation.get("track_id"), annotation.get("attributes")
        targets = out[image_id]
        targets.boxes.append((x, y, x + w, y + h))
        targets.tracks.append(track if isinstance(track, int) else None)
        targets.attributes.append(dict(known) if isinstance(known, dict) else {})
        targets.annotations.append(annotation)
    return out


def key_of(value: Any) -> Any:
    """An image id that can be looked up; None for anything but whole numbers and text."""
    return value if isinstance(value, (int, str)) and not isinstance(value, bool) else None


def _four_numbers(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 4:
        return False
    return all(isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) for v in value)


def _find(probe: Probe, below: Below, file: Path, name: str, part: str | None) -> Path | None:
    """The image file that an entry names; an error when the name leaves the root."""
    bases = [".", "images"]
    if file.parent.is_relative_to(probe.root):  # else a file from elsewhere: its images are below the root
        bases.append(file.parent.relative_to(probe.root).as_posix())
    if part:
        bases += [part, f"images/{part}", f"images/{part}2017", f"{part}2017"]
        bases += ["valid", "images/valid"] if part == "val" else []
    name = name.replace("\\", "/")
    for base in bases:
        path = below(name if base == "." else f"{base}/{name}")
        if path.is_file():
            return path
    return None
