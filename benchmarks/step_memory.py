"""What keeping freed memory saves a training step on the CPU (``train/runtime.py``, ``memory_kept``).

    python benchmarks/step_memory.py --out benchmarks/results/step_memory.json

One process a network; steps with memory kept and as glibc does it, in turn, each after steps to settle. Reported
are medians of the processor seconds of a step, of them the system's, and the pages that it had to provide.
Processor time is little moved by other work on the machine. Needs Linux with glibc.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import torch

from irstkit.train.losses import soft_iou, supervised
from irstkit.train.models import build
from irstkit.train.runtime import deterministic, memory_kept

CASES = (("sd2net", 4, 256), ("dnanet", 1, 256), ("unet", 4, 256), ("sd2net", 4, 128))


def measure(model: str, batch: int, size: int, rounds: int) -> dict[str, object]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = build(model).train()
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-4)
    images, masks = torch.rand(batch, 1, size, size), torch.zeros(batch, 1, size, size)
    masks[..., size // 2 : size // 2 + 3, size // 2 : size // 2 + 3] = 1

    def step() -> tuple[float, float, int]:
        before = resource.getrusage(resource.RUSAGE_SELF)
        supervised(soft_iou, net(images), masks).backward()
        optimiser.step()
        optimiser.zero_grad()
        after = resource.getrusage(resource.RUSAGE_SELF)
        system = after.ru_stime - before.ru_stime
        return after.ru_utime - before.ru_utime + system, system, after.ru_minflt - before.ru_minflt

    rows: dict[str, list[tuple[float, float, int]]] = {"as_glibc_does": [], "memory_kept": []}
    with deterministic():
        for _ in range(rounds):
            for name, around in (("as_glibc_does", contextlib.nullcontext()), ("memory_kept", memory_kept())):
                with around as kept:
                    if name == "memory_kept" and not kept:
                        raise SystemExit(
                            "memory_kept does nothing here (glibc? MALLOC_... or GLIBC_TUNABLES set?)"
                        )
                    step(), step()
                    rows[name] += [step(), step()]
    result: dict[str, object] = {"model": model, "batch": batch, "size": size}
    for name, values in rows.items():
        total, system, pages = (statistics.median(column) for column in zip(*values, strict=True))
        result[name] = {
            "seconds": round(total, 3),
            "system_seconds": round(system, 3),
            "new_pages": round(pages),
        }
    first, second = (statistics.median(v[0] for v in values) for values in rows.values())
    return result | {"ratio": round(second / first, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--case", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case is not None:
        print(json.dumps(measure(*CASES[given.case], given.rounds)))
        return
    rows = []
    for case in range(len(CASES)):
        command = [sys.executable, __file__, "--case", str(case), "--rounds", str(given.rounds)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows.append(json.loads(done.stdout))
        print(rows[-1], flush=True)
    result = {
        "what": "processor seconds of a training step (forward, Soft-IoU, backward, Adam), float32, one CPU thread",
        "rounds": given.rounds,
        "rows": rows,
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, glibc {platform.libc_ver()[1]}",
    }
    if given.out:
        given.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
