"""Can our images be told from real ones? The two-sample test of `irstkit synth report`, NUDT-SIRST beside it.

    python benchmarks/realism.py --data PATH [--out benchmarks/results/realism.json] [--only ours nudt-only published]

Real: NUAA-SIRST 50_50/train. Ours: preset `real` on target-free SIRST-V2-sample images and target-removed NUDT-SIRST
training images (`ours`), or on the latter alone (`nudt-only`); whatever is or resembles a NUAA-SIRST test image is left
out by the program, and the counts are told. `published`: NUDT-SIRST 50_50/train itself. PATH holds the data sets and
`scenes_all.csv`. Every result is written as soon as it is there.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import yaml

from irstkit.annotate import console
from irstkit.annotate.files import read_json, write_json
from irstkit.synth.distances import compare
from irstkit.synth.generate import generate
from irstkit.synth.realism import measured
from irstkit.synth.twosample import two_sample
from irstkit.synth.verdict import changes

ARMS = ("ours", "nudt-only", "published")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "realism.json")
    parser.add_argument("--only", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=3, help="of the networks")
    parser.add_argument("--preset", default="real")
    given = parser.parse_args()
    console.quiet = True
    test = f"{given.data / 'NUAA-SIRST'}:50_50/test"
    nudt, free = (
        f"{given.data / 'NUDT-SIRST'}:50_50/train",
        str(given.data / "SIRST-V2-sample" / "images" / "backgrounds"),
    )
    reference = measured(f"{given.data / 'NUAA-SIRST'}:50_50/train", 1000, given.seed, "reference")
    out = read_json(given.out) if given.out.is_file() else {}
    out["reference"] = reference.facts()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        sides = {}
        for arm in given.only:
            where, told = nudt, {}
            if arm != "published":
                where = Path(folder) / arm
                generate(
                    where, given.count, given.seed, [free, nudt] if arm == "ours" else [nudt], given.preset,
                    exclude=[test], scenes=given.data / "scenes_all.csv", workers=1,
                )  # fmt: skip
                known = yaml.safe_load((where / "synth.yaml").read_text("utf-8"))
                told = {"backgrounds": len(known["backgrounds"]), "left_out": known.get("left_out", {})}
            side = measured(where, given.count, given.seed, "made")
            distances = compare(reference.sample, side.sample, seed=given.seed)
            sides[arm] = side.sample
            out[arm] = {
                **side.facts(), **told,
                "distances": {k: d.as_dict() for k, d in distances.items()},
                "changes": [c.as_dict() for c in changes(distances)],
                "two_sample": {},
            }  # fmt: skip
            write_json(given.out, out, indent=1)
        for name, of in (("targets", "patch"), ("backgrounds", "ground")):
            for arm, sample in sides.items():
                begun = time.process_time()
                pools = reference.sample, sample
                a, b = (p.patches if of == "patch" else p.grounds for p in pools)
                groups = [getattr(p, f"{of}_groups") for p in pools]
                found = two_sample(a, b, *groups, seeds=given.seeds, seed=given.seed)
                out[arm]["two_sample"][name] = {
                    **found.as_dict(),
                    "cpu_seconds": round(time.process_time() - begun),
                }
                write_json(given.out, out, indent=1)
                print(arm, name, found.as_dict()["auc"], found.as_dict()["interval"], flush=True)


if __name__ == "__main__":
    main()
