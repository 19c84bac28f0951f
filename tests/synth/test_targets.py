"""Patches: exact PSF, exact areas, named mask policies."""

from math import pi

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from irstkit.synth import targets
from irstkit.synth.silhouettes import VIEWS


def pixel_integral(k, centre, sigma):
    return quad(
        lambda t: np.exp(-0.5 * ((t - centre) / sigma) ** 2) / (sigma * np.sqrt(2 * pi)),
        k - 0.5, k + 0.5, epsabs=1e-14, epsrel=1e-12,
    )[0]  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(x=st.floats(-0.5, 0.5), y=st.floats(-0.5, 0.5), sigma=st.floats(0.4, 2.5))
def test_psf_is_the_integral_over_each_pixel(x, y, sigma):
    values = targets.gaussian_pixels(x, y, sigma)
    r = values.shape[0] // 2
    across = [pixel_integral(k, x, sigma) for k in range(-r, r + 1)]
    down = [pixel_integral(k, y, sigma) for k in range(-r, r + 1)]
    assert np.abs(values - np.outer(down, across)).max() < 1e-9
    assert abs(values.sum() - 1) < 1e-6


@settings(max_examples=8, deadline=None)
@given(
    x=st.floats(-0.5, 0.5), y=st.floats(-0.5, 0.5), sigma=st.floats(0.6, 1.5), ratio=st.floats(1.05, 2),
    angle=st.floats(0, pi),
)  # fmt: skip
def test_turned_psf_against_a_fine_sum(x, y, sigma, ratio, angle):
    long, short = sigma * np.sqrt(ratio), sigma / np.sqrt(ratio)
    values = targets.turned_gaussian_pixels(x, y, long, short, angle)
    r, n = values.shape[0] // 2, 40  # midpoint sums of a smooth bell converge faster than any power
    t = (np.arange((2 * r + 1) * n) + 0.5) / n - r - 0.5
    dx, dy = t[None, :] - x, t[:, None] - y
    u, v = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
    fine = np.exp(-0.5 * ((u / long) ** 2 + (v / short) ** 2)) / (2 * pi * long * short)
    sums = fine.reshape(2 * r + 1, n, 2 * r + 1, n).sum(axis=(1, 3)) / n**2
    assert abs(values.sum() - 1) < 1e-6
    assert np.abs(values - sums).max() < 2e-4  # a midpoint sum over one pixel is only that good
    assert np.corrcoef(values.ravel(), sums.ravel())[0, 1] > 0.999999


@pytest.mark.parametrize("area", [1, 2, 5, 9, 14, 20, 33, 60])
@pytest.mark.parametrize("aspect", [1.0, 1.8, 3.0])
def test_spot_core_has_exactly_the_area_in_one_piece(area, aspect):
    for k in range(12):
        shape = targets.spot_shape(area, 0.07 * k - 0.4, 0.31 - 0.06 * k, aspect, 0.3 * k)
        assert shape.core.sum() == area
        assert cv2.connectedComponents(shape.core.astype(np.uint8), connectivity=8)[0] == 2
        assert 0 <= shape.values.min() <= shape.values.max() <= 1


@pytest.mark.parametrize("area", [5, 9])
def test_point_cores_near_a_pixel_centre_are_plus_and_square(area):
    shape = targets.point_shape(area, 0.15, -0.1, 0.9)
    ys, xs = np.nonzero(shape.core)
    assert (np.ptp(xs), np.ptp(ys)) == (2, 2)
    assert shape.core.sum() == area


@pytest.mark.parametrize("silhouette", sorted(VIEWS))
def test_silhouettes_have_about_the_area_in_one_piece(silhouette):
    rng = np.random.default_rng(3)
    areas = []
    for _ in range(60):
        shape = targets.extended_shape(silhouette, 60, *(rng.random(2) - 0.5), rng)
        assert cv2.connectedComponents(shape.core.astype(np.uint8), connectivity=8)[0] == 2
        assert shape.values.shape == shape.core.shape
        areas.append(int(shape.core.sum()))
    assert max(areas) <= 60
    assert np.median(areas) >= 55


def test_mask_policies():
    shape = targets.point_shape(9, 0.0, 0.0, 1.2)
    core = targets.finish(shape, 0.5, "core")
    half = targets.finish(shape, 0.5, "half", level=0.5)
    energy = targets.finish(shape, 0.5, "energy", energy=0.8)
    assert core.mask.sum() == 9
    assert (half.values[half.mask] >= 0.5).all() and (half.values[~half.mask] < 0.5).all()
    inside = energy.values[energy.mask].sum() / energy.values.sum()
    least = energy.values[energy.mask].min() / energy.values.sum()
    assert inside >= 0.8 > inside - least
    with pytest.raises(ValueError, match="core, half, energy"):
        targets.finish(shape, 0.5, "nothing")


@pytest.mark.parametrize("sigma", [0.2, 0.5, 1.0])
def test_blur_is_the_5x5_gaussian(sigma):
    shape = targets.spot_shape(20, 0.2, 0.1, 1.3, 0.4)
    patch = targets.finish(shape, sigma, cut=0.0)
    t = np.arange(-2, 3)
    kernel = np.exp(-0.5 * (t / sigma) ** 2)
    kernel /= kernel.sum()
    wide = np.pad(shape.values, 4)
    plain = sum(
        kernel[i] * kernel[j] * np.roll(wide, (i - 2, j - 2), (0, 1)) for i in range(5) for j in range(5)
    )
    plain /= plain.max()
    y, x = shape.top - 4, shape.left - 4
    part = plain[
        patch.top - y : patch.top - y + patch.values.shape[0],
        patch.left - x : patch.left - x + patch.values.shape[1],
    ]
    assert np.allclose(part, patch.values, atol=1e-12)
    assert part.sum() == pytest.approx(plain.sum())


def test_motion_kernel_has_the_length_and_direction():
    for length, angle in ((3.0, 0.0), (5.0, pi / 3), (1.5, pi / 2)):
        kernel = targets.motion_kernel(length, angle)
        r = kernel.shape[0] // 2
        t = np.arange(-r, r + 1)
        along = np.add.outer(t * np.sin(angle), t * np.cos(angle))
        assert kernel.sum() == pytest.approx(1.0)
        assert (kernel * along).sum() == pytest.approx(0.0, abs=1e-9)
        # a line's variance is length^2 / 12; splitting between pixels adds up to 1/4
        assert length**2 / 12 - 0.02 <= (kernel * along**2).sum() <= length**2 / 12 + 0.27
