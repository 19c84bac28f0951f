"""The same scene again: the same crop, targets, shapes and places; another SCR, blur and noise.

What a network can then not learn is that a scene goes with a brightness. A copy's random stream is its own, so that
scenes and their originals are those of the set without copies.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from .contrast import Box, ring_window, spill_limit
from .draws import HEADROOM
from .placement import Frame, Target, accept, apart
from .preset import SceneTable
from .sensor import Camera

TRIES = 12  # SCR and blur drawn anew, before a target keeps the original's


def blend_anew(first: Frame, table: SceneTable, rng: np.random.Generator, rejected: Counter) -> Frame:
    """A frame like ``first`` with every target's SCR and blur, and the camera's noise, drawn anew."""
    recipe, preset = first.recipe, first.recipe.preset
    camera = None
    if preset.sensor.active:
        camera = Camera(preset.sensor, rng, first.size, recipe.top, recipe.seed)
    frame = Frame(recipe, first.background, camera)
    for old in first.targets:
        target = _again(frame, old, table, rng)
        if target is None:
            rejected["copy kept its SCR"] += 1
            target = Target(old.patch, old.row, old.column, old.polarity, old.requested, old.amplitude)
            solution = frame.solve(target)
            if solution is not None:
                accept(target, solution)
        frame.targets.append(target)
        frame.write(target.reach)
    return frame


def _again(frame: Frame, old: Target, table: SceneTable, rng: np.random.Generator) -> Target | None:
    preset, top = frame.recipe.preset, frame.recipe.top
    low, high = (limit * top for limit in preset.contrast.limits)
    for _ in range(TRIES):
        requested = round(table.scr.at(rng.random()), 6)
        sigma = preset.blur.at(rng.random())
        patch = old.patch.again(sigma=sigma) if old.patch.again else old.patch
        target = Target(patch, old.row, old.column, old.polarity, requested)
        if not _fits(frame, target):
            continue
        x1, y1, x2, y2 = patch.box
        ring = preset.contrast.ring
        pixels = (x2 - x1 + 2 * ring) * (y2 - y1 + 2 * ring) - patch.area
        if spill_limit(patch.values, patch.mask, pixels) < HEADROOM * requested:
            continue
        solution = frame.solve(target)
        if solution is None or solution.status != "ok" or not low <= abs(solution.difference) <= high:
            continue
        if abs(solution.amplitude) >= preset.gate.min_step * top:
            accept(target, solution)
            return target
    return None


def _fits(frame: Frame, target: Target) -> bool:
    """Whether another blur has not brought the mask out of the image or near another target."""
    x1, y1, x2, y2 = target.box
    height, width = frame.size
    if x1 < 0 or y1 < 0 or x2 > width or y2 > height:
        return False
    if frame.recipe.preset.placement.crowded:
        return all(apart(target.box, other.box) for other in frame.targets)
    ring = frame.recipe.preset.contrast.ring

    def grown(box: Box) -> Box:
        return ring_window(box, ring, (height, width))

    return all(
        apart(grown(target.box), other.reach) and apart(grown(other.box), target.reach)
        for other in frame.targets
    )
