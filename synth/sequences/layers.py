"""What moves by itself: a veil of cloud before the sky, waves and glints on the sea.

Both look up endless textures (noise on a torus, so that a sequence of any length needs no more memory) at places
that move with the scene and by themselves. Two textures at two speeds together change their shape as they go, as
clouds and waves do.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi, sin
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..recipe import Ground, Recipe
from .preset import Clouds, Sea

Field = NDArray[np.float32]
_HALF = 2  # the veil is smooth: half the resolution is enough


def torus(
    rng: np.random.Generator, side: int, fall: float, *, least: float = 3.0, stretch: float = 1.0
) -> Field:
    """(side, side) periodic noise of zero mean and unit deviation whose amplitude falls as 1 / f ** fall.

    ``least`` is the frequency, in periods a side, below which it no longer rises; ``stretch`` draws the blobs
    out sideways.
    """
    spectrum = np.fft.rfft2(rng.standard_normal((side, side)))
    fy = np.fft.fftfreq(side)[:, None] * side
    fx = np.fft.rfftfreq(side)[None, :] * side * stretch
    amplitude = 1.0 / np.maximum(np.hypot(fx, fy), least) ** fall
    amplitude[0, 0] = 0.0
    out = np.fft.irfft2(spectrum * amplitude, s=(side, side))
    return (out / out.std()).astype(np.float32)


@dataclass(eq=False)
class Veil:
    """A drifting veil of cloud; ``mask`` says on the canvas, at half resolution, where there is sky."""

    textures: tuple[Field, Field]
    winds: tuple[tuple[float, float], tuple[float, float]]
    opacity: float
    level: float
    mask: Field

    def apply(self, image: Field, corner: tuple[float, float], frame: int) -> Field:
        """The view with the veil over it."""
        height, width = image.shape
        h, w = height // _HALF + 2, width // _HALF + 2
        x0, y0 = corner[0] / _HALF, corner[1] / _HALF
        body = np.zeros((h, w), np.float32)
        for texture, (vx, vy) in zip(self.textures, self.winds, strict=True):
            body += _rolled(texture, x0 - vx * frame / _HALF, y0 - vy * frame / _HALF, (h, w))
        cover = np.clip((body / np.float32(1.4142) + 0.3) / 1.6, 0, 1)
        cover *= cover * (3 - 2 * cover)
        cover *= self.opacity * _bilinear(self.mask, x0, y0, (h, w))
        full = cv2.resize(cover, (w * _HALF, h * _HALF), interpolation=cv2.INTER_LINEAR)[:height, :width]
        return image + full * (np.float32(self.level) - image)


def draw_veil(clouds: Clouds, recipe: Recipe, ground: Ground, rng: np.random.Generator) -> Veil | None:
    """A veil for a background with sky, by chance; None: none."""
    chance, opacity = rng.random(), clouds.opacity.at(rng.random())
    speed, angle = clouds.speed.at(rng.random()), 2 * pi * rng.random()
    if chance >= clouds.chance or opacity <= 0 or ground.scene is None:
        return None
    mask = sky_mask(ground)
    if mask is None:
        return None
    stretch = 1.0 + 1.5 * rng.random()
    textures = torus(rng, 256, 1.8, stretch=stretch), torus(rng, 256, 1.8, stretch=stretch)
    turn = angle + 0.5 * (rng.random() - 0.5)
    winds = (
        (speed * cos(angle), 0.3 * speed * sin(angle)),
        (1.5 * speed * cos(turn), 0.45 * speed * sin(turn)),
    )
    small = cv2.resize(mask, None, fx=1 / _HALF, fy=1 / _HALF, interpolation=cv2.INTER_AREA)
    sky = ground.image[mask > 0.5]
    # clouds are warmer than the clear sky: towards the brighter part of what is there
    level = float(np.percentile(sky, 85)) + 0.05 * recipe.top
    return Veil(textures, winds, opacity, level, np.ascontiguousarray(small))


@dataclass(eq=False)
class Water:
    """Waves and glints below ``horizon`` (a row of the canvas; far above it for a view from above).

    ``strength`` is the waves' deviation on the canvas, at half resolution. ``near`` is the distance in rows from
    the horizon to the canvas's foot, ``path`` the column and half width of the glints' street at the foot.
    """

    textures: tuple[Field, Field]
    speed: float
    heading: float
    waves: float
    glints: float
    horizon: float
    near: float
    path: tuple[float, float]
    strength: Field

    def apply(self, image: Field, corner: tuple[float, float], frame: int) -> Field:
        """The view with waves and glints added to its water."""
        height, width = image.shape
        depth = (np.arange(height, dtype=np.float32) + np.float32(corner[1] - self.horizon)) / self.near
        first = int(np.searchsorted(depth, 0.02))
        if first >= height:
            return image
        depth = depth[first:]
        # waves shrink as 1 / depth towards the horizon, in height as in width: true perspective would flatten
        # them by another 1 / depth, below a pixel, where a texture can only flicker
        scale = (1.0 / depth).astype(np.float32)
        across = np.arange(width, dtype=np.float32) + np.float32(corner[0] - self.path[0])
        columns = np.float32(0.8) * scale[:, None] * across[None, :]
        rows = np.broadcast_to((0.8 * self.near * np.log(depth)).astype(np.float32)[:, None], columns.shape)
        total = np.zeros(columns.shape, np.float32)
        for texture, way in zip(self.textures, (self.heading, self.heading + 2.2), strict=True):
            side, run = texture.shape[0], self.speed * frame
            total += cv2.remap(
                texture,
                np.mod(columns + np.float32(run * cos(way) % side), side),
                np.mod(rows + np.float32(run * sin(way) % side), side),
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_WRAP,
            )
        total *= np.float32(0.7071)
        added = total * self._strength(corner, (height, width))[first:]
        if self.glints > 0:
            spread = (self.path[1] * (0.25 + depth))[:, None]
            street = np.exp(-0.5 * (across[None, :] / spread) ** 2) * wave_share(depth)[:, None]
            added += np.float32(self.glints) * street * np.maximum(total - 1.7, 0) ** 2
        out = image.copy()
        out[first:] += added
        return out

    def _strength(self, corner: tuple[float, float], size: tuple[int, int]) -> Field:
        h, w = size[0] // _HALF + 2, size[1] // _HALF + 2
        small = _bilinear(self.strength, corner[0] / _HALF, corner[1] / _HALF, (h, w))
        full = cv2.resize(small, (w * _HALF, h * _HALF), interpolation=cv2.INTER_LINEAR)
        return np.asarray(full[: size[0], : size[1]], np.float32)


def wave_share(depth: NDArray[Any]) -> NDArray[Any]:
    """How much of the waves moves by depth (0 horizon, 1 foot): far away they are below a pixel, and only shine."""
    t = np.clip((depth - 0.05) / 0.3, 0.0, 1.0)
    return t * t * (3 - 2 * t)


def draw_water(
    sea: Sea, recipe: Recipe, ground: Ground, rng: np.random.Generator, height: int
) -> Water | None:
    """Waves and glints for a sea scene; None for any other.

    The waves that the background shows stand still. They are smoothed away here, in ``ground.image``, and moving
    ones of the same local deviation take their place.
    """
    unit = recipe.top / 255.0
    waves, glints = unit * sea.waves.at(rng.random()), unit * sea.glints.at(rng.random())
    speed, heading = sea.speed.at(rng.random()), 2 * pi * rng.random()
    place, wide_share = rng.random(), rng.random()
    if ground.scene != "sea":
        return None
    tall, wide = ground.image.shape
    horizon = float(np.median(ground.outline)) * tall if ground.outline is not None else 0.0
    if horizon < 0.02 * tall:  # from above, or nearly: hardly any perspective
        horizon = -1.5 * height
    textures = torus(rng, 256, 1.7, least=14, stretch=2.5), torus(rng, 256, 1.7, least=14, stretch=2.5)
    near = max(tall - horizon, 0.2 * height)
    share = wave_share((np.arange(tall) - horizon) / near).astype(np.float32)[:, None]
    smooth = cv2.GaussianBlur(ground.image, (0, 0), sigmaX=9, sigmaY=5)
    still = ground.image + share * (smooth - ground.image)
    strength = np.sqrt(cv2.GaussianBlur((ground.image - still) ** 2, (0, 0), 16) + (waves * share) ** 2)
    ground.image = still
    small = cv2.resize(strength, None, fx=1 / _HALF, fy=1 / _HALF, interpolation=cv2.INTER_AREA)
    path = wide * (0.2 + 0.6 * place), wide * (0.1 + 0.25 * wide_share)
    return Water(textures, speed, heading, waves, glints, horizon, near, path, np.ascontiguousarray(small))


def sky_mask(ground: Ground) -> Field | None:
    """Canvas-sized share of sky, 0 to 1, soft over 3 pixels; None: no sky is known."""
    tall, wide = ground.image.shape
    if ground.outline is None:
        if ground.scene == "cloud":
            return np.ones((tall, wide), np.float32)
        return None
    columns = (np.arange(wide) + 0.5) / wide * len(ground.outline) - 0.5
    edge = np.interp(columns, np.arange(len(ground.outline)), np.asarray(ground.outline)) * tall
    rows = np.arange(tall)[:, None]
    mask = np.clip((edge[None, :] - 4 - rows) / 6 + 0.5, 0, 1).astype(np.float32)
    return mask if mask.mean() > 0.05 else None


def _rolled(texture: Field, x: float, y: float, size: tuple[int, int]) -> Field:
    """The (h, w) window of an endless texture at (x, y), bilinear."""
    side = texture.shape[0]
    ix, iy = int(np.floor(x)), int(np.floor(y))
    rows, columns = np.arange(iy, iy + size[0] + 1) % side, np.arange(ix, ix + size[1] + 1) % side
    return _between(texture[np.ix_(rows, columns)], x - ix, y - iy)


def _bilinear(values: Field, x: float, y: float, size: tuple[int, int]) -> Field:
    """The same of an image; beyond its border the border's values go on."""
    ix, iy = int(np.floor(x)), int(np.floor(y))
    rows = np.arange(iy, iy + size[0] + 1).clip(0, values.shape[0] - 1)
    columns = np.arange(ix, ix + size[1] + 1).clip(0, values.shape[1] - 1)
    return _between(values[np.ix_(rows, columns)], x - ix, y - iy)


def _between(part: Any, fx: float, fy: float) -> Field:
    fx, fy = np.float32(fx), np.float32(fy)  # type: ignore[assignment]
    part = part[:, :-1] * (1 - fx) + part[:, 1:] * fx
    return part[:-1] * (1 - fy) + part[1:] * fy
