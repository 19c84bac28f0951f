"""One image: background, targets, placement, contrast, quality gate. A pure function of recipe and index."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from math import log, pi
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..annotate.masks import Instance
from ..annotate.scr import measure_contrast
from . import targets as shapes
from .backgrounds import ID_LENGTH, PROCEDURAL, Background, Store, part_of
from .contrast import Box, Solution, grade, ring_window, solve, spill_limit
from .dist import choose
from .preset import Preset, SceneTable
from .procedural import procedural
from .sensor import Camera

IMAGE, SEQUENCE, FRAME, SPLIT, BACKGROUND = range(5)
TOLERANCE = {8: 0.05, 16: 0.01}


def stream(seed: int, *key: int) -> np.random.Generator:
    """The random stream of DESIGN: ``key`` is (stream, *indices)."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))


@dataclass(eq=False)
class Recipe:
    """What decides every pixel: the resolved preset, the seed, the backgrounds, the crop's size and depth."""

    preset: Preset
    seed: int
    size: int
    depth: int
    store: Store | None
    splits: dict[str, float]

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
        elif mix and sum(len(v) for v in self.by_scene.values()) == len(items):
            self.mix = {
                scene: share for scene, share in mix.items() if scene in self.by_scene and share > 0
            } or None


@dataclass(eq=False)
class Target:
    """A target as placed: its patch, its base pixel, what was asked for and what came out."""

    patch: shapes.Patch
    row: int
    column: int
    polarity: int
    requested: float
    amplitude: float = 0.0
    achieved: float | None = None
    difference: float = 0.0
    status: str = "saturated"
    clipped: int = 0

    @property
    def box(self) -> Box:
        """Tight half-open box of the mask in the image."""
        x1, y1, x2, y2 = self.patch.box
        ox, oy = self.column + self.patch.left, self.row + self.patch.top
        return x1 + ox, y1 + oy, x2 + ox, y2 + oy

    @property
    def reach(self) -> Box:
        """Half-open box of everything the target adds to."""
        ox, oy = self.column + self.patch.left, self.row + self.patch.top
        return ox, oy, ox + self.patch.values.shape[1], oy + self.patch.values.shape[0]

    @property
    def instance(self) -> Instance:
        """The mask's pixels."""
        x1, y1, x2, y2 = self.patch.box
        return Instance(self.box, self.patch.mask[y1:y2, x1:x2])


@dataclass(eq=False)
class Made:
    """One finished image and everything known of it."""

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


# --------------------------------------------------------------------------------------------- background


@dataclass(eq=False)
class _Ground:
    image: NDArray
    scene: str | None
    id: str
    group: str
    name: str
    crop: dict[str, Any] = field(default_factory=dict)
    horizon: float | None = None


def _ground(recipe: Recipe, index: int, attempt: int, rng: np.random.Generator) -> _Ground:
    scene = choose(recipe.mix, rng.random()) if recipe.mix else None
    if recipe.store is None:
        assert scene is not None
        image, horizon = procedural(scene, recipe.size, rng, recipe.depth)
        name = f"{PROCEDURAL}/{scene}/{recipe.seed}/{index}/{attempt}"
        identity = hashlib.sha256(name.encode()).hexdigest()[:ID_LENGTH]
        return _Ground(image, scene, identity, identity, name, {"scale": 1.0, "flip": False}, horizon)
    items = recipe.by_scene[scene] if scene else recipe.store.items
    item = items[int(rng.integers(len(items)))]
    image, crop = _crop(recipe, item, rng)
    return _Ground(image, item.scene, item.id, item.group, item.name, crop)


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
    pixels = np.ascontiguousarray(pixels[:, ::-1] if flip else pixels)
    crop = {"x": x, "y": y, "side": side, "scale": round(recipe.size / side, 6), "flip": bool(flip)}
    return pixels, crop


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


def _faults(image: NDArray, recipe: Recipe) -> str | None:
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


# ---------------------------------------------------------------------------------------------- targets


def _draw_patch(
    recipe: Recipe,
    table: SceneTable,
    requested: float,
    polarity: int,
    rng: np.random.Generator,
    rejected: Counter,
) -> Target:
    """What: kind, size, and a patch whose spill into its own ring lets the requested SCR be had.

    However bright, a target whose light spills into its ring cannot exceed a certain SCR. A patch that
    comes too near is drawn anew, at last with another size, never with another SCR.
    """
    preset = recipe.preset
    best: tuple[float, shapes.Patch] | None = None
    kind, area = "point", 1
    for attempt in range(16):
        if attempt % 4 == 0:
            area = max(1, round(table.area.at(rng.random())))
            rule = next(r for r in preset.kinds if r.up_to is None or area <= r.up_to)
            kind = choose({"point": rule.point, "spot": rule.spot, "extended": rule.extended}, rng.random())
        patch = _patch(recipe, table, kind, area, rng)
        if patch.area:
            x1, y1, x2, y2 = patch.box
            ring = preset.contrast.ring
            pixels = (x2 - x1 + 2 * ring) * (y2 - y1 + 2 * ring) - patch.area
            limit = spill_limit(patch.values, patch.mask, pixels)
            if best is None or limit > best[0]:
                best = limit, patch
            if limit >= 1.3 * requested:
                break
            rejected["spill"] += 1
    assert best is not None
    return Target(best[1], 0, 0, polarity, requested)


def _patch(recipe: Recipe, table: SceneTable, kind: str, area: int, rng: np.random.Generator) -> shapes.Patch:
    preset = recipe.preset
    if kind == "point":
        phase = preset.point.phase
        x, y = phase * (2 * rng.random() - 1), phase * (2 * rng.random() - 1)
        sigma, ratio = preset.point.sigma.at(rng.random()), preset.point.anisotropy.at(rng.random())
        angle = pi * rng.random() if ratio > 1 else 0.0
        shape = shapes.point_shape(area, x, y, sigma, ratio, angle)
    else:
        x, y = rng.random() - 0.5, rng.random() - 0.5
        if kind == "spot":
            shape = shapes.spot_shape(area, x, y, preset.spot.aspect.at(rng.random()), pi * rng.random())
        else:
            silhouette = choose(table.silhouettes, rng.random())
            shape = shapes.extended_shape(
                silhouette,
                area,
                x,
                y,
                rng,
                hot_spots=preset.extended.hot_spots,
                shading=preset.extended.shading,
            )
    sigma = preset.blur.at(rng.random())
    energy = preset.mask.energy.at(rng.random()) if preset.mask.policy == "energy" else 0.7
    motion = preset.sensor.motion_blur.at(rng.random())
    return shapes.finish(
        shape,
        sigma,
        preset.mask.policy,
        level=preset.mask.level,
        energy=energy,
        motion=(motion, pi * rng.random()) if motion > 0 else (0.0, 0.0),
        cut=0.1 / recipe.top,
    )


# -------------------------------------------------------------------------------------------- placement


def _apart(a: Box, b: Box) -> bool:
    return a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


class _Frame:
    """The image being made: the signal under it, what is written so far, and the targets on it."""

    def __init__(self, recipe: Recipe, background: NDArray, camera: Camera | None) -> None:
        self.recipe, self.background, self.camera = recipe, background, camera
        self.size = background.shape
        self.image = camera.expose(background) if camera else background.copy()
        self.mask = np.zeros(self.size, dtype=bool)
        self.targets: list[Target] = []

    def signal(self, window: Box, without: Target | None = None) -> NDArray[np.float64]:
        """Background and the placed targets' light in a window, before the camera."""
        x1, y1, x2, y2 = window
        out = self.background[y1:y2, x1:x2].astype(np.float64)
        for other in self.targets:
            if other is not without and not _apart(other.reach, window):
                out += other.amplitude * _in_window(other.patch.values, other.reach, window)
        return out

    def solve(self, target: Target) -> Solution | None:
        """The amplitude that gives ``target`` its SCR where it now is."""
        ring = self.recipe.preset.contrast.ring
        box = target.box
        wide = ring_window(box, ring, self.size)  # type: ignore[arg-type]
        x1, y1, x2, y2 = wide
        own = np.zeros((y2 - y1, x2 - x1), dtype=bool)
        bx1, by1, bx2, by2 = target.patch.box
        own[box[1] - y1 : box[3] - y1, box[0] - x1 : box[2] - x1] = target.patch.mask[by1:by2, bx1:bx2]
        taken = own
        for other in self.targets:
            if other is not target and not _apart(other.box, wide):
                taken = taken | _in_window(other.patch.mask, other.reach, wide).astype(bool)
        render = self.camera.at(wide) if self.camera else None
        return solve(
            self.signal(wide, target),
            _in_window(target.patch.values, target.reach, wide),
            own,
            ~taken,
            target.requested,
            target.polarity,
            self.recipe.top,
            render,
            TOLERANCE[self.recipe.depth],
        )

    def write(self, reach: Box) -> None:
        """Write a part of the frame anew."""
        x1, y1, x2, y2 = (
            max(reach[0], 0),
            max(reach[1], 0),
            min(reach[2], self.size[1]),
            min(reach[3], self.size[0]),
        )
        signal = self.signal((x1, y1, x2, y2))
        if self.camera:
            levels = self.camera.at((x1, y1, x2, y2))(signal.ravel(), None).reshape(signal.shape)
        else:
            levels = np.rint(signal).clip(0, self.recipe.top)
        self.image[y1:y2, x1:x2] = levels.astype(self.image.dtype)


def _in_window(values: NDArray, reach: Box, window: Box) -> NDArray:
    """A patch that covers ``reach`` painted into an array that covers ``window``."""
    out = np.zeros((window[3] - window[1], window[2] - window[0]), dtype=values.dtype)
    x1, y1 = max(reach[0], window[0]), max(reach[1], window[1])
    x2, y2 = min(reach[2], window[2]), min(reach[3], window[3])
    if x1 < x2 and y1 < y2:
        out[y1 - window[1] : y2 - window[1], x1 - window[0] : x2 - window[0]] = values[
            y1 - reach[1] : y2 - reach[1], x1 - reach[0] : x2 - reach[0]
        ]
    return out


def _place(
    frame: _Frame,
    target: Target,
    table: SceneTable,
    rng: np.random.Generator,
    rejected: Counter,
    *,
    anywhere: bool,
) -> bool:
    """Move the target until its SCR can be had; False when no place was found at all.

    With ``anywhere`` places without headroom are tried too: what comes of them is marked ``saturated``.
    """
    preset = frame.recipe.preset
    where, contrast, top = preset.placement, preset.contrast, frame.recipe.top
    height, width = frame.size
    bx1, by1, bx2, by2 = target.patch.box
    margin = -bx1 - target.patch.left, -by1 - target.patch.top  # base pixel relative to the box's corner
    w, h = bx2 - bx1, by2 - by1
    if w > width or h > height:
        raise ValueError(f"a target of {w}x{h} pixels does not fit into an image of {width}x{height}")
    inner = target.patch.values[target.patch.mask]
    peak_over_mean = float(inner.max() / inner.mean())
    fallback: tuple[float, int, int, Solution] | None = None
    for attempt in range(where.rounds):
        wanted = contrast.wanted.at(rng.random()) * top if contrast.wanted else None
        low, high = (v * top for v in contrast.limits)
        if attempt >= where.rounds // 2:  # contrast limits are for looks; the SCR is not given up for them
            low, high = preset.gate.min_step * top, float(top)
        row = round(table.height.at(rng.random()) * height - h / 2)
        y = min(max(row, 0), height - h)
        places: list[tuple[float, int]] = []
        for u in rng.random(where.candidates).tolist():
            x = int(u * (width - w + 1))
            box = x, y, x + w, y + h
            grown = ring_window(box, contrast.ring, frame.size)  # type: ignore[arg-type]
            reach = (
                x - bx1,
                y - by1,
                x - bx1 + target.patch.values.shape[1],
                y - by1 + target.patch.values.shape[0],
            )
            if not where.crowded and any(
                not _apart(grown, other.reach) or not _apart(_grown(other, contrast.ring), reach)
                for other in frame.targets
            ):
                rejected["near another target"] += 1
                continue
            if where.crowded and any(not _apart(box, other.box) for other in frame.targets):
                rejected["on another target"] += 1
                continue
            around = frame.image[grown[1] : grown[3], grown[0] : grown[2]].astype(np.float64).ravel()
            mean = float(around.sum()) / around.size
            variance = float(around @ around) / around.size - mean * mean
            if variance <= 1e-9 or around.size - target.patch.area < 16:
                rejected["ring undefined"] += 1
                continue
            need = target.requested * variance**0.5
            if not low <= need <= high and not (anywhere and attempt >= where.rounds // 2):
                rejected["contrast limits"] += 1
                continue
            room = top - mean if target.polarity > 0 else mean
            if need * (0.7 + 0.3 * peak_over_mean) > room and not (anywhere and attempt >= where.rounds // 2):
                rejected["no headroom"] += 1
                continue
            places.append((abs(log(need / wanted)) if wanted else len(places), x))
        places.sort()
        for _, x in places[:3]:
            target.row, target.column = y + margin[1], x + margin[0]
            solution = frame.solve(target)
            if solution is None:
                rejected["bright already"] += 1
                continue
            if solution.status == "ok" and abs(solution.amplitude) >= preset.gate.min_step * top:
                _accept(target, solution)
                return True
            rejected["weak" if solution.status == "ok" else solution.status] += 1
            error = abs(solution.achieved - target.requested) / target.requested
            if fallback is None or error < fallback[0]:
                fallback = error, target.row, target.column, solution
    if fallback is None:
        return False
    target.row, target.column = fallback[1], fallback[2]
    _accept(target, fallback[3])
    return True


def _grown(target: Target, ring: int) -> Box:
    x1, y1, x2, y2 = target.box
    return x1 - ring, y1 - ring, x2 + ring, y2 + ring


def _accept(target: Target, solution: Solution) -> None:
    target.amplitude, target.achieved = solution.amplitude, solution.achieved
    target.difference, target.status, target.clipped = solution.difference, solution.status, solution.clipped


# ------------------------------------------------------------------------------------------------ image


def make_image(recipe: Recipe, index: int) -> Made:
    """Image ``index`` of a recipe; nothing else decides any of its pixels or numbers."""
    preset = recipe.preset
    choice = stream(recipe.seed, BACKGROUND, index)
    rejected: Counter[str] = Counter()
    gate: list[str] = []
    for attempt in range(preset.gate.tries):
        ground = _ground(recipe, index, attempt, choice)
        fault = _faults(ground.image, recipe)
        if fault is None:
            break
        gate.append(f"background {fault}")
    rng = stream(recipe.seed, IMAGE, index)
    camera = (
        Camera(preset.sensor, rng, ground.image.shape, recipe.top, recipe.seed)
        if preset.sensor.active
        else None
    )
    frame = _Frame(recipe, ground.image, camera)
    table = preset.table(ground.scene)
    for _ in range(round(table.count.at(rng.random()))):
        requested = round(table.scr.at(rng.random()), 6)
        polarity = -1 if rng.random() < preset.contrast.dark else 1
        for last in (False, False, False, True):  # no place at all: drawn anew with the same SCR, and counted
            target = _draw_patch(recipe, table, requested, polarity, rng, rejected)
            if _place(frame, target, table, rng, rejected, anywhere=last):
                frame.targets.append(target)
                frame.write(target.reach)
                break
            rejected["no place"] += 1
        else:
            gate.append("target dropped")
    _settle(frame)
    part = part_of(ground.group, recipe.seed, recipe.splits)
    return Made(
        frame.image,
        frame.mask,
        ground.scene,
        ground.id,
        ground.name,
        ground.crop,
        part,
        frame.targets,
        dict(sorted(rejected.items())),
        gate,
    )


def _settle(frame: _Frame) -> None:
    """Measure every target on the image as written; where targets share light, solve again until it holds."""
    ring = frame.recipe.preset.contrast.ring
    tolerance = TOLERANCE[frame.recipe.depth]
    for target in frame.targets:
        x1, y1, x2, y2 = target.box
        frame.mask[y1:y2, x1:x2] |= target.instance.mask
    for last in (False, False, False, True):
        instances = [t.instance for t in frame.targets]
        moved = False
        for target, found in zip(
            frame.targets, measure_contrast(frame.image, instances, ring=ring, mask=frame.mask), strict=True
        ):
            target.achieved = None if found.scr is None else abs(found.scr)
            target.difference = found.target_mean - found.ring_mean
            before, target.status = target.status, "saturated"
            if target.achieved is not None and target.difference * target.polarity > 0:
                target.status = grade(target.achieved, target.requested, found.ring_std, tolerance)
            if before == "ok" != target.status and not last:
                moved = True
        if not moved:
            return
        for target in frame.targets:
            solution = frame.solve(target)
            if solution is not None:
                _accept(target, solution)
                frame.write(target.reach)
