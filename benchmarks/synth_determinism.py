"""One seed with 1, 2 and 4 workers, and after five SIGKILLs at random moments: the same bytes everywhere.

python benchmarks/synth_determinism.py --backgrounds PATH [--count 3000]
python benchmarks/synth_determinism.py --sequences 12 --more --frames 250 --preset irdst --size 256x192
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def contents(root: Path) -> dict[str, str]:
    """Hash of every file by its path."""
    return {
        p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backgrounds", default="procedural")
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--sequences", type=int, help="make so many sequences in place of images")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--more", nargs=argparse.REMAINDER, default=[], help="further options of the command")
    given = parser.parse_args()

    def start(out: Path, workers: int) -> subprocess.Popen:
        command = [
            "-m",
            "irstkit",
            "--quiet",
            "synth",
            "sequences" if given.sequences else "images",
            "--out",
            out,
            "--sequences" if given.sequences else "--count",
            given.sequences or given.count,
            "--seed",
            7,
        ]
        command += ["--backgrounds", given.backgrounds, "--workers", workers, *given.more]
        words = [sys.executable, *map(str, command)]
        return subprocess.Popen(words, stdout=subprocess.DEVNULL, start_new_session=True)

    with tempfile.TemporaryDirectory() as folder:
        sets = {}
        for workers in (1, 2, 4):
            out = Path(folder) / f"w{workers}"
            begun = time.monotonic()
            if start(out, workers).wait() != 0:
                raise SystemExit(f"the run with {workers} workers failed")
            seconds = time.monotonic() - begun
            sets[f"{workers} workers"] = contents(out)
        out, chance, moments = Path(folder) / "killed", random.Random(1), []
        for _ in range(given.kills):
            process = start(out, 2)
            moments.append(round(chance.uniform(0.1, 0.7) * seconds, 2))
            time.sleep(moments[-1])
            os.killpg(process.pid, signal.SIGKILL)  # its workers too
            process.wait()
        if start(out, 2).wait() != 0:
            raise SystemExit("the run after the kills failed")
        sets["after the kills"] = contents(out)
    first = sets["1 workers"]
    same = {name: found == first for name, found in sets.items()}
    print(json.dumps({"files": len(first), "killed_after_s": moments, "same_as_1_worker": same}))
    if not all(same.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
