"""Preset nudt against NUDT-SIRST, and SCR as asked for against as written: from the written files alone.

    python benchmarks/synth_statistics.py --data PATH/NUDT-SIRST --scenes scenes_all.csv [--count 1327]

Backgrounds are the target-removed images of the training list 50_50/train. Area, targets an image, |SCR| at
ring 10 and relative height are measured anew from images and masks, as they are on the published set. The
SCR check is repeated with a camera and in 16 bit.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

import numpy as np
from scipy.stats import ks_2samp

from irstkit.annotate import console
from irstkit.annotate.files import read_image, read_json
from irstkit.annotate.rle import rle_to_instance
from irstkit.annotate.scr import measure_contrast
from irstkit.datasets.readers import open_dataset
from irstkit.synth.fit import measure
from irstkit.synth.generate import generate

CAMERA = [
    "sensor={shot: 0.02, read: 1.0, fixed_gain: 0.005, fixed_offset: 0.5, row: 0.3, column: 0.4, dead: 0.0001}"
]


def accuracy(root: Path, tolerance: float) -> dict[str, object]:
    """Share of targets within the tolerance or one gray level, from the image files and the RLEs."""
    coco = read_json(root / "annotations.json")
    by_image: dict[int, list[dict]] = {}
    for annotation in coco["annotations"]:
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    within = marked = total = unmarked = 0
    for entry in coco["images"]:
        annotations = by_image.get(entry["id"], [])
        instances = [rle_to_instance(a["segmentation"]) for a in annotations]
        image = read_image(root / entry["file_name"])
        for a, found in zip(annotations, measure_contrast(image, instances), strict=True):
            known = a["attributes"]
            total += 1
            error = abs(abs(found.scr or 0.0) - known["scr_requested"])
            good = error <= tolerance * known["scr_requested"] or error * found.ring_std <= 1.0
            within += good
            marked += known["scr_status"] != "ok"
            unmarked += not good and known["scr_status"] == "ok"
    return {
        "targets": total,
        "within": round(within / total, 5),
        "marked": marked,
        "missed_and_unmarked": unmarked,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--scenes", type=Path, required=True)
    parser.add_argument("--count", type=int, default=1327)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    console.quiet = True
    source = f"{given.data}:50_50/train"
    common = {"scenes": given.scenes, "workers": given.workers}
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        root = Path(folder)
        generate(root / "plain", given.count, given.seed, source, "nudt", **common)
        generate(root / "camera", given.count // 2, given.seed, source, "nudt", overrides=CAMERA, **common)
        generate(root / "deep", given.count // 2, given.seed, source, "nudt", depth=16, **common)
        theirs = measure(open_dataset(given.data))
        made = open_dataset(root / "plain")
        ours = measure(made)
        out: dict[str, object] = {"images": len(made), "targets": len(ours), "targets_published": len(theirs)}
        ks = {}
        for name, of in {
            "area": lambda r: r.area,
            "scr": lambda r: r.scr,
            "height": lambda r: r.height,
            "contrast": lambda r: abs(r.difference),
        }.items():
            pair = [[of(r) for r in rows if of(r) is not None] for rows in (theirs, ours)]
            ks[name] = round(float(ks_2samp(*pair).statistic), 4)
        counts = [np.repeat([r.count for r in rows], 1) for rows in (theirs, ours)]
        per_image = [
            np.concatenate([np.full(round(np.sum(c == k) / k), k) for k in np.unique(c)]) for c in counts
        ]
        ks["count"] = round(float(ks_2samp(*per_image).statistic), 4)
        out["ks"] = ks
        out["scr_plain"] = accuracy(root / "plain", 0.05)
        out["scr_camera"] = accuracy(root / "camera", 0.05)
        out["scr_16_bit"] = accuracy(root / "deep", 0.01)
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
