"""The contrast solver against the definition in annotate/scr.py."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irstkit.annotate.masks import Instance
from irstkit.annotate.scr import measure_contrast
from irstkit.synth.contrast import grade, rounded, solve, spill_limit
from irstkit.synth.targets import finish, point_shape, spot_shape


def scene(seed, deviation, level=90, size=48):
    rng = np.random.default_rng(seed)
    return np.rint(np.clip(rng.normal(level, deviation, (size, size)), 0, 255))


def put(window, patch, row=24, column=24):
    """The patch in a window-sized array, its mask there, its instance."""
    light, mask = np.zeros_like(window), np.zeros(window.shape, bool)
    y, x = row + patch.top, column + patch.left
    h, w = patch.values.shape
    light[y : y + h, x : x + w], mask[y : y + h, x : x + w] = patch.values, patch.mask
    x1, y1, x2, y2 = patch.box
    box = (x1 + x, y1 + y, x2 + x, y2 + y)
    return light, mask, Instance(box, patch.mask[y1:y2, x1:x2])


def ring_of(box, mask, ring=10):
    out = np.zeros(mask.shape, bool)
    out[max(box[1] - ring, 0) : box[3] + ring, max(box[0] - ring, 0) : box[2] + ring] = True
    return out & ~mask


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    deviation=st.floats(2, 12),
    requested=st.floats(1, 8),
    sigma=st.sampled_from([0.2, 0.5, 1.0]),
    kind=st.sampled_from(["point", "spot"]),
    sign=st.sampled_from([1, -1]),
)
def test_requested_scr_is_measured_on_the_written_image(seed, deviation, requested, sigma, kind, sign):
    window = scene(seed, deviation, level=110)
    shape = point_shape(9, 0.1, -0.2, 0.8) if kind == "point" else spot_shape(21, 0.3, 0.1, 1.4, 0.7)
    light, mask, instance = put(window, finish(shape, sigma))
    ring = ring_of(instance.box, mask)
    found = solve(window, light, mask, ring, requested, sign, 255)
    if found is None:  # the noise alone has more contrast than was asked for
        base = measure_contrast(window, [instance])[0].scr
        assert base * sign > requested * 0.9
        return
    image = rounded(255)(window + found.amplitude * light, None)
    (measured,) = measure_contrast(image.astype(np.uint8), [instance])
    assert measured.scr * sign == pytest.approx(found.achieved, abs=1e-9)
    room = (255 - 110 if sign > 0 else 110) - 3 * deviation
    if requested * deviation * 2 < room and requested < 0.6 * spill_limit(light, mask, int(ring.sum())):
        error = abs(found.achieved - requested)
        assert error <= 0.05 * requested or error * measured.ring_std <= 1.0
        assert found.status in ("ok", "quantised")


@pytest.mark.parametrize(
    ("achieved", "requested", "deviation", "expected", "why"),
    [
        (5.2, 5.0, 10.0, "ok", "4 % off"),
        (5.3, 5.0, 2.0, "quantised", "6 % off, but 0.6 gray levels"),
        (5.3, 5.0, 10.0, "saturated", "6 % and 3 gray levels off"),
    ],
)
def test_grade(achieved, requested, deviation, expected, why):
    assert grade(achieved, requested, deviation) == expected, why


def test_spill_limit_is_never_exceeded():
    window = scene(1, 1.0)
    light, mask, instance = put(window, finish(point_shape(5, 0.0, 0.0, 1.2), 1.0))
    ring = ring_of(instance.box, mask)
    limit = spill_limit(light, mask, int(ring.sum()))
    reached = [measure_contrast(window + a * light, [instance])[0].scr for a in (50, 500, 5e4, 5e6)]
    assert max(reached) <= limit * (1 + 1e-4)  # the noise under the spill may help a little
    assert reached[-1] == pytest.approx(limit, rel=1e-3)


@pytest.mark.parametrize("flat", [True, False])
def test_undefined_rings_have_no_solution(flat):
    window = np.full((48, 48), 80.0)
    light, mask, instance = put(window, finish(spot_shape(9, 0, 0, 1, 0), 0.2))
    ring = ring_of(instance.box, mask)
    if not flat:
        ring = np.zeros_like(ring)
        ring[0, :15] = True  # fewer than 16 pixels
        assert solve(scene(2, 5), light, mask, ring, 3.0, 1, 255) is None
        return
    light[~mask] = 0.0  # nothing spills: the ring stays flat at any amplitude
    assert solve(window, light, mask, ring, 3.0, 1, 255) is None
