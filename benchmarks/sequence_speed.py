"""Time of making a frame against encoding and writing it: CPU seconds in one process, in turns.

    python benchmarks/sequence_speed.py [--backgrounds PATH] [--preset daub ...] [--sequences 4] [--frames 50]

Both sides write the same frames and masks with the same settings, atomically. Planning a sequence (drawing its
background, choosing tracks) is timed apart and spread over its frames.
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
from irstkit.synth.sequences.frames import make_frame
from irstkit.synth.sequences.generate import prepare_sequences
from irstkit.synth.sequences.plan import make_plan
from irstkit.synth.sequences.writer import write_frame


def measure(folder: Path, preset: str, given: argparse.Namespace) -> dict[str, float | str | int]:
    """CPU milliseconds a frame of one preset."""
    recipe = prepare_sequences(
        folder / "b.raw", given.sequences, given.frames, 1, given.backgrounds or (), preset
    )
    plan = make_plan(recipe, given.sequences)  # warm: imports, caches
    for t in range(5):
        write_frame(folder / "warm", recipe, plan, t, make_frame(recipe, plan, t))
    planned = made_in = whole = alone = 0.0
    for index in range(given.sequences):
        start = process_time()
        plan = make_plan(recipe, index)
        planned += process_time() - start
        for t in range(given.frames):
            start = process_time()
            made = make_frame(recipe, plan, t)
            between = process_time()
            write_frame(folder / "whole", recipe, plan, t, made)
            middle = process_time()
            mask = made.mask.view("u1") * 255
            name = f"{index:04d}/{t:06d}.png"
            write_atomic(folder / "alone/images" / name, encode_png(made.image))
            write_atomic(folder / "alone/masks" / name, encode_png(mask))
            made_in, whole = made_in + between - start, whole + middle - start
            alone += process_time() - middle
    number = given.sequences * given.frames
    return {
        "preset": preset,
        "size": f"{recipe.shape[1]}x{recipe.shape[0]}",
        "frames": number,
        "whole_ms": round(1000 * whole / number, 2),
        "making_ms": round(1000 * made_in / number, 2),
        "encode_and_write_ms": round(1000 * alone / number, 2),
        "ratio": round(whole / alone, 2),
        "plan_ms_a_sequence": round(1000 * planned / given.sequences),
        "frames_a_second_of_cpu": round(number / (whole + planned), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backgrounds", help="default: procedural")
    parser.add_argument("--preset", nargs="+", default=["daub", "mirsdt", "irdst"])
    parser.add_argument("--sequences", type=int, default=4)
    parser.add_argument("--frames", type=int, default=50)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    console.quiet = True
    for preset in given.preset:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(Path(folder), preset, given)), flush=True)


if __name__ == "__main__":
    main()
