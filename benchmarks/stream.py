"""How long a training that streams shards waits for its batches, with the next window decoded ahead and without.

    python benchmarks/stream.py --data NUDT-SIRST --out benchmarks/results/stream.json

The set is exported to shards of 200 samples; a step of `--step` milliseconds sleeps, as a thread that waits for a
GPU does. Reported: the share of the time spent waiting for batches over a pass, the longest wait, and the bytes of
the images of all batches being equal.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
import zlib
from pathlib import Path

import torch

from irstkit.datasets.readers import open_dataset
from irstkit.datasets.shard_batches import ShardBatches, Shards
from irstkit.datasets.shards import export_shards, read_index


class Behind(ShardBatches):
    """Decodes a window when it is asked for, as all of them did before."""

    def _look_ahead(self, number: int, at: int) -> None:
        pass


def measure(kind: type[ShardBatches], shards: Shards, batch: int, seconds: float) -> dict[str, float]:
    batches = kind(shards, batch, 256, 0)
    waits, total, found = [], time.perf_counter(), 0
    for step in range(len(shards) // batch):
        before = time.perf_counter()
        images, _ = batches.batch(step)
        waits.append(time.perf_counter() - before)
        found = zlib.crc32(images.numpy().tobytes(), found)
        time.sleep(seconds)
    total = time.perf_counter() - total
    first, rest = waits[0], waits[1:]  # the first window is decoded at the start either way
    return {
        "waiting_share": round(sum(rest) / (total - first), 4),
        "longest_wait_s": round(max(rest), 3),
        "samples_a_second": round((len(waits) - 1) * batch / (total - first), 1),
        "crc32": found,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--step", type=float, nargs="+", default=[20, 40], help="Milliseconds a step.")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        export_shards(open_dataset(given.data), Path(folder) / "s", size=200)
        shards = Shards(Path(folder) / "s", read_index(Path(folder) / "s")["shards"])
        for step in given.step:
            behind, ahead = (
                measure(kind, shards, given.batch, step / 1000) for kind in (Behind, ShardBatches)
            )
            assert behind.pop("crc32") == ahead.pop("crc32"), "decoding ahead changes a batch"
            rows.append({"step_ms": step, "batch": given.batch, "when_asked_for": behind, "ahead": ahead})
            print(rows[-1], flush=True)
        told = {
            "what": "waiting for batches of streamed shards, a pass",
            "samples": len(shards),
            "shards": len(shards.rows),
            "rows": rows,
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        }
    if given.out:
        given.out.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
