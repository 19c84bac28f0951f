"""Videos as what they are here: sequences of gray frames, decoded once."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from .decode import quiet_opencv
from .errors import IrstkitError

__all__ = ["VIDEO_SUFFIXES", "frame_rate", "read_frame", "read_video", "video_frames"]

# FFmpeg writes to the terminal about damaged videos; OpenCV reads this once, at the first video
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm")
KEPT = 256 * 2**20
"""Bytes of decoded videos that are kept; the last one used always is."""

Frames = list[NDArray[np.uint8]]


def read_video(path: str | Path) -> Iterator[NDArray[np.uint8]]:
    """The frames of a video, (H, W) uint8 gray, in order.

    Equal channels are that channel, other colour is BT.601 (as for images).

    Raises
    ------
    IrstkitError
        When the file is missing, cannot be opened as a video, or ends early.
    """
    if not Path(path).is_file():
        raise IrstkitError("no such file", path=path)
    with quiet_opencv():
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        try:
            if not capture.isOpened():
                raise IrstkitError("cannot be opened as a video", path=path)
            declared = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
            count = 0
            while True:
                good, frame = capture.read()
                if not good or frame is None:
                    break
                count += 1
                blue, green, red = frame[..., 0], frame[..., 1], frame[..., 2]
                if np.array_equal(blue, green) and np.array_equal(green, red):
                    yield np.ascontiguousarray(blue, dtype=np.uint8)
                else:
                    yield np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), dtype=np.uint8)
            exact = Path(path).suffix.lower() in (".mp4", ".mov")  # others estimate it from the duration
            if count == 0 or (exact and count < declared):
                raise IrstkitError(f"truncated or damaged video: {count} of {declared} frames", path=path)
        finally:
            capture.release()


def frame_rate(path: str | Path) -> float:
    """Frames a second that a video claims; 25 where it claims nothing sensible."""
    with quiet_opencv():
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        rate = float(capture.get(cv2.CAP_PROP_FPS))
        capture.release()
    return rate if 0 < rate < 1000 else 25.0


def video_frames(path: str | Path) -> Frames:
    """All frames of a video; asked for again, the same list, while memory allows and the file is unchanged.

    Nobody may write into it.
    """
    return _cache.get(Path(path))


def read_frame(path: str | Path, index: int) -> NDArray[np.uint8]:
    """Frame ``index`` (from 0) of a video, which is decoded once and not once a frame.

    Raises
    ------
    IrstkitError
        As :func:`read_video`, or when there is no such frame.
    """
    frames = video_frames(path)
    if not 0 <= index < len(frames):
        raise IrstkitError(f"no frame {index}: the video has {len(frames)}", path=path)
    return frames[index].copy()


class _Cache:
    """Decoded videos by file, the least recently used dropped first; two threads never decode one video."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: OrderedDict[tuple[str, int, int], Frames] = OrderedDict()
        self._busy: dict[tuple[str, int, int], threading.Lock] = {}

    def get(self, path: Path) -> Frames:
        try:
            stat = path.stat()
        except OSError as error:
            raise IrstkitError("no such file", path=path) from error
        key = (str(path.absolute()), stat.st_size, stat.st_mtime_ns)
        with self._lock:
            busy = self._busy.setdefault(key, threading.Lock())
        with busy:
            with self._lock:
                if key in self._found:
                    self._found.move_to_end(key)
                    return self._found[key]
            frames = list(read_video(path))
            with self._lock:
                self._found[key] = frames
                while len(self._found) > 1 and sum(map(_bytes, self._found.values())) > KEPT:
                    dropped, _ = self._found.popitem(last=False)
                    self._busy.pop(dropped, None)
            return frames


def _bytes(frames: Frames) -> int:
    return len(frames) * frames[0].nbytes


_cache = _Cache()
