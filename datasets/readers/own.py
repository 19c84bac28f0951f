"""What irstkit writes: images/, masks/, annotations.json (the truth), splits/SCHEME/PART.txt, manifest.jsonl.

Ids are relative to the root (``images/000000``). Boxes, track ids and the attributes of every target come
from annotations.json; the masks are derived from it, and a mask that is missing is an error.
"""

from __future__ import annotations

from typing import Any

from ...annotate.boxes import as_boxes
from ...annotate.coco import read_coco
from ...annotate.errors import IrstkitError
from ...annotate.files import Below
from ..records import Dataset
from .coco_files import Targets, check_declared_size, collect_targets, is_labelled, key_of
from .lists import assign_splits, find_lists
from .probe import Builder, Match, Probe

NAME = "irstkit"
FILE = "annotations.json"
IMAGE_KEYS = ("background_id", "sha256", "original", "set", "tile", "copy_of")


def match(probe: Probe) -> Match:
    """annotations.json beside images/."""
    if FILE not in probe.entries():
        return Match(False, f"no {FILE}")
    if not probe.has("images"):
        return Match(False, f"{FILE} without images/")
    more = [name for name in ("masks", "synth.yaml", "manifest.jsonl", "splits") if name in probe.entries()]
    return Match(True, ", ".join([f"{FILE} and images/", *more]))


def unfinished(probe: Probe) -> bool:
    """Whether here lies what `irstkit synth` has begun: the manifest comes last, images and masks are there before."""
    return {"synth.yaml", "parts"} <= set(probe.entries()) and "manifest.jsonl" not in probe.entries()


def read(probe: Probe) -> Dataset:
    """A record an entry of ``images`` in annotations.json, in its order."""
    builder = Builder(probe)
    path = probe.root / FILE
    coco = read_coco(path)
    targets, labelled = collect_targets(builder, coco, path), is_labelled(coco)
    files = {f"images/{id}": file for id, file in probe.images("images").items()}
    masks = probe.images("masks")
    below, root = Below(probe.root), f"{probe.root.as_posix()}/"
    by_name = {file.as_posix().removeprefix(root): id for id, file in files.items()}
    rows: list[tuple[str, dict[str, Any], int]] = []
    seen: set[str] = set()
    for k, entry in enumerate(coco["images"]):
        where = f"$.images[{k}]"
        name = entry.get("file_name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name:
            builder.find("error", "annotation", "no file_name", path, where=where)
            continue
        try:
            below(name)
        except IrstkitError as error:
            builder.find("error", "annotation", error.message, path, where=f"{where}.file_name")
            continue
        id = by_name.get(name) or by_name.get(f"images/{name}")
        if id is None:
            builder.find(
                "error", "image-missing", f"no image file {name!r}", path, where=f"{where}.file_name"
            )
            continue
        if id in seen:
            builder.find("error", "annotation", f"{name!r} is listed twice", path, where=f"{where}.file_name")
            continue
        seen.add(id)
        rows.append((id, entry, k))
    splits, unions = assign_splits(builder, find_lists(probe), dict.fromkeys(id for id, _, _ in rows))
    left = dict(masks)
    for id, entry, k in rows:
        mask = left.pop(id.removeprefix("images/"), None)
        if mask is None and masks:
            builder.find("error", "mask-missing", "an image without mask", files[id], record=id)
        found = targets.get(key_of(entry.get("id")), Targets())
        known: dict[str, Any] = {key: entry[key] for key in IMAGE_KEYS if key in entry}
        frame = entry.get("frame")
        builder.add(
            id,
            files[id],
            mask,
            boxes=as_boxes(found.boxes) if labelled else None,
            track_ids=found.track_ids(),
            sequence=None if entry.get("sequence") is None else str(entry["sequence"]),
            frame=frame if isinstance(frame, int) else None,
            source=entry["source"] if entry.get("source") in ("real", "synthetic") else "real",
            scene=entry["scene"] if isinstance(entry.get("scene"), str) else None,
            splits=splits.get(id, {}),
            attributes={**known, **found.known()} if labelled else known,
        )
        check_declared_size(builder, entry, path, f"$.images[{k}]")
    for id in sorted(set(files) - seen):
        builder.find("error", "annotation-missing", f"an image that {FILE} does not list", files[id])
    for mask in left.values():
        builder.find("error", "image-missing", "a mask without image", mask)
    schemes = sorted({scheme for record in builder.records for scheme in record.splits})
    default = schemes[0] if len(schemes) == 1 else None
    info = coco.get("info")
    if isinstance(info, dict) and info.get("default_scheme") in schemes:
        default = info["default_scheme"]
    return Dataset(probe.root, NAME, tuple(builder.records), default, tuple(builder.findings), unions)
