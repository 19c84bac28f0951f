"""Can it be measured where a target was removed? Filled holes against untouched pieces of the same images.

    python benchmarks/synth_removal.py --data PATH [--count 400]

For every removed target: the |SCR| of the filled hole (ring 10), and the deviation of the Laplacian inside
over that around it (texture and noise). The same of a piece of equal shape elsewhere in the image. A hole
that left no trace has the untouched pieces' distribution: KS distances, and the area under the ROC curve of
the best single measure used as a detector (0.5: none).
"""

from __future__ import annotations

import argparse
import json

import cv2
import numpy as np
from scipy.stats import ks_2samp

from irstkit.annotate.masks import Instance, mask_to_instances
from irstkit.annotate.scr import measure_contrast
from irstkit.datasets.readers import open_dataset
from irstkit.synth.removal import MARGIN, remove_targets


def traces(image: np.ndarray, hole: Instance) -> tuple[float, float] | None:
    """(|SCR|, log ratio of the Laplacian's deviation inside over around) of a piece of an image."""
    found = measure_contrast(image, [hole])[0]
    if found.scr is None:
        return None
    rough = cv2.Laplacian(image.astype(np.float64), cv2.CV_64F)
    x1, y1, x2, y2 = hole.box
    around = rough[max(y1 - 10, 0) : y2 + 10, max(x1 - 10, 0) : x2 + 10]
    inside = rough[y1:y2, x1:x2][hole.mask]
    if around.std() == 0 or inside.std() == 0:
        return None
    return abs(found.scr), float(np.log(inside.std() / around.std()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--count", type=int, default=400)
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    holes, pieces = [], []
    for record in list(open_dataset(given.data))[: given.count]:
        image, mask = record.read_image(), record.read_mask()
        clean = remove_targets(image, mask)
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * MARGIN + 1,) * 2)
        grown = cv2.dilate(mask.astype(np.uint8), kernel).astype(bool)
        for hole in mask_to_instances(grown):
            x1, y1, x2, y2 = hole.box
            w, h = x2 - x1, y2 - y1
            for _ in range(30):
                x, y = int(rng.integers(image.shape[1] - w + 1)), int(rng.integers(image.shape[0] - h + 1))
                if not grown[max(y - 10, 0) : y + h + 10, max(x - 10, 0) : x + w + 10].any():
                    break
            else:
                continue
            found = traces(clean, hole), traces(clean, Instance((x, y, x + w, y + h), hole.mask))
            if found[0] and found[1]:
                holes.append(found[0])
                pieces.append(found[1])
    a, b = np.array(holes), np.array(pieces)
    out: dict[str, object] = {"holes": len(a)}
    for k, name in enumerate(("scr", "roughness")):
        ks = ks_2samp(a[:, k], b[:, k])
        order = np.argsort(np.concatenate([b[:, k], a[:, k]]), kind="stable").argsort() + 1
        auc = (order[len(b) :].sum() - len(a) * (len(a) + 1) / 2) / (len(a) * len(b))
        out[name] = {
            "hole_median": round(float(np.median(a[:, k])), 3),
            "elsewhere_median": round(float(np.median(b[:, k])), 3),
            "ks": round(float(ks.statistic), 3),
            "auc": round(float(auc), 3),
        }
    print(json.dumps(out))


if __name__ == "__main__":
    main()
