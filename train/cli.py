"""``irstkit train``: its commands, gathered. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import click

from .cli_export import export
from .cli_predict import bench, embed, predict
from .cli_score import compare, evaluate
from .cli_train import fit, sweep


@click.group()
def cli() -> None:
    """Train, evaluate, predict, benchmark, export.

    \b
    Examples:
      irstkit train fit sd2net --real NUAA-SIRST/ --steps 2000 --out runs/real
      irstkit train fit sd2net --real NUAA-SIRST/ --synthetic synth/ --real-fraction 0.1 --total 190 \\
              --steps 2000 --out runs/mixed
      irstkit train evaluate runs/mixed/best.pt --data NUAA-SIRST/ --split 50_50/test
      irstkit train predict runs/mixed/best.pt photos/ --out predictions/
      irstkit train bench sd2net --size 256
      irstkit train export runs/mixed --size 512 640 --out detector.onnx
    """


for command in (fit, sweep, evaluate, compare, predict, embed, bench, export):
    cli.add_command(command)
