"""The metrics against a brute-force oracle on 5000 random mask pairs (the test suite runs 600 of them).

python benchmarks/metrics_oracle.py           # writes results/metrics_oracle.json
"""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np

from irstkit.train.metrics import Settings, evaluate_image
from irstkit.train.metrics_match import near_pairs

ROOT = Path(__file__).parent


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
    print(told)
    (ROOT / "results" / "metrics_oracle.json").write_text(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
