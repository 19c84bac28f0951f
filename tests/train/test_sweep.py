"""Sweeps: every cell once, the table by hand, going on where it stopped, refusals."""

import json
import math
import statistics

import pytest

from irstkit.annotate.errors import IrstkitError
from irstkit.annotate.files import occupied
from irstkit.train import sweep_cells
from irstkit.train.metrics import Settings as Metrics
from irstkit.train.settings import settings_from
from irstkit.train.sweep import markdown, summary
from irstkit.train.sweep_cells import Plan, cells_of

SMALL = ("--option", "base=3", "--crop", 32, "--batch", 2, "--threads", 1, "--device", "cpu", "--steps", 3)


@pytest.fixture
def sets(split_pairs):
    real = split_pairs(10, 3)
    return real, split_pairs(12, 0, folder="synthetic", seed=1)


def sweep(irstkit, sets, out, *more):
    arguments = (
        "--real",
        sets[0],
        "--synthetic",
        sets[1],
        "--total",
        8,
        "--seeds",
        2,
        "--fractions",
        "0,0.5,real",
    )
    return irstkit("train", "sweep", "sd2net", *arguments, "--out", out, *SMALL, *more)


def test_a_real_share_is_for_rows_of_two_sources(irstkit, sets, tmp_path):
    out = tmp_path / "sweep"
    assert sweep(irstkit, sets, out, "--seeds", 1, "--real-share", 0.75).exit_code == 0
    shares = {
        f.parent.name: json.loads(f.read_text())["settings"].get("real_share")
        for f in out.glob("runs/*/run.json")
    }
    assert shares == {"0.0-seed0": None, "0.5-seed0": 0.75, "real-seed0": None}
    other = sweep(irstkit, sets, out, "--seeds", 1)
    assert other.exit_code == 1 and "real_share 0.75, now None" in other.stderr, other.output


def test_every_cell_once_then_nothing_to_do(irstkit, sets, tmp_path):
    out = tmp_path / "sweep"
    result = sweep(irstkit, sets, out, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["complete"] and len(report["runs"]) == 6
    assert [(t["fraction"], t["real"], t["synthetic"]) for t in report["table"]] == [
        (0.0, 0, 8), (0.5, 4, 4), ("real", 9, 0),
    ]  # fmt: skip
    for line in report["table"]:
        values = [r["fa"] for r in report["runs"] if r["fraction"] == line["fraction"]]
        assert line["fa"] == pytest.approx(statistics.fmean(values))
        assert line["fa_sd"] == pytest.approx(statistics.stdev(values))
    assert {r["step"] for r in report["runs"]} <= {1, 2, 3} and {r["images"] for r in report["runs"]} == {3}
    assert (out / "sweep.png").read_bytes().startswith(b"\x89PNG")
    before = {f: f.stat().st_mtime_ns for f in out.glob("runs/*/*") if f.is_file()}
    with occupied(out):  # as another process would
        busy = sweep(irstkit, sets, out)
    assert busy.exit_code == 1 and "another process is writing here" in busy.stderr
    again = sweep(irstkit, sets, out, "--json")
    assert json.loads(again.stdout) == report
    assert before == {f: f.stat().st_mtime_ns for f in out.glob("runs/*/*") if f.is_file()}


def test_stopped_sweeps_go_on(irstkit, sets, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    few = ("--fractions", "0.5,real", "--seeds", 1)
    assert sweep(irstkit, sets, whole, *few).exit_code == 0
    calls = 0
    while (
        not (parts / "sweep.json").exists() or not json.loads((parts / "sweep.json").read_text())["complete"]
    ):
        result = sweep(irstkit, sets, parts, *few, "--max-minutes", 1e-9)  # a step each time
        assert result.exit_code == 0, result.output
        calls += 1
        assert calls < 20
    assert calls > 1, "it was stopped on the way"
    for name in ("sweep.csv", "sweep.md"):
        assert (whole / name).read_text() == (parts / name).read_text()


@pytest.mark.parametrize(
    ("more", "status", "text"),
    [
        (("--total", 50), 1, "needs 50 synthetic images, there are 12"),
        (("--fractions", "0,0.5,2"), 2, "'2'"),
        (("--fractions", "0.5,0.5"), 2, "twice"),
        (("--test-split", "own/nope"), 1, "own/train, own/test"),
        (("--test-split", "own/train"), 1, "trained on"),
    ],
    ids=str,
)
def test_impossible_sweeps_are_said_before_anything_runs(more, status, text, irstkit, sets, tmp_path):
    result = sweep(irstkit, sets, tmp_path / "out", *more)
    assert result.exit_code == status and text in result.output, result.output
    assert not (tmp_path / "out").exists()


def test_another_sweep_in_the_folder_is_refused(irstkit, sets, tmp_path):
    out = tmp_path / "sweep"
    assert sweep(irstkit, sets, out, "--max-minutes", 1e-9).exit_code == 0
    result = sweep(irstkit, sets, out, "--lr", 0.5)
    assert result.exit_code == 1 and "name another --out" in result.output


def row(fraction, iou, pd):
    used = {"real": {"used": 1}, "synthetic": {"used": 2}}
    return {"fraction": fraction, "iou": iou, "pd": pd, "trained_on": used,
            **dict.fromkeys(("niou", "fa", "precision", "recall", "f1"), 0.5)}  # fmt: skip


def test_summary_by_hand():
    line, single = summary([row(0.1, 0.2, 1.0), row(0.1, 0.4, None), row("real", 0.3, 0.5)])
    assert line["iou"] == pytest.approx(0.3) and line["iou_sd"] == pytest.approx(0.1414213562)
    assert line["pd"] is None and line["pd_sd"] is None, "undefined in one seed is undefined, not skipped"
    assert single["iou"] == 0.3 and single["iou_sd"] is None
    report = {
        "table": [line, single], "test": {"images": 3, "name": "X", "split": "a/test"}, "split_hash": "h", "total": 9,
        "settings": {"model": "m", "steps": 5, "batch": 2}, "complete": False,
        "metrics": {"threshold": 0.5, "distance": 3, "matching": "optimal", "connectivity": 8},
    }  # fmt: skip
    text = markdown(report)
    assert "| 0.1 | 1 | 2 | 2 | 30.00 ± 14.14 |" in text and "undefined" in text and "Not complete" in text


def test_several_at_a_time_are_one_after_the_other(irstkit, sets, tmp_path):
    few = ("--fractions", "0,real", "--seeds", 1)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert sweep(irstkit, sets, whole, *few).exit_code == 0
    held = parts / "runs" / "0.0-seed0"
    assert sweep(irstkit, sets, parts, *few, "--max-minutes", 1e-9).exit_code == 0, "makes the folder"
    with occupied(held):  # one of the two cannot run
        result = sweep(irstkit, sets, parts, *few, "--jobs", 2)
    assert result.exit_code == 1 and "another process is writing here" in result.stderr
    assert not json.loads((parts / "sweep.json").read_text())["complete"]
    result = sweep(irstkit, sets, parts, *few, "--jobs", 2, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["complete"]
    for name in ("sweep.csv", "sweep.md"):
        assert (whole / name).read_text() == (parts / name).read_text()
    for run in ("0.0-seed0", "real-seed0"):
        one, other = (json.loads((p / "runs" / run / "run.json").read_text()) for p in (whole, parts))
        assert one["weights"] == other["weights"]


def test_a_run_that_dies_is_an_error_that_names_it(sets, tmp_path, monkeypatch):
    settings = settings_from({"model": "sd2net", "options": {"base": 3}, "crop": 32, "batch": 2, "steps": 3})
    plan = Plan(str(sets[0]), str(sets[1]), total=8, fractions=(0.5,), seeds=1)
    (cell,) = cells_of(
        settings, plan, tmp_path, test_split="own/test", metrics=Metrics(), task="mask", device="cpu"
    )
    ended = []
    monkeypatch.setattr(sweep_cells, "_child", math.sqrt)  # fails on a cell, and sends no answer
    with pytest.raises(IrstkitError, match=r"real fraction 0.5, seed 0 ended with status 1"):
        sweep_cells.at_once(
            [cell, cell], 1, threads=1, deadline=None, ended=lambda c, done: ended.append(done)
        )
    assert ended == [False], "nothing is started after it"
