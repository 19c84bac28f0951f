"""Can it be measured where a target was removed? Filled holes against untouched pieces of the same images.

    python benchmarks/synth_removal.py --data PATH [--count 300]
    python benchmarks/synth_removal.py --figure docs/figures/removal.png

Three measures of a piece of an image that has the hole's shape (the mask, grown: synth/removal.py):

- ``scr``: its |SCR| at ring 10, a blot that is brighter or darker than what lies around it;
- ``roughness``: log of the Laplacian's deviation inside over that in the 10 pixels around it: texture, noise;
- ``seam``: log of the mean step across the hole's rim over the mean step in the 10 pixels around it.

Two comparisons, each reported as the area under the ROC curve of the measure used as a detector (0.5: no
trace) with its 95 % interval (bootstrap over images):

- ``holes``: removed targets against an untouched place of the same image whose *surroundings* are alike
  (of 60 random places the nearest in roughness and deviation of the 10 pixels around): targets do not stand
  anywhere, so a free choice would measure where they stand;
- ``same_place``: the matched place itself, filled as if a target had stood there, against its true pixels;
- ``outside``: the pieces of ``holes`` grown by 3 pixels, so that every pixel at the rim is the image's own: a trace
  in the seam that is seen here too lies in the data around targets and not in the filling;
- ``inpainted``: ``same_place`` with an ordinary inpainting (A. Telea, 2004), which shows what the measures see.

``--learned`` (minutes, needs torch) asks a small network too: patches of 32x32 around the pieces, trained on four
fifths of the images and asked about the others (synth/twosample.py; the two of a pair are in one fold).

``--figure`` draws synthetic images on procedural backgrounds, before and after their targets were removed.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from time import process_time

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.stats import ks_2samp, rankdata

from irstkit.annotate.files import write_png
from irstkit.annotate.masks import Instance, mask_to_instances
from irstkit.annotate.scr import measure_contrast
from irstkit.datasets.readers import open_dataset
from irstkit.synth.compose import make_image
from irstkit.synth.generate import prepare
from irstkit.synth.removal import fill_holes, find_holes, remove_targets
from irstkit.synth.twosample import two_sample

AROUND = 10
PLACES = 60
NAMES = ("scr", "roughness", "seam")


class View:
    """An image and the maps that the measures read."""

    def __init__(self, image: NDArray) -> None:
        values = image.astype(np.float64)
        self.image = image
        self.rough = cv2.Laplacian(values, cv2.CV_64F)
        self.right, self.down = np.abs(np.diff(values, axis=1)), np.abs(np.diff(values, axis=0))

    def surroundings(self, hole: Instance) -> tuple[NDArray, NDArray] | None:
        """(log roughness, log deviation) of what lies around a hole."""
        inside, (x1, y1, x2, y2) = _around(hole, self.image.shape)
        free = ~cv2.dilate(inside.astype(np.uint8), np.ones((3, 3))).astype(bool)
        values = self.image[y1:y2, x1:x2][free].astype(np.float64)
        rough = self.rough[y1:y2, x1:x2][free]
        if free.sum() < 16 or values.std() == 0 or rough.std() == 0:
            return None
        return np.log(rough.std()), np.log(values.std())

    def measures(self, hole: Instance) -> tuple[float, float, float] | None:
        found = measure_contrast(self.image, [hole])[0]
        inside, (x1, y1, x2, y2) = _around(hole, self.image.shape)
        free = ~cv2.dilate(inside.astype(np.uint8), np.ones((3, 3))).astype(bool)
        rough = self.rough[y1:y2, x1:x2]
        right, down = self.right[y1:y2, x1 : x2 - 1], self.down[y1 : y2 - 1, x1:x2]
        cross_r, cross_d = inside[:, 1:] != inside[:, :-1], inside[1:] != inside[:-1]
        free_r, free_d = free[:, 1:] & free[:, :-1], free[1:] & free[:-1]
        rim = (right[cross_r].sum() + down[cross_d].sum()) / max(cross_r.sum() + cross_d.sum(), 1)
        rest = (right[free_r].sum() + down[free_d].sum()) / max(free_r.sum() + free_d.sum(), 1)
        if found.scr is None or min(rough[inside].std(), rough[free].std(), rim, rest) <= 0:
            return None
        return (
            abs(found.scr),
            float(np.log(rough[inside].std() / rough[free].std())),
            float(np.log(rim / rest)),
        )


def _around(hole: Instance, size: tuple[int, ...]) -> tuple[NDArray, tuple[int, int, int, int]]:
    """The hole in the window that is 10 pixels wider, and that window."""
    x1, y1, x2, y2 = hole.box
    wx1, wy1 = max(x1 - AROUND, 0), max(y1 - AROUND, 0)
    wx2, wy2 = min(x2 + AROUND, size[1]), min(y2 + AROUND, size[0])
    inside = np.zeros((wy2 - wy1, wx2 - wx1), bool)
    inside[y1 - wy1 : y2 - wy1, x1 - wx1 : x2 - wx1] = hole.mask
    return inside, (wx1, wy1, wx2, wy2)


def auc(a: NDArray, b: NDArray) -> float:
    """Chance that one of ``a`` exceeds one of ``b``."""
    ranks = rankdata(np.concatenate([b, a]))
    return float((ranks[len(b) :].sum() - len(a) * (len(a) + 1) / 2) / (len(a) * len(b)))


def interval(a: NDArray, b: NDArray, images: NDArray, times: int = 1000) -> list[float]:
    """95 % interval of the AUC: images drawn with replacement, their pairs with them."""
    rng = np.random.default_rng(1)
    rows = [np.flatnonzero(images == k) for k in np.unique(images)]
    found = []
    for _ in range(times):
        take = np.concatenate([rows[k] for k in rng.integers(len(rows), size=len(rows))])
        found.append(auc(a[take], b[take]))
    return [round(float(v), 3) for v in np.percentile(found, (2.5, 97.5))]


def compare(pairs: list[tuple[int, tuple, tuple]]) -> dict[str, object]:
    images = np.array([p[0] for p in pairs])
    a, b = np.array([p[1] for p in pairs]), np.array([p[2] for p in pairs])
    out: dict[str, object] = {"pieces": len(pairs)}
    for k, name in enumerate(NAMES):
        out[name] = {
            "auc": round(auc(a[:, k], b[:, k]), 3),
            "interval": interval(a[:, k], b[:, k], images),
            "medians": [round(float(np.median(v[:, k])), 3) for v in (a, b)],
            "ks": round(float(ks_2samp(a[:, k], b[:, k]).statistic), 3),
        }
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data")
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--learned", action="store_true")
    given = parser.parse_args()
    if given.figure:
        figure(given.figure)
    if not given.data:
        return
    rng = np.random.default_rng(0)
    pairs: dict[str, list[tuple[int, tuple, tuple]]] = {
        "holes": [],
        "same_place": [],
        "outside": [],
        "inpainted": [],
    }
    patches: dict[str, list[tuple[NDArray, NDArray]]] = {name: [] for name in pairs}
    spent = 0.0
    records = list(open_dataset(given.data))
    step = max(len(records) // given.count, 1)  # spread over the set: neighbours in the list are alike
    records = records[::step][: given.count]
    for number, record in enumerate(records):
        image, mask = record.read_image(), record.read_mask()
        start = process_time()
        grown = find_holes(image, mask)
        filled = fill_holes(image, grown)
        spent += process_time() - start
        clean, truth = View(filled), View(image)
        for hole in mask_to_instances(grown):
            like = clean.surroundings(hole)
            here = clean.measures(hole)
            place = match(truth, grown, hole, like, rng) if like and here else None
            there = truth.measures(place) if place else None
            if place is None or here is None or there is None:
                continue
            alone = np.zeros_like(grown)
            x1, y1, x2, y2 = place.box
            alone[y1:y2, x1:x2] = place.mask
            views = {
                "holes": (clean, hole),
                "same_place": (View(fill_holes(image, grown | alone)), place),
                "inpainted": (
                    View(cv2.inpaint(to_8_bit(image), alone.view("u1"), 3, cv2.INPAINT_TELEA)),
                    place,
                ),
            }
            far, near = widened(hole, image.shape), widened(place, image.shape)
            one, two = clean.measures(far), truth.measures(near)
            if one is not None and two is not None:
                pairs["outside"].append((number, one, two))
            for name, (view, piece) in views.items():
                found = view.measures(piece)
                if found is not None:
                    pairs[name].append((number, found, there))
                    patches[name].append((cut(view.image, piece), cut(image, place)))
    out: dict[str, object] = {name: compare(of) for name, of in pairs.items()}
    if given.learned:
        for name, of in patches.items():
            if not of:
                continue
            images = [p[0] for p in pairs[name]]
            a, b = np.stack([p[0] for p in of]), np.stack([p[1] for p in of])
            out[f"{name}_learned"] = two_sample(b, a, images, images, paired=True).as_dict()
    out["removal_ms"] = round(1000 * spent / len(records), 2)
    print(json.dumps(out, indent=1))


def widened(piece: Instance, size: tuple[int, ...], by: int = 3) -> Instance:
    """A piece grown by ``by`` pixels, inside the image."""
    x1, y1, x2, y2 = piece.box
    wx1, wy1, wx2, wy2 = max(x1 - by, 0), max(y1 - by, 0), min(x2 + by, size[1]), min(y2 + by, size[0])
    mask = np.zeros((wy2 - wy1, wx2 - wx1), np.uint8)
    mask[y1 - wy1 : y2 - wy1, x1 - wx1 : x2 - wx1] = piece.mask
    return Instance((wx1, wy1, wx2, wy2), cv2.dilate(mask, np.ones((2 * by + 1,) * 2, np.uint8)).astype(bool))


def to_8_bit(image: NDArray) -> NDArray:
    return image if image.dtype == np.uint8 else (image >> 8).astype(np.uint8)


def cut(image: NDArray, piece: Instance, side: int = 32) -> NDArray:
    """The patch around a piece's middle, mirrored at the image's border."""
    x1, y1, x2, y2 = piece.box
    x, y = (x1 + x2) // 2, (y1 + y2) // 2
    wide = np.pad(image, side // 2, mode="reflect")
    return wide[y : y + side, x : x + side]


def figure(out: Path, number: int = 7) -> None:
    """Two rows: with targets (framed), and the same images after :func:`remove_targets`."""
    large = ["scenes.all.area={uniform: [20, 90]}", "scene_mix={cloud: 2, sea: 1, field: 2, city: 2}"]
    recipe = prepare(Path(os.devnull), 5, (), "nudt", size=192, overrides=large)
    rows: tuple[list[NDArray], list[NDArray]] = ([], [])
    for index in range(number):
        made = make_image(recipe, index)
        pair = made.image, remove_targets(made.image, made.mask)
        for row, image in zip(rows, pair, strict=True):
            tile = np.repeat(image[..., None], 3, axis=2)
            for target in made.targets if row is rows[0] else ():
                x1, y1, x2, y2 = target.box
                cv2.rectangle(tile, (x1 - 5, y1 - 5), (x2 + 4, y2 + 4), (255, 210, 0), 1)
            row.append(np.pad(tile, ((1, 1), (1, 1), (0, 0)), constant_values=255))
    write_png(out, np.vstack([np.hstack(row) for row in rows]))


def match(
    view: View, grown: NDArray, hole: Instance, like: tuple, rng: np.random.Generator
) -> Instance | None:
    """Where in the image an untouched piece of the hole's shape has surroundings like the hole's."""
    x1, y1, x2, y2 = hole.box
    w, h = x2 - x1, y2 - y1
    height, width = view.image.shape
    best: tuple[float, Instance] | None = None
    for _ in range(PLACES):
        x, y = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
        if grown[max(y - AROUND, 0) : y + h + AROUND, max(x - AROUND, 0) : x + w + AROUND].any():
            continue
        piece = Instance((x, y, x + w, y + h), hole.mask)
        found = view.surroundings(piece)
        if found is not None:
            far = abs(found[0] - like[0]) + abs(found[1] - like[1])
            if best is None or far < best[0]:
                best = far, piece
    return best[1] if best else None


if __name__ == "__main__":
    main()
