"""From synthetic to real: SD2Net learns from synthetic images (or real ones) and is tested on real ones.

    python benchmarks/synthetic_to_real.py --data PUBLIC --out WORK                    # every cell that is not done
    python benchmarks/synthetic_to_real.py --data PUBLIC --out WORK --arms ours nudt --seeds 0 --minutes 60
    python benchmarks/synthetic_to_real.py --data PUBLIC --out WORK --device cuda --jobs 8
    python benchmarks/synthetic_to_real.py --data PUBLIC --out WORK --judge unseen --results FILE    # choose settings
    python benchmarks/synthetic_to_real.py --table                                     # the table of what is done

PUBLIC holds the folders NUAA-SIRST, NUDT-SIRST and SIRST-V2-sample. A cell is an arm with a seed: SD2Net from
scratch (recipe ``best``), 3000 steps of four crops of 256, one thread; the weights after the last step (nothing is
selected on real images) are scored on NUAA-SIRST 50_50/test, with 95 % intervals over images. Two processes may work
on the cells side by side; one that is killed goes on at its last checkpoint. Results are kept in
``results/synthetic_to_real.json``, a row a cell with the generator's recipe, so that a later run only adds.
Arms of our own images differ in one thing each (the ablation); all leave out backgrounds that are, or resemble,
images of the test list, which the generator counts. ``--judge unseen`` scores the images of the training list that
a cell has not seen in place of the test list: settings are chosen by it.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "synthetic_to_real.json"
USUAL = {"model": "sd2net", "device": "cpu", "batch": 4, "set": [], "share": 0.5}
"""Of rows that do not say."""
SIRST, NUDT = ("SIRST-V2-sample",), ("NUDT-SIRST:50_50/train",)
COUNT = 663  # as many as NUDT-SIRST's training list has

OURS: dict[str, tuple[tuple[str, ...], str, tuple[str, ...]]] = {
    # arm: backgrounds, preset, changed keys
    "ours": (SIRST + NUDT, "real", ()),
    "ours-nudt-backgrounds": (NUDT, "real", ()),
    "mask-energy": (SIRST + NUDT, "real", ("mask.policy=energy",)),
    "mask-half": (SIRST + NUDT, "real", ("mask.policy=half",)),
    "psf-round": (SIRST + NUDT, "real", ("point.anisotropy={value: 1.0}",)),
    "scr-as-nudt": (SIRST + NUDT, "real", ("scenes.all.scr={quantiles: [1.2, 3.0, 5.7, 9.3, 14.3]}",)),
    "no-sensor": (SIRST + NUDT, "real", ("sensor={}",)),
    "places-anywhere": (SIRST + NUDT, "real", ("placement.regions=false",)),
    "procedural-backgrounds": (("procedural",), "real", ()),
    "preset-nudt": (SIRST + NUDT, "nudt", ()),
    "negatives": (SIRST + NUDT, "real", ("negatives.count={values: [0, 1, 2, 3]}",)),
    "copies": (SIRST + NUDT, "real", ("copies.count=3",)),
}
CURRICULUM = ["--curriculum", 0.5]
TUNED = {"tuned": "ours", "nuaa-tuned": "nuaa"}
"""Arms that go on from another's weights, with real images alone."""
TUNING = {"images": 106, "share": 0.2, "lr": 5e-4}
"""Real images (``nuaa-tuned``: all), steps over those before, learning rate (a quarter of the recipe's)."""
CHILDREN: set[subprocess.Popen[str]] = set()
ARMS = [
    "ours",
    "nudt",
    "nuaa",
    "ours-nudt-backgrounds",
    "mixed",
    "balanced",
    "tuned",
    "nuaa-tuned",
    *list(OURS)[2:],
    "curriculum",
]


HEAD = """# From synthetic to real

`python benchmarks/synthetic_to_real.py --data PUBLIC --out WORK` (CPU: one thread; GPU: an H100 or an H200 under MPS, `--device cuda
--jobs N`, ten to fifteen trainings at a time; the JSON has each row's card): networks from scratch by their recipe `best`, DNA-Net with
what the table names, last weights; NUAA-SIRST 50_50/test (214 images, native size, threshold 0.5, optimal matching below 3 px). `ours`: 663
images of preset `real` on SIRST-V2-sample's and NUDT-SIRST's target-removed training images, near-twins of test images left out; `nudt`:
NUDT-SIRST 50_50/train; `nuaa`: NUAA-SIRST 50_50/train, a tenth of each set aside; `mixed`: 106 images of `nuaa` and 557 of `ours`;
`balanced`: the same images, every second sample a real one (`--real-share 0.5`); `tuned`: the weights of `ours` trained on with 106 images
of `nuaa` alone, a fifth of the steps more; `nuaa-tuned`: those of `nuaa` trained on in the same way with all of its images. The others are
`ours` but for what they are named after (`OURS` in the script). Mean and deviation over seeds; the JSON beside this has intervals over
images, recipes and hashes.
"""
CHOICE = """# Settings of "from synthetic to real", chosen

`python benchmarks/synthetic_to_real.py --judge unseen --results FILE ...`: as synthetic_to_real.md, but scored on the images of NUAA-SIRST's
training list (50_50/train) that a cell has not seen (86 for arms with 106 real images; all 213 for `ours`). No test image was looked at.
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="Folder of the public sets.")
    parser.add_argument("--out", type=Path, help="Folder for images and runs (not for the repository).")
    parser.add_argument(
        "--arms", nargs="+", choices=ARMS, default=["ours", "nudt", "nuaa", "ours-nudt-backgrounds", "mixed"]
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--minutes", type=float, help="Stop after this time, everything saved.")
    parser.add_argument(
        "--table", action="store_true", help="Print (and write, as .md) the table of the cells that are done."
    )
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--model", default="sd2net", help="A network of masks, by its default recipe.")
    parser.add_argument("--precision", help="Of the training [the recipe's].")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--jobs", type=int, default=1, help="Cells at a time.")
    parser.add_argument("--made", action="store_true", help="WORK/images was brought here: make no images.")
    parser.add_argument("--results", type=Path, help="Where the rows are kept.")
    parser.add_argument(
        "--judge",
        choices=["test", "unseen"],
        default="test",
        help="unseen: score the training list's images that a cell has not seen, to choose settings by; name other --results.",
    )
    parser.add_argument("--share", type=float, default=0.5, help="Of real samples in the arm balanced.")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="OPTION", help="Options of train fit, lr=1e-3."
    )
    parser.add_argument("--unseen-of", type=Path, metavar="RUN", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.unseen_of:
        print(json.dumps(unseen(given)))
        return
    signal.signal(signal.SIGTERM, stop)
    if given.results:
        global RESULTS
        RESULTS = given.results
    if given.table:
        write_table(rows())
        print(table(rows()))
        return
    if given.data is None or given.out is None:
        parser.error("--data and --out are needed")
    if given.judge == "unseen" and not given.results:
        parser.error("--judge unseen is no result of the protocol: name a file with --results")
    end = time.monotonic() + 60 * given.minutes if given.minutes else None

    def one(which: tuple[int, str]) -> None:
        if end is None or time.monotonic() < end:
            cell(given, which[1], which[0], end)

    with ThreadPoolExecutor(given.jobs) as pool:  # each waits for processes of its own
        list(pool.map(one, [(seed, arm) for seed in given.seeds for arm in given.arms]))


def stop(*_: object) -> None:
    """End with the trainings that were started, which save what they have."""
    for child in list(CHILDREN):
        child.terminate()
    for child in list(CHILDREN):
        child.wait()
    os._exit(1)  # threads wait for cells that will not come


def cell(given: argparse.Namespace, arm: str, seed: int, end: float | None) -> None:
    """One arm with one seed, unless it is done or another process works on it."""
    key = {"arm": arm, "seed": seed, "steps": given.steps, "crop": given.crop}
    how = {"model": given.model, "device": given.device, "batch": given.batch, "set": given.set}
    if arm == "balanced":
        how["share"] = given.share
    if any((key | how).items() <= (USUAL | row).items() for row in rows()):
        return
    name = "-".join(
        [
            arm,
            f"{given.steps}x{given.crop}",
            f"s{seed}",
            *(str(v) for k, v in how.items() if v != USUAL[k] and k != "set"),
            *given.set,
        ]
    )
    given.out.mkdir(parents=True, exist_ok=True)
    with (given.out / f"{name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        run = given.out / name
        started = time.monotonic()
        start = None
        if arm in TUNED:
            start = given.out / name.replace(arm, TUNED[arm], 1)
            with start.with_suffix(".lock").open("w") as other:
                fcntl.flock(other, fcntl.LOCK_EX)
                if fit(given, start, material(given, TUNED[arm])[0], seed, end) is None:
                    return
        data, recipe = material(given, arm)
        if (report := fit(given, run, data, seed, end, start)) is None:
            return
        if given.judge == "unseen":
            scored = child(__file__, "--data", given.data, "--device", given.device, "--unseen-of", run)
        else:
            scored = irstkit(
                "train", "evaluate", run / "last.pt", "--data", given.data / "NUAA-SIRST", "--split", "50_50/test",
                "--threads", 1, "--device", given.device, "--bootstrap", 1000, "--json",
            )  # fmt: skip
        del scored["checkpoint"]  # a path of whoever ran it
        row = key | {k: v for k, v in how.items() if v != USUAL[k]}
        row |= {
            "images": report["data"],
            "recipe": recipe,
            "result": scored,
            "weights": report["weights"],
        }
        row["wall_seconds"] = round(time.monotonic() - started, 1)
        if given.device != "cpu":
            row |= {"card": report["device_name"], "torch": report["versions"]["torch"], "jobs": given.jobs}
        if given.judge != "test":
            row["judge"] = given.judge
        if given.precision:
            row["precision"] = given.precision
        keep(row)
        print(f"{name}: done")


def fit(
    given: argparse.Namespace,
    run: Path,
    data: list[object],
    seed: int,
    end: float | None,
    start: Path | None = None,
) -> dict | None:
    """The report of a training that is done, now or before; None where the time was over."""
    steps, more = given.steps, ["--precision", given.precision] if given.precision else []
    more += [word for one in given.set for word in ("--" + one).split("=", 1)]
    if start is not None:
        steps = round(TUNING["share"] * steps)
        more += ["--lr", TUNING["lr"]]
    going_on = (run / "last.pt").exists()
    if start is not None and not going_on:
        more += ["--init", start / "last.pt"]
    left = [] if end is None else ["--max-minutes", f"{max(0.1, (end - time.monotonic()) / 60):.2f}"]
    report = irstkit(
        "train", "fit", given.model, *data, "--steps", steps, "--batch", given.batch, "--crop", given.crop,
        "--threads", 1, "--device", given.device, *more, "--seed", seed, "--validate-every", 10,
        "--resume" if going_on else "--overwrite", "--out", run, *left, "--json",
    )  # fmt: skip
    if report["step"] < report["steps"]:
        print(f"{run.name}: stopped at step {report['step']}")
        return None
    return report


def material(given: argparse.Namespace, arm: str) -> tuple[list[object], object]:
    """The options of ``train fit``, and how the synthetic images were made; they are made once."""
    real, nudt = given.data / "NUAA-SIRST", given.data / "NUDT-SIRST"
    if arm in ("nuaa", "nuaa-tuned"):
        return ["--real", real, "--real-split", "50_50/train"], None
    if arm == "tuned":
        data = ["--real", real, "--real-split", "50_50/train", "--total", TUNING["images"]]
        return data, make(given, "ours")[1]
    if arm == "nudt":
        return ["--real", nudt, "--real-split", "50_50/train"], None
    if arm in ("mixed", "balanced"):
        folder, recipe = make(given, "ours")
        share = ["--real", real, "--synthetic", folder, "--real-fraction", 0.16, "--total", COUNT]
        return share + (["--real-share", given.share] if arm == "balanced" else []), recipe
    folder, recipe = make(given, "ours" if arm == "curriculum" else arm)
    return ["--synthetic", folder, *(CURRICULUM if arm == "curriculum" else [])], recipe


def make(given: argparse.Namespace, arm: str) -> tuple[Path, object]:
    backgrounds, preset, changed = OURS[arm]
    folder = given.out / "images" / arm
    if given.made:
        return folder, {"preset": preset, "backgrounds": backgrounds, "set": changed}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{arm}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        options: list[object] = []
        for one in backgrounds:
            options += ["--backgrounds", one if one == "procedural" else given.data / one]
        for one in changed:
            options += ["--set", one]
        if (
            given.data / "scenes_all.csv"
        ).exists():  # file, scene: preset real mixes scenes as its reference does
            options += ["--scenes", given.data / "scenes_all.csv"]
        irstkit(
            "synth", "images", "--out", folder, "--count", COUNT, "--seed", 11, "--preset", preset, *options,
            "--exclude", f"{given.data / 'NUAA-SIRST'}:50_50/test", "--workers", 1, "--json",
        )  # fmt: skip
    return folder, {"preset": preset, "backgrounds": backgrounds, "set": changed}


def unseen(given: argparse.Namespace) -> dict:
    """The metrics on the images of NUAA-SIRST's training list that a run neither trained on nor was judged by."""
    import torch

    from irstkit.datasets.readers import open_dataset
    from irstkit.train.evaluate import evaluate
    from irstkit.train.sources import open_source

    torch.set_num_threads(1)
    data = open_dataset(given.data / "NUAA-SIRST")
    source = open_source(given.unseen_of / "last.pt", list(data), device=given.device)
    seen = set(source.seen.get("NUAA-SIRST", ()))
    return evaluate(
        source,
        replace(data, records=tuple(r for r in data if r.id not in seen)),
        "50_50/train",
        resamples=1000,
    )


def irstkit(*words: object) -> dict:
    return child("-m", "irstkit", *words)


def child(*words: object) -> dict:
    """The JSON that a program of ours prints."""
    process = subprocess.Popen(
        [sys.executable, *map(str, words)], stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )  # fmt: skip
    CHILDREN.add(process)
    out, _ = process.communicate()
    CHILDREN.discard(process)
    if process.returncode:
        sys.exit(f"failed: {' '.join(map(str, words))}")
    return json.loads(out)


def rows() -> list[dict]:
    with contextlib.suppress(FileNotFoundError):
        return json.loads(RESULTS.read_text())
    return []


def keep(row: dict) -> None:
    """Add a row; two processes may do so."""
    with RESULTS.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        everything = sorted([*rows(), row], key=_order)
        part = RESULTS.with_suffix(".part")
        part.write_text(json.dumps(everything, indent=1) + "\n")
        part.replace(RESULTS)
        write_table(everything)


def write_table(done: list[dict]) -> None:
    """The table beside the results."""
    head = CHOICE if done and all(row.get("judge") == "unseen" for row in done) else HEAD
    RESULTS.with_suffix(".md").write_text(f"{head}\n{table(done)}\n")


def _order(row: dict) -> tuple:
    """Rows by network, device and protocol, then by arm and seed."""
    row = USUAL | row
    place = ARMS.index(row["arm"]) if row["arm"] in ARMS else len(ARMS)  # of an arm that is no more
    how = *(row[k] for k in ("model", "device", "steps", "crop", "batch")), " ".join(row["set"])
    return (*how, place, row["arm"], row["share"] if row["arm"] == "balanced" else 0, row["seed"])


def table(done: list[dict]) -> str:
    """Mean and deviation over seeds; of one seed its interval over images."""
    lines = [
        "| network, device | trained on | steps x batch x crop | seeds | IoU % | Pd % | Fa 1e-6 |",
        "|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple, list[dict]] = {}
    for row in sorted(done, key=_order):
        groups.setdefault(_order(row)[:-1], []).append(row["result"])
    for (model, device, steps, crop, batch, options, _, arm, share), results in groups.items():
        name = " ".join([{"cpu": "CPU", "cuda": "GPU"}[device], options]).strip()
        arm += f" {share:g}" if share not in (0, USUAL["share"]) else ""
        shown = []
        for metric, scale in (("iou", 100), ("pd", 100), ("fa", 1e6)):
            values = [scale * r[metric] for r in results]
            spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            shown.append(f"{statistics.mean(values):.1f}{spread}")
        protocol = f"{steps} x {batch} x {crop}"
        lines.append(f"| {model}, {name} | {arm} | {protocol} | {len(results)} | {' | '.join(shown)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
