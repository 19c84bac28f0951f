"""Planted errors: how many of 50 damaged labels are in the first 100 images of the queue "worst labels first".

    irstkit train predict RUN/best.pt NUDT-SIRST --split 50_50/test --probabilities --out PREDICTED
    python benchmarks/planted_errors.py NUDT-SIRST PREDICTED [--seeds 20] [--figure FILE.png] [--out FILE.json]

The network must not have seen the test part. A seed draws 50 of the part's labels without replacement and damages
each in one of four ways (12 or 13 each):

    deleted   the label is gone
    shifted   its pixels lie 2 to 6 pixels further, in any direction
    doubled   a second label of the same pixels lies 1 to 5 pixels beside it
    grown     every pixel at most 1, 2 or 3 pixels away belongs to it

The queue is what a person sees who opens the view: an image a place, every image of the part once, by its most
suspicious label or prediction. A planted error counts as shown with its image. --check pushes the first seed's data
set into a FiftyOne of its own and compares the saved view's order with the one computed here. Nothing of an image is
in the figure.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from irstkit.annotate.coco import add_image, add_instance, new_coco
from irstkit.annotate.files import inside, read_json
from irstkit.annotate.masks import Instance, mask_to_instances
from irstkit.datasets import open_dataset
from irstkit.datasets.curation.matching import Shape, match_shapes
from irstkit.datasets.curation.pixels import drawn_larger, move
from irstkit.datasets.curation.predictions import MAPS, read_map
from irstkit.datasets.curation.sources import to_instance
from irstkit.datasets.curation.suspicion import collect, fixed_rule, judge, shape_of

KINDS = ("deleted", "shifted", "doubled", "grown")


@dataclass
class Image:
    """One image of the part: its labels as published and what the network saw."""

    id: str
    file: Path
    pixels: np.ndarray
    labels: list[Instance]
    predictions: list[Shape] = field(default_factory=list)
    probability: np.ndarray | None = None


def read(data: Path, split: str, predicted: Path) -> list[Image]:
    """The part's images with labels, predictions and probability maps."""
    coco = read_json(predicted / "predictions.json")
    known = {image["file_name"].rpartition(".")[0]: image["id"] for image in coco["images"]}
    found: dict[int, list[dict]] = {}
    for annotation in coco["annotations"]:
        found.setdefault(annotation["image_id"], []).append(annotation)
    out = []
    for record in open_dataset(data).part(split):
        image = Image(record.id, record.image, record.read_image(), mask_to_instances(record.read_mask()))
        for a in found.get(known[record.id], []):
            x, y, w, h = a["bbox"]
            image.predictions.append(
                Shape((x, y, x + w, y + h), to_instance(a["segmentation"], record.size), a["score"])
            )
        image.probability = read_map(inside(predicted / MAPS, f"{record.id}.png"), record.size)
        out.append(image)
    return out


def plant(images: list[Image], seed: int, count: int) -> tuple[list[list[Instance]], dict[int, list[str]]]:
    """(the labels of each image with ``count`` of them damaged, ``{image: what was done there}``)."""
    rng = np.random.default_rng(seed)
    flat = [(i, k) for i, image in enumerate(images) for k in range(len(image.labels))]
    chosen = rng.choice(len(flat), count, replace=False)
    kinds = rng.permutation(np.arange(count) % len(KINDS))
    labels: list[list[Instance | None]] = [list(image.labels) for image in images]
    done: dict[int, list[str]] = {}
    for number, kind in zip(chosen, (KINDS[k] for k in kinds), strict=True):
        i, k = flat[number]
        one, size = images[i].labels[k], images[i].pixels.shape
        if kind == "deleted":
            labels[i][k] = None
        elif kind == "shifted":
            labels[i][k] = displaced(one, rng, 2, 6, size)
        elif kind == "doubled":
            labels[i].append(displaced(one, rng, 1, 5, size))
        else:
            labels[i][k] = drawn_larger(one, int(rng.integers(1, 4)), size)
        done.setdefault(i, []).append(kind)
    return [[label for label in row if label is not None] for row in labels], done


def displaced(
    one: Instance, rng: np.random.Generator, least: float, most: int, size: tuple[int, int]
) -> Instance:
    """The same pixels ``least`` to ``most`` away, wholly in the image."""
    while True:
        dx, dy = (int(v) for v in rng.integers(-most, most + 1, 2))
        if least <= np.hypot(dx, dy) <= most:
            moved = move(one, dx, dy, size)
            if moved is not None and moved.area == one.area:
                return moved


def queues(images: list[Image], labels: list[list[Instance]]) -> dict[str, list[int]]:
    """Orders of the images: the product's, and by rules that learn nothing (used where labels are few)."""
    collected = []
    for number, (image, row) in enumerate(zip(images, labels, strict=True)):
        shapes = [shape_of(instance) for instance in row]
        pairs = match_shapes(shapes, image.predictions)
        collected.append(
            collect(image.pixels, shapes, image.predictions, pairs, image.probability, seed=number)
        )
    learned = [judged.worst for judged in judge(collected)]
    fixed = [
        max(
            [*map(fixed_rule, c.seen), *(s for s, on in zip(c.scores, c.on_label, strict=True) if not on)],
            default=0.0,
        )
        for c in collected
    ]
    return {
        name: sorted(range(len(images)), key=lambda k: (-values[k], k))
        for name, values in (("learned", learned), ("fixed rules", fixed))
    }


def shown(order: list[int], done: dict[int, list[str]]) -> np.ndarray:
    """Errors among the first 0, 1, 2, ... images."""
    return np.concatenate([[0], np.cumsum([len(done.get(k, ())) for k in order])])


def check(images: list[Image], labels: list[list[Instance]], predicted: Path, order: list[int]) -> int:
    """Push the damaged set into FiftyOne and compare its view: how many of the first 100 places are the same."""
    from irstkit.datasets import service

    work = Path(tempfile.mkdtemp())
    root = work / "damaged"
    (root / "images").mkdir(parents=True)
    coco = new_coco(description="labels damaged for a benchmark")
    for image, row in zip(images, labels, strict=True):
        shutil.copy(image.file, root / "images" / image.file.name)
        number = add_image(coco, f"images/{image.file.name}", image.pixels.shape)
        for instance in row:
            add_instance(coco, number, instance, image.pixels.shape)
    (root / "annotations.json").write_text(json.dumps(coco))
    service.isolate(work / "fiftyone")
    from click.testing import CliRunner

    from irstkit.cli import cli

    done = CliRunner().invoke(
        cli, ["data", "curate", str(root), "--predictions", str(predicted / "predictions.json"), "--no-app"]
    )
    print(done.stdout, done.stderr, file=sys.stderr)
    view = service.load().load_dataset("damaged").load_saved_view("worst labels first")
    names = [Path(f).stem for f in view.values("filepath")][:100]
    shutil.rmtree(root)
    return sum(a == images[k].id for a, k in zip(names, order[:100], strict=True))


def draw(path: Path, curves: dict[str, np.ndarray], count: int, first: int) -> None:
    """Median and range over the seeds of errors shown by images looked at."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.2), dpi=130)
    colours = {"learned": "#0072b2", "fixed rules": "#d55e00"}
    names = {
        "learned": "worst labels first (learned from the set)",
        "fixed rules": "fixed rules (nothing learned)",
    }
    images = next(iter(curves.values())).shape[1] - 1
    x = np.arange(images + 1)
    for name, rows in curves.items():
        axes.fill_between(x, rows.min(0), rows.max(0), color=colours[name], alpha=0.2, lw=0)
        axes.plot(x, np.median(rows, 0), color=colours[name], label=names[name])
    axes.plot([0, images], [0, count], color="#777777", ls=":", label="in any order")
    axes.axvline(first, color="#999999", lw=0.8)
    axes.axhline(0.8 * count, color="#999999", lw=0.8)
    axes.set(
        xlabel="images looked at",
        ylabel=f"planted errors seen, of {count}",
        xlim=(0, min(images, 3.5 * first)),
        ylim=(0, count),
    )
    axes.legend(loc="lower right", frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("predicted", type=Path, help="folder that train predict --probabilities wrote")
    parser.add_argument("--split", default="50_50/test")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--first", type=int, default=100)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument(
        "--check", action="store_true", help="compare the first seed's order with FiftyOne's view"
    )
    options = parser.parse_args()
    images = read(options.data, options.split, options.predicted)
    about = read_json(options.predicted / "predictions.json")["info"]
    curves: dict[str, list[np.ndarray]] = {}
    by_kind, planted = Counter(), Counter()
    start = time.process_time()
    for seed in range(options.seeds):
        labels, done = plant(images, seed, options.count)
        orders = queues(images, labels)
        for name, order in orders.items():
            curves.setdefault(name, []).append(shown(order, done))
        first = set(orders["learned"][: options.first])
        for k, kinds in done.items():
            planted.update(kinds)
            by_kind.update(kinds if k in first else [])
        print(seed, {n: int(c[-1][options.first]) for n, c in curves.items()}, file=sys.stderr, flush=True)
        if seed == 0 and options.check:
            same = check(images, labels, options.predicted, orders["learned"])
            print(
                f"places of the first 100 that FiftyOne's view has too: {same}", file=sys.stderr, flush=True
            )
    stacked = {name: np.stack(rows) for name, rows in curves.items()}
    result = {
        "split": options.split, "images": len(images), "labels": sum(len(i.labels) for i in images),
        "network": {k: about[k] for k in ("model", "step", "weights", "images_hash") if k in about},
        "planted": options.count, "first": options.first, "seeds": options.seeds,
        "seen": {
            name: {"median": float(np.median(v)), "least": int(v.min()), "most": int(v.max()), "each": v.tolist()}
            for name, v in ((n, rows[:, options.first]) for n, rows in stacked.items())
        },
        "seen_by_kind": {k: f"{by_kind[k]} of {planted[k]}" for k in KINDS},
        "in_any_order": round(options.count * options.first / len(images), 1),
        "cpu_seconds_a_seed": round((time.process_time() - start) / options.seeds, 1),
    }  # fmt: skip
    if options.check:
        result["places_as_in_fiftyone"] = same
    text = json.dumps(result, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")
    if options.figure:
        draw(options.figure, stacked, options.count, options.first)


if __name__ == "__main__":
    main()
