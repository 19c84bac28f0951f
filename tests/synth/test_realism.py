"""The realism report: fits, distances, the two-sample test, the verdict, the command."""

import json
import re
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp, wasserstein_distance

from irstkit.annotate import console
from irstkit.annotate.errors import IrstkitError
from irstkit.annotate.files import write_png
from irstkit.synth.distances import Distance, compare, ks_distance, relative_distance
from irstkit.synth.generate import generate
from irstkit.synth.grounds import ground_measures, spectrum
from irstkit.synth.measures import MEASURES, measure_sample
from irstkit.synth.preset import load_preset
from irstkit.synth.psf import PsfFit, fit_gaussian
from irstkit.synth.targets import brightest, turned_gaussian_pixels
from irstkit.synth.twosample import auc, grouped_folds, two_sample
from irstkit.synth.verdict import changes, remarks, summary

# ------------------------------------------------------------------------------------------------ the fit


@settings(max_examples=40, deadline=None)
@given(
    x=st.floats(-0.5, 0.5), y=st.floats(-0.5, 0.5), sigma=st.floats(0.75, 1.8), ratio=st.floats(1.05, 2.0),
    angle=st.floats(0, np.pi), noise=st.sampled_from([0.0, 0.01]), dark=st.booleans(),
)  # fmt: skip
def test_a_planted_psf_is_found_at_any_phase(x, y, sigma, ratio, angle, noise, dark):
    light = turned_gaussian_pixels(x, y, sigma * np.sqrt(ratio), sigma / np.sqrt(ratio), angle, radius=9)
    mask = brightest(light, 12)
    sign = -1 if dark else 1
    window = 100 + sign * 80 * light / light.max()
    window = window + np.random.default_rng(0).normal(0, 80 * noise, window.shape)
    fit = fit_gaussian(window, mask, polarity=sign)
    assert isinstance(fit, PsfFit)
    assert fit.sigma == pytest.approx(sigma, rel=0.03 + 5 * noise)
    assert fit.anisotropy == pytest.approx(ratio, rel=0.06 + 8 * noise)
    assert (fit.x - 9, fit.y - 9) == pytest.approx((x, y), abs=0.05 + 5 * noise)
    assert fit.energy_inside == pytest.approx(light[mask].sum(), abs=0.03 + 2 * noise)
    if ratio > 1.3:
        turn = abs((fit.angle - angle + np.pi / 2) % np.pi - np.pi / 2)
        assert turn < 0.15 + 8 * noise


@pytest.mark.parametrize(
    ("window", "mask", "why"),
    [
        (np.full((11, 11), 50.0), (5, 5), "poor"),  # nothing there
        (np.random.default_rng(1).normal(50, 5, (11, 11)), (5, 5), None),  # noise: any reason, but a reason
        (np.add.outer(np.arange(11.0), np.arange(11.0)), (5, 5), None),  # a ramp
        (np.eye(3) * 9, (1, 1), "poor"),  # too few pixels
    ],
)
def test_what_is_no_gaussian_is_a_failure_with_a_reason(window, mask, why):
    own = np.zeros(window.shape, bool)
    own[mask] = True
    found = fit_gaussian(window, own)
    assert isinstance(found, str)
    assert why is None or found == why


# -------------------------------------------------------------------------------------------- distances


@given(
    st.lists(st.floats(-100, 100), min_size=3, max_size=40), st.lists(st.floats(-100, 100), min_size=3, max_size=40)
)  # fmt: skip
def test_ks_and_relative_wasserstein_are_scipys(a, b):
    a, b = np.array(a), np.array(b)
    assert ks_distance(a, b) == pytest.approx(ks_2samp(a, b, method="asymp").statistic)
    low, high = np.percentile(a, (5, 95))
    scale = max(high - low, 0.01 * abs(np.median(a)), 1e-6)
    assert relative_distance(a, b) == pytest.approx(wasserstein_distance(a, b) / scale)


def blobs(number, *, sigma=1.2, contrast=60.0, noise=2.0, seed=0, size=64):
    """Images of one Gaussian target each."""
    rng = np.random.default_rng(seed)
    for k in range(number):
        x, y = rng.integers(20, size - 20, 2)
        light = turned_gaussian_pixels(
            rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5), sigma, sigma, 0.0, radius=8
        )
        image = rng.normal(90, noise, (size, size))
        image[y - 8 : y + 9, x - 8 : x + 9] += contrast * light / light.max()
        mask = np.zeros((size, size), bool)
        mask[y - 8 : y + 9, x - 8 : x + 9] = brightest(light, 13)
        yield f"{k}", np.rint(image).clip(0, 255).astype(np.uint8), mask


@pytest.fixture(scope="module")
def samples():
    console.quiet = True
    try:
        return (
            measure_sample("one", blobs(40, seed=1)),
            measure_sample("same", blobs(40, seed=2)),
            measure_sample("other", blobs(40, sigma=1.9, noise=6.0, contrast=40, seed=3)),
        )
    finally:
        console.quiet = False


def test_measures_of_known_images(samples):
    one, _, other = samples
    assert (one.images, one.targets, one.fits) == (40, 40, {"fitted": 40})
    assert np.median(one.values["psf_sigma"]) == pytest.approx(1.2, rel=0.05)
    assert np.median(other.values["psf_sigma"]) == pytest.approx(1.9, rel=0.12)
    assert set(one.values["area"]) == {13.0}
    noise = np.sqrt(2.0**2 + 1 / 12)  # that of the images, and rounding
    assert np.median(one.values["noise"]) == pytest.approx(noise, rel=0.08)
    assert np.median(one.values["whiteness"]) == pytest.approx(0.0, abs=0.15)
    assert one.patches.shape == (40, 32, 32) and one.grounds.shape[1:] == (32, 32)
    assert (one.values["x"] > 0.25).all() and (one.values["x"] < 0.75).all()
    assert set(one.values) == set(MEASURES)


def test_sixteen_bit_images_are_measured_in_the_same_gray_levels():
    eight = measure_sample("8", blobs(6, seed=4))
    wide = measure_sample("16", ((g, i.astype(np.uint16) * 257, m) for g, i, m in blobs(6, seed=4)))
    for key in ("scr_10", "rank", "psf_sigma", "area", "noise", "level"):
        assert wide.values[key] == pytest.approx(eight.values[key], rel=1e-4), key
    # contrast is told in 8-bit levels too
    assert wide.values["contrast"] == pytest.approx(eight.values["contrast"], rel=1e-4)


def test_distances_tell_equal_from_different_and_repeat(samples):
    one, same, other = samples
    near, far = compare(one, same, resamples=99), compare(one, other, resamples=99)
    assert sum(d.differs for d in near.values()) <= 1
    for key in ("psf_sigma", "noise", "contrast", "gradient"):
        assert far[key].differs and far[key].ks > 0.8, key
        assert far[key].ks == pytest.approx(ks_2samp(one.values[key], other.values[key]).statistic)
        low, high = far[key].wasserstein_interval
        assert low <= far[key].wasserstein <= high
    again = compare(one, other, resamples=99)
    assert {k: d.as_dict() for k, d in again.items()} == {k: d.as_dict() for k, d in far.items()}


def test_ground_measures_by_construction():
    rng = np.random.default_rng(0)
    flat = ground_measures(np.full((32, 32), 80, np.float32))
    assert flat["flat"] == 1.0 and flat["levels"] == 1.0 and flat["noise"] == pytest.approx(0.01)
    lines = ground_measures(np.repeat(rng.normal(100, 5, (32, 1)), 32, axis=1).astype(np.float32))
    assert lines["lines"] > 10  # rows differ, columns do not
    white = rng.normal(100, 4, (32, 32)).astype(np.float32)
    assert ground_measures(white)["noise"] == pytest.approx(4.0, rel=0.1)
    power = np.exp(spectrum(white))
    assert power[2:].max() / power[2:].min() < 8  # white is flat


# -------------------------------------------------------------------------------------- two-sample test


def test_auc_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 6, 30).astype(float), rng.integers(1, 8, 20).astype(float)
    pairs = (b[:, None] > a[None, :]).mean() + 0.5 * (b[:, None] == a[None, :]).mean()
    assert auc(a, b) == pytest.approx(pairs)


@given(st.lists(st.integers(0, 25), min_size=30, max_size=120), st.integers(2, 5), st.integers(0, 5))
def test_folds_share_no_group(groups, folds, seed):
    if len(set(groups)) < folds:
        with pytest.raises(IrstkitError, match="too few"):
            grouped_folds(groups, folds, np.random.default_rng(seed))
        return
    where = grouped_folds(groups, folds, np.random.default_rng(seed))
    for group in set(groups):
        assert len({int(f) for f, g in zip(where, groups, strict=True) if g == group}) == 1
    assert set(where.tolist()) == set(range(folds))


def patches(number, seed, blur=0.0):
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    out = rng.normal(0, 10, (number, 32, 32))
    out = gaussian_filter(out, (0, blur, blur)) if blur else out
    out[:, 14:18, 14:18] += 30 * out.std()
    return out


def test_two_sample_is_chance_for_equal_sets_and_sure_for_different_ones():
    pytest.importorskip("torch")
    one, same, other = patches(60, 1), patches(60, 2), patches(80, 3, blur=1.0)
    groups = [f"i{k // 2}" for k in range(80)]
    near = two_sample(one, same, groups[:60], groups[:60], seeds=2, epochs=5)
    far = two_sample(one, other, groups[:60], groups, seeds=1, epochs=8)
    assert 0.3 < near.auc < 0.7
    assert far.auc > 0.95
    assert near.interval[0] <= near.auc <= near.interval[1]
    assert (far.patches, far.groups) == ((60, 80), (30, 40))
    again = two_sample(one, same, groups[:60], groups[:60], seeds=2, epochs=5)
    assert again.as_dict() == near.as_dict()  # deterministic


def test_brightness_and_contrast_tell_nothing():
    pytest.importorskip("torch")
    one = patches(50, 1)
    groups = [str(k) for k in range(50)]
    found = two_sample(one, 3 * patches(50, 2) + 70, groups, groups, seeds=1, epochs=5)
    assert 0.25 < found.auc < 0.75


def test_too_few_images_are_told():
    pytest.importorskip("torch")
    with pytest.raises(IrstkitError, match="has patches of 3 images"):
        two_sample(patches(9, 1), patches(30, 2), [0, 1, 2] * 3, list(range(30)))


# -------------------------------------------------------------------------------------------- the verdict


def distance(key, reference, made, ks=0.4, p=0.005):
    def five(v):
        return (v * 0.5, v * 0.8, v, v * 1.2, v * 1.6)

    return Distance(
        key, (100, 100), five(reference), five(made), ks, (ks, ks), 1.0, (0.5, 1.5), 0.3, p, (reference, made)
    )


@pytest.mark.parametrize(
    ("key", "reference", "made", "changed", "op", "amount"),
    [
        ("area", 20, 10, "scenes.*.area", "times", 2.0),
        ("scr_10", 9, 6, "scenes.*.scr", "times", 1.5),
        ("contrast", 50, 40, "contrast.wanted", "times", 1.25),
        ("psf_anisotropy", 1.4, 1.2, "point.anisotropy", "excess times", 2.0),
        ("energy_inside", 0.7, 0.6, "point.energy", "plus", 0.1),
        ("skirt", 0.05, 0.02, "optics.glow", "plus", 0.12),
        ("halo", -0.2, -0.1, "optics.sharpen", "plus", 0.4),
        ("noise", 5.0, 4.0, "sensor.read", "plus", 3.0),
        ("noise", 1.0, 2.0, "background.coring", "plus", 3.0),
        ("flat", 0.5, 0.25, "background.coring", "plus", 1.0),
        ("gradient_tail", 5.0, 4.0, "sensor.jpeg", "plus", -4.0),
        ("ring_std", 5.0, 10.0, "background.contrast", "times", 0.5),
        ("whiteness", 0.5, 0.7, "background.scale", "times", 0.7),
    ],
)
def test_the_verdict_names_key_direction_and_amount(key, reference, made, changed, op, amount):
    preset = load_preset("real").as_dict()
    found = changes({key: distance(key, reference, made)}, preset)
    assert [(c.key, c.op) for c in found] == [(changed, op)]
    assert found[0].amount == pytest.approx(amount)
    assert changed in found[0].text and MEASURES[key].title in found[0].text and "now" in found[0].text


def changed(preset, *told):
    """Keys and amounts of the changes for distances given as (measure, reference, made, KS)."""
    return [(c.key, c.amount) for c in changes({d[0]: distance(*d) for d in told}, preset)]


def altered(**sections):
    """Preset ``real`` in plain values with keys of its sections replaced."""
    preset = load_preset("real").as_dict()
    for section, keys in sections.items():
        preset[section] = {**preset[section], **keys}
    return preset


def test_noise_that_was_added_is_taken_away_again():
    noisy = altered(sensor={"read": 2.0})
    [(key, amount)] = changed(noisy, ("noise", 1.0, 2.0, 0.4))
    assert key == "sensor.read" and amount == pytest.approx(1.0 - 2.0)  # sqrt(4 - 4 + 1) - 2
    [(key, amount)] = changed(noisy, ("noise", 1.0, 5.0, 0.4))
    assert amount == pytest.approx(-2.0)  # the rest is the backgrounds' own
    told = changes(
        {d[0]: distance(*d) for d in (("flat", 0.44, 0.13, 0.52), ("noise", 0.5, 2.1, 0.49))}, noisy
    )
    assert [(c.key, c.follows) for c in told] == [("sensor.read", None), ("background.coring", "sensor.read")]


def test_a_constant_without_excess_is_given_values():
    """1 + (1 - 1) x 3 is 1: a factor would leave it."""
    round_ones = altered(point={"anisotropy": {"value": 1.0}})
    [change] = changes({"psf_anisotropy": distance("psf_anisotropy", 1.4, 1.1)}, round_ones)
    assert (change.key, change.op, change.amount) == ("point.anisotropy", "set", 1.4)
    assert "give point.anisotropy values above 1, about 1.40 (now 1)" in change.text


def test_too_long_points_may_lack_blur():
    preset = load_preset("real").as_dict()
    assert ["or raise blur" in changes({"psf_anisotropy": distance("psf_anisotropy", r, m)}, preset)[0].text
            for r, m in ((1.4, 1.8), (1.8, 1.4))] == [True, False]  # fmt: skip


@pytest.mark.parametrize(
    ("policy", "light", "key", "amount"),
    [
        ("half", (0.7, 0.5), "mask.level", -0.2),  # less inside: cut lower
        ("half", (0.5, 0.7), "mask.level", 0.2),
        ("energy", (0.7, 0.5), "mask.energy", 0.2),
        ("energy", (0.5, 0.7), "mask.energy", -0.2),
        ("core", (0.7, 0.5), "point.energy", 0.2),
    ],
)
def test_a_mask_that_is_cut_elsewhere_is_told_by_its_policy(policy, light, key, amount):
    areas = (20, 10) if light[0] > light[1] else (10, 20)
    preset = altered(mask={"policy": policy})
    told = {"area": distance("area", *areas), "energy_inside": distance("energy_inside", *light)}
    found = changes(told, preset)
    if policy == "core":
        assert {c.key for c in found} == {"scenes.*.area", key}
        return
    assert [c.key for c in found] == [key]  # areas go the same way: the same targets, another cut
    assert found[0].amount == pytest.approx(amount)
    assert f"or choose another mask.policy than {policy}" in found[0].text
    told["area"] = distance("area", *areas[::-1])
    assert {c.key for c in changes(told, preset)} == {key, "scenes.*.area"}
    [alone] = changes({"area": distance("area", *areas)}, preset)
    assert f"or {'raise' if amount > 0 else 'lower'} {key}" in alone.text


def test_the_ring_alone_does_not_speak_for_the_backgrounds_contrast():
    """Of places with a given contrast lower SCRs take the rougher ones."""
    preset = load_preset("real").as_dict()
    calm = distance("deviation", 20, 20.5, ks=0.05)
    told = {
        "scr_10": distance("scr_10", 9, 4.5, ks=0.5),
        "ring_std": distance("ring_std", 5, 9),
        "deviation": calm,
    }
    found = changes(told, preset)
    assert [c.key for c in found] == ["scenes.*.scr"]
    assert "higher SCRs take the calmer" in remarks(told, found)[0]
    told["deviation"] = distance("deviation", 20, 40)
    found = changes(told, preset)
    assert "background.contrast" in [c.key for c in found]
    assert not remarks(told, found)


@pytest.mark.parametrize(
    ("told", "first", "follower"),
    [
        ([("scr_10", 9, 4.5, 0.5), ("halo", -0.06, -0.12, 0.37)], "scenes.*.scr", "optics.sharpen"),
        ([("psf_anisotropy", 1.4, 1.06, 0.61), ("psf_sigma", 1.3, 1.6, 0.56)], "blur", "point.anisotropy"),
        ([("area", 17, 37, 0.53), ("psf_sigma", 1.3, 1.5, 0.29)], "scenes.*.area", "blur"),
        ([("area", 17, 22, 0.28), ("psf_sigma", 1.3, 1.6, 0.56)], "blur", "scenes.*.area"),
        ([("noise", 0.5, 0.3, 0.4), ("flat", 0.4, 0.6, 0.35)], "background.coring", "sensor.read"),
    ],
)
def test_what_another_change_explains_comes_after_it(told, first, follower):
    found = changes({d[0]: distance(*d) for d in told}, load_preset("real").as_dict())
    assert [(c.key, c.follows) for c in found] == [(first, None), (follower, first)]
    assert f"may follow from {first}: move that first" in found[1].text


def test_dark_targets_are_told_by_their_share():
    dark = distance("dark", 0.02, 0.6)
    told = {"dark": dark, "rank": distance("rank", 0.0, 0.6)}
    found = changes(told, altered(contrast={"dark": 0.7}))
    assert [(c.key, round(c.amount, 3)) for c in found] == [("contrast.dark", -0.58)]
    assert changed(altered(contrast={"dark": 0.5}), ("dark", 0.02, 0.6)) == [("contrast.dark", -0.5)]
    assert changed(load_preset("real").as_dict(), ("dark", 0.02, 0.6)) == []  # there are none to take away
    assert "mean 0.6 against 0.02" in found[0].text
    assert remarks(told, found) == []  # the rank follows
    assert "should go from 3 to 1.19" in remarks({"count": distance("count", 1.19, 3)})[0]


def test_the_verdict_is_silent_where_nothing_differs_or_there_is_no_key():
    preset = load_preset("nudt").as_dict()
    assert changes({"area": distance("area", 20, 10, p=0.2)}, preset) == []  # chance
    assert changes({"area": distance("area", 20, 10, ks=0.05)}, preset) == []  # too little
    assert changes({"gradient_tail": distance("gradient_tail", 5, 4)}, preset) == []  # nudt has no JPEG step
    assert [c.key for c in changes({"psf_sigma": distance("psf_sigma", 2, 1)}, preset)] == ["point.sigma"]
    wide = {**preset, "blur": {"uniform": [1.5, 2.5]}}
    assert [c.key for c in changes({"psf_sigma": distance("psf_sigma", 1, 2)}, wide)] == ["blur"]
    assert "other backgrounds" in remarks({"level": distance("level", 100, 50)})[0]


@pytest.mark.parametrize(
    ("targets", "backgrounds", "told"),
    [
        (0.95, 0.93, "the backgrounds explain"),
        (0.9, 0.55, "it is the targets"),
        (0.8, 0.7, "both give it away"),
        (0.55, 0.52, "neither gives the set away"),
    ],
)
def test_the_summary_tells_targets_from_backgrounds(targets, backgrounds, told):
    lines = summary({}, *({"auc": v, "interval": [v - 0.1, v + 0.1]} for v in (targets, backgrounds)))
    assert told in " ".join(lines)
    assert summary({}, {"left_out": "no torch"}, None)[0] == "No two-sample test of targets: no torch."


# ------------------------------------------------------------------------------------------- the command


def test_few_resamples_do_not_make_sets_equal(make_sets):
    """With 20 permutations p cannot come below 1/21: no distribution could ever differ."""
    root = make_sets(one=(12, 90), two=(12, 200))
    from irstkit.synth.realism import realism

    found = realism(root / "two", root / "one", resamples=20, test=False)
    assert found.distances["level"].p <= 0.01 and found.distances["level"].differs


@pytest.fixture
def make_sets(tmp_path):
    """``make_sets(NAME=(images, level[, bits]))``: sets with one target an image on noise about a level."""

    def make(**wanted):
        for name, (number, level, *bits) in wanted.items():
            rng = np.random.default_rng(len(name))
            for k in range(number):
                image = rng.normal(level, 4, (64, 64))
                image[30:33, 30:33] += 40
                mask = np.zeros((64, 64), np.uint8)
                mask[30:33, 30:33] = 255
                scaled = image.clip(0, 255).astype(np.uint8) if not bits else (image * 200).astype(np.uint16)
                write_png(tmp_path / name / "images" / f"{k}.png", scaled)
                write_png(tmp_path / name / "masks" / f"{k}.png", mask)
        return tmp_path

    return make


@pytest.mark.parametrize("number", [1, 3])
def test_a_set_too_small_to_compare_is_said_to_be(make_sets, irstkit, number):
    root = make_sets(small=(number, 100), reference=(12, 100))
    out = root / "r.html"
    result = irstkit(
        "synth",
        "report",
        root / "small",
        "--reference",
        root / "reference",
        "--no-test",
        "--out",
        out,
        "--json",
    )
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    assert facts["not_compared"]["area"] == {"reference": 12, "made": number}
    told = facts["verdict"]["summary"][-1]
    assert (
        told
        == f"No distribution was compared: the made set has at most {number} of their values, 8 are needed."
    )
    assert "None: both sets need at least 8 values" in out.read_text()


def test_bit_depths_and_remarks_are_told_on_the_terminal_too(make_sets, irstkit):
    root = make_sets(deep=(12, 100, 16), reference=(12, 100))
    result = irstkit(
        "synth", "report", root / "deep", "--reference", root / "reference", "--no-test", "--out", root / "r.html",
        "--resamples", 20,
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert "bit depths differ (16 against 8)" in result.stdout
    assert "the backgrounds' level (median" in result.stdout


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    generate(root / "a", 24, 1, preset="nudt", size=96, workers=1)
    generate(root / "b", 24, 2, preset="nudt", size=96, workers=1, overrides=["blur={value: 2.0}"])
    return root


def test_report_page_and_json(sets, tmp_path, irstkit):
    out = tmp_path / "r.html"
    run = ("synth", "report", sets / "b", "--reference", f"{sets / 'a'}:synth/train", "--resamples", 20)
    first = irstkit(*run, "--out", out, "--json", "--no-test")
    assert first.exit_code == 0, first.stderr
    facts = json.loads(first.stdout)
    assert facts["made"]["images"] == facts["reference"]["images"] == 24
    assert set(facts["distances"]) >= {
        "area",
        "scr_3",
        "scr_20",
        "psf_sigma",
        "noise",
        "count",
        "rank",
        "x",
        "y",
    }
    assert facts["two_sample"]["targets"] == {"left_out": "it was not asked for"}
    assert len(facts["spectrum"]["made"]) == len(facts["spectrum"]["frequency"]) == 16
    assert facts["verdict"]["summary"]
    page = out.read_text()
    assert not re.search(r"(src|href)=\"(?!data:)", page) and "<script" not in page
    again = irstkit(*run, "--json", "--no-test")
    assert again.stdout == first.stdout  # deterministic
    assert irstkit(*run, "--out", out, "--no-test").exit_code == 1  # there already


def test_report_with_the_test_on_a_few_patches(sets, irstkit, tmp_path):
    pytest.importorskip("torch")
    out = tmp_path / "r.html"
    result = irstkit(
        "synth", "report", sets / "b", "--reference", sets / "a", "--resamples", 20, "--patches", 20, "--images", 20,
        "--out", out, "--json", "--overwrite",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    told = facts["two_sample"]["targets"]
    assert all(10 <= n <= 20 for n in told["patches"])  # those that lie inside the image
    assert 0 <= told["interval"][0] <= told["auc"] <= told["interval"][1] <= 1
    assert "What gives the set away" in out.read_text()


def test_without_torch_the_report_says_so(sets, irstkit, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    result = irstkit("synth", "report", sets / "b", "--reference", sets / "a", "--resamples", 20, "--json")
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    assert "torch is not installed" in facts["two_sample"]["targets"]["left_out"]
    assert facts["distances"]["area"]["ks"] >= 0


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["{a}"], 2, "Missing option '--reference'"),
        (["{a}", "--reference", "{b}"], 2, "--out PAGE.html, --json"),
        (["{a}", "--reference", "{b}", "--out", "x.txt"], 2, "the page is an .html file"),
        (["{a}", "--reference", "{a}/nothing", "--json"], 1, "nothing"),
        (["{a}:synth/val", "--reference", "{b}", "--json"], 1, "no split 'synth/val'"),
        (["{a}", "--reference", "{empty}", "--json"], 1, "the reference set has no target"),
    ],
)
def test_bad_input(sets, tmp_path, irstkit, arguments, code, told):
    empty = tmp_path / "empty"
    (empty / "images").mkdir(parents=True)
    (empty / "masks").mkdir()
    import cv2

    for k in range(3):
        cv2.imwrite(str(empty / "images" / f"{k}.png"), np.full((48, 48), 9 * k + 50, np.uint8))
        cv2.imwrite(str(empty / "masks" / f"{k}.png"), np.zeros((48, 48), np.uint8))
    places = {"a": sets / "a", "b": sets / "b", "empty": empty}
    result = irstkit("synth", "report", *(a.format(**places) for a in arguments))
    assert result.exit_code == code
    assert told in result.stderr
