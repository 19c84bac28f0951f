"""Mixed ratios: one network trained on real fractions F of N images, to a table and a plot.

DNA-Net's Table VIII (Li et al., IEEE TIP 2023): with few real images, synthetic ones help. All rows run the
same number of optimiser steps, are selected on the same validation part, and scored on the same test list;
for one seed the draws are nested over fractions.
"""

from __future__ import annotations

import csv
import io
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..annotate.console import note, progress
from ..annotate.errors import IrstkitError, require
from ..annotate.files import atomic_path, occupied, read_json, write_atomic, write_json
from ..datasets.readers import open_dataset
from .checkpoint import load_checkpoint
from .evaluate import labelled_part
from .evaluate_boxes import labelled_boxes
from .metrics import Settings as MetricSettings
from .models import task_of_model
from .settings import Settings
from .sweep_cells import Cell, Plan, at_once, cells_of

NUMBERS = {
    "mask": ("iou", "niou", "pd", "fa", "precision", "recall", "f1"),
    "boxes": ("ap50", "pd", "fa", "precision", "recall", "f1"),
}
SHOWN = {
    "mask": (("IoU %", "iou", 100), ("nIoU %", "niou", 100), ("Pd %", "pd", 100), ("Fa x 1e-6", "fa", 1e6),
             ("F1 %", "f1", 100)),
    "boxes": (("AP50 %", "ap50", 100), ("P %", "precision", 100), ("R %", "recall", 100), ("F1 %", "f1", 100),
              ("Pd %", "pd", 100), ("Fa x 1e-6", "fa", 1e6)),
}  # fmt: skip


def sweep(
    settings: Settings,
    plan: Plan,
    out: str | Path,
    *,
    metrics: MetricSettings | None = None,
    device: str = "auto",
    max_minutes: float | None = None,
    jobs: int = 1,
    threads: int | None = None,
) -> dict[str, Any]:
    """Train and score every (fraction, seed) that is not done yet; write the table and the plot.

    ``out`` gets ``runs/FRACTION-seedS/`` (each with ``result.json``), ``sweep.json``, ``sweep.csv``,
    ``sweep.md`` and ``sweep.png``. Called again after it was stopped, it goes on where it was: finished runs
    are kept, one under way resumes from its last checkpoint.

    Parameters
    ----------
    settings
        Its ``steps`` holds for every run, its ``seed`` is the first seed.
    max_minutes
        Of this call's training; None: no limit.
    jobs, threads
        Runs at a time, each in a process of its own with ``threads`` of PyTorch (None: its share of the cores). The
        numbers are those of one after the other with as many threads.

    Raises
    ------
    IrstkitError
        When any row is impossible (said before the first run starts), or ``out`` holds another sweep.
    """
    out = Path(out)
    if settings.steps is None:
        raise IrstkitError("a sweep compares runs of the same number of steps", hint="give --steps K")
    metrics = metrics or MetricSettings()
    test = open_dataset(plan.test or plan.real)
    task = task_of_model(settings.model)
    records, test_split = (labelled_boxes if task == "boxes" else labelled_part)(test, plan.test_split)
    cells = cells_of(settings, plan, out, test_split=test_split, metrics=metrics, task=task, device=device)
    materials = [cell.material() for cell in cells]  # every impossible row is said now
    for material in materials:
        known = set(material.ids.get(test.root.resolve().name, ())) & {r.id for r in records}
        if known:
            raise IrstkitError(f"{len(known)} images of {test_split!r} are trained on", path=test.root)
    if settings.init is not None:
        before = load_checkpoint(settings.init)["seen"].get(test.root.resolve().name, ())
        if known := set(before) & {r.id for r in records}:
            raise IrstkitError(
                f"was trained or selected on {len(known)} images of {test_split}", path=settings.init,
                hint="no test: another --init or --test-split",
            )  # fmt: skip
    described = {
        "settings": {k: v for k, v in settings.as_dict().items() if k != "seed"},
        "total": plan.total,
        "data": {c: materials[0].about[c]["split_hash"] for c in ("real", "synthetic")},
        "test": {"name": test.root.resolve().name, "split": test_split, "images": len(records)},
        "metrics": {k: getattr(metrics, k) for k in ("threshold", "distance", "matching", "connectivity")},
    }
    _check_same(out, described)
    with occupied(out):
        deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
        results = [cell.finished(material) for cell, material in zip(cells, materials, strict=True)]
        todo = [k for k, result in enumerate(results) if result is None]
        number = {cells[k].folder: f"run {k + 1} of {len(cells)}" for k in todo}
        if jobs > 1 and len(todo) > 1:
            threads = threads or max(1, (os.cpu_count() or 1) // jobs)
            note(f"{len(todo)} runs, {jobs} at a time, {threads} threads each")

            def ended(cell: Cell, finished: bool) -> None:
                note(f"{number[cell.folder]}: {cell.name}, {'done' if finished else 'stopped'}")
                bar.advance()

            with progress("sweep", len(todo), unit="runs") as bar:
                complete = at_once(
                    [cells[k] for k in todo], jobs, threads=threads, deadline=deadline, ended=ended
                )
            results = [cell.finished(material) for cell, material in zip(cells, materials, strict=True)]
        else:
            complete = True
            for k in todo:
                note(f"{number[cells[k].folder]}: {cells[k].name}")
                left = None if deadline is None else max(1e-3, (deadline - time.monotonic()) / 60)
                results[k] = cells[k].run(materials[k], left)
                if results[k] is None:
                    complete = False
                    break
        if not complete:
            note("the sweep stops here; the same command goes on")
        rows = [result for result in results if result is not None]
        return _write(out, described, rows, task, complete=complete)


def _check_same(out: Path, described: dict[str, Any]) -> None:
    """Refuse a folder that holds anything but the same sweep (other fractions and seeds may be added)."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        write_json(out / "sweep.json", {"complete": False, **described}, indent=2)
        return
    if not (out / "sweep.json").exists():
        raise IrstkitError("not empty, and not the folder of a sweep", path=out)
    former = read_json(out / "sweep.json")
    for key, value in described.items():
        before = former.get(key)
        if before == value:
            continue
        what = f"{key} {before!r}, now {value!r}"
        if isinstance(before, dict) and isinstance(value, dict):
            differing = [k for k in {**before, **value} if before.get(k) != value.get(k)]
            what = ", ".join(f"{k} {before.get(k)!r}, now {value.get(k)!r}" for k in differing)
        raise IrstkitError(f"holds a sweep of other {key}: {what}", path=out, hint="name another --out")


def _write(
    out: Path, described: dict[str, Any], rows: Sequence[dict[str, Any]], task: str, *, complete: bool
) -> dict[str, Any]:
    table, columns = summary(rows, task), ("fraction", "seed", "step", "images", *NUMBERS[task])
    report = {
        "complete": complete,
        "task": task,
        **described,
        "split_hash": rows[0]["split_hash"] if rows else None,
        "table": table,
        "runs": [{k: r[k] for k in columns} for r in rows],
    }
    write_json(out / "sweep.json", report, indent=2)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(report["runs"])
    write_atomic(out / "sweep.csv", text.getvalue())
    write_atomic(out / "sweep.md", markdown(report))
    if table:
        plot(report, out / "sweep.png")
    return report


def summary(rows: Sequence[dict[str, Any]], task: str = "mask") -> list[dict[str, Any]]:
    """A row a fraction: its seeds, and mean and sample deviation of each number (None where undefined)."""
    table: list[dict[str, Any]] = []
    for fraction in dict.fromkeys(r["fraction"] for r in rows):
        group = [r for r in rows if r["fraction"] == fraction]
        line: dict[str, Any] = {"fraction": fraction, "seeds": len(group)}
        for key in ("real", "synthetic"):
            line[key] = group[0]["trained_on"][key]["used"]
        for key in NUMBERS[task]:
            values = [r[key] for r in group if r[key] is not None]
            line[key] = statistics.fmean(values) if len(values) == len(group) else None
            line[f"{key}_sd"] = statistics.stdev(values) if len(values) == len(group) > 1 else None
        table.append(line)
    return table


def markdown(report: dict[str, Any]) -> str:
    """The table for people, with what it holds for."""

    def cell(line: dict[str, Any], key: str, scale: float) -> str:
        if line[key] is None:
            return "undefined"
        deviation = line[f"{key}_sd"]
        return f"{line[key] * scale:.2f}" + ("" if deviation is None else f" ± {deviation * scale:.2f}")

    test, s = report["test"], report["settings"]
    task = report.get("task", "mask")
    head = ["real fraction", "real", "synthetic", "seeds", *(word for word, _, _ in SHOWN[task])]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for line in report["table"]:
        cells = [cell(line, k, scale) for _, k, scale in SHOWN[task]]
        lines.append(
            "| "
            + " | ".join([str(line[k]) for k in ("fraction", "real", "synthetic", "seeds")] + cells)
            + " |"
        )
    m = report["metrics"]
    how = (
        f"threshold > {m['threshold']:g}, matching {m['matching']} below {m['distance']:g} px, "
        f"{m['connectivity']}-connected."
    )
    if task == "boxes":
        how = (
            "precision, recall and F1 at the score with the largest F1 on the run's validation part, a hit is IoU "
            f"0.5 or more; Pd and Fa by centres nearer than {m['distance']:g} px."
        )
    best = "AP50" if task == "boxes" else "IoU"
    share = s.get("real_share")
    how_often = "" if share is None else f"; {100 * share:g} % of the samples are real in rows of both"
    lines += [
        "",
        f"{s['model']}, {s['steps']} steps of batch {s['batch']} in every row, N = {report['total']}{how_often}; mean ± sample "
        f"deviation over seeds; best checkpoint by {best} on the validation part of the real training list.",
        f"Scored on {test['images']} images of {test['name']} {test['split']} (hash {report['split_hash']}) at native "
        f"size: {how}",
    ]
    if not report["complete"]:
        lines.append("**Not complete: runs are missing.**")
    return "\n".join(lines) + "\n"


def plot(report: dict[str, Any], path: Path) -> None:
    """IoU (AP50) and Pd against the fraction, with deviations: numbers by place, ``real`` at the right end."""
    require("matplotlib", "train")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    table = report["table"]
    places = range(len(table))
    curves = [("iou", "IoU", "o"), ("pd", "Pd", "s"), ("niou", "nIoU", "^")]
    if report.get("task") == "boxes":
        curves = [("ap50", "AP50", "o"), ("pd", "Pd", "s"), ("f1", "F1", "^")]
    for key, word, marker in curves:
        values = [float("nan") if line[key] is None else 100 * line[key] for line in table]
        errors = [100 * (line[f"{key}_sd"] or 0) for line in table]
        axes.errorbar(places, values, yerr=errors, marker=marker, capsize=3, label=word)
    axes.set_xticks(
        list(places), [f"{line['fraction']}\n({line['real']} + {line['synthetic']})" for line in table]
    )
    axes.set_xlabel("real fraction (real + synthetic images)")
    axes.set_ylabel("%")
    axes.set_title(
        f"{report['settings']['model']}, {report['settings']['steps']} steps, {report['test']['name']}"
    )
    axes.grid(alpha=0.3)
    axes.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, metadata={"Software": None})
