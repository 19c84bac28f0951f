"""Several detectors on one split: a table, their ROC curves, and what each hits, misses and imagines."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..annotate.errors import IrstkitError
from ..annotate.files import atomic_folder, atomic_path, write_atomic, write_json
from ..datasets.readers import open_dataset
from ..datasets.records import Record
from .evaluate import Scores, labelled_part, report, score, staircase
from .metrics import Settings, evaluate_image
from .predict import PREDICTED, TRUTH
from .sources import Source, open_source

COLUMNS = ("run", "iou", "niou", "pd", "fa", "precision", "recall", "f1", "pixel_auc", "target_auc")
SIDE = 48
"""Pixels of a gallery cut-out."""
ROWS = 8

Place = tuple[str, float, float]
"""Image id and centre (x, y)."""


def compare(
    runs: Sequence[str | Path],
    data: str | Path,
    out: str | Path,
    split: str | None = None,
    *,
    settings: Settings | None = None,
    device: str = "auto",
    padding: str = "reflect",
    kind: str = "auto",
) -> dict[str, Any]:
    """Score each run (anything that :func:`.sources.open_source` takes) and write to the folder ``out``:

    ``compare.json``, ``compare.csv``, ``compare.md``, ``roc.csv`` and ``roc.png`` (Pd against Fa), and
    ``hits.png``, ``misses.png``, ``false_alarms.png``, where there are such: cut-outs of 48 x 48 pixels, a
    column a run, those first on which the runs differ most.
    """
    settings = settings or Settings()
    check_new(out)
    opened = open_dataset(data)
    records, name = labelled_part(opened, split)
    names = _names(runs)
    with atomic_folder(out) as folder:  # a place that cannot be written is told first
        sources: list[Source] = [
            open_source(r, records, device=device, padding=padding, kind=kind) for r in runs
        ]  # a run that is wrong is said before the first is scored
        results: list[dict[str, Any]] = []
        scored: list[Scores] = []
        for label, source in zip(names, sources, strict=True):
            source.name = label
            scores = score(source, records, settings, curves=True, keep=True)
            results.append({"run": label, **report(source, opened, records, name, scores)})
            scored.append(scores)
        content = {"split": name, "split_hash": results[0]["split_hash"], "runs": results}
        write_json(folder / "compare.json", content, indent=2)
        rows = [{k: r.get(k, r["roc"].get(k)) for k in COLUMNS} for r in results]
        write_atomic(folder / "compare.csv", _csv(COLUMNS, rows))
        write_atomic(folder / "compare.md", markdown(results))
        curves = {
            label: staircase(s.target) for label, s in zip(names, scored, strict=True) if s.target is not None
        }
        points = [
            {"run": label, "fa": fa, "pd": pd, "threshold": t}
            for label, rows in curves.items()
            for fa, pd, t in rows
        ]
        write_atomic(folder / "roc.csv", _csv(("run", "fa", "pd", "threshold"), points))
        _plot(curves, results, folder / "roc.png")
        for title, places in choose(records, scored, settings).items():
            if places:
                _gallery(title, places, records, names, scored, folder / f"{title}.png")
    return content


def check_new(out: str | Path | None) -> None:
    """Refuse an output folder that holds something, before anything is predicted."""
    if out is not None and Path(out).exists() and (not Path(out).is_dir() or any(Path(out).iterdir())):
        raise IrstkitError("exists and is not empty: not overwritten", path=out, hint="name another --out")


def choose(records: Sequence[Record], scored: Sequence[Scores], settings: Settings) -> dict[str, list[Place]]:
    """Places for the galleries, at most 8 each.

    Targets hit (missed) by some runs only come first, then those hit (missed) by all; false alarms by area.
    """
    hits: dict[tuple[Any, int], tuple[int, Place]] = {}
    for scores in scored:
        for row in scores.meter.target_rows:
            count, _ = hits.get((row.id, row.target), (0, None))
            hits[row.id, row.target] = (count + row.detected, (str(row.id), row.x, row.y))
    full = len(scored)
    ranked = sorted(hits.values(), key=lambda v: (v[0] in (0, full), v[1]))
    found: dict[str, list[Place]] = {
        "hits": [place for count, place in ranked if count > 0][:ROWS],
        "misses": [place for count, place in ranked if count < full][:ROWS],
    }
    false: list[tuple[int, Place]] = []
    by_id = {r.id: r for r in records}
    for scores in scored:
        for image in scores.meter.rows:
            if not image.false_components:
                continue
            id = str(image.id)
            result = evaluate_image(scores.maps[id], by_id[id].read_mask(), settings, id=id)
            centres = result.predictions.centroids()
            false += [
                (int(result.predictions.area[k]), (id, *centres[k]))
                for k in (int(f) for f in result.match.false)
            ]
    false.sort(key=lambda v: (-v[0], v[1]))
    places: list[Place] = []
    for _, (id, x, y) in false:
        near = any(i == id and abs(a - x) < SIDE / 2 and abs(b - y) < SIDE / 2 for i, a, b in places)
        if not near and len(places) < ROWS:
            places.append((id, x, y))
    found["false_alarms"] = places
    return found


def cut_out(array: NDArray, x: float, y: float, side: int = SIDE) -> NDArray:
    """A (side, side) cut around (x, y), moved inside the image; smaller images give all they have."""
    height, width = array.shape[:2]
    top = int(np.clip(round(y) - side // 2, 0, max(0, height - side)))
    left = int(np.clip(round(x) - side // 2, 0, max(0, width - side)))
    return array[top : top + side, left : left + side]


def _outlined(
    image: NDArray, mask: NDArray[np.bool_] | None, colour: tuple[int, int, int]
) -> NDArray[np.uint8]:
    """A cut enlarged 6 times, stretched to its own range, with the outline of a mask."""
    low, high = float(image.min()), float(image.max())
    gray = ((image - low) * (255 / max(high - low, 1))).astype(np.uint8)
    size = (image.shape[1] * 6, image.shape[0] * 6)
    canvas = cv2.cvtColor(cv2.resize(gray, size, interpolation=cv2.INTER_NEAREST), cv2.COLOR_GRAY2RGB)
    if mask is not None and mask.any():
        large = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        edge = cv2.dilate(large, np.ones((3, 3), np.uint8)) > large
        canvas[edge] = colour
    return np.asarray(canvas, np.uint8)


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _gallery(
    title: str,
    places: Sequence[Place],
    records: Sequence[Record],
    names: Sequence[str],
    scored: Sequence[Scores],
    path: Path,
) -> None:
    by_id = {r.id: r for r in records}
    columns = 1 + len(scored)
    figure = _figure(1.9 * columns + 0.6, 1.9 * len(places) + 0.5)
    axes = figure.subplots(len(places), columns, squeeze=False)
    for line, (id, x, y) in zip(axes, places, strict=True):
        image, truth = by_id[id].read_image(), by_id[id].read_mask()
        shown = [(truth, TRUTH), *((s.maps[id], PREDICTED) for s in scored)]
        for axis, (mask, colour) in zip(line, shown, strict=True):
            axis.imshow(_outlined(cut_out(image, x, y), cut_out(mask, x, y), colour))
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(f"{id}\n({x:.0f}, {y:.0f})", fontsize=7)
    for axis, text in zip(axes[0], ("truth", *names), strict=True):
        axis.set_title(text, fontsize=8)
    figure.suptitle(title.replace("_", " "), fontsize=10)
    _save(figure, path)


def _plot(
    curves: dict[str, list[tuple[float, float, float]]], results: Sequence[dict[str, Any]], path: Path
) -> None:
    figure = _figure(7, 4.5)
    axes = figure.add_subplot()
    floor = 1 / max(r["pixels"] for r in results)
    for (label, rows), result in zip(curves.items(), results, strict=True):
        fa = [max(r[0], floor) for r in rows]
        (line,) = axes.step([*fa, 1e-2], [*(r[1] for r in rows), rows[-1][1]], where="post", label=label)
        if result["pd"] is not None:
            axes.plot(max(result["fa"], floor), result["pd"], "o", color=line.get_color())
    axes.set_xscale("log")
    axes.set_xlim(floor, 1e-2)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("Fa (false pixels / pixels)")
    axes.set_ylabel("Pd")
    axes.set_title(f"{results[0]['data']} {results[0]['split']}; dots: threshold {results[0]['threshold']:g}")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, metadata={"Software": None})


def markdown(results: Sequence[dict[str, Any]]) -> str:
    """The table for people."""

    def show(value: float | None, scale: float = 100) -> str:
        return "undefined" if value is None else f"{value * scale:.2f}"

    lines = [
        "| run | IoU % | nIoU % | Pd % | Fa x 1e-6 | F1 % | pixel AUC % | target AUC (Fa to 1e-4) % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        cells = [show(r["iou"]), show(r["niou"]), show(r["pd"]), show(r["fa"], 1e6), show(r["f1"])]
        cells += [show(r["roc"]["pixel_auc"]), show(r["roc"]["target_auc"])]
        mark = " (trained on these images)" if r["seen_in_training"] else ""
        lines.append("| " + " | ".join([r["run"] + mark, *cells]) + " |")
    r = results[0]
    lines += [
        "",
        f"{r['images']} images of {r['data']} {r['split']} (hash {r['split_hash']}), native size; threshold > "
        f"{r['threshold']:g}, matching {r['matching']} below {r['distance']:g} px, {r['connectivity']}-connected.",
    ]
    return "\n".join(lines) + "\n"


def _csv(columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _names(runs: Sequence[str | Path]) -> list[str]:
    """Short names that tell the runs apart: as many last parts of the paths as it takes."""
    paths = [Path(r).parts for r in runs]
    if len(set(paths)) < len(paths):
        raise IrstkitError("a run is named twice")
    for count in range(1, max(map(len, paths)) + 1):
        names = ["/".join(p[-count:]) for p in paths]
        if len(set(names)) == len(names):
            return names
    return [str(r) for r in runs]
