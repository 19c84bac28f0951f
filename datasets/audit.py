"""Can a data set be trusted? Repetitions inside and across lists and sets, wrong pairs, odd targets, statistics."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..annotate.console import track
from ..annotate.errors import IrstkitError
from ..annotate.files import pixel_hash
from ..annotate.masks import Instance, mask_to_instances
from ..annotate.scr import measure_contrast
from .info import Look, describe, look
from .records import Dataset, Record
from .twins import group, thumbnail, twin_pairs

RINGS = (3, 10, 20)
LARGE_SHARE, LARGE_AREA = 0.0015, 81
"""A target is large above 0.15 % of its image and above 9 x 9 pixels (the field's usual bounds)."""
INVISIBLE = 1.0
"""A target is invisible below this SCR at ring 10."""
PERCENTILES = (5, 25, 50, 75, 95)
SAMPLE = 64


@dataclass
class TargetFacts:
    """One target as measured: pixels, gray levels as stored."""

    record: int
    box: tuple[float, float, float, float]
    area: float
    scr: dict[int, float | None] = field(default_factory=dict)
    contrast: float | None = None
    brighter: float | None = None
    saturated: bool = False
    odd: list[str] = field(default_factory=list)


@dataclass
class ImageFacts:
    """One image as measured; ``digest`` of its pixels, ``mask_digest`` of a mask that is not empty."""

    look: Look
    digest: str | None = None
    mask_digest: str | None = None
    thumb: NDArray[np.float64] | None = None
    targets: list[TargetFacts] = field(default_factory=list)


@dataclass
class Audit:
    """The result for several data sets; ``rows`` are all their records, in order."""

    datasets: list[Dataset]
    rows: list[tuple[int, Record]]
    images: list[ImageFacts]
    exact: list[list[int]]
    pairs: list[tuple[int, int, float]]
    groups: list[list[int]]
    facts: dict[str, Any]


def audit(datasets: Sequence[Dataset], *, rings: Sequence[int] = RINGS) -> Audit:
    """Look at every file of every data set; nothing is raised for what is wrong inside.

    SCR is measured on masks (|mean of the target - mean of the ring| / deviation of the ring) at each of
    ``rings``; box-only targets have none.
    """
    rows = [(d, r) for d, dataset in enumerate(datasets) for r in dataset.records]
    rings = tuple(dict.fromkeys((*rings, 10)))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        jobs = pool.map(lambda k: measure(rows[k][1], k, datasets[rows[k][0]].root, rings), range(len(rows)))
        images = list(track(jobs, "auditing", len(rows)))
    exact = _exact(images)
    pairs = _twins(rows, images)
    groups = _grouped(len(rows), [(i, j) for i, j, _ in pairs])
    facts = _facts(datasets, rows, images, exact, pairs, groups, rings)
    return Audit(list(datasets), rows, images, exact, pairs, groups, facts)


def measure(record: Record, index: int, root: os.PathLike | str, rings: Sequence[int]) -> ImageFacts:
    """Everything that one record's files tell; no pixel is kept."""
    found = look(record, root, keep=True)
    image, mask = found.image, found.mask
    found.image = found.mask = None
    out = ImageFacts(found)
    if image is not None:
        out.digest, out.thumb = pixel_hash(image), thumbnail(image)
    if mask is not None and mask.any():
        out.mask_digest = pixel_hash(mask.view(np.uint8))
    if found.boxes is None:
        return out
    if image is None or mask is None or mask.shape != image.shape:
        out.targets = [
            _oddities(TargetFacts(index, (b[0], b[1], b[2], b[3]), float(area)), record)
            for b, area in zip(found.boxes.tolist(), found.areas.tolist(), strict=True)
        ]
        return out
    instances = mask_to_instances(mask)
    top = np.iinfo(image.dtype).max
    order = np.sort(image, axis=None)
    by_ring = {ring: measure_contrast(image, instances, ring=ring, mask=mask) for ring in rings}
    for k, instance in enumerate(instances):
        x1, y1, x2, y2 = instance.box
        facts = TargetFacts(index, (float(x1), float(y1), float(x2), float(y2)), float(instance.area))
        for ring, contrasts in by_ring.items():
            scr = contrasts[k].scr
            facts.scr[ring] = None if scr is None else float(scr)
        ten = by_ring[10][k]
        if ten.ring_pixels:
            facts.contrast = ten.target_mean - ten.ring_mean
        brightest = image[y1:y2, x1:x2][instance.mask].max()
        facts.brighter = float(len(order) - np.searchsorted(order, brightest, side="right")) / len(order)
        facts.saturated = bool(brightest == top)
        out.targets.append(_oddities(facts, record))
    return out


def _oddities(target: TargetFacts, record: Record) -> TargetFacts:
    height, width = record.size
    x1, y1, x2, y2 = target.box
    if target.area > max(LARGE_AREA, LARGE_SHARE * height * width):
        target.odd.append("large")
    if target.area == 1:
        target.odd.append("one pixel")
    if x1 <= 0 or y1 <= 0 or x2 >= width or y2 >= height:
        target.odd.append("border")
    if 10 in target.scr:
        scr = target.scr[10]
        if scr is None:
            target.odd.append("SCR undefined")
        elif abs(scr) < INVISIBLE:
            target.odd.append("invisible")
    return target


def _exact(images: Sequence[ImageFacts]) -> list[list[int]]:
    """Groups of images that are the same to the pixel."""
    same: dict[str, list[int]] = defaultdict(list)
    for k, facts in enumerate(images):
        if facts.digest is not None:
            same[facts.digest].append(k)
    return [members for members in same.values() if len(members) > 1]


def _twins(rows: Sequence[tuple[int, Record]], images: Sequence[ImageFacts]) -> list[tuple[int, int, float]]:
    """Twin pairs, those inside one sequence left out: neighbouring frames are alike by nature."""
    known = [k for k, facts in enumerate(images) if facts.thumb is not None]
    if not known:
        return []
    vectors = np.array([images[k].thumb for k in known])
    names: dict[Any, int] = {}
    apart = []
    for k in known:
        number, record = rows[k]
        key = (number, record.sequence) if record.sequence is not None else k
        apart.append(names.setdefault(key, len(names)))
    return [(known[i], known[j], c) for i, j, c in twin_pairs(vectors, apart=apart)]


def _grouped(count: int, pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    members: dict[int, list[int]] = defaultdict(list)
    for k, leader in enumerate(group(count, pairs)):
        members[leader].append(k)
    return [found for found in members.values() if len(found) > 1]


# -------------------------------------------------------------------------------------------- the facts


def _facts(
    datasets: Sequence[Dataset],
    rows: Sequence[tuple[int, Record]],
    images: Sequence[ImageFacts],
    exact: Sequence[Sequence[int]],
    pairs: Sequence[tuple[int, int, float]],
    groups: Sequence[Sequence[int]],
    rings: Sequence[int],
) -> dict[str, Any]:
    names = unique_names(datasets)

    def label(k: int) -> dict[str, str]:
        return {"set": names[rows[k][0]], "id": rows[k][1].id}

    sets: list[dict[str, Any]] = []
    for d, dataset in enumerate(datasets):
        mine = [k for k, (number, _) in enumerate(rows) if number == d]
        info = describe(dataset, [images[k].look for k in mine])
        odd: list[dict[str, Any]] = [
            {"id": rows[k][1].id, "box": list(t.box), "area": t.area, "scr": t.scr.get(10), "why": t.odd}
            for k in mine
            for t in images[k].targets
            if t.odd
        ]
        sets.append(
            {
                "name": names[d],
                "info": info,
                "leaks": leaks(d, dataset, rows, exact, pairs),
                "suspicious_targets": odd,
                "suspicious": {why: sum(why in o["why"] for o in odd) for why in _reasons(odd)},
                "wrong_pairs": wrong_pairs(dataset, [(k, rows[k][1]) for k in mine], images),
                "statistics": statistics([images[k] for k in mine], [rows[k][1] for k in mine], rings),
            }
        )
    crossing = [p for p in pairs if rows[p[0]][0] != rows[p[1]][0]]
    return {
        "criteria": {
            "twins": "correlation of 32x32 area averages above 0.995, not inside one sequence",
            "large": f"above {LARGE_SHARE:.2%} of the image and above {LARGE_AREA} px",
            "invisible": f"|SCR| at ring 10 below {INVISIBLE:g}",
            "rings": list(rings),
        },
        "sets": sets,
        "exact_repetitions": [[label(k) for k in members] for members in exact],
        "twin_pairs": [{"a": label(i), "b": label(j), "correlation": round(c, 6)} for i, j, c in pairs],
        "twin_groups": [[label(k) for k in members] for members in groups],
        "twin_pairs_across_sets": len(crossing),
        "errors": sum(s["info"]["errors"] for s in sets),
        "warnings": sum(s["info"]["warnings"] for s in sets),
    }


def unique_names(datasets: Sequence[Dataset]) -> list[str]:
    """The folders' names, numbered where two are the same."""
    from .make import set_names

    return set_names(datasets)


def _reasons(odd: Sequence[dict[str, Any]]) -> list[str]:
    return sorted({why for one in odd for why in one["why"]})


def leaks(
    number: int,
    dataset: Dataset,
    rows: Sequence[tuple[int, Record]],
    exact: Sequence[Sequence[int]],
    pairs: Sequence[tuple[int, int, float]],
) -> list[dict[str, Any]]:
    """Per scheme and ordered pair of parts: images of the one with a twin, or repetition, in the other."""
    same = [(a, b) for members in exact for n, a in enumerate(members) for b in members[n + 1 :]]
    out = []
    for scheme, parts in dataset.schemes().items():
        names = list(parts)
        for n, first in enumerate(names):
            for second in names[n + 1 :]:
                row: dict[str, Any] = {"scheme": scheme, "of": second, "in": first}
                for kind, found in (("twins", [(i, j) for i, j, _ in pairs]), ("exact", same)):
                    hit = set()
                    for i, j in found:
                        if rows[i][0] != number or rows[j][0] != number:
                            continue
                        a, b = rows[i][1].splits.get(scheme), rows[j][1].splits.get(scheme)
                        if (a, b) == (first, second):
                            hit.add(rows[j][1].id)
                        elif (b, a) == (first, second):
                            hit.add(rows[i][1].id)
                    row[kind] = sorted(hit)
                out.append(row)
    return out


def wrong_pairs(
    dataset: Dataset, rows: Sequence[tuple[int, Record]], images: Sequence[ImageFacts]
) -> list[dict[str, Any]]:
    """Signs that masks belong to other images: repeated masks, contradictions, masks shifted by one file."""
    out: list[dict[str, Any]] = []
    by_mask: dict[str, list[tuple[int, Record]]] = defaultdict(list)
    by_image: dict[str, list[tuple[int, Record]]] = defaultdict(list)
    for k, record in rows:
        digest, mask = images[k].digest, images[k].mask_digest
        if mask is not None and record.sequence is None:
            by_mask[mask].append((k, record))
        if digest is not None and record.mask is not None:
            by_image[digest].append((k, record))
    for members in by_mask.values():
        if len({images[k].digest for k, _ in members}) > 1:
            text = "different images have the same mask to the pixel"
            out.append({"kind": "mask-repeated", "ids": [r.id for _, r in members], "message": text})
    for members in by_image.values():
        if len({images[k].mask_digest for k, _ in members}) > 1:
            text = "the same image has different masks"
            out.append({"kind": "labels-differ", "ids": [r.id for _, r in members], "message": text})
    shift = shifted_masks([r for k, r in rows if images[k].mask_digest is not None])
    if shift is not None:
        own, other, count = shift
        text = (
            f"of {count} images, masks fit the neighbouring image better than their own"
            f" (median SCR {other:.1f} against {own:.1f}): are the files numbered alike?"
        )
        out.append({"kind": "masks-shifted", "ids": [], "message": text})
    return out


def shifted_masks(records: Sequence[Record]) -> tuple[float, float, int] | None:
    """Whether the masks of a sample fit the next or previous image of the same size better than their own.

    Returns
    -------
    (median SCR on their own images, the larger median on neighbours, images compared), or None where the
    masks fit, or fewer than 8 images can be compared.
    """
    step = max(1, len(records) // SAMPLE)
    scores: dict[int, list[float]] = {0: [], -1: [], 1: []}
    for k in range(1, len(records) - 1, step):
        trio = records[k - 1 : k + 2]
        if len({r.size for r in trio}) > 1 or trio[1].mask is None:
            continue
        try:
            mask = trio[1].read_mask()
            fits = [_fit(record.read_image(), mask) for record in trio]
        except IrstkitError:  # unreadable files are listed elsewhere
            continue
        for shift, value in zip((-1, 0, 1), fits, strict=True):
            if value is not None:
                scores[shift].append(value)
    if min(len(values) for values in scores.values()) < 8:
        return None
    medians = {shift: float(np.median(values)) for shift, values in scores.items()}
    best = max(medians[-1], medians[1])
    return (medians[0], best, len(scores[0])) if best > 1.5 * medians[0] and best > 1.5 else None


def _fit(image: NDArray, mask: NDArray[np.bool_]) -> float | None:
    found: list[Instance] = mask_to_instances(mask)
    values = [abs(c.scr) for c in measure_contrast(image, found, mask=mask) if c.scr is not None]
    return float(np.median(values)) if values else None


# ------------------------------------------------------------------------------------------- statistics


def statistics(
    images: Sequence[ImageFacts], records: Sequence[Record], rings: Sequence[int]
) -> dict[str, Any]:
    """Distributions over the targets of a set, as a whole and by scene."""
    out: dict[str, Any] = {"all": _distribution(images, records, rings)}
    scenes = sorted({r.scene for r in records if r.scene is not None})
    for scene in scenes:
        chosen = [k for k, r in enumerate(records) if r.scene == scene]
        out[scene] = _distribution([images[k] for k in chosen], [records[k] for k in chosen], rings)
    return out


def _distribution(
    images: Sequence[ImageFacts], records: Sequence[Record], rings: Sequence[int]
) -> dict[str, Any]:
    targets = [(t, r) for facts, r in zip(images, records, strict=True) for t in facts.targets]
    labelled = [facts for facts in images if facts.look.boxes is not None]
    counts = np.bincount([len(facts.targets) for facts in labelled]) if labelled else np.zeros(0, int)
    brighter = np.array([t.brighter for t, _ in targets if t.brighter is not None])
    signed = [t.scr.get(10) for t, _ in targets]
    defined = [s for s in signed if s is not None]
    out: dict[str, Any] = {
        "images": len(images),
        "targets": len(targets),
        "targets_per_image": {str(n): int(c) for n, c in enumerate(counts.tolist()) if c},
        "area": percentiles([t.area for t, _ in targets]),
        "width": percentiles([t.box[2] - t.box[0] for t, _ in targets]),
        "height": percentiles([t.box[3] - t.box[1] for t, _ in targets]),
        "scr": {
            str(ring): percentiles([abs(s) for t, _ in targets if (s := t.scr.get(ring)) is not None])
            for ring in rings
        },
        "contrast": percentiles([abs(t.contrast) for t, _ in targets if t.contrast is not None]),
        "centre_x": percentiles([(t.box[0] + t.box[2]) / 2 / r.size[1] for t, r in targets if r.size[1]]),
        "centre_y": percentiles([(t.box[1] + t.box[3]) / 2 / r.size[0] for t, r in targets if r.size[0]]),
    }
    if len(brighter):
        out["outside_brightest_10_percent"] = round(float((brighter > 0.1).mean()), 4)
        out["saturated"] = round(float(np.mean([t.saturated for t, _ in targets])), 4)
    if defined:
        out["dark"] = round(float(np.mean([s < 0 for s in defined])), 4)
    return out


def percentiles(values: Sequence[float]) -> dict[str, float] | None:
    """The 5, 25, 50, 75 and 95 % points, as ``{"p5": ...}``; None of nothing."""
    if not values:
        return None
    points = np.percentile(np.asarray(values, float), PERCENTILES)
    return {f"p{p}": round(float(v), 4) for p, v in zip(PERCENTILES, points, strict=True)}
