"""What backgrounds are like between their objects: noise, its spectrum and whiteness, gradients, flatness.

All of it on 32x32 patches without a target, in gray levels of 8 bit.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 32
BANDS = 16

GROUND_MEASURES: dict[str, tuple[str, bool, str]] = {
    "noise": ("noise of backgrounds", True, "gray levels"),
    "whiteness": ("correlation of neighbouring pixels", False, ""),
    "high_band": ("power above half of Nyquist", False, "share"),
    "gradient": ("gradient of backgrounds", True, "gray levels"),
    "gradient_tail": ("gradient, p99 over mean", True, ""),
    "flat": ("equal neighbouring pixels", False, "share"),
    "lines": ("gradient across over along rows", True, ""),
    "levels": ("gray levels in 32x32 pixels", True, ""),
}

_KERNEL = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6


def ground_measures(patch: NDArray[np.float32]) -> dict[str, float]:
    """The measures of GROUND_MEASURES on a (32, 32) patch.

    The noise is the deviation of J. Immerkaer's difference operator (*Fast noise variance estimation*, Computer
    Vision and Image Understanding 64, 1996), which smooth ramps leave at zero; small constants keep ratios of
    what rounding made flat finite.
    """
    dx, dy = np.diff(patch, axis=1), np.diff(patch, axis=0)
    steps = np.abs(np.concatenate([dx.ravel(), dy.ravel()]))
    mean = float(steps.mean())
    fine = patch - cv2.GaussianBlur(patch, (0, 0), 2.0)
    power = float((fine * fine).mean())
    neighbours = 0.5 * (float((fine[:, 1:] * fine[:, :-1]).mean()) + float((fine[1:] * fine[:-1]).mean()))
    line = float(np.abs(dy).mean() + 0.05) / float(np.abs(dx).mean() + 0.05)
    levels = spectrum(patch)
    share = np.exp(levels)
    return {
        "noise": float(cv2.filter2D(patch, -1, _KERNEL)[1:-1, 1:-1].std()) + 0.01,
        "whiteness": neighbours / (power + 0.02),
        "high_band": float(share[BANDS // 2 :].sum() / share.sum()),
        "gradient": mean + 0.01,
        "gradient_tail": (float(np.quantile(steps, 0.99)) + 0.1) / (mean + 0.1),
        "flat": float(np.mean(steps < 1e-3)),
        "lines": line,
        "levels": float(len(np.unique(np.rint(patch)))),
    }


_HANN = np.outer(np.hanning(SIDE), np.hanning(SIDE)).astype(np.float32)
_RADIUS = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None, :])
_BAND = np.minimum((_RADIUS / 0.5 * BANDS).astype(int), BANDS)  # the corners beyond Nyquist are left out
_COUNT = np.bincount(_BAND.ravel(), minlength=BANDS + 1)[:BANDS]


def spectrum(patch: NDArray[np.float32]) -> NDArray[np.float64]:
    """(16,) log of the mean power in rings of frequency from 0 to Nyquist, of the windowed patch less its mean."""
    found = np.abs(np.fft.rfft2((patch - patch.mean()) * _HANN)) ** 2
    sums = np.bincount(_BAND.ravel(), found.ravel(), minlength=BANDS + 1)[:BANDS]
    return np.log(sums / _COUNT + 1e-3)
