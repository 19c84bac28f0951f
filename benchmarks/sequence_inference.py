"""Frames/s of clip networks over a sequence: each frame encoded once against each clip on its own.

    python benchmarks/sequence_inference.py --size 256 --frames 12 --threads 1 --json benchmarks/results/sequence_inference.json

Frames a second of CPU time (one thread by default, so that what else the machine does falls out). Three ways,
taken in turn in every round, best round of each: every clip on its own through ``forward``
(``alone``); the same network with each frame's features kept (``once``); and that with normalisation folded
into the convolutions (``folded``, as prediction does it). The largest difference of the outputs to ``alone``
is printed with the speed. The weights are random with running statistics as after training.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from irstkit.datasets.clips import window_positions
from irstkit.train.models import build
from irstkit.train.sequence import clip_of, folded, outputs, to_tensor


def measure(name: str, size: int, count: int, rounds: int) -> dict[str, Any]:
    torch.manual_seed(0)
    net: Any = build(name)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr, operator]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr, operator]
        if isinstance(module, torch.nn.Conv2d) and not bool(module.weight.any()):
            torch.nn.init.normal_(module.weight, 0, 0.01)  # offsets that move
    net.eval()
    merged = folded(net)
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (size, size), dtype=np.uint8) for _ in range(count)]

    def prepare(image: Any) -> torch.Tensor:
        return to_tensor(image, channels=net.in_channels)

    @torch.inference_mode()
    def alone() -> list[torch.Tensor]:
        places = [window_positions(range(count), k, net.window, net.key, net.border) for k in range(count)]
        return [net(clip_of(frames, p, prepare)) for p in places]

    ways = {
        "alone": alone,
        "once": lambda: list(outputs(net, frames, prepare)),
        "folded": lambda: list(outputs(merged, frames, prepare)),
    }
    best = dict.fromkeys(ways, float("inf"))
    results: dict[str, list[torch.Tensor]] = {}
    for _ in range(rounds):
        for way, run in ways.items():
            start = time.process_time()
            results[way] = run()
            best[way] = min(best[way], time.process_time() - start)
    row: dict[str, Any] = {"model": name, "size": size, "frames": count}
    for way in ways:
        row[f"{way}_fps"] = round(count / best[way], 3)
        row[f"{way}_difference"] = max(
            float((a - b).abs().max()) for a, b in zip(results["alone"], results[way], strict=True)
        )
    row["once_speedup"] = round(best["alone"] / best["once"], 2)
    row["folded_speedup"] = round(best["alone"] / best["folded"], 2)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["dfar", "std2net"])
    parser.add_argument("--size", type=int, default=256, help="side of the frames, pixels")
    parser.add_argument("--frames", type=int, default=12, help="frames of the sequence")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the rows there")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rows = [measure(name, given.size, given.frames, given.rounds) for name in given.models]
    for row in rows:
        print(json.dumps(row))
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        about = {"threads": given.threads, "rounds": given.rounds, "torch": torch.__version__}
        given.json.write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
