"""Tracks from detections: constant velocity, optimal assignment of centres, no learning."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..annotate.boxes import as_boxes


@dataclass
class _Track:
    id: int
    centre: NDArray[np.float64]
    velocity: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    frame: int = 0
    seen: int = 1


class Tracker:
    """Gives detections of successive frames a track id.

    A track is expected at its last centre plus its velocity; detections are assigned to tracks so that as
    many as possible match, then with the smallest sum of distances. The velocity is an exponential mean.

    Parameters
    ----------
    gate
        Largest distance, in pixels, from the expected centre; a track not yet seen twice has no velocity
        and gets twice of it. Grows with the frames missed.
    patience
        Frames a track is kept without a detection.
    smooth
        Weight of the newest velocity.
    """

    def __init__(self, *, gate: float = 10.0, patience: int = 5, smooth: float = 0.5) -> None:
        if gate <= 0 or patience < 0 or not 0 < smooth <= 1:
            raise ValueError(
                f"gate above 0, patience from 0, smooth in 0..1; got {gate}, {patience}, {smooth}"
            )
        self.gate, self.patience, self.smooth = gate, patience, smooth
        self._tracks: list[_Track] = []
        self._next = 1

    def update(self, boxes: ArrayLike, frame: int) -> NDArray[np.int64]:
        """Track ids (N,) of the (N, 4) half-open boxes of ``frame``; frames come in rising order."""
        from scipy.optimize import linear_sum_assignment

        found = as_boxes(boxes)
        centres = (found[:, :2] + found[:, 2:]) / 2
        self._tracks = [t for t in self._tracks if frame - t.frame <= self.patience + 1]
        ids = np.zeros(len(found), np.int64)
        free = set(range(len(found)))
        if self._tracks and len(found):
            gaps = np.array([frame - t.frame for t in self._tracks])
            expected = np.array([t.centre + t.velocity * g for t, g in zip(self._tracks, gaps, strict=True)])
            reach = np.array([self.gate * (2 if t.seen < 2 else 1) for t in self._tracks]) * np.sqrt(gaps)
            apart = np.linalg.norm(expected[:, None] - centres[None], axis=2)
            near = apart <= reach[:, None]
            far = (apart[near].max() if near.any() else 1.0) * (min(near.shape) + 1) + 1
            for row, column in zip(*linear_sum_assignment(np.where(near, apart, far)), strict=True):
                if not near[row, column]:
                    continue
                track = self._tracks[row]
                step = (centres[column] - track.centre) / (frame - track.frame)
                weight = 1.0 if track.seen < 2 else self.smooth
                track.velocity = (1 - weight) * track.velocity + weight * step
                track.centre, track.frame, track.seen = centres[column], frame, track.seen + 1
                ids[column] = track.id
                free.discard(int(column))
        for k in sorted(free):
            self._tracks.append(_Track(self._next, centres[k], frame=frame))
            ids[k] = self._next
            self._next += 1
        return ids
