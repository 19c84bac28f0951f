"""Removed targets leave the background's own level, texture and noise."""

import cv2
import numpy as np
import pytest

from irstkit.synth import removal
from irstkit.synth.procedural import procedural
from irstkit.synth.removal import MARGIN, MAX_MARGIN, fill_holes, find_holes, remove_targets


def backgrounds(kind, seed, size=128):
    rng = np.random.default_rng(seed)
    if kind == "noise":
        return np.clip(rng.normal(90, 8, (size, size)), 0, 255).round().astype(np.uint8)
    if kind == "smooth":
        return np.clip(cv2.GaussianBlur(rng.normal(90, 300, (size, size)), (0, 0), 8), 0, 255).astype(
            np.uint8
        )
    wave = np.sin(np.arange(size) / 3)[:, None] * 20 + np.arange(size)[None, :] / 2
    return np.clip(60 + wave + rng.normal(0, 2, (size, size)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("kind", ["noise", "smooth", "waves"])
def test_the_filling_has_the_level_and_the_roughness_of_the_place(kind):
    errors, ratios = [], []
    for seed in range(12):
        truth = backgrounds(kind, seed)
        rng = np.random.default_rng(seed + 100)
        y, x = rng.integers(20, 100, 2)
        mask = np.zeros(truth.shape, bool)
        mask[y : y + 4, x : x + 5] = True
        dirty = np.clip(truth + 150 * cv2.GaussianBlur(mask.astype(float), (5, 5), 1), 0, 255).astype(
            np.uint8
        )
        clean = remove_targets(dirty, mask)
        hole = find_holes(dirty, mask)
        assert np.array_equal(clean[~hole], dirty[~hole])
        around = truth[y - 12 : y + 16, x - 12 : x + 17].astype(float)
        errors.append((clean[hole].mean() - truth[hole].mean()) / around.std())
        rough = [cv2.Laplacian(i.astype(float), cv2.CV_64F)[hole].std() for i in (clean, truth)]
        ratios.append(rough[0] / rough[1])
    assert np.abs(errors).mean() < (
        0.35 if kind == "smooth" else 0.25
    )  # there the hole is larger than it need be
    assert 0.75 < np.median(ratios) < 1.3


def test_sixteen_bits_borders_and_hopeless_masks():
    image = (backgrounds("smooth", 3).astype(np.uint16) * 200) + 17
    mask = np.zeros(image.shape, bool)
    mask[:3, :4] = mask[-2:, 60:66] = True
    clean = remove_targets(image, mask)
    assert clean.dtype == np.uint16 and clean.shape == image.shape
    assert np.abs(clean.astype(int) - image).max() < 20000
    everything = remove_targets(image, np.ones(image.shape, bool))
    assert everything.shape == image.shape
    assert np.array_equal(remove_targets(image, np.zeros(image.shape, bool)), image)


def test_the_hole_holds_the_targets_glow_and_little_more():
    rng = np.random.default_rng(0)
    image = rng.normal(90, 3, (96, 96))
    rows, columns = np.mgrid[:96, :96]
    r = np.hypot(rows - 48, columns - 48)
    mask = r <= 2.5
    away = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    found = {}
    for glow in (1.0, 4.0):
        dirty = np.clip(image + 120 * np.exp(-0.5 * (r / (1.5 * glow)) ** 2), 0, 255).astype(np.uint8)
        found[glow] = find_holes(dirty, mask)
        assert found[glow][away <= MARGIN].all()
        assert not found[glow][away > MAX_MARGIN + 1].any()
    assert away[found[1.0]].max() <= MARGIN + 4
    assert away[found[4.0]].max() >= MARGIN + 4


def auc(a, b):
    return float(np.mean([np.mean(x > np.asarray(b)) + 0.5 * np.mean(x == np.asarray(b)) for x in a]))


def traces(image, hole):
    """Roughness inside over around, step across the rim over that around, |level| over the deviation around."""
    values = image.astype(float)
    around = cv2.dilate(hole.astype(np.uint8), np.ones((17, 17))).astype(bool)
    around &= ~cv2.dilate(hole.astype(np.uint8), np.ones((3, 3))).astype(bool)
    rough = cv2.Laplacian(values, cv2.CV_64F)
    steps = np.abs(np.diff(values, axis=1))
    rim = hole[:, 1:] != hole[:, :-1]
    return (
        rough[hole].std() / (rough[around].std() + 0.1),
        steps[rim].mean() / (steps[around[:, 1:] & around[:, :-1]].mean() + 0.1),
        abs(values[hole].mean() - values[around].mean()) / (values[around].std() + 0.1),
    )


def test_a_filled_place_cannot_be_told_from_the_same_place_untouched():
    truths, fills, smooth = [], [], []
    for k, scene in enumerate(("cloud", "sea", "field", "city") * 12):
        rng = np.random.default_rng(k)
        image, _ = procedural(scene, 128, rng)
        y, x = rng.integers(16, 104, 2)
        hole = np.zeros(image.shape, np.uint8)
        cv2.ellipse(hole, (int(x), int(y)), (9, 6), float(rng.uniform(0, 180)), 0, 360, 1, -1)
        hole = hole.astype(bool)
        truths.append(traces(image, hole))
        fills.append(traces(fill_holes(image, hole), hole))
        smooth.append(traces(cv2.inpaint(image, hole.astype(np.uint8), 3, cv2.INPAINT_TELEA), hole))
    truths, fills, smooth = (np.array(v) for v in (truths, fills, smooth))
    found = [auc(fills[:, k], truths[:, k]) for k in range(3)]
    assert all(0.38 <= v <= 0.62 for v in found), found  # 48 pairs: two deviations of chance are 0.1
    assert auc(smooth[:, 0], truths[:, 0]) < 0.2, "the measure must see an ordinary inpainting"


@pytest.mark.parametrize("kind", ["noise", "waves"])
def test_a_filling_with_a_rough_rim_gets_the_rim_of_its_donor(kind):
    for seed in range(6):
        values = backgrounds(kind, seed).astype(float)
        inside = np.zeros((21, 21), np.uint8)
        cv2.circle(inside, (10, 10), 8, 1, -1)
        inside = inside.astype(bool)
        window, donor, hole = (40, 50, 61, 71), (80, 20), np.zeros(values.shape, bool)
        hole[50:71, 40:61] = inside
        there = removal._Texture(values, hole, (80, 20, 101, 41), inside)
        outermost = inside & ~cv2.erode(inside.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
        jump = np.random.default_rng(seed).normal(0, 1.5 * there.around[2], inside.shape)
        values[50:71, 40:61] += np.where(outermost, jump, 0.0)
        before = removal._Texture(values, hole, window, inside)
        outside = values[~hole].copy()
        removal._match_texture(values, hole, window, inside, donor)
        after = removal._Texture(values, hole, window, inside)
        there, before, after = (t.measure() / t.around for t in (there, before, after))
        wanted, was, now = (np.log(m[2]) for m in (there, before, after))
        assert was > wanted + 0.2, "the rim is rough at first"
        assert abs(now - wanted) < 0.35 * (was - wanted)
        assert np.array_equal(values[~hole], outside)
