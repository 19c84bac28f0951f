"""``irstkit data``: look into data sets."""

from __future__ import annotations

from typing import Any

import click

from .cli_audit import audit
from .cli_make import export, import_, merge, split, tile
from .curation.cli import curate, diff, pull


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Data sets: look into, import, split, audit, export.

    \b
    PATH is the folder of a data set as downloaded, or of one's own:
      NUAA-SIRST, NUDT-SIRST, IRSTD-1k, SIRST-V2, NUDT-MIRSDT, DAUB, IRDST, COCO, YOLO folders,
      images/ with masks/, images alone, videos (drone-ir), what irstkit writes.
    Splits are called SCHEME/PART, for example 50_50/test.
    """


@cli.command()
@click.argument("path", type=click.Path())
@click.option("--layout", help="Read it as this layout instead of recognising one.", metavar="NAME")
@click.option("--json", "as_json", is_flag=True, help="Everything as one JSON object on standard output.")
@click.option("--strict", is_flag=True, help="Exit with status 1 when anything found is an error.")
@click.option("--all", "show_all", is_flag=True, help="List every finding (default: the first 12).")
def info(path: str, layout: str | None, as_json: bool, strict: bool, show_all: bool) -> None:
    """What a data set holds and what is wrong with it.

    Reads every file: layout and by what it was told, images, targets (8-connected), sizes in pixels, bit
    depths, splits with their hashes, and findings: images that cannot be read, missing masks, masks of
    another size, list entries without a file, gray mask values, colour that is not gray.

    Exit status 1 only when PATH cannot be read as a data set at all; what is wrong inside is listed (with
    --strict an error among it makes the status 1 too). Training and the other commands refuse images with an
    error.

    \b
    Examples:
      irstkit data info NUAA-SIRST
      irstkit data info my-frames --json --strict > info.json
    """
    from .info import describe
    from .readers import open_dataset

    facts = describe(open_dataset(path, layout))
    if as_json:
        import json

        click.echo(json.dumps(facts, indent=1))
    else:
        from .tables import print_info

        print_info(facts, everything=show_all)
    if strict and facts["errors"]:
        _fail(f"{path}: {facts['errors']} errors")


def _fail(message: str) -> Any:
    from ..annotate.errors import IrstkitError

    raise IrstkitError(message)


for command in (import_, merge, split, export, tile, audit, curate, pull, diff):
    cli.add_command(command)
