"""The larger background that a sequence's views are cut from.

It is softened a little (preset: ``soften``): what a single background image holds near half a cycle a pixel is
mostly its own camera's noise, which would travel with the scene, and no filter moves it by part of a pixel without
changing its strength. Every frame gets noise of its own instead.
"""

from __future__ import annotations

import hashlib
from math import log
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..backgrounds import ID_LENGTH, MAX_SCALE, PROCEDURAL, Background
from ..procedural import procedural
from ..recipe import Ground, Recipe, to_depth
from ..regions import SIDE, outline


def draw_canvas(
    recipe: Recipe, index: int, attempt: int, rng: np.random.Generator, scene: str | None, size: tuple[int, int],
    items: list[Background] | None = None,
) -> Ground:  # fmt: skip
    """A background of (height, width) pixels of ``scene`` (None: any), float32 in gray levels of the output.

    ``items`` are the backgrounds to choose from (None: the scene's, or all). Images that are too small are
    enlarged up to twice and continued by their mirror image, so that no seam shows.
    """
    if recipe.store is None:
        assert scene is not None
        return _procedural(recipe, index, attempt, rng, scene, size)
    pool = items or recipe.by_scene.get(scene or "") or list(recipe.store.items)
    item = pool[int(rng.integers(len(pool)))]
    pixels, crop = _image(recipe, item, rng, size)
    path = outline(_shown(pixels, recipe.top), item.scene)
    return Ground(_soften(pixels, recipe), item.scene, item.id, item.group, item.name, crop, path)


def _procedural(
    recipe: Recipe, index: int, attempt: int, rng: np.random.Generator, scene: str, size: tuple[int, int]
) -> Ground:  # fmt: skip
    height, width = size
    side = max(size)
    image, horizon = procedural(scene, side, rng, 16, noisy=False)
    top = int((side - height) * (0.3 + 0.4 * rng.random()))
    left = (side - width) // 2
    pixels = image[top : top + height, left : left + width].astype(np.float32) * (recipe.top / 65535.0)
    path: tuple[float, ...] | None
    if scene == "sea":
        path = (((horizon or 0.0) * side - top) / height if horizon else 0.0,) * SIDE
    else:
        path = outline(_shown(pixels, recipe.top), scene)
    name = f"{PROCEDURAL}/{scene}/{recipe.seed}/sequence {index}/{attempt}"
    identity = hashlib.sha256(name.encode()).hexdigest()[:ID_LENGTH]
    crop = {"x": left, "y": top, "width": width, "height": height, "scale": 1.0, "flip": False}
    return Ground(_soften(pixels, recipe), scene, identity, identity, name, crop, path)


def _image(
    recipe: Recipe, item: Background, rng: np.random.Generator, size: tuple[int, int]
) -> tuple[NDArray, dict[str, Any]]:
    assert recipe.store is not None
    height, width = size
    low, high = recipe.preset.background.scale
    needed = max(height / item.size[0], width / item.size[1])
    low = min(max(low, needed), MAX_SCALE)
    high = max(low, high)
    scale = low if low == high else float(np.exp(log(low) + (log(high) - log(low)) * rng.random()))
    # the piece of the source that the canvas shows, whole source pixels
    h, w = min(round(height / scale), item.size[0]), min(round(width / scale), item.size[1])
    y, x = int(rng.integers(item.size[0] - h + 1)), int(rng.integers(item.size[1] - w + 1))
    flip = recipe.preset.background.flip and rng.random() < 0.5
    pixels = to_depth(np.ascontiguousarray(recipe.store.read(item)[y : y + h, x : x + w]), recipe.depth)
    wide, high_ = min(round(w * scale), width), min(round(h * scale), height)
    pixels = pixels.astype(np.float32)
    if (high_, wide) != pixels.shape:
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        pixels = cv2.resize(pixels, (wide, high_), interpolation=method)
    spread = recipe.preset.background.contrast
    factor = 1.0 if spread.bounds() == (1, 1) else spread.at(rng.random())
    mean = float(pixels.mean())
    pixels = ((pixels - mean) * factor + mean).clip(0, recipe.top)
    if flip:
        pixels = pixels[:, ::-1]
    across, down = width - wide, height - high_
    if across or down:
        pixels = np.pad(
            pixels, ((down // 2, down - down // 2), (across // 2, across - across // 2)), mode="reflect"
        )
    crop = {"x": x, "y": y, "width": w, "height": h, "scale": round(scale, 6), "flip": bool(flip),
            "mirrored": [across, down], "contrast": round(factor, 6)}  # fmt: skip
    return np.ascontiguousarray(pixels), crop


def _shown(pixels: NDArray, top: int) -> NDArray[np.uint8]:
    return np.rint(pixels * (255.0 / top)).clip(0, 255).astype(np.uint8)


def _soften(pixels: NDArray, recipe: Recipe) -> NDArray[np.float32]:
    sigma = recipe.preset.sequence.soften  # type: ignore[attr-defined]
    pixels = np.ascontiguousarray(pixels, dtype=np.float32)
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma) if sigma > 0 else pixels, np.float32)


def local_deviation(canvas: NDArray[np.float32], side: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """(H, W) mean and deviation in squares of ``side`` pixels around each pixel."""
    wide = canvas.astype(np.float64)
    mean = cv2.blur(wide, (side, side))
    return mean, np.sqrt(np.maximum(cv2.blur(wide * wide, (side, side)) - mean * mean, 0.0))
