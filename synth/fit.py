"""A preset's tables measured from a data set with masks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..annotate.console import track
from ..annotate.errors import IrstkitError
from ..annotate.masks import mask_to_instances
from ..annotate.scr import measure_contrast
from ..datasets.records import Record

SILHOUETTE_WEIGHTS: dict[str, dict[str, float]] = {
    "all": {"aircraft": 5, "helicopter": 1, "uav": 2, "bird": 1, "ship": 0.5, "vehicle": 0.5},
    "cloud": {"aircraft": 6, "helicopter": 1, "uav": 2, "bird": 1},
    "city": {"aircraft": 3, "helicopter": 2, "uav": 3, "bird": 1, "vehicle": 1},
    "field": {"aircraft": 4, "helicopter": 2, "uav": 2, "bird": 1, "vehicle": 2},
    "sea": {"ship": 5, "aircraft": 2, "helicopter": 1, "uav": 1, "bird": 1},
    "highlight": {"aircraft": 5, "helicopter": 1, "uav": 2, "bird": 1},
}
"""Shapes are no property that masks tell: these weights are our choice, aircraft foremost as in NUDT-SIRST."""


@dataclass(frozen=True)
class Measured:
    """One target: SCR unsigned, difference and deviation over the full range, height of its box's centre."""

    scene: str | None
    area: int
    scr: float | None
    difference: float
    height: float
    count: int


def measure(
    records: Iterable[Record], *, ring: int = 10, scenes: dict[str, str] | None = None
) -> list[Measured]:
    """Every 8-connected target of the records' masks; ``scenes`` maps record ids to scenes."""
    out: list[Measured] = []
    for record in track(list(records), "Measuring"):
        image, mask = record.read_image(), record.read_mask()
        top = float(np.iinfo(image.dtype).max)
        instances = mask_to_instances(mask)
        scene = (scenes or {}).get(record.id) or record.scene
        for instance, found in zip(
            instances, measure_contrast(image, instances, ring=ring, mask=mask), strict=True
        ):
            out.append(
                Measured(
                    scene,
                    instance.area,
                    None if found.scr is None else abs(found.scr),
                    (found.target_mean - found.ring_mean) / top,
                    (instance.box[1] + instance.box[3]) / 2 / image.shape[0],
                    len(instances),
                )
            )
    return out


def _quantiles(values: Sequence[float], digits: int, points: int = 41) -> dict[str, list[float]]:
    numbers = np.quantile(np.asarray(values, dtype=float), np.linspace(0, 1, points))
    return {"quantiles": [round(float(v), digits) for v in numbers]}


MIN_SCR = 0.3
ENOUGH = 20


def table(rows: Sequence[Measured], scene: str) -> dict[str, Any]:
    """One scene's table. SCR below 0.3 cannot be told from nothing and is raised to it."""
    counts: dict[int, float] = {}
    for row in rows:
        counts[row.count] = counts.get(row.count, 0.0) + 1.0 / row.count
    order = sorted(counts)
    return {
        "count": {"values": order, "weights": [round(counts[k]) for k in order]},
        "area": _quantiles([r.area for r in rows], 0),
        "scr": _quantiles([max(r.scr, MIN_SCR) for r in rows if r.scr is not None], 3),
        "height": _quantiles([r.height for r in rows], 3, 21),
        "silhouettes": SILHOUETTE_WEIGHTS[scene],
    }


def fit(rows: Sequence[Measured], name: str, description: str, *, ring: int = 10) -> dict[str, Any]:
    """A preset in plain values from measured targets.

    Scenes with fewer than 20 targets have the numbers of all targets, with their own silhouettes.

    Raises
    ------
    IrstkitError
        When there are fewer than 20 targets in all.
    """
    if len(rows) < ENOUGH:
        raise IrstkitError(
            f"{len(rows)} targets are too few to fit a preset to", hint=f"at least {ENOUGH} are needed"
        )
    scenes = sorted({r.scene for r in rows if r.scene})
    by_scene = {s: [r for r in rows if r.scene == s] for s in SILHOUETTE_WEIGHTS}
    images = {s: sum(1.0 / r.count for r in by_scene[s]) for s in scenes}
    tables = {"all": table(rows, "all")}
    for scene, part in by_scene.items():
        if scene != "all":
            tables[scene] = table(part if len(part) >= ENOUGH else rows, scene)
    differences = np.abs([r.difference for r in rows])
    low, high = np.quantile(differences, (0.01, 0.995))
    out: dict[str, Any] = {"name": name, "description": description}
    if scenes and all(r.scene for r in rows):
        out["scene_mix"] = {s: round(images[s]) for s in scenes}
    out["scenes"] = tables
    out["kinds"] = [
        {"up_to": 9, "point": 1.0},
        {"up_to": 20, "spot": 1.0},
        {"up_to": 45, "spot": 0.75, "extended": 0.25},
        {"extended": 1.0},
    ]
    out["contrast"] = {
        "ring": ring,
        "limits": [round(float(low), 4), round(min(float(high), 0.95), 4)],
        "wanted": _quantiles(differences.tolist(), 4, 21),
        "dark": round(float(np.mean([r.difference < 0 for r in rows])), 4),
    }
    return out


def to_yaml(values: dict[str, Any]) -> str:
    """A preset's file: lists on one line, keys in order."""
    import yaml

    class Dumper(yaml.SafeDumper):
        pass

    Dumper.add_representer(
        list, lambda dumper, value: dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=True)
    )
    return yaml.dump(values, Dumper=Dumper, sort_keys=False, width=110, allow_unicode=True)
