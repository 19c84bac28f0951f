"""What a target is: kind, size, shape and blur, drawn from the preset's table for the scene."""

from __future__ import annotations

from collections import Counter
from math import log, pi, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import targets as shapes
from .contrast import spill_limit
from .dist import choose
from .irregular import lumpy_shape
from .placement import Target
from .preset import Preset, SceneTable
from .recipe import Recipe
from .regions import allowed

HEADROOM = 1.3  # how far a patch's own limit must lie above the requested SCR


def draw_target(
    recipe: Recipe,
    table: SceneTable,
    requested: float,
    polarity: int,
    rng: np.random.Generator,
    rejected: Counter,
    regions: NDArray[Any] | None,
) -> Target:
    """What: kind, size, and a patch whose spill into its own ring lets the requested SCR be had.

    However bright, a target whose light spills into its ring cannot exceed a certain SCR. A patch that
    comes too near is drawn anew, at last with another size, never with another SCR.
    """
    preset = recipe.preset
    weights: dict[str, float] = {}
    best: tuple[float, shapes.Patch] | None = None
    kind, area = "point", 1
    for attempt in range(16):
        if attempt % 4 == 0:
            area = max(1, round(table.area.at(rng.random())))
            rule = next(r for r in preset.kinds if r.up_to is None or area <= r.up_to)
            kind = choose({"point": rule.point, "spot": rule.spot, "extended": rule.extended}, rng.random())
        if kind == "extended" and not weights:
            weights = silhouette_weights(table, regions)
        patch = _patch(preset, weights, kind, area, rng, 0.1 / recipe.top)
        x1, y1, x2, y2 = patch.box
        ring = preset.contrast.ring
        pixels = (x2 - x1 + 2 * ring) * (y2 - y1 + 2 * ring) - patch.area
        limit = spill_limit(patch.values, patch.mask, pixels)
        if best is None or limit > best[0]:
            best = limit, patch
        if limit >= HEADROOM * requested:
            break
        rejected["spill"] += 1
    assert best is not None
    return Target(best[1], 0, 0, polarity, requested)


def silhouette_weights(table: SceneTable, regions: NDArray[Any] | None) -> dict[str, float]:
    """The table's weights of those silhouettes that have a place in the image; all of them where none has."""
    out: dict[str, float] = {}
    for name, weight in table.silhouettes.items():
        where = allowed(name, regions)
        if where is None or where.any():
            out[name] = weight
    return out if sum(out.values()) > 0 else {str(k): v for k, v in table.silhouettes.items()}


def _patch(
    preset: Preset, weights: dict[str, float], kind: str, area: int, rng: np.random.Generator, cut: float
) -> shapes.Patch:
    sigma = preset.blur.at(rng.random())
    if kind == "point":
        phase = preset.point.phase
        x, y = phase * (2 * rng.random() - 1), phase * (2 * rng.random() - 1)
        ratio = preset.point.anisotropy.at(rng.random())
        angle = pi * rng.random() if ratio > 1 else 0.0
        if preset.point.aligned > 0 and rng.random() < preset.point.aligned:
            angle = 0.0
        shape = shapes.point_shape(area, x, y, psf(preset, area, sigma, rng.random()), ratio, angle)
    else:
        x, y = rng.random() - 0.5, rng.random() - 0.5
        if kind == "spot" and not preset.spot.regular:
            shape = _lumpy(preset, area, x, y, rng)
        elif kind == "spot":
            shape = shapes.spot_shape(area, x, y, preset.spot.aspect.at(rng.random()), pi * rng.random())
        else:
            shape = shapes.extended_shape(
                choose(weights, rng.random()), area, x, y, rng,
                hot_spots=preset.extended.hot_spots, shading=preset.extended.shading,
            )  # fmt: skip
    energy = preset.mask.energy.at(rng.random()) if preset.mask.policy == "energy" else 0.7
    motion = preset.sensor.motion_blur.at(rng.random())
    return shapes.finish(
        shape, sigma, preset.mask.policy, level=preset.mask.level, energy=energy, cut=cut,
        motion=(motion, pi * rng.random()) if motion > 0 else (0.0, 0.0), optics=draw_optics(preset, rng),
    )  # fmt: skip


def _lumpy(preset: Preset, area: int, x: float, y: float, rng: np.random.Generator) -> shapes.Shape:
    spot = preset.spot
    aspect, power = spot.aspect.at(rng.random()), spot.power.at(rng.random())
    lumps, angle = round(spot.lumps.at(rng.random())), pi * rng.random()
    if rng.random() < spot.aligned:
        angle = 0.0
    return lumpy_shape(area, x, y, aspect, angle, lumps, power, rng, shading=spot.shading)


def draw_optics(preset: Preset, rng: np.random.Generator) -> tuple[float, float, float, float] | None:
    """Glow and edge enhancement for targets.finish; None where the preset has neither."""
    if not preset.optics.active:
        return None
    o = preset.optics
    glow, glow_sigma, sharpen, sharpen_sigma = (
        d.at(rng.random()) for d in (o.glow, o.glow_sigma, o.sharpen, o.sharpen_sigma)
    )
    return glow, glow_sigma, sharpen, sharpen_sigma


def psf(preset: Preset, area: int, blur: float, u: float) -> float:
    """The PSF's sigma: drawn, or the one at which the core holds a drawn share of the blurred energy.

    A disc of ``area`` pixels holds the share 1 - exp(-area / (2 pi sigma^2)) of a Gaussian; the blur's
    variance (of its 5 taps) is taken off.
    """
    if preset.point.energy is None:
        return preset.point.sigma.at(u)
    total = area / (2 * pi * -log(1 - preset.point.energy.at(u)))
    taps = np.exp(-0.5 * (np.arange(-2, 3) / blur) ** 2)
    variance = float((taps * np.arange(-2, 3) ** 2).sum() / taps.sum())
    return sqrt(min(max(total - variance, 0.35**2), 4.0**2))
