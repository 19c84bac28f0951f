"""The notebooks run from the first cell to the last, offline, on synthetic data, and are kept without outputs."""

from __future__ import annotations

from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NAMES = ["annotate", "datasets", "synthesise", "train"]


def read(name: str):
    nbformat = pytest.importorskip("nbformat", reason="needs nbmake (the extra [dev])")
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def test_there_is_a_notebook_for_each_job():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_no_outputs_are_kept(name):
    for cell in read(name).cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None


@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_runs(name, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="needs nbmake (the extra [dev])")
    if name == "train":
        pytest.importorskip("torch", reason="needs the package torch (pip install 'irstkit[train]')")
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # what the notebook makes goes with the test
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    book = read(name)
    nbclient.NotebookClient(book, timeout=600, kernel_name="python3").execute(cwd=str(tmp_path))
    outputs = [o for cell in book.cells for o in cell.get("outputs", [])]
    told = "".join(o.get("text", "") for o in outputs)
    # a command that fails does not end a notebook: its one line does
    assert not [line for line in told.splitlines() if line.startswith(("Error:", "Usage:", "Traceback"))], (
        told
    )
    assert any("image/png" in o.get("data", {}) for o in outputs), "a notebook shows something"
