"""``irstkit synth report`` and ``irstkit synth tune``."""

from __future__ import annotations

from pathlib import Path

import click


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
    type=click.IntRange(min=100),
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
      irstkit synth report synth/ --reference my_frames/ --out report.html --no-test
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
    for line in (*found.facts["verdict"]["summary"], *(f"  {c.text}" for c in found.changes)):
        click.echo(line)
    click.echo(str(out))
