"""Each network of boxes or clips learns a handful of clips by heart, on the CPU: fit, then AP50 or IoU on them.

    python benchmarks/boxes_by_heart.py --threads 1 --json benchmarks/results/boxes_by_heart.json

Two sequences of four 64x64 frames: blurred noise that drifts, and one target a frame that moves a pixel or two
(Gaussian of 1.2 pixels, box 7x7). No augmentation. This shows that losses, assignment, decoding and metrics
agree with each other, not that a network is good: nothing is held out. The detectors' normalisation follows the
data slowly (momentum 0.03), so the last of the training is 100 passes without gradient that settle its statistics.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from irstkit.datasets.clip_batches import ClipBatches
from irstkit.train.box_predictor import BoxPredictor
from irstkit.train.detection_metrics import DetectionMeter
from irstkit.train.losses import soft_iou
from irstkit.train.metrics import SegmentationMeter
from irstkit.train.models import build
from irstkit.train.sequence import is_clip_model
from irstkit.train.tasks import BoxTask, ClipPredictor

RUNS: dict[str, dict[str, Any]] = {
    "dfar": {"options": {}, "steps": 250, "lr": 2e-4, "batch": 8},
    "eflnet": {"options": {"width": 0.25, "blocks": 1}, "steps": 300, "lr": 2e-3, "batch": 8},
    "std2net": {
        "options": {"base": 4, "features": 8, "head_bias": -4.0},
        "steps": 200,
        "lr": 1e-3,
        "batch": 4,
    },
}


class Scenes:
    """What :class:`ClipBatches` reads: images, boxes, masks and windows of two sequences."""

    def __init__(self, net: Any, *, size: int = 64, frames: int = 4) -> None:
        from irstkit.datasets.clips import window_positions

        rng = np.random.default_rng(0)
        self.images: list[Any] = []
        self.boxes: list[Any] = []
        self.masks: list[Any] = []
        self.groups: list[list[int]] = []
        windows = []
        for _ in range(2):
            wide = cv2.GaussianBlur(rng.normal(100, 120, (size + 16, size + 16)), (0, 0), 5)
            start, step = rng.uniform(16, size - 24, 2), rng.uniform(-2, 2, 2)
            first = len(self.images)
            for n in range(frames):
                x, y = start + n * step
                rows, columns = np.mgrid[:size, :size]
                spot = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 1.2**2))
                image = wide[n : n + size, 2 * n : 2 * n + size] + 70 * spot + rng.normal(0, 2, (size, size))
                self.images.append(np.clip(image, 0, 255).astype(np.uint8))
                self.masks.append((spot > 0.3).astype(np.uint8))
                corner = np.round([x - 3, y - 3])
                self.boxes.append(np.array([[*corner, *(corner + 7)]]))
            self.groups.append(list(range(first, len(self.images))))
            for k in range(frames):
                if is_clip_model(net):
                    places = window_positions(range(frames), k, net.window, net.key, net.border)
                else:
                    places = [k]
                windows.append([first + p for p in places])
        self.windows = np.array(windows)

    def __len__(self) -> int:
        return len(self.images)


def learn(name: str, run: dict[str, Any]) -> dict[str, Any]:
    torch.manual_seed(0)
    net: Any = build(name, **run["options"])
    scenes: Any = Scenes(net)
    boxes = net.task == "boxes"
    if hasattr(net, "set_anchors"):
        BoxTask._fit_anchors(net, scenes)
    batches = ClipBatches(
        scenes,
        run["batch"],
        64,
        augment=False,
        targets="boxes" if boxes else "masks",
        single=not is_clip_model(net),
    )
    optimiser = torch.optim.Adam(net.parameters(), lr=run["lr"])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, run["steps"], 0.05 * run["lr"])
    start, losses = time.perf_counter(), []
    net.train()
    for step in range(run["steps"]):
        images, targets = batches.batch(step)
        images = images.expand(*images.shape[:-3], net.in_channels, *images.shape[-2:])
        output = net(images)
        loss = net.losses(output, targets)["total"] if boxes else soft_iou(output, targets)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 10)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    with torch.no_grad():
        for step in range(100):
            images, _ = batches.batch(step)
            net(images.expand(*images.shape[:-3], net.in_channels, *images.shape[-2:]))
    row: dict[str, Any] = {
        "model": name,
        **run,
        "first_loss": round(losses[0], 4),
        "last_loss": round(losses[-1], 4),
        "seconds": round(time.perf_counter() - start, 1),
    }
    net.eval()
    if boxes:
        meter, predictor = DetectionMeter(), BoxPredictor(net)
        for group in scenes.groups:
            for k, (found, scores) in zip(
                group, predictor.sequence([scenes.images[k] for k in group]), strict=True
            ):
                meter.update(found, scores, scenes.boxes[k], id=k, size=(64, 64))
        numbers = meter.compute(sequences=False)
        return row | {"ap50": numbers["ap50"], "f1_at_0.5": numbers["operating"]["f1"]}
    masks, clips = SegmentationMeter(), ClipPredictor(net)
    for group in scenes.groups:
        for k, found in zip(group, clips.sequence([scenes.images[k] for k in group]), strict=True):
            masks.update(found, scenes.masks[k].astype(bool), id=k)
    return row | {"iou": masks.compute()["iou"]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=list(RUNS), choices=list(RUNS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the rows there")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rows = []
    for name in given.models:
        rows.append(learn(name, RUNS[name]))
        print(json.dumps(rows[-1]), flush=True)
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        about = {"threads": given.threads, "torch": torch.__version__}
        given.json.write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
