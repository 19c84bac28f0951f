"""``irstkit train``: fit, evaluate, predict, bench. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

PATH = click.Path(path_type=Path)


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


def _threads(count: int | None) -> None:
    if count is not None:
        import torch

        torch.set_num_threads(count)


def _pick_torch() -> None:
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


@click.group()
def cli() -> None:
    """Train, evaluate, predict, benchmark.

    \b
    Examples:
      irstkit train fit sd2net --real NUAA-SIRST/ --steps 2000 --out runs/real
      irstkit train fit sd2net --real NUAA-SIRST/ --synthetic synth/ --real-fraction 0.1 --total 190 \\
              --steps 2000 --out runs/mixed
      irstkit train evaluate runs/mixed/best.pt --data NUAA-SIRST/ --split 50_50/test
      irstkit train predict runs/mixed/best.pt photos/ --out predictions/
      irstkit train bench sd2net --size 256
    """


@cli.command()
@click.argument("model")
@click.option("--real", type=PATH, help="Data set of real images.")
@click.option("--synthetic", type=PATH, help="Data set of synthetic images.")
@click.option("--real-split", help="SCHEME/PART to train on [default: the default scheme's train].")
@click.option("--synthetic-split", help="The same for the synthetic set [all, where it has no lists].")
@click.option(
    "--real-fraction",
    type=RealFraction(),
    help="Share of real images among --total; 'real': all real images, no synthetic.",
)
@click.option("--total", type=click.IntRange(min=1), help="Number of training images, real and synthetic.")
@click.option("--out", type=PATH, required=True, help="Folder of the run; must be empty or missing.")
@click.option("--overwrite", is_flag=True, help="Replace the run that is in --out.")
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with the run in --out: to the bit on the CPU. Options not given are the run's own.",
)
@click.option(
    "--recipe", help="Shipped recipe (paper, best) or a YAML file [default: best, where there is one]."
)
@click.option(
    "--option",
    "options",
    type=ModelOption(),
    multiple=True,
    help="Option of the network, e.g. base=16; may be repeated.",
)
@click.option("--steps", type=int, help="Optimiser steps.")
@click.option("--epochs", type=int, help="Passes over the training images, where --steps is not given.")
@click.option("--batch", type=int, help="Images a pass [default: 4].")
@click.option("--accumulate", type=int, help="Passes an optimiser step [1].")
@click.option("--crop", type=int, help="Side of the training crops, pixels [256].")
@click.option(
    "--augment/--no-augment", default=None, help="Random crops, flips and transposition, or none of it."
)
@click.option("--loss", help="soft_iou, bce, focal, dice, bce_soft_iou, soft_iou_each.")
@click.option("--optimiser", help="adam, adamw, sgd, adagrad.")
@click.option("--lr", type=float, help="Learning rate [the recipe's].")
@click.option("--weight-decay", type=float, help="[the recipe's, else 0]")
@click.option("--schedule", help="constant, multistep (times 0.1 at 1/2 and 3/4), cosine, poly.")
@click.option("--warmup", type=int, help="Steps of linear rise of the learning rate [0].")
@click.option("--clip", type=float, help="Largest gradient norm [none].")
@click.option("--ema", type=float, help="Decay of the moving average of the weights, e.g. 0.99 [none].")
@click.option("--patience", type=int, help="Stop after this many validations without a better IoU [never].")
@click.option("--validate-every", type=int, help="Epochs between validations and checkpoints [1].")
@click.option("--precision", help="32-true, bf16-mixed, 16-mixed, 64-true.")
@click.option("--seed", type=int, help="Of weights, order, augmentation and the draw of the mix [0].")
@click.option(
    "--max-steps",
    type=click.IntRange(min=1),
    help="Stop after this many steps now, with everything saved for --resume.",
)
@click.option(
    "--max-minutes",
    type=click.FloatRange(min=0, min_open=True),
    help="Stop after this time, with everything saved.",
)
@device_option
@threads_option
@json_option
@click.pass_context
def fit(ctx: click.Context, model: str, out: Path, as_json: bool, **given: Any) -> None:
    """Train MODEL on real images, synthetic ones, or a mix of both.

    A tenth of the training list (of the real set where there is one) is set aside, near-twins together; the
    checkpoint with the largest IoU on it is kept as OUT/best.pt. Test lists are never looked at.

    \b
    OUT holds best.pt, last.pt, log.csv, run.json and tensorboard/ (tensorboard --logdir OUT).
    SIGTERM and Ctrl-C finish the step, save last.pt and end with status 0; --resume goes on.

    \b
    Examples:
      irstkit train fit sd2net --real NUAA-SIRST/ --steps 2000 --out runs/real
      irstkit train fit sd2net --synthetic synth/ --epochs 50 --option base=16 --out runs/synthetic
      irstkit train fit sd2net --resume --out runs/real
    """
    _pick_torch()
    from .loop import fit as run
    from .material import compose
    from .models import build
    from .runs import prepare_folder, read_run
    from .settings import Settings, load_recipe, recipe_names, settings_from

    _threads(given.pop("threads"))
    material_keys = ("real", "synthetic", "real_split", "synthetic_split", "real_fraction", "total")
    chosen = {k: given.pop(k) for k in material_keys}
    control = {k: given.pop(k) for k in ("device", "overwrite", "resume", "max_steps", "max_minutes")}
    recipe, options = given.pop("recipe"), dict(given.pop("options"))
    values = {k: v for k, v in given.items() if v is not None}
    prepare_folder(out, overwrite=control["overwrite"], resume=control["resume"])
    if control["resume"]:
        former = read_run(out)
        base = settings_from(former["settings"], source=out / "run.json")
        for source in ("real", "synthetic"):
            about = former["data"].get(source, {})
            chosen[source] = chosen[source] or former["paths"].get(source)
            chosen[f"{source}_split"] = chosen[f"{source}_split"] or about.get("split")
        for key, name in (("real_fraction", "fraction"), ("total", "total")):
            chosen[key] = former["data"][name] if chosen[key] is None else chosen[key]
    else:
        base = Settings(model=model)
        if recipe is None and "best" in recipe_names(model):
            recipe = "best"
        if recipe is not None:
            base = settings_from(load_recipe(recipe, model), base=base)
    if options:
        values["options"] = {**base.options, **options}
    if "steps" in values:
        values.setdefault("epochs", None)
    elif "epochs" in values:
        values["steps"] = None
    settings = settings_from({**values, "model": model}, base=base)
    build(settings.model, **settings.options)  # a wrong name or option is said before data are read
    fraction = chosen.pop("real_fraction")
    material = compose(**chosen, fraction=fraction, seed=settings.seed)
    report = run(settings, material, out, **control)
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    best = report["best"]
    click.echo(f"{report['status']}: step {report['step']} of {report['steps']}, {out}")
    if best and best["metrics"]:
        m = best["metrics"]
        units = (("IoU", "iou", 100, " %"), ("Pd", "pd", 100, " %"), ("Fa", "fa", 1e6, "e-6"))
        shown = [
            f"{word} undefined" if m[k] is None else f"{word} {m[k] * s:.2f}{u}" for word, k, s, u in units
        ]
        click.echo(f"best at step {best['step']} on {m['images']} validation images: {', '.join(shown)}")
    click.echo(f"weights {report['weights'][:12]} (last), {report['parameters']} parameters")


metric_options = [
    click.option(
        "--threshold", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="Positive above it."
    ),
    click.option(
        "--distance",
        type=click.FloatRange(min=0, min_open=True),
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


@cli.command()
@click.argument("checkpoint", type=PATH)
@click.option("--data", type=PATH, required=True, help="Data set with masks.")
@click.option("--split", help="SCHEME/PART, or all [default: the default scheme's test].")
@with_metric_options
@click.option(
    "--padding",
    type=click.Choice(["reflect", "zeros"]),
    default="reflect",
    show_default=True,
    help="Up to the network's stride.",
)
@click.option("--model", help="Refuse a checkpoint of any other model.")
@device_option
@threads_option
@json_option
def evaluate(
    checkpoint: Path,
    data: Path,
    split: str | None,
    threshold: float,
    distance: float,
    matching: Any,
    connectivity: str,
    padding: str,
    model: str | None,
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Score CHECKPOINT (a .pt file, or a run's folder) on a split, at native resolution.

    \b
    Example:
      irstkit train evaluate runs/real/best.pt --data NUAA-SIRST/ --split 50_50/test --json
    """
    _pick_torch()
    from ..datasets.readers import open_dataset
    from .evaluate import evaluate as score
    from .evaluate import labelled_part, table
    from .metrics import Settings
    from .predictor import Predictor

    _threads(threads)
    opened = open_dataset(data)
    labelled_part(opened, split)
    predictor = Predictor.load(checkpoint, device=device, padding=padding, model=model)
    settings = Settings(threshold, distance, matching, int(connectivity))
    result = score(predictor, opened, split, settings=settings)
    click.echo(json.dumps(result, indent=2) if as_json else table(result))


@cli.command()
@click.argument("checkpoint", type=PATH)
@click.argument("images", type=PATH)
@click.option(
    "--out", type=PATH, required=True, help="New folder for masks/, overlays/ and predictions.json."
)
@click.option("--split", help="SCHEME/PART of a data set [default: all its images].")
@click.option(
    "--threshold", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="Positive above it."
)
@click.option(
    "--padding",
    type=click.Choice(["reflect", "zeros"]),
    default="reflect",
    show_default=True,
    help="Up to the network's stride.",
)
@click.option("--probabilities", is_flag=True, help="Write probabilities/NAME.png too (16-bit, 65535 is 1).")
@click.option("--model", help="Refuse a checkpoint of any other model.")
@device_option
@threads_option
@json_option
def predict(
    checkpoint: Path,
    images: Path,
    out: Path,
    split: str | None,
    threshold: float,
    padding: str,
    probabilities: bool,
    model: str | None,
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Find targets in IMAGES: a file, a folder of images, or a data set.

    Writes masks/NAME.png (0 and 255), overlays/NAME.png (prediction orange, truth, where known, cyan) and
    predictions.json (COCO: boxes, RLE and a score an instance). OUT appears when all of it is done.

    \b
    Example:
      irstkit train predict runs/real/best.pt photos/ --out predictions/
    """
    _pick_torch()
    from .predict import gather
    from .predict import predict as write
    from .predictor import Predictor

    _threads(threads)
    records, what = gather(images, split)
    predictor = Predictor.load(checkpoint, device=device, padding=padding, model=model)
    result = write(predictor, records, out, threshold=threshold, probabilities=probabilities)
    if as_json:
        click.echo(json.dumps(result, indent=2))
    else:
        click.echo(f"{result['instances']} instances in {result['images']} images ({what}): {out}")


@cli.command()
@click.argument("model", nargs=-1, required=True)
@click.option("--size", type=int, default=256, show_default=True, help="Side of the images, pixels.")
@click.option("--batch", type=int, default=1, show_default=True, help="Images a pass.")
@click.option(
    "--rounds", type=int, default=10, show_default=True, help="Timed repetitions; medians are shown."
)
@click.option(
    "--option",
    "options",
    type=ModelOption(),
    multiple=True,
    help="Option of the network, e.g. base=16; may be repeated.",
)
@device_option
@threads_option
@json_option
def bench(
    model: tuple[str, ...],
    size: int,
    batch: int,
    rounds: int,
    options: tuple[tuple[str, Any], ...],
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Count and time MODEL(s) on this device: parameters, MACs, seconds, memory.

    \b
    Example:
      irstkit train bench sd2net --size 256 --batch 4 --json
    """
    _pick_torch()
    from ..annotate.console import track
    from .bench import bench as measure
    from .bench import table

    _threads(threads)
    rows = [
        measure(name, size, options=dict(options), batch=batch, device=device, rounds=rounds)
        for name in track(model, "timing", unit="models")
    ]
    if as_json:
        click.echo(json.dumps(rows[0] if len(rows) == 1 else rows, indent=2))
    else:
        click.echo(table(rows))
