"""What copies, hard negatives and a curriculum by SCR are worth: a small protocol, from synthetic images to real ones.

    python benchmarks/synth_teaching.py --data PUBLIC --out WORK              # every cell that is not done
    python benchmarks/synth_teaching.py --table                               # the table of what is done

PUBLIC holds NUAA-SIRST and NUDT-SIRST. A cell is an arm with a seed: a set with preset ``real`` on the target-removed
images of NUDT-SIRST 50_50/train, then SD2Net (base 8) from scratch, 400 steps of four crops of 128, one thread; the
weights after the last step are scored on NUAA-SIRST 50_50/test. Nothing is selected on real images. Seeds change the
network and the order, the sets are the same. Cells are kept in ``results/synth_teaching.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "synth_teaching.json"
STEPS = 400
NEGATIVES = ("negatives.count={values: [0, 1, 2, 3]}",)
SETS = {
    "plain": (600, ()),
    "few": (200, ()),
    "copies": (600, ("copies.count=3",)),
    "negatives": (600, NEGATIVES),
}
ARMS = {  # set, training options, what it is
    "600 scenes": ("plain", (), "the comparison for all but the third row"),
    "600 scenes, 1.5 negatives an image": ("negatives", (), "the same images, negatives added"),
    "600 scenes, curriculum 0.5": ("plain", ("--curriculum", "0.5"), "the same images"),
    "200 scenes": ("few", (), "the comparison for the next row"),
    "200 scenes, 3 of each": ("copies", (), "the same 200 scenes, each blended three times"),
}


def command(*words: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "irstkit", *map(str, words)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, words))}\n{done.stderr}")
    return done.stdout


def cell(data: Path, out: Path, arm: str, seed: int) -> dict:
    name, options, _ = ARMS[arm]
    count, overrides = SETS[name]
    made = out / "sets" / name
    more = [word for override in overrides for word in ("--set", override)]
    if not (made / "manifest.jsonl").exists():
        command(
            "synth", "images", "--out", made, "--count", count, "--seed", 1, "--preset", "real", "--workers", 1,
            "--backgrounds", f"{data}/NUDT-SIRST:50_50/train", "--exclude", f"{data}/NUAA-SIRST:50_50/test", *more,
        )  # fmt: skip
    run = out / "runs" / f"{list(ARMS).index(arm)}-{seed}"
    command(
        "train", "fit", "sd2net", "--synthetic", made, "--option", "base=8", "--crop", 128, "--batch", 4,
        "--steps", STEPS, "--seed", seed, "--validate-every", 1000, "--threads", 1, "--device", "cpu",
        "--out", run, "--overwrite", *options,
    )  # fmt: skip
    scores = json.loads(
        command(
            "train", "evaluate", run / "last.pt", "--data", data / "NUAA-SIRST", "--split", "50_50/test",
            "--threads", 1, "--device", "cpu", "--json",
        )
    )  # fmt: skip
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
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    for seed in () if given.table else given.seeds:
        for arm in ARMS:
            if not any(r["arm"] == arm and r["seed"] == seed for r in rows):
                rows.append(cell(given.data, given.out, arm, seed))
                RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
                print(rows[-1], flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
