"""Many images: memory by their number, rate by cores, a Dask cluster with a worker killed, shards.

    python benchmarks/synth_scale.py memory --backgrounds PATH --out WORK     # 2,000, 20,000 and 100,000 images of 64 px
    python benchmarks/synth_scale.py rate --backgrounds PATH --out WORK       # images/s of 256 px, 1 and 2 workers
    python benchmarks/synth_scale.py dask --backgrounds PATH --out WORK       # 1, 2 and 4 workers, one killed: same bytes
    python benchmarks/synth_scale.py joins --out WORK                         # the rows of `rate`'s set, up to 100,000
    python benchmarks/synth_scale.py shards --out WORK                        # of what `rate` made
    python benchmarks/synth_scale.py plan --make-ms 15.8 ...                  # the arithmetic of docs/scale.md

Every figure is of a process of its own: peak resident memory by getrusage, CPU time with its children's.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import resource
import shutil
import signal
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from irstkit.annotate import console
from irstkit.synth import generate as generating
from irstkit.synth import writer
from irstkit.synth.cluster import Cluster

PLAIN = (
    "contrast.limits=[0, 1]", "kinds=[{point: 1}]", "scenes.all.count={value: 1}", "scene_mix=null",
    "scenes.all.area={value: 9}", "scenes.all.scr={value: 6}", "placement.regions=false", "placement.candidates=2",
    "gate.min_step=0",
)  # fmt: skip


def measured(function: Any, *args: Any, **options: Any) -> dict:
    """``function`` in a fresh process: what it returns, wall and CPU seconds, peak memory in MiB."""
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    process = context.Process(target=_measure, args=(queue, function, args, options))
    process.start()
    found = queue.get()
    process.join()
    return found


def _measure(queue: Any, function: Any, args: tuple, options: dict) -> None:
    console.quiet = True
    start, cpu = time.perf_counter(), time.process_time()
    result = function(*args, **options)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    queue.put(
        {
            **(result or {}),
            "wall_s": round(time.perf_counter() - start, 1),
            "cpu_s": round(time.process_time() - cpu + children.ru_utime + children.ru_stime, 1),
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
            "peak_child_mib": children.ru_maxrss >> 10,
        }
    )


def make(out: Path, count: int, backgrounds: str, **options: Any) -> dict:
    """Generate; ``run_s`` is the making alone, without preparing backgrounds and joining the parts."""
    honest, spent = generating._run, {}

    def run(*args: Any) -> None:
        start = time.perf_counter()
        honest(*args)
        spent["run_s"] = round(time.perf_counter() - start, 2)

    generating._run = run
    totals = generating.generate(out, count, 1, backgrounds, **options)
    return {"images": totals["images"], "targets": totals["targets"], **spent}


def digest(root: Path) -> str:
    """Of all files and their names."""
    whole = hashlib.sha256()
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        whole.update(path.relative_to(root).as_posix().encode() + hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()[:16]


def bytes_of(root: Path) -> dict[str, int]:
    """Bytes an entry of ``root``."""
    out: dict[str, int] = {}
    for path in root.rglob("*"):
        if path.is_file():
            key = path.relative_to(root).parts[0]
            out[key] = out.get(key, 0) + path.stat().st_size
    return out


def killing(count: int) -> dict:
    """One worker of a Dask run is killed once a third of the images is there; returns its process id."""
    honest, killed = Cluster.results, {}

    def results(self: Cluster, job: Any, spans: Any, token: Any) -> Any:
        pids = list(self.client.run(os.getpid).values())

        def kill() -> None:
            root = Path(job.root)
            while sum(1 for _ in (root / "images").rglob("*.png")) < count // 3:
                time.sleep(0.05)
            killed["pid"] = pids[0]
            os.kill(pids[0], signal.SIGKILL)

        threading.Thread(target=kill, daemon=True).start()
        yield from honest(self, job, spans, token)

    Cluster.results = results  # type: ignore[method-assign]
    return killed


def dask_run(out: Path, count: int, backgrounds: str, address: str, kill: bool, **options: Any) -> dict:
    killed = killing(count) if kill else {}
    made = make(out, count, backgrounds, dask=address, **options)
    return {**made, "killed": len(killed)}


def shards_run(made: Path, out: Path) -> dict:
    """A set to shards, the shards opened, one window of them decoded."""
    from irstkit.datasets.readers import open_dataset
    from irstkit.datasets.shard_batches import Shards
    from irstkit.datasets.shards import export_shards, read_index

    shutil.rmtree(out, ignore_errors=True)
    data = open_dataset(made)
    times = [time.process_time()]
    done = export_shards(data, out, size=500)
    times.append(time.process_time())
    count = len(open_dataset(out))
    times.append(time.process_time())
    shards = Shards(out, read_index(out)["shards"])
    for record in shards.records([0]):
        record.read_image(), record.read_mask()
    times.append(time.process_time())
    spent = [1000 * (b - a) for a, b in pairwise(times)]
    return {
        "images": count, "bytes_an_image": round(done.bytes / count), "export_ms": round(spent[0] / count, 2),
        "open_ms": round(spent[1] / count, 3), "read_and_decode_ms": round(spent[2] / shards.rows[0]["samples"], 2),
    }  # fmt: skip


def lay_parts(made: Path, out: Path, count: int) -> None:
    """Part files of ``count`` rows, those of a made set over and over under new numbers."""
    rows = list(writer._joined(made))
    shutil.rmtree(out, ignore_errors=True)
    for part in range(-(-count // writer.PART)):
        here = []
        for k in range(part * writer.PART, min((part + 1) * writer.PART, count)):
            row, name = rows[k % len(rows)], f"images/{writer.image_name(k, count)}"
            here.append(
                {
                    "image": {**row["image"], "file_name": name}, "annotations": row["annotations"],
                    "manifest": {**row["manifest"], "index": k, "file_name": name},
                }
            )  # fmt: skip
        writer.write_part(out, part, here)


def join_parts(out: Path, count: int) -> dict:
    return {"images": writer.merge(out, count, {"train": 1.0}, {})["images"]}


def part_again(out: Path) -> dict:
    shutil.rmtree(out / "parts")
    writer.unmerge(out)
    return {"parts": len(list((out / "parts").iterdir()))}


def plan(count: int, given: argparse.Namespace) -> None:
    """What ``count`` images of 256 px take, from measured figures."""
    hours = {
        name: count * getattr(given, name) / 3.6e6 for name in ("make_ms", "join_ms", "export_ms", "read_ms")
    }
    say = {name.removesuffix("_ms") + "_core_hours": round(value, 1) for name, value in hours.items()}
    say |= {f"make_hours_on_{cores}_cores": round(hours["make_ms"] / cores, 2) for cores in (16, 64, 256)}
    say |= {
        name.removesuffix("_bytes") + "_gb": round(count * getattr(given, name) / 1e9, 1)
        for name in ("images_bytes", "masks_bytes", "annotations_bytes", "manifest_bytes", "shards_bytes")
    }
    print(json.dumps({"images": count, **say}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["memory", "joins", "rate", "dask", "shards", "plan"])
    parser.add_argument("--backgrounds", default="")
    parser.add_argument("--out", type=Path, default=Path("scale"))
    parser.add_argument("--counts", type=int, nargs="+")
    parser.add_argument("--presets", nargs="+", default=["nudt", "real"])
    parser.add_argument(
        "--plain", action="store_true", help="memory: one point target an image, quick to make"
    )
    for name in ("make_ms", "join_ms", "export_ms", "read_ms", "images_bytes", "masks_bytes", "annotations_bytes",
                 "manifest_bytes", "shards_bytes"):  # fmt: skip
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=float, default=0.0, help="plan: measured, an image"
        )
    given = parser.parse_args()
    if given.what == "plan":
        for count in given.counts or (100_000, 10_000_000):
            plan(count, given)
        return
    given.out.mkdir(parents=True, exist_ok=True)

    def say(**row: Any) -> None:
        print(json.dumps(row), flush=True)

    if given.what == "memory":
        for count in given.counts or (2000, 20000, 100000):
            root = given.out / f"m{count}"
            overrides = PLAIN if given.plain else ()
            found = measured(make, root, count, given.backgrounds, size=64, workers=1, overrides=overrides)
            say(what="memory", **found, bytes=bytes_of(root))
    elif given.what == "rate":
        for preset in given.presets:
            for workers in (1, 2):
                root = given.out / f"r-{preset}-{workers}"
                count = (given.counts or [2000])[0]
                found = measured(make, root, count, given.backgrounds, preset=preset, workers=workers)
                say(
                    what="rate",
                    preset=preset,
                    workers=workers,
                    **found,
                    bytes=bytes_of(root),
                    digest=digest(root),
                )
    elif given.what == "joins":
        for count in given.counts or (2000, 20000, 100000):
            lay_parts(given.out / "r-nudt-1", given.out / "joined", count)
            found = measured(join_parts, given.out / "joined", count)
            say(what="parts joined", **found)
            found = measured(part_again, given.out / "joined")
            say(what="and parted again", images=count, **found)
    elif given.what == "shards":
        for preset in given.presets:
            found = measured(shards_run, given.out / f"r-{preset}-1", given.out / f"s-{preset}")
            say(what="shards", preset=preset, **found)
    elif given.what == "dask":
        count = (given.counts or [1000])[0]
        root = given.out / "d0"
        found = measured(make, root, count, given.backgrounds, preset="real", size=128, workers=1)
        say(what="one process", **found, digest=digest(root))
        for workers, kill in ((1, False), (2, False), (4, False), (1, True), (2, True), (4, True)):
            root = given.out / f"d{workers}{kill}"
            shutil.rmtree(root, ignore_errors=True)
            found = measured(
                dask_run, root, count, given.backgrounds, f"local:{workers}", kill, preset="real", size=128
            )
            say(what="dask", workers=workers, kill=kill, **found, digest=digest(root))


if __name__ == "__main__":
    main()
