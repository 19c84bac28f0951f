"""Time and memory of push, second push and pull on the frames of DAUB's or IRDST's lists, synthesised beforehand.

    python benchmarks/curate_push.py daub  WORK [--lists FOLDER]
    python benchmarks/curate_push.py irdst WORK [--lists FOLDER]

Without --lists the published numbers of frames a sequence are used, with one target moving through each. With it
the boxes are those of the published lists (coco_train_NAME.txt, coco_val_NAME.txt). Frames are 8-bit gray PNGs of
the published sizes, smooth with noise. A database of its own is used; the commands are those of users:

    irstkit data curate SET --no-app;  again;  irstkit data pull SET --out FILE

Each is a fresh process; peak memory is the process's own (mongod is told apart).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np

DAUB = {5: 3000, 8: 399, 9: 399, 10: 401, 13: 763, 14: 1426, 16: 293, 17: 500, 19: 1301, 22: 500, 6: 399, 11: 745,
        12: 1500, 15: 751, 18: 500, 20: 400, 21: 500}  # fmt: skip
IRDST = {k: 40656 // 85 + (k < 40656 % 85) for k in range(85)}


def listed(folder: Path, name: str) -> list[tuple[str, int, list[list[float]]]]:
    """(sequence, frame, boxes) of the published lists."""
    rows = []
    for part in ("train", "val"):
        for line in (folder / f"coco_{part}_{name}.txt").read_text().splitlines():
            path, *boxes = line.split()
            sequence, frame = path.rpartition(".")[0].split("/")[-2:]
            rows.append((sequence, int(frame), [[float(v) for v in b.split(",")[:4]] for b in boxes]))
    return rows


def invented(counts: dict[int, int], size: tuple[int, int]) -> list[tuple[str, int, list[list[float]]]]:
    """One target of 8x8 a frame that moves on a circle."""
    rows = []
    for sequence, frames in counts.items():
        for k in range(frames):
            x = int(size[1] * (0.5 + 0.4 * np.cos(k / 80)))
            y = int(size[0] * (0.5 + 0.4 * np.sin(k / 80)))
            rows.append((str(sequence), k, [[x, y, x + 8, y + 8]]))
    return rows


def synthesise(root: Path, name: str, lists: Path | None) -> None:
    """Write the set in irstkit's layout, once."""
    if (root / "annotations.json").exists():
        return
    base = (256, 256) if name == "daub" else (480, 720)
    counts = DAUB if name == "daub" else IRDST
    rows = listed(lists, name.upper()) if lists else invented(counts, base)
    rng = np.random.default_rng(0)
    coco = {"info": {}, "images": [], "annotations": [], "categories": [{"id": 1, "name": "target"}]}
    pictures: dict[tuple[int, int], np.ndarray] = {}
    for sequence, frame, boxes in rows:
        size = (742, 992) if name == "irdst" and sequence in ("1", "2", "3", "4") else base
        if size not in pictures:
            smooth = cv2.GaussianBlur(rng.normal(0, 1, size), (0, 0), 20)
            pictures[size] = np.clip(110 + 1500 * smooth, 20, 200).astype(np.uint8)
        image = np.roll(pictures[size], frame, axis=1)
        file = f"{sequence}/{frame:06d}.png"
        coco["images"].append({"id": len(coco["images"]) + 1, "file_name": f"images/{file}", "width": size[1],
                               "height": size[0], "sequence": sequence, "frame": frame})  # fmt: skip
        for x1, y1, x2, y2 in boxes:
            x1, y1, x2, y2 = max(x1, 0), max(y1, 0), min(x2, size[1]), min(y2, size[0])
            if x1 >= x2 or y1 >= y2:
                continue
            image[int(y1) + 2 : int(y2) - 2, int(x1) + 2 : int(x2) - 2] = 250
            coco["annotations"].append(
                {"id": len(coco["annotations"]) + 1, "image_id": len(coco["images"]), "category_id": 1, "iscrowd": 0,
                 "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "segmentation_source": "box",
                 "segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]]}
            )  # fmt: skip
        path = root / "images" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    (root / "annotations.json").write_text(json.dumps(coco))


def run(*args: str) -> None:
    """Run ``irstkit ARGS`` and print its time and peak memory."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    code = (
        "import resource, sys; from irstkit.cli import cli\n"
        "try: cli(sys.argv[1:], prog_name='irstkit')\n"
        "finally: print('peak MiB', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, flush=True)"
    )
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    cpu = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    load = "load averages " + " ".join(f"{v:.1f}" for v in os.getloadavg())
    print(
        f"$ irstkit {' '.join(args)}\n{done.stdout}{done.stderr[-800:]}"
        f"{seconds:.1f} s, {cpu:.1f} s of CPU, {load}\n",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=("daub", "irdst"))
    parser.add_argument("work", type=Path)
    parser.add_argument("--lists", type=Path)
    options = parser.parse_args()
    root = options.work / options.name
    start = time.perf_counter()
    synthesise(root, options.name, options.lists)
    print(f"frames ready in {time.perf_counter() - start:.0f} s", flush=True)
    os.environ["XDG_DATA_HOME"] = str(options.work / "data")
    os.environ["FIFTYONE_DEFAULT_DATASET_DIR"] = str(options.work / "fiftyone")
    run("data", "curate", str(root), "--no-app")
    run("data", "curate", str(root), "--no-app")
    out = options.work / f"{options.name}.json"
    run("data", "pull", options.name, "--out", str(out), "--overwrite")
    equal = json.loads(out.read_text()) == json.loads((root / "annotations.json").read_text())
    print("pulled document equal to the one pushed:", equal)


if __name__ == "__main__":
    main()
