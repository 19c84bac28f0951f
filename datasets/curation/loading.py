"""From an entry to what FiftyOne is given: labels with their measured contrast, a preview where one is needed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...annotate.errors import IrstkitError
from ...annotate.files import GrayImage, write_png
from ...annotate.masks import Instance
from ...annotate.scr import measure_contrast
from ..records import Record
from ..twins import thumbnail
from .pixels import snap_box
from .sources import Entry, Label, Source, labels_of

AHEAD = 512
LOW_CONTRAST = 64
"""Of an 8-bit image: its 0.1 to 99.9 percentiles span fewer gray levels than this."""
Window = tuple[float, float]


@dataclass(eq=False)
class Loaded:
    """An entry with everything that takes reading its files. ``file``: the image, of a video's frame a PNG of it."""

    entry: Entry
    labels: list[Label]
    scr: list[float | None]
    file: Path
    preview: Path
    thumb: bytes | None = None


@dataclass
class Loader:
    """Reads entries of one source.

    Attributes
    ----------
    previews
        Folder for the stretched 8-bit copies.
    windows
        ``{sequence: (low, high) or None}``: one stretch a sequence, so that it does not flicker.
    twins
        Keep a thumbnail of images that are in a split and in no sequence.
    """

    source: Source
    previews: Path
    twins: bool = True
    windows: dict[str, Window | None] = field(default_factory=dict)

    def prepare(self, entries: Iterable[Entry]) -> None:
        """Choose the stretch of each sequence from its first, middle and last frame."""
        frames: dict[str, list[Record]] = {}
        for entry in entries:
            if entry.record is not None and entry.record.sequence is not None:
                frames.setdefault(entry.record.sequence, []).append(entry.record)
        for name, records in frames.items():
            chosen = {id(r): r for r in (records[0], records[len(records) // 2], records[-1])}
            images = [r.read_image() for r in chosen.values()]
            self.windows[name] = stretch_of(images)

    def load(self, entry: Entry) -> Loaded:
        """Read one image and its labels."""
        record = entry.record
        assert record is not None
        image = record.read_image()
        labels = labels_of(entry, self.source.document or self.source.root)
        for label in labels:
            check_inside(label, record, self.source)
        instances = [label.instance or rectangle(label, record.size) for label in labels]
        scr = [None if c.scr is None else abs(c.scr) for c in measure_contrast(image, instances)]
        window = self.windows[record.sequence] if record.sequence in self.windows else stretch_of([image])
        file = record.image.absolute()
        if record.video_frame is not None:
            file = self.previews / "frames" / f"{record.id}.png"
            write_png(file, image, compression=1)
        preview = file
        if window is not None:
            preview = self.previews / f"{record.id}.png"
            write_png(preview, stretch(image, window), compression=1)
        elif record.video_frame is not None:  # a frame of a video is no file that can be shown
            preview = self.previews / f"{record.id}.png"
            write_png(preview, image, compression=1)
        thumb = None
        if self.twins and record.splits and record.sequence is None:
            thumb = thumbnail(image).astype(np.float32).tobytes()
        return Loaded(entry, labels, scr, file, preview, thumb)

    def load_all(self, entries: list[Entry], *, workers: int = 2) -> Iterator[Loaded]:
        """Read entries on threads, in order."""
        self.prepare(entries)
        with ThreadPoolExecutor(workers) as pool:
            waiting = deque(pool.submit(self.load, e) for e in entries[:AHEAD])
            for k in range(len(entries)):
                loaded = waiting.popleft().result()
                if k + AHEAD < len(entries):
                    waiting.append(pool.submit(self.load, entries[k + AHEAD]))
                yield loaded


def check_inside(label: Label, record: Record, source: Source) -> None:
    """Refuse a label outside its image: it could neither be seen nor come back."""
    x1, y1, x2, y2 = label.box
    if not (x1 < x2 and y1 < y2) or x2 <= 0 or y2 <= 0 or x1 >= record.size[1] or y1 >= record.size[0]:
        raise IrstkitError(
            f"the box {x1:g},{y1:g},{x2:g},{y2:g} is empty or outside the image of "
            f"{record.size[1]}x{record.size[0]} ({record.id})",
            path=source.document or record.image,
            where=f"$.annotations[{label.position}].bbox" if source.document else None,
        )


def rectangle(label: Label, size: tuple[int, int]) -> Instance:
    """The whole pixels of a box as an instance."""
    box = snap_box(label.box, size)
    return Instance(box, np.ones((box[3] - box[1], box[2] - box[0]), dtype=bool))


def stretch_of(images: list[GrayImage]) -> Window | None:
    """(low, high) of the stretch that these images need to be seen, or None when they are seen well as they are."""
    bounds = [np.percentile(image[:: max(1, image.shape[0] // 256)], (0.1, 99.9)) for image in images]
    low, high = float(min(b[0] for b in bounds)), float(max(b[1] for b in bounds))
    if images[0].dtype == np.uint8 and high - low >= LOW_CONTRAST:
        return None
    return low, max(high, low + 1)


def stretch(image: GrayImage, window: Window) -> NDArray[np.uint8]:
    """The image with ``window`` brought to 0..255; what is outside is cut."""
    low, high = window
    scaled = (image.astype(np.float32) - low) * (255 / (high - low))
    return np.rint(scaled.clip(0, 255)).astype(np.uint8)
