"""How much of the training time was spent waiting for data, from the logs of runs (goal: less than 5 %).

    irstkit train fit sd2net --real NUAA-SIRST --steps 3000 --batch 4 --crop 128 --threads 1 --out runs/nuaa
    python benchmarks/data_share.py runs/nuaa runs/* --out benchmarks/results/data_share.json

A step's time runs from asking for its batch (cutting and augmenting crops, normalisation, move to the device) to
the optimiser's end; ``data_share`` in log.csv is the part until the batch is there.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from irstkit.train.runs import read_log, read_run


def of_run(folder: Path) -> dict:
    rows, run = read_log(folder), read_run(folder)
    seconds = sum(r["seconds"] or 0 for r in rows)
    waited = sum((r["seconds"] or 0) * (r["data_share"] or 0) for r in rows)
    settings = run["settings"]
    return {
        "run": folder.name,
        **{k: settings[k] for k in ("model", "options", "batch", "crop")},
        "data": {k: v["name"] for k, v in run["data"].items() if isinstance(v, dict) and "name" in v},
        "steps": int(rows[-1]["step"] or 0),
        "seconds_of_steps": round(seconds, 1),
        "share": round(waited / seconds, 5),
        "largest_share_between_validations": max(r["data_share"] or 0 for r in rows),
        "device": run["device"],
        "threads": run["threads"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    rows = [of_run(folder) for folder in given.runs]
    for row in rows:
        print(
            f"{row['run']}: {row['share']:.2%} of {row['seconds_of_steps']:.0f} s ({row['model']}, {row['crop']})"
        )
    if given.out:
        told = {"what": "part of the step time spent waiting for data; goal: below 0.05", "runs": rows}
        given.out.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    if any(row["share"] >= 0.05 for row in rows):
        raise SystemExit("some run waits for data too long")


if __name__ == "__main__":
    main()
