"""A run's folder: ``run.json``, ``log.csv``, ``last.pt``, ``best.pt``, ``tensorboard/``; ``stage1/``... where it has some."""

from __future__ import annotations

import csv
import io
import platform
import re
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..annotate.errors import IrstkitError
from ..annotate.files import read_json, write_atomic, write_json

FILES = ("run.json", "log.csv", "last.pt", "best.pt", "tensorboard")
_STAGE = re.compile("stage[1-9]")
COLUMNS = (
    "step",
    "epoch",
    "loss",
    "lr",
    "seconds",
    "data_share",
    "val_iou",
    "val_niou",
    "val_pd",
    "val_fa",
    "val_precision",
    "val_recall",
    "val_ap50",
    "val_f1",
)


def prepare_folder(out: Path, *, overwrite: bool, resume: bool) -> None:
    """Check that a run may be written to ``out``; nothing is created or deleted yet.

    Raises
    ------
    IrstkitError
        Not empty without ``overwrite`` or ``resume``; or not a run's folder with them.
    """
    if overwrite and resume:
        raise IrstkitError("--overwrite and --resume exclude each other")
    if out.exists() and not out.is_dir():
        raise IrstkitError("is a file, a folder for the run was expected", path=out)
    inside = sorted(f.name for f in out.iterdir() if not _half_written(f)) if out.exists() else []
    if resume:
        if "last.pt" not in inside and "stage1" not in inside:
            begin = "--overwrite" if "run.json" in inside else "the same command without --resume"
            raise IrstkitError("no last.pt to resume from", path=out, hint=f"{begin} starts the run")
        return
    strange = [name for name in inside if name not in FILES and not _STAGE.fullmatch(name)]
    if inside and (not overwrite or strange):
        if strange and overwrite:
            raise IrstkitError(f"holds {strange[0]!r}, which is not of a run: not overwritten", path=out)
        raise IrstkitError(
            "the folder is not empty", path=out, hint="--resume goes on with a run, --overwrite replaces it"
        )


def make_folder(out: Path) -> None:
    """The folder, where it is not there yet; an error that names it where it cannot be made."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise IrstkitError(f"cannot write here: {error.strerror or error}", path=out) from error


def _half_written(path: Path) -> bool:
    """Whether a killed process left it while it wrote one of a run's files (see ``atomic_path``)."""
    names = (name.partition(".") for name in FILES if "." in name)
    return any(
        path.name.startswith(f".{stem}-") and path.suffix == f".{suffix}" and path.is_file()
        for stem, _, suffix in names
    )


def clear_half_written(out: Path) -> None:
    """Remove what a killed process left."""
    for path in out.iterdir() if out.is_dir() else ():
        if _half_written(path):
            path.unlink()


def clear_folder(out: Path) -> None:
    """Remove a former run's files."""
    for name in FILES:
        path = out / name
        try:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise IrstkitError(f"cannot be removed: {error.strerror or error}", path=path) from error


def clear_stages(out: Path) -> None:
    """Remove the runs of a former run's stages (see :mod:`.stages`)."""
    for path in out.iterdir() if out.is_dir() else ():
        if _STAGE.fullmatch(path.name) and path.is_dir():
            shutil.rmtree(path)


def write_log(out: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """``log.csv``, whole and atomically: an epoch a row; undefined numbers are left empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows({k: "" if v is None else v for k, v in row.items()} for row in rows)
    write_atomic(out / "log.csv", text.getvalue())


def read_log(out: Path) -> list[dict[str, float | None]]:
    """The rows of ``log.csv``; empty cells are None."""
    try:
        with (out / "log.csv").open(encoding="utf-8", newline="") as stream:
            return [{k: float(v) if v else None for k, v in row.items()} for row in csv.DictReader(stream)]
    except FileNotFoundError as error:
        raise IrstkitError("no such file", path=out / "log.csv", hint="not the folder of a run") from error
    except (ValueError, TypeError) as error:
        raise IrstkitError(f"not a run's log: {error}", path=out / "log.csv") from error


def write_run(out: Path, content: Mapping[str, Any]) -> None:
    """``run.json``."""
    write_json(out / "run.json", dict(content), indent=2)


def read_run(out: Path) -> dict[str, Any]:
    """``run.json`` of a run's folder."""
    run = read_json(out / "run.json")
    if not isinstance(run, dict) or not {"settings", "data", "paths", "status"} <= run.keys():
        raise IrstkitError("not the run.json of a training run", path=out / "run.json")
    return run


def versions() -> dict[str, str]:
    """Of what the numbers depend on."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in ("irstkit", "torch", "lightning", "numpy", "opencv-python-headless"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
