"""The pictures of docs/curate.md, from synthetic images: python docs/curate_screenshots.py docs/figures

Needs Chromium (CHROMIUM=/path/to/it where it is not on the PATH) and playwright. A database of its own is used.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from irstkit.annotate.coco import add_image, add_instance, new_coco
from irstkit.annotate.masks import mask_to_instances
from irstkit.datasets import open_dataset, service

FLAGS = ["--no-sandbox", "--disable-dev-shm-usage", "--use-gl=angle", "--use-angle=swiftshader",
         "--enable-unsafe-swiftshader"]  # fmt: skip


def predictions(root: Path, path: Path) -> None:
    """What a network might say: most targets, a few missed, a few things that are labelled nowhere."""
    rng = np.random.default_rng(1)
    coco = new_coco(description="invented for the pictures of the guide")
    for record in open_dataset(root):
        number = add_image(coco, record.id + record.image.suffix, record.size)
        mask = record.read_mask()
        for instance in mask_to_instances(mask):
            if rng.random() > 0.15:
                add_instance(coco, number, instance, record.size, score=round(float(rng.uniform(0.6, 1)), 3))
        if rng.random() < 0.2:
            other = np.zeros(record.size, bool)
            y, x = rng.integers(20, record.size[0] - 20), rng.integers(20, record.size[1] - 20)
            other[y : y + 4, x : x + 5] = True
            if not (cv2.dilate(mask.astype(np.uint8), np.ones((15, 15))) > 0)[other].any():
                add_instance(coco, number, mask_to_instances(other)[0], record.size, score=0.9)
    path.write_text(json.dumps(coco))


def main() -> None:
    out = Path(sys.argv[1])
    work = Path(tempfile.mkdtemp())
    root = work / "synthetic"
    command = [
        "irstkit",
        "synth",
        "images",
        "--out",
        str(root),
        "--count",
        "40",
        "--seed",
        "3",
        "--preset",
        "nudt",
    ]
    subprocess.run([str(Path(sys.executable).parent / command[0]), *command[1:]], check=True)
    predictions(root, work / "predictions.json")
    service.isolate(work / "fiftyone")
    from irstkit.datasets.curation.predictions import PredictionFile, push_predictions
    from irstkit.datasets.curation.push import finish, push
    from irstkit.datasets.curation.sources import open_sources
    from irstkit.datasets.curation.views import configure, saved_views

    dataset, _, _ = push(open_sources([root]), "synthetic")
    push_predictions(dataset, [PredictionFile("predictions", work / "predictions.json")], touched=True)
    configure(dataset, [])
    saved_views(dataset)
    finish(dataset)
    views = {"curate-worst": "worst-labels-first", "curate-faintest": "lowest-scr"}
    shoot(dataset, out, views, fix="curate-fix")


def shoot(dataset: Any, out: Path, views: dict[str, str], *, fix: str | None = None) -> None:
    """Pictures of saved views: ``{name of the picture: the view's}``; ``fix``: of the last one's first image, opened."""
    from playwright.sync_api import sync_playwright

    from irstkit.datasets.curation import app

    session = app.launch(dataset, wait=False)
    address = f"http://127.0.0.1:{session.server_port}/datasets/{dataset.name}"
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(180_000)
        page.goto(address)
        page.wait_for_selector("[data-cy=looker] canvas")
        page.get_by_text("Dismiss").click()
        for name, view in views.items():
            page.goto(f"{address}?view={view}")
            page.wait_for_selector("[data-cy=looker] canvas")
            page.wait_for_timeout(10_000)
            page.screenshot(path=str(out / f"{name}.png"))
        if fix is not None:
            page.locator("[data-cy=looker]").first.click()
            page.wait_for_selector("[data-cy=modal]")
            page.locator("[data-cy=annotate]").click()
            page.wait_for_selector("[data-cy=lighter-sample-renderer-canvas]")
            page.wait_for_timeout(10_000)
            page.screenshot(path=str(out / f"{fix}.png"))
        browser.close()
    session.close()


if __name__ == "__main__":
    main()
