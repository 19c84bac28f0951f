"""A look at sequences before they are made: strips of frames, or a moving picture."""

from __future__ import annotations

from math import ceil, sqrt
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ...annotate.console import progress
from ...annotate.files import atomic_path, write_png
from .frames import FrameMade, make_frame
from .plan import Plan, SequenceRecipe, make_plan

COLOURS = ((255, 210, 0), (0, 220, 255), (255, 110, 180), (120, 255, 120))
SHOWN = 6  # frames in a strip
MOVING = 60  # frames in a moving picture


def strips(out: str | Path, recipe: SequenceRecipe, number: int) -> int:
    """A PNG with a row a sequence: six frames, targets framed, their tracks so far; returns the number of rows."""
    number = min(number, len(recipe.listed) or number)
    rows = []
    with progress("Looking", number, unit="sequences") as bar:
        for index in range(number):
            plan = make_plan(recipe, index)
            tiles = []
            for t in np.unique(np.linspace(0, plan.frames - 1, SHOWN).astype(int)).tolist():
                tile = _tile(make_frame(recipe, plan, t), plan, t)
                cv2.putText(
                    tile, f"{plan.name} {t}", (4, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.36, (255, 255, 255), 1,
                    cv2.LINE_AA,
                )  # fmt: skip
                tiles.append(np.pad(tile, ((1, 1), (1, 1), (0, 0)), constant_values=255))
            rows.append(np.hstack(tiles))
            bar.advance()
    width, height = max(r.shape[1] for r in rows), max(r.shape[0] for r in rows)
    rows = [
        np.pad(r, ((0, height - r.shape[0]), (0, width - r.shape[1]), (0, 0)), constant_values=255)
        for r in rows
    ]
    write_png(out, np.vstack(rows))
    return number


def animation(out: str | Path, recipe: SequenceRecipe, number: int) -> int:
    """A GIF of up to 60 successive frames, the sequences side by side; returns the number of sequences."""
    from PIL import Image

    number = min(number, len(recipe.listed) or number)
    plans = [make_plan(recipe, index) for index in range(number)]
    columns = ceil(sqrt(number))
    frames = min(MOVING, max(plan.frames for plan in plans))
    height, width = (max(plan.shape[k] for plan in plans) for k in (0, 1))
    pictures = []
    with progress("Looking", frames, unit="frames") as bar:
        for t in range(frames):
            tiles = []
            for plan in plans:
                at = min(t, plan.frames - 1)
                tile = _tile(make_frame(recipe, plan, at), plan, at, tracks=False)
                space = (1, height - tile.shape[0] + 1), (1, width - tile.shape[1] + 1), (0, 0)
                tiles.append(np.pad(tile, space, constant_values=255))
            while len(tiles) % columns:
                tiles.append(np.full_like(tiles[0], 255))
            sheet = np.vstack([np.hstack(tiles[k : k + columns]) for k in range(0, len(tiles), columns)])
            pictures.append(Image.fromarray(sheet))
            bar.advance()
    with atomic_path(out) as path:
        pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=66, loop=0)
    return number


def _tile(made: FrameMade, plan: Plan, number: int, *, tracks: bool = True) -> NDArray[np.uint8]:
    gray = made.image if made.image.dtype == np.uint8 else (made.image >> 8).astype(np.uint8)
    tile = np.repeat(gray[..., None], 3, axis=2)
    for track in plan.tracks if tracks else ():
        colour = COLOURS[(track.id - 1) % len(COLOURS)]
        path = track.path[: number + 1]
        points = np.rint(path[np.isfinite(path).all(axis=1)] * 8).astype(np.int32)
        if len(points) > 1:
            cv2.polylines(tile, [points.reshape(-1, 1, 2)], False, colour, 1, cv2.LINE_AA, shift=3)
    for seen in made.seen:
        x1, y1, x2, y2 = seen.target.box
        colour = COLOURS[(seen.track.id - 1) % len(COLOURS)]
        cv2.rectangle(tile, (x1 - 4, y1 - 4), (x2 + 3, y2 + 3), colour, 1)
    return tile
