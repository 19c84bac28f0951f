"""The walk-through of docs/curate.md, done: python docs/curate_walkthrough.py WORK [--figures docs/figures] [--out FILE.json]

Sequences are made, every second label of their training part is spoilt as by a hasty annotator, a small network
is trained, the ten worst images of the queue are fixed, and the network is trained again: IoU, Pd and Fa on the
untouched test part before and after, and with labels that nobody spoilt, each with three seeds. What a person does with eyes and mouse is
done here by a script: its eyes are the labels before they were spoilt (is this one wrong?), its hands are the
buttons of the guide (delete, accept the prediction, draw a box and grow the mask in it). Everything else is the
commands as typed. What an interrupted run left in WORK is not made again. With --figures, pictures of the App are
taken on the way (needs Chromium and playwright).
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np

from irstkit.annotate.masks import Instance, instances_to_mask
from irstkit.annotate.rle import encode_instance, rle_to_instance
from irstkit.datasets import service

COMMANDS: list[str] = []
STEPS, WORST, SEEDS, EVERY = 600, 10, 3, 2
FIT = ("--steps", STEPS, "--crop", 64, "--batch", 4, "--option", "base=4", "--threads", 1)


def irstkit(*words: object, makes: Path | None = None) -> str:
    """Run a command as typed and give what it prints; one that ``makes`` what is there already is only noted."""
    from click.testing import CliRunner

    from irstkit.cli import cli

    line = [str(w) for w in words]
    COMMANDS.append(shlex.join(["irstkit", *line]))
    if makes is not None and makes.exists():
        return ""
    print("$", COMMANDS[-1], file=sys.stderr, flush=True)
    done = CliRunner().invoke(cli, line, prog_name="irstkit")
    if done.exit_code:
        raise SystemExit(done.stderr or repr(done.exception))
    return done.stdout


def spoil(clean: Path, root: Path, seed: int) -> int:
    """A copy whose training labels are wrong in every second frame: gone, beside the target or, most, a whole box, too large."""
    shutil.copytree(clean, root)
    coco = json.loads((clean / "annotations.json").read_text())
    train = set((clean / "splits/synth/train.txt").read_text().split())
    rng = np.random.default_rng(seed)
    frames = [i for i in coco["images"] if i["file_name"].rpartition(".")[0] in train]
    chosen = rng.permutation(len(frames))[: len(frames) // EVERY]
    labels: dict[int, list[dict]] = {}
    for a in coco["annotations"]:
        labels.setdefault(a["image_id"], []).append(a)
    for n, k in enumerate(chosen):
        image = frames[k]
        one = labels[image["id"]][0]
        size = (image["height"], image["width"])
        instance = rle_to_instance(one["segmentation"])
        if n % 6 == 0:
            labels[image["id"]].remove(one)
        elif n % 6 == 1:
            dx, dy = (int(v) for v in rng.choice([-5, -4, 4, 5], 2))
            moved = Instance(
                tuple(v + d for v, d in zip(instance.box, (dx, dy, dx, dy), strict=True)), instance.mask
            )
            labels[image["id"]][0] = drawn(one, clipped(moved, size), size)
        else:
            labels[image["id"]][0] = drawn(one, generous(instance, 2, size), size)
    coco["annotations"] = [a for row in labels.values() for a in row]
    (root / "annotations.json").write_text(json.dumps(coco))
    for image in coco["images"]:
        found = [rle_to_instance(a["segmentation"]) for a in labels.get(image["id"], [])]
        mask = instances_to_mask(found, (image["height"], image["width"])).astype(np.uint8) * 255
        cv2.imwrite(str(root / image["file_name"].replace("images/", "masks/", 1)), mask)
    return len(chosen)


def whole(mask: np.ndarray) -> Instance:
    ys, xs = np.nonzero(mask)
    box = (int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)
    return Instance(box, np.ascontiguousarray(mask[box[1] : box[3], box[0] : box[2]]))


def generous(instance: Instance, by: int, size: tuple[int, int]) -> Instance:
    """The whole box, ``by`` pixels wider on each side: what a hand draws that is in a hurry."""
    x1, y1, x2, y2 = instance.box
    mask = np.zeros(size, bool)
    mask[max(y1 - by, 0) : y2 + by, max(x1 - by, 0) : x2 + by] = True
    return whole(mask)


def clipped(instance: Instance, size: tuple[int, int]) -> Instance:
    return whole(instances_to_mask([instance], size))


def drawn(label: dict, instance: Instance, size: tuple[int, int]) -> dict:
    x1, y1, x2, y2 = instance.box
    return {
        **label, "bbox": [x1, y1, x2 - x1, y2 - y1], "area": int(instance.area),
        "segmentation": encode_instance(instance, size),
    }  # fmt: skip


def fix(dataset, sample: dict, truth: list[Instance]) -> str:
    """What a person does with one image; what was done, in words."""
    from irstkit.datasets.curation import changes, edits, store
    from irstkit.datasets.curation.matching import Shape, match_shapes, shape_iou
    from irstkit.datasets.curation.predictions import label_shape

    size = changes.size_of(sample)
    stored = changes.detections(sample)
    labels = [label_shape(d, size) for d in stored]
    right = [Shape(tuple(map(float, i.box)), i) for i in truth]
    good = {a for a, b in match_shapes(labels, right) if shape_iou(labels[a], right[b]) > 0.5}
    wrong = [d for k, d in enumerate(stored) if k not in good]
    missing = [r for r in right if not any(shape_iou(labels[k], r) > 0.5 for k in good)]
    if not wrong and not missing:
        return "looked at, nothing wrong"
    app = dataset[str(sample["_id"])]
    gone = {str(d["_id"]) for d in wrong}
    app[store.FIELD].detections = [d for d in app[store.FIELD].detections if d.id not in gone]
    told = [f"{len(gone)} deleted"] if gone else []
    app.save()
    for r in missing:
        guesses = (sample.get("predictions") or {}).get("detections") or []
        near = [g for g in guesses if shape_iou(label_shape(g, size), r) > 0.5]
        if near:
            edits.accept(dataset, [str(near[0]["_id"])], "predictions")
            told.append("the prediction accepted")
        else:
            fo = service.load()
            x1, y1, x2, y2 = r.box
            box = [(x1 - 1) / size[1], (y1 - 1) / size[0], (x2 - x1 + 2) / size[1], (y2 - y1 + 2) / size[0]]
            app.reload()
            app[store.FIELD].detections.append(fo.Detection(label="target", bounding_box=box))
            app.save()
            edits.mask_from_box(dataset, [app[store.FIELD].detections[-1].id])
            told.append("a box drawn, its mask grown")
    return ", ".join(told)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--figures", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    work = options.work
    work.mkdir(parents=True, exist_ok=True)
    clean, root = work / "clean", work / "daub"
    irstkit("synth", "sequences", "--out", clean, "--preset", "daub", "--sequences", 16, "--frames", 6, "--seed", 4,
            "--size", "128x128", "--splits", "train=0.25,test=0.75", "--workers", 1,
            makes=clean)  # fmt: skip
    shutil.rmtree(root, ignore_errors=True)
    spoilt = spoil(clean, root, options.seed)
    scores: dict[str, list[dict]] = {}

    def train(name: str, data: Path) -> None:
        for seed in range(options.seed, options.seed + SEEDS):
            run = work / (f"{name}-{seed}" if seed else name)
            irstkit("train", "fit", "sd2net", "--real", data, "--real-split", "synth/train", *FIT, "--seed", seed,
                    "--out", run, makes=run / "last.pt")  # fmt: skip
            told = json.loads(irstkit("train", "evaluate", run / "last.pt", "--data", clean, "--split", "synth/test",
                                      "--threads", 1, "--json"))  # fmt: skip
            scores.setdefault(name, []).append({k: told[k] for k in ("iou", "niou", "pd", "fa", "targets")})
            print(run.name, json.dumps(scores[name][-1]), file=sys.stderr, flush=True)

    train("before", root)
    irstkit("train", "predict", work / "before/last.pt", root, "--split", "synth/train", "--probabilities",
            "--threads", 1, "--out", work / "predicted", makes=work / "predicted")  # fmt: skip
    shutil.rmtree(work / "fiftyone", ignore_errors=True)
    service.isolate(work / "fiftyone")
    told = irstkit("data", "curate", root, "--predictions", work / "predicted/predictions.json", "--no-app")
    print(told, file=sys.stderr)
    fo = service.load()
    dataset = fo.load_dataset("daub")
    failed: Exception | None = None
    if options.figures:
        from curate_screenshots import shoot

        views = {"curate-walk-sequences": "sequences", "curate-walk-worst": "worst-labels-first"}
        try:
            shoot(dataset, options.figures, views, fix="curate-walk-fix")
        except Exception as error:  # the numbers do not depend on pictures; their lack ends the run
            failed = error
    from irstkit.datasets.curation import store

    coco = json.loads((clean / "annotations.json").read_text())
    names = {i["id"]: i["file_name"].rpartition(".")[0] for i in coco["images"]}
    truth: dict[str, list[Instance]] = {}
    for a in coco["annotations"]:
        truth.setdefault(names[a["image_id"]], []).append(rle_to_instance(a["segmentation"]))
    worst = dataset.load_saved_view("worst labels first").values(["id", "record_id", "suspicion", "doubt"])
    done = []
    for id, record, suspicion, doubt in list(zip(*worst, strict=True))[:WORST]:
        from bson import ObjectId

        sample = store.samples(dataset).find_one({"_id": ObjectId(id)})
        what = fix(dataset, sample, truth.get(record, []))
        done.append({"image": record, "suspicion": round(suspicion, 3), "doubt": doubt, "done": what})
        print(done[-1], file=sys.stderr)
    print(irstkit("data", "pull", "daub", "--out", work / "fixed.json", "--apply"), file=sys.stderr)
    train("after", root)
    train("nothing spoilt", clean)
    text = json.dumps({"spoilt": spoilt, "fixed": done, "scores": scores, "commands": COMMANDS}, indent=1)
    text = text.replace(str(work) + "/", "")
    print(text)
    if options.out:
        options.out.write_text(text + "\n")
    if failed is not None:
        raise failed


if __name__ == "__main__":
    main()
