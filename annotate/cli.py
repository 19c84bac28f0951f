"""``irstkit annotate``: the command line of this room."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def cli() -> None:
    """Masks, boxes and label formats: convert, validate, repair.

    \b
    Examples:
      irstkit annotate boxes masks/ --to coco --out annotations.json
      irstkit annotate boxes masks/ --to yolo --out labels/
    """


@cli.command()
@click.argument("masks", metavar="MASKS_DIR", type=click.Path(path_type=Path))
@click.option(
    "--to", "kind", type=click.Choice(["coco", "yolo"]), required=True, help="Label format to write."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="coco: a file; yolo: a folder, which gets one STEM.txt a mask (empty for a mask without target).",
)
@click.option(
    "--convention",
    type=click.Choice(["components", "eflnet"]),
    default="components",
    show_default=True,
    help="components: one box a connected component. eflnet: one box a contour, those of holes too, in the "
    "order of EFLNet's published files.",
)
@click.option(
    "--connectivity",
    type=click.Choice(["4", "8"]),
    default="8",
    show_default=True,
    help="8: pixels that touch at a corner are one target.",
)
@click.option(
    "--threshold",
    type=click.IntRange(0, 254),
    default=127,
    show_default=True,
    help="A pixel is target where its value (0-255) is larger. Masks of 0 and 1 are read as 0 and 255.",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="coco: folder of the images; their names are written as file_name and their sizes compared.",
)
@click.option("--overwrite", is_flag=True, help="Replace an output that exists.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def boxes(
    masks: Path,
    kind: str,
    out: Path,
    convention: str,
    connectivity: str,
    threshold: int,
    images: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Boxes of every mask in MASKS_DIR.

    A box is tight and half-open: a one-pixel target is 1 wide. YOLO lines are class 0 and the box's centre
    and size as fractions of the image, 6 decimals. A COCO annotation holds the target's pixels (RLE), its
    area in pixels and its box. Under eflnet, the box of a hole is an annotation of its own, marked
    attributes.contour = "hole". Nothing is written unless every mask can be read.

    \b
    Examples:
      irstkit annotate boxes NUDT-SIRST/masks --to yolo --convention eflnet --out labels/
      irstkit annotate boxes NUAA-SIRST/masks --to coco --out annotations.json
    """
    from .export import masks_to_coco, masks_to_yolo
    from .scan import MaskRule

    rule = MaskRule(convention, int(connectivity), threshold)
    if kind == "yolo":
        if images is not None:
            raise click.UsageError("--images goes with --to coco (YOLO files are named after the masks)")
        summary = masks_to_yolo(masks, out, rule, overwrite=overwrite)
    else:
        summary = masks_to_coco(masks, out, rule, images=images, overwrite=overwrite)
    if as_json:
        click.echo(json.dumps(summary.as_dict(), indent=2))
    else:
        click.echo("\n".join(summary.lines()))
