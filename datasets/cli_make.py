"""``irstkit data import``, ``merge``, ``split``, ``export`` and ``tile``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

OUT = click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder to write; must not hold anything yet.",
)
OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace an output of the same files.")
JSON = click.option("--json", "as_json", is_flag=True, help="The summary as JSON on standard output.")
LAYOUT = click.option("--layout", metavar="NAME", help="Read PATH as this layout instead of recognising one.")


def say(done: Any, out: Path, as_json: bool) -> None:
    """The summary of what was written."""
    if as_json:
        import json

        facts = done.as_dict() if hasattr(done, "as_dict") else dict(vars(done))
        click.echo(json.dumps({"out": str(out), **facts}, indent=1))
        return
    targets = f", {done.targets} targets" if done.targets else ""
    click.echo(f"{out}: {done.images} images{targets}")
    if getattr(done, "unlabelled", 0):
        click.echo(f"  {done.unlabelled} images are not labelled")
    if getattr(done, "boxes_only", 0):
        click.echo("  boxes alone: no masks written")
    if repeated := getattr(done, "repeated", []):
        first, again = repeated[0]
        click.echo(f"  {len(repeated)} images repeat another to the pixel (first: {again} repeats {first})")


def warn(findings: Any) -> None:
    """Warnings of a reader as notes; errors are raised elsewhere."""
    from ..annotate.console import note

    told = [f for f in findings if f.severity == "warning"]
    for finding in told[:5]:
        note(f"warning: {finding}")
    if len(told) > 5:
        note(f"warning: ... and {len(told) - 5} more (irstkit data info lists them)")


@click.command("import")
@click.argument("images", type=click.Path(path_type=Path))
@click.option("--masks", type=click.Path(path_type=Path), help="Folder of masks under the images' names.")
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    help="A COCO file, an SSTNet list, or a folder of YOLO or VOC files.",
)
@click.option(
    "--labels-format",
    type=click.Choice(["coco", "yolo", "voc", "sirst-v2", "list"]),
    help="Format of --labels where its suffix does not tell (sirst-v2: VOC shifted by one, half-open).",
)
@click.option("--sequences", is_flag=True, help="Every folder of images is a sequence, in natural order.")
@OUT
@LAYOUT
@OVERWRITE
@JSON
def import_(
    images: Path,
    masks: Path | None,
    labels: Path | None,
    labels_format: str | None,
    sequences: bool,
    out: Path,
    layout: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """One's own images, or any data set, in irstkit's layout.

    IMAGES is a folder of images (folders below it are kept), with masks or labels from elsewhere or none at
    all; or the folder of any data set that `irstkit data info` recognises. Images become gray PNGs of the same
    depth, masks 0 or 255, labels a COCO file with every target's pixels (or box). Sub-folders whose images are
    bare numbers are sequences. Nothing is written when anything of it cannot be read.

    \b
    Examples:
      irstkit data import frames/ --masks truth/ --out mine
      irstkit data import frames/ --labels boxes.json --out mine
      irstkit data import NUAA-SIRST --out nuaa
    """
    from .bring import bring
    from .make import import_dataset, with_sequences
    from .readers import open_dataset

    if masks is None and labels is None:
        if labels_format:
            raise click.UsageError("--labels-format goes with --labels")
        dataset = open_dataset(images, layout)
    else:
        if layout:
            raise click.UsageError("--layout is for a data set without --masks or --labels")
        dataset = bring(images, masks=masks, labels=labels, labels_format=labels_format)
    if sequences:
        dataset = with_sequences(dataset)
    warn(dataset.findings)
    say(import_dataset(dataset, out, overwrite=overwrite), out, as_json)


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH PATH...")
@click.option("--names", metavar="A,B,...", help="Names of the sets below images/ (default: the folders').")
@OUT
@OVERWRITE
@JSON
def merge(paths: tuple[Path, ...], names: str | None, out: Path, overwrite: bool, as_json: bool) -> None:
    """Several data sets as one, their lists kept.

    Images go to images/SET/. Every split scheme keeps its name; the parts of the sets' default schemes are
    joined as the scheme `merged` besides. Images that repeat another to the pixel are counted, not dropped.

    \b
    Example:
      irstkit data merge NUAA-SIRST NUDT-SIRST IRSTD-1k --out SIRST3
    """
    from .make import merge_datasets
    from .readers import open_dataset

    if len(paths) < 2:
        raise click.UsageError("name at least two data sets")
    datasets = [open_dataset(path) for path in paths]
    for dataset in datasets:
        warn(dataset.findings)
    called = names.split(",") if names else None
    say(merge_datasets(datasets, out, names=called, overwrite=overwrite), out, as_json)


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--parts",
    default="train=0.8,val=0.1,test=0.1",
    show_default=True,
    help="Names and shares of the parts; they add up to 1.",
)
@click.option(
    "--by",
    type=click.Choice(["auto", "image", "sequence", "twins"]),
    default="auto",
    show_default=True,
    help="What stays together. auto: sequences, and twins (32x32 correlation above 0.995) among single images.",
)
@click.option("--stratify", type=click.Choice(["scene"]), help="The same shares in every scene.")
@click.option(
    "--scenes",
    type=click.Path(path_type=Path),
    help="CSV with the columns file, scene (and dataset) for --stratify.",
)
@click.option(
    "--of", "split", metavar="SCHEME/PART", default="all", show_default=True, help="Divide only this list."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the draw.")
@click.option("--scheme", default="irstkit", show_default=True, help="Name of the new scheme.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for SCHEME/PART.txt (default: PATH/splits, where it is read).",
)
@OVERWRITE
@JSON
def split(
    path: Path,
    parts: str,
    by: str,
    stratify: str | None,
    scenes: Path | None,
    split: str,
    seed: int,
    scheme: str,
    out: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Divide a data set into parts that do not leak into each other.

    Writes SCHEME/PART.txt, an id a line; the draw depends on the ids and the seed alone. Sequences and
    near-copies are never divided unless --by image.

    \b
    Examples:
      irstkit data split mine --parts train=0.7,test=0.3 --seed 1
      irstkit data split NUDT-SIRST --scheme clean --stratify scene --scenes scenes.csv --out lists
      irstkit data split mine --of official/train --parts train=0.9,val=0.1
    """
    import json

    from ..annotate.files import atomic_folder
    from .readers import open_dataset
    from .records import split_hash
    from .scenes import with_scenes
    from .splits import parts_of
    from .write import write_list

    _name(scheme, "scheme")
    shares = _shares(parts)
    dataset = open_dataset(path)
    if scenes is not None:
        dataset = with_scenes(dataset, scenes)
    records = dataset.part(split)
    strata = None
    if stratify:
        if not any(r.scene for r in records):
            raise click.UsageError("no scene is known here: name a table with --scenes")
        strata = [r.scene or "unknown" for r in records]
    chosen = parts_of(records, shares, seed=seed, by=by, strata=strata)
    lists: dict[str, list[str]] = {}
    for record, part in zip(records, chosen, strict=True):
        lists.setdefault(part, []).append(record.id)
    target = (out or dataset.root / "splits") / scheme
    with atomic_folder(target, overwrite=overwrite) as folder:
        for part, ids in lists.items():
            write_list(folder / f"{part}.txt", ids)
    rows = [
        {"split": f"{scheme}/{part}", "images": len(ids), "hash": split_hash(ids)}
        for part, ids in sorted(lists.items())
    ]
    if as_json:
        click.echo(json.dumps({"out": str(target), "splits": rows}, indent=1))
        return
    for row in rows:
        click.echo(f"{row['split']:20s} {row['images']:6d} images  {row['hash']}")
    click.echo(f"written to {target}")


def _shares(text: str) -> dict[str, float]:
    shares: dict[str, float] = {}
    for piece in text.split(","):
        name, _, value = piece.partition("=")
        try:
            shares[_name(name.strip(), "part")] = float(value)
        except ValueError:
            raise click.BadParameter(f"expected NAME=SHARE, got {piece!r}", param_hint="--parts") from None
    return shares


def _name(text: str, what: str) -> str:
    if not text or text.startswith(".") or "/" in text or "\\" in text or text == "all":
        raise click.BadParameter(f"{text!r} cannot name a {what}")
    return text


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "kind",
    required=True,
    type=click.Choice(["coco", "yolo", "voc", "sstnet", "masks", "webdataset"]),
    help="Layout to write.",
)
@click.option("--scheme", help="Split scheme whose parts are written apart (default: the data set's own).")
@click.option(
    "--images",
    type=click.Choice(["copy", "png", "none"]),
    help="copy: the files as they are; png: gray PNGs; none: labels only.  [default: copy]",
)
@click.option(
    "--shard-size",
    type=click.IntRange(min=1),
    help="Samples a shard, with --to webdataset.  [default: 1000]",
)
@click.option("--digits", type=click.IntRange(1, 12), help="Decimals of YOLO's fractions.  [default: 6]")
@OUT
@LAYOUT
@OVERWRITE
@JSON
def export(
    path: Path,
    kind: str,
    scheme: str | None,
    images: str | None,
    shard_size: int | None,
    digits: int | None,
    out: Path,
    layout: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """A data set in the layout that a detector is trained from.

    \b
    coco    images/, annotations/instances_PART.json (RLE where there are masks)
    yolo    images/PART, labels/PART, data.yaml
    voc     images/, annotations/NAME.xml (pixels counted from 1, inclusive), splits/
    sstnet  images/, coco_PART_NAME.txt: path x1,y1,x2,y2,0 ... (half-open)
    masks   images/, masks/ of 0 and 255, splits/
    webdataset  PART-000000.tar ... of --shard-size samples (KEY.png, KEY.mask.png, KEY.json), index.json:
                to train from; irstkit reads them as they lie. Killed, the same command goes on.

    \b
    Examples:
      irstkit data export synth/ --to webdataset --out shards/ --shard-size 1000
      irstkit data export NUAA-SIRST --to yolo --out nuaa-yolo
      irstkit data export mine --to coco --scheme irstkit --out mine-coco
    """
    from .export import export_dataset
    from .readers import open_dataset

    if kind == "webdataset" and (images or digits):
        raise click.UsageError(
            "--images and --digits are not for shards: these hold PNGs, label files as JSON"
        )
    if kind != "webdataset" and shard_size:
        raise click.UsageError("--shard-size goes with --to webdataset")
    dataset = open_dataset(path, layout)
    warn(dataset.findings)
    if kind == "webdataset":
        from .shards import export_shards

        say(
            export_shards(dataset, out, scheme=scheme, size=shard_size or 1000, overwrite=overwrite),
            out,
            as_json,
        )
        return
    done = export_dataset(
        dataset, out, kind, scheme=scheme, images=images or "copy", digits=digits or 6, overwrite=overwrite
    )
    say(done, out, as_json)


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--size", default="256", show_default=True, help="Side of the tiles in pixels, or HEIGHTxWIDTH."
)
@click.option(
    "--overlap", type=click.IntRange(0), default=32, show_default=True, help="Least overlap in pixels."
)
@click.option("--drop-empty", is_flag=True, help="Leave out tiles without target.")
@OUT
@LAYOUT
@OVERWRITE
@JSON
def tile(
    path: Path,
    size: str,
    overlap: int,
    drop_empty: bool,
    out: Path,
    layout: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Cut large frames into tiles, labels with them.

    Tiles cover every image, evenly spread; images smaller than a tile stay whole. A target at a tile's edge
    is what of it lies inside, marked "cut". Tiles keep their image's splits, so that no image is in two parts.

    \b
    Example:
      irstkit data tile SIRST-V2 --size 256 --overlap 32 --out tiles
    """
    from .make import tile_dataset
    from .readers import open_dataset

    numbers = size.lower().split("x")
    if len(numbers) > 2 or not all(n.isdigit() and int(n) > 0 for n in numbers):
        raise click.BadParameter(
            f"expected a whole number or HEIGHTxWIDTH, got {size!r}", param_hint="--size"
        )
    side = (int(numbers[0]), int(numbers[-1]))
    dataset = open_dataset(path, layout)
    warn(dataset.findings)
    done = tile_dataset(
        dataset, out, side=side, overlap=overlap, keep_empty=not drop_empty, overwrite=overwrite
    )
    say(done, out, as_json)
