"""Where targets go, and what the frame shows once they are there."""

from __future__ import annotations

from collections import Counter
from copy import copy
from dataclasses import dataclass
from math import log, sqrt

import numpy as np
from numpy.typing import NDArray

from ..annotate.errors import IrstkitError
from ..annotate.masks import Instance
from . import targets as shapes
from .contrast import Box, Solution, ring_window, solve, spill_limit
from .preset import SceneTable
from .recipe import TOLERANCE, Recipe
from .regions import SIDE, allowed
from .sensor import Camera


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


def apart(a: Box, b: Box) -> bool:
    return a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


class Frame:
    """The image being made: the signal under it, what is written so far, and the targets on it."""

    def __init__(self, recipe: Recipe, background: NDArray, camera: Camera | None) -> None:
        self.recipe, self.background, self.camera = recipe, background, camera
        self.size = background.shape
        self.image = camera.expose(background) if camera else written(background, recipe.top)
        self.mask = np.zeros(self.size, dtype=bool)
        self.targets: list[Target] = []

    def twin(self) -> Frame:
        """The same frame; what is written into one does not show in the other."""
        other = copy(self)
        other.image = self.image.copy()
        other.targets = [copy(target) for target in self.targets]
        return other

    def signal(self, window: Box, without: Target | None = None) -> NDArray[np.float64]:
        """Background and the placed targets' light in a window, before the camera."""
        x1, y1, x2, y2 = window
        out = self.background[y1:y2, x1:x2].astype(np.float64)
        for other in self.targets:
            if other is not without and not apart(other.reach, window):
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
            if other is not target and not apart(other.box, wide):
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


def written(signal: NDArray, top: int) -> NDArray:
    """What the plain camera writes of a signal: whole gray levels from 0 to ``top``."""
    if signal.dtype.kind == "u":
        return signal.copy()
    return np.rint(signal).clip(0, top).astype(np.uint16 if top > 255 else np.uint8)


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


def place(
    frame: Frame,
    target: Target,
    table: SceneTable,
    rng: np.random.Generator,
    rejected: Counter,
    *,
    regions: NDArray | None,
    effort: int,
) -> bool:
    """Move the target until its SCR can be had; False when it cannot.

    ``regions`` is the map that silhouettes keep to (regions.py), None where there is none. With ``effort``
    0 the preset's contrast limits hold; with 1 they are given up in the second half of the rounds, since
    they are for looks and the SCR is not; with 2, the last resort, places without headroom are tried too,
    and the nearest miss is taken: it is marked.
    """
    preset = frame.recipe.preset
    where, contrast, top = preset.placement, preset.contrast, frame.recipe.top
    height, width = frame.size
    bx1, by1, bx2, by2 = target.patch.box
    margin = -bx1 - target.patch.left, -by1 - target.patch.top  # base pixel relative to the box's corner
    w, h = bx2 - bx1, by2 - by1
    if w > width or h > height:
        raise IrstkitError(
            f"a target of {w}x{h} pixels does not fit into an image of {width}x{height}",
            hint="a larger --size, or a preset with smaller areas",
        )
    inner = target.patch.values[target.patch.mask]
    peak_over_mean = float(inner.max() / inner.mean())
    # the patch's own light in the ring raises the deviation there, so that more contrast is needed
    limit = spill_limit(
        target.patch.values, target.patch.mask,
        (w + 2 * contrast.ring) * (h + 2 * contrast.ring) - target.patch.area,
    )  # fmt: skip
    spill = 1.0 / sqrt(max(1.0 - (target.requested / limit) ** 2, 0.04))
    silhouette = target.patch.detail.get("shape")
    ground = allowed(str(silhouette), regions) if silhouette else None
    fallback: tuple[float, int, int, Solution] | None = None
    for attempt in range(where.rounds if effort else where.rounds // 3 + 1):
        wanted = contrast.wanted.at(rng.random()) * top if contrast.wanted else None
        low, high = (v * top for v in contrast.limits)
        late = attempt >= where.rounds // 2
        if effort and late:
            low, high = preset.gate.min_step * top, float(top)
        row = round(table.height.at(rng.random()) * height - h / 2)
        y = min(max(row, 0), height - h)
        places: list[tuple[float, int]] = []
        for u in rng.random(where.candidates).tolist():
            x = int(u * (width - w + 1))
            box = x, y, x + w, y + h
            if ground is not None and not _stands(box, ground, frame.size):
                rejected["wrong region"] += 1
                continue
            grown = ring_window(box, contrast.ring, frame.size)  # type: ignore[arg-type]
            reach = (
                x - bx1,
                y - by1,
                x - bx1 + target.patch.values.shape[1],
                y - by1 + target.patch.values.shape[0],
            )
            if not where.crowded and any(
                not apart(grown, other.reach) or not apart(_grown(other, contrast.ring), reach)
                for other in frame.targets
            ):
                rejected["near another target"] += 1
                continue
            if where.crowded and any(not apart(box, other.box) for other in frame.targets):
                rejected["on another target"] += 1
                continue
            around = frame.image[grown[1] : grown[3], grown[0] : grown[2]].astype(np.float64).ravel()
            mean = float(around.sum()) / around.size
            variance = float(around @ around) / around.size - mean * mean
            if variance <= 1e-9 or around.size - target.patch.area < 16:
                rejected["ring undefined"] += 1
                continue
            need = target.requested * spill * variance**0.5
            if not low <= need <= high and not (effort == 2 and late):
                rejected["contrast limits"] += 1
                continue
            room = top - mean if target.polarity > 0 else mean
            if need * (0.7 + 0.3 * peak_over_mean) > room and not (effort == 2 and late):
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
                accept(target, solution)
                return True
            rejected["weak" if solution.status == "ok" else solution.status] += 1
            error = abs(solution.achieved - target.requested) / target.requested
            if fallback is None or error < fallback[0]:
                fallback = error, target.row, target.column, solution
    if fallback is None or effort < 2:
        return False
    target.row, target.column = fallback[1], fallback[2]
    accept(target, fallback[3])
    return True


def _stands(box: Box, ground: NDArray, size: tuple[int, ...]) -> bool:
    """Whether the middle of the box's foot lies on allowed ground."""
    row = min(int((box[3] - 0.5) / size[0] * SIDE), SIDE - 1)
    column = min(int((box[0] + box[2]) / 2 / size[1] * SIDE), SIDE - 1)
    return bool(ground[row, column])


def _grown(target: Target, ring: int) -> Box:
    x1, y1, x2, y2 = target.box
    return x1 - ring, y1 - ring, x2 + ring, y2 + ring


def accept(target: Target, solution: Solution) -> None:
    target.amplitude, target.achieved = solution.amplitude, solution.achieved
    target.difference, target.status, target.clipped = solution.difference, solution.status, solution.clipped
