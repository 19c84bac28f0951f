"""The front door: lazy commands, one-line errors, the doctor, and what the wheel carries."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("args", [["--help"], ["train", "--help"], ["synth", "--help"], ["data", "--help"]])
def test_help_imports_nothing_heavy(args):
    """``--help`` stays fast because neither torch nor cv2 is imported to print it."""
    code = (
        "import sys\n"
        f"sys.argv = ['irstkit', *{args!r}]\n"
        "from irstkit.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as stop:\n    assert stop.code in (0, None), stop.code\n"
        "heavy = {'torch', 'cv2', 'scipy', 'matplotlib', 'fiftyone', 'skimage', 'lightning'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage: irstkit" in done.stdout


def test_every_listed_command_exists(irstkit):
    from irstkit.cli import COMMANDS

    for name in COMMANDS:
        result = irstkit(name, "--help")
        assert result.exit_code == 0 and "Usage: irstkit" in result.stdout, name


def test_unknown_command_is_a_usage_error(irstkit):
    result = irstkit("sinth")
    assert result.exit_code == 2 and "No such command 'sinth'" in result.stderr


def test_our_errors_are_one_line_with_status_1(irstkit, tmp_path):
    result = irstkit("annotate", "boxes", tmp_path / "nowhere", "--to", "coco", "--out", tmp_path / "c.json")
    assert result.exit_code == 1
    assert "nowhere" in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "c.json").exists()


def test_doctor_reports_every_declared_package(irstkit):
    result = irstkit("doctor", "--json")
    report = json.loads(result.stdout)
    names = {c["name"] for c in report["checks"]}
    assert {"numpy", "pycocotools", "torch", "fiftyone", "dask"} <= names
    assert report["healthy"] == (result.exit_code == 0)
    assert report["device"].startswith(("cpu", "cuda", "none"))


def test_doctor_names_what_is_missing(irstkit, monkeypatch):
    import importlib.metadata as metadata

    from irstkit import doctor

    real = metadata.version

    def version(name):
        if name == "torch":
            raise metadata.PackageNotFoundError(name)
        return "0.1" if name == "scipy" else real(name)

    monkeypatch.setattr(doctor.metadata, "version", version)
    checks = {c.name: c for c in doctor.package_checks()}
    assert checks["torch"].status == "missing" and "irstkit[train]" in checks["torch"].todo
    assert checks["scipy"].status == "old" and "scipy" in checks["scipy"].todo
    result = irstkit("doctor")
    assert result.exit_code == 1 and "scipy" in result.stdout  # the core is unfit


@pytest.mark.parametrize("builds", [True, False], ids=["kernel builds", "no compiler"])
def test_doctor_looks_at_a_gpu(monkeypatch, builds):
    torch = pytest.importorskip("torch")
    kernels = pytest.importorskip("irstkit.train.models.difference_kernels")
    from irstkit import doctor

    def check():
        if not builds:
            raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(kernels, "check", check)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    card = SimpleNamespace(name="a card", total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    text, advice = doctor.device()
    assert text.startswith("cuda: a card, 80 GiB") and text.endswith("(and 1 more)")
    assert ("C compiler such as gcc" in advice) != builds


def test_bug_report_names_no_folder_of_the_user(irstkit):
    result = irstkit("doctor", "--report")
    assert str(Path.home()) not in result.stdout and sys.prefix not in result.stdout
    assert "numpy" in result.stdout


@pytest.mark.parametrize(
    ("binary", "found"),
    [("echo 'db version v6.0.5'", "private"), ("exit 1", None), ("echo nonsense >&2; exit 127", None)],
    ids=["starts", "fails", "missing library"],
)
def test_database_is_believed_only_when_it_starts(monkeypatch, tmp_path, binary, found):
    from irstkit.datasets import database

    mongod = tmp_path / "irstkit" / "mongo" / "fiftyone" / "db" / "bin" / "mongod"
    mongod.parent.mkdir(parents=True)
    mongod.write_text(f"#!/bin/sh\n{binary}\n")
    mongod.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("FIFTYONE_DATABASE_URI", raising=False)
    monkeypatch.setattr(database, "candidates", lambda: [("private", mongod)])
    result = database.find_database()
    assert (result.kind if result else None) == found


def test_database_uri_comes_first(monkeypatch):
    from irstkit.datasets import database

    monkeypatch.setenv("FIFTYONE_DATABASE_URI", "mongodb://localhost:1")
    assert database.find_database() == database.Database("uri", "mongodb://localhost:1")


def test_installing_a_database_twice_installs_nothing(irstkit, monkeypatch):
    from irstkit.datasets import database

    monkeypatch.setenv("FIFTYONE_DATABASE_URI", "mongodb://localhost:1")
    monkeypatch.setattr(database, "install_private", lambda: pytest.fail("installed over one that is there"))
    assert "already" in irstkit("doctor", "--install-database").stderr
