"""What every command does with what users really hand it: one line, status 1, nothing half-written."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest

KINDS = {
    "missing": "no such folder",
    "empty": "empty",
    "text named .png": "not an image",
    "truncated image": "truncated PNG",
    "truncated mask": "truncated PNG",
    "mask of another size": "the mask is 30x20",
    "mask without image": "a mask without image",
}
COMMANDS = {
    "synth": lambda data, out: ("synth", "images", "--out", out, "--count", 2, "--size", 64, "--backgrounds", data),
    "fit": lambda data, out: (
        "train", "fit", "sd2net", "--real", data, "--real-split", "all", "--steps", 1, "--crop", 32, "--out", out,
    ),
    "import": lambda data, out: ("data", "import", data, "--out", out),
    "boxes": lambda data, out: ("annotate", "boxes", data / "masks", "--to", "yolo", "--out", out),
}  # fmt: skip
NOT_SEEN = {("boxes", k) for k in ("truncated image", "mask of another size", "mask without image")}
"""``annotate boxes`` is given the masks alone: these are no fault of theirs."""


@pytest.fixture
def damaged(make_pairs, tmp_path):
    def make(kind: str):
        root = make_pairs(5, (136, 140))
        image, mask = root / "images" / "000002.png", root / "masks" / "000002.png"
        if kind == "missing":
            shutil.rmtree(root)
        elif kind == "empty":
            for folder in ("images", "masks"):
                shutil.rmtree(root / folder)
        elif kind == "text named .png":
            image.write_text("hello")
            mask.write_text("hello")
        elif kind == "truncated image":
            image.write_bytes(image.read_bytes()[:-200])
        elif kind == "truncated mask":
            mask.write_bytes(mask.read_bytes()[:-20])
        elif kind == "mask of another size":
            cv2.imwrite(str(mask), np.full((20, 30), 255, np.uint8))
        elif kind == "mask without image":
            image.unlink()
        return root

    return make


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("command", COMMANDS)
def test_one_error_and_nothing_written(irstkit, damaged, tmp_path, command, kind):
    if (command, kind) in NOT_SEEN:
        return
    root, out = damaged(kind), tmp_path / "out"
    result = irstkit("--quiet", *COMMANDS[command](root, out))
    assert result.exit_code == 1, result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1 and "Traceback" not in result.stderr
    expected = "no such folder" if (command, kind) == ("boxes", "empty") else KINDS[kind]
    assert expected in errors[0]
    assert "000002.png" in errors[0] or kind in ("missing", "empty")
    assert not out.exists()


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("missing", "empty")])
def test_data_info_lists_it_instead(irstkit, damaged, kind):
    result = irstkit("data", "info", damaged(kind))
    assert result.exit_code == 0
    assert KINDS[kind] in result.stdout and "000002.png" in result.stdout
