"""Boxes of the public masks, counted."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("name", "convention", "files", "lines"),
    [
        ("NUDT-SIRST", "eflnet", 1327, 1916),
        ("NUDT-SIRST", "components", 1327, 1863),
        ("NUAA-SIRST", "components", 427, 533),
    ],
)
def test_published_counts(shared_data, irstkit, tmp_path, name, convention, files, lines):
    masks = shared_data(name) / "masks"
    out = tmp_path / "labels"
    assert (
        irstkit(
            "annotate", "boxes", masks, "--to", "yolo", "--convention", convention, "--out", out
        ).exit_code
        == 0
    )
    texts = [f.read_text() for f in out.iterdir()]
    assert (len(texts), sum(t.count("\n") for t in texts)) == (files, lines)
