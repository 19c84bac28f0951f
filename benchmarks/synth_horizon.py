"""The region map's horizon against heights labelled by eye.

    python benchmarks/synth_horizon.py --labels scenes_all.csv DATASET...

The labels' column ``horizon_y_fraction`` is the horizon's height from the top where it is clear. Of every such
image the skyline (synth/regions.py) is looked for with its scene known, and its median row is compared.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import numpy as np

from irstkit.datasets.readers import open_dataset
from irstkit.synth.regions import outline


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("data", type=Path, nargs="+")
    given = parser.parse_args()
    rows = list(csv.DictReader(given.labels.read_text("utf-8").splitlines()))
    out: dict[str, object] = {}
    for path in given.data:
        truth = {
            Path(r["file"]).name: r
            for r in rows
            if path.resolve().name.startswith(r["dataset"]) and r["horizon_y_fraction"]
        }
        errors: dict[str, list[float]] = {}
        missed: dict[str, int] = {}
        invented = without = 0
        known = {Path(r["file"]).name: r for r in rows if path.resolve().name.startswith(r["dataset"])}
        for record in open_dataset(path):
            label = known.get(record.image.name)
            if label is None or label["scene"] in ("cloud", "highlight"):
                continue  # clouds count as sky throughout, whatever parts them
            found = outline(record.read_image(), label["scene"])
            if record.image.name not in truth:
                without += 1
                invented += found is not None
                continue
            scene = label["scene"]
            if found is None:
                missed[scene] = missed.get(scene, 0) + 1
            else:
                error = abs(float(np.median(found)) - float(label["horizon_y_fraction"]))
                errors.setdefault(scene, []).append(error)
        told: dict[str, object] = {}
        for scene in sorted(set(errors) | set(missed)):
            e = np.array(errors.get(scene, []))
            told[scene] = {
                "labelled": len(e) + missed.get(scene, 0),
                "found": len(e),
                "median_error": round(float(np.median(e)), 4) if len(e) else None,
                "p90": round(float(np.percentile(e, 90)), 4) if len(e) else None,
                "within_0.05": round(float((e <= 0.05).mean()), 3) if len(e) else None,
            }
        told["images_without_a_labelled_horizon"] = without
        told["of_which_a_skyline_was_found"] = invented
        out[path.resolve().name] = told
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
