"""The audit: what is planted is found, what is clean is not accused, the page is whole."""

from __future__ import annotations

import json
import re

import cv2
import numpy as np
import pytest

from irstkit.datasets.audit import audit, shifted_masks
from irstkit.datasets.readers import open_dataset


def image(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def lists(root, **parts):
    (root / "50_50").mkdir()
    for part, numbers in parts.items():
        (root / f"50_50/{part}.txt").write_text("".join(f"{n:06d}\n" for n in numbers))


def facts(irstkit, *args):
    result = irstkit("data", "audit", *args, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_repetitions_across_parts_and_sets(irstkit, make_pairs):
    a, b = make_pairs(8, folder="a"), make_pairs(4, folder="b", seed=7)
    twin = image(a / "images/000000.png")
    twin[2, 2] ^= 8
    cv2.imwrite(str(a / "images/000005.png"), twin)  # a twin of 0, in the other part
    (a / "images/000006.png").write_bytes((a / "images/000001.png").read_bytes())  # exact, other part
    (b / "images/000003.png").write_bytes((a / "images/000002.png").read_bytes())  # exact, other set
    lists(a, train=[0, 1, 2, 3], test=[4, 5, 6, 7])
    found = facts(irstkit, a, b)
    assert [s["name"] for s in found["sets"]] == ["a", "b"]
    assert found["sets"][0]["leaks"] == [
        {"scheme": "50_50", "of": "test", "in": "train", "twins": ["000005", "000006"], "exact": ["000006"]}
    ]
    assert found["exact_repetitions"] == [
        [{"set": "a", "id": "000001"}, {"set": "a", "id": "000006"}],
        [{"set": "a", "id": "000002"}, {"set": "b", "id": "000003"}],
    ]
    assert found["twin_pairs_across_sets"] == 1 and len(found["twin_groups"]) == 3
    kinds = {w["kind"] for w in found["sets"][0]["wrong_pairs"]}
    assert kinds == {"labels-differ"}  # 1 and 6 are one image with two masks
    strict = irstkit("data", "audit", a, "--strict")
    assert strict.exit_code == 1 and "2 images of test are in train (50_50)" in strict.stderr
    table = irstkit("data", "audit", a, b)
    assert (
        "1 images are in train exactly, 2 as twins" in table.stdout and "a 000002 ~ b 000003" in table.stdout
    )


def test_frames_of_a_sequence_are_no_twins(irstkit, make_pairs, tmp_path):
    root = make_pairs(6)
    for kind in ("images", "masks"):
        (root / kind / "cam").mkdir()
        source = (root / kind / "000000.png").read_bytes()
        for k in range(4):
            (root / kind / f"cam/{k:06d}.png").write_bytes(source)
    found = facts(irstkit, root)
    pairs = {(p["a"]["id"], p["b"]["id"]) for p in found["twin_pairs"]}
    assert pairs == {("000000", f"cam/{k:06d}") for k in range(4)}
    assert len(found["exact_repetitions"]) == 1  # repetitions are listed all the same


def test_suspicious_targets(irstkit, make_pairs):
    root = make_pairs(5, (80, 90))
    rng = np.random.default_rng(0)
    boxes = {
        "large": (20, 20, 32, 32),
        "border": (0, 30, 4, 34),
        "one pixel": (40, 40, 41, 41),
        "invisible": (60, 50, 64, 54),
    }
    for k, (why, (x1, y1, x2, y2)) in enumerate(boxes.items()):
        pixels = rng.normal(90, 6, (80, 90))
        mask = np.zeros((80, 90), np.uint8)
        mask[y1:y2, x1:x2] = 255
        if why != "invisible":
            pixels[y1:y2, x1:x2] += 90
        cv2.imwrite(str(root / f"images/{k:06d}.png"), np.clip(pixels, 0, 255).astype(np.uint8))
        cv2.imwrite(str(root / f"masks/{k:06d}.png"), mask)
    flat = np.full((80, 90), 50, np.uint8)
    flat[30:33, 30:33] = 200
    cv2.imwrite(str(root / "images/000004.png"), flat)
    cv2.imwrite(str(root / "masks/000004.png"), np.where(flat == 200, 255, 0).astype(np.uint8))
    found = facts(irstkit, root)["sets"][0]
    told = {(t["id"], tuple(t["why"])) for t in found["suspicious_targets"]}
    assert told == {
        ("000000", ("large",)), ("000001", ("border",)), ("000002", ("one pixel",)), ("000003", ("invisible",)),
        ("000004", ("SCR undefined",)),
    }  # fmt: skip
    assert found["suspicious"] == {
        "SCR undefined": 1,
        "border": 1,
        "invisible": 1,
        "large": 1,
        "one pixel": 1,
    }


def test_shifted_masks_are_noticed(make_pairs, irstkit):
    root = make_pairs(16)
    data = open_dataset(root)
    assert shifted_masks(data.records) is None
    masks = [path.read_bytes() for path in sorted((root / "masks").iterdir())]
    for k in range(16):
        (root / f"masks/{k:06d}.png").write_bytes(masks[(k + 1) % 16])
    assert shifted_masks(data.records) is not None
    found = facts(irstkit, root)["sets"][0]["wrong_pairs"]
    assert "masks-shifted" in {w["kind"] for w in found}


def test_statistics_by_scene_and_ring_against_the_definition(make_pairs, tmp_path, irstkit):
    root = make_pairs(6)
    table = tmp_path / "scenes.csv"
    table.write_text(
        "file,scene\n" + "".join(f"{k:06d}.png,{'sea' if k < 2 else 'city'}\n" for k in range(6))
    )
    found = facts(irstkit, root, "--scenes", table, "--rings", "4,10")["sets"][0]["statistics"]
    assert {name: s["images"] for name, s in found.items()} == {"all": 6, "city": 4, "sea": 2}
    assert found["all"]["targets"] == 9 and found["all"]["targets_per_image"] == {"1": 3, "2": 3}
    assert found["all"]["area"]["p50"] == 9 and set(found["all"]["scr"]) == {"4", "10"}
    scores = []
    for record in open_dataset(root):  # the definition, pixel by pixel
        pixels, mask = record.read_image().astype(float), record.read_mask()
        for x1, y1, x2, y2 in record.read_boxes().astype(int).tolist():
            window = (slice(max(y1 - 4, 0), y2 + 4), slice(max(x1 - 4, 0), x2 + 4))
            ring = pixels[window][~mask[window]]
            scores.append(abs(pixels[y1:y2, x1:x2].mean() - ring.mean()) / ring.std())
    assert found["all"]["scr"]["4"]["p50"] == pytest.approx(np.median(scores), abs=1e-3)


def test_unreadable_files_are_findings(irstkit, make_pairs, tmp_path):
    root = make_pairs(4)
    (root / "images/000001.png").write_text("hello")
    (root / "masks/000002.png").write_bytes((root / "masks/000002.png").read_bytes()[:60])
    found = facts(irstkit, root, "--html", tmp_path / "a.html")
    assert found["errors"] == 2 and (tmp_path / "a.html").exists()
    assert irstkit("data", "audit", root, "--strict").exit_code == 1


def test_page_is_self_contained(irstkit, make_pairs, tmp_path):
    a, b = make_pairs(5, folder="a<b>"), make_pairs(4, folder="c", seed=2)
    (b / "images/000003.png").write_bytes((a / "images/000002.png").read_bytes())
    page = tmp_path / "audit.html"
    assert irstkit("data", "audit", a, b, "--html", page).exit_code == 0
    text = page.read_text()
    assert "a&lt;b&gt;" in text and "a<b>" not in text
    sources = re.findall(r'src="([^"]{0,30})', text)
    assert sources and all(s.startswith("data:image/png;base64,") for s in sources)
    assert "://" not in text and "<script" not in text and "c: 000003" in text


def test_images_alone_and_boxes_alone(irstkit, make_pairs, tmp_path):
    root = make_pairs(3)
    found = facts(irstkit, root / "images", "--html", tmp_path / "i.html")
    assert found["sets"][0]["statistics"]["all"]["targets"] == 0
    assert irstkit("data", "export", root, "--to", "yolo", "--out", tmp_path / "y").exit_code == 0
    found = facts(irstkit, tmp_path / "y", "--html", tmp_path / "y.html")["sets"][0]["statistics"]["all"]
    assert (
        found["targets"] == 4
        and found["scr"]["10"] is None
        and found["area"]["p50"] == pytest.approx(9, abs=0.01)
    )


def test_wrong_options(irstkit, make_pairs, tmp_path):
    root = make_pairs(2)
    assert irstkit("data", "audit", root, "--rings", "3,x").exit_code == 2
    assert irstkit("data", "audit").exit_code == 2
    assert irstkit("data", "audit", tmp_path / "none").exit_code == 1


def test_workers_do_not_change_the_result(make_pairs, monkeypatch):
    root = make_pairs(6)
    first = audit([open_dataset(root)]).facts
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    assert audit([open_dataset(root)]).facts == first
