"""Knobs and the search that turns them."""

import copy
import json

import numpy as np
import pytest
import yaml

from irstkit.annotate.errors import IrstkitError
from irstkit.annotate.files import write_png
from irstkit.synth import tune as module
from irstkit.synth.generate import generate
from irstkit.synth.knobs import KNOBS, has, moved, shown
from irstkit.synth.preset import load_preset, make_preset


@pytest.mark.parametrize("name", ["nudt", "real"])
@pytest.mark.parametrize("key", sorted(KNOBS))
@pytest.mark.parametrize("way", [-1, 1])
def test_every_knob_leaves_a_legal_preset_however_far_it_is_turned(name, key, way):
    start, knob = load_preset(name).as_dict(), KNOBS[key]
    before = copy.deepcopy(start)
    amount = float(np.exp(way * 20 * knob.step)) if knob.factor else way * 20 * knob.step
    found = moved(start, {key: amount})
    assert start == before
    make_preset(found)
    assert (found == start) == (not has(start, knob)) or shown(found, key) == shown(start, key)


def test_what_each_operation_does():
    start = load_preset("real").as_dict()
    found = moved(
        start,
        {"scenes.*.area": 2.0, "point.anisotropy": 0.5, "sensor.jpeg": -10, "background.scale": 1.5},
    )
    assert (
        found["scenes"]["cloud"]["area"]["quantiles"][5]
        == 2 * start["scenes"]["cloud"]["area"]["quantiles"][5]
    )
    assert (
        found["scenes"]["sea"]["area"]["quantiles"][5] == 2 * start["scenes"]["sea"]["area"]["quantiles"][5]
    )
    for before, after in zip(
        start["point"]["anisotropy"]["quantiles"], found["point"]["anisotropy"]["quantiles"], strict=True
    ):
        assert after - 1 == pytest.approx((before - 1) / 2)
    assert found["sensor"]["jpeg"]["quantiles"][-1] == start["sensor"]["jpeg"]["quantiles"][-1] - 10
    assert found["background"]["scale"][0] == pytest.approx(1.5 * start["background"]["scale"][0])


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A set made with half the backgrounds' contrast."""
    root = tmp_path_factory.mktemp("planted") / "set"
    generate(root, 24, 7, preset="nudt", size=64, workers=1, overrides=["background.contrast={value: 0.5}"])
    return root


def run(planted, folder, **more):
    given = {
        "state": folder / "s", "budget": 12, "images": 12, "keys": ["background.contrast"], "seed": 3, "size": 64, **more
    }  # fmt: skip
    return module.tune("nudt", planted, state=given.pop("state"), **given)


@pytest.fixture(scope="module")
def tuned(planted, tmp_path_factory):
    return run(planted, tmp_path_factory.mktemp("tuned"))


def test_a_planted_parameter_is_recovered(tuned):
    assert tuned.amounts["background.contrast"] == pytest.approx(0.5, rel=0.3)
    assert tuned.after < 0.8 * tuned.before
    assert tuned.preset["background"]["contrast"]["value"] == pytest.approx(0.5, rel=0.3)
    assert make_preset(tuned.preset).name == "tuned"


def test_interrupted_and_begun_again_it_ends_the_same(planted, tuned, tmp_path, monkeypatch):
    plain, calls = module._Trials.value, []

    def value(self, amounts):
        calls.append(amounts)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return plain(self, amounts)

    monkeypatch.setattr(module._Trials, "value", value)
    part = run(planted, tmp_path)
    assert part.interrupted and (tmp_path / "s").is_file()
    with pytest.raises(IrstkitError, match="begun with other settings"):
        run(planted, tmp_path, seed=4)
    calls.clear()
    monkeypatch.setattr(module._Trials, "value", lambda self, a: (calls.append(a), plain(self, a))[1])
    whole = run(planted, tmp_path)
    assert whole.as_dict() == tuned.as_dict()
    assert not (tmp_path / "s").exists()
    assert len(calls) <= 12 - 5 + 1  # what was known was not made again


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["nudt"], 2, "Missing option"),
        (["nosuch", "--reference", "{set}", "--out", "{o}"], 1, "no preset 'nosuch'"),
        (["nudt", "--reference", "{set}", "--out", "{o}", "--key", "blurr"], 1, "nothing to tune at 'blurr'"),
        (["nudt", "--reference", "{set}", "--out", "{o}", "--key", "sensor.jpeg"], 1, "has no sensor.jpeg"),
        (["nudt", "--reference", "{set}", "--out", "{o}", "--budget", "4"], 1, "budget of at least"),
        (["nudt", "--reference", "{set}/x", "--out", "{o}"], 1, "x"),
        (["nudt", "--reference", "{few}", "--out", "{o}"], 1, "the reference has 2 targets in 3 images"),
        (
            ["real", "--reference", "{set}", "--out", "{o}", "--key", "mask.energy"],
            1,
            "mask.energy decides nothing in the preset real: mask.policy is core",
        ),
        (
            ["real", "--reference", "{set}", "--out", "{o}", "--key", "point.sigma"],
            1,
            "point.energy decides the width",
        ),
        (["nudt", "--reference", "{set}", "--out", "{o}.png"], 2, "a preset is a .yaml file"),
        (["nudt", "--reference", "{set}", "--out", "{there}"], 1, "exists"),
    ],
)
def test_bad_input_is_one_clear_error_and_writes_nothing(planted, tmp_path, irstkit, arguments, code, told):
    there = tmp_path / "there.yaml"
    there.write_text("x")
    out, few = tmp_path / "o.yaml", tmp_path / "few"
    for k in range(3):
        write_png(few / "images" / f"{k}.png", np.full((64, 64), 90, np.uint8))
        write_png(few / "masks" / f"{k}.png", np.pad(np.full((2, 2), 255 * (k > 0), np.uint8), 31))
    result = irstkit(
        "synth", "tune", *(a.format(set=planted, o=out, there=there, few=few) for a in arguments)
    )
    assert result.exit_code == code
    assert told in result.stderr
    assert not out.exists()


def test_the_command_writes_a_preset_and_tells_before_and_after(planted, tmp_path, irstkit):
    out = tmp_path / "mine.yaml"
    result = irstkit(
        "synth", "tune", "nudt", "--reference", planted, "--out", out, "--budget", 4, "--images", 8, "--size", 64,
        "--key", "blur", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["trials"] == 4 and {"before", "after"} <= set(told["objective"])
    assert make_preset(yaml.safe_load(out.read_text())).name == "mine"
    assert not out.with_name("mine.yaml.state").exists()


def test_a_search_that_only_learnt_its_own_images_leaves_the_preset(planted, tmp_path, irstkit, monkeypatch):
    """What is written is never worse than what was given, on images that the search has not seen."""
    start = load_preset("nudt").as_dict()
    monkeypatch.setattr(module, "objective", lambda reference, made: honest(reference, made, 1.0))

    def honest(reference, made, level):
        return level + (0.1 if made.seen_worse else 0.0)

    plain = module._Trials.sample

    def sample(self, amounts, seed):
        found = plain(self, {}, seed)
        found.seen_worse = (
            bool(amounts) and seed != self.recipe.seed
        )  # better in the search, worse afterwards
        return found

    monkeypatch.setattr(module._Trials, "sample", sample)
    monkeypatch.setattr(module, "_floor", lambda reference: 0.0)
    out = tmp_path / "mine.yaml"
    result = irstkit(
        "synth", "tune", "nudt", "--reference", planted, "--out", out, "--budget", 4, "--images", 8, "--size", 64,
        "--key", "blur",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert "the preset is written as it was" in result.stdout
    written = yaml.safe_load(out.read_text())
    assert make_preset(written).as_dict() == {**start, "name": "mine"}
