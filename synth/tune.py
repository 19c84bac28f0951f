"""A preset's keys moved until small sets made with it have the reference's distributions.

The search is scipy's Nelder-Mead simplex. With common random numbers (every trial makes the same images anew,
but for the keys) the objective has no noise, but it has no derivative either: counts and masks move in whole
pixels. A start is at hand, the preset, and a trial costs about a second, so that a local simplex of some 100
trials is affordable where a population (differential evolution: hundreds of trials a key) is not. The
simplex begins with the preset, one step of each key, and, where it is better, the report's own advice.
"""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..annotate.console import note, progress
from ..annotate.errors import IrstkitError
from ..annotate.files import read_bytes, write_atomic
from .cluster import versions
from .compose import make_image
from .distances import FEW, relative_distance
from .knobs import KNOBS, Knob, has, moved, shown
from .measures import MEASURES, Sample, measure_sample
from .preset import Preset, load_preset, make_preset
from .realism import measured
from .recipe import Recipe

WEIGHTS: dict[str, float] = {
    "area": 1.0, "scr_3": 0.5, "scr_10": 1.0, "scr_20": 0.5, "contrast": 1.0, "ring_std": 1.0, "rank": 0.5, "y": 0.5,
    "psf_sigma": 1.0, "psf_anisotropy": 1.0, "energy_inside": 1.0, "halo": 0.5, "skirt": 1.0, "deviation": 0.5,
    "noise": 0.5, "flat": 1.0, "whiteness": 1.0, "gradient": 0.5, "gradient_tail": 0.5,
}  # fmt: skip
"""Weights of the measures in the objective: the weighted mean of their relative Wasserstein distances."""

DEFAULT_KEYS = (
    "scenes.*.area", "scenes.*.scr", "contrast.wanted", "mask.energy", "mask.level", "point.energy", "point.sigma",
    "point.anisotropy", "spot.aspect", "blur", "optics.glow", "optics.sharpen", "background.contrast", "background.coring",
    "sensor.jpeg",
)  # fmt: skip
WORST = 3.0
"""What a measure counts at most, and a trial that cannot be made counts."""


@dataclass
class Tuned:
    """The preset found, in plain values, and how it was come by.

    ``kept``: the search's best was no better on images that it had not seen, so that ``preset`` is the one begun with.
    ``amounts``, ``after`` and ``rows`` are of the search's best all the same.
    """

    preset: dict[str, Any]
    amounts: dict[str, float]
    before: float
    after: float
    floor: float
    trials: int
    interrupted: bool
    rows: list[dict[str, Any]]
    keys: list[dict[str, str]]
    kept: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "objective": {"before": round(self.before, 4), "after": round(self.after, 4),
                          "reference_against_itself": round(self.floor, 4)},
            "trials": self.trials, "interrupted": self.interrupted, "kept": self.kept,
            "amounts": {k: float(f"{v:.5g}") for k, v in self.amounts.items()},
            "keys": self.keys, "measures": self.rows, "preset": self.preset,
        }  # fmt: skip


class _Trials:
    """The objective, with every value kept in a file: what was interrupted is not computed twice."""

    def __init__(
        self, recipe: Recipe, knobs: Sequence[Knob], reference: Sample, images: int, state: Path, bar: Any, about: dict
    ) -> None:  # fmt: skip
        self.recipe, self.knobs, self.reference, self.images = recipe, knobs, reference, images
        self.start = recipe.preset.as_dict()
        self.state, self.bar, self.lines = state, bar, [json.dumps(about, sort_keys=True)]
        self.known: dict[str, float] = {}
        self.best: tuple[float, dict[str, float]] = (np.inf, {})
        self.made = 0
        if state.is_file():
            lines = read_bytes(state).decode("utf-8").splitlines()
            if not lines or lines[0] != self.lines[0]:
                raise IrstkitError(
                    "was begun with other settings", path=state, hint="give the same ones, or delete it"
                )
            for line in lines[1:]:
                point, value = json.loads(line)
                self.known[json.dumps(point)] = value
                self.lines.append(line)

    def amounts(self, z: NDArray) -> dict[str, float]:
        """The knobs' amounts at a point in steps."""
        return {
            k.key: exp(k.step * v) if k.factor else k.step * v
            for k, v in zip(self.knobs, z.tolist(), strict=True)
        }

    def __call__(self, z: NDArray) -> float:
        point = [round(float(v), 9) for v in z]
        name = json.dumps(point)
        amounts = self.amounts(np.array(point))
        if name not in self.known:
            self.known[name] = self.value(amounts)
            self.lines.append(json.dumps([point, self.known[name]]))
            write_atomic(self.state, "\n".join(self.lines) + "\n")
        value = self.known[name]
        self.made += 1
        if value < self.best[0]:
            self.best = value, amounts
        self.bar.advance(1, f"{self.best[0]:.4f}")
        return value

    def value(self, amounts: dict[str, float]) -> float:
        try:
            return objective(self.reference, self.sample(amounts, self.recipe.seed))
        except IrstkitError:
            return WORST

    def sample(self, amounts: dict[str, float], seed: int) -> Sample:
        """A small set made with the keys moved; the same random numbers whatever the amounts."""
        preset: Preset = make_preset(moved(self.start, amounts))
        recipe = copy.copy(self.recipe)
        recipe.preset, recipe.seed = preset, seed
        return make_sample(recipe, self.images)


def make_sample(recipe: Recipe, images: int) -> Sample:
    """The first ``images`` images of a recipe, measured without being written."""
    from ..annotate import console

    quiet, console.quiet = console.quiet, True
    try:
        made = (make_image(recipe, k) for k in range(images))
        return measure_sample("made", ((m.background, m.image, m.mask) for m in made), seed=recipe.seed)
    finally:
        console.quiet = quiet


def objective(reference: Sample, made: Sample) -> float:
    """Weighted mean over WEIGHTS of the Wasserstein distance over the reference's range (p5 to p95).

    A measure that the made set has none of counts as the worst; one that the reference lacks not at all.
    """
    total = weights = 0.0
    for key, weight in WEIGHTS.items():
        if len(reference.values[key]) < 8:
            continue
        found = made.values[key]
        total += weight * (
            WORST if len(found) == 0 else min(relative_distance(reference.values[key], found), WORST)
        )
        weights += weight
    return total / weights if weights else 0.0


def choose_knobs(preset: Preset, keys: Sequence[str] = ()) -> list[Knob]:
    """The knobs to turn: those named, or those of the default ones that decide something in this preset.

    Raises
    ------
    IrstkitError
        For a key that there is no knob for, or that the preset does not have.
    """
    values = preset.as_dict()
    idle = _idle(preset)
    if not keys:
        return [KNOBS[k] for k in DEFAULT_KEYS if k not in idle and has(values, KNOBS[k])]
    out = []
    for key in dict.fromkeys(keys):
        if key not in KNOBS:
            raise IrstkitError(f"there is nothing to tune at {key!r}", hint=f"there are: {', '.join(KNOBS)}")
        if not has(values, KNOBS[key]):
            raise IrstkitError(f"the preset {preset.name} has no {key}: give it a value first")
        if key in idle:
            raise IrstkitError(f"{key} decides nothing in the preset {preset.name}: {idle[key]}")
        out.append(KNOBS[key])
    return out


def _idle(preset: Preset) -> dict[str, str]:
    """The keys that the preset has but that move nothing in it, and why."""
    policy = f"mask.policy is {preset.mask.policy}"
    idle = {} if preset.mask.policy == "energy" else {"mask.energy": policy}
    if preset.mask.policy != "half":
        idle["mask.level"] = policy
    if preset.point.energy is not None:
        idle["point.sigma"] = "point.energy decides the width"
    for key, found in (("point.anisotropy", preset.point.anisotropy), ("spot.aspect", preset.spot.aspect)):
        if found.bounds() == (1, 1):
            idle[key] = "it is always 1 and has no excess to multiply"
    return idle


def tune(
    preset: str | Path | Preset, reference: str | Path, backgrounds: Sequence[str | Path] = (), *, state: Path,
    budget: int = 120, images: int = 64, keys: Sequence[str] = (), seed: int = 0, size: int = 256, name: str = "tuned",
    exclude: Sequence[str | Path] = (), scenes: str | Path | None = None, reference_images: int = 500,
) -> Tuned:  # fmt: skip
    """Move the keys of a preset towards the reference's distributions; deterministic for a seed.

    Parameters
    ----------
    state
        File that keeps every trial. An interrupted search (Ctrl-C) returns the best so far; begun again
        with the same settings it goes on and ends where it would have ended. Deleted when done.
    budget, images
        Trials, and images made in each.
    keys
        Of :data:`.knobs.KNOBS`; default: what matters in this preset.
    """
    from scipy.optimize import minimize

    from .generate import prepare

    start = preset if isinstance(preset, Preset) else load_preset(preset)
    knobs = choose_knobs(start, keys)
    if budget < len(knobs) + 2:
        raise IrstkitError(
            f"{len(knobs)} keys need a budget of at least {len(knobs) + 2} trials, got {budget}"
        )
    target = measured(reference, reference_images, seed, "reference")
    if target.sample.targets < FEW:
        raise IrstkitError(
            f"the reference has {target.sample.targets} targets in {target.sample.images} images, too few to be followed",
            path=reference, hint=f"{FEW} are the least, and hundreds are better",
        )  # fmt: skip
    about = {
        "preset": start.as_dict(), "reference": target.facts()["split_hash"], "budget": budget, "images": images,
        "keys": [k.key for k in knobs], "seed": seed, "size": size, "versions": versions(),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        recipe = prepare(
            Path(folder) / "backgrounds.raw", seed, tuple(backgrounds), start, size=size, exclude=exclude, scenes=scenes,
            depth=8 if start.sensor.jpeg is not None else None,
        )  # fmt: skip
        about["backgrounds"] = (
            [[i.used, i.scene] for i in recipe.store.items] if recipe.store else "procedural"
        )
        with progress("Tuning", budget, unit="trials") as bar:
            trials = _Trials(recipe, knobs, target.sample, images, state, bar, about)
            interrupted = False
            try:
                _search(trials, knobs, budget, minimize)
            except _Enough:
                pass
            except KeyboardInterrupt:
                interrupted = True
                note("interrupted: the best so far is kept; the same command goes on")
        if not trials.best[1]:
            raise IrstkitError("interrupted before the first trial was done")
        return _result(trials, knobs, start, target.sample, name, interrupted)


class _Enough(Exception):
    """The budget is spent."""


def _search(trials: _Trials, knobs: Sequence[Knob], budget: int, minimize: Any) -> None:
    """A simplex about the preset; begun anew about its best, half as wide, as long as the budget lasts."""

    def counted(z: NDArray) -> float:
        if trials.made >= budget:
            raise _Enough
        return trials(z)

    n = len(knobs)
    bounds = [(-k.reach, k.reach) for k in knobs]
    centre, width = np.zeros(n), 1.0
    value = counted(centre)
    advice = _advice(trials, knobs)
    if advice is not None and counted(advice) < value:
        centre = advice
    while width > 0.1:
        simplex = np.vstack([centre, centre + width * np.diag(np.where(centre > 0, -1.0, 1.0))])
        found = minimize(
            counted, centre, method="Nelder-Mead", bounds=bounds,
            options={"initial_simplex": np.clip(simplex, -5, 5), "adaptive": n > 4, "xatol": 0.1 * width, "fatol": 1e-4,
                     "maxfev": 10 * budget},
        )  # fmt: skip
        centre, width = found.x, width / 2


def _advice(trials: _Trials, knobs: Sequence[Knob]) -> NDArray | None:
    """The report's advice as a point in steps, None where it has none for these keys."""
    from .distances import compare
    from .verdict import changes

    made = trials.sample({}, trials.recipe.seed)
    advice = changes(compare(trials.reference, made, resamples=100), trials.start)
    told = {c.key: c.amount for c in advice if c.op == KNOBS[c.key].op}
    if not any(k.key in told for k in knobs):
        return None
    z = [(log(told[k.key]) if k.factor else told[k.key]) / k.step if k.key in told else 0.0 for k in knobs]
    return np.array([min(max(v, -k.reach), k.reach) for v, k in zip(z, knobs, strict=True)])


def _result(
    trials: _Trials, knobs: Sequence[Knob], start: Preset, reference: Sample, name: str, interrupted: bool
) -> Tuned:  # fmt: skip
    """Before and after on images that the search has not seen: those of the next seed."""
    fresh = trials.recipe.seed + 1
    before, after = trials.sample({}, fresh), trials.sample(trials.best[1], fresh)
    old, new = objective(reference, before), objective(reference, after)
    kept = bool(new >= old)
    values = moved(trials.start, {} if kept else trials.best[1])
    values["name"] = name
    if not kept:
        values["description"] = f"{start.description.rstrip('. ')}; tuned to {reference.name}.".lstrip("; ")
    rows = []
    for key in WEIGHTS:
        if min(len(s.values[key]) for s in (reference, before, after)) == 0:
            continue
        rows.append(
            {
                "measure": key, "title": MEASURES[key].title,
                **{f"{n}_median": float(f"{np.median(s.values[key]):.4g}")
                   for n, s in (("reference", reference), ("before", before), ("after", after))},
                **{f"{n}_distance": round(relative_distance(reference.values[key], s.values[key]), 4)
                   for n, s in (("before", before), ("after", after))},
            }
        )  # fmt: skip
    keys = [
        {"key": k.key, "before": shown(trials.start, k.key), "after": shown(values, k.key)} for k in knobs
    ]
    if not interrupted:
        trials.state.unlink(missing_ok=True)
    return Tuned(
        make_preset(values).as_dict(), trials.best[1], old, new, _floor(reference), trials.made, interrupted, rows, keys,
        kept,
    )  # fmt: skip


def _floor(reference: Sample) -> float:
    """The objective of one half of the reference's images against the other: what chance alone leaves."""
    halves = []
    for half in (0, 1):
        part = copy.copy(reference)
        part.values = {k: v[reference.owners[k] % 2 == half] for k, v in reference.values.items()}
        halves.append(part)
    return objective(halves[0], halves[1])
