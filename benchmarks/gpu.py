"""What a training step costs on a GPU, and what reproducible bits and a recorded step change in it.

    python benchmarks/gpu.py --json benchmarks/results/gpu.json     # adds its rows to the file
    python benchmarks/gpu.py --table                                # the table of the file, kept beside it as .md
    python benchmarks/gpu.py --models sd2net --batch 16 --profile

A step is forward pass, Soft-IoU (boxes: the network's own loss), backward pass, gradients clipped at norm 1, Adam, on
random images; medians after a warm-up. Four ways to take it:

any order   PyTorch as it comes: bits differ from run to run
sorted      deterministic algorithms with PyTorch's own bilinear interpolation, whose gradient sorts indices
ours        deterministic, interpolation as matrix products
recorded    ours, replayed as one CUDA graph: what `irstkit train fit` does
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irstkit.train.captured import Captured
from irstkit.train.losses import final, soft_iou, supervised
from irstkit.train.models import build, count_parameters, layers
from irstkit.train.optimise import optimiser_of
from irstkit.train.runtime import deterministic
from irstkit.train.settings import Settings

RESULTS = Path(__file__).parent / "results" / "gpu.json"
HEAD = """# A training step on a GPU

`python benchmarks/gpu.py`: forward pass, loss, backward pass, clipping and Adam on random images; medians. *any order*: PyTorch as it
comes, other bits every time; *sorted*: deterministic, PyTorch's own interpolation; *ours*: deterministic, interpolation as matrix
products; *recorded*: ours, replayed as one CUDA graph, which is what `irstkit train fit` does for networks of masks. Eager steps wait for
the machine to launch their kernels, so they differ from host to host (SD2Net's *any order*: 55 and 36 ms on two hosts with one kind of
card); recorded ones hardly do. Between the two commits: SD2M's sums in one kernel, Adam as one kernel, DNA-Net's channel maximum by all
threads.
"""
NETWORKS = ("sd2net", "dnanet", "datransnet", "acm", "unet", "std2net", "dfar", "eflnet")
WAYS = ("any order", "sorted", "ours", "recorded")


def own_interpolation(x: Tensor, size: Any, *, corners: bool) -> Tensor:
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=corners)


@contextlib.contextmanager
def interpolated_by_pytorch() -> Any:
    """Every module that took ``resize`` by name uses PyTorch's own."""
    import sys

    users = [
        m
        for n, m in sys.modules.items()
        if n.startswith("irstkit.train") and getattr(m, "resize", None) is layers.resize
    ]
    with contextlib.ExitStack() as stack:
        for module in users:
            stack.enter_context(mock.patch.object(module, "resize", own_interpolation))
        yield


def median_seconds(call: Callable[[], Any], rounds: int, budget: float = 4.0) -> float:
    """Median of at most ``rounds`` calls, and of what fits in ``budget`` seconds (at least three)."""
    for _ in range(5):  # three of them before a graph is recorded
        call()
    seconds: list[float] = []
    begun = time.perf_counter()
    while len(seconds) < rounds and (len(seconds) < 3 or time.perf_counter() - begun < budget):
        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


class Steps:
    """Training steps of one network on random images."""

    def __init__(self, name: str, batch: int, size: int) -> None:
        torch.manual_seed(0)
        self.net: Any = build(name).cuda().train()
        self.boxes = getattr(self.net, "task", "mask") == "boxes"
        frames = (self.net.window,) if hasattr(self.net, "window") else ()
        channels = int(getattr(self.net, "in_channels", 1))
        self.images = torch.rand(batch, *frames, channels, size, size, device="cuda")
        self.masks = torch.zeros(batch, 1, size, size, device="cuda")
        self.masks[..., size // 2 : size // 2 + 3, size // 2 : size // 2 + 3] = 1
        middle = size // 2
        self.targets = [
            torch.tensor([[middle, middle, middle + 3, middle + 3]], device="cuda").float()
        ] * batch
        self.optimiser = optimiser_of(Settings(lr=1e-4), self.net, fused=True)

    def compute(self, images: Tensor, masks: Tensor) -> Tensor:
        output = self.net(images)
        loss = (
            self.net.losses(output, self.targets)["total"]
            if self.boxes
            else supervised(soft_iou, output, masks)
        )
        loss.backward()
        return loss.detach()

    def call(self, *, recorded: bool) -> Callable[[], float]:
        compute = Captured(self.compute, self.net) if recorded else self.compute

        def step() -> float:
            loss = compute(self.images, self.masks)
            nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
            self.optimiser.step()
            self.optimiser.zero_grad()
            return loss.item()

        return step


def measured(name: str, batch: int, size: int, rounds: int) -> dict[str, Any]:
    row: dict[str, Any] = {"model": name, "batch": batch, "size": size}
    steps = Steps(name, batch, size)
    row["parameters"] = count_parameters(steps.net)
    for way in WAYS:
        if steps.boxes and way == "recorded":
            continue
        with contextlib.ExitStack() as stack:
            if way != "any order":
                stack.enter_context(deterministic())
            if way in ("any order", "sorted"):
                stack.enter_context(interpolated_by_pytorch())
            torch.cuda.reset_peak_memory_stats()
            row[way] = median_seconds(steps.call(recorded=way == "recorded"), rounds)
            if way != "recorded":  # its graph keeps what the eager steps reserved
                row[f"{way} MiB"] = round(torch.cuda.max_memory_allocated() / 2**20)
    steps.net.eval()
    with torch.inference_mode():
        for count in (1, 16):
            images = steps.images[:1].expand(count, *steps.images.shape[1:]).contiguous()
            for precision in ("32-true", "bf16"):
                with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
                    seconds = median_seconds(lambda x=images: final_of(steps.net(x)), rounds, 2.0)
                row[f"forward images/s, batch {count}, {precision}"] = round(count / seconds, 1)
    return row


def final_of(output: Any) -> Any:
    return final(output) if isinstance(output, Tensor | list | tuple) else output


def profiled(name: str, batch: int, size: int) -> str:
    """Where the device's time goes in eager steps, kernel by kernel."""
    from torch.profiler import ProfilerActivity, profile

    steps = Steps(name, batch, size)
    with deterministic():
        step = steps.call(recorded=False)
        for _ in range(5):
            step()
        with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as found:
            for _ in range(3):
                step()
            torch.cuda.synchronize()
    return found.key_averages().table(sort_by="self_cuda_time_total", row_limit=30, max_name_column_width=60)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", type=Path, help="Add the rows to that file.")
    parser.add_argument("--commit", help="What is measured, kept with the rows.")
    parser.add_argument(
        "--table", action="store_true", help="Print and write the table of what was measured."
    )
    parser.add_argument(
        "--profile", action="store_true", help="Print where the time of eager steps goes instead."
    )
    given = parser.parse_args()
    if given.table:
        text = table(json.loads(RESULTS.read_text()))
        RESULTS.with_suffix(".md").write_text(f"{HEAD}\n{text}\n")
        print(text)
        return
    if not torch.cuda.is_available():
        parser.exit(1, "no GPU here\n")
    rows = []
    for name in given.models:
        if given.profile:
            print(profiled(name, given.batch, given.size))
            continue
        row = measured(name, given.batch, given.size, given.rounds)
        rows.append(row)
        shown = "  ".join(f"{way} {1e3 * row[way]:7.1f} ms" for way in WAYS if way in row)
        print(f"{name:<11}{shown}   {row['ours MiB']} MiB", flush=True)
        torch.cuda.empty_cache()
    if given.json and rows:
        about = {
            "card": torch.cuda.get_device_name(),
            "torch": torch.__version__,
            "commit": given.commit,
            "rows": rows,
        }
        before = json.loads(given.json.read_text()) if given.json.exists() else []
        given.json.write_text(json.dumps([*before, about], indent=1) + "\n")


def table(runs: list[dict[str, Any]]) -> str:
    """The steps of all runs."""
    lines = [
        "| network | batch x size | any order | sorted | ours | recorded | card, torch, commit |",
        "|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        for row in run["rows"]:
            ways = " | ".join(f"{1e3 * row[way]:.1f} ms" if way in row else "-" for way in WAYS)
            where = f"{run['card']}, {run['torch'].partition('+')[0]}, {run['commit'] or '-'}"
            lines.append(f"| {row['model']} | {row['batch']} x {row['size']} | {ways} | {where} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
