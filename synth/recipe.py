"""What decides every pixel of a set, its random streams, and the background that an image is made on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from math import log
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from .backgrounds import ID_LENGTH, PROCEDURAL, Background, Store
from .preset import Preset
from .procedural import procedural
from .regions import SIDE, crop_outline, outline

IMAGE, SEQUENCE, FRAME, SPLIT, BACKGROUND = range(5)
COPY, NEGATIVE = 20, 21  # what an option draws has streams of its own: without the option no byte differs
TOLERANCE = {8: 0.05, 16: 0.01}


def stream(seed: int, *key: int) -> np.random.Generator:
    """The random stream of DESIGN: ``key`` is (stream, *indices)."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))


@dataclass(eq=False)
class Recipe:
    """What decides every pixel: the resolved preset, the seed, the backgrounds, the crop's size and depth.

    The preset's scene mix holds where every background's scene was told. Where scenes are predicted the
    backgrounds are drawn as they come: a rare scene would else be a few images, repeated and perhaps wrong.
    """

    preset: Preset
    seed: int
    size: int
    depth: int
    store: Store | None
    splits: dict[str, float]

    def located(self) -> Self:
        """The same recipe with its backgrounds' file by an absolute path, for processes that run elsewhere."""
        if self.store is None:
            return self
        return replace(self, store=replace(self.store, path=self.store.path.resolve()))

    def __post_init__(self) -> None:
        self.top = 65535 if self.depth == 16 else 255
        self.by_scene: dict[str, list[Background]] = {}
        items = self.store.items if self.store else ()
        for item in items:
            if item.scene:
                self.by_scene.setdefault(item.scene, []).append(item)
        mix = self.preset.scene_mix
        self.mix: dict[str, float] | None = None
        if self.store is None:
            self.mix = (
                {str(k): v for k, v in mix.items()}
                if mix
                else dict.fromkeys(("city", "cloud", "field", "sea", "highlight"), 1.0)
            )
        elif mix and all(item.labelled for item in items):
            self.mix = {
                scene: share for scene, share in mix.items() if scene in self.by_scene and share > 0
            } or None


@dataclass(eq=False)
class Ground:
    image: NDArray
    scene: str | None
    id: str
    group: str
    name: str
    crop: dict[str, Any] = field(default_factory=dict)
    outline: tuple[float, ...] | None = None


def draw_ground(
    recipe: Recipe, index: int, attempt: int, rng: np.random.Generator, scene: str | None
) -> Ground:
    """A background of ``scene`` (None: any), cropped; a rejected one is followed by another of its scene."""
    if recipe.store is None:
        assert scene is not None
        image, horizon = procedural(scene, recipe.size, rng, recipe.depth)
        if scene == "sea":  # the only scene whose ground is flat; 0: a view from above, water everywhere
            path: tuple[float, ...] | None = (horizon or 0.0,) * SIDE
        else:
            path = outline(image, scene)
        image, altered = _altered(recipe, image, rng)
        name = f"{PROCEDURAL}/{scene}/{recipe.seed}/{index}/{attempt}"
        identity = hashlib.sha256(name.encode()).hexdigest()[:ID_LENGTH]
        crop = {"scale": 1.0, "flip": False, **altered}
        return Ground(image, scene, identity, identity, name, crop, path)
    items = recipe.by_scene.get(scene or "") or recipe.store.items
    item = items[int(rng.integers(len(items)))]
    image, crop = _crop(recipe, item, rng)
    path = crop_outline(item.outline, item.size, crop["x"], crop["y"], crop["side"], crop["flip"])
    return Ground(image, item.scene, item.id, item.group, item.name, crop, path)


def _crop(recipe: Recipe, item: Background, rng: np.random.Generator) -> tuple[NDArray, dict[str, Any]]:
    """A (size, size) crop at a drawn scale, mirrored or not, in the output's depth."""
    assert recipe.store is not None
    height, width = item.size
    low, high = recipe.preset.background.scale
    low = max(low, recipe.size / min(height, width))
    high = max(low, high)
    scale = low if low == high else float(np.exp(log(low) + (log(high) - log(low)) * rng.random()))
    side = min(round(recipe.size / scale), height, width)
    y, x = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    flip = recipe.preset.background.flip and rng.random() < 0.5
    pixels = recipe.store.read(item)[y : y + side, x : x + side]
    if side != recipe.size:
        method = cv2.INTER_AREA if side > recipe.size else cv2.INTER_CUBIC
        pixels = cv2.resize(np.ascontiguousarray(pixels), (recipe.size, recipe.size), interpolation=method)
    pixels = to_depth(pixels, recipe.depth)
    pixels, altered = _altered(recipe, pixels, rng)
    pixels = np.ascontiguousarray(pixels[:, ::-1] if flip else pixels)
    crop = {"x": x, "y": y, "side": side, "scale": round(recipe.size / side, 6), "flip": bool(flip)}
    return pixels, crop | altered


def _altered(recipe: Recipe, pixels: NDArray, rng: np.random.Generator) -> tuple[NDArray, dict[str, Any]]:
    """The crop with the contrast and coring that are drawn for it, and what was drawn."""
    look = recipe.preset.background
    if not look.altered:
        return pixels, {}
    contrast, coring = look.contrast.at(rng.random()), look.coring.at(rng.random())
    told = {"contrast": round(contrast, 6), "coring": round(coring, 6)}
    return alter(pixels, contrast, coring * recipe.top / 255, recipe.top), told


def alter(pixels: NDArray, contrast: float, coring: float, top: int) -> NDArray:
    """A background of other contrast about its mean, its noise reduced by coring.

    Coring is what cameras' noise reduction does: the fine part, the image less its Gaussian of 1.5 pixels, is
    brought nearer to 0 by ``coring`` gray levels; what is smaller vanishes, edges stay.
    """
    values = pixels.astype(np.float32)
    if coring > 0:
        smooth = cv2.GaussianBlur(values, (0, 0), 1.5)
        fine = values - smooth
        values = smooth + np.sign(fine) * np.maximum(np.abs(fine) - np.float32(coring), 0)
    mean = float(pixels.mean())
    return np.rint((values - mean) * np.float32(contrast) + mean).clip(0, top).astype(pixels.dtype)


def to_depth(pixels: NDArray, depth: int) -> NDArray:
    """8 bit to 16 by 257 (255 becomes 65535). 16 bit to 8 by the crop's own range, since a 16-bit camera uses
    a small part of its own: the 0.1 and 99.9 percentiles go to 5 and 250."""
    if depth == 16:
        return pixels if pixels.dtype == np.uint16 else pixels.astype(np.uint16) * np.uint16(257)
    if pixels.dtype == np.uint8:
        return pixels
    values = pixels.astype(np.float64)
    low, high = np.percentile(values, (0.1, 99.9))
    unit = (values - low) / max(high - low, 1.0)
    return np.rint(5 + 245 * unit).clip(0, 255).astype(np.uint8)


def faults(image: NDArray, recipe: Recipe) -> str | None:
    """Why a crop is not fit to be a background; None when it is."""
    gate = recipe.preset.gate
    deviation = float(cv2.meanStdDev(image)[1][0, 0])
    if deviation < gate.min_deviation * recipe.top:
        return "flat"
    if np.count_nonzero(image == recipe.top) > gate.max_saturated * image.size:
        return "saturated"
    if image.size - np.count_nonzero(image) > gate.max_blank * image.size:
        return "blank"
    return None
