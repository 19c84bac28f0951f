"""Why DFAR begins to learn so late: what is left of a dim target, layer by layer, and what helps.

    python benchmarks/dfar_start.py --work /somewhere --json benchmarks/results/dfar_start.json

On DAUB-like synthetic sequences (seed 11; no other experiment is scored on them), quarter width, crops of 64:

- ``probe``: a linear classifier on the features and their squares of untrained networks: how well does it tell the
  cell that holds a target's centre from the others (AUC on clips it was not fitted on)? 0.5 is chance.
- ``start``: the mean objectness loss an image batch over the last 50 of 200 steps. A network that only knows how
  often a cell holds a target stays at {constant:.1f}.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from irstkit.datasets.clip_batches import ClipBatches
from irstkit.datasets.readers import open_dataset
from irstkit.train.checkpoint import load_matching
from irstkit.train.models import build
from irstkit.train.settings import Settings, learning_rate
from irstkit.train.tasks import clips_of

CROP, BATCH, STEPS = 64, 4, 200
CELLS = BATCH * (CROP // 8) ** 2
CONSTANT = CELLS * -sum(p * math.log(p) for p in (BATCH / CELLS, 1 - BATCH / CELLS))
"""Cross entropy of the share of positive cells, one a clip, summed over a batch."""
__doc__ = __doc__.format(constant=CONSTANT)  # type: ignore[union-attr]

ARMS: dict[str, dict[str, Any]] = {
    "without AGDF": {"agdf": False},
    "whole": {},
    "whole, init=identity": {"init": "identity"},
    "whole, eta=0": {"eta": 0.0},
    "whole, offsets fixed at zero": {"fixed": True},
    "whole, from 400 steps without AGDF": {"start": 400},
    "whole, init=identity, from 400 steps without AGDF": {"init": "identity", "start": 400},
}


def sequences(work: Path) -> Path:
    """The synthetic sequences, made where they are missing."""
    from click.testing import CliRunner

    from irstkit.cli import cli

    out = work / "daub11"
    if not (out / "annotations.json").exists():
        arguments = ["synth", "sequences", "--preset", "daub", "--sequences", "40", "--frames", "24", "--size", "96x96",
                     "--seed", "11", "--splits", "train=0.7,test=0.3", "--out", str(out)]  # fmt: skip
        result = CliRunner().invoke(cli, arguments)
        if result.exit_code:
            raise SystemExit(result.stderr)
    return out


def network(**options: Any) -> Any:
    torch.manual_seed(0)
    return build("dfar", width=0.25, **options)


def batches(net: Any, data: Path, size: int = BATCH) -> ClipBatches:
    records = open_dataset(data).part("synth/train")
    return ClipBatches(clips_of(net, records), size, CROP, 0, True, target_share=1.0)


def train(net: Any, data: Path, steps: int) -> list[float]:
    """Objectness loss of each step: Adam, 1e-3, cosine to zero."""
    source, losses = batches(net, data), []
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    settings = Settings(lr=1e-3, schedule="cosine", warmup=20)
    net.train()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(settings, step, steps)
        images, targets = source.batch(step)
        terms = net.losses(net(images.expand(-1, -1, 3, -1, -1)), targets)
        terms["total"].backward()
        nn.utils.clip_grad_norm_(net.parameters(), 10)
        optimiser.step()
        optimiser.zero_grad()
        losses.append(float(terms["objectness"].detach()))
    return losses


def start(options: dict[str, Any], data: Path, work: Path) -> float:
    options = dict(options)
    before, fixed = options.pop("start", 0), options.pop("fixed", False)
    net = network(**options)
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(not (fixed and "offset" in name))
    if before:
        first = work / f"without-agdf-{before}.pt"
        if not first.exists():
            small = network(agdf=False)
            train(small, data, before)
            torch.save(small.state_dict(), first)
        load_matching(net, torch.load(first, weights_only=True), first)
    return sum(train(net, data, STEPS)[-50:]) / 50


@torch.no_grad()
def probe(init: str, data: Path) -> dict[str, float]:
    """AUC of the linear classifier, by layer."""
    net = network(init=init).train()
    source, seen, truth = batches(net, data, 8), {}, []
    layers = {"frames fused": net.fuse_frames, "before AGDF": net.mid,
              **{f"AGDF {k + 1}": block for k, block in enumerate(net.refine)}, "head": net.head.box_branch}  # fmt: skip

    def keep(name: str) -> Any:
        def hook(_: Any, __: Any, out: Tensor) -> None:
            seen.setdefault(name, []).append(out.permute(0, 2, 3, 1).flatten(0, 2).double())

        return hook

    def keep_key(_: Any, __: Any, out: Tensor) -> None:
        key = out.unflatten(0, (-1, net.window))[:, net.key]
        seen.setdefault("extractor", []).append(key.permute(0, 2, 3, 1).flatten(0, 2).double())

    net.extract.register_forward_hook(keep_key)
    for name, layer in layers.items():
        layer.register_forward_hook(keep(name))
    for step in range(40):
        images, targets = source.batch(step)
        net(images.expand(-1, -1, 3, -1, -1))
        for boxes in targets:
            cells = torch.zeros(CROP // 8, CROP // 8, dtype=torch.float64)
            for x, y in ((boxes[:, :2] + boxes[:, 2:]) / 16).long().clamp(0, CROP // 8 - 1):
                cells[y, x] = 1
            truth.append(cells.flatten())
    wanted = torch.cat(truth)
    half = len(wanted) // 2
    found = {}
    for name, values in seen.items():
        x = torch.cat(values)
        x = (x - x[:half].mean(0)) / (x[:half].std(0) + 1e-6)
        x = torch.cat((x, x**2, torch.ones(len(x), 1, dtype=x.dtype)), 1)
        gram = x[:half].T @ x[:half] + 50 * torch.eye(x.shape[1], dtype=x.dtype)
        score = x[half:] @ torch.linalg.solve(gram, x[:half].T @ wanted[:half])
        rank = score.argsort().argsort().double() + 1
        there = wanted[half:] > 0
        n = int(there.sum())
        found[name] = round(float((rank[there].sum() - n * (n + 1) / 2) / (n * (len(there) - n))), 3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for the sequences and first stages")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS), help="only these")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/dfar_start.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.work.mkdir(parents=True, exist_ok=True)
    data = sequences(given.work)
    report = json.loads(given.json.read_text()) if given.json.exists() else {}
    report |= {"constant": round(CONSTANT, 2), "steps": STEPS, "torch": torch.__version__}
    report["probe"] = report.get("probe") or {init: probe(init, data) for init in ("zero", "identity")}
    rows = report.setdefault("objectness_loss_of_the_last_50_steps", {})
    for arm in given.arms:
        if arm not in rows:
            began = time.process_time()
            rows[arm] = round(start(ARMS[arm], data, given.work), 2)
            print(f"{arm}: {rows[arm]} ({time.process_time() - began:.0f} CPU s)", flush=True)
            given.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
