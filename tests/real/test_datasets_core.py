"""The public sets as they lie: counts, lists, the one known defect, twins across the lists."""

from __future__ import annotations

import json

import pytest

from irstkit.datasets.readers import open_dataset
from irstkit.datasets.splits import train_val
from irstkit.datasets.twins import thumbnails, twin_pairs


@pytest.mark.parametrize(
    ("name", "layout", "images", "targets", "splits"),
    [
        ("NUAA-SIRST", "nuaa-sirst", 427, 533,
         {"50_50/train": 213, "50_50/test": 214, "idx_427/train": 256, "idx_427/val": 85, "idx_427/test": 86,
          "idx_427/trainval": 341, "idx_427/trainvaltest": 427}),
        ("NUDT-SIRST", "nudt-sirst", 1327, 1863, {"50_50/train": 663, "50_50/test": 664}),
        ("IRSTD-1k-sample", "irstd-1k", 60, 91, {}),
    ],
)  # fmt: skip
def test_info(irstkit, shared_data, name, layout, images, targets, splits):
    result = irstkit("data", "info", shared_data(name), "--json")
    found = json.loads(result.stdout)
    assert (found["layout"], found["images"], found["targets"]) == (layout, images, targets)
    assert {s["split"]: s["images"] for s in found["splits"]} == splits
    assert found["errors"] == 0 and result.exit_code == 0


def test_details_of_the_sheets(irstkit, shared_data):
    nuaa = json.loads(irstkit("data", "info", shared_data("NUAA-SIRST"), "--json").stdout)
    assert len(nuaa["sizes"]) == 381 and len(nuaa["colour_not_gray_equal"]) == 159
    assert nuaa["area"] == {"min": 4, "median": 20, "max": 330} and not nuaa["gray_masks"]
    known = [f for f in nuaa["findings"] if f["kind"] == "mask-size"]
    assert [(f["record"], f["severity"]) for f in known] == [("Misc_111", "warning")]
    irstd = json.loads(irstkit("data", "info", shared_data("IRSTD-1k-sample"), "--json").stdout)
    assert len(irstd["gray_masks"]) == 14


def test_twins_across_the_50_50_lists(shared_data):
    """32 test images of NUDT-SIRST have a twin in training, none of NUAA-SIRST."""
    for name, expected in (("NUDT-SIRST", 32), ("NUAA-SIRST", 0)):
        data = open_dataset(shared_data(name))
        part = [r.splits["50_50"] for r in data]
        pairs = twin_pairs(thumbnails(data.records))
        leaks = {j if part[j] == "test" else i for i, j, _ in pairs if part[i] != part[j]}
        assert len(leaks) == expected


def test_validation_part(shared_data):
    data = open_dataset(shared_data("NUAA-SIRST"))
    train, val = train_val(data, "50_50/train")
    assert (len(train), len(val)) == (192, 21)
    assert not {r.id for r in train + val} & {r.id for r in data.part("50_50/test")}


def test_audit_of_nudt_and_nuaa(irstkit, shared_data, tmp_path):
    """The page shows every pair's pictures side by side; no image repeats exactly, none lies in both sets."""
    page = tmp_path / "audit.html"
    args = ("data", "audit", shared_data("NUDT-SIRST"), shared_data("NUAA-SIRST"), "--html", page, "--json")
    found = json.loads(irstkit(*args).stdout)
    leaks = {(s["name"], row["scheme"], row["of"]): row for s in found["sets"] for row in s["leaks"]}
    assert len(leaks["NUDT-SIRST", "50_50", "test"]["twins"]) == 32
    assert all(not row["exact"] for row in leaks.values()) and not found["exact_repetitions"]
    assert all(not row["twins"] for key, row in leaks.items() if key[0] == "NUAA-SIRST")
    assert len(found["twin_pairs"]) == 63 and found["twin_pairs_across_sets"] == 0
    scr = found["sets"][0]["statistics"]["all"]["scr"]
    assert abs(scr["10"]["p50"] - 5.7) < 0.05 and abs(scr["3"]["p50"] - 4.6) < 0.05
    text = page.read_text()
    assert text.count("NUDT-SIRST: ") > 60 and "://" not in text
