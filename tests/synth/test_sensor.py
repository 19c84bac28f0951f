"""Every part of the camera measured back from what it wrote."""

import numpy as np
import pytest

from irstkit.synth.preset import Sensor
from irstkit.synth.sensor import Camera

SIZE = (256, 256)


def frames(count=24, level=100.0, top=255, seed=5, **settings):
    """(count, H, W) written frames of an even scene at ``level`` 8-bit gray levels."""
    sensor = Sensor(**settings)
    unit = top / 255
    return (
        np.stack(
            [
                Camera(sensor, np.random.default_rng(k), SIZE, top, seed).expose(np.full(SIZE, level * unit))
                for k in range(count)
            ]
        ).astype(float)
        / unit
    )


def deviation(stack):
    return float(stack.std(axis=0).mean())


def test_everything_off_changes_nothing():
    image = np.random.default_rng(0).integers(0, 256, SIZE).astype(np.uint8)
    assert not Sensor().active
    assert np.array_equal(Camera(Sensor(), np.random.default_rng(1), SIZE, 255, 0).expose(image), image)


def test_read_noise_deviation():
    assert deviation(frames(read=3.0, top=65535)) == pytest.approx(3.0, rel=0.05)


def test_photon_transfer_slope_is_the_shot_parameter():
    levels = [40.0, 80.0, 160.0, 200.0]
    variances = [frames(level=v, shot=0.05, top=65535).var(axis=0, ddof=1).mean() for v in levels]
    slope, offset = np.polyfit(levels, variances, 1)
    assert slope == pytest.approx(0.05, rel=0.05)
    assert offset == pytest.approx(0.0, abs=0.1)


def test_fixed_pattern_stays_and_is_split_into_gain_and_offset():
    settings = {"fixed_gain": 0.02, "fixed_offset": 1.5, "read": 1.0, "top": 65535}
    dark, bright = frames(level=20, **settings).mean(axis=0), frames(level=200, **settings).mean(axis=0)
    assert np.corrcoef(dark.ravel(), bright.ravel())[0, 1] > 0.3
    gain = (bright - dark) / 180
    noise = 2 / 24 / 180**2  # the read noise left in the means
    assert np.sqrt(gain.var() - noise) == pytest.approx(0.02, rel=0.05)
    assert np.sqrt((dark - 20 * gain).var()) == pytest.approx(1.5, rel=0.08)
    other = frames(level=200, seed=6, **settings).mean(axis=0)
    assert abs(np.corrcoef(bright.ravel(), other.ravel())[0, 1]) < 0.1  # another seed, another camera


@pytest.mark.parametrize(("name", "axis"), [("row", 2), ("column", 1)])
def test_row_and_column_noise(name, axis):
    stack = frames(**{name: 2.0, "read": 1.0, "top": 65535})
    lines = stack.mean(axis=axis)
    assert np.sqrt(lines.var() - 1 / 256) == pytest.approx(2.0, rel=0.08)
    across = stack.mean(axis=3 - axis)
    assert across.std() < 0.35  # nothing in the other direction but what is left of the noise


def test_dead_pixels_are_the_same_in_every_frame():
    stack = frames(dead=0.01, read=2.0)
    still = stack.std(axis=0) == 0
    assert still.mean() == pytest.approx(0.01, rel=0.2)
    assert set(np.unique(stack[0][still])) == {0.0, 255.0}


def test_gain_and_offset():
    low = frames(4, level=50, gain={"value": 1.2}, offset={"value": 10.0}, top=65535)
    high = frames(4, level=150, gain={"value": 1.2}, offset={"value": 10.0}, top=65535)
    assert (high.mean() - low.mean()) / 100 == pytest.approx(1.2, abs=1e-3)
    assert low.mean() == pytest.approx(70.0, abs=1e-2)


def test_quantisation_is_uniform():
    ramp = np.tile(np.linspace(50, 60, SIZE[1]), (SIZE[0], 1))
    written = Camera(Sensor(), np.random.default_rng(0), SIZE, 255, 0).expose(ramp).astype(float)
    assert np.abs(written - ramp).max() <= 0.5
    assert (written - ramp).std() == pytest.approx(1 / np.sqrt(12), rel=0.03)


def test_a_window_is_rendered_as_the_frame_is():
    sensor = Sensor(shot=0.02, read=1, fixed_gain=0.01, fixed_offset=1, row=1, column=1, dead=0.01)
    camera = Camera(sensor, np.random.default_rng(3), SIZE, 255, 1)
    signal = np.random.default_rng(4).uniform(0, 255, SIZE)
    window = (30, 50, 71, 92)
    part = camera.at(window)(signal[50:92, 30:71].ravel(), None).reshape(42, 41)
    assert np.array_equal(part, camera.expose(signal)[50:92, 30:71])
