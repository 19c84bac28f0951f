"""What a made image becomes on disk: PNGs at once, rows in parts, and the merge of the parts at the end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..annotate.console import note
from ..annotate.errors import IrstkitError
from ..annotate.files import encode_png, pixel_hash, read_json, write_atomic, write_json
from ..annotate.rle import encode_instance
from .compose import Made
from .joined import SCHEME, JoinedFiles, edited, read_joined
from .placement import Target
from .recipe import Recipe

PART = 1000
FLAT_LIMIT = 10_000


def image_name(index: int, count: int) -> str:
    """``000000.png``, or ``s000/000000.png`` in sets of more than 10,000 images."""
    return f"{index:06d}.png" if count <= FLAT_LIMIT else f"s{index // 1000:03d}/{index:06d}.png"


def _number(value: float) -> float:
    return round(float(value), 6)


def attributes(target: Target, recipe: Recipe) -> dict[str, Any]:
    """What is written of a target besides its pixels."""
    patch, preset = target.patch, recipe.preset
    return {
        "kind": patch.kind,
        "polarity": target.polarity,
        "scr_requested": _number(target.requested),
        "scr_achieved": None if target.achieved is None else _number(target.achieved),
        "scr_ring": preset.contrast.ring,
        "scr_status": target.status,
        "contrast": _number(target.difference),
        "amplitude": _number(target.amplitude),
        "clipped": target.clipped,
        "x": _number(target.column + patch.x),
        "y": _number(target.row + patch.y),
        "sigma": _number(patch.sigma),
        "mask_policy": preset.mask.policy,
        **patch.detail,
    }


def write_image(root: Path, recipe: Recipe, index: int, count: int, made: Made) -> dict[str, Any]:
    """Write an image and its mask; return its row for the part file."""
    row, files = encode_image(recipe, index, count, made)
    for name, data in files.items():
        write_atomic(root / name, data)
    return row


def encode_image(
    recipe: Recipe, index: int, count: int, made: Made
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """An image's row for the part file, and its files: ``{name: PNG}``."""
    name = image_name(index, count)
    size = made.image.shape[0], made.image.shape[1]
    mask = made.mask.view("u1") * 255
    files = {f"images/{name}": encode_png(made.image), f"masks/{name}": encode_png(mask)}
    digest = pixel_hash(made.image)
    entry = {
        "file_name": f"images/{name}", "width": size[1], "height": size[0], "source": "synthetic",
        "scene": made.scene, "background_id": made.background, "sha256": digest,
    }  # fmt: skip
    if made.copy_of is not None:
        entry["copy_of"] = f"images/{image_name(made.copy_of, count)}"
    annotations, told = [], []
    for target in made.targets:
        instance, known = target.instance, attributes(target, recipe)
        x1, y1, x2, y2 = instance.box
        annotations.append(
            {
                "category_id": 1, "iscrowd": 0, "bbox": [x1, y1, x2 - x1, y2 - y1], "area": instance.area,
                "segmentation": encode_instance(instance, size), "attributes": known,
            }
        )  # fmt: skip
        told.append({"bbox": [x1, y1, x2 - x1, y2 - y1], "area": instance.area, **known})
    manifest = {
        "index": index, "file_name": f"images/{name}", "seed": recipe.seed, "background_id": made.background,
        "background": made.name, "crop": made.crop, "scene": made.scene, "split": f"{SCHEME}/{made.part}",
        "targets": told, "rejected": made.rejected, "gate": made.gate, "sha256": digest,
        "mask_sha256": pixel_hash(mask),
    }  # fmt: skip
    if recipe.preset.negatives.active:
        manifest["negatives"] = [negative.as_dict() for negative in made.negatives]
    if made.copy_of is not None:
        manifest["copy_of"] = entry["copy_of"]
    return {"image": entry, "annotations": annotations, "manifest": manifest}, files


# ------------------------------------------------------------------------------------------------- parts


def part_path(root: Path, part: int) -> Path:
    """``parts/00000.json``."""
    return root / "parts" / f"{part:05d}.json"


def read_part(root: Path, part: int, count: int) -> list[dict[str, Any]] | None:
    """The rows of a whole part of a run of ``count`` images, or None when it has to be made (again)."""
    path = part_path(root, part)
    if not path.is_file():
        return None
    try:
        rows = read_json(path)
    except IrstkitError:
        return None
    start = part * PART
    if not isinstance(rows, list) or len(rows) != min(PART, count - start):
        return None
    for k, row in enumerate(rows):
        name = image_name(start + k, count)
        if not isinstance(row, dict) or set(row) != {"image", "annotations", "manifest"}:
            return None
        if row["manifest"].get("file_name") != f"images/{name}":
            return None
        if not (root / "images" / name).is_file() or not (root / "masks" / name).is_file():
            return None
    return rows


def write_part(root: Path, part: int, rows: list[dict[str, Any]]) -> None:
    """Write a part whole."""
    write_json(part_path(root, part), rows)


def merge(root: Path, count: int, splits: dict[str, float], info: dict[str, Any]) -> dict[str, Any]:
    """Join the parts in index order: annotations.json, split lists, manifest.jsonl; returns the totals.

    Each part is read once and one is held at a time.
    """
    totals: dict[str, Any] = {
        "images": 0,
        "targets": 0,
        "status": {},
        "scenes": {},
        "kinds": {},
        "rejected": {},
        "gate": {},
        "splits": dict.fromkeys((f"{SCHEME}/{part}" for part in splits), 0),
    }

    def add(key: str, name: str, n: int = 1) -> None:
        totals[key][name] = totals[key].get(name, 0) + n

    with JoinedFiles(root, splits, info) as files:
        for row in _rows(root, count):
            manifest = row["manifest"]
            files.image(row["image"], row["annotations"], manifest["split"].rpartition("/")[2])
            files.manifest(manifest)
            totals["images"] += 1
            totals["targets"] += len(manifest["targets"])
            add("splits", manifest["split"])
            add("scenes", manifest["scene"] or "unknown")
            for target in manifest["targets"]:
                add("status", target["scr_status"])
                add("kinds", target["kind"])
            for negative in manifest.get("negatives", ()):
                totals.setdefault("negatives", {})
                add("negatives", negative["kind"])
            if "copy_of" in manifest:
                totals["copies"] = totals.get("copies", 0) + 1
            for reason, n in manifest["rejected"].items():
                add("rejected", reason, n)
            for reason in manifest["gate"]:
                add("gate", reason)
    return {
        key: dict(sorted(v.items())) if isinstance(v, dict) and key != "splits" else v
        for key, v in totals.items()
    }


def tell_troubles(totals: dict[str, Any], recipe: Recipe, number: int) -> None:
    """Say what the gate's last resort, to take the background as it is, has done to the set."""
    gate, tries = totals["gate"], recipe.preset.gate.tries
    if gate.get("background flat", 0) >= tries * number / 2:
        stretched = "; --depth 8 stretches each to its own range" if recipe.depth == 16 else ""
        note(
            f"the backgrounds are flat: deviations below gate.min_deviation, {recipe.preset.gate.min_deviation:g} of the "
            f"full range of {recipe.depth} bit{stretched}"
        )
    dropped = gate.get("target dropped", 0)
    if dropped > 0.05 * (totals["targets"] + dropped):
        note(
            f"{dropped} of {totals['targets'] + dropped} targets were dropped: nowhere on {tries} crops could their SCR "
            "be had (`places rejected` says why)"
        )


def _rows(root: Path, count: int) -> Iterator[dict[str, Any]]:
    for part in range((count + PART - 1) // PART):
        yield from read_json(part_path(root, part))


def unmerge(root: Path) -> None:
    """Turn a finished set back into parts, to be checked and continued; a part is held at a time."""
    rows: list[dict[str, Any]] = []
    part = 0
    try:
        for row in _joined(root):
            rows.append(row)
            if len(rows) == PART:
                write_part(root, part, rows)
                part, rows = part + 1, []
        if rows:
            write_part(root, part, rows)
    except BaseException:
        for k in range(part + 1):
            part_path(root, k).unlink(missing_ok=True)
        raise


def _joined(root: Path) -> Iterator[dict[str, Any]]:
    """The rows of a finished set, as its annotations.json and manifest.jsonl are written: a line each."""
    try:
        with (root / "manifest.jsonl").open(encoding="utf-8") as lines:
            for (image, own), line in zip(read_joined(root), lines, strict=True):
                manifest = json.loads(line)
                if any(image[key] != manifest[key] for key in ("file_name", "sha256")):
                    raise edited(root)
                yield {"image": image, "annotations": own, "manifest": manifest}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise edited(root) from error
