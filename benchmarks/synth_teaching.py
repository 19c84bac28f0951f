"""What copies, hard negatives and a curriculum by SCR are worth: a small protocol, from synthetic images to real ones.

    python benchmarks/synth_teaching.py --data PUBLIC --out WORK              # every cell that is not done
    python benchmarks/synth_teaching.py --table                               # the table of what is done

PUBLIC holds NUAA-SIRST and NUDT-SIRST. A cell is an arm with a seed: a set with preset ``real`` on the target-removed
images of NUDT-SIRST 50_50/train, then the narrowest SD2Net (base 4) from scratch, 600 steps of four crops of 64, one thread; the
weights after the last step are scored on NUAA-SIRST 50_50/test. Nothing is selected on real images. Seeds change the
network and the order, the sets are the same. Cells are kept in ``results/synth_teaching.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import torch

from irstkit.annotate import console
from irstkit.synth.generate import generate
from irstkit.train import loop
from irstkit.train.evaluate import evaluate
from irstkit.train.material import compose
from irstkit.train.predictor import Predictor
from irstkit.train.settings import load_recipe, settings_from

RESULTS = Path(__file__).parent / "results" / "synth_teaching.json"
STEPS, CROP = 600, 64
NEGATIVES = ("negatives.count={values: [0, 1, 2, 3]}",)
SETS = {
    "plain": (300, ()),
    "few": (100, ()),
    "copies": (300, ("copies.count=3",)),
    "negatives": (300, NEGATIVES),
}
ARMS = {  # set, training options, what it is
    "300 scenes": ("plain", {}, "the comparison for all but the third row"),
    "300 scenes, 1.5 negatives an image": ("negatives", {}, "the same images, negatives added"),
    "300 scenes, curriculum 0.5": ("plain", {"curriculum": 0.5}, "the same images"),
    "100 scenes": ("few", {}, "the comparison for the next row"),
    "100 scenes, 3 of each": ("copies", {}, "the same 100 scenes, each blended three times"),
}


def cell(data: Path, out: Path, arm: str, seed: int) -> dict:
    name, options, _ = ARMS[arm]
    count, overrides = SETS[name]
    made = out / "sets" / name
    if not (made / "manifest.jsonl").exists():
        generate(
            made, count, 1, f"{data}/NUDT-SIRST:50_50/train", "real", overrides=overrides, workers=1,
            exclude=[f"{data}/NUAA-SIRST:50_50/test"],
        )  # fmt: skip
    run = out / "runs" / f"{list(ARMS).index(arm)}-{seed}"
    values = {
        "model": "sd2net", "options": {"base": 4}, "crop": CROP, "batch": 4, "steps": STEPS, "validate_every": 1000, "seed": seed,
        **options,
    }  # fmt: skip
    settings = settings_from(values, base=settings_from(load_recipe("best", "sd2net")))
    told = loop.fit(settings, compose(None, made), run, device="cpu", overwrite=True)
    if told["status"] != "finished":  # SIGTERM ends a run politely: what it has learned by then is no result
        raise SystemExit(f"{run}: {told['status']} at step {told['step']}")
    scores = evaluate(Predictor.load(run / "last.pt", device="cpu"), data / "NUAA-SIRST", "50_50/test")
    metrics = scores.get("metrics", scores)
    return {"arm": arm, "seed": seed, **{k: metrics[k] for k in ("iou", "niou", "pd", "fa")}}


def table(rows: list[dict]) -> str:
    lines = ["| arm | seeds | IoU % | nIoU % | Pd % | Fa x 1e-6 |", "|---|---|---|---|---|---|"]
    for arm in ARMS:
        found = [r for r in rows if r["arm"] == arm]
        cells = []
        for key, scale, digits in (("iou", 100, 1), ("niou", 100, 1), ("pd", 100, 1), ("fa", 1e6, 0)):
            values = [r[key] * scale for r in found]
            spread = statistics.stdev(values) if len(values) > 1 else float("nan")
            cells.append(f"{statistics.mean(values):.{digits}f} ± {spread:.{digits}f}" if values else "-")
        lines.append(f"| {arm} | {len(found)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cells", type=int, default=1000, help="cells to do in this call")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    console.quiet = True
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    for seed in () if given.table else given.seeds:
        for arm in ARMS:
            done = any(r["arm"] == arm and r["seed"] == seed for r in rows)
            if not done and given.cells > 0:
                given.cells -= 1
                rows.append(cell(given.data, given.out, arm, seed))
                RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
                print(rows[-1], flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
