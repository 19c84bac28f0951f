"""Copies and hard negatives: what they leave alone, what they change, where it is written down."""

import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irstkit.annotate.errors import IrstkitError
from irstkit.annotate.files import read_image, write_png
from irstkit.annotate.rle import rle_to_instance
from irstkit.annotate.scr import measure_contrast
from irstkit.datasets.readers import open_dataset
from irstkit.datasets.splits import divide, kinship
from irstkit.synth.compose import make_image
from irstkit.synth.generate import generate, prepare
from irstkit.synth.preset import load_preset
from irstkit.synth.preview import preview

NEGATIVES = ["negatives.count={uniform: [1, 6]}"]


def recipe(tmp_path, overrides=(), *, preset="real", seed=1, size=96, depth=None):
    if depth == 16:
        overrides = [*overrides, "sensor.jpeg=null"]  # JPEG has eight
    return prepare(tmp_path / "b.raw", seed, [], preset, size=size, overrides=list(overrides), depth=depth)


@pytest.mark.parametrize("preset", ["nudt", "real"])
@pytest.mark.parametrize("depth", [8, 16])
def test_negatives_change_nothing_but_their_own_boxes(tmp_path, preset, depth):
    plain = recipe(tmp_path, preset=preset, depth=depth)
    with_them = recipe(tmp_path, NEGATIVES, preset=preset, depth=depth)
    seen = set()
    for k in range(12):
        a, b = make_image(plain, k), make_image(with_them, k)
        allowed, taken = np.zeros((2, *a.image.shape), bool)
        for negative in b.negatives:
            x1, y1, x2, y2 = negative.box
            assert 0 <= x1 < x2 <= 96 and 0 <= y1 < y2 <= 96
            assert not taken[y1:y2, x1:x2].any()  # nor each other
            taken[y1:y2, x1:x2] = True
            if plain.preset.sensor.jpeg:  # spread over the blocks
                x1, y1, x2, y2 = x1 // 8 * 8, y1 // 8 * 8, -(-x2 // 8) * 8, -(-y2 // 8) * 8
            allowed[y1:y2, x1:x2] = True
            seen.add(negative.kind)
        assert np.array_equal(a.image[~allowed], b.image[~allowed])
        assert np.array_equal(a.mask, b.mask)
        assert [t.achieved for t in a.targets] == [t.achieved for t in b.targets]
        assert not (b.mask & allowed).any()
    assert len(seen) >= 4


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    index=st.integers(0, 10**6),
    kind=st.sampled_from(["clutter", "glint", "hot", "dead", "cluster"]),
    ring=st.integers(2, 14),
    size=st.sampled_from([48, 64, 130]),
)
def test_negatives_never_touch_a_target_or_its_ring(tmp_path_factory, seed, index, kind, ring, size):
    made = make_image(
        recipe(
            tmp_path_factory.getbasetemp(),
            ["negatives.count={value: 5}", f"negatives.kinds={{{kind}: 1}}", f"contrast.ring={ring}"],
            seed=seed,
            size=size,
        ),
        index,
    )
    instances = [t.instance for t in made.targets]
    for t, found in zip(
        made.targets, measure_contrast(made.image, instances, ring=ring, mask=made.mask), strict=True
    ):
        assert t.achieved is None or t.achieved == pytest.approx(abs(found.scr), abs=1e-9)
        for negative in made.negatives:
            assert negative.kind == kind
            x1, y1, x2, y2 = negative.box
            bx1, by1, bx2, by2 = t.box
            assert x2 <= bx1 - ring or x1 >= bx2 + ring or y2 <= by1 - ring or y1 >= by2 + ring
    assert len(made.negatives) + made.rejected.get("no place for a negative", 0) == 5


def test_what_each_kind_looks_like(tmp_path):
    """A hot pixel stands alone; a dead one is near zero; glints are level streaks; clutter is large."""
    found = {}
    for kind in ("clutter", "glint", "hot", "dead", "cluster"):
        made = recipe(
            tmp_path,
            ["negatives.count={value: 8}", f"negatives.kinds={{{kind}: 1}}"],
            preset="nudt",
            size=160,
        )
        plain = recipe(tmp_path, preset="nudt", size=160)
        for k in range(3):
            a, b = make_image(plain, k).image.astype(int), make_image(made, k)
            for n in b.negatives:
                x1, y1, x2, y2 = n.box
                change = b.image[y1:y2, x1:x2].astype(int) - a[y1:y2, x1:x2]
                found.setdefault(kind, []).append((change, b.image[y1:y2, x1:x2], n.step))
    assert all(c.shape == (1, 1) and c[0, 0] > 0 for c, _, _ in found["hot"])
    assert all(c.shape == (1, 1) and c[0, 0] <= 0 and i[0, 0] <= 51 for c, i, _ in found["dead"])
    for change, _, step in found["cluster"]:
        assert (
            cv2.connectedComponents((change != 0).astype(np.uint8), connectivity=8)[0] - 1 <= 1 or step == 0
        )
        assert 1 <= np.count_nonzero(change) <= 6
    along = sum(float((c[:, 1:] * c[:, :-1]).sum()) for c, _, _ in found["glint"])
    assert along > 2 * sum(float((c[1:] * c[:-1]).sum()) for c, _, _ in found["glint"])
    assert np.median([np.count_nonzero(c > 3) for c, _, _ in found["clutter"]]) > 40


def test_negatives_and_copies_are_written_down(tmp_path, capsys):
    out = tmp_path / "set"
    overrides = [*NEGATIVES, "copies.count=3"]
    totals = generate(out, 10, 2, preset="real", overrides=overrides, size=96, workers=1)
    rows = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    coco = json.loads((out / "annotations.json").read_text())
    assert [r.get("copy_of") for r in rows] == [
        None if k % 3 == 0 else f"images/{k - k % 3:06d}.png" for k in range(10)
    ]
    assert [i.get("copy_of") for i in coco["images"]] == [r.get("copy_of") for r in rows]
    assert totals["copies"] == 6
    assert sum(totals["negatives"].values()) == sum(len(r["negatives"]) for r in rows) > 5
    assert all(set(n) == {"kind", "bbox", "step"} for r in rows for n in r["negatives"])
    assert len(coco["annotations"]) == sum(len(r["targets"]) for r in rows)  # none is labelled
    generate(tmp_path / "two", 10, 2, preset="real", overrides=overrides, size=96, workers=2)
    for name in ("annotations.json", "manifest.jsonl", "synth.yaml"):
        assert (tmp_path / "two" / name).read_bytes() == (out / name).read_bytes()
    generate(tmp_path / "grown", 4, 2, preset="real", overrides=overrides, size=96, workers=1)
    generate(tmp_path / "grown", 10, 2, preset="real", overrides=overrides, size=96, workers=1)
    assert (tmp_path / "grown/annotations.json").read_bytes() == (out / "annotations.json").read_bytes()


@pytest.mark.parametrize("preset", ["nudt", "real"])
def test_copies_are_the_same_scene_blended_anew(tmp_path, preset):
    once = recipe(tmp_path, preset=preset)
    thrice = recipe(tmp_path, ["copies.count=3"], preset=preset)
    differs = targets = 0
    for scene in range(8):
        first = make_image(once, scene)
        again = [make_image(thrice, 3 * scene + k) for k in (1, 0, 2)]  # in any order
        assert np.array_equal(again[1].image, first.image) and again[1].copy_of is None
        for copy in (again[0], again[2]):
            assert copy.copy_of == 3 * scene
            assert (copy.background, copy.crop, copy.part) == (first.background, first.crop, first.part)
            assert len(copy.targets) == len(first.targets)
            instances = [t.instance for t in copy.targets]
            for a, b, found in zip(
                first.targets,
                copy.targets,
                measure_contrast(copy.image, instances, mask=copy.mask),
                strict=True,
            ):
                assert (a.row, a.column, a.polarity, a.patch.kind) == (
                    b.row,
                    b.column,
                    b.polarity,
                    b.patch.kind,
                )
                assert b.achieved is None or b.achieved == pytest.approx(abs(found.scr), abs=1e-9)
                if b.status == "ok":
                    assert abs(b.achieved / b.requested - 1) <= 0.05
                differs += a.requested != b.requested
                targets += 1
    assert differs > 0.7 * targets


def test_copies_stay_on_one_side_of_a_split(tmp_path):
    """Even where they are no twins by their pixels."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "b"
    for k in range(6):
        image = cv2.GaussianBlur(rng.normal(100, 50, (120, 120)), (0, 0), 4)
        write_png(folder / f"{k}.png", np.clip(image, 0, 255).astype(np.uint8))
    parts = {"train": 0.6, "val": 0.4}
    generate(
        tmp_path / "set",
        24,
        3,
        folder,
        "nudt",
        overrides=["copies.count=4"],
        size=96,
        splits=parts,
        workers=1,
    )
    data = open_dataset(tmp_path / "set")
    group = {r.id: r.attributes.get("copy_of", f"{r.id}.png") for r in data}
    for scheme in ("synth",):
        part = {}
        for r in data:
            assert part.setdefault(group[r.id], r.splits[scheme]) == r.splits[scheme]
    rest, held = divide(list(data), 0.25)
    assert held and not {group[r.id] for r in rest} & {group[r.id] for r in held}
    leaders = kinship(list(data), twins=False)
    assert len(set(leaders)) == 6
    without = [
        r for r in data if r.attributes.get("copy_of")
    ]  # originals gone: their copies still belong together
    assert len(set(kinship(without, twins=False))) == 6


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("copies.count=0", "copies.count"),
        ("copies.number=2", "copies.number: no such key"),
        ("negatives.count=-1", "count must lie in"),
        ("negatives.kinds={stars: 1}", "negatives.kinds"),
        ("negatives.kinds={hot: 0}", "not all 0"),
        ("negatives.contrast=2", "negatives.contrast"),
        ("negatives.contrast={value: 2}", "contrast must lie in"),
        ("negatives.glint_length={uniform: [1, 500]}", "glint_length must lie in"),
    ],
)
def test_bad_options_are_named(tmp_path, override, told):
    with pytest.raises(IrstkitError) as raised:
        if override == "negatives.count=-1":
            load_preset("nudt", ["negatives.count={value: -1}"])
        else:
            load_preset("nudt", [override])
    assert told in str(raised.value)


def test_shipped_presets_have_neither_and_their_description_does_not_change(tmp_path):
    for name in ("nudt", "nudt-paper", "real"):
        plain = load_preset(name).as_dict()
        assert "negatives" not in plain and "copies" not in plain
    on = load_preset("nudt", ["negatives.count={value: 1}", "copies.count=2"]).as_dict()
    assert on["copies"] == {"count": 2} and on["negatives"]["count"] == {"value": 1.0}


def test_the_preview_frames_negatives_in_another_colour(tmp_path):
    preview(tmp_path / "look.png", recipe(tmp_path, NEGATIVES), 4)
    sheet = cv2.imread(str(tmp_path / "look.png"))
    colours = {tuple(c) for c in sheet.reshape(-1, 3).tolist()}
    assert (255, 160, 90) in colours and (0, 210, 255) in colours
    assert read_image(tmp_path / "look.png").shape == (98, 4 * 98)


def test_masks_of_copies_agree_with_their_annotations(tmp_path):
    generate(
        tmp_path / "set",
        6,
        4,
        preset="real",
        overrides=["copies.count=2", "mask.policy=half"],
        size=96,
        workers=1,
    )
    coco = json.loads((tmp_path / "set/annotations.json").read_text())
    for image in coco["images"]:
        union = np.zeros((96, 96), bool)
        for a in coco["annotations"]:
            if a["image_id"] == image["id"]:
                instance = rle_to_instance(a["segmentation"])
                x1, y1, x2, y2 = instance.box
                union[y1:y2, x1:x2] |= instance.mask
        mask = read_image(tmp_path / "set" / image["file_name"].replace("images", "masks")) > 0
        assert np.array_equal(mask, union)


def test_sequences_refuse_what_is_for_single_images():
    from irstkit.synth.sequences.preset import load_sequence_preset

    with pytest.raises(IrstkitError, match="negatives and copies are for single images"):
        load_sequence_preset("real", ["copies.count=2"])
