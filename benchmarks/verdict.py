"""Does the verdict of `irstkit synth report` name what is wrong? The preset is spoilt key by key; the verdict is asked.

    python benchmarks/verdict.py --data PATH [--preset real] [--images 150] [--only "SCR halved" ...]

Reference: images of the preset, seed 0, on SIRST-V2-sample's target-free images. Made: the same backgrounds with one thing
of the preset spoilt, seed 1. The right answer is the spoilt key, moved back; asked for is that it comes first. No
two-sample test: it names no key.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from irstkit.annotate import console
from irstkit.synth.generate import generate
from irstkit.synth.knobs import moved
from irstkit.synth.preset import load_preset, make_preset
from irstkit.synth.realism import realism

Values = dict[str, Any]


def by(key: str, amount: float) -> Callable[[Values], Values]:
    return lambda preset: moved(preset, {key: amount})


def put(section: str, **keys: Any) -> Callable[[Values], Values]:
    return lambda preset: {**preset, section: {**preset.get(section, {}), **keys}}


def everywhere(**keys: Any) -> Callable[[Values], Values]:
    return lambda preset: {**preset, "scenes": {k: {**s, **keys} for k, s in preset["scenes"].items()}}


def blurred(**distribution: Any) -> Callable[[Values], Values]:
    return lambda preset: {**preset, "blur": distribution}


# name: how the preset is spoilt, the key that must be named, +1 where it must be raised, -1 lowered
SPOILT: dict[str, tuple[Callable[[Values], Values], str, int]] = {
    "SCR halved": (by("scenes.*.scr", 0.5), "scenes.*.scr", 1),
    "SCR doubled": (by("scenes.*.scr", 2), "scenes.*.scr", -1),
    "areas doubled": (by("scenes.*.area", 2), "scenes.*.area", -1),
    "areas halved": (by("scenes.*.area", 0.5), "scenes.*.area", 1),
    "targets low in the image": (everywhere(height={"uniform": [0.7, 0.98]}), "scenes.*.height", -1),
    "three targets an image": (everywhere(count={"value": 3}), "scenes.*.count", -1),
    "wanted contrast halved": (by("contrast.wanted", 0.5), "contrast.wanted", 1),
    "wanted contrast doubled": (by("contrast.wanted", 2), "contrast.wanted", -1),
    "60 % dark targets": (put("contrast", dark=0.6), "contrast.dark", -1),
    "blur of 1.5 to 2.5 px": (blurred(uniform=[1.5, 2.5]), "blur", -1),
    "blur of 0.2 px": (blurred(value=0.2), "blur", 1),
    "mask at half of the maximum": (put("mask", policy="half"), "mask.level", -1),
    "mask by 70 % of the energy": (put("mask", policy="energy"), "mask.energy", -1),
    "no glow": (put("optics", glow={"value": 0}), "optics.glow", 1),
    "glow of 0.6": (put("optics", glow={"value": 0.6}), "optics.glow", -1),
    "edge enhancement of 2.5": (put("optics", sharpen={"value": 2.5}), "optics.sharpen", -1),
    "read noise of 2": (put("sensor", read=2.0), "sensor.read", -1),
    "JPEG of quality 40": (put("sensor", jpeg={"value": 40}), "sensor.jpeg", 1),
    "background contrast halved": (by("background.contrast", 0.5), "background.contrast", 1),
    "background contrast doubled": (by("background.contrast", 2), "background.contrast", -1),
    "coring of 8": (put("background", coring={"value": 8}), "background.coring", -1),
    "round points": (put("point", anisotropy={"value": 1}), "point.anisotropy", 1),
    "nothing": (lambda preset: preset, "", 0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--preset", default="real")
    parser.add_argument("--images", type=int, default=150)
    parser.add_argument("--only", nargs="+", choices=SPOILT, default=list(SPOILT))
    given = parser.parse_args()
    console.quiet = True
    free = str(given.data / "SIRST-V2-sample" / "images" / "backgrounds")
    print(
        "| spoilt | the verdict's first | KS | right key and direction | place | others that stand for themselves |"
    )
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        base = load_preset(given.preset).as_dict()
        reference = Path(folder) / "reference"
        generate(reference, given.images, 0, [free], make_preset(base), workers=1)
        for number, name in enumerate(given.only):
            spoil, key, sign = SPOILT[name]
            made = Path(folder) / str(number)
            generate(made, given.images, 1, [free], make_preset(spoil(copy.deepcopy(base))), workers=1)
            found = realism(made, reference, test=False)
            told = [(c.key, c.amount - (c.op != "plus"), c.text, c.ks, c.follows) for c in found.changes]
            if key == "scenes.*.count":  # its numbers have weights: it is told in words alone
                texts = [r for r in found.facts["verdict"]["remarks"] if r.startswith("targets an image")]
                told += [(key, -1.0, r, found.distances["count"].ks, None) for r in texts]
            places = [k for k, t in enumerate(told, 1) if t[0] == key and t[1] * sign > 0]
            first = (
                told[0][2].partition(":" if told[0][0] != "scenes.*.count" else " (KS")[0]
                if told
                else "nothing"
            )
            others = [t[0] for t in told[1:] if t[4] is None and t[0] != key]
            right = "yes" if (places or (not key and not told)) else "no"
            print(
                f"| {name} | {first} | {f'{told[0][3]:.2f}' if told else '-'} | {right} | {places[0] if places else '-'} | "
                f"{', '.join(others) or '-'} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
