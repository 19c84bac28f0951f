"""How fast a set is listed, decoded into batches' buffers, cut into batches and searched for twins.

    .venv/bin/python benchmarks/datasets.py NUDT-SIRST

Prints medians of five runs as JSON. One thread unless ``--workers``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import numpy as np


def timed(work, repeats: int = 5) -> float:
    """Median seconds of ``work()``, after one run that is not counted."""
    work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=256)
    args = parser.parse_args()
    import torch

    from irstkit.datasets.batches import Batches, Pixels
    from irstkit.datasets.readers import open_dataset
    from irstkit.datasets.twins import thumbnails, twin_pairs

    torch.set_num_threads(args.workers)
    data = open_dataset(args.path)
    pixels = Pixels(data.records, workers=args.workers)
    batches = Batches(pixels, batch=args.batch, crop=args.crop)
    batches_on_device = Batches(pixels, batch=args.batch, crop=args.crop)
    batches_on_device._load()
    vectors = thumbnails(data.records, workers=args.workers)
    steps = 100
    cut = timed(lambda: [batches.batch(step) for step in range(steps)]) / steps
    plan = [
        (
            chosen := batches.indices(step),
            [batches._place(k, step * args.batch + j) for j, k in enumerate(chosen)],
        )
        for step in range(steps)
    ]
    gather = timed(lambda: [batches_on_device._gather(c, np.array(p, np.int64)) for c, p in plan]) / steps
    rows = {
        "images": len(data),
        "workers": args.workers,
        "list_s": timed(lambda: open_dataset(args.path)),
        "decode_images_and_masks_s": timed(lambda: Pixels(data.records, workers=args.workers)),
        "read_files_only_s": timed(
            lambda: [(r.image.read_bytes(), r.mask.read_bytes() if r.mask else b"") for r in data.records]
        ),
        f"batch_of_{args.batch}x{args.crop}_slices_ms": 1000 * cut,
        f"batch_of_{args.batch}x{args.crop}_gather_on_cpu_ms": 1000 * gather,
        "thumbnails_s": timed(lambda: thumbnails(data.records, workers=args.workers), 3),
        "twin_pairs_s": timed(lambda: list(twin_pairs(vectors))),
        "synthetic_10000_twin_pairs_s": timed(lambda: list(twin_pairs(_random(10_000))), 1),
    }
    print(json.dumps({key: round(value, 4) for key, value in rows.items()}, indent=1))


def _random(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(count, 1024))
    vectors -= vectors.mean(axis=1, keepdims=True)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
