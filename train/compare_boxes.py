"""Detectors and segmenters in one table: AP50, an operating point, Pd and Fa by centres; curves and sequences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..annotate.files import write_json
from ..datasets.records import Dataset
from .compare import _csv, _figure, _names, _save
from .detection_metrics import PUBLISHED
from .evaluate_boxes import is_box_checkpoint, score_boxes
from .unseen import left_out_line

OURS = {
    "AP50 %": ("ap50", 100),
    "AP50:95 %": ("ap", 100),
    "P %": ("operating.precision", 100),
    "R %": ("operating.recall", 100),
    "F1 %": ("operating.f1", 100),
    "false alarms / frame": ("operating.false_alarms_per_frame", 1),
    "Pd %": ("centre.pd", 100),
    "Fa x 1e-6": ("centre.fa", 1e6),
    "IoU %": ("masks.iou", 100),
}
PUBLISHED_COLUMNS = {
    "mAP50": ("published.sst_map50", 100),
    "Pr": ("published.sst_pr", 100),
    "Re": ("published.sst_re", 100),
    "F1": ("published.sst_f1", 100),
}
SEQUENCE = ("sequence", "frames", "targets", "ap50", "precision", "recall", "f1", "false_alarms",
            "false_alarms_per_frame", "pd")  # fmt: skip


def compare_boxes(
    paths: Sequence[str | Path], data: Dataset, split: str | None = None, **how: Any
) -> dict[str, Any]:
    """Score each of ``paths`` as boxes on one split (:func:`.evaluate_boxes.score_boxes`, which takes ``how``).

    Returns
    -------
    ``split``, ``split_hash`` and ``runs``: a result each, ``run`` its short name.
    """
    results = []
    for name, path in zip(_names(paths), paths, strict=True):
        results.append({**score_boxes(path, data, split, **how), "run": name})
    return {"split": results[0]["split"], "split_hash": results[0]["split_hash"], "runs": results}


def write_tables(content: dict[str, Any], folder: Path, protocol: str = "irstkit") -> None:
    """Write ``results.json``, ``table.md``, ``table.csv``, ``sequences.csv``, ``pr.csv`` and ``pr.png`` to ``folder``."""
    results = content["runs"]
    write_json(folder / "results.json", content, indent=2)
    (folder / "table.md").write_text(markdown(results, protocol), encoding="utf-8")
    columns = {**OURS, **PUBLISHED_COLUMNS}
    rows = [
        {
            "run": r["run"], "kind": r["kind"], "score": r["score"], "score_from": r["score_from"],
            **{key: _value(r, key) for key, _ in columns.values()},
        }
        for r in results
    ]  # fmt: skip
    (folder / "table.csv").write_text(_csv(tuple(rows[0]), rows), encoding="utf-8")
    found = [{"run": r["run"], **row} for r in results for row in r.get("sequences", ())]
    if found:
        (folder / "sequences.csv").write_text(_csv(("run", *SEQUENCE), found), encoding="utf-8")
    points = [
        {"run": r["run"], "recall": recall, "precision": precision, "score": score}
        for r in results
        for recall, precision, score in zip(*r["curve"].values(), strict=False)
    ]
    (folder / "pr.csv").write_text(_csv(("run", "recall", "precision", "score"), points), encoding="utf-8")
    _plot(results, folder / "pr.png")


def _value(result: dict[str, Any], key: str) -> float | None:
    outer, _, inner = key.partition(".")
    value = result[outer]
    return value.get(inner) if inner and value is not None else value


def markdown(results: Sequence[dict[str, Any]], protocol: str = "irstkit") -> str:
    """The table for people: a row a run, what it depends on below; a table a sequence where there are some."""
    columns = PUBLISHED_COLUMNS if protocol == "sstnet" else OURS
    if all(r["masks"] is None for r in results):
        columns = {k: v for k, v in columns.items() if not v[0].startswith("masks")}
    ours = protocol != "sstnet"
    head = ["run", "predicts", *columns, *(["score", "chosen"] if ours else [])]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for r in results:
        mark = " (trained on these images)" if r["seen_in_training"] else ""
        cells = [r["run"] + mark, r["kind"]]
        for key, scale in columns.values():
            value = _value(r, key)
            cells.append("-" if value is None else f"{value * scale:.{2 if scale > 1 else 3}f}")
        if ours:
            cells += [f"{r['score']:.3g}", r["score_from"]]
        lines.append(f"| {' | '.join(cells)} |")
    r = results[0]
    lines += [
        "",
        f"{r['frames']} images ({r['frames_without_target']} without target), {r['targets']} targets of "
        f"{r['data']} {r['split']} (hash {r['split_hash']}), native size.",
    ]
    if "unseen" in r:
        lines.append(left_out_line(r["unseen"]))
    if ours:
        lines.append(
            f"A hit: IoU {r['iou_rule']} {r['iou']:g}. Pd and Fa: centres nearer than {r['distance']:g} px, one to "
            "one; Fa by the area of boxes, the pixels of components. Segmenters enter through their components."
        )
    else:
        lines.append(PUBLISHED)
    if len(results[0].get("sequences", ())) > 1 and ours:
        lines += ["", *_sequences(results)]
    return "\n".join(lines) + "\n"


def _sequences(results: Sequence[dict[str, Any]]) -> list[str]:
    """AP50 of each run, a row a sequence, and their mean."""
    names = [r["run"] for r in results]
    lines = [
        f"| AP50 % by sequence | frames | targets | {' | '.join(names)} |",
        "|---" * (3 + len(names)) + "|",
    ]

    def show(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.2f}"

    for rows in zip(*(r["sequences"] for r in results), strict=True):
        cells = [str(rows[0]["sequence"]), str(rows[0]["frames"]), str(rows[0]["targets"])]
        lines.append(f"| {' | '.join([*cells, *(show(row['ap50']) for row in rows)])} |")
    means = [show(r["sequence_mean"]["ap50"]) for r in results]
    lines.append(f"| mean over sequences | | | {' | '.join(means)} |")
    return lines


def _plot(results: Sequence[dict[str, Any]], path: Path) -> None:
    figure = _figure(6, 4.5)
    axes = figure.add_subplot()
    for r in results:
        curve, at = r["curve"], r["operating"]
        ap = "undefined" if r["ap50"] is None else f"{100 * r['ap50']:.1f} %"
        (line,) = axes.plot([], [], label=f"{r['run']}  (AP50 {ap})")
        if curve["precision"]:
            line.set_data(curve["recall"], curve["precision"])
        if at["precision"] is not None and at["recall"] is not None:
            axes.plot(at["recall"], at["precision"], "o", color=line.get_color())
    axes.set_xlim(0, 1.01)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("recall")
    axes.set_ylabel("precision (interpolated, IoU 0.5)")
    axes.set_title(f"{results[0]['data']} {results[0]['split']}; dots: each run's operating point")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower left")
    _save(figure, path)


def needs_boxes(paths: Sequence[str | Path], data: Dataset) -> str | None:
    """Why these cannot be compared by masks: the first network of boxes, or a data set without masks."""
    for path in paths:
        if is_box_checkpoint(path):
            return f"{path} is a network of boxes"
    if not any(r.mask is not None for r in data):
        return f"{data.root} has boxes, no masks"
    return None
