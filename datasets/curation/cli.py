"""``irstkit data curate``, ``data pull`` and ``data diff``."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import click


@click.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--name", metavar="NAME", help="Name in FiftyOne (default: the folders' names joined by +).")
@click.option(
    "--predictions",
    metavar="[NAME=]FILE",
    multiple=True,
    help="A COCO file of predictions (train predict writes one), shown as the field NAME. Repeatable.",
)
@click.option(
    "--embeddings",
    metavar="F.npz",
    type=click.Path(path_type=Path),
    help="Arrays ids (N names of images) and embeddings (N, D): similarity search and a 2-D map.",
)
@click.option(
    "--port", metavar="N", type=click.IntRange(1, 65535), help="Port of the App (default: a free one)."
)
@click.option("--no-app", is_flag=True, help="Push only.")
@click.option(
    "--replace", is_flag=True, help="Where labels changed on disk and in FiftyOne, take those on disk."
)
@click.option(
    "--workers",
    metavar="N",
    default=2,
    show_default=True,
    type=click.IntRange(1, 64),
    help="Reading threads.",
)
@click.option("--json", "as_json", is_flag=True, help="What was done as JSON on standard output.")
def curate(paths, name, predictions, embeddings, port, no_app, replace, workers, as_json) -> None:  # type: ignore[no-untyped-def]
    """Look at data sets in FiftyOne, find the bad labels, fix them.

    PATH is any data set that irstkit reads; several come side by side (real and synthetic). Pushed again, only
    what changed on disk is written; labels edited in FiftyOne are never overwritten without --replace.

    Pushed are images (16-bit and low-contrast ones with a stretched preview), labels with masks, attributes and
    measured SCR, splits as tags, sequences that play. Predictions are matched to labels by centroids closer than
    3 pixels: hit, miss, false_alarm. Saved views in the App lead to the faintest, smallest and most suspicious
    labels.

    \b
    Examples:
      irstkit data curate NUDT-SIRST
      irstkit data curate NUDT-SIRST synth/ --name both --no-app
      irstkit data curate NUDT-SIRST --predictions runs/first/test/predictions.json
      irstkit data pull NUDT-SIRST --out fixed.json
    """  # fmt: skip
    from .app import launch
    from .predictions import parse_options
    from .sources import open_sources

    given = parse_options(predictions)
    sources = open_sources(list(paths))
    gc.freeze()  # what was read lives until the end: the collector need not go through it (a tenth of a push)
    try:
        dataset, result = _curate(
            sources,
            name or "+".join(s.name for s in sources),
            given,
            embeddings,
            replace=replace,
            workers=workers,
        )
    finally:
        gc.unfreeze()
    if as_json:
        click.echo(json.dumps(vars(result), indent=1))
    else:
        for line in result.lines():
            click.echo(line)
        click.echo("views: " + ", ".join(result.views))
    if not no_app:
        launch(dataset, port)


def _curate(  # type: ignore[no-untyped-def]
    sources, name: str, given, embeddings: Path | None, *, replace: bool, workers: int
):
    """(data set, what was pushed) of the whole of it: images, predictions, embeddings, views."""
    from .embeddings import push_embeddings
    from .predictions import again, push_predictions
    from .push import finish, push
    from .store import database_errors
    from .views import configure, saved_views

    with database_errors("pushing"):
        dataset, result, touched = push(sources, name, replace=replace, workers=workers)
        before = set(dataset.info["irstkit"].get("predictions", {}))
        files = given + again(dataset, given) if touched else given
        result.predictions = push_predictions(dataset, files, touched=touched)
        if set(result.predictions) - before:
            configure(dataset, [])
        if embeddings is not None:
            push_embeddings(dataset, embeddings, touched=touched)
        if touched or files or not dataset.info["irstkit"].get("views"):
            result.views = saved_views(dataset)
        else:
            result.views = dataset.info["irstkit"]["views"]
        finish(dataset)
    return dataset, result


@click.command()
@click.argument("name")
@click.option(
    "--out", metavar="FILE", required=True, type=click.Path(path_type=Path), help="COCO file to write."
)
@click.option("--apply", "into", is_flag=True, help="Write the labels into the data set itself, too.")
@click.option("--source", metavar="SET", help="Only this one of several data sets pushed under NAME.")
@click.option("--overwrite", is_flag=True, help="Replace FILE where it exists.")
@click.option("--json", "as_json", is_flag=True, help="Every change as JSON on standard output.")
def pull(name: str, out: Path, into: bool, source: str | None, overwrite: bool, as_json: bool) -> None:
    """Bring labels back from FiftyOne as COCO, and say what was changed.

    Labels that nobody touched come back as they were, to the bit. A moved box of the same size moves its mask by
    whole pixels. A box drawn or resized gets the mask grown inside it (local threshold), and the box written is
    the mask's (the drawn one stays in the attribute drawn_box); in sets of boxes alone the drawn box is written.
    Painted masks are brought to whole pixels.

    --apply also writes into the data set: its COCO file, and the masks of the images concerned. Files that are
    replaced are kept in .irstkit-before/ of the data set. With several sets under NAME, FILE becomes
    FILE-SET.json each.

    \b
    Examples:
      irstkit data pull NUDT-SIRST --out fixed.json
      irstkit data diff NUDT-SIRST fixed.json
      irstkit data pull synth --out synth-fixed.json --apply
    """
    from ...annotate.files import refuse_existing, write_json
    from .apply import KEPT, apply, check
    from .pull import out_files
    from .pull import pull as run
    from .store import database_errors

    dataset, pulled = run(name, only=source)
    targets = list(out_files(out, pulled))
    for path, one in targets:
        refuse_existing(path, overwrite=overwrite, folder=False)
        if into:
            check(one)
    for path, one in targets:
        write_json(path, one.document)
        if not as_json:
            click.echo("\n".join([*one.lines(), f"  COCO: {path}"]))
        if into:
            with database_errors("applying the labels"):
                done = apply(dataset, one)
            if not as_json and one.touched:
                told = f"{done.masks} masks" + (f" and {done.document.name}" if done.document else "")
                click.echo(
                    f"  applied: {told}; the former files are in {KEPT}/{done.kept.name if done.kept else ''}"
                )
    if as_json:
        click.echo(json.dumps([{**one.summary(), "out": str(path)} for path, one in targets], indent=1))


@click.command()
@click.argument("a", metavar="A", type=click.Path(path_type=Path))
@click.argument("b", metavar="B", type=click.Path(path_type=Path))
@click.option("--all", "everything", is_flag=True, help="List every change (default: the first 20).")
@click.option("--exit-code", is_flag=True, help="Exit with status 1 when there is a difference.")
@click.option("--json", "as_json", is_flag=True, help="Everything as JSON on standard output.")
def diff(a: Path, b: Path, everything: bool, exit_code: bool, as_json: bool) -> None:
    """What labels differ between A and B: COCO files or folders of data sets.

    Images are compared by file name. A label of B is the same one as in A when all of it is equal, when it has
    the same id and overlaps, or when it is nearest (centroids closer than 3 pixels); the others are added or
    deleted.

    \b
    Examples:
      irstkit data diff NUDT-SIRST fixed.json
      irstkit data diff before.json after.json --json > changes.json
    """
    from .diff import compare, load_labels

    found = compare(load_labels(a), load_labels(b), names=(str(a), str(b)))
    if as_json:
        click.echo(json.dumps(found.as_dict(), indent=1))
    else:
        click.echo("\n".join(found.lines(most=None if everything else 20)))
    if exit_code and not found.empty():
        raise SystemExit(1)
