"""Fixtures for every room: the command line, tiny data sets, and the public data where it is at hand."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

SHARED = Path(os.environ.get("IRSTKIT_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def shared_data():
    """``shared_data("NUAA-SIRST")``: the folder of a public data set, or a skip that names it."""

    def get(name: str) -> Path:
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"needs the public data {name} in {SHARED} (set IRSTKIT_DATA to where it lies)")
        return path

    return get


@pytest.fixture(autouse=True)
def not_quiet():
    """``irstkit --quiet`` in this process must not silence the tests that come later."""
    from irstkit.annotate import console

    yield
    console.quiet = False


@pytest.fixture
def irstkit():
    """Run ``irstkit ARGS...`` in this process: ``result.exit_code``, ``.stdout``, ``.stderr``."""
    from click.testing import CliRunner

    from irstkit.cli import cli

    def run(*args: object):
        result = CliRunner().invoke(cli, [str(a) for a in args], prog_name="irstkit")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception  # a traceback is never an answer
        return result

    return run


@pytest.fixture
def make_pairs(tmp_path):
    """``make_pairs(count, size, folder=...)``: images/ and masks/ with one or two bright targets each."""

    def make(
        count: int = 6, size: tuple[int, int] = (48, 64), *, folder: str = "pairs", seed: int = 0
    ) -> Path:
        rng = np.random.default_rng(seed)
        root = tmp_path / folder
        (root / "images").mkdir(parents=True)
        (root / "masks").mkdir()
        h, w = size
        for k in range(count):
            image = cv2.GaussianBlur(rng.normal(90, 25, size), (0, 0), 6) + rng.normal(0, 2, size)
            mask = np.zeros(size, np.uint8)
            for n in range(1 + k % 2):
                y, x = rng.integers(6, h - 8), 6 + n * (w // 2) + rng.integers(0, w // 2 - 14)
                mask[y : y + 3, x : x + 3] = 255
                image[y : y + 3, x : x + 3] += 70
            cv2.imwrite(str(root / "images" / f"{k:06d}.png"), np.clip(image, 0, 255).astype(np.uint8))
            cv2.imwrite(str(root / "masks" / f"{k:06d}.png"), mask)
        return root

    return make
