"""Time of Pd + Fa + IoU of a 256x256 pair, and of the exact target ROC, side by side in one run.

The baseline is the computation as the field's repositories commonly do it, written anew from its
description: components by ``skimage.measure.label``, areas and centroids by ``regionprops``, first-fit
matching in a double loop; IoU from three histograms. DNA-Net's meter does this at 11 thresholds an image.

    python benchmarks/metrics_speed.py            # writes results/metrics_speed.json and .md
"""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
import cv2
import numpy as np
from skimage import measure

from irstkit.train.metrics import SegmentationMeter, Settings, evaluate_image
from irstkit.train.metrics_roc import target_roc

cv2.setNumThreads(1)


def common_pd_fa(positive, mask):
    """Detected, targets, false pixels of one binary map."""
    found = measure.regionprops(measure.label(positive.astype(np.int64), connectivity=2))
    wanted = measure.regionprops(measure.label(mask.astype(np.int64), connectivity=2))
    rest, matched = list(found), 0
    for target in wanted:
        center = np.array(target.centroid)
        for k, one in enumerate(rest):
            if np.linalg.norm(np.array(one.centroid) - center) < 3:
                matched += 1
                del rest[k]
                break
    return matched, len(wanted), sum(one.area for one in rest)


def common_iou(positive, mask):
    """Intersection over union from histograms, with the classes shifted to 1."""
    a, b = positive.astype(np.int64), mask.astype(np.int64)
    both = a * (a == b)
    hits, ours, theirs = (np.histogram(x, bins=1, range=(1, 1))[0] for x in (both, a, b))
    return float((hits / (np.spacing(1) + ours + theirs - hits))[0])


def common(probability, mask, thresholds=(0.5,)):
    for t in thresholds:
        out = common_pd_fa(probability > t, mask)
    return out, common_iou(probability > 0.5, mask)


def scene(targets, peaks, seed=0, kind="smooth"):
    """A mask, and a probability map shaped like a network's: targets saturated, background far below 0.5."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((256, 256), bool)
    for _ in range(targets):
        y, x = rng.integers(4, 246, 2)
        mask[y : y + rng.integers(1, 7), x : x + rng.integers(1, 7)] = True
    logit = rng.normal(size=mask.shape)
    if kind != "noise":
        logit = cv2.GaussianBlur(logit, (0, 0), peaks)
    logit = 2 * (logit - logit.mean()) / logit.std() - 12
    blob = cv2.GaussianBlur(mask.astype(np.float64), (0, 0), 0.8)
    false = np.zeros(mask.shape)
    for _ in range(2):
        y, x = rng.integers(4, 250, 2)
        false[y : y + 2, x : x + 2] = 1
    probability = 1 / (1 + np.exp(-(logit + 30 * np.maximum(blob, false))))
    if kind == "8 bit":
        probability = np.round(probability * 255) / 255
    return probability.astype(np.float32), mask


def milliseconds(calls, budget=0.08, rounds=12):
    """Processor time of each call, all in turn in every round; the fastest round counts.

    Other work on the machine takes the processor away (not counted) and the caches (counted): the fastest of
    many short rounds is nearest to a machine of one's own.
    """
    number, best = {}, dict.fromkeys(calls, float("inf"))
    for name, call in calls.items():
        call()
        start = time.process_time()
        call()
        number[name] = max(1, int(budget / max(time.process_time() - start, 1e-6)))
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.process_time()
            for _ in range(number[name]):
                call()
            best[name] = min(best[name], (time.process_time() - start) / number[name])
    return {name: seconds * 1e3 for name, seconds in best.items()}


WHY = """The goal is ten. Of our own Pd+Fa+IoU it cannot be had where values are all distinct: that number looks at the
few pixels above one threshold, and sorting 65,000 values alone takes the time in the last column. What comes on top
is one pass over all pixels (which neighbours are higher, basins, sums by level: some 40 whole-array steps of 30 to
100 microseconds each) and the components that come near a target. Maps of few values (8 bits) have little of either.
For scale: scikit-image's compiled max_tree, which such a curve could start from, takes 75 ms for the case of 3 targets.
Other work on the machine slows all of it, by half and more: compare within a run, with common/50 rather than 26/50 ms."""

CASES = {
    "no target": (0, 2, "smooth"),
    "3 targets": (3, 2, "smooth"),
    "3 targets, rougher background": (3, 1, "smooth"),
    "3 targets, 8-bit map": (3, 2, "8 bit"),
    "20 targets": (20, 2, "smooth"),
    "60 targets": (60, 2, "smooth"),
}


def main():
    eleven = np.arange(11) / 10
    rows = []
    for name, (targets, peaks, kind) in CASES.items():
        probability, mask = scene(targets, peaks, kind=kind)
        rules = Settings(matching="greedy")
        row = evaluate_image(probability, mask, rules).row
        (hit, total, false), iou = common(probability, mask)
        assert (row.detected, row.targets, row.false_pixels) == (hit, total, false)
        assert abs(iou - row.tp / max(row.tp + row.fp + row.fn, 1)) < 1e-9
        meter = SegmentationMeter()
        times = milliseconds(
            {
                "meter": lambda m=meter, p=probability, t=mask: m.update(p, t),
                "common": lambda p=probability, t=mask: common(p, t),
                "common_11_thresholds": lambda p=probability, t=mask: common(p, t, eleven),
                "target_roc": lambda p=probability, t=mask: target_roc(p, t),
                "sort": lambda p=probability: np.sort(p, axis=None),
            }
        )
        distinct = len(target_roc(probability, mask).thresholds)
        rows.append(
            {
                "case": name,
                "distinct_thresholds": distinct,
                **{f"{k}_ms": round(v, 4) for k, v in times.items()},
                "common_over_meter": round(times["common"] / times["meter"], 1),
                "common_11_over_meter": round(times["common_11_thresholds"] / times["meter"], 1),
                "roc_over_meter": round(times["target_roc"] / times["meter"], 1),
                "roc_over_26_ms_by_50": round(times["target_roc"] / (26 / 50), 1),
                "roc_over_common_11_by_50": round(
                    times["target_roc"] / (times["common_11_thresholds"] / 50), 1
                ),
                "sort_over_meter": round(times["sort"] / times["meter"], 1),
                "thresholding_everywhere_over_roc": round(distinct * times["meter"] / times["target_roc"], 1),
            }
        )
        print(rows[-1])
    out = Path(__file__).parent / "results"
    out.mkdir(exist_ok=True)
    about = {
        "size": "256x256 float32",
        "threads": 1,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "processor": f"{platform.machine()}, {os.cpu_count()} cores shared with other work",
    }
    (out / "metrics_speed.json").write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")
    lines = [
        "# Speed of the metrics",
        "",
        "`python benchmarks/metrics_speed.py`: 256x256, one thread, processor time in milliseconds, all in turn, "
        "fastest of 12 rounds. The common form at one threshold does the same work as ours; at 11 it is "
        "DNA-Net's meter. " + ", ".join(f"{k} {v}" for k, v in about.items()),
        "",
        "| case | Pd+Fa+IoU | common form | times | common, 11 thresholds | times |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['case']} | {r['meter_ms']:.3f} | {r['common_ms']:.2f} | {r['common_over_meter']:.0f} "
        f"| {r['common_11_thresholds_ms']:.1f} | {r['common_11_over_meter']:.0f} |"
        for r in rows
    ]
    lines += [
        "",
        "The exact target ROC, at every distinct value. *Of ours*: how many of our own Pd+Fa+IoU it costs. *Of "
        "26/50 ms*: how many of the Pd+Fa+IoU that a meter 50 times faster than 26 ms (what DNA-Net's took when "
        "the goal was set) would do; *of common/50*: the same against the common form of this run.",
        "",
        "| case | distinct values | exact target ROC | of ours | of 26/50 ms | of common/50 | sorting alone, of ours |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['case']} | {r['distinct_thresholds']} | {r['target_roc_ms']:.2f} | {r['roc_over_meter']:.0f} "
        f"| {r['roc_over_26_ms_by_50']:.1f} | {r['roc_over_common_11_by_50']:.0f} | {r['sort_over_meter']:.1f} |"
        for r in rows
    ]
    lines += ["", WHY]
    (out / "metrics_speed.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
