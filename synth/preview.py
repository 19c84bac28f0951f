"""A look at what a recipe gives, or at what its quality gate turned away: a contact sheet, nothing else."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from ..annotate.console import progress
from ..annotate.errors import IrstkitError
from ..annotate.files import write_png
from .compose import make_image
from .recipe import Recipe


def preview(
    out: str | Path,
    recipe: Recipe,
    number: int = 16,
    columns: int = 8,
    *,
    frames: bool = True,
    refused: bool = False,
) -> int:
    """A contact sheet of the first ``number`` images, targets framed in yellow and negatives in blue, as one PNG; nothing else is written.

    With ``refused``: of what the quality gate turned away, with the reason, among the first 50 x ``number``
    images. Returns the number of images shown.
    """
    tiles: list[np.ndarray] = []
    with progress("Looking", number) as bar:
        for index in range(50 * number if refused else number):
            made = make_image(recipe, index)
            if refused:
                for image, reason in made.refused[: number - len(tiles)]:
                    tiles.append(_tile(image))
                    cv2.putText(
                        tiles[-1],
                        reason,
                        (4, 14),
                        cv2.FONT_HERSHEY_SIMPLEX,
                        0.4,
                        (255, 210, 0),
                        1,
                        cv2.LINE_AA,
                    )
                    bar.advance()
                if len(tiles) >= number:
                    break
                continue
            tile = _tile(made.image)
            for target in made.targets if frames else ():
                x1, y1, x2, y2 = target.box
                cv2.rectangle(tile, (x1 - 4, y1 - 4), (x2 + 3, y2 + 3), (255, 210, 0), 1)
            for negative in made.negatives if frames else ():
                x1, y1, x2, y2 = negative.box
                cv2.rectangle(tile, (x1 - 3, y1 - 3), (x2 + 2, y2 + 2), (90, 160, 255), 1)
            tiles.append(tile)
            bar.advance()
    if not tiles:
        raise IrstkitError(f"the quality gate turned nothing away among {50 * number} images")
    shown = len(tiles)
    tiles = [np.pad(tile, ((1, 1), (1, 1), (0, 0)), constant_values=255) for tile in tiles]
    columns = min(columns, shown)
    while len(tiles) % columns:
        tiles.append(np.full_like(tiles[0], 255))
    rows = [np.hstack(tiles[k : k + columns]) for k in range(0, len(tiles), columns)]
    write_png(out, np.vstack(rows))
    return shown


def _tile(image: np.ndarray) -> np.ndarray:
    gray = image if image.dtype == np.uint8 else (image >> 8).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=2)
