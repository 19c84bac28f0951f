"""The demo from end to end at its smallest size, and what it refuses."""

from __future__ import annotations

import json
import re

import pytest


def test_demo_without_data_leaves_one_self_contained_report(irstkit, tmp_path):
    out = tmp_path / "demo"
    result = irstkit("--quiet", "demo", "--out", out, "--count", 12, "--steps", 2)
    assert result.exit_code == 0, result.stderr
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") > 10
    assert not re.search(r'(src|href)="(?!data:)', page)  # nothing outside the file
    results = json.loads((out / "results.json").read_text())
    assert set(results) == {"synthetic"} and 0 <= results["synthetic"]["iou"] <= 1
    # the boxes derived anew from the masks are those that synth documented
    made = json.loads((out / "synthetic" / "annotations.json").read_text())
    again = json.loads((out / "boxes.json").read_text())
    key = lambda a: (a["image_id"], a["bbox"])  # noqa: E731
    assert sorted(map(key, made["annotations"])) == sorted(map(key, again["annotations"]))


def test_demo_on_real_data_compares_two_runs_of_the_same_length(irstkit, make_pairs, tmp_path):
    data = make_pairs(24, (136, 144))
    (data / "50_50").mkdir()
    names = [f"{k:06d}" for k in range(24)]
    (data / "50_50" / "train.txt").write_text("\n".join(names[:16]))
    (data / "50_50" / "test.txt").write_text("\n".join(names[16:]))
    out = tmp_path / "demo"
    result = irstkit("--quiet", "demo", "--data", data, "--out", out, "--count", 10, "--steps", 2)
    assert result.exit_code == 0, result.stderr
    results = json.loads((out / "results.json").read_text())
    assert set(results) == {"real only", "real + synthetic"}
    assert len({r["split_hash"] for r in results.values()}) == 1
    assert all(r["images"] == 8 for r in results.values())
    steps = [json.loads((run / "run.json").read_text())["steps"] for run in (out / "runs").iterdir()]
    assert steps == [2, 2]


def test_demo_refuses_a_folder_that_is_not_its_own(irstkit, tmp_path):
    (tmp_path / "thesis.tex").write_text("four years")
    result = irstkit("demo", "--out", tmp_path, "--overwrite")
    assert result.exit_code == 1 and "thesis.tex" in result.stderr
    assert (tmp_path / "thesis.tex").read_text() == "four years"


@pytest.mark.parametrize("kind", ["missing", "no test list"])
def test_demo_says_what_the_data_lacks(irstkit, make_pairs, tmp_path, kind):
    data = tmp_path / "nowhere" if kind == "missing" else make_pairs(4)
    result = irstkit("demo", "--data", data, "--out", tmp_path / "demo")
    assert result.exit_code == 1
    assert str(data) in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "demo").exists()
