"""The demo's report: one HTML file that shows the data, the training and the numbers."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import __version__
from .annotate.draw import crop_around, picture_of
from .annotate.files import read_json, read_mask
from .annotate.html import Page
from .annotate.masks import mask_to_instances
from .annotate.scr import measure_contrast
from .datasets.readers import open_dataset
from .datasets.records import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#c44e1c", "#2f6f9f", "#3a8f5c", "#7a5195")


@dataclass
class Statistics:
    """Measured on the written images of one data set."""

    area: list[int] = field(default_factory=list)
    scr: list[float] = field(default_factory=list)
    contrast: list[float] = field(default_factory=list)
    height: list[float] = field(default_factory=list)
    count: list[int] = field(default_factory=list)


def statistics(records: Sequence[Record]) -> Statistics:
    """Area (px), |SCR| at ring 10, |contrast| (gray levels), relative height and targets an image."""
    out = Statistics()
    for record in records:
        image, mask = record.read_image(), record.read_mask()
        instances = mask_to_instances(mask)
        out.count.append(len(instances))
        for instance, measured in zip(instances, measure_contrast(image, instances, mask=mask), strict=True):
            out.area.append(instance.area)
            out.height.append((instance.centroid[1] + 0.5) / image.shape[0])
            if measured.scr is not None:
                out.scr.append(abs(measured.scr))
                out.contrast.append(abs(measured.target_mean - measured.ring_mean))
    return out


def write_report(
    path: Path,
    *,
    synthetic: Path,
    real: Path | None,
    runs: Mapping[str, Path],
    results: Mapping[str, Mapping[str, Any]],
    commands: Sequence[tuple[str, float]],
    steps: int,
) -> None:
    """Write the report of one demo (see :mod:`irstkit.demo`)."""
    made = open_dataset(synthetic)
    page = Page(
        "irstkit: the chain, run once", f"irstkit {__version__}. SD2Net, {steps} optimiser steps a run."
    )
    headline(page, results)
    results_table(page, results)
    page.heading("Synthetic samples")
    page.text(
        "Target boxes in yellow, two pixels away from the target. Contrast is stretched for the eye; the data keep their levels."
    )
    page.pictures(samples(made.records))
    sets = {"synthetic": statistics(made.records)}
    if real is not None:
        dataset = open_dataset(real)
        training = dataset.part(f"{dataset.default_scheme}/train")
        page.heading("Real samples")
        page.pictures(samples(training[:64:8]))
        sets["real (training list)"] = statistics(training)
    page.heading("Distributions")
    page.text(
        "Measured on the images as written. SCR: |target mean - ring mean| / ring deviation, ring of 10 pixels around the box."
    )
    page.figure(distributions(sets))
    page.table(*quantiles(sets))
    asked_and_got(page, synthetic)
    page.heading("Learning curves")
    page.text(
        "Validation: 10 % of the training list, kept apart by near-twin groups. The best epoch on it is what is tested."
    )
    page.figure(curves(runs))
    page.heading("Predictions against truth")
    page.text(
        "Green: truth. Red: prediction (probability above 0.5). Windows of 64 x 64 pixels around targets of the test list."
    )
    tested = dataset if real is not None else made
    split = next(iter(results.values()))["split"]
    for name, run in runs.items():
        page.text(f"Run: {name}", soft=True)
        page.pictures(comparisons(tested.part(split), path.parent / "predictions" / run.name))
    page.heading("How this was made")
    page.code(f"{command}    # {seconds:.0f} s" for command, seconds in commands)
    page.text(f"{sum(s for _, s in commands):.0f} s in all.", soft=True)
    page.write(path)


def headline(page: Page, results: Mapping[str, Mapping[str, Any]]) -> None:
    """The numbers people look for first."""
    for name, r in results.items():
        page.text(f"{name}, tested on {r['split']}: {r['images']} images, {r['targets']} targets", soft=True)
        page.numbers(
            [
                (f"{percent(r['iou'])} %", "IoU"),
                (f"{percent(r['pd'])} %", "Pd"),
                (f"{1e6 * r['fa']:.1f}", "Fa, 1e-6"),
                (f"{percent(r['niou'])} %", "nIoU"),
            ]
        )


def percent(value: float | None) -> str:
    """``12.3``, or ``-`` where the number is undefined."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def results_table(page: Page, results: Mapping[str, Mapping[str, Any]]) -> None:
    """Every number with the conditions it holds under."""
    header = [
        "run",
        "IoU %",
        "nIoU %",
        "precision %",
        "recall %",
        "F1 %",
        "Pd %",
        "found",
        "Fa 1e-6",
        "split",
        "split hash",
    ]
    rows = []
    for name, r in results.items():
        scores = [percent(r[k]) for k in ("iou", "niou", "precision", "recall", "f1", "pd")]
        rows.append(
            [
                name,
                *scores,
                f"{r['detected']}/{r['targets']}",
                f"{1e6 * r['fa']:.1f}",
                r["split"],
                r["split_hash"],
            ]
        )
    page.table(header, rows)
    first = next(iter(results.values()))
    page.text(
        f"Native resolution; threshold {first['threshold']}, {first['matching']} one-to-one matching below "
        f"{first['distance']} pixels between centroids, {first['connectivity']}-connected. "
        "A brief training: these numbers show that the chain works, not what the network can reach.",
        soft=True,
    )


def samples(records: Sequence[Record], count: int = 8) -> list[tuple[NDArray, str]]:
    """Evenly spaced records with their boxes."""
    step = max(len(records) // count, 1)
    pictures = []
    for record in records[::step][:count]:
        mask = record.read_mask()
        instances = mask_to_instances(mask)
        image = record.read_image()
        picture = picture_of(image, boxes=[i.box for i in instances], scale=2)
        scene = f", {record.scene}" if record.scene else ""
        pictures.append(
            (picture, f"{record.id}{scene}: {len(instances)} target{'s' * (len(instances) != 1)}")
        )
    return pictures


def distributions(sets: Mapping[str, Statistics]) -> Figure:
    """Area, SCR, contrast, height and count of targets, one colour a data set."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 5, figsize=(15, 3), layout="constrained")
    panels: list[tuple[str, str, NDArray]] = [
        ("area", "area, pixels", np.geomspace(1, 400, 25)),
        ("scr", "|SCR|, ring 10", np.linspace(0, 25, 26)),
        ("contrast", "|contrast|, gray levels", np.linspace(0, 150, 26)),
        ("height", "height in the image (0 top)", np.linspace(0, 1, 21)),
        ("count", "targets an image", np.arange(-0.5, 6.5)),
    ]
    for axis, (name, label, bins) in zip(axes, panels, strict=True):
        for colour, (title, numbers) in zip(COLOURS, sets.items(), strict=False):
            values = np.asarray(getattr(numbers, name), dtype=float)
            if len(values) == 0:
                continue
            weights = np.full(len(values), 1 / len(values))
            clipped = np.clip(values, bins[0], bins[-1])
            axis.hist(clipped, bins, weights=weights, histtype="stepfilled", alpha=0.25, color=colour)
            axis.hist(clipped, bins, weights=weights, histtype="step", color=colour, label=title)
        axis.set_xlabel(label)
        axis.spines[["top", "right"]].set_visible(False)
        if name == "area":
            axis.set_xscale("log")
    axes[0].set_ylabel("share")
    axes[-1].legend(frameon=False, fontsize=8)
    return figure


def quantiles(sets: Mapping[str, Statistics]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: 5 / 25 / 50 / 75 / 95 % of each distribution."""
    header = ["5 / 25 / 50 / 75 / 95 %", *sets]
    rows = []
    for name, label, digits in (
        ("area", "area, pixels", 0),
        ("scr", "|SCR|, ring 10", 1),
        ("contrast", "contrast, gray levels", 0),
    ):
        cells = []
        for numbers in sets.values():
            values = getattr(numbers, name)
            cells.append(
                " / ".join(f"{q:.{digits}f}" for q in np.percentile(values, [5, 25, 50, 75, 95]))
                if values
                else "-"
            )
        rows.append([label, *cells])
    rows.append(["images, targets", *(f"{len(s.count)}, {len(s.area)}" for s in sets.values())])
    return header, rows


def asked_and_got(page: Page, synthetic: Path) -> None:
    """How exactly the requested SCR was reached on the written images, from the COCO attributes."""
    targets = [a["attributes"] for a in read_json(synthetic / "annotations.json")["annotations"]]
    errors = [
        abs(t["scr_achieved"] / t["scr_requested"] - 1)
        for t in targets
        if t["scr_requested"] and t["scr_achieved"]
    ]
    status: dict[str, int] = {}
    for target in targets:
        status[target["scr_status"]] = status.get(target["scr_status"], 0) + 1
    if errors:
        within = np.mean(np.asarray(errors) <= 0.05)
        page.text(
            f"Requested against achieved SCR of {len(targets)} synthetic targets: {100 * within:.1f} % within 5 %, median "
            f"deviation {100 * np.median(errors):.2f} %. Status: "
            + ", ".join(f"{v} {k}" for k, v in sorted(status.items()))
            + "."
        )


def curves(runs: Mapping[str, Path]) -> Figure:
    """Loss and validation IoU over steps, a colour a run."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 3.4), layout="constrained")
    for colour, (name, run) in zip(COLOURS, runs.items(), strict=False):
        with (run / "log.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        loss = [(int(r["step"]), float(r["loss"])) for r in rows if r.get("loss")]
        validation = [(int(r["step"]), 100 * float(r["val_iou"])) for r in rows if r.get("val_iou")]
        left.plot(*zip(*loss, strict=True), color=colour, label=name, linewidth=1.2)
        right.plot(*zip(*validation, strict=True), color=colour, marker="o", markersize=3, label=name)
    left.set(xlabel="step", ylabel="training loss (Soft-IoU)")
    right.set(xlabel="step", ylabel="IoU on the validation part, %", ylim=(0, 100))
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
        axis.legend(frameon=False)
    return figure


def comparisons(records: Sequence[Record], predictions: Path, count: int = 8) -> list[tuple[NDArray, str]]:
    """Windows around targets of evenly spaced records, truth and prediction outlined."""
    step = max(len(records) // count, 1)
    pictures = []
    for record in records[::step][:count]:
        truth = record.read_mask()
        predicted = read_mask(predictions / "masks" / f"{record.id.removeprefix('images/')}.png")
        instances = mask_to_instances(truth)
        centre = instances[0].centroid if instances else (truth.shape[1] / 2, truth.shape[0] / 2)
        window = crop_around(truth.shape, centre, 64)
        overlap, union = np.count_nonzero(truth & predicted), np.count_nonzero(truth | predicted)
        picture = picture_of(record.read_image(), truth=truth, predicted=predicted, window=window, scale=6)
        pictures.append(
            (picture, f"{record.id}: IoU {100 * overlap / union if union else 100:.0f} % in the whole image")
        )
    return pictures
