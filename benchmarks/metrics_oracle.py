"""The metrics against a brute-force oracle on 5000 random mask pairs (the test suite runs 600 of them), and the
exact target ROC against thresholding at every distinct value on 3000 random maps (the test suite: 150).

python benchmarks/metrics_oracle.py           # writes results/metrics_oracle.json
"""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np

from irstkit.train.metrics import Settings, evaluate_image
from irstkit.train.metrics_match import near_pairs
from irstkit.train.metrics_roc import target_roc

ROOT = Path(__file__).parent


def curves(wanted=3000):
    """Maps whose whole curve equals thresholding, and the thresholds that were compared."""
    tests = runpy.run_path(str(ROOT.parent / "tests" / "train" / "test_metrics_roc.py"))
    compared = 0
    for seed in range(wanted):
        rng = np.random.default_rng([2025, seed])
        value, truth = tests["random_map"](rng, tests["KINDS"][seed % len(tests["KINDS"])])
        if seed % 50 == 0:  # now and then a larger one, in which most components are left out unseen
            value, truth = (np.tile(a, (3, 3)) for a in (value, truth))
            value = np.clip(value * rng.uniform(0.9, 1.1, value.shape), 0, 1).astype(value.dtype)
        distance, connectivity = float(rng.choice([1.5, 2.0, 3.0, 4.0])), int(rng.choice([4, 8]))
        got = target_roc(value, truth, distance=distance, connectivity=connectivity)
        expected = tests["by_thresholding"](
            value, truth, Settings(distance=distance, connectivity=connectivity)
        )
        for mine, theirs in zip((got.thresholds, got.detected, got.false_pixels), expected, strict=True):
            if mine.tolist() != list(theirs):
                raise SystemExit(f"map {seed}: the curve differs from thresholding")
        compared += len(got.thresholds)
    return {"maps": wanted, "thresholds": compared}


def main(wanted=5000):
    tests = runpy.run_path(str(ROOT.parent / "tests" / "train" / "test_metrics.py"))
    rng = np.random.default_rng(2024)
    agreed = skipped = contested = 0
    while agreed < wanted:
        truth, prediction = tests["random_pair"](rng)
        distance, connectivity = float(rng.choice([1.5, 2.0, 3.0, 4.0])), int(rng.choice([4, 8]))
        result = evaluate_image(prediction, truth, Settings(distance=distance, connectivity=connectivity))
        edges = near_pairs(result.targets, result.predictions, distance)
        if len(edges) > 14:  # too many assignments to list
            skipped += 1
            continue
        row = result.row
        expected = tests["oracle"](truth, prediction, connectivity, distance)
        if (row.targets, row.detected, row.false_pixels) != expected:
            raise SystemExit(f"pair {agreed + skipped}: {row}, the oracle has {expected}")
        agreed += 1
        contested += len(edges) > row.detected
    told = {"agreed": agreed, "with_competing_components": contested, "skipped_too_many_assignments": skipped}
    told["target_roc"] = curves()
    print(told)
    (ROOT / "results" / "metrics_oracle.json").write_text(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
