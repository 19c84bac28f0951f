"""``irstkit train evaluate`` and ``compare``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from .cli_options import (
    PATH,
    Number,
    device_option,
    json_option,
    need_torch,
    padding_option,
    set_threads,
    threads_option,
    with_metric_options,
)

kind_option = click.option(
    "--as",
    "kind",
    type=click.Choice(["auto", "mask", "probability"]),
    default="auto",
    show_default=True,
    help="What the files of a folder hold; auto: masks, if none has more than two values.",
)


class Breakdowns(click.ParamType):
    """Names divided by commas."""

    name = "KEY,KEY,..."
    known = ("kind", "size", "scr", "scene", "sequence")

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        keys = tuple(part.strip() for part in value.split(","))
        for key in keys:
            if key not in self.known:
                self.fail(f"{key!r} is not one of {', '.join(self.known)}", param, ctx)
        return keys


class Distances(click.ParamType):
    """Pixels divided by commas."""

    name = "PX,PX,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            found = tuple(float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} are not numbers divided by commas, such as 2,3,4", param, ctx)
        if not all(0 < d < float("inf") for d in found):
            self.fail(f"{value!r}: distances are above 0 pixels", param, ctx)
        return found


@click.command()
@click.argument("predictions", type=PATH, nargs=-1, required=True)
@click.option("--data", type=PATH, required=True, help="Data set with masks, or with boxes.")
@click.option("--split", help="SCHEME/PART, or all [default: the default scheme's test].")
@with_metric_options
@click.option(
    "--boxes",
    is_flag=True,
    help="Score components as boxes (AP50, ...); networks of boxes, and several PREDICTIONS, always are.",
)
@click.option(
    "--choose-on",
    metavar="SCHEME/PART",
    help="Boxes: take the score with the largest F1 on this split of the data [the run's own choice, else 0.5].",
)
@click.option(
    "--protocol",
    type=click.Choice(["irstkit", "sstnet"]),
    default="irstkit",
    show_default=True,
    help="Boxes: sstnet shows the numbers of the published DAUB / IRDST tables, and what is wrong with them.",
)
@click.option(
    "--nms",
    type=Number(0, 1),
    default=0.65,
    show_default=True,
    help="Networks of boxes: largest IoU of two detections that are both kept.",
)
@click.option(
    "--out",
    type=PATH,
    help="Boxes: new folder for table.md, table.csv, results.json, sequences.csv, pr.csv and pr.png.",
)
@click.option("--roc", is_flag=True, help="Curves too: pixel AUC, target AUC, Pd at Fa 1e-6, 1e-5, 1e-4.")
@click.option(
    "--distances",
    type=Distances(),
    default=(),
    help="Pd and Fa at other matching distances too, e.g. 2,3,4 (DNA-Net's Table IV).",
)
@click.option(
    "--shooting", is_flag=True, help="Pd, Fa and AUC by the shooting rules of STD2Net and DTUM too."
)
@click.option("--by", type=Breakdowns(), default=(), help="Break down by kind, size, scr, scene, sequence.")
@click.option(
    "--bootstrap",
    "resamples",
    type=click.IntRange(min=0),
    default=0,
    help="95 % intervals from so many redrawn sets, e.g. 1000.",
)
@click.option(
    "--unseen",
    "only_unseen",
    is_flag=True,
    help="Leave out the images that the checkpoint was trained or selected on (of several: any of them), and say how "
    "many; the result is of a part of the split.",
)
@padding_option
@kind_option
@click.option(
    "--border",
    type=click.Choice(["target", "clamp", "reflect", "still"]),
    help="Networks of clips: what stands for frames that a sequence lacks [the network's rule]; still puts the key "
    "frame in place of all neighbours, which shows what they are worth to the network.",
)
@click.option("--model", help="Refuse a checkpoint of any other model.")
@device_option
@threads_option
@json_option
@click.pass_context
def evaluate(
    ctx: click.Context,
    predictions: tuple[Path, ...],
    data: Path,
    split: str | None,
    threshold: float,
    distance: float,
    matching: Any,
    connectivity: str,
    boxes: bool,
    choose_on: str | None,
    protocol: str,
    nms: float,
    out: Path | None,
    roc: bool,
    distances: tuple[float, ...],
    shooting: bool,
    by: tuple[str, ...],
    resamples: int,
    only_unseen: bool,
    padding: str,
    kind: str,
    border: str | None,
    model: str | None,
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Score PREDICTIONS on a split, at native resolution.

    PREDICTIONS is a checkpoint (.pt), a run's folder, or what anyone's program wrote: a folder of masks or
    probability maps named as the images (PNG and the like, .npy), or a COCO file with scores.

    Networks of boxes (dfar, eflnet) are scored by AP50, by precision, recall and F1 at --threshold (default: the
    score that the run chose on its validation part), by centre distance, and by sequence; --boxes scores a
    segmenter so too, through its components. Several PREDICTIONS, detectors and segmenters, give one table.

    \b
    Examples:
      irstkit train evaluate runs/real/best.pt --data NUAA-SIRST/ --split 50_50/test --json
      irstkit train evaluate runs/real --data synth/ --roc --by kind,scr --bootstrap 1000
      irstkit train evaluate runs/mixed --data NUAA-SIRST/ --split 50_50/train --unseen
      irstkit train evaluate their_masks/ --data NUDT-SIRST/ --matching dnanet --distances 2,3,4
      irstkit train evaluate runs/dfar runs/eflnet runs/std2net theirs.json --data DAUB/ --out table/
      irstkit train evaluate runs/dfar --data DAUB/ --protocol sstnet
      irstkit train evaluate runs/dfar --data DAUB/ --border still
    """
    need_torch()
    from contextlib import ExitStack

    from ..annotate.files import atomic_folder
    from ..datasets.readers import open_dataset
    from .compare import check_new
    from .compare_boxes import compare_boxes, markdown, write_tables
    from .evaluate import evaluate as score
    from .evaluate import labelled_part, table
    from .evaluate_boxes import is_box_checkpoint, labelled_boxes
    from .evaluate_boxes import table as box_table
    from .metrics import Settings
    from .sources import open_source
    from .unseen import unseen

    set_threads(threads)
    opened = open_dataset(data)
    given = [k for k in ctx.params if ctx.get_parameter_source(k) is not click.core.ParameterSource.DEFAULT]
    if boxes or len(predictions) > 1 or is_box_checkpoint(predictions[0]):
        if other := sorted(
            {"roc", "shooting", "distances", "by", "resamples", "matching", "connectivity"} & set(given)
        ):
            raise click.UsageError(f"{_flag(other[0])} is for the masks of one segmenter")
        check_new(out)
        left = unseen(predictions, opened, *labelled_boxes(opened, split)) if only_unseen else None
        with ExitStack() as stack:
            # before anything is predicted: a place that cannot be written is told first
            folder = None if out is None else stack.enter_context(atomic_folder(out))
            content = compare_boxes(
                predictions, opened, split, score=threshold if "threshold" in given else None, choose_on=choose_on,
                distance=distance, nms=nms, device=device, model=model, padding=padding, kind=kind,
                border=border, unseen=left,
            )  # fmt: skip
            if folder is not None:
                write_tables(content, folder, protocol)
        runs = content["runs"]
        if as_json:
            click.echo(json.dumps(content if len(runs) > 1 else runs[0], indent=2))
        else:
            click.echo(markdown(runs, protocol) if len(runs) > 1 else box_table(runs[0], protocol))
        return
    if other := sorted({"choose_on", "protocol", "nms", "out"} & set(given)):
        raise click.UsageError(f"{_flag(other[0])} is for boxes: add --boxes, or see irstkit train compare")
    records, name = labelled_part(opened, split)
    left = unseen(predictions, opened, records, name) if only_unseen else None
    source = open_source(
        predictions[0], records if left is None else left.records, context=() if left is None else left.context,
        device=device, padding=padding, model=model, kind=kind, border=border,
    )  # fmt: skip
    settings = Settings(threshold, distance, matching, int(connectivity))
    result = score(
        source,
        opened,
        split,
        settings=settings,
        curves=roc,
        shooting=shooting,
        by=by,
        resamples=resamples,
        distances=distances,
        unseen=left,
    )
    click.echo(json.dumps(result, indent=2) if as_json else table(result))


def _flag(name: str) -> str:
    return "--" + {"resamples": "bootstrap"}.get(name, name).replace("_", "-")


@click.command()
@click.argument("runs", nargs=-1, required=True, type=PATH)
@click.option("--data", type=PATH, required=True, help="Data set with masks.")
@click.option("--split", help="SCHEME/PART, or all [default: the default scheme's test].")
@click.option("--out", type=PATH, required=True, help="New folder for tables, curves and galleries.")
@with_metric_options
@padding_option
@kind_option
@device_option
@threads_option
@json_option
def compare(
    runs: tuple[Path, ...],
    data: Path,
    split: str | None,
    out: Path,
    threshold: float,
    distance: float,
    matching: Any,
    connectivity: str,
    padding: str,
    kind: str,
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Compare RUNS (each what `evaluate` takes) on one split.

    OUT gets compare.md, .csv and .json, roc.png and roc.csv (Pd against Fa), and hits.png, misses.png and
    false_alarms.png: cut-outs with the truth and each run's outline. Detectors are compared by boxes: see
    irstkit train evaluate RUN RUN ...

    \b
    Example:
      irstkit train compare runs/real runs/mixed their_masks/ --data NUAA-SIRST/ --out comparison/
    """
    need_torch()
    from ..annotate.errors import IrstkitError
    from ..datasets.readers import open_dataset
    from .compare import compare as run
    from .compare import markdown
    from .compare_boxes import needs_boxes
    from .metrics import Settings

    set_threads(threads)
    if why := needs_boxes(runs, open_dataset(data)):
        named = " ".join(map(str, runs))
        raise IrstkitError(
            f"{why}: not compared by masks", hint=f"irstkit train evaluate {named} --data {data} --out {out}"
        )
    settings = Settings(threshold, distance, matching, int(connectivity))
    content = run(runs, data, out, split, settings=settings, device=device, padding=padding, kind=kind)
    click.echo(json.dumps(content, indent=2) if as_json else f"{markdown(content['runs'])}\n{out}")
