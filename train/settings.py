"""The settings of a run: defaults, recipes (YAML) and the command line, in rising order of precedence.

Plain dataclasses: training runs where pydantic is missing. Unknown keys and wrong types are refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ..annotate.errors import IrstkitError
from ..annotate.files import read_bytes

OPTIMISERS = ("adam", "adamw", "sgd", "adagrad")
SCHEDULES = ("constant", "multistep", "cosine", "poly")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "64-true")
RECIPES = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class Settings:
    """How a network is trained. What it is trained on is told apart (:mod:`.material`).

    Attributes
    ----------
    model, options
        Name and options of the network.
    init
        A checkpoint or a run's folder whose weights are where training starts (see :func:`.checkpoint.load_matching`).
    stages
        What is trained before, each from the weights of the former: ``share`` of the whole length, and the
        network's ``options`` that differ meanwhile (see :mod:`.stages`).
    loss
        See :mod:`.losses`.
    optimiser, lr, weight_decay, momentum
        ``adam``, ``adamw``, ``sgd`` (with Nesterov momentum where it is above 0) or ``adagrad``.
    schedule, milestones, factor, final, warmup
        The learning rate as a function of the fraction of all steps done: ``constant``; ``multistep``: times
        ``factor`` at each milestone (fractions); ``cosine`` and ``poly`` (power 0.9): from ``lr`` down to
        ``final`` times ``lr``. ``warmup``: steps of linear rise at the start.
    steps, epochs
        Length in optimiser steps, or in passes over the training images (used where ``steps`` is None).
    batch, accumulate
        Images a network pass, and passes an optimiser step.
    curriculum
        Share of the training over which the smallest admitted SCR falls from high to all (0: none).
    real_share
        Share of the training samples that are real, by showing real images more (or less) often than once an
        epoch; None: every image once.
    crop, augment
        Side of the training crops in pixels; random crops, flips and transposition, or none of it.
    scale, mosaic
        Networks of boxes only: range of the crops' random magnification, and the share of samples that are
        four crops side by side.
    clip
        Largest gradient norm, or None.
    ema
        Decay of the exponential moving average of the weights (validated and kept as best), or None.
    patience
        Stop after this many validations without a better IoU, or None.
    validate_every
        Epochs between validations, each of which writes a checkpoint.
    threshold, distance
        Of the validation's metrics.
    mean, std
        Subtracted from, then divided into, the images in 0..1.
    seed, precision
        Seed of initial weights, order and augmentation; Lightning Fabric's precision.
    """

    model: str = "sd2net"
    options: Mapping[str, Any] = field(default_factory=dict)
    init: str | None = None
    stages: tuple[Mapping[str, Any], ...] = ()
    loss: str = "soft_iou"
    optimiser: str = "adam"
    lr: float = 5e-4
    weight_decay: float = 0.0
    momentum: float = 0.9
    schedule: str = "multistep"
    milestones: tuple[float, ...] = (0.5, 0.75)
    factor: float = 0.1
    final: float = 0.0
    warmup: int = 0
    steps: int | None = None
    epochs: int | None = None
    batch: int = 4
    accumulate: int = 1
    curriculum: float = 0.0
    real_share: float | None = None
    crop: int = 256
    augment: bool = True
    scale: tuple[float, ...] = (1.0, 1.0)
    mosaic: float = 0.0
    clip: float | None = None
    ema: float | None = None
    patience: int | None = None
    validate_every: int = 1
    threshold: float = 0.5
    distance: float = 3.0
    mean: float = 0.0
    std: float = 1.0
    seed: int = 0
    precision: str = "32-true"

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for JSON and checkpoints."""
        plain = asdict(self)
        plain["milestones"] = list(self.milestones)
        plain["scale"] = list(self.scale)
        plain["options"] = dict(self.options)
        plain["stages"] = [{**stage, "options": dict(stage["options"])} for stage in self.stages]
        if not self.stages:
            del plain["stages"]
        if self.real_share is None:
            del plain["real_share"]
        return plain


def settings_from(
    values: Mapping[str, Any], *, base: Settings | None = None, source: str | Path | None = None
) -> Settings:
    """``base`` with ``values`` put over it, checked.

    Raises
    ------
    IrstkitError
        Naming the key that is unknown, of a wrong type or out of range, and ``source`` (a recipe's path).
    """
    base = base or Settings()
    kinds = {f.name: str(f.type) for f in fields(Settings)}
    checked: dict[str, Any] = {}
    for key, value in values.items():
        if key not in kinds:
            raise IrstkitError(f"no setting {key!r}", path=source, hint=f"there are: {', '.join(kinds)}")
        checked[key] = _typed(key, value, kinds[key], source)
    settings = replace(base, **checked)
    _check(settings, source)
    return settings


def _typed(key: str, value: Any, kind: str, source: str | Path | None) -> Any:
    if value is None and "None" in kind:
        return None
    if key == "stages":
        return _stages(value, source)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind.startswith("float") and number and math.isfinite(value):
        return float(value)
    if kind.startswith("int") and number and int(value) == value:
        return int(value)
    if (kind.startswith("str") and isinstance(value, str)) or (kind == "bool" and isinstance(value, bool)):
        return value
    if kind.startswith("tuple") and isinstance(value, (list, tuple)):
        return tuple(_typed(f"{key}[{k}]", v, "float", source) for k, v in enumerate(value))
    if kind.startswith("Mapping") and isinstance(value, Mapping):
        return dict(value)
    wanted = {"float": "a finite number", "int": "a whole number", "str": "text", "bool": "true or false"}
    word = next((text for name, text in wanted.items() if kind.startswith(name)), kind)
    raise IrstkitError(f"{key} is {value!r}, expected {word}", path=source)


def _stages(value: Any, source: str | Path | None) -> tuple[dict[str, Any], ...]:
    if not isinstance(value, (list, tuple)):
        raise IrstkitError(f"stages is {value!r}, expected a list", path=source)
    out = []
    for k, stage in enumerate(value):
        if not isinstance(stage, Mapping) or set(stage) != {"share", "options"}:
            raise IrstkitError(f"stages[{k}] is {stage!r}, expected share and options", path=source)
        share = _typed(f"stages[{k}].share", stage["share"], "float", source)
        if not 0 < share < 1:
            raise IrstkitError(
                f"stages[{k}].share is {share!r}, expected a share between 0 and 1", path=source
            )
        out.append(
            {"share": share, "options": _typed(f"stages[{k}].options", stage["options"], "Mapping", source)}
        )
    if sum(stage["share"] for stage in out) >= 1:
        raise IrstkitError("the stages' shares leave nothing for the training after them", path=source)
    return tuple(out)


def _check(s: Settings, source: str | Path | None) -> None:
    def need(good: bool, key: str, rule: str) -> None:
        if not good:
            raise IrstkitError(f"{key} is {getattr(s, key)!r}, expected {rule}", path=source)

    need(s.optimiser in OPTIMISERS, "optimiser", " | ".join(OPTIMISERS))
    need(s.schedule in SCHEDULES, "schedule", " | ".join(SCHEDULES))
    need(s.precision in PRECISIONS, "precision", " | ".join(PRECISIONS))
    need(s.lr > 0, "lr", "a number above 0")
    need(s.std > 0, "std", "a number above 0")
    for key in ("batch", "accumulate", "crop", "validate_every"):
        need(getattr(s, key) >= 1, key, "at least 1")
    for key in ("steps", "epochs", "patience"):
        need(getattr(s, key) is None or getattr(s, key) >= 1, key, "at least 1")
    need(0 <= s.seed < 2**64, "seed", "a whole number from 0, below 2**64")
    for key in ("weight_decay", "momentum", "warmup", "final"):
        need(getattr(s, key) >= 0, key, "at least 0")
    need(s.clip is None or s.clip > 0, "clip", "a number above 0")
    need(s.ema is None or 0 < s.ema < 1, "ema", "between 0 and 1")
    need(all(0 < m < 1 for m in s.milestones), "milestones", "fractions between 0 and 1")
    need(len(s.scale) == 2 and 0 < s.scale[0] <= s.scale[-1], "scale", "two rising numbers above 0")
    need(0 <= s.curriculum <= 1, "curriculum", "a share from 0 to 1")
    need(s.real_share is None or 0 < s.real_share < 1, "real_share", "a share between 0 and 1")
    need(not (s.real_share and s.curriculum), "real_share", "none: a curriculum orders all images by itself")
    need(0 <= s.mosaic <= 1, "mosaic", "a share from 0 to 1")
    need(0 <= s.threshold <= 1, "threshold", "a probability")
    need(s.distance > 0, "distance", "a number of pixels above 0")


def recipe_names(model: str) -> list[str]:
    """The shipped recipes of a model: ``paper``, ``best``."""
    return sorted(f.stem.removeprefix(f"{model}-") for f in RECIPES.glob(f"{model}-*.yaml"))


def load_recipe(recipe: str, model: str) -> dict[str, Any]:
    """The values of a recipe: a shipped one by name (``paper``), or a YAML file by path.

    Raises
    ------
    IrstkitError
        For an unknown name (listing those there are), a file that is not YAML, or another model's recipe.
    """
    import yaml

    path = RECIPES / f"{model}-{recipe}.yaml"
    if not path.exists():
        path = Path(recipe)
        if path.suffix not in (".yaml", ".yml"):
            names = ", ".join(recipe_names(model)) or "none"
            raise IrstkitError(
                f"no recipe {recipe!r} for {model}", hint=f"there are: {names}; or a YAML file's path"
            )
    try:
        values = yaml.safe_load(read_bytes(path).decode("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        raise IrstkitError(
            f"not valid YAML: {getattr(error, 'problem', None) or error}",
            path=path,
            where=f"line {mark.line + 1}" if mark else None,
        ) from error
    if not isinstance(values, dict):
        raise IrstkitError("a recipe is a mapping of settings to values", path=path)
    if values.get("model", model) != model:
        raise IrstkitError(f"a recipe for the model {values['model']!r}, {model!r} is asked for", path=path)
    settings_from(values, source=path)
    return values


def stage_lengths(settings: Settings) -> tuple[int, ...]:
    """Steps (or epochs, where no steps are given) of each stage and, last, of the training after them.

    Raises
    ------
    IrstkitError
        Where the length is too short for every part to have one.
    """
    whole, unit = (settings.epochs or 0, "epochs") if settings.steps is None else (settings.steps, "steps")
    if not whole:
        raise IrstkitError("no length of training", hint="give --steps K or --epochs N")
    parts = [round(stage["share"] * whole) for stage in settings.stages]
    lengths = (*parts, whole - sum(parts))
    if settings.stages and min(lengths) < 1:
        raise IrstkitError(
            f"{whole} {unit} are too few for {len(lengths)} stages",
            hint="a longer training, or a recipe without stages",
        )
    return lengths


def learning_rate(settings: Settings, step: int, steps: int) -> float:
    """The learning rate of optimiser step ``step`` (from 0) of ``steps``: pure, so nothing to resume."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    done = step / max(steps, 1)
    if settings.schedule == "multistep":
        return settings.lr * settings.factor ** sum(done >= m for m in settings.milestones)
    if settings.schedule == "constant":
        return settings.lr
    shape = (1 + math.cos(math.pi * done)) / 2 if settings.schedule == "cosine" else (1 - done) ** 0.9
    return settings.lr * (settings.final + (1 - settings.final) * shape)
