"""What a made image becomes on disk: PNGs at once, rows in parts, and the merge of the parts at the end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..annotate.coco import CATEGORY
from ..annotate.errors import IrstkitError
from ..annotate.files import atomic_path, encode_png, pixel_hash, read_json, write_atomic, write_json
from ..annotate.rle import encode_instance
from .compose import Made
from .placement import Target
from .recipe import Recipe

PART = 1000
FLAT_LIMIT = 10_000
SCHEME = "synth"


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
    name = image_name(index, count)
    size = made.image.shape[0], made.image.shape[1]
    mask = made.mask.view("u1") * 255
    write_atomic(root / "images" / name, encode_png(made.image))
    write_atomic(root / "masks" / name, encode_png(mask))
    digest = pixel_hash(made.image)
    entry = {
        "file_name": f"images/{name}", "width": size[1], "height": size[0], "source": "synthetic",
        "scene": made.scene, "background_id": made.background, "sha256": digest,
    }  # fmt: skip
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
    return {"image": entry, "annotations": annotations, "manifest": manifest}


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

    One part is held at a time, so that memory does not grow with the number of images.
    """
    parts = range((count + PART - 1) // PART)

    def rows() -> Iterator[dict[str, Any]]:
        for part in parts:
            yield from read_json(part_path(root, part))

    ids: dict[str, list[str]] = {part: [] for part in splits}
    totals: dict[str, Any] = {
        "images": 0,
        "targets": 0,
        "status": {},
        "scenes": {},
        "kinds": {},
        "rejected": {},
        "gate": {},
    }

    def add(key: str, name: str, n: int = 1) -> None:
        totals[key][name] = totals[key].get(name, 0) + n

    def dump(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)

    with (
        atomic_path(root / "annotations.json") as path,
        path.open("w", encoding="utf-8", newline="\n") as stream,
    ):
        stream.write(f'{{"info": {dump(info)}, "licenses": [], "categories": [{dump(CATEGORY)}], "images": [')
        for number, row in enumerate(rows(), start=1):
            stream.write(("" if number == 1 else ",") + "\n" + dump({"id": number, **row["image"]}))
        stream.write('],\n"annotations": [')
        annotation_id = 0
        for number, row in enumerate(rows(), start=1):
            for annotation in row["annotations"]:
                annotation_id += 1
                text = dump({"id": annotation_id, "image_id": number, **annotation})
                stream.write(("" if annotation_id == 1 else ",") + "\n" + text)
        stream.write("]}\n")
    with (
        atomic_path(root / "manifest.jsonl") as path,
        path.open("w", encoding="utf-8", newline="\n") as stream,
    ):
        for row in rows():
            manifest = row["manifest"]
            stream.write(dump(manifest) + "\n")
            part = manifest["split"].rpartition("/")[2]
            ids[part].append(manifest["file_name"].removesuffix(".png"))
            totals["images"] += 1
            totals["targets"] += len(manifest["targets"])
            add("scenes", manifest["scene"] or "unknown")
            for target in manifest["targets"]:
                add("status", target["scr_status"])
                add("kinds", target["kind"])
            for reason, n in manifest["rejected"].items():
                add("rejected", reason, n)
            for reason in manifest["gate"]:
                add("gate", reason)
        # lists first, the manifest last: its presence says that the set is whole
        for part, names in ids.items():
            write_atomic(root / "splits" / SCHEME / f"{part}.txt", "".join(f"{name}\n" for name in names))
    totals["splits"] = {f"{SCHEME}/{part}": len(names) for part, names in ids.items()}
    return {
        key: dict(sorted(v.items())) if isinstance(v, dict) and key != "splits" else v
        for key, v in totals.items()
    }


def unmerge(root: Path) -> None:
    """Turn a finished set back into parts, to be checked and continued."""
    from ..annotate.coco import read_coco
    from ..annotate.files import read_bytes

    coco = read_coco(root / "annotations.json")
    by_image: dict[int, list[dict[str, Any]]] = {}
    for annotation in coco["annotations"]:
        kept = {k: v for k, v in annotation.items() if k not in ("id", "image_id")}
        by_image.setdefault(annotation["image_id"], []).append(kept)
    lines = read_bytes(root / "manifest.jsonl").decode("utf-8").splitlines()
    if len(lines) != len(coco["images"]):
        raise IrstkitError(
            f"annotations.json has {len(coco['images'])} images, manifest.jsonl {len(lines)}: not continued",
            path=root,
            hint="it was edited since; choose another --out",
        )
    rows = [
        {"image": {k: v for k, v in image.items() if k != "id"}, "annotations": by_image.get(image["id"], []),
         "manifest": json.loads(line)}
        for image, line in zip(coco["images"], lines, strict=True)
    ]  # fmt: skip
    for part in range((len(rows) + PART - 1) // PART):
        write_part(root, part, rows[part * PART : (part + 1) * PART])
