"""``irstkit synth sequences``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


def size_option(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """``WxH`` as (width, height)."""
    if value is None:
        return None
    parts = value.lower().split("x")
    if len(parts) != 2 or not all(p.isdigit() for p in parts):
        raise click.BadParameter(f"expected WIDTHxHEIGHT, for example 720x480, got {value!r}")
    width, height = (int(p) for p in parts)
    if not (48 <= width <= 8192 and 48 <= height <= 8192):
        raise click.BadParameter(f"sides go from 48 to 8192 pixels, got {value}")
    return width, height


def make_command(splits_option) -> click.Command:
    """The command; ``splits_option`` parses ``--splits``."""

    @click.command("sequences")
    @click.option(
        "--out",
        type=click.Path(path_type=Path),
        required=True,
        help="Folder to write; one that was interrupted is continued. With --preview a .png or .gif.",
    )
    @click.option(
        "--sequences",
        type=click.IntRange(1, 9999),
        help="Number of sequences; with --onto: the first so many of each list.  [default: 10; with --onto all]",
    )
    @click.option(
        "--frames",
        type=click.IntRange(min=1),
        help="Frames in each; with --onto: the first so many of each.  [default: 100; with --onto all]",
    )
    @click.option(
        "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Same seed, same bytes."
    )
    @click.option(
        "--backgrounds",
        multiple=True,
        metavar="PATH[:SCHEME/PART]",
        help="A folder of 8- or 16-bit images, or a data set (its targets are removed, its test images left "
        "out). May be given several times.  [default: procedural]",
    )
    @click.option(
        "--preset",
        default="daub",
        show_default=True,
        help="daub, irdst, mirsdt, one for images, or a YAML file.",
    )
    @click.option(
        "--set", "overrides", multiple=True, metavar="KEY=VALUE",
        help="Change a preset's key: sequence.platform.jitter.value=1.",
    )  # fmt: skip
    @click.option(
        "--size", callback=size_option, metavar="WxH", help="Of the frames.  [default: the preset's]"
    )
    @click.option(
        "--onto",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="LIST",
        help="Make the frames that a published list names, a target in each of its boxes: an SSTNet list "
        "(coco_train_DAUB.txt), a COCO file, or a folder of lists. May be given several times.",
    )
    @click.option(
        "--splits",
        callback=splits_option,
        metavar="PART=SHARE,...",
        help="Parts, by sequence, no background shared between them: train=0.8,test=0.2.  [default: train=1]",
    )
    @click.option(
        "--depth", type=click.Choice(["8", "16"]), help="Bits a pixel.  [default: the backgrounds']"
    )
    @click.option(
        "--workers", type=click.IntRange(min=1), help="Processes; the result does not depend on it."
    )
    @click.option(
        "--dask",
        metavar="ADDRESS|local:N",
        help="A Dask cluster in their place, whose workers see OUT under the same path: see `irstkit synth images`.",
    )
    @click.option(
        "--exclude",
        multiple=True,
        metavar="PATH[:SCHEME/PART]",
        help="Images whose like must not become backgrounds: a test list in use elsewhere.",
    )
    @click.option("--include-test", is_flag=True, help="Use test images as backgrounds (recorded).")
    @click.option(
        "--scenes", type=click.Path(path_type=Path),
        help="CSV with the columns file, scene: the backgrounds' scenes; or `predict`.",
    )  # fmt: skip
    @click.option(
        "--preview",
        type=click.IntRange(1, 64),
        metavar="N",
        help="Write a look at the first N sequences to OUT and nothing else: .png, a strip each; .gif, moving.",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print the totals as JSON.")
    def sequences(
        out: Path, sequences: int | None, frames: int | None, seed: int, backgrounds: tuple[str, ...],
        preset: str, overrides: tuple[str, ...], size: tuple[int, int] | None, onto: tuple[Path, ...],
        splits: dict[str, float] | None, depth: str | None, workers: int | None, dask: str | None,
        exclude: tuple[str, ...], include_test: bool, scenes: Path | None, preview: int | None, as_json: bool,
    ) -> None:  # fmt: skip
        """Make sequences: targets on tracks, a camera that moves, SCR by frame exact on what is written.

        Frames are images/0001/000000.png, their masks beside them; annotations.json has `sequence`, `frame`
        and `track_id`, manifest.jsonl a line a sequence. Tracks: constant, manoeuvre, hover, crossing, leaving,
        entering. A target that is outside has no annotation; frames without targets are kept.

        \b
        Examples:
          irstkit synth sequences --out seq/ --sequences 20 --frames 100
          irstkit synth sequences --out low/ --preset mirsdt --backgrounds my_frames/ --splits train=0.8,test=0.2
          irstkit synth sequences --out daub/ --onto coco_train_DAUB.txt --onto coco_val_DAUB.txt --frames 200
          irstkit synth sequences --out look.gif --preview 4 --preset irdst
        """
        import json
        import tempfile

        from .backgrounds import refuse_inside
        from .sequences.generate import generate, prepare_sequences
        from .sequences.preview import animation, strips

        common: dict[str, Any] = {
            "size": size, "splits": splits, "overrides": overrides, "exclude": exclude,
            "include_test": include_test, "scenes": scenes, "depth": int(depth) if depth else None, "onto": onto,
        }  # fmt: skip
        if dask is not None and not dask.strip():
            raise click.BadParameter("an address was expected, HOST:PORT or local:N", param_hint="--dask")
        if dask and preview:
            raise click.UsageError("--preview makes its few images here: drop --dask.")
        if dask and workers:
            raise click.UsageError(
                "--workers and --dask exclude each other: the cluster has its own workers."
            )
        if preview:
            refuse_inside(out, backgrounds)
            if out.suffix.lower() not in (".png", ".gif"):
                raise click.BadParameter("with --preview this is a .png or .gif file", param_hint="--out")
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "backgrounds.raw"
                recipe = prepare_sequences(path, sequences, frames, seed, backgrounds, preset, **common)
                shown = (animation if out.suffix.lower() == ".gif" else strips)(out, recipe, preview)
            click.echo(f"{out}: {shown} sequences")
            return
        totals = generate(
            out, sequences, frames, seed, backgrounds, preset, workers=workers, dask=dask, **common
        )
        if as_json:
            click.echo(json.dumps(totals, indent=2))
            return
        click.echo(
            f"{out}: {totals['sequences']} sequences, {totals['frames']} frames, {totals['tracks']} tracks, "
            f"{totals['targets']} targets ({totals['empty_frames']} frames without)"
        )
        for title, key in (
            ("SCR", "status"), ("trajectories", "trajectories"), ("kinds", "kinds"), ("scenes", "scenes"),
            ("splits", "splits"), ("quality gate", "gate"),
        ):  # fmt: skip
            if totals[key]:
                click.echo(f"  {title}: " + ", ".join(f"{name} {n}" for name, n in totals[key].items()))

    return sequences
