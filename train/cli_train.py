"""``irstkit train fit`` and ``sweep``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from .cli_options import (
    PATH,
    Number,
    RealFraction,
    device_option,
    json_option,
    need_torch,
    set_threads,
    settings_of,
    threads_option,
    with_training_options,
)


@click.command()
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
@click.option(
    "--stream",
    is_flag=True,
    help="Read --synthetic, a folder of shards, while training: two shards are decoded at a time. With --real, "
    "--real-fraction is the share of real samples.",
)
@click.option("--out", type=PATH, required=True, help="Folder of the run; must be empty or missing.")
@click.option("--overwrite", is_flag=True, help="Replace the run that is in --out.")
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with the run in --out: to the bit on the CPU. Options not given are the run's own.",
)
@with_training_options
@click.option("--seed", type=int, help="Of weights, order, augmentation and the draw of the mix [0].")
@click.option(
    "--max-steps",
    type=click.IntRange(min=1),
    help="Stop after this many steps now, with everything saved for --resume.",
)
@click.option(
    "--max-minutes",
    type=Number(min=0, min_open=True),
    help="Stop after this time, with everything saved.",
)
@click.option(
    "--save-minutes",
    type=Number(min=0),
    default=10.0,
    show_default=True,
    help="Write last.pt between validations too where the one before is older than this: the most that a killed run loses.",
)
@click.option(
    "--cuda-graph/--no-cuda-graph",
    default=True,
    show_default=True,
    help="On a GPU, networks of masks: record a step and replay it, which spares the launches of its kernels.",
)
@device_option
@threads_option
@json_option
def fit(model: str, out: Path, as_json: bool, **given: Any) -> None:
    """Train MODEL on real images, synthetic ones, or a mix of both.

    A tenth of the training list (of the real set where there is one) is set aside, near-twins together; the
    checkpoint with the largest IoU (boxes: AP50) on it is kept as OUT/best.pt. Test lists are never looked at.

    \b
    OUT holds best.pt, last.pt, log.csv, run.json and tensorboard/ (tensorboard --logdir OUT); of a recipe in
    stages (dfar's best) stage1/ and stage2/ too, each what the next one starts from.
    SIGTERM and Ctrl-C finish the step, save last.pt and end with status 0; --resume goes on, also with a run
    that was killed: last.pt is written with each validation, and at least every --save-minutes.

    \b
    Examples:
      irstkit train fit sd2net --real NUAA-SIRST/ --steps 2000 --out runs/real
      irstkit train fit sd2net --synthetic synth/ --epochs 50 --option base=16 --out runs/synthetic
      irstkit train fit sd2net --synthetic shards/ --stream --steps 100000 --out runs/large
      irstkit train fit sd2net --real mine/ --init runs/large --lr 1e-4 --steps 500 --out runs/tuned
      irstkit train fit dfar --synthetic sequences/ --steps 2000 --out runs/dfar
      irstkit train fit sd2net --resume --out runs/real
    """
    need_torch()
    from ..annotate.console import note
    from ..annotate.errors import IrstkitError
    from .material import compose, compose_stream
    from .models import task_of_model
    from .runs import prepare_folder, read_run
    from .settings import settings_from
    from .stages import fit as run

    set_threads(given.pop("threads"))
    material_keys = ("real", "synthetic", "real_split", "synthetic_split", "real_fraction", "total")
    chosen = {k: given.pop(k) for k in material_keys}
    names = ("device", "overwrite", "resume", "max_steps", "max_minutes", "save_minutes", "cuda_graph")
    control = {k: given.pop(k) for k in names}
    stream = given.pop("stream")
    if control["resume"] and given["init"]:
        raise click.UsageError("--init is where training starts; a run that is resumed has started")
    prepare_folder(out, overwrite=control["overwrite"], resume=control["resume"])
    base = None
    if control["resume"]:
        former = read_run(out)
        base = settings_from(former["settings"], source=out / "run.json")
        if base.model != model:
            raise IrstkitError(f"a run of {base.model!r}, not of {model!r}", path=out)
        stream = stream or former["data"].get("stream", False)
        for source in ("real", "synthetic"):
            about = former["data"].get(source, {})
            chosen[source] = chosen[source] or former["paths"].get(source)
            chosen[f"{source}_split"] = chosen[f"{source}_split"] or about.get("split")
        for key, name in (("real_fraction", "fraction"), ("total", "total")):
            chosen[key] = former["data"][name] if chosen[key] is None else chosen[key]
    settings = settings_of(model, given, base)
    fraction = chosen.pop("real_fraction")
    masks = task_of_model(settings.model) == "mask"
    if stream:
        material = compose_stream(**chosen, fraction=fraction, seed=settings.seed)
    else:
        material = compose(**chosen, fraction=fraction, seed=settings.seed, masks=masks)
    counts = " + ".join(
        f"{material.about[k]['used']} {k}" for k in ("real", "synthetic") if k in material.about
    )
    if settings.real_share is not None:
        counts += f" (real: {settings.real_share:.0%} of the samples)"
    note(
        f"{model} on {counts} images, {len(material.validation)} for validation; "
        f"{settings.loss if masks else 'boxes'}, "
        f"{settings.optimiser}, lr {settings.lr:g}, {settings.schedule}, batch {settings.batch} x {settings.accumulate}, "
        f"crop {settings.crop}"
    )
    report = run(settings, material, out, **control)
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    best = report["best"]
    stage = f"stage {report['stage']['stage']} of {report['stage']['of']}, " if "stage" in report else ""
    click.echo(f"{report['status']}: {stage}step {report['step']} of {report['steps']}, {out}")
    if best and best["metrics"]:
        m = best["metrics"]
        units = [("IoU", "iou", 100, " %"), ("Pd", "pd", 100, " %"), ("Fa", "fa", 1e6, "e-6")]
        if "ap50" in m:
            units[0] = ("AP50", "ap50", 100, " %")
        shown = [
            f"{word} undefined" if m[k] is None else f"{word} {m[k] * s:.2f}{u}" for word, k, s, u in units
        ]
        click.echo(f"best at step {best['step']} on {m['images']} validation images: {', '.join(shown)}")
    click.echo(f"weights {report['weights'][:12]} (last), {report['parameters']} parameters")


class Fractions(click.ParamType):
    """Fractions divided by commas."""

    name = "F,F,...|real"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        one = RealFraction()
        found = tuple(one.convert(part.strip(), param, ctx) for part in value.split(","))
        if len(set(found)) < len(found):
            self.fail(f"{value!r}: a fraction is named twice", param, ctx)
        return found


@click.command()
@click.argument("model")
@click.option("--real", type=PATH, required=True, help="Data set of real images.")
@click.option("--synthetic", type=PATH, required=True, help="Data set of synthetic images.")
@click.option("--real-split", help="SCHEME/PART to train on [default: the default scheme's train].")
@click.option("--synthetic-split", help="The same for the synthetic set [all, where it has no lists].")
@click.option("--total", type=click.IntRange(min=1), required=True, help="Training images in each row.")
@click.option(
    "--fractions",
    type=Fractions(),
    default="0,0.053,0.107,0.162,real",
    show_default=True,
    help="Shares of real images, divided by commas; 'real': all real images, no synthetic.",
)
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Runs a fraction.")
@click.option("--test", type=PATH, help="Data set to score on [default: the real one].")
@click.option("--test-split", help="SCHEME/PART of it [default: the default scheme's test].")
@click.option("--out", type=PATH, required=True, help="Folder of the sweep; called again, it goes on.")
@with_training_options
@click.option("--seed", type=int, help="First seed; the others follow it [0].")
@click.option(
    "--max-minutes",
    type=Number(min=0, min_open=True),
    help="Stop this call after so much training, with everything saved for the next.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Runs at a time; --threads is then each one's [its share of the cores].",
)
@device_option
@threads_option
@json_option
def sweep(model: str, out: Path, as_json: bool, **given: Any) -> None:
    """Train MODEL on real fractions of a mix and score every row on the same test list.

    All rows run the same number of steps and are selected on the same validation images. OUT gets sweep.md
    (mean and deviation over seeds), sweep.csv, sweep.json, sweep.png and the runs. Killed or stopped, the
    same command goes on where it was. Small networks leave cores and GPUs idle: --jobs runs several at a time (on a
    GPU with NVIDIA's MPS: docs/train.md); with the same --threads the numbers are the same.

    \b
    Examples:
      irstkit train sweep sd2net --real NUAA-SIRST/ --synthetic synth/ --total 190 --seeds 3 \\
              --fractions 0,0.1,0.25,real --steps 1000 --out sweeps/mix
      irstkit train sweep sd2net --real NUAA-SIRST/ --synthetic synth/ --total 190 --steps 1000 \\
              --jobs 4 --threads 2 --out sweeps/mix
    """
    need_torch()
    from .sweep import Plan, markdown
    from .sweep import sweep as run

    threads = given.pop("threads")
    set_threads(threads)
    control = {k: given.pop(k) for k in ("device", "max_minutes", "jobs")}
    keys = ("real", "synthetic", "total", "fractions", "seeds", "real_split", "synthetic_split", "test")
    chosen = {k: given.pop(k) for k in (*keys, "test_split")}
    for key in ("real", "synthetic", "test"):
        chosen[key] = None if chosen[key] is None else str(chosen[key])
    settings = settings_of(model, given)
    report = run(settings, Plan(**chosen), out, threads=threads, **control)
    click.echo(json.dumps(report, indent=2) if as_json else f"{markdown(report)}\n{out}")
