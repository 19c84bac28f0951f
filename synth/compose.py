"""One image: background, targets, placement, contrast, quality gate. A pure function of recipe and index."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..annotate.scr import Contrast, measure_contrast
from .backgrounds import part_of
from .contrast import grade
from .copies import blend_anew
from .dist import choose
from .draws import draw_target
from .negatives import Negative, add_negatives
from .placement import Frame, Target, accept, place
from .preset import Preset, SceneTable
from .recipe import BACKGROUND, COPY, IMAGE, NEGATIVE, TOLERANCE, Ground, Recipe, draw_ground, faults, stream
from .regions import region_map
from .sensor import Camera, compressed


@dataclass(eq=False)
class Made:
    """One finished image and everything known of it; ``refused`` are the backgrounds turned away, and why."""

    image: NDArray
    mask: NDArray[np.bool_]
    scene: str | None
    background: str
    name: str
    crop: dict[str, Any]
    part: str
    targets: list[Target]
    rejected: dict[str, int]
    gate: list[str]
    refused: list[tuple[NDArray, str]]
    negatives: list[Negative] = field(default_factory=list)
    copy_of: int | None = None


@dataclass(eq=False)
class Composed:
    """A scene with its targets placed and settled, before the JPEG step of quality ``jpeg``."""

    frame: Frame
    ground: Ground
    rejected: Counter[str]
    gate: list[str]
    refused: list[tuple[NDArray, str]]
    jpeg: int | None


def make_image(recipe: Recipe, index: int) -> Made:
    """Image ``index`` of a recipe; nothing else decides any of its pixels or numbers.

    Where the preset asks for copies, every ``copies.count`` images in a row are one scene: the first is
    that scene, the others are blended anew (copies.py). Negatives come last (negatives.py).
    """
    preset = recipe.preset
    scene, copy = divmod(index, preset.copies.count)
    made = _scene(recipe, scene)
    frame, ground, jpeg = made.frame, made.ground, made.jpeg
    rejected, gate, refused = Counter(made.rejected), made.gate, made.refused
    if copy:
        rejected, gate, refused = Counter(), [], []
        rng = stream(recipe.seed, COPY, scene, copy)
        frame = blend_anew(frame, preset.table(ground.scene), rng, rejected)
        settle(frame)
        jpeg = None if preset.sensor.jpeg is None else round(preset.sensor.jpeg.at(rng.random()))
    elif preset.copies.count > 1:  # the scene is asked for again, as it is now
        frame = frame.twin()
    negatives: list[Negative] = []
    if preset.negatives.active:
        rng = stream(recipe.seed, NEGATIVE, index)
        negatives = add_negatives(frame, preset.negatives, rng, rejected, blocks=jpeg is not None)
    if jpeg is not None:
        compress(frame, jpeg)
    return Made(
        frame.image,
        frame.mask,
        ground.scene,
        ground.id,
        ground.name,
        ground.crop,
        part_of(ground.group, recipe.seed, recipe.splits),
        frame.targets,
        dict(sorted(rejected.items())),
        gate,
        refused,
        negatives,
        index - copy if copy else None,
    )


_last: tuple[Recipe, int, Composed] | None = None


def _scene(recipe: Recipe, index: int) -> Composed:
    """Scene ``index``; the last one is kept where its copies are about to follow."""
    global _last
    if recipe.preset.copies.count == 1:
        return _compose(recipe, index)
    kept = _last
    if kept is None or kept[0] is not recipe or kept[1] != index:
        kept = _last = recipe, index, _compose(recipe, index)
    return kept[2]


def _compose(recipe: Recipe, index: int) -> Composed:
    preset = recipe.preset
    choice = stream(recipe.seed, BACKGROUND, index)
    rejected: Counter[str] = Counter()
    gate: list[str] = []
    refused: list[tuple[NDArray, str]] = []
    rng = stream(recipe.seed, IMAGE, index)
    scene = choose(recipe.mix, choice.random()) if recipe.mix else None
    wanted: list[tuple[float, int]] | None = None
    for attempt in range(preset.gate.tries):
        last = attempt == preset.gate.tries - 1
        ground = draw_ground(recipe, index, attempt, choice, scene)
        scene = ground.scene
        fault = faults(ground.image, recipe)
        if fault:
            gate.append(f"background {fault}")
            refused.append((ground.image, fault))
            if not last:
                continue
        table = preset.table(scene)
        if wanted is None:  # what is asked for stays when the background does not
            wanted = [_wanted(preset, table, rng) for _ in range(round(table.count.at(rng.random())))]
        camera = None
        if preset.sensor.active:
            camera = Camera(preset.sensor, rng, ground.image.shape, recipe.top, recipe.seed)
        frame = Frame(recipe, ground.image, camera)
        if _populate(frame, ground, wanted, rng, rejected, gate, attempt, last):
            break
        gate.append("no place for the requested SCR")
        asked = ", ".join(f"{scr:.1f}" for scr, _ in wanted)
        refused.append((frame.image, f"SCR {asked}"))
    settle(frame)
    jpeg = None if preset.sensor.jpeg is None else round(preset.sensor.jpeg.at(rng.random()))
    return Composed(frame, ground, rejected, gate, refused, jpeg)


def _wanted(preset: Preset, table: SceneTable, rng: np.random.Generator) -> tuple[float, int]:
    """A requested SCR and a polarity."""
    return round(table.scr.at(rng.random()), 6), -1 if rng.random() < preset.contrast.dark else 1


def _populate(
    frame: Frame, ground: Ground, wanted: list[tuple[float, int]], rng: np.random.Generator, rejected: Counter,
    gate: list[str], attempt: int, last: bool,
) -> bool:  # fmt: skip
    """Put the wanted targets on a background; False as soon as one finds no place, unless it is the last try."""
    preset, recipe = frame.recipe.preset, frame.recipe
    table = preset.table(ground.scene)
    regions = region_map(ground.scene, ground.outline) if preset.placement.regions else None
    efforts = (1, 1, 1, 2) if last else (0, 0) if attempt < preset.gate.tries // 2 else (0, 1)
    for requested, polarity in wanted:
        for effort in efforts:  # each time another patch, with the same SCR
            target = draw_target(recipe, table, requested, polarity, rng, rejected, regions)
            if place(frame, target, table, rng, rejected, regions=regions, effort=effort):
                frame.targets.append(target)
                frame.write(target.reach)
                break
            rejected["no place"] += 1
        else:
            if not last:
                return False
            gate.append("target dropped")
    return True


def _grade(target: Target, found: Contrast, tolerance: float) -> None:
    """Note what a target came to on the image as written."""
    target.achieved = None if found.scr is None else abs(found.scr)
    target.difference = found.target_mean - found.ring_mean
    target.status = "saturated"
    if target.achieved is not None and target.difference * target.polarity > 0:
        target.status = grade(target.achieved, target.requested, found.ring_std, tolerance)


ROUNDS = 8  # corrections behind the JPEG step; most targets need one or two


def compress(frame: Frame, quality: int) -> None:
    """Compress the frame, correcting the targets' amplitudes until the SCR holds on what is written.

    What JPEG does to a target depends on its whole block, so that no window can be solved for: the frame is
    compressed, measured and corrected in turns, and the best round is kept.
    """
    ring, tolerance = frame.recipe.preset.contrast.ring, TOLERANCE[frame.recipe.depth]
    top = frame.recipe.top
    instances = [t.instance for t in frame.targets]
    best: tuple[float, NDArray, list[tuple[float, Contrast]]] | None = None
    for last in (*([False] * (ROUNDS - 1)), True):
        written = compressed(frame.image, quality)
        measured = measure_contrast(written, instances, ring=ring, mask=frame.mask)
        score, moves = 0.0, []
        for target, found in zip(frame.targets, measured, strict=True):
            got = (found.scr or 0.0) * target.polarity
            error = abs(got - target.requested) / target.requested
            score += max(error, 0.6 * tolerance)
            if error > 0.6 * tolerance:
                moves.append((target, min(max(target.requested / max(got, 1e-6), 0.6), 1.6)))
        if best is None or score < best[0] - 1e-12:
            best = score, written, [(t.amplitude, m) for t, m in zip(frame.targets, measured, strict=True)]
        if last or not moves:
            break
        for target, factor in moves:
            target.amplitude = float(np.clip(target.amplitude * factor, -1.6 * top, 1.6 * top))
            frame.write(target.reach)
    assert best is not None
    frame.image = best[1]
    for target, (amplitude, found) in zip(frame.targets, best[2], strict=True):
        target.amplitude = amplitude
        _grade(target, found, tolerance)
        x1, y1, x2, y2 = target.box
        inner = frame.image[y1:y2, x1:x2][target.instance.mask]
        target.clipped = int(np.count_nonzero((inner == 0) | (inner == top)))


def settle(frame: Frame) -> None:
    """Measure every target on the image as written; where targets share light, solve again until it holds."""
    ring = frame.recipe.preset.contrast.ring
    tolerance = TOLERANCE[frame.recipe.depth]
    for target in frame.targets:
        x1, y1, x2, y2 = target.box
        frame.mask[y1:y2, x1:x2] |= target.instance.mask
    for last in (False, False, False, True):
        instances = [t.instance for t in frame.targets]
        moved = False
        measured = measure_contrast(frame.image, instances, ring=ring, mask=frame.mask)
        for target, found in zip(frame.targets, measured, strict=True):
            before = target.status
            _grade(target, found, tolerance)
            if before == "ok" != target.status and not last:
                moved = True
        if not moved:
            return
        for target in frame.targets:
            solution = frame.solve(target)
            if solution is not None:
                accept(target, solution)
                frame.write(target.reach)
