"""Training in stages: what each starts from, where it stops and goes on, and what is refused."""

import json

import pytest

from irstkit.annotate.errors import IrstkitError
from irstkit.annotate.files import occupied
from irstkit.train import loop, stages
from irstkit.train.checkpoint import load_checkpoint, weights_hash
from irstkit.train.material import compose
from irstkit.train.settings import load_recipe, settings_from, stage_lengths

STAGES = [{"share": 0.25, "options": {"padding": "zeros"}}, {"share": 0.5, "options": {"head_bias": -2.0}}]


def staged(**changes):
    values = {"options": {"base": 3}, "crop": 32, "batch": 2, "steps": 8, "stages": STAGES}
    return settings_from({**values, **changes})


def hash_of(path):
    return weights_hash(load_checkpoint(path)["model"]["state"])


def test_each_stage_starts_from_the_one_before(split_pairs, tmp_path):
    material, out = compose(split_pairs(6, 2), None), tmp_path / "run"
    report = stages.fit(staged(), material, out, device="cpu")
    runs = [json.loads((out / name / "run.json").read_text()) for name in ("stage1", "stage2", ".")]
    assert [r["steps"] for r in runs] == [2, 4, 2] and report == runs[2]
    assert runs[0]["settings"]["options"] == {"base": 3, "padding": "zeros"}
    assert runs[1]["settings"]["options"] == {"base": 3, "head_bias": -2.0}
    assert runs[2]["settings"]["options"] == {"base": 3} and runs[2]["settings"]["stages"] == STAGES
    assert runs[0]["init"] is None and [r["init"]["weights"] for r in runs[1:]] == [
        load_checkpoint(out / name / "best.pt")["weights"] for name in ("stage1", "stage2")
    ]
    alone = tmp_path / "alone"
    loop.fit(staged(stages=[], steps=2, init=str(out / "stage2")), material, alone, device="cpu")
    assert hash_of(alone / "last.pt") == hash_of(out / "last.pt")


@pytest.mark.parametrize("stop", [1, 2, 3, 6, 7], ids="in stage {0}".format)
def test_stopped_anywhere_and_resumed_is_uninterrupted(irstkit, split_pairs, tmp_path, stop):
    root = split_pairs(6, 2)
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        json.dumps({"crop": 32, "batch": 2, "steps": 8, "options": {"base": 3}, "stages": STAGES})
    )
    told = ("train", "fit", "sd2net", "--real", root, "--recipe", recipe, "--device", "cpu", "--threads", 1)
    for out in ("whole", "parts"):
        more = ("--max-steps", stop) if out == "parts" else ()
        result = irstkit(*told, "--out", tmp_path / out, *more)
        assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "parts" / "run.json").read_text())["status"] == "stopped"
    at = {1: "stage 1 of 3, step 1 of 2", 2: "stage 1 of 3, step 2 of 2", 3: "stage 2 of 3, step 1 of 4",
          6: "stage 2 of 3, step 4 of 4", 7: "step 1 of 2"}  # fmt: skip
    assert f"stopped: {at[stop]}" in result.stdout
    result = irstkit(
        "train", "fit", "sd2net", "--resume", "--out", tmp_path / "parts", "--device", "cpu", "--threads", 1
    )
    assert result.exit_code == 0, result.output
    for name in ("stage1", "stage2", "."):
        assert hash_of(tmp_path / "parts" / name / "last.pt") == hash_of(
            tmp_path / "whole" / name / "last.pt"
        )
    again = irstkit(*told, "--out", tmp_path / "parts")
    assert again.exit_code == 1 and "not empty" in again.stderr
    again = irstkit(*told, "--out", tmp_path / "parts", "--overwrite", "--max-steps", 1)
    assert again.exit_code == 0 and not (tmp_path / "parts" / "stage2").exists(), "the former run is gone"


def test_a_stage_that_was_trained_otherwise_is_not_gone_on_from(split_pairs, tmp_path):
    material, out = compose(split_pairs(6, 2), None), tmp_path / "run"
    stages.fit(staged(), material, out, device="cpu", max_steps=3)
    with pytest.raises(IrstkitError, match="stage1: this stage was trained with lr"):
        stages.fit(staged(lr=1e-3), material, out, device="cpu", resume=True)


@pytest.mark.parametrize("busy", ["stage2", "."])
def test_a_run_that_another_process_writes_is_not_replaced(split_pairs, tmp_path, busy):
    material, out = compose(split_pairs(6, 2), None), tmp_path / "run"
    stages.fit(staged(), material, out, device="cpu", max_steps=3)
    before = hash_of(out / "stage1" / "last.pt")
    with occupied(out / busy), pytest.raises(IrstkitError, match="another process is writing here"):
        stages.fit(staged(), material, out, device="cpu", overwrite=True)
    assert hash_of(out / "stage1" / "last.pt") == before and (out / "stage2").exists()
    stages.fit(staged(stages=[], steps=1), material, out, device="cpu", overwrite=True)
    assert not list(out.glob("stage?")), "a run without stages has none"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"share": 0.5}, "expected a list"),
        ([{"share": 0.5}], "expected share and options"),
        ([{"share": 1.0, "options": {}}], "a share between 0 and 1"),
        ([{"share": "half", "options": {}}], r"stages\[0\].share is 'half'"),
        ([{"share": 0.5, "options": {}}] * 2, "leave nothing"),
    ],
)
def test_what_is_no_stage_is_refused(value, said):
    with pytest.raises(IrstkitError, match=said):
        settings_from({"stages": value})


def test_lengths():
    assert stage_lengths(staged()) == (2, 4, 2)
    assert stage_lengths(staged(steps=None, epochs=8)) == (2, 4, 2)
    assert stage_lengths(staged(stages=[])) == (8,)
    with pytest.raises(IrstkitError, match="2 steps are too few for 3 stages"):
        stage_lengths(staged(steps=2, stages=[{"share": 0.1, "options": {}}] * 2))
    with pytest.raises(IrstkitError, match=r"see train\.stages"):
        loop.fit(staged(), None, "nowhere")


def test_a_sweep_trains_in_stages(irstkit, split_pairs, tmp_path):
    root, out, recipe = split_pairs(6, 2), tmp_path / "sweep", tmp_path / "mine.yaml"
    other = split_pairs(6, 0, folder="other", seed=4)
    recipe.write_text(
        json.dumps({"crop": 32, "batch": 2, "steps": 4, "options": {"base": 3}, "stages": STAGES})
    )
    result = irstkit("train", "sweep", "sd2net", "--real", root, "--synthetic", other, "--total", 3, "--fractions",
                     "real", "--seeds", 1, "--recipe", recipe, "--device", "cpu", "--out", out, "--json")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["complete"]
    run = out / "runs" / "real-seed0"
    assert [json.loads((run / n / "run.json").read_text())["steps"] for n in ("stage1", "stage2", ".")] == [
        1,
        2,
        1,
    ]


def test_dfar_has_stages():
    found = settings_from({**load_recipe("best", "dfar"), "steps": 3000})
    assert stage_lengths(found) == (480, 1440, 1080)
    assert [s["options"].get("border") for s in found.stages] == ["still", "still"]
