"""Regions, procedural scenes and the scene network."""

import json

import cv2
import numpy as np
import pytest

from irstkit.annotate.files import write_png
from irstkit.synth import learn
from irstkit.synth.preset import SCENES
from irstkit.synth.procedural import SCENES as PROCEDURAL
from irstkit.synth.procedural import procedural
from irstkit.synth.regions import (
    BUILT,
    LAND,
    SEA,
    SKY,
    allowed,
    crop_outline,
    region_map,
    sea_horizon,
    skyline,
    straight_edge,
)


def hill(shift=0.0, size=160, seed=0):
    """Dark smooth sky above rough bright ground, parted by a slope; and the true rows over the height."""
    rng = np.random.default_rng(seed)
    x = (np.arange(size) + 0.5) / size
    line = 0.45 + shift + 0.15 * np.sin(3 * x)
    above = (np.arange(size)[:, None] + 0.5) / size < line[None, :]
    image = np.where(above, rng.normal(60, 1.5, (size, size)), rng.normal(130, 14, (size, size)))
    return np.clip(image, 0, 255).astype(np.uint8), line


@pytest.mark.parametrize("shift", [-0.2, 0.0, 0.2])
def test_the_skyline_is_found(shift):
    image, line = hill(shift)
    found = skyline(image)
    assert found is not None
    truth = np.interp((np.arange(64) + 0.5) / 64, (np.arange(160) + 0.5) / 160, line)
    assert np.abs(found[0] - truth).mean() < 0.025
    assert skyline(image[::-1]) is None  # rough above smooth is no sky


def test_even_noise_has_no_skyline_and_a_faint_straight_horizon_is_found():
    rng = np.random.default_rng(1)
    noise = rng.normal(100, 6, (200, 200))
    assert skyline(noise.clip(0, 255).astype(np.uint8)) is None
    assert straight_edge(noise.clip(0, 255).astype(np.uint8)) is None
    noise[90:] -= 8
    assert straight_edge(noise.clip(0, 255).astype(np.uint8)) == pytest.approx(0.45, abs=0.02)


@pytest.mark.parametrize("lean", [-5, 0, 6])
def test_a_leaning_horizon_at_sea_is_found_along_its_whole_length(lean):
    rng = np.random.default_rng(2)
    rows, columns = np.mgrid[:128, :128]
    line = 50 + lean * ((columns + 0.5) / 128 - 0.5)
    image = 90 + rng.normal(0, 4, (128, 128)) - 12 * (rows >= line)
    found = sea_horizon(image.clip(0, 255).astype(np.uint8))
    assert found is not None
    truth = (50 + lean * ((np.arange(64) + 0.5) / 64 - 0.5)) / 128
    assert np.abs(np.asarray(found) - truth).max() < 0.02
    assert sea_horizon(rng.normal(90, 4, (128, 128)).clip(0, 255).astype(np.uint8)) is None


def test_outlines_follow_crops_and_mirrors():
    image, _ = hill()
    path = tuple(skyline(image)[0].tolist())
    for x, y, side in ((0, 0, 160), (40, 30, 100), (60, 10, 64)):
        part = crop_outline(path, image.shape, x, y, side, False)
        rows = np.asarray(part) * side + y
        truth = np.asarray(path)[((x + (np.arange(64) + 0.5) / 64 * side) / 160 * 64).astype(int)] * 160
        assert np.abs(rows - truth).max() < 1e-6
        assert crop_outline(path, image.shape, x, y, side, True) == part[::-1]


def test_what_may_stand_where():
    sea = region_map("sea", (0.5,) * 64)
    assert (sea[:31] == SKY).all() and (sea[33:] == SEA).all()
    assert not allowed("ship", sea)[:31].any() and allowed("ship", sea)[40].all()
    assert not allowed("vehicle", sea).any()
    assert not allowed("aircraft", sea)[40].any()
    city = region_map("city", None)
    assert (city == BUILT).all()
    assert allowed("bird", city) is None and allowed("uav", city) is None  # they fly between walls
    assert not allowed("aircraft", city).any() and not allowed("helicopter", city).any()  # these do not
    assert allowed("vehicle", city)[-1].all() and not allowed("vehicle", city)[40].any()  # not on walls
    field = region_map("field", None)
    assert (field == LAND).all() and allowed("aircraft", field) is None  # seen from above
    assert allowed("aircraft", region_map("city", (0.5,) * 64))[:31].all()
    assert allowed("ship", region_map("sea", None))[-1].all()
    assert not allowed("ship", region_map("sea", None))[0].any()
    assert region_map(None, None) is None and allowed("ship", None) is None


@pytest.mark.parametrize("scene", SCENES)
def test_procedural_scenes_are_usable_reproducible_and_different(scene):
    assert set(PROCEDURAL) == set(SCENES)
    images = []
    for k in range(4):
        image, horizon = procedural(scene, 96, np.random.default_rng(k))
        again, _ = procedural(scene, 96, np.random.default_rng(k))
        assert np.array_equal(image, again)
        assert image.shape == (96, 96) and image.dtype == np.uint8
        assert image.std() > 2 and (image == 255).mean() < 0.25
        assert horizon is None or 0 < horizon < 1
        images.append(image)
    assert len({i.tobytes() for i in images}) == 4
    assert procedural(scene, 64, np.random.default_rng(0), 16)[0].dtype == np.uint16


def test_the_shipped_network_is_small_and_knows_procedural_scenes():
    assert learn.WEIGHTS.stat().st_size < 1_000_000
    assert b"site-packages" not in learn.WEIGHTS.read_bytes(), "stack traces name somebody's folders"
    net = learn.SceneNet()
    told, truth = [], []
    for scene in SCENES:
        for k in range(8):
            told.append(net.predict(procedural(scene, 160, np.random.default_rng(1000 + k))[0])[0])
            truth.append(scene)
    assert learn.scores(learn.confusion(truth, told))["accuracy"] >= 0.8
    image = procedural("sea", 160, np.random.default_rng(3))[0]
    rows = net.probabilities([image, np.clip(image * 0.5 + 20, 0, 255)])
    assert rows.sum(axis=1) == pytest.approx([1, 1])
    assert rows[0] == pytest.approx(rows[1], abs=0.02)  # gain and offset tell nothing


def test_scores_of_a_known_matrix():
    found = learn.scores(learn.confusion(["city"] * 4 + ["sea"] * 2, ["city"] * 3 + ["sea"] * 3))
    assert found["accuracy"] == pytest.approx(5 / 6)
    assert found["balanced_accuracy"] == pytest.approx((0.75 + 1) / 2)


def test_train_writes_a_network_that_predicts(tmp_path, irstkit):
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    out = tmp_path / "tiny.onnx"
    result = irstkit("synth", "scenes", "train", "--out", out, "--steps", 2, "--procedural", 2, "--batch", 4)
    assert result.exit_code == 0, result.stderr
    for k, scene in enumerate(("cloud", "city")):
        write_png(tmp_path / "images" / f"{k}.png", procedural(scene, 100, np.random.default_rng(k))[0])
    (tmp_path / "labels.csv").write_text("dataset,file,scene\nimages,0.png,cloud\n,1.png,city\n")
    result = irstkit(
        "synth", "scenes", "predict", tmp_path / "images", "--weights", out, "--labels", tmp_path / "labels.csv",
        "--out", tmp_path / "scenes.csv", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["against_labels"]["images"] == 2
    assert (tmp_path / "scenes.csv").read_text().startswith("dataset,file,scene,confidence\nimages,0.png,")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("file,what\na.png,sea\n", "line 1: the columns"),
        ("file,scene\na.png,swamp\n", "line 2: no scene 'swamp'"),
    ],
)
def test_bad_labels_name_their_line(tmp_path, irstkit, text, told):
    (tmp_path / "labels.csv").write_text(text)
    write_png(tmp_path / "images/0.png", cv2.resize(hill()[0], (100, 100)))
    result = irstkit("synth", "scenes", "predict", tmp_path / "images", "--labels", tmp_path / "labels.csv")
    assert result.exit_code == 1 and told in result.stderr
