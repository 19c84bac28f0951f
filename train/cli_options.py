"""Options and parameter types that commands of this room share. Imports nothing heavy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from .settings import Settings

PATH = click.Path(path_type=Path)


class Number(click.FloatRange):
    """A number in a range; click's own lets not-a-number through every bound."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number", param, ctx)
        return number


class RealFraction(click.ParamType):
    """A number from 0 to 1, or ``real``."""

    name = "FRACTION|real"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        if isinstance(value, float) or value == "real":
            return value
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not 0 <= number <= 1:
            self.fail(f"{value!r} is neither a number from 0 to 1 nor 'real'", param, ctx)
        return number


class ModelOption(click.ParamType):
    """``KEY=VALUE`` with a YAML value."""

    name = "KEY=VALUE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Any]:
        import yaml

        if isinstance(value, tuple):
            return value
        key, equals, text = value.partition("=")
        if not equals or not key:
            self.fail(f"{value!r}: expected KEY=VALUE, for example base=16", param, ctx)
        try:
            return key, yaml.safe_load(text)
        except yaml.YAMLError:
            self.fail(f"{value!r}: {text!r} is not a YAML value", param, ctx)


def set_threads(count: int | None) -> None:
    """Threads of PyTorch, where a number is given."""
    if count is not None:
        import torch

        torch.set_num_threads(count)


def need_torch() -> None:
    """Say which extra is missing before anything else is imported."""
    from ..annotate.errors import require

    require("torch", "train")


device_option = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps."
)
threads_option = click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="CPU threads of PyTorch [default: PyTorch's]; equal numbers need equal threads.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON to standard output.")


padding_option = click.option(
    "--padding",
    type=click.Choice(["reflect", "zeros"]),
    default="reflect",
    show_default=True,
    help="Up to multiples of the network's stride.",
)

metric_options = [
    click.option("--threshold", type=Number(0, 1), default=0.5, show_default=True, help="Positive above it."),
    click.option(
        "--distance",
        type=Number(min=0, min_open=True),
        default=3.0,
        show_default=True,
        help="Centroids strictly nearer match, pixels.",
    ),
    click.option(
        "--matching",
        type=click.Choice(["optimal", "greedy", "dnanet"]),
        default="optimal",
        show_default=True,
        help="optimal: one-to-one assignment; greedy and dnanet: as published code.",
    ),
    click.option(
        "--connectivity", type=click.Choice(["4", "8"]), default="8", show_default=True, help="Of components."
    ),
]


def with_metric_options(command: Any) -> Any:
    """The options that every scoring command shares."""
    for option in reversed(metric_options):
        command = option(command)
    return command


training_options = [
    click.option(
        "--recipe", help="Shipped recipe (paper, best) or a YAML file [default: best, where there is one]."
    ),
    click.option(
        "--option",
        "options",
        type=ModelOption(),
        multiple=True,
        help="Option of the network, e.g. base=16; may be repeated.",
    ),
    click.option(
        "--init",
        metavar="RUN|CHECKPOINT",
        help="Start from trained weights (fine-tuning): every tensor of equal name and shape is taken.",
    ),
    click.option("--steps", type=int, help="Optimiser steps."),
    click.option("--epochs", type=int, help="Passes over the training images, where --steps is not given."),
    click.option("--batch", type=int, help="Images a pass [default: 4]."),
    click.option("--accumulate", type=int, help="Passes an optimiser step [1]."),
    click.option("--crop", type=int, help="Side of the training crops, pixels [256]."),
    click.option(
        "--augment/--no-augment", default=None, help="Random crops, flips and transposition, or none of it."
    ),
    click.option(
        "--scale",
        type=float,
        nargs=2,
        metavar="LOW HIGH",
        help="Networks of boxes: range of the crops' random magnification [1 1].",
    ),
    click.option(
        "--mosaic",
        type=float,
        help="Networks of boxes: share of the samples that are four crops side by side [0].",
    ),
    click.option(
        "--curriculum",
        type=float,
        help="Share of the training that begins with the images of largest SCR and admits all at its end [0].",
    ),
    click.option(
        "--real-share",
        type=float,
        help="Share of the training samples that are real, by showing real images more often; 0.5: every second one "
        "[every image once an epoch].",
    ),
    click.option("--loss", help="soft_iou, bce, focal, dice, bce_soft_iou, soft_iou_each."),
    click.option("--optimiser", help="adam, adamw, sgd, adagrad."),
    click.option("--lr", type=float, help="Learning rate [the recipe's]."),
    click.option("--weight-decay", type=float, help="[the recipe's, else 0]"),
    click.option("--schedule", help="constant, multistep (times 0.1 at 1/2 and 3/4), cosine, poly."),
    click.option("--warmup", type=int, help="Steps of linear rise of the learning rate [0]."),
    click.option("--clip", type=float, help="Largest gradient norm [none]."),
    click.option("--ema", type=float, help="Decay of the moving average of the weights, e.g. 0.99 [none]."),
    click.option(
        "--patience", type=int, help="Stop after this many validations without a better IoU [never]."
    ),
    click.option("--validate-every", type=int, help="Epochs between validations and checkpoints [1]."),
    click.option("--precision", help="32-true, bf16-mixed, 16-mixed, 64-true."),
]


def with_training_options(command: Any) -> Any:
    """The options that every training command shares (see :func:`settings_of`)."""
    for option in reversed(training_options):
        command = option(command)
    return command


def settings_of(model: str, given: Mapping[str, Any], base: Settings | None = None) -> Settings:
    """Settings of a recipe with the options of the command line over it; ``base`` is a resumed run's."""
    from ..annotate.console import note
    from .models import build
    from .settings import Settings, load_recipe, recipe_names, settings_from

    recipe, options = given["recipe"], dict(given["options"])
    values = {k: v for k, v in given.items() if v is not None and k not in ("recipe", "options")}
    if base is None:
        base = Settings(model=model)
        if recipe is None and "best" in recipe_names(model):
            recipe = "best"
        if recipe is not None:
            base = settings_from(load_recipe(recipe, model), base=base)
    elif recipe is not None:  # a resumed run's: what it says must be equal too, but for the length
        told = {k: v for k, v in load_recipe(recipe, model).items() if k not in ("steps", "epochs")}
        if base.init is not None:
            told.pop("stages", None)
        base = settings_from(told, base=base)
    if options:
        values["options"] = {**base.options, **options}
    if given.get("init") is not None and base.stages:
        note(
            f"--init is where training starts: the recipe's {len(base.stages)} stages before it are left out"
        )
        values["stages"] = ()
    if "steps" in values:
        values.setdefault("epochs", None)
    elif "epochs" in values:
        values["steps"] = None
    settings = settings_from({**values, "model": model}, base=base)
    build(settings.model, **settings.options)  # a wrong name or option is said before data are read
    return settings
