"""What made frames become on disk: images and masks at once, rows in parts, and the merge of the parts."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ...annotate.boxes import as_boxes
from ...annotate.errors import IrstkitError
from ...annotate.files import encode_png, pixel_hash, read_json, write_atomic, write_json
from ...annotate.formats.list_files import list_text
from ...annotate.rle import encode_instance
from ..joined import SCHEME, JoinedFiles, edited, read_joined
from ..writer import attributes, part_path
from .frames import FrameMade
from .listing import Listed
from .plan import Plan, SequenceRecipe, Track

BLOCK = 100  # frames of one sequence in a part
LOSSLESS = (".png", ".bmp", ".tif", ".tiff")

Span = tuple[int, int, int]  # sequence, first frame, one beyond the last


def spans_of(recipe: SequenceRecipe, sequences: int, first: int = 0) -> list[Span]:
    """The parts that the sequences ``first`` to ``sequences`` are made in: blocks of a sequence's frames."""
    return [
        (s, a, min(a + BLOCK, recipe.length(s)))
        for s in range(first, sequences)
        for a in range(0, recipe.length(s), BLOCK)
    ]


def frame_name(recipe: SequenceRecipe, sequence: int, frame: int) -> str:
    """``0001/000000.png`` below images/, or the list's name."""
    if recipe.listed:
        return recipe.listed[sequence].files[frame]
    return f"{recipe.name(sequence)}/{frame:06d}.png"


def mask_name(name: str) -> str:
    """The mask's name below masks/."""
    return PurePosixPath(name).with_suffix(".png").as_posix()


def encode_image(image: NDArray, suffix: str) -> bytes:
    """The bytes of a gray image in a lossless format."""
    if suffix.lower() == ".png":
        return encode_png(image)
    done, data = cv2.imencode(suffix.lower(), image)
    if not done:
        raise IrstkitError(f"cannot encode an image of shape {image.shape} as {suffix}")
    return data.tobytes()


def _number(value: float, digits: int = 6) -> float:
    return round(float(value), digits)


def write_frame(
    root: Path, recipe: SequenceRecipe, plan: Plan, number: int, made: FrameMade
) -> dict[str, Any]:
    """Write a frame and its mask; return its row."""
    name = frame_name(recipe, plan.index, number)
    mask = made.mask.view("u1") * 255
    write_atomic(root / "images" / name, encode_image(made.image, PurePosixPath(name).suffix))
    write_atomic(root / "masks" / mask_name(name), encode_png(mask))
    listed = recipe.listed[plan.index] if recipe.listed else None
    entry = {
        "file_name": f"images/{name}", "width": plan.shape[1], "height": plan.shape[0], "sequence": plan.name,
        "frame": listed.frames[number] if listed else number, "source": "synthetic", "scene": plan.ground.scene,
        "background_id": plan.ground.id, "sha256": pixel_hash(made.image),
    }  # fmt: skip
    annotations = []
    for seen in made.seen:
        instance = seen.target.instance
        x1, y1, x2, y2 = instance.box
        known = attributes(seen.target, recipe) | {
            "trajectory": seen.track.model,
            "velocity": [_number(v, 4) for v in seen.velocity],
            "visible": _number(seen.visible, 4),
            "size": _number(seen.size, 4),
            "motion_blur": _number(seen.smear, 4),
        }
        if seen.touching:
            known["touching"] = True
        annotations.append(
            {
                "category_id": 1, "iscrowd": 0, "bbox": [x1, y1, x2 - x1, y2 - y1], "area": instance.area,
                "segmentation": encode_instance(instance, plan.shape), "track_id": seen.track.id,
                "attributes": known,
            }
        )  # fmt: skip
    return {"image": entry, "annotations": annotations}


def describe_plan(recipe: SequenceRecipe, plan: Plan) -> dict[str, Any]:
    """A sequence's line in manifest.jsonl, but for what only its frames tell."""
    return {
        "sequence": plan.name, "index": plan.index, "frames": plan.frames, "seed": recipe.seed,
        "size": [plan.shape[1], plan.shape[0]], "background_id": plan.ground.id, "background": plan.ground.name,
        "crop": plan.ground.crop, "scene": plan.ground.scene, "split": f"{SCHEME}/{plan.part}",
        "exposure": _number(plan.exposure), **({} if plan.jpeg is None else {"jpeg": plan.jpeg}),
        "clouds": None if plan.veil is None else {
            "opacity": _number(plan.veil.opacity), "wind": [_number(v) for v in plan.veil.winds[0]],
        },
        "sea": None if plan.water is None else {
            "waves": _number(plan.water.waves), "glints": _number(plan.water.glints),
            "speed": _number(plan.water.speed),
        },
        "tracks": [_describe_track(track) for track in plan.tracks],
        "platform": [[_number(v, 4) for v in row] for row in plan.camera.offsets],
        "rejected": plan.rejected, "gate": plan.gate,
    }  # fmt: skip


def _describe_track(track: Track) -> dict[str, Any]:
    look = track.look
    there = np.isfinite(track.path).all(axis=1)
    return {
        "track_id": track.id, "trajectory": track.model, "kind": look.kind, "speed": _number(track.speed, 4),
        "polarity": track.polarity, "area": look.area, **({"box": list(look.box)} if look.box else {}),
        **({"shape": look.values["silhouette"]} if "silhouette" in look.values else {}),
        "scr_requested": [_number(track.scr[there].min(), 4), _number(track.scr[there].max(), 4)],
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------- parts


def read_block(root: Path, number: int, recipe: SequenceRecipe, span: Span) -> dict[str, Any] | None:
    """A whole part, or None when it has to be made (again)."""
    path = part_path(root, number)
    if not path.is_file():
        return None
    try:
        part = read_json(path)
    except IrstkitError:
        return None
    if not isinstance(part, dict) or part.get("span") != list(span) or not isinstance(part.get("plan"), dict):
        return None
    rows = part.get("rows")
    if not isinstance(rows, list) or len(rows) != span[2] - span[1]:
        return None
    for row, frame in zip(rows, range(span[1], span[2]), strict=True):
        name = frame_name(recipe, span[0], frame)
        if not isinstance(row, dict) or row.get("image", {}).get("file_name") != f"images/{name}":
            return None
        if not (root / "images" / name).is_file() or not (root / "masks" / mask_name(name)).is_file():
            return None
    return part


def write_block(
    root: Path, number: int, span: Span, plan: dict[str, Any], rows: list[dict[str, Any]]
) -> None:
    """Write a part whole."""
    write_json(part_path(root, number), {"span": list(span), "plan": plan, "rows": rows})


def merge(
    root: Path, recipe: SequenceRecipe, spans: list[Span], splits: dict[str, float], info: dict[str, Any]
) -> dict[str, Any]:
    """Join the parts in order: annotations.json, split lists, manifest.jsonl; returns the totals."""
    totals: dict[str, Any] = {
        "sequences": 0, "frames": 0, "targets": 0, "tracks": 0, "empty_frames": 0, "cut_by_border": 0,
        "touching": 0, "status": {}, "trajectories": {}, "kinds": {}, "scenes": {}, "rejected": {}, "gate": {},
        "splits": dict.fromkeys((f"{SCHEME}/{part}" for part in splits), 0),
    }  # fmt: skip

    def add(key: str, name: str, n: int = 1) -> None:
        totals[key][name] = totals[key].get(name, 0) + n

    with JoinedFiles(root, splits, info) as files:
        plan: dict[str, Any] = {}
        for number, (sequence, start, stop) in enumerate(spans):
            part = read_json(part_path(root, number))
            if start == 0:
                plan = part["plan"] | {"targets": 0, "empty_frames": 0, "status": {}}
                totals["sequences"] += 1
                totals["tracks"] += len(plan["tracks"])
                add("scenes", plan["scene"] or "unknown")
                for track in plan["tracks"]:
                    add("trajectories", track["trajectory"])
                    add("kinds", track["kind"])
                for reason, n in plan["rejected"].items():
                    add("rejected", reason, n)
                for reason in plan["gate"]:
                    add("gate", reason)
            for row in part["rows"]:
                files.image(row["image"], row["annotations"], plan["split"].rpartition("/")[2])
                add("splits", plan["split"])
                for total in (totals, plan):
                    total["empty_frames"] += not row["annotations"]
                    total["targets"] += len(row["annotations"])
                totals["frames"] += 1
                for target in row["annotations"]:
                    known = target["attributes"]
                    totals["cut_by_border"] += known["visible"] < 1
                    totals["touching"] += known.get("touching", False)
                    add("status", known["scr_status"])
                    plan["status"][known["scr_status"]] = plan["status"].get(known["scr_status"], 0) + 1
            if stop == recipe.length(sequence):
                files.manifest(plan)
        for name, text in _published_lists(recipe.listed).items():
            write_atomic(root / name, text)
    return {
        k: dict(sorted(v.items())) if isinstance(v, dict) and k != "splits" else v for k, v in totals.items()
    }


def _published_lists(listed: tuple[Listed, ...]) -> dict[str, str]:
    """SSTNet's lists of the frames that were made, by name: the same frames and boxes as in the lists given."""
    rows: dict[str, list] = {}
    for sequence in listed:
        if sequence.source.endswith(".txt"):
            for name, boxes in zip(sequence.files, sequence.boxes, strict=True):
                rows.setdefault(sequence.source, []).append(
                    (f"images/{name}", as_boxes(list(boxes)), [0] * len(boxes))
                )
    return {source: list_text(lines) for source, lines in rows.items()}


def unmerge(root: Path, recipe: SequenceRecipe) -> None:
    """Turn a finished set back into parts, to be checked and continued; a part is held at a time."""
    images = read_joined(root)
    number = 0
    try:
        with (root / "manifest.jsonl").open(encoding="utf-8") as lines:
            for index, line in enumerate(lines):
                plan = {
                    k: v
                    for k, v in json.loads(line).items()
                    if k not in ("targets", "empty_frames", "status")
                }
                if plan["index"] != index:
                    raise edited(root)
                for span in spans_of(recipe, index + 1, index):
                    rows: list[dict[str, Any]] = [
                        {"image": i, "annotations": a} for i, a in islice(images, span[2] - span[1])
                    ]
                    if len(rows) < span[2] - span[1] or any(
                        r["image"]["sequence"] != plan["sequence"] for r in rows
                    ):
                        raise edited(root)
                    write_block(root, number, span, plan, rows)
                    number += 1
        if next(images, None) is not None:
            raise edited(root)
    except (OSError, ValueError, KeyError, TypeError, IrstkitError) as error:
        for k in range(number):
            part_path(root, k).unlink(missing_ok=True)
        raise (error if isinstance(error, IrstkitError) else edited(root)) from error
