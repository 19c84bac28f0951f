"""Removed targets leave the background's own level, texture and noise."""

import cv2
import numpy as np
import pytest

from irstkit.synth.removal import MARGIN, remove_targets


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
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * MARGIN + 1,) * 2)
        hole = cv2.dilate(mask.astype(np.uint8), kernel).astype(bool)
        assert np.array_equal(clean[~hole], dirty[~hole])
        around = truth[y - 12 : y + 16, x - 12 : x + 17].astype(float)
        errors.append((clean[hole].mean() - truth[hole].mean()) / around.std())
        rough = [cv2.Laplacian(i.astype(float), cv2.CV_64F)[hole].std() for i in (clean, truth)]
        ratios.append(rough[0] / rough[1])
    assert np.abs(errors).mean() < 0.25
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
