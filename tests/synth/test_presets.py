"""Presets: refused by name where wrong, fitted where a data set is given."""

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from irstkit.annotate.errors import IrstkitError
from irstkit.synth.dist import Distribution, choose
from irstkit.synth.generate import generate
from irstkit.synth.preset import load_preset, make_preset, preset_names


def test_every_shipped_preset_loads_and_survives_its_own_dump():
    assert {"nudt", "nudt-paper", "real"} <= set(preset_names())
    for name in preset_names():
        preset = load_preset(name)
        assert preset.name == name and preset.description
        assert make_preset(yaml.safe_load(yaml.safe_dump(preset.as_dict()))) == preset


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("contrast.rings=3", "contrast.rings: no such key"),
        ("contrast.ring=wide", "contrast.ring: "),
        ("contrast.ring=0", "contrast.ring: "),
        ("blur={quantiles: [1, 0.5]}", "quantiles must not fall"),
        ("blur.value=0.5", "give exactly one of"),
        ("blur={values: [1, 2], weights: [1]}", "2 values but 1 weights"),
        ("mask.policy=all", "mask.policy: "),
        ("scenes={}", "the table 'all' is missing"),
        ("scenes.swamp=1", "scenes.swamp"),
        ("kinds=[]", "needs at least one rule"),
        ("background.scale=[0.1, 1]", "must be two numbers in [0.5, 2]"),
        ("scenes.all.height.quantiles=[0, 2]", "must lie in [0, 1]"),
        ("scenes.all.silhouettes={tank: 1}", "scenes.all.silhouettes.tank"),
        ("nonsense", "--set takes key=value"),
        ("name.more=1", "has no keys of its own"),
    ],
)
def test_wrong_keys_and_values_are_named(override, told):
    with pytest.raises(IrstkitError) as error:
        load_preset("nudt", [override])
    assert told in str(error.value)


def test_unknown_presets_list_the_known_ones(tmp_path):
    with pytest.raises(IrstkitError, match="there are: nudt, nudt-paper, real"):
        load_preset("nudtt")
    broken = tmp_path / "p.yaml"
    broken.write_text("a: [")
    with pytest.raises(IrstkitError, match="not a YAML file"):
        load_preset(broken)


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=9).map(sorted), st.floats(0, 1, exclude_max=True))
def test_quantiles_are_inverted_exactly(numbers, u):
    found = Distribution(quantiles=tuple(numbers)).at(u)
    assert found == pytest.approx(np.interp(u, np.linspace(0, 1, len(numbers)), numbers), abs=1e-9)


def test_weights_are_kept():
    values = Distribution(values=(1, 2, 5), weights=(1, 0, 3))
    drawn = [values.at(u) for u in (np.arange(1000) + 0.5) / 1000]
    assert [drawn.count(v) for v in (1, 2, 5)] == [250, 0, 750]
    names = [choose({"a": 2, "b": 0, "c": 2}, u) for u in (np.arange(1000) + 0.5) / 1000]
    assert (names.count("a"), names.count("c")) == (500, 500)


def test_a_fitted_preset_has_the_data_sets_distributions(tmp_path, irstkit):
    source = tmp_path / "source"
    generate(source, 60, 2, preset="nudt", size=128, workers=1)
    out = tmp_path / "mine.yaml"
    result = irstkit("synth", "fit-preset", source, "--out", out)
    assert result.exit_code == 0, result.stderr
    fitted, made = load_preset(out), [t for r in _targets(source) for t in r]
    areas = np.quantile([t["area"] for t in made], np.linspace(0, 1, 41))
    assert fitted.scenes["all"].area.quantiles == pytest.approx(np.rint(areas))
    scr = np.quantile([max(t["scr_achieved"], 0.3) for t in made], np.linspace(0, 1, 41))
    assert fitted.scenes["all"].scr.quantiles == pytest.approx(scr, abs=2e-3)
    assert irstkit("synth", "fit-preset", source, "--out", out).exit_code == 1  # there already
    again = tmp_path / "again"
    generate(again, 2, 1, preset=out, size=128, workers=1)


def _targets(root):
    import json

    for line in (root / "manifest.jsonl").read_text().splitlines():
        yield json.loads(line)["targets"]
