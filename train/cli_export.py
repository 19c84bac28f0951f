"""``irstkit train export``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .cli_options import PATH, Number


@click.command(no_args_is_help=True)
@click.argument("checkpoint", type=PATH)
@click.option("--out", type=PATH, required=True, help="The ONNX file to write.")
@click.option(
    "--size",
    nargs=2,
    type=click.IntRange(1),
    default=(256, 256),
    show_default=True,
    metavar="HEIGHT WIDTH",
    help="Input size in pixels, multiples of the network's stride. It is fixed in the file.",
)
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Images a run.")
@click.option(
    "--probabilities", is_flag=True, help="Networks of masks: put the sigmoid into the file; else logits."
)
@click.option("--raw", is_flag=True, help="Networks of boxes: raw maps; else decoded boxes and scores.")
@click.option(
    "--portable",
    is_flag=True,
    help="Deformable convolution by GridSample (opset 17) for runtimes without DeformConv (opset 19).",
)
@click.option(
    "--tolerance",
    type=Number(0, min_open=True),
    default=1e-4,
    show_default=True,
    help="Largest difference from PyTorch, relative to the largest output.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def export(
    checkpoint: Path,
    out: Path,
    size: tuple[int, int],
    batch: int,
    probabilities: bool,
    raw: bool,
    portable: bool,
    tolerance: float,
    as_json: bool,
) -> None:
    """Write a CHECKPOINT (or a run's best.pt) as an ONNX file.

    The file is run by onnxruntime against PyTorch before it is kept. Its input is (batch, channels, height,
    width), of networks of clips (batch, frames, channels, height, width) in time order; gray divided by the
    largest value of its depth, then normalised as the checkpoint says: mean and deviation are in the file's
    metadata and in the result.

    Networks of boxes give boxes (batch, N, 4), x1 y1 x2 y2 in pixels of the input, and scores (batch, N), one
    for every cell: keep what is above your score and suppress doubles (irstkit: IoU above 0.65).

    \b
    Examples:
      irstkit train export runs/real --size 512 640 --probabilities --out segmenter.onnx
      irstkit train export runs/dfar --size 256 320 --out detector.onnx
      irstkit train export runs/eflnet --size 256 256 --portable --out detector.onnx
    """
    from ..annotate.errors import IrstkitError
    from .checkpoint import build_from, load_checkpoint
    from .export import export_onnx

    if out.suffix.lower() != ".onnx":
        raise IrstkitError("expected a name ending in .onnx", path=out)
    if out.exists():
        raise IrstkitError("exists: not overwritten", path=out, hint="name another --out")
    content = load_checkpoint(checkpoint)
    normalisation = content.get("normalisation", {"mean": 0.0, "std": 1.0})
    about = {
        "model": content["model"]["name"],
        "options": json.dumps(dict(content["model"]["options"]), sort_keys=True),
        "weights": str(content.get("weights", "")),
        "mean": str(normalisation["mean"]),
        "std": str(normalisation["std"]),
    }
    result = export_onnx(
        build_from(content, checkpoint),
        out,
        size,
        batch=batch,
        probabilities=probabilities,
        raw=raw,
        portable=portable,
        tolerance=tolerance,
        about=about,
    )
    result = {**result, "model": about["model"], "normalisation": dict(normalisation)}
    if as_json:
        click.echo(json.dumps(result))
        return
    given = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in result["outputs"].items())
    how = "" if result["deformable"] is None else f", deformable convolution by {result['deformable']}"
    click.echo(
        f"{out}: {about['model']}, input {'x'.join(map(str, result['input']))}, {result['bytes'] / 1e6:.2f} MB\n"
        f"gives {given}; opset {result['opset']}{how}\n"
        f"agrees with PyTorch to {result['largest_difference']:.2g} on {result['trials']} inputs "
        f"(outputs up to {result['largest_output']:.3g})\n"
        f"normalisation: mean {normalisation['mean']:g}, deviation {normalisation['std']:g}"
    )
