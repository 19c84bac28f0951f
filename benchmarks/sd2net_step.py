"""SD2Net's training step: the dynamic-depthwise SD2M against the form that stacks its difference maps.

    python benchmarks/sd2net_step.py --out benchmarks/results/sd2net_step.json

One process, both networks with the same weights and batch, steps taken in turn (ours, stacked, ours, ...), so
that whatever else the machine does falls on both. The step is the training loop's: forward, Soft-IoU,
backward, Adam. Reported: median and minimum seconds, ratio of the medians, errors of the network's
gradients against the stacked form in float64, and how much a step grows a fresh process (Linux).
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from irstkit.train.losses import soft_iou
from irstkit.train.models import build
from irstkit.train.models.differences import recombine_stacked
from irstkit.train.models.sd2net import SD2M


class StackedSD2M(SD2M):
    """The same module in the plain form: sixteen maps in memory and two matrix products."""

    def forward(self, x):
        o = self.original(x)
        planes = recombine_stacked(x.flatten(0, 1), o.flatten(0, 1), mode=self.padding)
        return self.out(planes.view_as(o))


def networks(base: int):
    torch.manual_seed(0)
    ours = build("sd2net", base=base)
    stacked = build("sd2net", base=base)
    for block in stacked.skips:
        block.__class__ = StackedSD2M
    stacked.load_state_dict(ours.state_dict())
    return {"ours": ours, "stacked": stacked}


def batch_of(batch: int, size: int):
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(batch, 1, size, size, generator=generator)
    masks = torch.zeros(batch, 1, size, size)
    masks[:, :, size // 2 : size // 2 + 4, size // 3 : size // 3 + 4] = 1
    return images, masks


def high_water() -> float:
    """Largest resident size of this process so far, MiB (Linux)."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def gradients(net, images, masks, dtype):
    net = copy.deepcopy(net).to(dtype)
    soft_iou(net(images.to(dtype)), masks.to(dtype)).backward()
    return torch.cat([p.grad.flatten().double() for p in net.parameters()])


def step(net, optimiser, images, masks) -> float:
    start = time.perf_counter()
    optimiser.zero_grad()
    soft_iou(net(images), masks).backward()
    optimiser.step()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--base", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--peak", choices=("ours", "stacked"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    nets = networks(given.base)
    images, masks = batch_of(given.batch, given.size)
    if given.peak:
        net = nets[given.peak]
        before = high_water()
        step(net, torch.optim.Adam(net.parameters(), lr=5e-4), images, masks)
        print(high_water() - before)
        return
    small = (images[:2, :, :128, :128], masks[:2, :, 64:192, 64:192])
    exact = gradients(nets["stacked"], *small, torch.float64)
    scale = exact.abs().max().item()
    errors = {
        "ours_float64": (gradients(nets["ours"], *small, torch.float64) - exact).abs().max().item() / scale,
        **{f"{n}_float32": (gradients(net, *small, torch.float32) - exact).abs().max().item() / scale
           for n, net in nets.items()},
    }  # fmt: skip
    optimisers = {name: torch.optim.Adam(net.parameters(), lr=5e-4) for name, net in nets.items()}
    seconds: dict[str, list[float]] = {name: [] for name in nets}
    for turn in range(given.rounds + 1):
        for name, net in nets.items():
            taken = step(net, optimisers[name], images, masks)
            if turn:  # the first round warms up
                seconds[name].append(taken)
    peaks = {
        name: float(
            subprocess.run(
                [sys.executable, __file__, "--peak", name, "--threads", str(given.threads),
                 "--size", str(given.size), "--batch", str(given.batch), "--base", str(given.base)],
                capture_output=True, text=True, check=True,
            ).stdout
        )
        for name in nets
    }  # fmt: skip
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    result = {
        "what": "SD2Net training step (forward, Soft-IoU, backward, Adam), float32, CPU",
        "size": given.size,
        "batch": given.batch,
        "base": given.base,
        "threads": given.threads,
        "rounds": given.rounds,
        "median_seconds": {k: round(v, 4) for k, v in medians.items()},
        "min_seconds": {k: round(min(v), 4) for k, v in seconds.items()},
        "times_faster": round(medians["stacked"] / medians["ours"], 2),
        "peak_mib_of_a_step": {k: round(v) for k, v in peaks.items()},
        "largest_gradient_error_against_stacked_float64_relative": errors,
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    text = json.dumps(result, indent=2)
    print(text)
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
