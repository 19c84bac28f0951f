"""One frame of a planned sequence: view, noise, targets, contrast. A pure function of recipe, plan and number."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import atan2, floor, hypot
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..compose import compress, settle
from ..placement import Frame, Target, accept
from ..recipe import FRAME, stream
from ..sensor import Camera
from ..targets import Patch, motion_kernel
from . import tracks as ways
from .plan import Plan, SequenceRecipe, Track
from .platform import view

BLUR_FROM = 0.3  # pixels of the camera's motion within the exposure below which the view is not blurred


@dataclass(eq=False)
class Seen:
    """A target as it shows in one frame; ``visible`` is the share of its mask inside, ``smear`` in pixels."""

    target: Target
    track: Track
    visible: float
    smear: float
    velocity: tuple[float, float]
    size: float
    touching: bool = False


@dataclass(eq=False)
class FrameMade:
    """A finished frame."""

    image: NDArray
    mask: NDArray[np.bool_]
    seen: list[Seen]


def make_frame(recipe: SequenceRecipe, plan: Plan, number: int) -> FrameMade:
    """Frame ``number`` of a plan; its noise is drawn first and held fixed while the contrast is solved."""
    camera = None
    sensor = recipe.preset.sensor
    if sensor.active:
        rng = stream(recipe.seed, FRAME, plan.index, number)
        camera = Camera(sensor, rng, plan.shape, recipe.top, recipe.seed, plan.settings)
    frame = Frame(recipe, background(plan, number), camera)
    seen = [found for track in plan.tracks if (found := _seen(track, number, plan)) is not None]
    frame.targets = [s.target for s in seen]
    for _ in range(2 if len(seen) > 1 else 1):  # a second time where one's light is in another's ring
        for target in frame.targets:
            solution = frame.solve(target)
            if solution is not None:
                accept(target, solution)
            else:  # brighter than asked for as it is, or no ring: the least step, and marked
                inner = float(target.patch.values[target.patch.mask].mean())
                target.amplitude = (
                    target.polarity * recipe.preset.gate.min_step * recipe.top / max(inner, 0.05)
                )
                target.status = "saturated"
    for target in frame.targets:
        frame.write(target.reach)
    settle(frame)
    if plan.jpeg is not None:
        compress(frame, plan.jpeg)
    _mark_touching(seen)
    return FrameMade(frame.image, frame.mask, seen)


def background(plan: Plan, number: int) -> NDArray[np.float32]:
    """The view's light without targets and noise, float32 gray levels."""
    x, y = (float(v) for v in plan.camera.offsets[number])
    image = view(plan.ground.image, (x, y), plan.shape)
    if plan.water is not None:
        image = plan.water.apply(image, (x, y), number)
    if plan.veil is not None:
        image = plan.veil.apply(image, (x, y), number)
    vx, vy = (
        ways.velocity(plan.camera.steady[max(number - 1, 0) : number + 2])[min(number, 1)] * plan.exposure
    )
    if hypot(vx, vy) > BLUR_FROM:
        kernel = motion_kernel(hypot(vx, vy), atan2(vy, vx)).astype(np.float32)
        image = np.asarray(cv2.filter2D(image, cv2.CV_32F, kernel, borderType=cv2.BORDER_REFLECT_101))
    return image


def _seen(track: Track, number: int, plan: Plan) -> Seen | None:
    """The target as a patch cut to the frame; None where none of its mask is inside."""
    if not np.isfinite(track.path[number]).all():
        return None
    px, py = (float(v) for v in track.path[number])
    height, width = plan.shape
    if not (-64 < px < width + 64 and -64 < py < height + 64):
        return None
    column, row = floor(px + 0.5), floor(py + 0.5)
    look, size = track.look, float(track.size[number])
    if track.boxes:
        x1, y1, x2, y2 = track.boxes[number]
        look = replace(look, box=(max(1, round(x2 - x1)), max(1, round(y2 - y1))))
    smear = float(np.hypot(*track.smear[number]))
    angle = atan2(track.smear[number][1], track.smear[number][0])
    patch = look.patch(px - column, py - row, size, (smear, angle))
    whole = patch.area
    cut = clip_patch(patch, row, column, plan.shape)
    if cut is None:
        return None
    target = Target(cut, row, column, track.polarity, round(float(track.scr[number]), 6))
    around = track.path[max(number - 1, 0) : number + 2]
    step = ways.velocity(around)[min(number, 1)] if np.isfinite(around).all() else np.zeros(2)
    return Seen(target, track, cut.area / whole, smear, (float(step[0]), float(step[1])), size)


def clip_patch(patch: Patch, row: int, column: int, shape: tuple[int, int]) -> Patch | None:
    """What of a patch at a base pixel lies inside a frame of (height, width); None: nothing of its mask does."""
    top, left = row + patch.top, column + patch.left
    h, w = patch.values.shape
    y1, x1 = max(-top, 0), max(-left, 0)
    y2, x2 = min(h, shape[0] - top), min(w, shape[1] - left)
    if (y1, x1, y2, x2) == (0, 0, h, w):
        return patch
    if y1 >= y2 or x1 >= x2 or not patch.mask[y1:y2, x1:x2].any():
        return None
    values, mask = patch.values[y1:y2, x1:x2], patch.mask[y1:y2, x1:x2]
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    return replace(patch, values=values, mask=mask, top=patch.top + y1, left=patch.left + x1, box=box)


def _mark_touching(seen: list[Seen]) -> None:
    """Mark targets whose masks are one component with another's (their boxes are theirs all the same)."""
    for k, a in enumerate(seen):
        for b in seen[:k]:
            ax1, ay1, ax2, ay2 = a.target.box
            bx1, by1, bx2, by2 = b.target.box
            if ax1 > bx2 or bx1 > ax2 or ay1 > by2 or by1 > ay2:
                continue
            x1, y1 = min(ax1, bx1) - 1, min(ay1, by1) - 1
            window: Any = np.zeros((2, max(ay2, by2) - y1 + 1, max(ax2, bx2) - x1 + 1), np.uint8)
            for plane, s in zip(window, (a, b), strict=True):
                bx, by, cx, cy = s.target.box
                plane[by - y1 : cy - y1, bx - x1 : cx - x1] = s.target.instance.mask
            if (cv2.dilate(window[0], np.ones((3, 3), np.uint8)) & window[1]).any():
                a.touching = b.touching = True
