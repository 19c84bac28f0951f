"""The camera: what it adds to the light that reaches it, drawn once a frame and held fixed.

written = clip(round(gain ((1 + prnu) s + sqrt(shot s) z1 + read z2 + dsnu + row + column) + offset)), dead
pixels apart, for a signal s in gray levels. Photon transfer: J. R. Janesick, *Photon Transfer* (SPIE, 2007),
chapters 3 and 5 (shot noise whose variance is proportional to the signal, read noise, fixed-pattern noise
proportional to the signal); EMVA Standard 1288, release 4.0, sections 2 and 4 (linear model, PRNU, DSNU,
row and column noise). All parameters are in 8-bit gray levels and scale with the output's depth.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from ..annotate.errors import IrstkitError
from .preset import Sensor

_FIXED = 5  # the stream of what belongs to the camera, not to the frame: one camera a data set


class Camera:
    """A frame's noise, drawn; :meth:`expose` and :meth:`at` apply it to any signal.

    The fixed pattern and the dead pixels come from the seed alone, so that they are the same in all
    images of a data set; shot, read, row and column noise, gain and offset come from ``rng``. ``settings``
    is a gain and an offset in place of drawn ones: those of a sequence, in which neither may flicker.
    """

    def __init__(
        self,
        sensor: Sensor,
        rng: np.random.Generator,
        size: tuple[int, ...],
        top: int,
        seed: int,
        settings: tuple[float, float] | None = None,
    ) -> None:
        self.top, unit = top, top / 255.0
        height, width = size
        still = _still(
            seed, height, width, top, sensor.fixed_gain, sensor.fixed_offset, sensor.fixed_column, sensor.dead
        )
        self.response, offsets, self.dead = still
        self.shot = np.sqrt(sensor.shot * unit) * rng.standard_normal((height, width))
        added = sensor.read * rng.standard_normal((height, width))
        added += offsets
        added += sensor.row * rng.standard_normal((height, 1))
        added += sensor.column * rng.standard_normal((1, width))
        added *= unit
        self.added = added
        self.gain, offset = settings or (sensor.gain.at(rng.random()), sensor.offset.at(rng.random()))
        self.offset = unit * offset
        self.any_dead = bool(sensor.dead > 0)
        self.kind = np.uint16 if top > 255 else np.uint8

    def expose(self, signal: NDArray) -> NDArray:
        """The written (H, W) frame of a (H, W) signal."""
        height, width = signal.shape
        levels = self.at((0, 0, width, height))(signal.astype(np.float64).ravel(), None)
        return levels.reshape(height, width).astype(self.kind)

    def at(self, window: tuple[int, int, int, int]) -> Callable[..., NDArray[np.float64]]:
        """Rendering of signal values (..., S) at S flat positions of a window (None: all of it, in order)."""
        x1, y1, x2, y2 = window
        here = np.s_[y1:y2, x1:x2]
        response, shot, added, dead = (
            a[here].ravel() for a in (self.response, self.shot, self.added, self.dead)
        )

        def render(signal: NDArray[np.float64], places: NDArray[np.intp] | None) -> NDArray[np.float64]:
            k = slice(None) if places is None else places
            light = self.gain * (response[k] * signal + np.sqrt(np.maximum(signal, 0.0)) * shot[k] + added[k])
            levels = np.rint(light + self.offset).clip(0.0, self.top)
            return np.where(np.isnan(dead[k]), levels, dead[k]) if self.any_dead else levels

        return render


def compressed(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """A (H, W) uint8 image through JPEG: what most published frames have been through."""
    if image.dtype != np.uint8:
        raise IrstkitError(
            "sensor.jpeg is for 8-bit images only", hint="--depth 8, or --set sensor.jpeg=null"
        )
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8)


@lru_cache(maxsize=2)
def _still(
    seed: int, height: int, width: int, top: int, gain: float, offset: float, column: float, dead: float
) -> tuple[NDArray, NDArray, NDArray]:
    """What is drawn once a camera: the pixels' response, their offsets, dead ones' levels (NaN for the others)."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(_FIXED,))))
    gains, offsets = rng.standard_normal((height, width)), rng.standard_normal((height, width))
    draw = rng.random((height, width))
    levels = np.where(draw < dead, np.where(draw < dead / 2, 0.0, float(top)), np.nan)
    return 1.0 + gain * gains, offset * offsets + column * rng.standard_normal((1, width)), levels
