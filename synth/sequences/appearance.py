"""What a target looks like: drawn once a track, then a patch for any sub-pixel place, size and motion blur.

A target keeps its kind, view and shape over its track; only place, size and smear change, so that nothing about it
flickers. Extended targets fly the way they point: plan views are turned along the velocity at the middle of the
track, side views mirrored by it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import atan2, ceil, cos, hypot, pi, radians, sin, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import targets as shapes
from ..contrast import spill_limit
from ..dist import choose
from ..draws import HEADROOM, draw_optics, psf, silhouette_weights
from ..irregular import lumpy_shape
from ..preset import SceneTable
from ..recipe import Recipe
from ..silhouettes import VIEWS
from .preset import BoxSize, SequencePreset

MIN_SMEAR = 0.05  # pixels of motion below which nothing is smeared


@dataclass(eq=False)
class Look:
    """A target's appearance. ``area`` in pixels (or ``box``, width and height) is that of size 1."""

    kind: str
    area: int
    blur: float
    policy: str
    level: float
    energy: float
    cut: float
    optics: tuple[float, float, float, float] | None = None
    box: tuple[int, int] | None = None
    values: dict[str, Any] = field(default_factory=dict)

    def patch(
        self, x: float, y: float, size: float = 1.0, smear: tuple[float, float] = (0.0, 0.0)
    ) -> shapes.Patch:
        """A patch whose centre lies at (x, y) of its base pixel, within half a pixel.

        ``size`` multiplies the area; ``smear`` is (pixels, radians) of motion within the exposure.
        """
        motion = smear if smear[0] >= MIN_SMEAR else (0.0, 0.0)
        policy = "core" if self.box else self.policy
        return shapes.finish(
            self._shape(x, y, size), self.blur, policy, level=self.level, energy=self.energy, cut=self.cut,
            motion=motion, optics=self.optics,
        )  # fmt: skip

    def _shape(self, x: float, y: float, size: float) -> shapes.Shape:
        known = self.values
        if self.box:
            root = sqrt(size)
            width, height = (max(1, round(side * root)) for side in self.box)
            return boxed_shape(width, height, x, y, known["fill"])
        area = max(1, round(self.area * size))
        if self.kind == "point":
            return shapes.point_shape(area, x, y, known["sigma"] * sqrt(size), known["ratio"], known["angle"])
        if "lumps" in known:
            rng = np.random.Generator(np.random.PCG64(known["seed"]))  # the same lumps in every frame
            return lumpy_shape(
                area, x, y, known["aspect"], known["angle"], known["lumps"], known["power"], rng
            )
        if self.kind == "spot":
            return shapes.spot_shape(area, x, y, known["aspect"], known["angle"])
        return shapes.posed_shape(
            known["silhouette"],
            known["view"],
            known["matrix"],
            area,
            x,
            y,
            known["turn"],
            known["mirrored"],
            known["hot"],
        )


def boxed_shape(width: int, height: int, x: float, y: float, fill: float) -> shapes.Shape:
    """A pixel-integrated Gaussian blob at (x, y) whose core is the ellipse inscribed into a box of whole pixels.

    The box is the one of its size that lies nearest around (x, y): a corner at ceil(x - width / 2). All four of
    its sides are touched by core pixels. ``fill`` is the blob's sigma over half the box, times sqrt(2).
    """
    left, top = ceil(x - width / 2 - 1e-9), ceil(y - height / 2 - 1e-9)
    sx, sy = max(fill * width / 2 / sqrt(2), 0.3), max(fill * height / 2 / sqrt(2), 0.3)
    radius = ceil(max(4.0 * max(sx, sy), max(width, height) / 2 + 1) + 1)
    values = shapes.gaussian_pixels(x, y, sx, sy, radius=radius)
    values = values / values.max()
    across, down = _from_middle(radius, left, width), _from_middle(radius, top, height)
    core = across[None, :] ** 2 + down[:, None] ** 2 < 1.0
    detail: dict[str, object] = {"fill": round(fill, 6)}
    return shapes.Shape(values, core, -radius, -radius, x, y, "spot", detail)


def _from_middle(radius: int, first: int, side: int) -> NDArray[Any]:
    """Distance from the middle pixels of a box's side over half of what lies beyond: 0 there, below 1 inside."""
    even = 0.5 if side % 2 == 0 else 0.0
    away = np.abs(np.arange(-radius, radius + 1) - (first + (side - 1) / 2)) - even
    return away / (side / 2 - even)


def draw_look(
    recipe: Recipe, table: SceneTable, requested: float, velocity: tuple[float, float], rng: np.random.Generator,
    regions: NDArray[Any] | None, largest: float, box: tuple[int, int] | None = None,
) -> Look:  # fmt: skip
    """Draw an appearance whose own spill lets it have the requested SCR, as for images (draws.draw_target).

    ``largest`` is the most that the size will be multiplied by, ``velocity`` the track's own at its middle,
    ``box`` a given size in place of a drawn one.
    """
    preset: SequencePreset = recipe.preset  # type: ignore[assignment]
    weights = silhouette_weights(table, regions)
    best: tuple[float, Look] | None = None
    kind, area = "point", 1
    sizes = preset.sequence.box or (BoxSize() if box else None)
    for attempt in range(16):
        if sizes is not None:
            u, v = rng.random(2)
            sides = box or (max(1, round(sizes.width.at(u))), max(1, round(sizes.height.at(v))))
            values: dict[str, Any] = {"fill": sizes.fill.at(rng.random()) * (1 - 0.04 * attempt)}
            look = _look(preset, "spot", sides[0] * sides[1], rng, recipe, values, sides)
        else:
            if attempt % 4 == 0:
                area = max(1, round(table.area.at(rng.random())))
                rule = next(r for r in preset.kinds if r.up_to is None or area <= r.up_to)
                kind = choose(
                    {"point": rule.point, "spot": rule.spot, "extended": rule.extended}, rng.random()
                )
            look = _look(preset, kind, area, rng, recipe, {})
            _fill_in(look, preset, weights, velocity, rng)
        patch = look.patch(0.25, 0.25, largest)
        x1, y1, x2, y2 = patch.box
        ring = preset.contrast.ring
        pixels = (x2 - x1 + 2 * ring) * (y2 - y1 + 2 * ring) - patch.area
        limit = spill_limit(patch.values, patch.mask, pixels)
        if best is None or limit > best[0]:
            best = limit, look
        if limit >= HEADROOM * requested:
            break
    assert best is not None
    return best[1]


def _look(
    preset: SequencePreset, kind: str, area: int, rng: np.random.Generator, recipe: Recipe, values: dict[str, Any],
    box: tuple[int, int] | None = None,
) -> Look:  # fmt: skip
    blur, energy = preset.blur.at(rng.random()), preset.mask.energy.at(rng.random())
    return Look(
        kind, area, blur, preset.mask.policy, preset.mask.level, energy, 0.1 / recipe.top,
        draw_optics(preset, rng), box, values,
    )  # fmt: skip


def _fill_in(
    look: Look,
    preset: SequencePreset,
    weights: dict[str, float],
    velocity: tuple[float, float],
    rng: np.random.Generator,
) -> None:
    known = look.values
    if look.kind == "point":
        known["sigma"] = psf(preset, look.area, look.blur, rng.random())
        known["ratio"] = preset.point.anisotropy.at(rng.random())
        known["angle"] = pi * rng.random() * (rng.random() >= preset.point.aligned)
    elif look.kind == "spot":
        spot = preset.spot
        known["aspect"], known["angle"] = spot.aspect.at(rng.random()), pi * rng.random()
        if not spot.regular:
            known["lumps"], known["power"] = round(spot.lumps.at(rng.random())), spot.power.at(rng.random())
            known["angle"] *= rng.random() >= spot.aligned
            known["seed"] = int(rng.integers(2**63))
    else:
        known["silhouette"] = choose(weights, rng.random())
        views = VIEWS[known["silhouette"]]
        number = int(rng.integers(len(views)))
        view = views[number]
        squeeze = view.squeeze + (1 - view.squeeze) * rng.random()
        turn = radians(view.turn * (2 * rng.random() - 1))
        mirror, moving = (-1.0 if rng.random() < 0.5 else 1.0), hypot(*velocity) > 0.02
        hot = bool(view.hot) and rng.random() < preset.extended.hot_spots
        if view.turn > 90:  # a plan view points along its way
            turn = atan2(velocity[1], velocity[0]) if moving else turn
            mirror = 1.0
            tilt = pi * rng.random()  # tilted about any axis in the image
            c, s = cos(tilt), sin(tilt)
            axis = np.array([[c, -s], [s, c]])
            matrix = axis @ np.diag([1.0, squeeze]) @ axis.T @ _turned(turn)
        else:
            mirror = (1.0 if velocity[0] >= 0 else -1.0) if moving else mirror
            matrix = _turned(turn) @ np.diag([mirror, squeeze])
        known.update(view=number, matrix=matrix, turn=turn, mirrored=mirror < 0, hot=hot)


def _turned(angle: float) -> NDArray[Any]:
    return np.array([[cos(angle), -sin(angle)], [sin(angle), cos(angle)]])
