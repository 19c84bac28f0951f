"""Does every model overfit 16 images? IoU on the training images above 0.9, in evaluation mode.

    python benchmarks/overfit.py sd2net unet --out benchmarks/results/overfit.json
    python benchmarks/overfit.py acm --size 128 --scale 3 --lr 3e-3 --out benchmarks/results/overfit.json

A network that cannot learn 16 small images by heart has a defect, whatever its parameter count. The images
are procedural: smooth clutter with noise, one or two targets of a few pixels. Reported: steps and seconds until the
IoU of evaluation mode (running statistics) passes the goal at threshold 0.5, looked at every 20 steps. Rows
of the file are kept but for those that are measured anew.

ACM decides at a quarter of the resolution: it cannot outline targets of 2 to 4 pixels, whatever the number of
steps (0.70 at 64 pixels), so it gets larger ones; its full-resolution form (``tiny``) learns the small ones.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml

from irstkit.train.losses import final, soft_iou, supervised
from irstkit.train.metrics import SegmentationMeter
from irstkit.train.models import build, count_parameters, model_names


def sixteen(size: int, seed: int = 0, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """(16, 1, size, size) images in 0..1 and masks; targets 2 to 4 pixels wide, times ``scale``."""
    rng = np.random.default_rng(seed)
    images, masks = np.zeros((2, 16, 1, size, size), np.float32)
    rows, columns = np.mgrid[:size, :size]
    for image, mask in zip(images[:, 0], masks[:, 0], strict=True):
        clutter = cv2.GaussianBlur(rng.normal(0, 1, (size, size)), (0, 0), 5 * scale)
        image[...] = 0.4 + 0.1 * clutter / clutter.std() + rng.normal(0, 0.01, (size, size))
        for _ in range(rng.integers(1, 3)):
            margin = round(6 * scale)
            y, x = rng.integers(margin, size - margin, 2)
            spot = np.exp(
                -((rows - y) ** 2 + (columns - x) ** 2) / (2 * (scale * rng.uniform(0.9, 1.6)) ** 2)
            )
            image += 0.4 * spot
            mask[spot > 0.5] = 1
    return torch.from_numpy(images.clip(0, 1)), torch.from_numpy(masks)


def iou(net: torch.nn.Module, images: torch.Tensor, masks: torch.Tensor) -> float:
    """In evaluation mode, one image at a time."""
    meter = SegmentationMeter()
    net.eval()
    with torch.inference_mode():
        for image, mask in zip(images, masks, strict=True):
            meter.update(torch.sigmoid(final(net(image[None])))[0, 0], mask[0].numpy() > 0)
    net.train()
    return meter.compute()["iou"] or 0.0


def overfit(
    name: str, size: int, limit: int, lr: float, goal: float, options: dict, scale: float = 1.0
) -> dict:
    torch.manual_seed(0)
    net = build(name, **options)
    channels = int(getattr(net, "in_channels", 1))
    images, masks = sixteen(size, scale=scale)
    images = images.expand(-1, channels, -1, -1)
    optimiser = torch.optim.Adam(net.parameters(), lr=lr)
    start, reached, last = time.perf_counter(), None, 0.0
    for step in range(1, limit + 1):
        half = torch.randperm(16)[:8]
        optimiser.zero_grad()
        supervised(soft_iou, net(images[half]), masks[half]).backward()
        optimiser.step()
        if step % 20 == 0:
            last = iou(net, images, masks)
            if last > goal:
                reached = step
                break
    return {
        "model": name,
        "options": options,
        "size": size,
        "scale": scale,
        "lr": lr,
        "parameters": count_parameters(net),
        "iou": round(last, 4),
        "goal": goal,
        "reached_at_step": reached,
        "seconds": round(time.perf_counter() - start, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", nargs="*", default=model_names())
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--scale", type=float, default=1.0, help="of the targets")
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="of the network")
    parser.add_argument("--limit", type=int, default=600, help="steps at most")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--goal", type=float, default=0.9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    options = {k: yaml.safe_load(v) for k, _, v in (text.partition("=") for text in given.option)}
    rows = []
    for name in given.models:
        rows.append(overfit(name, given.size, given.limit, given.lr, given.goal, options, given.scale))
        print(json.dumps(rows[-1]), flush=True)
    measured = [(r["model"], r["options"]) for r in rows]
    if given.out and given.out.exists():
        earlier = json.loads(given.out.read_text(encoding="utf-8"))["rows"]
        kept = [r for r in earlier if (r["model"], r["options"]) not in measured]
    else:
        kept = []
    result = {
        "what": "overfitting 16 images: batch 8, Adam, Soft-IoU, IoU in evaluation mode at threshold 0.5",
        "threads": given.threads,
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "rows": sorted(kept + rows, key=lambda r: (r["model"], str(r["options"]))),
    }
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if any(row["reached_at_step"] is None for row in rows):
        raise SystemExit("not every model passed the goal")


if __name__ == "__main__":
    main()
