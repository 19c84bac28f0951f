"""Time of making an image against encoding and writing it: CPU seconds in one process, in turns.

    python benchmarks/synth_speed.py --backgrounds PATH [--count 600]

Both sides write the same 256x256 images and masks with the same settings, atomically. Preparing the
backgrounds (decoding, removing targets) is timed apart: it happens once a run, whatever the number of images.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from time import process_time

import cv2

from irstkit.annotate import console
from irstkit.annotate.files import encode_png, write_atomic
from irstkit.synth.compose import make_image
from irstkit.synth.generate import prepare
from irstkit.synth.writer import write_image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backgrounds", required=True)
    parser.add_argument("--scenes")
    parser.add_argument("--preset", default="nudt")
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--profile", action="store_true", help="show where the time goes instead")
    given = parser.parse_args()
    cv2.setNumThreads(1)
    console.quiet = True
    with tempfile.TemporaryDirectory() as folder:
        start = process_time()
        recipe = prepare(Path(folder) / "b.raw", 1, given.backgrounds, given.preset, scenes=given.scenes)
        prepared = process_time() - start
        for k in range(20):
            write_image(Path(folder) / "warm", recipe, k, 20, make_image(recipe, k))
        if given.profile:
            import cProfile
            import pstats

            with cProfile.Profile() as profile:
                for k in range(given.count):
                    write_image(Path(folder) / "p", recipe, k, given.count, make_image(recipe, k))
            pstats.Stats(profile).sort_stats("tottime").print_stats(25)
            return
        whole = alone = 0.0
        for k in range(given.count):
            start = process_time()
            made = make_image(recipe, k)
            write_image(Path(folder) / "whole", recipe, k, given.count, made)
            middle = process_time()
            mask = made.mask.view("u1") * 255
            write_atomic(Path(folder) / "alone/images" / f"{k:06d}.png", encode_png(made.image))
            write_atomic(Path(folder) / "alone/masks" / f"{k:06d}.png", encode_png(mask))
            whole, alone = whole + middle - start, alone + process_time() - middle
    print(
        json.dumps(
            {
                "images": given.count,
                "whole_ms": round(1000 * whole / given.count, 3),
                "encode_and_write_ms": round(1000 * alone / given.count, 3),
                "ratio": round(whole / alone, 3),
                "prepare_s": round(prepared, 2),
                "backgrounds": len(recipe.store.items) if recipe.store else 0,
            }
        )
    )


if __name__ == "__main__":
    main()
