"""Tracks, the moving view, looks, layers, frames: each by what must hold of it."""

from dataclasses import replace
from math import pi

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.registration import phase_cross_correlation

from irstkit.annotate.errors import IrstkitError
from irstkit.annotate.files import write_png
from irstkit.synth.recipe import Ground
from irstkit.synth.sequences import tracks as ways
from irstkit.synth.sequences.appearance import boxed_shape
from irstkit.synth.sequences.canvas import draw_canvas
from irstkit.synth.sequences.frames import background, make_frame
from irstkit.synth.sequences.generate import prepare_sequences
from irstkit.synth.sequences.layers import draw_veil, draw_water, torus
from irstkit.synth.sequences.listing import link
from irstkit.synth.sequences.plan import make_plan
from irstkit.synth.sequences.platform import PAD, TAPS, camera_path, shift_kernel, view
from irstkit.synth.sequences.preset import Clouds, Platform, Sea
from irstkit.synth.targets import finish

REGION = ways.Region(10, 8, 90, 70)
SEEDS = st.integers(0, 2**32 - 1)

PLAIN = (  # no camera noise, nothing that moves but what a test asks for
    "sensor={}", "sequence.platform={drift: {value: 0}, jitter: {value: 0}}", "sequence.clouds={chance: 0}",
    "scenes.all.count={value: 1}", "scene_mix={field: 1}",
)  # fmt: skip


def recipe(tmp_path, *changes, preset="mirsdt", frames=20, size=(96, 80), seed=3, backgrounds=(), **more):
    return prepare_sequences(
        tmp_path / "b.raw", 4, frames, seed, backgrounds, preset, size=size, overrides=changes, **more
    )


# ------------------------------------------------------------------------------------------------ tracks


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(1, 200), st.floats(0, 30))
def test_tracks_stay_inside_and_do_not_jump(seed, frames, speed):
    rng = np.random.default_rng(seed)
    paths = {
        "constant": ways.constant(rng, frames, REGION, speed),
        "manoeuvre": ways.manoeuvre(rng, frames, REGION, speed, 5.0),
        "hover": ways.hover(rng, frames, REGION, max(speed, 0.01), 3.0),
    }
    paths["first"], paths["second"] = ways.crossing(rng, frames, REGION, (speed, speed / 2))
    for name, path in paths.items():
        assert path.shape == (frames, 2) and REGION.holds(path), name
        steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
        assert (steps <= 1.45 * speed + 2.5).all(), name
        if name in ("constant", "first", "second"):
            assert np.abs(np.diff(path, n=2, axis=0)).max(initial=0) < 1e-8, name  # one velocity
            assert (steps <= speed + 1e-9).all(), name


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(3, 200), st.floats(0.05, 20))
def test_leaving_tracks_leave_and_entering_ones_enter(seed, frames, speed):
    inner = REGION.shrunk(9, 7)
    leaving = ways.leaving(np.random.default_rng(seed), frames, inner, REGION, speed)
    assert inner.holds(leaving[:1]) and not REGION.holds(leaving[-1:])
    assert np.abs(np.diff(leaving, n=2, axis=0)).max() < 1e-8
    outside = [not REGION.holds(leaving[k : k + 1]) for k in range(frames)]
    assert outside == sorted(outside)  # once out, never back
    entering = ways.entering(np.random.default_rng(seed), frames, inner, REGION, speed)
    assert np.array_equal(entering, leaving[::-1])


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_crossing_tracks_meet_in_the_middle_third(seed):
    a, b = ways.crossing(np.random.default_rng(seed), 91, REGION, (1.0, 0.7))
    apart = np.linalg.norm(a - b, axis=1)
    assert 25 <= int(np.argmin(apart)) <= 65 and apart.min() <= 3.0


# ---------------------------------------------------------------------------------------------- the view


def scene(rng, size=(200, 220), soften=0.7):
    rough = cv2.GaussianBlur(rng.normal(0, 200, size), (0, 0), 4) + rng.normal(0, 2, size)
    return cv2.GaussianBlur((110 + rough).astype(np.float32), (0, 0), soften)


def test_a_view_at_whole_pixels_is_a_piece_of_the_canvas():
    canvas = scene(np.random.default_rng(0))
    assert np.abs(view(canvas, (30.0, 20.0), (64, 80)) - canvas[20:84, 30:110]).max() < 1e-3


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 0.999), st.floats(0, 0.999))
def test_shifting_by_a_part_and_by_the_rest_is_shifting_by_one(fx, fy):
    canvas = scene(np.random.default_rng(1))
    once = view(canvas, (20 + fx, 20 + fy), (140, 160))
    twice = view(once, (10 + 1 - fx, 10 + 1 - fy), (100, 120))
    assert np.abs(twice - canvas[31:131, 31:151]).std() < 0.02 * canvas.std()


@pytest.mark.parametrize("frequency", [0.05, 0.15, 0.25, 0.33])
def test_the_filters_gain_does_not_depend_on_the_phase(frequency):
    """Else the background would grow sharp and soft as it moves. Bilinear: 23 % at a quarter cycle a pixel."""
    at = np.arange(-TAPS // 2 + 1, TAPS // 2 + 1)
    gains = [
        abs(np.sum(shift_kernel(f) * np.exp(2j * pi * frequency * (at - f))))
        for f in np.linspace(0, 0.99, 34)
    ]
    assert max(gains) - min(gains) < 0.015 and abs(np.mean(gains) - 1) < 0.015


def test_the_strength_of_the_backgrounds_own_noise_does_not_depend_on_the_phase():
    noise = np.random.default_rng(0).normal(0, 10, (400, 420)).astype(np.float32)
    canvas = cv2.GaussianBlur(noise, (0, 0), 0.7)
    still, between = (float(view(canvas, (10 + f, 10 + f), (370, 390)).std()) for f in (0.0, 0.5))
    assert still * 0.97 < between < still


@pytest.mark.parametrize("corner", [(3.9, 20.0), (20.0, 3.5), (136.5, 20.0), (20.0, 132.0)])
def test_a_view_beyond_the_canvas_is_refused(corner):
    with pytest.raises(ValueError, match="leaves the canvas"):
        view(scene(np.random.default_rng(0), (200, 220)), corner, (64, 80))


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(1, 300), st.floats(0, 80), st.floats(0, 8), st.floats(0, 3))
def test_every_view_of_a_path_fits_its_canvas(seed, frames, drift, pan, jitter):
    platform = Platform(drift={"value": drift}, pan={"value": pan}, jitter={"value": jitter}, extent=90)
    path = camera_path(platform, np.random.default_rng(seed), frames)
    across, down = path.extent()
    assert path.offsets.min() >= PAD - 1e-9
    assert path.offsets[:, 0].max() + TAPS // 2 <= across and path.offsets[:, 1].max() + TAPS // 2 <= down
    assert np.abs(path.jitter).max() <= 3 * jitter + 1e-9
    if drift == 0 and frames > 1:
        assert np.abs(np.diff(path.steady, axis=0)).max() <= pan * 1.05 + 1e-9


def test_the_background_moves_as_recorded(tmp_path):
    """Correlation of written frames against the recorded offsets, to a twentieth of a pixel.

    Not whitened: a softened background has nothing to say at the highest frequencies.
    """
    made = recipe(
        tmp_path, *PLAIN, "sequence.platform={drift: {value: 5}, jitter: {value: 0.4}}", "scenes.all.count={value: 0}",
        size=(128, 128), frames=8,
    )  # fmt: skip
    plan = make_plan(made, 1)
    window = np.outer(np.hanning(128), np.hanning(128))
    images = [make_frame(made, plan, t).image.astype(float) for t in range(8)]
    images = [window * (image - image.mean()) for image in images]
    for t in range(1, 8):
        found, _, _ = phase_cross_correlation(images[0], images[t], upsample_factor=100, normalization=None)
        moved = plan.camera.offsets[t] - plan.camera.offsets[0]
        assert tuple(found[::-1]) == pytest.approx(tuple(moved), abs=0.05)
    assert np.abs(plan.camera.offsets - np.rint(plan.camera.offsets)).max() > 0.2  # sub-pixel indeed


# ------------------------------------------------------------------------------------------------- looks


@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, 24),
    st.integers(1, 24),
    st.floats(-0.5, 0.4999),
    st.floats(-0.5, 0.4999),
    st.floats(0.3, 0.9),
)
def test_a_boxed_target_fills_its_box(width, height, x, y, fill):
    patch = finish(boxed_shape(width, height, x, y, fill), 0.5)
    x1, y1, x2, y2 = patch.box
    assert (x2 - x1, y2 - y1) == (width, height)
    middle = (x1 + x2 - 1) / 2 + patch.left, (y1 + y2 - 1) / 2 + patch.top
    assert np.abs(np.subtract(middle, (x, y))).max() <= 0.5 + 1e-6
    assert patch.values.max() == pytest.approx(1.0)


def test_a_listed_box_is_met_to_the_pixel():
    for x1, width in ((67, 8), (273, 15), (5, 7), (0, 4)):
        centre = x1 + (width - 1) / 2
        base = int(np.floor(centre + 0.5))
        patch = finish(boxed_shape(width, 9, centre - base, 0.0, 0.6), 0.5)
        assert patch.box[0] + patch.left + base == x1


# ------------------------------------------------------------------------------------------------ layers


def ground_of(image, kind, outline=None):
    return Ground(image, kind, "id", "group", "name", {}, outline)


def test_a_texture_is_endless():
    texture = torus(np.random.default_rng(0), 64, 1.8)
    inner, seam = np.abs(np.diff(texture, axis=1)).max(), np.abs(texture[:, 0] - texture[:, -1]).max()
    assert seam <= inner and texture.std() == pytest.approx(1.0, abs=1e-4)


def test_clouds_drift_slowly_and_stay_in_the_sky(tmp_path):
    made = recipe(tmp_path)
    image = np.full((120, 140), 90, np.float32)
    image[70:] = 150
    ground = ground_of(image, "field", (70 / 120,) * 64)
    clouds = Clouds(chance=1, opacity={"value": 0.3}, speed={"value": 0.3})
    veil = draw_veil(clouds, made, ground, np.random.default_rng(0))
    first, next_, later = (
        veil.apply(image[:, :100].copy(), (10.3, 0.0), t) - image[:, :100] for t in (0, 1, 60)
    )
    assert np.abs(first[76:]).max() < 1e-3  # nothing below the skyline
    assert first[:60].std() > 0.5  # something above
    assert np.abs(next_ - first).max() < 0.15 * np.abs(first).max() < np.abs(later - first).max()
    assert draw_veil(Clouds(chance=0), made, ground, np.random.default_rng(0)) is None


def test_the_sea_moves_in_place_of_standing_waves_of_the_same_strength(tmp_path):
    made = recipe(tmp_path)
    image = (100 + 8 * torus(np.random.default_rng(1), 256, 1.0, least=20)).astype(np.float32)
    ground = ground_of(image.copy(), "sea", (0.1,) * 64)
    sea = Sea(waves={"value": 0}, glints={"value": 0}, speed={"value": 0.5})
    water = draw_water(sea, made, ground, np.random.default_rng(0), 200)
    shown = [water.apply(ground.image[20:220, 20:220].copy(), (20, 20), t) for t in (0, 1, 30)]
    lower = np.s_[120:]
    assert shown[0][lower].std() == pytest.approx(image[140:220, 20:220].std(), rel=0.35)
    near = np.corrcoef(shown[0][lower].ravel(), shown[1][lower].ravel())[0, 1]
    far = np.corrcoef(shown[0][lower].ravel(), shown[2][lower].ravel())[0, 1]
    assert near > 0.8 and far < 0.6
    assert draw_water(sea, made, ground_of(image, "city"), np.random.default_rng(0), 200) is None


def test_a_small_background_is_enlarged_and_mirrored_without_a_seam(tmp_path):
    image = scene(np.random.default_rng(2), (70, 90)).clip(0, 255).astype(np.uint8)
    write_png(tmp_path / "own/a.png", image)
    made = recipe(tmp_path, backgrounds=[tmp_path / "own"], size=(160, 128))
    ground = draw_canvas(made, 0, 0, np.random.default_rng(0), None, (190, 240))
    assert ground.image.shape == (190, 240) and ground.crop["scale"] == 2.0
    assert ground.crop["mirrored"] == [60, 50]
    for axis, lines in ((1, (29, 30, 209, 210)), (0, (24, 25, 164, 165))):
        steps = np.abs(np.diff(ground.image, axis=axis)).mean(axis=1 - axis)
        assert max(steps[k] for k in lines) <= 1.5 * np.median(steps)  # no step where the mirror stands


# ------------------------------------------------------------------------------------------------ frames


def test_a_leaving_target_is_cut_by_the_border_and_then_gone(tmp_path):
    made = recipe(
        tmp_path, *PLAIN, "sequence.trajectories={leaving: 1}", "sequence.speed={value: 1.3}",
        "scenes.all.area={value: 20}", "sequence.size_change={value: 0}", frames=60,
    )  # fmt: skip
    plan = make_plan(made, 0)
    shares = []
    for t in range(60):
        frame = make_frame(made, plan, t)
        height, width = plan.shape
        assert len(frame.seen) <= 1
        shares.append(frame.seen[0].visible if frame.seen else 0.0)
        for seen in frame.seen:
            x1, y1, x2, y2 = seen.target.box
            assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
            assert seen.target.patch.mask.any() and frame.mask.any()
        if not frame.seen:  # nothing is left of it: what is written is the background
            assert np.array_equal(frame.image, np.rint(background(plan, t)).clip(0, 255))
    assert shares[0] == 1.0 and shares[-1] == 0.0
    assert any(0 < s < 1 for s in shares)
    gone = shares.index(0.0)
    assert not any(shares[gone:]) and gone >= 0.3 * 60


def test_a_targets_place_is_its_track_and_its_light_is_there(tmp_path):
    made = recipe(tmp_path, *PLAIN, "sequence.trajectories={constant: 1}", "scenes.all.scr={value: 8}")
    plan = make_plan(made, 2)
    (track,) = plan.tracks
    for t in (0, 7, 19):
        frame = make_frame(made, plan, t)
        (seen,) = frame.seen
        patch, target = seen.target.patch, seen.target
        assert (target.column + patch.x, target.row + patch.y) == pytest.approx(tuple(track.path[t]))
        added = frame.image - background(plan, t)
        ys, xs = np.mgrid[: plan.shape[0], : plan.shape[1]]
        weight = np.where(added > 0.1 * added.max(), added, 0)
        centre = (weight * xs).sum() / weight.sum(), (weight * ys).sum() / weight.sum()
        assert centre == pytest.approx(tuple(track.path[t]), abs=0.35)


def test_noise_is_new_in_each_frame_and_the_pattern_is_not(tmp_path):
    made = recipe(
        tmp_path, *PLAIN[1:], "scenes.all.count={value: 0}",
        "sensor={read: 3, fixed_offset: 3, dead: 0.01, gain: {uniform: [0.8, 1.2]}, offset: {uniform: [-9, 9]}}", frames=12,
    )  # fmt: skip
    plan = make_plan(made, 0)
    frames = np.array([make_frame(made, plan, t).image for t in range(12)], float)
    assert np.ptp(frames.mean(axis=(1, 2))) < 0.5  # gain and offset do not flicker
    dead = (frames == frames[0]).all(axis=0) & np.isin(frames[0], (0, 255))
    assert 0.003 < dead.mean() < 0.03
    alive = frames[:, ~dead]
    noise = alive - alive.mean(axis=0)
    for t in range(1, 12):
        assert abs(np.corrcoef(noise[0], noise[t])[0, 1]) < 0.13  # -1/11 by the mean that was taken off
    assert noise.std() * np.sqrt(12 / 11) == pytest.approx(3 * plan.settings[0], rel=0.05)
    light = background(plan, 0)[~dead] * plan.settings[0]
    pattern = alive.mean(axis=0) - light
    assert pattern.std() == pytest.approx(3 * plan.settings[0] * np.sqrt(1 + 1 / 12), rel=0.1)


def test_intensity_and_size_change_smoothly(tmp_path):
    made = recipe(
        tmp_path,
        "sequence.scr_change={value: 0.3}",
        "sequence.size_change={value: 0.4}",
        frames=120,
        size=(128, 128),
    )
    for track in make_plan(made, 0).tracks:
        for values, amount in ((track.scr, 0.3), (track.size, 0.4)):
            steps = np.diff(np.log(values))
            assert np.abs(steps).max() < 0.15 * amount and np.ptp(np.log(values)) > 0.2 * amount


def test_motion_blur_lies_along_the_track_and_goes_with_speed_and_exposure(tmp_path):
    made = recipe(
        tmp_path, *PLAIN, "sequence.trajectories={constant: 1}", "sequence.speed={value: 8}", "sequence.exposure={value: 0.6}",
        frames=6, size=(160, 160),
    )  # fmt: skip
    plan = make_plan(made, 0)
    (seen,) = make_frame(made, plan, 3).seen
    assert seen.smear == pytest.approx(0.6 * np.hypot(*seen.velocity), rel=1e-6) and seen.smear > 3
    track = plan.tracks[0]
    spread = []
    for smear in (0.0, seen.smear):
        along = track.look.patch(0.0, 0.0, 1.0, (smear, 0.0)).values.sum(axis=0)
        at = np.arange(len(along))
        spread.append(np.average((at - np.average(at, weights=along)) ** 2, weights=along))
    assert spread[1] - spread[0] == pytest.approx(seen.smear**2 / 12, rel=0.15)  # a line's own variance


def test_a_frame_is_a_pure_function_of_recipe_plan_and_number(tmp_path):
    made = recipe(tmp_path, preset="daub")
    plan = make_plan(made, 1)
    alone = make_frame(made, make_plan(made, 1), 13).image
    for t in (2, 13):
        image = make_frame(made, plan, t).image
    assert np.array_equal(alone, image)


def test_what_cannot_be_had_is_marked_and_stays_on_its_track(tmp_path):
    made = recipe(tmp_path, *PLAIN, "scenes.all.scr={value: 60}", "sequence.trajectories={constant: 1}")
    plan = make_plan(made, 0)
    for t in range(0, 20, 4):
        (seen,) = make_frame(made, plan, t).seen
        assert seen.target.status == "saturated" and seen.target.requested > 45
        place = seen.target.column + seen.target.patch.x, seen.target.row + seen.target.patch.y
        assert place == pytest.approx(tuple(plan.tracks[0].path[t]))


def test_a_pan_moves_a_target_that_is_not_followed(tmp_path):
    changes = "sequence.platform={drift: {value: 0}, pan: {value: 1}, jitter: {value: 0}, follow: %s}"
    hover = ("sequence.trajectories={hover: 1}", "sequence.radius={value: 0}")
    for follow, expected in ((1.0, 0.0), (0.0, 1.0)):
        made = recipe(tmp_path, *PLAIN, changes % follow, *hover)
        plan = make_plan(made, 0)
        track, moved = np.diff(plan.tracks[0].path, axis=0), np.diff(plan.camera.offsets, axis=0)
        assert track == pytest.approx(-expected * moved, abs=1e-6)


# ----------------------------------------------------------------------------------------------- listing


def box(x, y, side=8):
    return float(x), float(y), float(x + side), float(y + side)


@pytest.mark.parametrize(
    ("rows", "lengths", "reason"),
    [
        ([[box(0, 0)], [box(90, 90)], [box(0, 5)]], [3], "one box a frame is one target, however it jumps"),
        ([[box(0, 0)], [], [box(1, 0)]], [2], "also after a frame without"),
        ([[box(0, 0), box(50, 50)], [box(51, 50), box(1, 0)]], [2, 2], "order in the line does not matter"),
        (
            [[box(0, 0), box(50, 50)], [box(2, 0)], [box(4, 0), box(52, 50)]],
            [3, 1, 1],
            "one that was away is new",
        ),
        ([[box(0, 0), box(50, 50)], [box(200, 0), box(51, 50)]], [1, 2, 1], "too far to be the same"),
        ([[], []], [], "no target at all"),
    ],
)
def test_boxes_become_tracks(rows, lengths, reason):
    tracks = link(rows)
    assert [len(t) for t in tracks] == lengths, reason
    assert sorted(b for t in tracks for b in t.values()) == sorted(b for row in rows for b in row)


def test_listed_parts_never_share_a_background(tmp_path):
    rng = np.random.default_rng(0)
    for k in range(6):
        write_png(tmp_path / "own" / f"{k}.png", scene(rng, (100, 120)).clip(0, 255).astype(np.uint8))
    for part in ("train", "val"):
        lines = [f"images/{part}{s}/{t}.bmp 20,20,28,28,0\n" for s in range(4) for t in range(2)]
        (tmp_path / f"coco_{part}_MINE.txt").write_text("".join(lines))
    lists = [tmp_path / f"coco_{part}_MINE.txt" for part in ("train", "val")]
    made = prepare_sequences(
        tmp_path / "b.raw", None, None, 5, [tmp_path / "own"], "daub", size=(96, 80), onto=lists
    )
    used = {"train": set(), "test": set()}
    for index in range(8):
        plan = make_plan(made, index)
        used[plan.part].add(plan.ground.group)
    assert used["train"] and used["test"] and not used["train"] & used["test"]
    with pytest.raises(IrstkitError, match="none of the 1 backgrounds falls to the part"):
        only = replace(made.store, items=made.store.items[:1])
        for index in (0, 7):
            make_plan(replace(made, store=only), index)
