"""What is tracked is what is installed: an unlisted sub-package would be missing from the wheel only."""

from __future__ import annotations

import doctest
import importlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = {"irstkit": "irstkit", "annotate": "irstkit/annotate", "datasets": "irstkit/datasets",
         "synth": "irstkit/synth", "train": "irstkit/train"}  # fmt: skip


def sources() -> list[Path]:
    """Files of the rooms that belong into the wheel, relative to the root."""
    return sorted(
        path.relative_to(ROOT)
        for room in ROOMS
        for path in (ROOT / room).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    )


def test_the_wheel_carries_every_module_and_data_file(tmp_path):
    code = (
        "import os, sys; from setuptools.build_meta import build_wheel; "
        f"os.chdir({str(tmp_path / 'tree')!r}); print(build_wheel({str(tmp_path)!r}))"
    )
    tree = tmp_path / "tree"
    for file in [*sources(), Path("pyproject.toml"), Path("README.md"), Path("LICENSE")]:
        (tree / file).parent.mkdir(parents=True, exist_ok=True)
        (tree / file).write_bytes((ROOT / file).read_bytes())
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    wheel = next(tmp_path.glob("*.whl"))
    inside = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    expected = {f"{ROOMS[f.parts[0]]}/{'/'.join(f.parts[1:])}" for f in sources()}
    assert inside == expected


def modules() -> list[str]:
    names = []
    for file in sources():
        if file.suffix == ".py" and file.name not in ("__main__.py",):
            parts = [*ROOMS[file.parts[0]].split("/"), *file.with_suffix("").parts[1:]]
            names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


@pytest.mark.parametrize("name", modules())
def test_docstring_examples(name):
    if ".plugin" in name:
        pytest.skip("irstkit.datasets.plugin is imported by FiftyOne alone")
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("room", ["annotate", "datasets", "synth", "train"])
def test_a_room_refuses_its_bare_name(room):
    """``import datasets`` from a checkout must never stand in for somebody else's package."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {room}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0 and f"irstkit.{room}" in done.stderr


def test_constraints_are_exact_and_name_no_host():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines and all("==" in line and "://" not in line and "@" not in line for line in lines)
