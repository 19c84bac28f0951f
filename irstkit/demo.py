"""``irstkit demo``: the whole chain once, by the commands a user would type, and a report of it."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from .datasets.records import Dataset


@dataclass
class Chain:
    """What has been run: command lines, seconds each, and what the evaluations printed."""

    commands: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)

    def run(self, *args: object, capture: bool = False) -> str:
        """Run ``irstkit ARGS...`` in this process, as typed; with ``capture`` return its standard output."""
        from .cli import cli

        words = [str(a) for a in args]
        self.commands.append(shlex.join(["irstkit", *words]))
        click.secho(f"\n$ {self.commands[-1]}", bold=True)
        start = time.perf_counter()
        with contextlib.ExitStack() as stack:
            output = io.StringIO()
            if capture:
                stack.enter_context(contextlib.redirect_stdout(output))
            cli.main(args=words, prog_name="irstkit", standalone_mode=False)
        self.seconds.append(time.perf_counter() - start)
        return output.getvalue()


@click.command("demo", context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="A real data set with masks and a test list (backgrounds, mixing, testing), or a folder of "
    "infrared images (backgrounds only). Without it: procedural backgrounds.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("demo"),
    show_default=True,
    help="Folder for everything.",
)
@click.option(
    "--count",
    type=click.IntRange(min=10),
    help="Synthetic images [default: 240, or as many as real training images].",
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    default=400,
    show_default=True,
    help="Optimiser steps of each training run.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of everything.")
@click.option("--overwrite", is_flag=True, help="Replace what an earlier demo left in --out.")
def cli(data: Path | None, out: Path, count: int | None, steps: int, seed: int, overwrite: bool) -> None:
    """Run the whole chain once: synthesise, annotate, train, evaluate, predict, report.

    Leaves OUT/report.html, one file with samples, distributions, learning curves, predictions against
    truth and the numbers. With a real data set two runs of the same number of steps are compared: real
    images only, and the same images mixed half and half with synthetic ones made on their backgrounds.
    The demo trains briefly: its numbers show that the chain works, not what the network can reach.
    """
    from .annotate.console import note
    from .report import write_report

    start = time.perf_counter()
    dataset = open_real(data) if data else None
    prepare(out, overwrite)
    chain = Chain()
    labelled = dataset is not None and dataset.layout != "images"
    if labelled:
        runs = real_chain(chain, data, dataset, out, count, steps, seed)  # type: ignore[arg-type]
    else:
        runs = synthetic_chain(chain, data, out, count or 240, steps, seed)
    report = out / "report.html"
    note("\nWriting the report ...")
    write_report(
        report,
        synthetic=out / "synthetic",
        real=data if labelled else None,
        runs=runs,
        results=chain.results,
        commands=list(zip(chain.commands, chain.seconds, strict=True)),
        steps=steps,
    )
    for name, result in chain.results.items():
        click.echo(
            f"{name}: IoU {100 * result['iou']:.1f} %, Pd {100 * result['pd']:.1f} %, "
            f"Fa {1e6 * result['fa']:.1f} x 1e-6 on {result['split']} ({result['images']} images)"
        )
    click.echo(f"\nDone in {time.perf_counter() - start:.0f} s. Open {report}")


def open_real(data: Path) -> Dataset:
    """The data set at ``data``; one that has masks must have a test list."""
    from .annotate.errors import IrstkitError
    from .datasets.readers import open_dataset

    dataset = open_dataset(data)
    if dataset.layout != "images":
        parts = dataset.schemes().get(dataset.default_scheme or "", {})
        missing = [p for p in ("train", "test") if p not in parts]
        if missing:
            raise IrstkitError(
                f"no {' and no '.join(missing)} list in the scheme {dataset.default_scheme!r}",
                path=data,
                hint="the demo tests on real images it never saw; write SCHEME/train.txt and SCHEME/test.txt",
            )
    return dataset


def prepare(out: Path, overwrite: bool) -> None:
    """An empty ``out``; only what a demo made is ever removed."""
    from .annotate.errors import IrstkitError

    known = {"synthetic", "runs", "predictions", "boxes.json", "results.json", "report.html"}
    if out.exists() and any(out.iterdir()):
        strangers = sorted(p.name for p in out.iterdir() if p.name not in known)
        if strangers or not overwrite:
            raise IrstkitError(
                f"the folder is not empty ({', '.join(strangers[:3]) or 'an earlier demo'})",
                path=out,
                hint="choose another --out" if strangers else "give --overwrite to replace it",
            )
        for path in out.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    out.mkdir(parents=True, exist_ok=True)


TRAINING = ("--batch", 4, "--crop", 128)


def synthetic_chain(
    chain: Chain, backgrounds: Path | None, out: Path, count: int, steps: int, seed: int
) -> dict[str, Path]:
    """Synthesise, train and test on synthetic data alone; returns {run: its folder}."""
    synthetic, run = out / "synthetic", out / "runs" / "synthetic"
    where = ("--backgrounds", backgrounds) if backgrounds else ()
    chain.run(
        "synth", "images", "--out", synthetic, "--count", count, "--seed", seed, *where, "--preset", "nudt",
        "--splits", "train=0.7,val=0.1,test=0.2",
    )  # fmt: skip
    describe(chain, synthetic, out)
    chain.run(
        "train", "fit", "sd2net", "--synthetic", synthetic, "--synthetic-split", "synth/train",
        "--steps", steps, *TRAINING, "--seed", seed, "--out", run,
    )  # fmt: skip
    score(chain, "synthetic", run, synthetic, "synth/test", out)
    return {"synthetic": run}


def real_chain(
    chain: Chain, data: Path, dataset: Dataset, out: Path, count: int | None, steps: int, seed: int
) -> dict[str, Path]:
    """Compare a real-only and a mixed run of the same length on the real test list."""
    from .datasets.splits import train_val

    synthetic = out / "synthetic"
    train_split, test_split = (f"{dataset.default_scheme}/{part}" for part in ("train", "test"))
    real_count = len(train_val(dataset, train_split)[0])
    chain.run("data", "info", data)
    chain.run(
        "synth", "images", "--out", synthetic, "--count", count or real_count, "--seed", seed,
        "--backgrounds", data, "--preset", "real",
    )  # fmt: skip
    describe(chain, synthetic, out)
    runs = {}
    for name, mix in {
        "real only": ("--real-fraction", 1, "--total", real_count),
        "real + synthetic": (
            "--synthetic",
            synthetic,
            "--real-fraction",
            0.5,
            "--total",
            2 * min(real_count, count or real_count),
        ),
    }.items():
        run = out / "runs" / name.replace(" ", "").replace("+", "_")
        chain.run(
            "train", "fit", "sd2net", "--real", data, *mix,
            "--steps", steps, *TRAINING, "--seed", seed, "--out", run,
        )  # fmt: skip
        runs[name] = run
        score(chain, name, run, data, test_split, out)
    return runs


def describe(chain: Chain, synthetic: Path, out: Path) -> None:
    """What was made, and its boxes derived anew from the masks (they must agree with what synth wrote)."""
    chain.run("data", "info", synthetic)
    chain.run("annotate", "boxes", synthetic / "masks", "--to", "coco", "--out", out / "boxes.json")


def score(chain: Chain, name: str, run: Path, data: Path, split: str, out: Path) -> None:
    """Evaluate the best checkpoint on a test list, and keep its predictions for the report."""
    checkpoint = run / "best.pt"
    text = chain.run(
        "train", "evaluate", checkpoint, "--data", data, "--split", split, "--json", capture=True
    )
    chain.results[name] = json.loads(text)
    from .annotate.files import write_json

    write_json(out / "results.json", chain.results, indent=2)
    chain.run(
        "train", "predict", checkpoint, data, "--split", split, "--out", out / "predictions" / run.name,
    )  # fmt: skip
