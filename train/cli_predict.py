"""``irstkit train predict``, ``embed`` and ``bench``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from .cli_options import (
    PATH,
    ModelOption,
    Number,
    device_option,
    json_option,
    need_torch,
    padding_option,
    set_threads,
    threads_option,
)


@click.command()
@click.argument("checkpoint", type=PATH)
@click.argument("images", type=PATH)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="New .npz file.")
@click.option("--split", help="SCHEME/PART of a data set [default: all its images].")
@click.option("--layer", help="Submodule to take features from [default: the network's deepest].")
@device_option
@threads_option
@json_option
def embed(
    checkpoint: Path,
    images: Path,
    out: Path,
    split: str | None,
    layer: str | None,
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Write a vector for each of IMAGES (a file, a folder of images, or a data set) as CHECKPOINT sees it.

    The .npz holds ids (N,) and embeddings (N, 2C): mean and maximum of each channel of the layer.

    \b
    Example:
      irstkit train embed runs/real/best.pt NUAA-SIRST/ --out nuaa.npz
    """
    need_torch()
    from .embed import embed as write
    from .predict import gather
    from .predictor import Predictor

    set_threads(threads)
    records, _ = gather(images, split)
    result = write(Predictor.load(checkpoint, device=device), records, out, layer=layer)
    if as_json:
        click.echo(json.dumps(result, indent=2))
    else:
        click.echo(f"{result['images']} vectors of {result['dimensions']} from {result['layer']}: {out}")


@click.command()
@click.argument("checkpoint", type=PATH)
@click.argument("images", type=PATH)
@click.option(
    "--out", type=PATH, required=True, help="New folder for masks/, overlays/ and predictions.json."
)
@click.option("--split", help="SCHEME/PART of a data set [default: all its images].")
@click.option(
    "--threshold",
    type=Number(0, 1),
    help="Positive above it [0.5; networks of boxes: the score that the run chose on its validation part].",
)
@padding_option
@click.option("--probabilities", is_flag=True, help="Write probabilities/NAME.png too (16-bit, 65535 is 1).")
@click.option("--video", is_flag=True, help="Networks of boxes: an overlay video a sequence, not images.")
@click.option("--model", help="Refuse a checkpoint of any other model.")
@device_option
@threads_option
@json_option
def predict(
    checkpoint: Path,
    images: Path,
    out: Path,
    split: str | None,
    threshold: float | None,
    padding: str,
    probabilities: bool,
    video: bool,
    model: str | None,
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Find targets in IMAGES: a file, a folder of images, a data set, or a video.

    Writes masks/NAME.png (0 and 255), overlays/NAME.png (prediction orange, truth, where known, cyan) and
    predictions.json (COCO: boxes, RLE and a score an instance). OUT appears when all of it is done.

    Networks of boxes write predictions.json with scores and, in sequences, track ids (constant velocity), and
    overlays, of a video as videos/NAME.mp4; networks of clips take a folder of images as one sequence, in the
    order of names.

    \b
    Examples:
      irstkit train predict runs/real/best.pt photos/ --out predictions/
      irstkit train predict runs/dfar/best.pt flight.mp4 --threshold 0.4 --out tracks/
    """
    need_torch()
    from .evaluate_boxes import COMPONENTS, is_box_checkpoint, operating_score
    from .predict import gather
    from .predict import predict as write
    from .predict_boxes import in_sequence
    from .predictor import Predictor
    from .sequence import is_clip_model
    from .tasks import clip_source

    set_threads(threads)
    if is_box_checkpoint(checkpoint):
        from .box_predictor import BoxPredictor
        from .predict_boxes import predict_boxes

        detector = BoxPredictor.load(checkpoint, device=device, model=model)
        records, what = gather(images, split)
        score, where = (
            (threshold, "given")
            if threshold is not None
            else (operating_score(checkpoint) or (COMPONENTS, "none was chosen on validation data"))
        )
        found = predict_boxes(
            detector,
            records,
            out,
            score=score,
            source=str(images),
            video=video or what == "video",
        )
        click.echo(
            json.dumps(found, indent=2)
            if as_json
            else f"{found['boxes']} boxes in {found['images']} images, {found['tracks']} tracks, score {score:.3g} "
            f"({where}): {out}"
        )
        return
    records, what = gather(images, split)
    predictor = Predictor.load(checkpoint, device=device, padding=padding, model=model)
    maps = None
    if is_clip_model(predictor.network):
        records = in_sequence(records, str(images))
        maps = clip_source(predictor, records, "network").map
    threshold = 0.5 if threshold is None else threshold
    result = write(predictor, records, out, threshold=threshold, probabilities=probabilities, maps=maps)
    if as_json:
        click.echo(json.dumps(result, indent=2))
    else:
        click.echo(f"{result['instances']} instances in {result['images']} images ({what}): {out}")


@click.command()
@click.argument("model", nargs=-1, required=True)
@click.option("--size", type=int, default=256, show_default=True, help="Side of the images, pixels.")
@click.option("--batch", type=int, default=1, show_default=True, help="Images a pass.")
@click.option(
    "--rounds", type=int, default=10, show_default=True, help="Timed repetitions; medians are shown."
)
@click.option(
    "--option",
    "options",
    type=ModelOption(),
    multiple=True,
    help="Option of the network, e.g. base=16; may be repeated.",
)
@device_option
@threads_option
@json_option
def bench(
    model: tuple[str, ...],
    size: int,
    batch: int,
    rounds: int,
    options: tuple[tuple[str, Any], ...],
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Count and time MODEL(s) on this device: parameters, MACs, seconds, memory.

    \b
    Example:
      irstkit train bench sd2net --size 256 --batch 4 --json
    """
    need_torch()
    from ..annotate.console import track
    from .bench import bench as measure
    from .bench import table

    set_threads(threads)
    rows = [
        measure(name, size, options=dict(options), batch=batch, device=device, rounds=rounds)
        for name in track(model, "timing", unit="models")
    ]
    if as_json:
        click.echo(json.dumps(rows[0] if len(rows) == 1 else rows, indent=2))
    else:
        click.echo(table(rows))
