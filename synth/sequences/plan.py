"""A sequence before its first frame: background, the camera's path, tracks and looks. A pure function of recipe
and index (stream 1), so that any worker can make any frame of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ...annotate.errors import IrstkitError
from ..backgrounds import Background, part_of
from ..dist import choose
from ..preset import SceneTable
from ..recipe import BACKGROUND, SEQUENCE, Ground, Recipe, faults, stream
from ..regions import SIDE, allowed, region_map
from . import tracks as ways
from .appearance import Look, draw_look
from .canvas import draw_canvas, local_deviation
from .layers import Veil, Water, draw_veil, draw_water
from .listing import Listed
from .platform import CameraPath, camera_path, view
from .preset import SequencePreset

CANDIDATES = 24  # tracks tried for a target
GROUNDS = 5  # backgrounds tried for a sequence
ENOUGH = 0.9  # share of a track's sampled places that suit the target, with which the search ends
SAMPLES = 16


@dataclass(eq=False)
class SequenceRecipe(Recipe):
    """An image's recipe (``size`` the shorter side of the largest frame), the number of frames, their
    (height, width), and the listed sequences where frames are made for published lists."""

    frames: int = 1
    shape: tuple[int, int] = (256, 256)
    listed: tuple[Listed, ...] = ()

    @property
    def motion(self) -> Any:
        """The preset's section ``sequence``."""
        return self.preset.sequence  # type: ignore[attr-defined]

    def length(self, index: int) -> int:
        """Frames of a sequence."""
        return len(self.listed[index].frames) if self.listed else self.frames

    def name(self, index: int) -> str:
        """The sequence's name: ``0001`` for the first, or that of the list."""
        return self.listed[index].name if self.listed else f"{index + 1:04d}"


@dataclass(eq=False)
class Track:
    """One target: ``path`` (T, 2) true centres in the frame, NaN where a list has none; SCR and size by frame."""

    id: int
    model: str
    look: Look
    path: NDArray[Any]
    smear: NDArray[Any]
    scr: NDArray[Any]
    size: NDArray[Any]
    polarity: int
    speed: float
    boxes: dict[int, tuple[float, float, float, float]] = field(default_factory=dict)


@dataclass(eq=False)
class Plan:
    """All that its frames are made from."""

    index: int
    name: str
    shape: tuple[int, int]
    frames: int
    ground: Ground
    part: str
    camera: CameraPath
    exposure: float
    settings: tuple[float, float]
    jpeg: int | None
    veil: Veil | None
    water: Water | None
    tracks: list[Track]
    rejected: dict[str, int]
    gate: list[str]


def make_plan(recipe: SequenceRecipe, index: int) -> Plan:
    """Plan sequence ``index``."""
    preset: SequencePreset = recipe.preset  # type: ignore[assignment]
    motion = preset.sequence
    rng, choice = stream(recipe.seed, SEQUENCE, index), stream(recipe.seed, BACKGROUND, index)
    listed = recipe.listed[index] if recipe.listed else None
    frames, shape = recipe.length(index), listed.size if listed else recipe.shape
    camera = camera_path(motion.platform, rng, frames)
    exposure = motion.exposure.at(rng.random())
    settings = preset.sensor.gain.at(rng.random()), preset.sensor.offset.at(rng.random())
    jpeg = None if preset.sensor.jpeg is None else round(preset.sensor.jpeg.at(rng.random()))
    extra = camera.extent()
    size = shape[0] + extra[1], shape[1] + extra[0]
    scene = choose(recipe.mix, choice.random()) if recipe.mix else None
    pool = _pool(recipe, listed)
    rejected: Counter[str] = Counter()
    gate: list[str] = []
    wanted: list[float] | None = None
    best: tuple[float, Ground, list[Track]] | None = None
    for attempt in range(preset.gate.tries):
        ground = draw_canvas(recipe, index, attempt, choice, scene, size, pool)
        scene = ground.scene
        first = view(ground.image, _corner(camera, 0), shape)
        fault = faults(np.rint(first).clip(0, recipe.top).astype(np.uint16), recipe)
        if fault:
            gate.append(f"background {fault}")
            if attempt < preset.gate.tries - 1 or best is not None:
                continue
        table = preset.table(scene)
        if listed is not None:
            found, share = _listed_tracks(recipe, listed, table, ground, camera, rng, rejected)
        else:
            if wanted is None:  # what is asked for stays when the background does not
                wanted = [
                    round(table.scr.at(rng.random()), 6) for _ in range(round(table.count.at(rng.random())))
                ]
            found, share = _free_tracks(
                recipe, table, ground, camera, shape, frames, exposure, wanted, rng, rejected
            )
        if best is None or share > best[0]:
            best = share, ground, found
        if share >= ENOUGH or attempt + 1 >= GROUNDS:
            break
        gate.append("few places for the requested SCR")
    assert best is not None
    _, ground, found = best
    part = listed.part if listed else part_of(ground.group, recipe.seed, recipe.splits)
    veil = draw_veil(motion.clouds, recipe, ground, rng)
    water = draw_water(motion.sea, recipe, ground, rng, shape[0])
    return Plan(
        index, recipe.name(index), shape, frames, ground, part, camera, exposure, settings, jpeg, veil, water,
        found,
        dict(sorted(rejected.items())), gate,
    )  # fmt: skip


def _corner(camera: CameraPath, frame: int) -> tuple[float, float]:
    x, y = camera.offsets[frame]
    return float(x), float(y)


def _pool(recipe: SequenceRecipe, listed: Listed | None) -> list[Background] | None:
    """For a listed sequence the backgrounds of its part, so that no part of the lists shares one with another."""
    if listed is None or recipe.store is None or len(recipe.splits) < 2:
        return None
    own = [b for b in recipe.store.items if part_of(b.group, recipe.seed, recipe.splits) == listed.part]
    if not own:
        raise IrstkitError(
            f"none of the {len(recipe.store.items)} backgrounds falls to the part {listed.part!r}",
            hint="more backgrounds, or another --seed",
        )
    return own


# ------------------------------------------------------------------------------------------- drawn tracks


def _free_tracks(
    recipe: SequenceRecipe, table: SceneTable, ground: Ground, camera: CameraPath, shape: tuple[int, int],
    frames: int, exposure: float, wanted: list[float], rng: np.random.Generator, rejected: Counter,
) -> tuple[list[Track], float]:  # fmt: skip
    """Tracks for the wanted SCRs, and the least share of a track's sampled places that suit its target."""
    preset: SequencePreset = recipe.preset  # type: ignore[assignment]
    motion = preset.sequence
    regions = region_map(ground.scene, ground.outline) if preset.placement.regions else None
    moved, swing = _moved(camera, motion.platform.follow, shape)
    places = _Places(recipe, ground, camera, regions)
    out: list[Track] = []
    least = 1.0
    weights = {str(k): v for k, v in motion.trajectories.items()}
    while len(out) < len(wanted):
        left = len(wanted) - len(out)
        usable = {k: v for k, v in weights.items() if k != "crossing" or left >= 2}
        model = choose(usable or {"constant": 1.0}, rng.random())
        number = 2 if model == "crossing" else 1
        requests = wanted[len(out) : len(out) + number]
        speeds = [motion.speed.at(rng.random()) for _ in requests]
        extra = motion.turn.at(rng.random()), motion.radius.at(rng.random())
        changes = [_changes(motion, frames, rng) for _ in requests]
        polarities = [-1 if rng.random() < preset.contrast.dark else 1 for _ in requests]
        best: tuple[float, list[NDArray[Any]], list[Look]] | None = None
        looks: list[Look] = []
        for attempt in range(CANDIDATES):
            if attempt % 8 == 0:  # another look now and then: a big ship needs another place than a point
                looks = [
                    draw_look(
                        recipe, table, float(scr * change[0].max()), _heading(rng, speed), rng, regions,
                        float(change[1].max()),
                    )
                    for scr, speed, change in zip(requests, speeds, changes, strict=True)
                ]  # fmt: skip
            margin = max(_half(look, float(c[1].max())) for look, c in zip(looks, changes, strict=True)) + 1
            region = ways.Region(0, 0, shape[1] - 1, shape[0] - 1)
            inner = region.shrunk(margin + swing[0], margin + swing[1])
            paths = [
                path + moved for path in _paths(model, rng, frames, inner, region, speeds, extra, margin)
            ]
            share = 1.0
            for path, look, scr, polarity in zip(paths, looks, requests, polarities, strict=True):
                near = _near(path, out, preset.contrast.ring + 2 * margin)
                fits = places.share(path, look, scr, polarity, rejected)
                share = min(share, fits - (0.0 if preset.placement.crowded else near))
            if best is None or share > best[0]:
                best = share, paths, looks
            if share >= 1.0:
                break
        assert best is not None
        least = min(least, best[0])
        for path, look, scr, speed, change, polarity in zip(
            best[1], best[2], requests, speeds, changes, polarities, strict=True
        ):
            out.append(
                Track(
                    len(out) + 1, model, look, path - camera.jitter, ways.velocity(path) * exposure,
                    scr * change[0], change[1], polarity, speed,
                )
            )  # fmt: skip
    return out, least


def _paths(
    model: str, rng: np.random.Generator, frames: int, inner: ways.Region, region: ways.Region,
    speeds: list[float], extra: tuple[float, float], margin: float,
) -> list[NDArray[Any]]:  # fmt: skip
    speed = speeds[0]
    if model == "constant":
        return [ways.constant(rng, frames, inner, speed)]
    if model == "manoeuvre":
        return [ways.manoeuvre(rng, frames, inner, speed, extra[0])]
    if model == "hover":
        return [ways.hover(rng, frames, inner, speed, extra[1])]
    if model == "crossing":
        return list(ways.crossing(rng, frames, inner, (speeds[0], speeds[1])))
    outer = region.shrunk(-margin, -margin)
    way = ways.leaving if model == "leaving" else ways.entering
    return [way(rng, frames, inner, outer, speed)]


def _heading(rng: np.random.Generator, speed: float) -> tuple[float, float]:
    angle = 2 * np.pi * rng.random()
    return float(speed * np.cos(angle)), float(speed * np.sin(angle))


def _half(look: Look, largest: float) -> float:
    """Half the longer side of a target at its largest."""
    x1, y1, x2, y2 = look.patch(0.0, 0.0, largest).box
    return max(x2 - x1, y2 - y1) / 2


def _changes(motion: Any, frames: int, rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
    """Factors of SCR and of area by frame: smooth, within exp(+-amplitude)."""
    out = []
    for amount in (motion.scr_change.at(rng.random()), motion.size_change.at(rng.random())):
        period = max(60.0, 0.7 * frames) * (0.6 + 0.8 * rng.random())
        out.append(np.exp(amount * np.clip(ways.smooth(rng, frames, period), -1.5, 1.5) / 1.5))
    return out[0], out[1]


def _moved(camera: CameraPath, follow: float, shape: tuple[int, int]) -> tuple[NDArray[Any], NDArray[Any]]:
    """What of the camera's steady motion moves the targets, (T, 2), and its greatest size by axis.

    A target that is always seen cannot swing by more than three eighths of the frame to either side: where
    the camera moves further, it follows the more.
    """
    steady = camera.steady - (camera.steady.max(axis=0) + camera.steady.min(axis=0)) / 2
    moved = -(1 - follow) * steady
    swing = np.abs(moved).max(axis=0)
    limit = 0.375 * np.array([shape[1], shape[0]])
    scale = np.minimum(1.0, limit / np.maximum(swing, 1e-9))
    reach = swing * scale + np.abs(camera.jitter).max(axis=0)
    return moved * scale, reach


def _near(path: NDArray[Any], others: list[Track], distance: float) -> float:
    """The share of frames in which a track comes within ``distance`` of another."""
    near = np.zeros(len(path), dtype=bool)
    for other in others:
        near |= np.abs(path - other.path).max(axis=1) < distance
    return float(near.mean())


class _Places:
    """Which places of a canvas suit a target, judged before any frame is made."""

    def __init__(
        self, recipe: SequenceRecipe, ground: Ground, camera: CameraPath, regions: NDArray[Any] | None
    ) -> None:
        self.recipe, self.camera, self.regions = recipe, camera, regions
        self.shape = ground.image.shape
        self.maps: dict[int, tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = {}
        self.canvas = ground.image
        sensor, unit = recipe.preset.sensor, recipe.top / 255.0
        self.noise = unit**2 * (
            sensor.read**2
            + sensor.row**2
            + sensor.column**2
            + sensor.fixed_offset**2
            + sensor.fixed_column**2
        )

    def share(self, path: NDArray[Any], look: Look, scr: float, polarity: int, rejected: Counter) -> float:
        """The share of sampled frames in which the target's place lets it have its SCR and its kind stands there."""
        preset, top = self.recipe.preset, self.recipe.top
        own = max(round(2 * _half(look, 1.0)), 1)
        if own not in self.maps:
            wide = local_deviation(self.canvas, own + 2 * preset.contrast.ring)
            self.maps[own] = *wide, cv2.blur(self.canvas, (own, own))
        mean, deviation, inside = self.maps[own]
        there = np.flatnonzero(np.isfinite(path).all(axis=1))
        frames = there[np.unique(np.linspace(0, len(there) - 1, SAMPLES).astype(int))]
        at = np.rint(path[frames] + self.camera.steady[frames]).astype(int)
        x, y = at[:, 0].clip(0, self.shape[1] - 1), at[:, 1].clip(0, self.shape[0] - 1)
        need = scr * np.sqrt(deviation[y, x] ** 2 + self.noise)
        low, high = (v * top for v in preset.contrast.limits)
        within = (need >= low) & (need <= high)
        room = need * 1.4 <= (top - mean[y, x] if polarity > 0 else mean[y, x])
        bright = polarity * (inside[y, x] - mean[y, x]) > 0.9 * need  # as it is
        rejected["contrast limits"] += int((~within).sum())
        rejected["no headroom"] += int((~room).sum())
        rejected["bright already"] += int(bright.sum())
        good = within & room & ~bright
        shape = look.values.get("silhouette")
        ground = allowed(str(shape), self.regions) if shape else None
        if ground is not None:
            stands = ground[
                (y * SIDE // self.shape[0]).clip(0, SIDE - 1), (x * SIDE // self.shape[1]).clip(0, SIDE - 1)
            ]
            rejected["wrong region"] += int((~stands).sum())
            good &= stands
        return float(good.mean())


# ------------------------------------------------------------------------------------------ listed tracks


def _listed_tracks(
    recipe: SequenceRecipe, listed: Listed, table: SceneTable, ground: Ground, camera: CameraPath,
    rng: np.random.Generator, rejected: Counter,
) -> tuple[list[Track], float]:  # fmt: skip
    """A track for each of the list's, and the least share of places that suit one.

    Its look is drawn for its median box; size and place are the list's own.
    """
    motion = recipe.motion
    places = _Places(recipe, ground, camera, None)
    out, least = [], 1.0
    for number, boxes in enumerate(listed.tracks, start=1):
        path = np.full((len(listed.frames), 2), np.nan)
        for k, (x1, y1, x2, y2) in boxes.items():
            path[k] = (x1 + x2 - 1) / 2, (y1 + y2 - 1) / 2
        sides = np.array([[x2 - x1, y2 - y1] for x1, y1, x2, y2 in boxes.values()])
        box = tuple(int(max(1, round(float(v)))) for v in np.median(sides, axis=0))
        requested = round(table.scr.at(rng.random()), 6)
        scr, _ = _changes(motion, len(listed.frames), rng)
        look = draw_look(
            recipe, table, float(requested * scr.max()), (0.0, 0.0), rng, None, 1.0, box=(box[0], box[1])
        )
        speeds = np.linalg.norm(np.diff(path, axis=0), axis=1)
        speed = float(np.nanmedian(speeds)) if np.isfinite(speeds).any() else 0.0
        polarity = -1 if rng.random() < recipe.preset.contrast.dark else 1
        least = min(least, places.share(path, look, requested, polarity, rejected))
        # the lists' places are whole pixels that tremble by one: no motion to smear a target by
        still = np.zeros_like(path)
        out.append(
            Track(
                number,
                "listed",
                look,
                path,
                still,
                requested * scr,
                np.ones(len(path)),
                polarity,
                speed,
                boxes,
            )
        )
    return out, least
