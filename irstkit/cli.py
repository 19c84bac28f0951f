"""The root of the command line. Rooms are imported only when one of their commands is asked for."""

from __future__ import annotations

import importlib
import signal
import sys
from typing import Any

import click

from . import __version__

COMMANDS = {
    "annotate": ("irstkit.annotate.cli:cli", "Masks, boxes and label formats: convert, validate, repair."),
    "data": ("irstkit.datasets.cli:cli", "Data sets: look into, import, split, audit, export."),
    "synth": ("irstkit.synth.cli:cli", "Synthetic images from your own backgrounds."),
    "train": ("irstkit.train.cli:cli", "Train, evaluate, predict, benchmark."),
    "demo": ("irstkit.demo:cli", "Run the whole chain once and write a report."),
    "doctor": ("irstkit.doctor:cli", "Say what is installed and what to do about what is not."),
}


class LazyGroup(click.Group):
    """A group that knows its commands' names and one-line helps, and imports one when it is called."""

    def __init__(self, *args: Any, lazy: dict[str, tuple[str, str]] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = lazy or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.lazy, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.lazy:
            return super().get_command(ctx, cmd_name)
        module, _, name = self.lazy[cmd_name][0].partition(":")
        return getattr(importlib.import_module(module), name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, text) for name, (_, text) in self.lazy.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        """Run; every error of ours becomes one line and exit status 1."""
        from .annotate.errors import IrstkitError

        try:
            return super().invoke(ctx)
        except IrstkitError as error:
            if ctx.params.get("debug"):
                raise
            raise click.ClickException(str(error)) from error
        except (OSError, MemoryError) as error:
            if ctx.params.get("debug") or isinstance(error, BrokenPipeError):
                raise
            raise click.ClickException(f"{type(error).__name__}: {error}") from error


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="irstkit")
@click.option("--quiet", is_flag=True, help="No notes and no progress bars on standard error.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error, for bug reports.")
def cli(quiet: bool, debug: bool) -> None:
    """Infrared small-target detection: from backgrounds to numbers that can be trusted.

    \b
    A first afternoon:
      irstkit doctor                                             what is installed here
      irstkit data info PATH                                     what a data set holds and what is wrong with it
      irstkit synth images --out synth/ --count 500 --backgrounds PATH
      irstkit train fit sd2net --real PATH --synthetic synth/ --steps 2000 --out runs/first
      irstkit train evaluate runs/first/best.pt --data PATH --split 50_50/test
    """
    if quiet:
        from .annotate import console

        console.quiet = True


def _end(number: int, frame: Any) -> None:
    """Told to end: half-written outputs are removed on the way out, as at Ctrl-C. Told again: at once."""
    signal.signal(number, signal.SIG_DFL)
    raise SystemExit(128 + number)


def main() -> None:
    """Entry point of the ``irstkit`` command."""
    signal.signal(signal.SIGTERM, _end)
    cli.main(args=sys.argv[1:], prog_name="irstkit")
