"""``irstkit synth report`` and ``irstkit synth tune``."""

from __future__ import annotations

from pathlib import Path

import click


def yaml_file(out: Path) -> None:
    """Refuse a preset's file of another suffix: `out.png` would be taken for a picture ever after."""
    if out.suffix.lower() not in (".yaml", ".yml"):
        raise click.BadParameter(f"a preset is a .yaml file, got {out.name!r}", param_hint="--out")


@click.command("report")
@click.argument("made", metavar="DIR[:SCHEME/PART]")
@click.option(
    "--reference",
    required=True,
    metavar="DATASET[:SCHEME/PART]",
    help="What it should look like: real data with masks.",
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="HTML page to write.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Same seed, same numbers."
)
@click.option(
    "--images",
    type=click.IntRange(min=20),
    default=1000,
    show_default=True,
    help="Measure at most so many of each set.",
)
@click.option(
    "--patches",
    type=click.IntRange(min=20),
    default=600,
    show_default=True,
    help="At most so many of each set in the two-sample test; its time grows with them.",
)
@click.option(
    "--resamples",
    type=click.IntRange(min=20),
    default=200,
    show_default=True,
    help="Of bootstrap and permutations.",
)
@click.option("--no-test", is_flag=True, help="Leave the two-sample test out: it takes most of the time.")
@click.option("--overwrite", is_flag=True, help="Replace the page.")
@click.option("--json", "as_json", is_flag=True, help="Print every number as JSON.")
def report(
    made: str, reference: str, out: Path | None, seed: int, images: int, patches: int, resamples: int, no_test: bool,
    overwrite: bool, as_json: bool,
) -> None:  # fmt: skip
    """How far a data set is from another, and which key of the preset to change.

    Distributions side by side with Kolmogorov-Smirnov and Wasserstein distances and bootstrap intervals; sheets
    of patches; and a two-sample test: a small network that tries to tell the sets apart, on 32x32 patches around
    targets and on patches of background alone (needs torch: the extra [train]). Both sides may be any data
    set that irstkit reads. Nothing of either set is written but into the page.

    \b
    Examples:
      irstkit synth report synth/ --reference NUAA-SIRST:50_50/train --out report.html
      irstkit synth report NUDT-SIRST --reference NUAA-SIRST --json > distances.json
      irstkit synth report synth/ --reference my_data/ --out report.html --no-test
    """
    import json

    from ..annotate.files import refuse_existing
    from .realism import realism

    if out is None and not as_json:
        raise click.UsageError("give --out PAGE.html, --json, or both.")
    if out is not None:
        if out.suffix.lower() not in (".html", ".htm"):
            raise click.BadParameter(f"the page is an .html file, got {out.name!r}", param_hint="--out")
        refuse_existing(out, overwrite=overwrite, folder=False)
    found = realism(
        made, reference, seed=seed, images=images, patches=patches, resamples=resamples, test=not no_test
    )
    if out is not None:
        from .realism_page import write_page

        write_page(found, out)
    if as_json:
        click.echo(json.dumps(found.facts, indent=2))
        return
    told = found.facts["verdict"]
    for line in (
        *told["summary"],
        *(f"  {c.text}" for c in found.changes),
        *(f"  {r}" for r in told["remarks"]),
    ):
        click.echo(line)
    click.echo(str(out))


@click.command("tune")
@click.argument("preset")
@click.option(
    "--reference",
    required=True,
    metavar="DATASET[:SCHEME/PART]",
    help="What to move towards: real data with masks.",
)
@click.option(
    "--backgrounds",
    multiple=True,
    metavar="PATH[:SCHEME/PART]",
    help="As for `images`.  [default: procedural]",
)
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="YAML file to write."
)
@click.option(
    "--budget",
    type=click.IntRange(min=3),
    default=120,
    show_default=True,
    help="Trials, about a second each; at least two more than keys.",
)
@click.option(
    "--images", type=click.IntRange(8, 2000), default=64, show_default=True, help="Images made in a trial."
)
@click.option(
    "--key",
    "keys",
    multiple=True,
    help="A key to move, for example optics.glow (a wrong one lists them all); may be repeated.  [default: what decides "
    "something in the preset]",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Same seed, same preset."
)
@click.option(
    "--size", type=click.IntRange(48, 8192), default=256, show_default=True, help="Side of the images."
)
@click.option(
    "--exclude", multiple=True, metavar="PATH[:SCHEME/PART]", help="As for `images`: a test list in use."
)
@click.option(
    "--scenes", type=click.Path(path_type=Path), help="As for `images`: CSV of scenes, or `predict`."
)
@click.option("--overwrite", is_flag=True, help="Replace the file.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def tune(
    preset: str, reference: str, backgrounds: tuple[str, ...], out: Path, budget: int, images: int, keys: tuple[str, ...],
    seed: int, size: int, exclude: tuple[str, ...], scenes: Path | None, overwrite: bool, as_json: bool,
) -> None:  # fmt: skip
    """Move a preset's keys until small sets made with it have a reference's distributions.

    A simplex search (Nelder-Mead) with the same random numbers in every trial; the objective is the weighted mean
    of the Wasserstein distances that `irstkit synth report` tells. Ctrl-C writes the best so far; the same command
    begun again goes on (OUT.state keeps the trials until the end). Before and after are measured on images that
    the search has not seen; where after is no better, the preset is written as it was.

    \b
    Examples:
      irstkit synth tune real --reference my_data/ --backgrounds my_frames/ --out mine.yaml
      irstkit synth tune nudt --reference NUAA-SIRST:50_50/train --backgrounds NUDT-SIRST:50_50/train --out t.yaml
      irstkit synth tune mine.yaml --reference my_data/ --key optics.glow --key point.energy --out mine2.yaml
    """
    import json

    from ..annotate.files import refuse_existing, write_atomic
    from .fit import to_yaml
    from .tune import tune as search

    yaml_file(out)
    state = out.with_name(out.name + ".state")
    if not state.is_file():
        refuse_existing(out, overwrite=overwrite, folder=False)
    found = search(
        preset, reference, backgrounds, state=state, budget=budget, images=images, keys=keys, seed=seed, size=size,
        name=out.stem, exclude=exclude, scenes=scenes,
    )  # fmt: skip
    write_atomic(out, to_yaml(found.preset))
    if as_json:
        click.echo(json.dumps(found.as_dict(), indent=2))
        return
    width = max(len(row["title"]) for row in found.rows)
    click.echo(f"{'':{width}}  {'reference':>10} {'before':>10} {'after':>10}   distance before  after")
    for row in found.rows:
        click.echo(
            f"{row['title']:{width}}  {row['reference_median']:10.4g} {row['before_median']:10.4g} "
            f"{row['after_median']:10.4g}   {row['before_distance']:15.3f} {row['after_distance']:6.3f}"
        )
    for key in found.keys:
        click.echo(f"{key['key']}: {key['before']}  ->  {key['after']}")
    click.echo(
        f"objective {found.before:.4f} -> {found.after:.4f} on other images, {found.trials} trials "
        f"(half of the reference against the other half: {found.floor:.4f})"
    )
    if found.kept:
        click.echo(
            "no better on images that the search has not seen, so the preset is written as it was: "
            "try more --images, a larger --budget or fewer keys"
        )
    click.echo(str(out))
