"""Where targets go: crowded or apart, on the ground that fits them, and no background in two splits."""

import json

import cv2
import numpy as np
import pytest
import yaml

from irstkit.annotate.files import read_image, write_png
from irstkit.annotate.rle import rle_to_instance
from irstkit.annotate.scr import measure_contrast
from irstkit.synth.generate import generate

SIDE = 144


def ring_apart(a, b, ring=10):
    (x, y, w, h), (ox, oy, ow, oh) = a, b
    return ox + ow <= x - ring or ox >= x + w + ring or oy + oh <= y - ring or oy >= y + h + ring


@pytest.fixture
def textured(tmp_path):
    rng = np.random.default_rng(3)
    for k in range(4):
        image = cv2.GaussianBlur(rng.normal(90, 60, (SIDE, SIDE)), (0, 0), 4) + rng.normal(0, 4, (SIDE, SIDE))
        write_png(tmp_path / "b" / f"{k}.png", np.clip(image, 0, 255).astype(np.uint8))
    return tmp_path / "b"


@pytest.mark.parametrize("crowded", [True, False])
def test_crowded_targets_stand_in_each_others_rings_and_keep_their_scr(textured, tmp_path, crowded):
    many = [f"placement.crowded={str(crowded).lower()}", "scenes.all.count={value: 7}"]
    out = tmp_path / "set"
    generate(out, 10, 2, textured, size=SIDE, workers=1, overrides=many)
    coco = json.loads((out / "annotations.json").read_text())
    within = total = close = 0
    for entry in coco["images"]:
        annotations = [a for a in coco["annotations"] if a["image_id"] == entry["id"]]
        boxes = [a["bbox"] for a in annotations]
        pairs = [(a, b) for k, a in enumerate(boxes) for b in boxes[:k]]
        close += sum(not ring_apart(a, b) for a, b in pairs)
        assert all(ring_apart(a, b, ring=0) for a, b in pairs), "boxes never overlap"
        instances = [rle_to_instance(a["segmentation"]) for a in annotations]
        image = read_image(out / entry["file_name"])
        for a, found in zip(annotations, measure_contrast(image, instances), strict=True):
            known = a["attributes"]
            assert known["scr_achieved"] == pytest.approx(abs(found.scr), abs=1e-6)
            good = abs(abs(found.scr) / known["scr_requested"] - 1) <= 0.05
            assert good == (known["scr_status"] == "ok")
            within += good
            total += 1
    assert (close >= 5) if crowded else (close == 0)
    assert total >= 60 and within >= 0.95 * total


SKYLINE = 0.5 + 0.12 * np.sin(np.arange(SIDE) / SIDE * 4)


def shore(scene, seed):
    """Sky over rough hills, or over water with a level horizon; and the true skyline, rows by column."""
    rng = np.random.default_rng(seed)
    rows = np.arange(SIDE)[:, None]
    line = SKYLINE * SIDE if scene == "field" else np.full(SIDE, 0.5 * SIDE)
    below = rng.normal(120, 11, (SIDE, SIDE)) if scene == "field" else rng.normal(95, 4, (SIDE, SIDE))
    image = np.where(rows < line[None, :], 60 + rng.normal(0, 2.5, (SIDE, SIDE)), below)
    return np.clip(cv2.GaussianBlur(image, (0, 0), 0.6), 0, 255).astype(np.uint8), line


@pytest.mark.parametrize(
    ("scene", "shape", "on_ground"),
    [
        ("sea", "ship", True),  # no ship in the sky
        ("field", "vehicle", True),
        ("field", "aircraft", False),  # no aircraft in a street
        ("sea", "helicopter", False),
    ],
)
def test_ships_float_vehicles_stand_and_aircraft_fly(tmp_path, scene, shape, on_ground):
    for k in range(4):
        write_png(tmp_path / "b" / f"{k}.png", shore(scene, k)[0])
    (tmp_path / "scenes.csv").write_text("file,scene\n" + "".join(f"{k}.png,{scene}\n" for k in range(4)))
    line = shore(scene, 0)[1]
    tables = [
        f"scenes.{scene}.silhouettes={{{shape}: 1}}", f"scenes.{scene}.height={{uniform: [0.05, 0.95]}}",
        f"scenes.{scene}.area={{uniform: [50, 80]}}", f"scenes.{scene}.count={{value: 2}}",
        f"scenes.{scene}.scr={{uniform: [3, 6]}}", "background.flip=false", "contrast.limits=[0.02, 0.9]",
    ]  # fmt: skip

    def wrong(name, *more):
        out = tmp_path / name
        arguments = {"size": SIDE, "workers": 1, "scenes": tmp_path / "scenes.csv"}
        generate(out, 16, 4, tmp_path / "b", overrides=[*tables, *more], **arguments)
        found = []
        for row in (out / "manifest.jsonl").read_text().splitlines():
            for target in json.loads(row)["targets"]:
                assert target["shape"] == shape
                x, y, w, h = target["bbox"]
                found.append(
                    (y + h - 0.5 - line[min(int(x + w / 2), SIDE - 1)]) * (1 if on_ground else -1) < -5
                )
        assert len(found) >= 24
        return sum(found) / len(found)

    assert wrong("with") == 0
    assert wrong("without", "placement.regions=false") > 0.2, "the test must see a map that is ignored"


def test_neither_a_background_nor_its_twin_is_in_two_splits(tmp_path):
    rng = np.random.default_rng(5)
    for k in range(9):
        image = cv2.GaussianBlur(rng.normal(90, 120, (110, 110)), (0, 0), 6) + rng.normal(0, 2, (110, 110))
        for twin, shift in enumerate((0, 6, 11)):  # the same scene, brighter
            write_png(tmp_path / "b" / f"{k}_{twin}.png", np.clip(image + shift, 0, 255).astype(np.uint8))
    out = tmp_path / "set"
    shares = {"train": 0.4, "val": 0.3, "test": 0.3}
    generate(out, 90, 1, tmp_path / "b", size=96, workers=1, splits=shares)
    groups = {b["id"]: b["group"] for b in yaml.safe_load((out / "synth.yaml").read_text())["backgrounds"]}
    assert len(groups) == 27 and len(set(groups.values())) == 9
    rows = {
        r["file_name"].removesuffix(".png"): r
        for r in map(json.loads, (out / "manifest.jsonl").read_text().splitlines())
    }
    used, ids = {}, {}
    for part in shares:
        names = (out / "splits/synth" / f"{part}.txt").read_text().split()
        used[part] = {groups[rows[f"images/{n.removeprefix('images/')}"]["background_id"]] for n in names}
        ids[part] = len(names)
    assert sum(ids.values()) == 90 and all(ids.values())
    assert (
        not used["train"] & used["val"]
        and not used["train"] & used["test"]
        and not used["val"] & used["test"]
    )
    assert sum(len(v) for v in used.values()) >= 8
