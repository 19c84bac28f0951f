"""SD2Net on NUDT-SIRST and NUAA-SIRST, 50_50: a stated processor budget, the curve and the table.

    python benchmarks/sd2net_runs.py --data PUBLIC --out WORK

PUBLIC holds the folders NUDT-SIRST and NUAA-SIRST. Each is trained with the recipe ``best``: 3000 steps of four crops
of 128, one CPU thread, seed 0; a tenth of the training list chooses the checkpoint; the test list is scored once,
with 95 % intervals over images. A run that was killed goes on at its last checkpoint. Writes
``results/sd2net_runs.json`` and ``.md`` and ``docs/figures/sd2net.png``.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import matplotlib
from synthetic_to_real import irstkit

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
SETS = {"NUDT-SIRST": "nudt-s0", "NUAA-SIRST": "nuaa-s0"}
VALIDATE = {"NUDT-SIRST": 5, "NUAA-SIRST": 10}  # epochs


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="Folder of the public sets.")
    parser.add_argument("--out", type=Path, required=True, help="Folder for the runs.")
    given = parser.parse_args()
    rows = []
    for name, folder in SETS.items():
        run = given.out / folder
        report = json.loads((run / "run.json").read_text()) if (run / "run.json").exists() else {}
        if report.get("step", 0) < 3000:
            start = ["--resume"] if (run / "last.pt").exists() else ["--overwrite"]
            report = irstkit(
                "train", "fit", "sd2net", "--real", given.data / name, "--steps", 3000, "--batch", 4, "--crop", 128,
                "--threads", 1, "--seed", 0, "--validate-every", VALIDATE[name], *start, "--out", run, "--json",
            )  # fmt: skip
        with (run / "log.csv").open() as stream:
            log = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(stream)]
        scored = irstkit(
            "train", "evaluate", run / "best.pt", "--data", given.data / name, "--split", "50_50/test", "--roc",
            "--bootstrap", 1000, "--threads", 1, "--json",
        )  # fmt: skip
        report.pop("paths")  # where things lay on this machine
        scored.pop("checkpoint")
        rows.append({"set": name, "run": report, "log": log, "test": scored})
    (HERE / "results" / "sd2net_runs.json").write_text(json.dumps(rows, indent=1) + "\n")
    (HERE / "results" / "sd2net_runs.md").write_text(table(rows))
    plot(rows)


def table(rows: list[dict]) -> str:
    lines = [
        "# SD2Net, 3000 steps on one CPU thread",
        "",
        "`python benchmarks/sd2net_runs.py --data PUBLIC --out WORK`: recipe `best`, four crops of 128 a step, seed 0, best",
        "checkpoint by IoU on a tenth of the training list; 50_50/test at native size, threshold 0.5, optimal matching below",
        "3 px; 95 % intervals over images.",
        "",
        "| set | training images | best step | IoU % | nIoU % | Pd % | Fa 1e-6 | pixel AUC % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        test, cells = row["test"], []
        for name, scale in (("iou", 100), ("niou", 100), ("pd", 100), ("fa", 1e6)):
            low, high = (scale * v for v in test["intervals_95"][name])
            cells.append(f"{scale * test[name]:.1f} ({low:.1f} to {high:.1f})")
        cells.append(f"{100 * test['roc']['pixel_auc']:.1f}")
        lines.append(
            f"| {row['set']} | {row['run']['data']['real']['used']} | {row['run']['best']['step']} | {' | '.join(cells)} |"
        )
    return "\n".join(lines) + "\n"


def plot(rows: list[dict]) -> None:
    figure, axes = plt.subplots(1, 3, figsize=(10, 3), layout="constrained")
    for row, colour in zip(rows, ("tab:blue", "tab:orange"), strict=True):
        steps = [r["step"] for r in row["log"]]
        axes[0].plot(steps, [r["loss"] for r in row["log"]], color=colour, label=row["set"])
        axes[1].plot(steps, [100 * r["val_iou"] for r in row["log"]], color=colour, label=row["set"])
        axes[1].plot(3000, 100 * row["test"]["iou"], "D", color=colour, ms=5)
        axes[2].plot(steps, [100 * r["val_pd"] for r in row["log"]], color=colour)
        axes[2].plot(3000, 100 * row["test"]["pd"], "D", color=colour, ms=5)
    for axis, title in zip(axes, ("training loss (Soft-IoU)", "IoU, %", "Pd, %"), strict=True):
        axis.set(title=title, xlabel="step")
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False)
    axes[1].plot([], [], "D", color="gray", label="test, best checkpoint")
    axes[1].plot([], [], color="gray", label="validation part")
    handles, labels = axes[1].get_legend_handles_labels()
    axes[1].legend(handles[-2:], labels[-2:], frameon=False, loc="lower right")
    figure.savefig(HERE.parent / "docs" / "figures" / "sd2net.png", dpi=110)


if __name__ == "__main__":
    main()
