"""``irstkit data audit``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH...")
@click.option("--json", "as_json", is_flag=True, help="Everything as one JSON object on standard output.")
@click.option(
    "--html", type=click.Path(path_type=Path), help="Write a self-contained page with pictures and plots."
)
@click.option(
    "--rings", default="3,10,20", show_default=True, help="Ring widths in pixels at which SCR is measured."
)
@click.option(
    "--scenes",
    type=click.Path(path_type=Path),
    help="CSV with the columns file, scene (and dataset): statistics by scene.",
)
@click.option(
    "--strict", is_flag=True, help="Exit with status 1 on any error or any leak from training to test."
)
def audit(
    paths: tuple[Path, ...], as_json: bool, html: Path | None, rings: str, scenes: Path | None, strict: bool
) -> None:
    """Whether data sets can be trusted, alone and together.

    Reads every file of every PATH: images repeated exactly or nearly (twins) inside and across splits and
    sets, signs of wrong image-mask pairs, suspicious targets (large, invisible, at the border), gray masks,
    colour, sizes, and distributions of targets an image, area, SCR, position and brightness rank.

    \b
    Examples:
      irstkit data audit NUDT-SIRST --html audit.html
      irstkit data audit NUAA-SIRST SIRST-V2 my-set --json > audit.json
    """
    from ..annotate.errors import IrstkitError
    from .audit import audit as run
    from .readers import open_dataset
    from .scenes import with_scenes

    numbers = rings.split(",")
    if not all(n.strip().isdigit() and int(n) > 0 for n in numbers):
        raise click.BadParameter(f"expected whole numbers from 1, got {rings!r}", param_hint="--rings")
    datasets = [open_dataset(path) for path in paths]
    if scenes is not None:
        datasets = [with_scenes(d, scenes) for d in datasets]
    result = run(datasets, rings=[int(n) for n in numbers])
    if html is not None:
        from .audit_report import write_report

        write_report(result, html)
    if as_json:
        import json

        click.echo(json.dumps(result.facts, indent=1))
    else:
        from .tables import print_audit

        print_audit(result.facts)
        if html is not None:
            click.echo(f"report: {html}")
    if strict and (told := _wrong(result.facts)):
        raise IrstkitError("; ".join(told))


def _wrong(facts: dict[str, Any]) -> list[str]:
    told = [f"{facts['errors']} errors"] if facts["errors"] else []
    for one in facts["sets"]:
        for row in one["leaks"]:
            hit = sorted({*row["twins"], *row["exact"]})
            if hit:
                told.append(
                    f"{one['name']}: {len(hit)} images of {row['of']} are in {row['in']} ({row['scheme']})"
                )
    return told
