"""Runs that are killed (SIGKILL) at random moments and resumed, against one that was left alone: the same weights?

    python benchmarks/kill_resume.py --kills 20 --out benchmarks/results/kill_resume.json

Every run is killed again and again, at moments drawn evenly over the time of an uninterrupted run, until it
ends; then ``last.pt`` and ``best.pt`` must hold the weights of the uninterrupted one, to the bit. The seed of the
moments is drawn and printed; ``--seed`` repeats them (up to the machine's own timing). Linux and macOS (fork).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np
import torch

from irstkit.annotate.files import write_png
from irstkit.train.checkpoint import load_checkpoint, weights_hash
from irstkit.train.loop import fit
from irstkit.train.material import compose
from irstkit.train.settings import settings_from


def pairs(root: Path, count: int = 12) -> Path:
    """A small data set: noise with one bright target an image."""
    rng = np.random.default_rng(0)
    for k in range(count):
        image, mask = rng.normal(90, 8, (64, 64)), np.zeros((64, 64), bool)
        y, x = rng.integers(4, 58, 2)
        mask[y : y + 3, x : x + 3] = True
        image[mask] += 80
        write_png(root / "images" / f"{k:03d}.png", image.clip(0, 255).astype(np.uint8))
        write_png(root / "masks" / f"{k:03d}.png", mask.astype(np.uint8) * 255)
    return root


def started(settings, material, out: Path) -> int:
    """The process id of a run in a child, which goes on where ``out`` is."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        resume = (out / "last.pt").exists()
        fit(settings, material, out, device="cpu", resume=resume, overwrite=not resume)
        status = 0
    finally:
        os._exit(status)


def weights(out: Path) -> list[str]:
    return [weights_hash(load_checkpoint(out / name)["model"]["state"]) for name in ("last.pt", "best.pt")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="at least")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    seed = int.from_bytes(os.urandom(4), "little") if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    torch.set_num_threads(1)
    draw, runs, kills = random.Random(seed), [], 0
    settings = settings_from(
        {
            "options": {"base": 4},
            "crop": 32,
            "batch": 2,
            "steps": given.steps,
            "ema": 0.9,
            "schedule": "cosine",
        }
    )
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        material = compose(pairs(root / "data"), None)
        begin = time.monotonic()
        if os.waitpid(started(settings, material, root / "whole"), 0)[1]:
            sys.exit("the uninterrupted run failed")
        lasted, expected = time.monotonic() - begin, weights(root / "whole")
        while kills < given.kills:
            out, steps = root / f"run{len(runs)}", []
            while True:
                child = started(settings, material, out)
                time.sleep(draw.uniform(0, lasted))
                os.kill(child, signal.SIGKILL)
                status = os.waitpid(child, 0)[1]
                if os.WIFEXITED(status):
                    if os.WEXITSTATUS(status):
                        sys.exit(f"seed {seed}: a resumed run failed after {steps}")
                    lasted *= 0.7  # the machine is faster now: draw earlier moments
                    break
                saved = (out / "last.pt").exists()
                steps.append(load_checkpoint(out / "last.pt")["step"] if saved else 0)
            kills += len(steps)
            runs.append({"killed_with_last_pt_at_step": steps, "same_weights": weights(out) == expected})
            print(runs[-1], flush=True)
    told = {
        "what": "SIGKILL at random moments, resumed until the end; hashes of last.pt and best.pt against a run "
        "that was left alone",
        "seed": seed,
        "steps": given.steps,
        "kills": kills,
        "runs": runs,
        "all_same": all(r["same_weights"] for r in runs),
        "torch": torch.__version__,
    }
    print(json.dumps({k: v for k, v in told.items() if k != "runs"}))
    if given.out:
        given.out.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    if not told["all_same"]:
        sys.exit("not every run ended with the same weights")


if __name__ == "__main__":
    main()
