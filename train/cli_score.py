"""``irstkit train evaluate``, ``predict`` and ``bench``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from .cli_options import (
    PATH,
    ModelOption,
    device_option,
    json_option,
    need_torch,
    set_threads,
    threads_option,
    with_metric_options,
)


@click.command()
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
    need_torch()
    from ..datasets.readers import open_dataset
    from .evaluate import evaluate as score
    from .evaluate import labelled_part, table
    from .metrics import Settings
    from .predictor import Predictor

    set_threads(threads)
    opened = open_dataset(data)
    labelled_part(opened, split)
    predictor = Predictor.load(checkpoint, device=device, padding=padding, model=model)
    settings = Settings(threshold, distance, matching, int(connectivity))
    result = score(predictor, opened, split, settings=settings)
    click.echo(json.dumps(result, indent=2) if as_json else table(result))


@click.command()
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
    need_torch()
    from .predict import gather
    from .predict import predict as write
    from .predictor import Predictor

    set_threads(threads)
    records, what = gather(images, split)
    predictor = Predictor.load(checkpoint, device=device, padding=padding, model=model)
    result = write(predictor, records, out, threshold=threshold, probabilities=probabilities)
    if as_json:
        click.echo(json.dumps(result, indent=2))
    else:
        click.echo(f"{result['instances']} instances in {result['images']} images ({what}): {out}")


@click.command()
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
    need_torch()
    from ..annotate.console import track
    from .bench import bench as measure
    from .bench import table

    set_threads(threads)
    rows = [
        measure(name, size, options=dict(options), batch=batch, device=device, rounds=rounds)
        for name in track(model, "timing", unit="models")
    ]
    if as_json:
        click.echo(json.dumps(rows[0] if len(rows) == 1 else rows, indent=2))
    else:
        click.echo(table(rows))
