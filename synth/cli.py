"""``irstkit synth``: synthetic images from backgrounds."""

from __future__ import annotations

from pathlib import Path

import click

from .cli_realism import report, tune, yaml_file
from .cli_sequences import make_command


@click.group("synth", context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Synthetic images from your own backgrounds, every target documented.

    \b
    Examples:
      irstkit synth images --out synth/ --count 500 --backgrounds path/to/NUAA-SIRST
      irstkit synth images --out synth/ --count 200 --backgrounds procedural --splits train=0.8,val=0.1,test=0.1
      irstkit synth sequences --out sequences/ --sequences 20 --frames 100 --preset daub
      irstkit synth report synth/ --reference NUAA-SIRST:50_50/train --out report.html
      irstkit synth tune real --reference my_data/ --backgrounds my_frames/ --out mine.yaml
      irstkit synth presets
    """


def _splits(_: click.Context, __: click.Parameter, value: str | None) -> dict[str, float] | None:
    if value is None:
        return None
    out: dict[str, float] = {}
    for item in value.split(","):
        name, equals, share = item.strip().partition("=")
        try:
            number = float(share)
        except ValueError:
            number = 0.0
        if not equals or not name or name in out or not 0 < number < 1e6:
            raise click.BadParameter(f"expected NAME=SHARE,... with positive shares, got {value!r}")
        out[name] = number
    return out


@cli.command("images")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder to write; one that was interrupted is continued."
)
@click.option("--count", type=click.IntRange(min=1), default=100, show_default=True, help="Number of images.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Same seed, same bytes."
)
@click.option(
    "--backgrounds",
    multiple=True,
    metavar="PATH[:SCHEME/PART]",
    help="A folder of 8- or 16-bit images, or a data set (its targets are removed, its test images left out). "
    "May be given several times.  [default: procedural]",
)
@click.option(
    "--preset",
    default="nudt",
    show_default=True,
    help="Name (see `irstkit synth presets`) or a YAML file: 'nudt' is NUDT-SIRST's style, 'real' taught detectors of real "
    "targets more (docs/synth.md).",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a preset's key: contrast.ring=5, 'blur={uniform: [0.4, 1]}' (`irstkit synth presets NAME` shows them).",
)
@click.option(
    "--splits",
    callback=_splits,
    metavar="PART=SHARE,...",
    help="Parts, no background shared between them: train=0.8,val=0.1,test=0.1.  [default: train=1]",
)
@click.option("--size", type=click.IntRange(48, 8192), default=256, show_default=True, help="Side in pixels.")
@click.option(
    "--depth",
    type=click.Choice(["8", "16"]),
    help="Bits a pixel.  [default: 16 when all backgrounds are, else 8]",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Processes; the result does not depend on it.  [default: all]",
)
@click.option(
    "--dask",
    metavar="ADDRESS|local:N",
    help="Make the images on a Dask cluster instead (HOST:PORT of its scheduler, or N workers of this machine); "
    "the result does not depend on it. Needs the extra [distributed].",
)
@click.option(
    "--exclude",
    multiple=True,
    metavar="PATH[:SCHEME/PART]",
    help="Images whose like must not become backgrounds: a test list in use elsewhere.",
)
@click.option("--include-test", is_flag=True, help="Use test images as backgrounds all the same (recorded).")
@click.option(
    "--scenes",
    type=click.Path(path_type=Path),
    help="CSV with the columns file, scene (and dataset): the backgrounds' scenes; or `predict`: what the shipped "
    "network says.  [default: what the data set says, else the preset's table `all`]",
)
@click.option(
    "--preview",
    type=click.IntRange(1, 400),
    metavar="N",
    help="Write a contact sheet of the first N images to OUT (a .png) and nothing else.",
)
@click.option(
    "--refused", is_flag=True, help="With --preview: show what the quality gate turned away, and why."
)
@click.option("--json", "as_json", is_flag=True, help="Print the totals as JSON.")
def images(
    out: Path | None, count: int, seed: int, backgrounds: tuple[str, ...], preset: str, overrides: tuple[str, ...],
    splits: dict[str, float] | None, size: int, depth: str | None, workers: int | None, dask: str | None,
    exclude: tuple[str, ...], include_test: bool, scenes: Path | None, preview: int | None, refused: bool, as_json: bool,
) -> None:  # fmt: skip
    """Make a data set of single images: images/, masks/, annotations.json (COCO), manifest, split lists.

    Each target gets the requested SCR = |mean(T) - mean(B)| / std(B) on the image as written, B being the
    ring of 10 pixels around its box; an infeasible draw moves the target. What cannot be reached is marked in
    scr_status (quantised, saturated).

    \b
    Examples:
      irstkit synth images --out synth/ --count 500 --seed 1 --backgrounds NUAA-SIRST --preset real
      irstkit synth images --out synth/ --count 500 --backgrounds my_frames/ --exclude NUAA-SIRST:50_50/test
      irstkit synth images --out look.png --preview 16 --backgrounds my_frames/ --set contrast.dark=0.5
      irstkit synth images --out synth/ --count 300 --set copies.count=3 --set 'negatives.count={values: [0, 1, 2]}'
      irstkit synth images --out synth/ --count 100000 --dask tcp://10.0.0.5:8786
    """
    import json
    import tempfile

    from . import generate as run
    from .backgrounds import refuse_inside
    from .preview import preview as show

    if out is None:
        raise click.UsageError("Missing option '--out'.")
    if dask is not None and not dask.strip():
        raise click.BadParameter("an address was expected, HOST:PORT or local:N", param_hint="--dask")
    if dask and preview:
        raise click.UsageError("--preview makes its few images here: drop --dask.")
    if dask and workers:
        raise click.UsageError("--workers and --dask exclude each other: the cluster has its own workers.")
    if refused and not preview:
        raise click.UsageError("--refused goes with --preview.")
    if preview:
        refuse_inside(out, backgrounds)
        if out.suffix.lower() != ".png":
            raise click.BadParameter(
                "with --preview this is the contact sheet, a .png file", param_hint="--out"
            )
        with tempfile.TemporaryDirectory() as folder:
            recipe = run.prepare(
                Path(folder) / "backgrounds.raw", seed, backgrounds, preset, size=size, splits=splits,
                overrides=overrides, exclude=exclude, include_test=include_test, scenes=scenes,
                depth=int(depth) if depth else None,
            )  # fmt: skip
            shown = show(out, recipe, preview, refused=refused)
        click.echo(f"{out}: {shown} images")
        return
    totals = run.generate(
        out, count, seed, backgrounds, preset, size=size, splits=splits, workers=workers, dask=dask,
        overrides=overrides, exclude=exclude, include_test=include_test, scenes=scenes, depth=int(depth) if depth else None,
    )  # fmt: skip
    if as_json:
        click.echo(json.dumps(totals, indent=2))
        return
    copies = f" ({totals['copies']} of them copies)" if "copies" in totals else ""
    click.echo(f"{out}: {totals['images']} images{copies}, {totals['targets']} targets")
    for title, key in (
        ("SCR", "status"), ("kinds", "kinds"), ("scenes", "scenes"), ("splits", "splits"), ("negatives", "negatives"), ("places rejected", "rejected"),
        ("quality gate", "gate"),
    ):  # fmt: skip
        if totals.get(key):
            click.echo(f"  {title}: " + ", ".join(f"{name} {n}" for name, n in totals[key].items()))


@cli.command("presets")
@click.argument("name", required=False)
def presets(name: str | None) -> None:
    """List the presets, or show one in full (YAML, to start one's own from).

    \b
    Examples:
      irstkit synth presets
      irstkit synth presets nudt > mine.yaml
    """
    from .preset import FOLDER, load_preset, preset_names
    from .sequences.preset import SEQUENCE_FOLDER, load_sequence_preset, sequence_preset_names

    if name is None:
        for known in preset_names():
            click.echo(f"{known:12} {load_preset(known).description}")
        for known in sequence_preset_names():
            click.echo(f"{known:12} (sequences) {load_sequence_preset(known).description}")
        return
    load_sequence_preset(name)
    path = (SEQUENCE_FOLDER if name in sequence_preset_names() else FOLDER) / f"{name}.yaml"
    click.echo((path if path.is_file() else Path(name)).read_text("utf-8"), nl=False)


@cli.command("fit-preset")
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="YAML file to write."
)
@click.option("--split", help="SCHEME/PART to measure, for example 50_50/train.  [default: all images]")
@click.option("--name", help="The preset's name.  [default: the file's]")
@click.option(
    "--ring", type=click.IntRange(1, 100), default=10, show_default=True, help="Ring of the SCR, in pixels."
)
@click.option(
    "--scenes", type=click.Path(path_type=Path), help="CSV with the columns file, scene (and dataset)."
)
@click.option("--overwrite", is_flag=True, help="Replace the file.")
def fit_preset(
    dataset: Path,
    out: Path,
    split: str | None,
    name: str | None,
    ring: int,
    scenes: Path | None,
    overwrite: bool,
) -> None:
    """Measure a data set with masks and write a preset that has its distributions.

    Measured by scene where scenes are known: targets an image, area, |SCR|, relative height; and over all:
    contrast and the share of dark targets. Kinds, shapes and blur cannot be read off a mask: they are
    written with their defaults, to be edited.

    \b
    Examples:
      irstkit synth fit-preset NUAA-SIRST --split 50_50/train --out mine.yaml
      irstkit synth images --out synth/ --preset mine.yaml --backgrounds NUAA-SIRST
    """
    from ..annotate.files import refuse_existing, write_atomic
    from ..datasets.readers import open_dataset
    from .backgrounds import label_scenes, read_scenes
    from .fit import fit, measure, to_yaml
    from .preset import make_preset

    yaml_file(out)
    refuse_existing(out, overwrite=overwrite, folder=False)
    data = open_dataset(dataset)
    records = data.part(split or "all")
    labels = label_scenes(data, records, read_scenes(scenes)) if scenes else None
    rows = measure(records, ring=ring, scenes=labels)
    where = f"{data.root.resolve().name}" + (f" ({split})" if split else "")
    text = f"Measured on {where}: {len(records)} images, {len(rows)} targets, SCR at ring {ring}."
    values = fit(rows, name or out.stem, text, ring=ring)
    make_preset(values, str(out))
    write_atomic(out, to_yaml(values))
    click.echo(f"{out}: {text}")


@cli.group("scenes")
def scenes() -> None:
    """The scene network: city, cloud, field, sea or highlight.

    \b
    Examples:
      irstkit synth scenes predict my_frames/ --out scenes.csv
      irstkit synth scenes train NUAA-SIRST my_frames/ --labels labels.csv --out scenes.onnx
    """


@scenes.command("predict")
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--weights", type=click.Path(path_type=Path), help="ONNX file.  [default: the shipped network]")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="CSV: dataset, file, scene, confidence."
)
@click.option("--labels", type=click.Path(path_type=Path), help="CSV of true scenes to compare with.")
@click.option("--certain", is_flag=True, help="Compare only with labels whose column confidence says high.")
@click.option("--overwrite", is_flag=True, help="Replace --out.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def scenes_predict(
    data: tuple[Path, ...], weights: Path | None, out: Path | None, labels: Path | None, certain: bool,
    overwrite: bool, as_json: bool,
) -> None:  # fmt: skip
    """Say which scene each image of folders or data sets shows; runs without torch.

    The CSV is what `irstkit synth images --scenes` reads.

    \b
    Examples:
      irstkit synth scenes predict my_frames/ --out scenes.csv
      irstkit synth scenes predict NUDT-SIRST --labels scenes_all.csv --certain
    """
    import csv
    import io
    import json

    from ..annotate.console import track
    from ..annotate.files import refuse_existing, write_atomic
    from ..datasets.readers import open_dataset
    from .backgrounds import label_scenes, read_scenes
    from .learn import WEIGHTS, SceneNet, confusion, scores
    from .preset import SCENES

    if out is not None:
        refuse_existing(out, overwrite=overwrite, folder=False)
    table = read_scenes(labels, certain=certain) if labels else {}
    net = SceneNet(weights or WEIGHTS)
    rows, truth, told = [], [], []
    for path in data:
        dataset = open_dataset(path)
        known = label_scenes(dataset, list(dataset), table) if table else {}
        for record in track(list(dataset), f"Scenes of {path.name}"):
            scene, sure = net.predict(record.read_image())
            rows.append((dataset.root.resolve().name, record.image.name, scene, round(sure, 4)))
            if record.id in known:
                truth.append(known[record.id])
                told.append(scene)
    if out is not None:
        stream = io.StringIO()
        csv.writer(stream, lineterminator="\n").writerows([("dataset", "file", "scene", "confidence"), *rows])
        write_atomic(out, stream.getvalue())
    counts = {s: sum(r[2] == s for r in rows) for s in SCENES}
    result: dict = {"images": len(rows), "scenes": counts}
    if labels:
        result["against_labels"] = scores(confusion(truth, told))
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return
    click.echo(f"{len(rows)} images: " + ", ".join(f"{s} {n}" for s, n in counts.items()))
    if labels:
        found = result["against_labels"]
        click.echo(
            f"against {found['images']} labels: accuracy {100 * found['accuracy']:.1f} %, "
            f"balanced {100 * found['balanced_accuracy']:.1f} %"
        )
        click.echo("true \\ told  " + "".join(f"{s:>10}" for s in SCENES))
        for scene, line in found["confusion"].items():
            click.echo(f"{scene:11}  " + "".join(f"{n:>10}" for n in line.values()))


@scenes.command("train")
@click.argument("data", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    help="CSV with the columns file, scene (and dataset, confidence).",
)
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="ONNX file to write."
)
@click.option("--steps", type=click.IntRange(min=1), default=500, show_default=True, help="Optimiser steps.")
@click.option("--batch", type=click.IntRange(min=2), default=32, show_default=True, help="Images a step.")
@click.option(
    "--procedural",
    type=click.IntRange(min=0),
    default=60,
    show_default=True,
    help="Procedural images a scene.",
)
@click.option(
    "--share",
    type=click.FloatRange(0, 1),
    default=0.45,
    show_default=True,
    help="Share of procedural images in a batch.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--overwrite", is_flag=True, help="Replace the file.")
def scenes_train(
    data: tuple[Path, ...], labels: Path | None, out: Path, steps: int, batch: int, procedural: int, share: float,
    seed: int, overwrite: bool,
) -> None:  # fmt: skip
    """Train the scene network on labelled images and procedural scenes; needs the extra [train].

    Classes are drawn evenly. Images whose column confidence says low count 0.4. Never train on what you
    will measure on: name only the folders meant for training.

    \b
    Examples:
      irstkit synth scenes train NUAA-SIRST my_frames/ --labels labels.csv --out scenes.onnx
      irstkit synth scenes train --out procedural_only.onnx
    """
    from ..annotate.errors import IrstkitError
    from ..annotate.files import refuse_existing
    from ..datasets.readers import open_dataset
    from . import learn
    from .backgrounds import label_scenes, read_scenes

    refuse_existing(out, overwrite=overwrite, folder=False)
    if data and labels is None:
        raise click.UsageError("Missing option '--labels': real images are trained on with their scenes.")
    images, names, chances = [], [], []
    for path in data:
        dataset = open_dataset(path)
        known = label_scenes(dataset, list(dataset), read_scenes(labels))  # type: ignore[arg-type]
        certain = label_scenes(dataset, list(dataset), read_scenes(labels, certain=True))  # type: ignore[arg-type]
        if not known:
            raise IrstkitError(f"no label in {labels} is of an image here", path=path)
        for record in dataset:
            if record.id in known:
                images.append(learn.shrink(record.read_image()))
                names.append(known[record.id])
                chances.append(1.0 if record.id in certain else 0.4)
    number = learn.train(
        images,
        names,
        chances,
        out,
        steps=steps,
        batch=batch,
        synthetic=procedural,
        synthetic_share=share,
        seed=seed,
    )
    click.echo(f"{out}: {number} parameters, {out.stat().st_size} bytes, {len(images)} real images")


cli.add_command(make_command(_splits))
cli.add_command(report)
cli.add_command(tune)
