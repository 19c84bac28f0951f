"""Cues of a scene that can be named: straight edges, their directions, texture by scale and height, brightness.

They complement the network's pixels (learn.py). All are unchanged by gain and offset of the image.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]
SIDE = 128
LEVELS = 4
BINS = 8


def cues(image: NDArray) -> NDArray[np.float32]:
    """The cues of a (H, W) image, a vector of ``COUNT`` float32 numbers of order 1."""
    small = np.asarray(
        cv2.resize(image.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.float32
    )
    low, high = float(small.min()), float(small.max())
    plateau = float((small > high - 0.02 * (high - low + 1e-6)).mean())
    small -= small.mean()
    small /= max(float(small.std()), 1e-3)
    out: list[float] = [3 * plateau]
    out += (np.percentile(small, (2, 10, 25, 50, 75, 90, 98)) / 2).tolist()
    out += np.clip([(small**3).mean() / 3, (small**4).mean() / 6 - 0.5], -3, 3).tolist()
    thirds = small[: SIDE // 4 * 4].reshape(4, SIDE // 4, SIDE)
    out += thirds.mean(axis=(1, 2)).tolist() + np.log(thirds.std(axis=(1, 2)) + 0.05).tolist()
    level = small
    for _ in range(LEVELS):
        out += _gradients(level)
        below = np.asarray(cv2.pyrDown(level), np.float32)
        detail = level - cv2.pyrUp(below, dstsize=(level.shape[1], level.shape[0]))
        rows = np.array_split(detail, 4)
        out += [0.5 * float(np.log(r.std() + 1e-3)) + 1 for r in rows]
        scale = float(detail.std()) + 1e-4
        out.append(
            float(np.log((detail**4).mean() / scale**4 + 1e-6)) / 2 - 0.8
        )  # few and strong, or everywhere
        out += [float((detail[lag:] * detail[:-lag]).mean()) / scale**2 for lag in (1, 2)]
        out += [float((detail[:, lag:] * detail[:, :-lag]).mean()) / scale**2 for lag in (1, 2)]
        level = below
    return np.asarray(out, np.float32)


def _gradients(level: Floats) -> list[float]:
    gx = cv2.Sobel(level, cv2.CV_32F, 1, 0, ksize=3, scale=0.125)
    gy = cv2.Sobel(level, cv2.CV_32F, 0, 1, ksize=3, scale=0.125)
    size = np.hypot(gx, gy) + 1e-5
    angle = np.arctan2(gy, gx) % np.pi
    bins = (
        np.rint(angle / np.pi * BINS).astype(int) % BINS
    )  # bin 0 about 0: level and upright edges have their own
    shares = np.bincount(bins.ravel(), weights=size.ravel() ** 1.5, minlength=BINS)
    shares = shares / shares.sum()
    mean = float(size.mean())
    strong = size > 2.5 * mean
    exact = np.minimum(np.abs(np.cos(angle)), np.abs(np.sin(angle))) < 0.12
    out = (3 * shares).tolist()
    out += [
        0.5 * float(np.log(mean)) + 1,
        float(np.log((size**2).mean() / mean**2)) - 0.6,
        5 * float(strong.mean()),
    ]
    out.append(float(size[strong & exact].sum() / size[strong].sum()) if strong.any() else 0.0)
    # straight lines: what adds up along a row or a column with one sign
    for g, axis in ((gy, 1), (gx, 0)):
        line = np.abs(g.mean(axis=axis))
        out += [float(np.log((line.max() + 1e-4) / mean)) / 2, float(np.log((np.sort(line)[-8:].mean() + 1e-4) / mean)) / 2,
                float(np.log((line.mean() + 1e-4) / mean)) / 2]  # fmt: skip
        half = np.abs(np.stack([h.mean(axis=axis) for h in np.array_split(g, 3, axis=axis)]))
        out.append(float(np.log((half.max() + 1e-4) / mean)) / 2)
    return out


COUNT = len(cues(np.arange(SIDE * SIDE, dtype=np.uint8).reshape(SIDE, SIDE)))
