"""``irstkit annotate``: the command line of this room."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

FORMAT_HELP = """\b
Formats:
  coco       COCO file: RLE or polygons, boxes, ids, any further keys
  masks      folder of binary masks, 0 and 255
  instances  folder of instance masks: each value (or palette index) a target
  yolo       folder of STEM.txt: class cx cy w h, fractions of the image
  voc        folder of Pascal VOC files: 1-based corners, the last pixel included
  sirst-v2   folder of SIRST-V2's VOC files: half-open box plus 1 on all four
  sstnet     SSTNet/DFAR list: path x1,y1,x2,y2,class ...
  irdst      (read) IRDST's official name list, masks beside it
  centres    (read) centre points a frame, as DAUB was released
  mirsdt     (read) NUDT-MIRSDT: SequenceN/{images,masks,Mix}
  video      (read) videos with a JSON of [x, y, w, h] a frame"""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def cli() -> None:
    """Masks, boxes and label formats: convert, validate, repair.

    \b
    Examples:
      irstkit annotate boxes masks/ --to coco --out annotations.json
      irstkit annotate convert labels/ --images images/ --to coco --out annotations.json
      irstkit annotate check annotations.json
    """


class Size(click.ParamType):
    """``WxH`` as (height, width)."""

    name = "WxH"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"([1-9]\d{0,5})[xX]([1-9]\d{0,5})", value)
        if match is None:
            self.fail(f"{value!r} is not a size such as 640x512 (width, height)", param, ctx)
        return int(match[2]), int(match[1])


def _options(*options: Callable) -> Callable:
    def add(function: Callable) -> Callable:
        for option in reversed(options):
            function = option(function)
        return function

    return add


PATH = click.Path(path_type=Path)

mask_options = _options(
    click.option(
        "--convention",
        type=click.Choice(["components", "eflnet"]),
        default="components",
        show_default=True,
        help="Masks: components gives one box a connected component; eflnet one box a contour, those of holes "
        "too, in the order of EFLNet's published files.",
    ),
    click.option(
        "--connectivity",
        type=click.Choice(["4", "8"]),
        default="8",
        show_default=True,
        help="Masks: with 8, pixels that touch at a corner are one target.",
    ),
    click.option(
        "--threshold",
        type=click.IntRange(0, 254),
        default=127,
        show_default=True,
        help="Masks: a pixel is target where its value (0-255) is larger. 0 and 1 are read as 0 and 255.",
    ),
    click.option(
        "--min-area",
        type=click.IntRange(0),
        default=0,
        help="Masks: leave out targets of fewer pixels (off by default; recorded in the output).",
    ),
    click.option(
        "--merge-distance",
        type=click.FloatRange(0, 1e4),
        default=0.0,
        help="Masks: make one target of those whose nearest pixels are at most so many pixels apart "
        "(off by default; recorded in the output).",
    ),
    click.option(
        "--workers",
        type=click.IntRange(0),
        default=None,
        help="Processes that read masks; 0 is one a core. Default: one a core above 2000 masks, else one. "
        "The output does not depend on it.",
    ),
)
output_options = _options(
    click.option("--overwrite", is_flag=True, help="Replace an output that exists."),
    click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON."),
)


def _rule(convention: str, connectivity: str, threshold: int, min_area: int, merge_distance: float) -> Any:
    from .scan import MaskRule

    return MaskRule(convention, int(connectivity), threshold, min_area, merge_distance)


def _show(summary: Any, as_json: bool) -> None:
    click.echo(json.dumps(summary.as_dict(), indent=2) if as_json else "\n".join(summary.lines()))


def _count_files(path: Path) -> int:
    return sum(1 for f in path.rglob("*") if f.is_file()) if path.is_dir() else 1


@cli.command()
@click.argument("masks", metavar="MASKS_DIR", type=PATH)
@click.option(
    "--to", "kind", type=click.Choice(["coco", "yolo"]), required=True, help="Label format to write."
)
@click.option(
    "--out",
    type=PATH,
    required=True,
    help="coco: a file; yolo: a folder, which gets one STEM.txt a mask (empty for a mask without target).",
)
@click.option(
    "--images",
    type=PATH,
    help="Folder of the images: their names are written (MASK_pixels0 is the mask of MASK), sizes compared.",
)
@click.option(
    "--digits",
    type=click.IntRange(3, 15),
    default=6,
    show_default=True,
    help="yolo: decimals. 6 is the published convention (to 0.004 px at 4096); 10 is exact to 1e-6 px.",
)
@mask_options
@output_options
def boxes(
    masks: Path,
    kind: str,
    out: Path,
    images: Path | None,
    digits: int,
    overwrite: bool,
    as_json: bool,
    workers: int | None,
    **rule: Any,
) -> None:
    """Boxes of every mask in MASKS_DIR.

    A box is tight and half-open: a one-pixel target is 1 wide. YOLO lines are class 0 and the box's centre
    and size as fractions of the image. A COCO annotation holds the target's pixels (RLE), its area in pixels
    and its box. Under eflnet, the box of a hole is an annotation of its own, marked attributes.contour =
    "hole". Nothing is written unless every mask can be read.

    \b
    Examples:
      irstkit annotate boxes NUDT-SIRST/masks --to yolo --convention eflnet --out labels/
      irstkit annotate boxes NUAA-SIRST/masks --to coco --out annotations.json
    """
    from .convert import choose_workers, convert
    from .labels import ReadOptions, WriteOptions

    read = ReadOptions(
        rule=_rule(**rule), images=images, workers=choose_workers(workers, _count_files(masks))
    )
    write = WriteOptions(overwrite=overwrite, digits=digits)
    _show(convert(masks, out, to=kind, source_format="masks", read=read, write=write), as_json)


@cli.command(epilog=FORMAT_HELP)
@click.argument("source", metavar="SRC", type=PATH)
@click.option("--to", "kind", metavar="FORMAT", required=True, help="Format to write (see below).")
@click.option("--from", "origin", metavar="FORMAT", help="Format of SRC; recognised by default.")
@click.option("--out", type=PATH, required=True, help="coco, sstnet: a file; the others: a folder.")
@click.option("--images", type=PATH, help="Folder of the images: names and sizes are taken from them.")
@click.option(
    "--size", type=Size(), help="Width x height of all images where neither labels nor files tell it."
)
@click.option("--segmentation", type=click.Choice(["rle", "polygons"]), default="rle", show_default=True,
              help="coco: run lengths, or polygons along pixel edges (both exact to the pixel).")  # fmt: skip
@click.option("--digits", type=click.IntRange(3, 15), default=10, show_default=True,
              help="yolo: decimals; 10 is exact to 1e-6 px up to 13,000 px, 6 is the published convention.")  # fmt: skip
@click.option(
    "--rectangles", is_flag=True, help="masks, instances: paint boxes that have no pixels as rectangles."
)
@click.option("--prefix", default="", help="sstnet: put before every path, such as /data/DAUB/images/.")
@click.option("--side", type=click.FloatRange(0, min_open=True), default=8.0, show_default=True,
              help="centres: side of the box around a point, in pixels.")  # fmt: skip
@click.option("--columns", type=click.Choice(["auto", "frame,x,y", "x,y", "frame,id,x,y"]), default="auto",
              show_default=True, help="centres: what a line holds; auto tells by the number of fields.")  # fmt: skip
@click.option("--frames", type=PATH, help="video: folder that gets the frames as VIDEO/000000.png.")
@mask_options
@output_options
def convert(
    source: Path,
    kind: str,
    origin: str | None,
    out: Path,
    images: Path | None,
    size: tuple[int, int] | None,
    segmentation: str,
    digits: int,
    rectangles: bool,
    prefix: str,
    side: float,
    columns: str,
    frames: Path | None,
    overwrite: bool,
    as_json: bool,
    workers: int | None,
    **rule: Any,
) -> None:
    """Convert the labels SRC into another format.

    Masks are exact to the bit, boxes to 1e-6 px, wherever both formats can carry them. The first error in SRC
    stops it with nothing written (irstkit annotate check lists them all).

    \b
    Examples:
      irstkit annotate convert masks/ --to coco --out annotations.json --images images/
      irstkit annotate convert labels/ --to coco --out a.json --images images/
      irstkit annotate convert bboxes/ --from sirst-v2 --to yolo --out labels/
      irstkit annotate convert coco_train_DAUB.txt --to coco --out a.json --size 256x256
      irstkit annotate convert drone-ir/ --to coco --out a.json --frames frames/
    """
    from .convert import choose_workers
    from .convert import convert as run
    from .labels import ReadOptions, WriteOptions

    count = _count_files(source) if source.is_dir() else 1
    read = ReadOptions(_rule(**rule), images, size, side, columns, frames, choose_workers(workers, count))
    write = WriteOptions(overwrite, digits, segmentation == "polygons", rectangles, prefix)
    _show(run(source, out, to=kind, source_format=origin, read=read, write=write), as_json)


@cli.command(epilog=FORMAT_HELP)
@click.argument("path", metavar="PATH", type=PATH)
@click.option("--from", "origin", metavar="FORMAT", help="Format of PATH; recognised by default.")
@click.option("--images", type=PATH, help="Folder of the images: compare names and sizes, decode every file.")
@click.option("--size", type=Size(), help="Width x height of all images where nothing else tells it.")
@click.option("--columns", type=click.Choice(["auto", "frame,x,y", "x,y", "frame,id,x,y"]), default="auto",
              help="centres: what a line holds.")  # fmt: skip
@click.option("--threshold", type=click.IntRange(0, 254), default=127, show_default=True,
              help="masks: what counts as target, compared with > 0.")  # fmt: skip
@click.option("--fix", "out", metavar="OUT", type=PATH,
              help="Write a copy with everything repaired that needs no guess, and list what was done.")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace OUT if it exists.")
@click.option("--all", "show_all", is_flag=True, help="Print every finding, not the first 5 of each kind.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def check(
    path: Path,
    origin: str | None,
    images: Path | None,
    size: tuple[int, int] | None,
    columns: str,
    threshold: int,
    out: Path | None,
    overwrite: bool,
    show_all: bool,
    as_json: bool,
) -> None:
    """List everything that is wrong with the labels PATH.

    Each finding has its place, severity (error: the label cannot be used; warning: it can, but a number will
    be off; info) and what it would do to a metric. Exit status 1 when there are errors (with --fix: when
    errors remain).

    \b
    --fix repairs, and lists:
      coco       numbers written as text, ids that are missing, zero or taken, area and bbox from the mask,
                 empty segmentations (the box's rectangle), sizes from the files, repeated annotations,
                 boxes over the border (clipped)
      yolo, voc, sirst-v2, sstnet
                 empty and repeated lines or objects, objects without box, boxes over the border, frame order
      masks      0 and 1 to 0 and 255, palettes and equal channels to one channel

    \b
    Examples:
      irstkit annotate check annotations.json --images images/
      irstkit annotate check masks/ --images images/ --json
      irstkit annotate check annotations.json --fix repaired.json
      irstkit annotate check coco_train_IRDST.txt --size 720x480
    """
    from dataclasses import replace

    from .convert import check as run
    from .labels import ReadOptions
    from .report import as_dict, lines
    from .scan import MaskRule

    read = ReadOptions(rule=MaskRule(threshold=threshold), images=images, size=size, columns=columns)
    kind, findings = run(path, source_format=origin, read=read)
    repairs: list[str] | None = None
    remaining = findings
    if out is not None:
        from .repair import fix

        repairs = fix(path, out, kind, read, overwrite=overwrite)
        _, remaining = run(out, source_format=kind, read=replace(read, beside=path))
    if as_json:
        click.echo(json.dumps(as_dict(path, kind, findings, out, repairs, remaining), indent=2))
    else:
        click.echo("\n".join(lines(path, kind, findings, out, repairs, remaining, show_all=show_all)))
    if remaining.errors:
        raise SystemExit(1)
