"""Lumpy spots, glow and edge enhancement, backgrounds of less contrast, the JPEG step."""

import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irstkit.annotate.errors import IrstkitError
from irstkit.annotate.files import read_image
from irstkit.annotate.masks import mask_to_instances
from irstkit.annotate.scr import measure_contrast
from irstkit.datasets.readers import open_dataset
from irstkit.synth.generate import generate
from irstkit.synth.irregular import lumpy_shape, through_optics
from irstkit.synth.preset import load_preset
from irstkit.synth.sensor import compressed
from irstkit.synth.targets import finish, gaussian_pixels, point_shape


@settings(max_examples=60, deadline=None)
@given(
    area=st.integers(1, 90), x=st.floats(-0.5, 0.5), y=st.floats(-0.5, 0.5), aspect=st.floats(1, 3),
    angle=st.floats(0, np.pi), lumps=st.integers(1, 5), power=st.floats(1.2, 8), seed=st.integers(0, 9),
)  # fmt: skip
def test_lumpy_cores_are_one_piece_of_about_the_area(area, x, y, aspect, angle, lumps, power, seed):
    shape = lumpy_shape(area, x, y, aspect, angle, lumps, power, np.random.default_rng(seed), shading=0.3)
    assert cv2.connectedComponents(shape.core.astype(np.uint8), connectivity=8)[0] == 2
    assert 0.5 * area <= shape.core.sum() <= area
    assert shape.values.min() >= 0 and shape.values[shape.core].max() > 0
    edge = np.ones(shape.values.shape, bool)
    edge[1:-1, 1:-1] = False
    assert not shape.values[edge].any()  # the raster holds all of it


def test_one_lump_of_power_two_is_an_ellipse_and_a_high_power_a_box():
    def fill(power):
        shape = lumpy_shape(49, 0.0, 0.0, 1.0, 0.0, 1, power, np.random.default_rng(0))
        ys, xs = np.nonzero(shape.core)
        return shape.core.sum() / ((np.ptp(xs) + 1) * (np.ptp(ys) + 1))

    assert fill(2.0) < 0.82 and fill(20.0) == 1.0


def test_glow_keeps_the_light_and_sharpening_leaves_a_dark_rim():
    spot = gaussian_pixels(0.1, -0.2, 1.2)
    glowing, pad = through_optics(spot, 0.3, 3.0, 0.0, 1.0)
    assert glowing.shape[0] == spot.shape[0] + 2 * pad
    assert glowing.sum() == pytest.approx(spot.sum(), rel=2e-3)
    assert glowing.min() >= 0 and glowing.max() < spot.max()
    sharp, _ = through_optics(spot, 0.0, 3.0, 1.5, 1.2)
    assert sharp.sum() == pytest.approx(spot.sum(), rel=2e-3)
    assert sharp.min() < -0.02 * sharp.max() and sharp.max() > spot.max()
    patch = finish(point_shape(9, 0.0, 0.0, 1.2), 0.5, optics=(0.0, 3.0, 1.5, 1.2))
    assert patch.values.max() == 1.0 and patch.values.min() < -0.02  # the rim survives the trimming


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("spot.lumps={value: 0}", "spot.lumps: must lie in [1, 8]"),
        ("spot.power={value: 0.5}", "spot.power: must lie in [1, 20]"),
        ("optics.glow={value: 1}", "optics.glow: must lie in [0, 0.9]"),
        ("optics.sharpen_sigma={value: 0.1}", "optics.sharpen_sigma: must lie in [0.3, 10]"),
        ("optics.bloom=1", "optics.bloom: no such key"),
        ("background.contrast={value: 0}", "background.contrast: must lie in [0.05, 5]"),
        ("sensor.jpeg={value: 0}", "sensor.jpeg: must lie in [1, 100]"),
        ("point.aligned=2", "point.aligned: "),
    ],
)
def test_wrong_values_are_named(override, told):
    with pytest.raises(IrstkitError) as error:
        load_preset("real", [override])
    assert told in str(error.value)


def test_behind_jpeg_the_attributes_say_what_is_written(tmp_path):
    root = tmp_path / "set"
    totals = generate(root, 24, 5, preset="real", size=128, workers=1, overrides=["sensor.jpeg={value: 60}"])
    rows = [json.loads(line) for line in (root / "manifest.jsonl").read_text().splitlines()]
    records = {r.id: r for r in open_dataset(root)}
    near = wrong = total = 0
    for row in rows:
        record = records[row["file_name"].removesuffix(".png")]
        image, mask = record.read_image(), record.read_mask()
        found = {i.box: c for i, c in zip(
            mask_to_instances(mask), measure_contrast(image, mask_to_instances(mask), mask=mask), strict=True
        )}  # fmt: skip
        for target in row["targets"]:
            x, y, w, h = target["bbox"]
            scr = found[x, y, x + w, y + h].scr
            assert target["scr_achieved"] == pytest.approx(abs(scr), abs=2e-3)
            total += 1
            good = abs(abs(scr) - target["scr_requested"]) <= 0.05 * target["scr_requested"]
            near += good
            wrong += target["scr_status"] == "ok" and not good
    assert wrong == 0
    assert near >= 0.8 * total, totals["status"]
    assert rows == [
        json.loads(line) for line in _again(tmp_path).joinpath("manifest.jsonl").read_text().splitlines()
    ]


def _again(tmp_path):
    generate(
        tmp_path / "again", 24, 5, preset="real", size=128, workers=1, overrides=["sensor.jpeg={value: 60}"]
    )
    return tmp_path / "again"


def test_jpeg_is_for_eight_bits_and_leaves_its_traces():
    rng = np.random.default_rng(0)
    image = np.clip(rng.normal(100, 4, (64, 64)), 0, 255).astype(np.uint8)
    assert np.abs(compressed(image, 100).astype(int) - image).max() <= 2
    low = compressed(image, 20).astype(float)
    assert np.diff(low, axis=1).std() < 0.8 * np.diff(image.astype(float), axis=1).std()
    with pytest.raises(IrstkitError, match=r"sensor\.jpeg is for 8-bit images"):
        compressed(image.astype(np.uint16), 50)


def test_contrast_of_the_background_is_scaled_about_its_mean(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    image = np.clip(cv2.GaussianBlur(np.random.default_rng(1).normal(120, 60, (96, 96)), (0, 0), 2), 0, 255)
    cv2.imwrite(str(folder / "a.png"), image.astype(np.uint8))
    spread = {}
    for factor in (1.0, 0.5):
        root = tmp_path / f"set{factor}"
        generate(
            root, 1, 0, folder, "nudt", size=96, workers=1,
            overrides=[f"background.contrast={{value: {factor}}}", "scenes.all.count={value: 0}", "gate.min_deviation=0"],
        )  # fmt: skip
        spread[factor] = read_image(root / "images" / "000000.png").astype(float).std()
    assert spread[0.5] == pytest.approx(0.5 * spread[1.0], rel=0.03)
