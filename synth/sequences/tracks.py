"""Where targets go: tracks of T positions in the frame, by the way they move.

A track is an (T, 2) array of x, y in pixels (pixel centres at whole numbers), before the platform's jitter. All
but leaving and entering ones stay inside ``region``; speeds that would leave it in T frames are lowered, since a
target that turns back at the border is no constant velocity.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi, sin
from typing import Any

import numpy as np
from numpy.typing import NDArray

Path2 = NDArray[Any]  # (T, 2) float64: x, y


@dataclass(frozen=True)
class Region:
    """Where a target's centre may be: x from ``left`` to ``right``, y from ``top`` to ``bottom``."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def sides(self) -> Path2:
        """Width and height."""
        return np.array([self.right - self.left, self.bottom - self.top])

    @property
    def corner(self) -> Path2:
        """Left and top."""
        return np.array([self.left, self.top])

    def shrunk(self, x: float, y: float) -> Region:
        """The region less x and y pixels on each side, never less than its middle point."""
        mx, my = (self.left + self.right) / 2, (self.top + self.bottom) / 2
        return Region(
            min(self.left + x, mx), min(self.top + y, my), max(self.right - x, mx), max(self.bottom - y, my)
        )

    def holds(self, path: Path2, slack: float = 1e-6) -> bool:
        """Whether all of a track lies inside."""
        low, high = self.corner - slack, self.corner + self.sides + slack
        return bool(((path >= low) & (path <= high)).all())


def _direction(rng: np.random.Generator) -> Path2:
    angle = 2 * pi * rng.random()
    return np.array([cos(angle), sin(angle)])


def constant(rng: np.random.Generator, frames: int, region: Region, speed: float) -> Path2:
    """A straight line at one speed."""
    run = _direction(rng) * speed * (frames - 1)
    with np.errstate(divide="ignore"):
        room = float(np.min(np.where(run == 0, np.inf, region.sides / np.maximum(np.abs(run), 1e-12))))
    run = run * min(1.0, room)
    low = region.corner + np.maximum(-run, 0)
    start = low + (region.sides - np.abs(run)) * rng.random(2)
    return start + run * (np.arange(frames)[:, None] / max(frames - 1, 1))


def manoeuvre(rng: np.random.Generator, frames: int, region: Region, speed: float, turn: float) -> Path2:
    """Turns whose rate wanders (an Ornstein-Uhlenbeck process of 20 frames, deviation ``turn`` degrees a frame),
    a speed that changes by a tenth, and a turn back towards the middle before the region ends."""
    middle, half = region.corner + region.sides / 2, np.maximum(region.sides / 2, 1e-6)
    keep = np.exp(-1 / 20)
    kicks = rng.standard_normal(frames) * np.deg2rad(turn) * np.sqrt(1 - keep * keep)
    speeds = speed * np.exp(0.1 * smooth(rng, frames, 40))
    place = region.corner + region.sides * (0.2 + 0.6 * rng.random(2))
    heading, rate = 2 * pi * rng.random(), np.deg2rad(turn) * rng.standard_normal()
    out = np.empty((frames, 2))
    for t in range(frames):
        out[t] = place
        rate = keep * rate + kicks[t]
        away = (place - middle) / half
        near = float(np.abs(away).max())
        steer = 0.0
        if near > 0.6:  # turn towards the middle, the faster the nearer the border
            wanted = np.arctan2(*(middle - place)[::-1])
            steer = float((wanted - heading + pi) % (2 * pi) - pi) * min((near - 0.6) / 0.4, 1.0) * 0.3
        heading += rate + steer
        place = place + speeds[t] * np.array([cos(heading), sin(heading)])
        place = np.clip(place, region.corner, region.corner + region.sides)
    return out


def hover(rng: np.random.Generator, frames: int, region: Region, speed: float, radius: float) -> Path2:
    """About one place: a slow wander of deviation ``radius``, whose fastest parts go at about ``speed``."""
    period = max(2 * pi * radius / max(speed, 1e-3), 12.0)
    wander = radius * np.stack([smooth(rng, frames, period), smooth(rng, frames, period)], axis=1)
    inner = region.shrunk(*np.abs(wander).max(axis=0))
    place = inner.corner + inner.sides * rng.random(2)
    return np.clip(place + wander, region.corner, region.corner + region.sides)


def crossing(
    rng: np.random.Generator, frames: int, region: Region, speeds: tuple[float, float]
) -> tuple[Path2, Path2]:
    """Two straight lines that meet, to within 2 pixels, in the middle third of the sequence."""
    middle = region.shrunk(*(0.25 * region.sides))
    meeting = middle.corner + middle.sides * rng.random(2)
    when = (frames - 1) * (1 / 3 + rng.random() / 3)
    angle = 2 * pi * rng.random()
    other = angle + (1 if rng.random() < 0.5 else -1) * (pi / 6 + 2 * pi / 3 * rng.random())
    miss = 2 * rng.random() * _direction(rng)
    steps = np.arange(frames)[:, None] - when
    out = []
    for turn, speed, beside in ((angle, speeds[0], 0 * miss), (other, speeds[1], miss)):
        way = np.array([cos(turn), sin(turn)])
        at = np.clip(meeting + beside, region.corner, region.corner + region.sides)
        room = _reach(at, way, region) / max(frames - 1 - when, 1e-6)
        back = _reach(at, -way, region) / max(when, 1e-6)
        out.append(at + min(speed, room, back) * way * steps)
    return out[0], out[1]


def _reach(place: Path2, way: Path2, region: Region) -> float:
    """How far one can go from a place before the region ends."""
    ends = np.where(way > 0, region.corner + region.sides, region.corner)
    with np.errstate(divide="ignore", invalid="ignore"):
        far = np.where(np.abs(way) < 1e-9, np.inf, (ends - place) / way)
    return float(max(far.min(), 0.0))


def leaving(rng: np.random.Generator, frames: int, inner: Region, outer: Region, speed: float) -> Path2:
    """A straight line from inside ``inner`` over the border of ``outer``, crossed at 40 to 90 % of the time.

    Where ``speed`` is too low for that it is raised, where it is too high for the frame lowered.
    """
    when = max((frames - 1) * (0.4 + 0.5 * rng.random()), 1.0)
    steps = np.arange(frames)[:, None] - when
    for attempt in range(16):  # ever straighter out
        side, along = int(rng.integers(4)), 0.15 + 0.7 * rng.random()
        unit = np.array([[0.0, along], [1.0, along], [along, 0.0], [along, 1.0]][side])
        exit = outer.corner + outer.sides * unit
        normal = np.array([[-1.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0]][side])
        tilt = (rng.random() - 0.5) * pi * 0.7 * (1 - attempt / 16)
        way = np.array(
            [normal[0] * cos(tilt) - normal[1] * sin(tilt), normal[0] * sin(tilt) + normal[1] * cos(tilt)]
        )
        slowed = min(speed, 0.98 * _reach(exit - 1e-6 * way, -way, outer) / when)
        if inner.holds((exit - slowed * way * when)[None]):
            return exit + slowed * way * steps
    middle = inner.corner + inner.sides / 2
    exit = np.where(normal == 0, middle, exit)
    first = np.where(normal > 0, inner.corner + inner.sides, inner.corner)
    least = float(np.abs((exit - first) @ normal)) / when
    most = float(np.abs((exit - middle) @ normal)) / when
    return exit + min(max(speed, least), most) * normal * steps


def entering(rng: np.random.Generator, frames: int, inner: Region, outer: Region, speed: float) -> Path2:
    """A track of :func:`leaving` run backwards."""
    return leaving(rng, frames, inner, outer, speed)[::-1].copy()


def smooth(rng: np.random.Generator, frames: int, period: float) -> NDArray[Any]:
    """(T,) smooth noise of about unit deviation: four sines of periods around ``period``, from 0.7 to 3 times it."""
    t = np.arange(frames)
    out = np.zeros(frames)
    for scale in (0.7, 1.1, 1.8, 3.0):
        length = period * scale * (0.85 + 0.3 * rng.random())
        out += np.sin(2 * pi * (t / length + rng.random()))
    return out / np.sqrt(2.0)


def velocity(path: Path2) -> Path2:
    """(T, 2) pixels a frame: central differences, one-sided at the ends; zeros for a single frame."""
    if len(path) < 2:
        return np.zeros_like(path)
    return np.gradient(path, axis=0)
