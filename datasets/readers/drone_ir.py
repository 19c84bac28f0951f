"""Infrared videos of the Drone Detection Dataset, with boxes a frame; and folders of videos without labels.

``IR_DRONE_142.mp4`` beside ``boxes_xywh_per_frame.json``: ``{"IR_DRONE_142": [[x, y, w, h] or null, ...]}``, an
entry a frame, null where nothing is in sight, counted from 1 as MATLAB does (annotate's format ``video``). The
boxes are interpolated and loose: about 9x8 pixels around targets of 2 to 5. Frames are read out of the videos,
each decoded once; ids are ``IR_DRONE_142/000012``, from 0. What is wrong is listed: labels more or fewer than
frames, boxes without size or outside, videos without labels and labels without video.

The scheme ``by_scene`` divides the eight videos of the smallest targets so that no scene is in both parts: five
to train on, and three of aeroplanes above one row of trees (027, 029, 030) to test on.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ...annotate.errors import IrstkitError
from ...annotate.files import natural_key
from ...annotate.formats.sequences import parse_video_boxes
from ...annotate.video import VIDEO_SUFFIXES, video_frames
from ..records import Dataset
from .lists import assign_splits, find_lists
from .probe import Builder, Match, Probe

NAME = "drone-ir"
VIDEOS = "videos"
LABELS = "boxes_xywh_per_frame.json"
SCHEME = "by_scene"
TRAIN = ("IR_AIRPLANE_058", "IR_DRONE_142", "IR_DRONE_151", "IR_DRONE_153", "IR_DRONE_155")
TEST = ("IR_AIRPLANE_027", "IR_AIRPLANE_029", "IR_AIRPLANE_030")


def match(probe: Probe) -> Match:
    """Videos beside their file of boxes."""
    if LABELS not in probe.entries():
        return Match(False, f"no {LABELS}")
    videos = _videos(probe)
    return Match(bool(videos), f"{len(videos)} videos beside {LABELS}" if videos else f"{LABELS}, no video")


def match_videos(probe: Probe) -> Match:
    """Video files, no image, and nothing that says what is in them."""
    videos = _videos(probe)
    if videos and probe.images("."):
        return Match(False, "videos and images in one folder")
    return Match(bool(videos), f"{len(videos)} videos" if videos else "no video")


def read(probe: Probe) -> Dataset:
    """The frames in the order of the videos' names."""
    path = probe.root / LABELS
    labels, found = parse_video_boxes(path)
    builder = Builder(probe)
    wrong = {f.where: f for f in found}
    videos = _videos(probe)
    for name in labels:
        if name not in videos:
            builder.find("error", "image-missing", "boxes of a video that is not here", path, where=name)
    for name, video in videos.items():
        first = len(builder.records)
        _frames(builder, name, video)
        if name in wrong:  # not even a list
            builder.adopt([wrong[name]])
        elif name not in labels:
            builder.find("warning", "label-missing", f"no boxes of {video.name}: its frames have none", path)
        elif len(builder.records) > first:
            rows = labels[name]
            for k in range(first, len(builder.records)):
                _box(builder, k, rows, path, f"{name}[{k - first}]", wrong)
            more = len(rows) - (len(builder.records) - first)
            if more > 0:
                text = f"{len(rows)} labels for {len(rows) - more} frames: the last {more} left out"
                builder.find("warning", "label-count", text, path, where=name)
    return _dataset(builder, NAME)


def read_videos(probe: Probe) -> Dataset:
    """The frames of all videos, not labelled."""
    builder = Builder(probe)
    for name, video in _videos(probe).items():
        _frames(builder, name, video)
    return _dataset(builder, VIDEOS)


def _videos(probe: Probe) -> dict[str, Path]:
    names = [n for n in probe.entries() if Path(n).suffix.lower() in VIDEO_SUFFIXES]
    out: dict[str, Path] = {}
    for name in sorted(names, key=natural_key):
        stem = Path(name).stem
        out[name if stem in out else stem] = probe.root / name
    return out


def _frames(builder: Builder, name: str, path: Path) -> None:
    """A record a frame."""
    try:
        frames = video_frames(path)
    except IrstkitError as error:
        builder.find("error", "image-unreadable", error.message, path)
        return
    for k, frame in enumerate(frames):
        builder.add_frame(f"{name}/{k:06d}", path, k, frame.shape, sequence=name)


def _box(builder: Builder, at: int, rows: list, path: Path, where: str, wrong: dict) -> None:
    """Give the record ``at`` its box, or say why it has none that can be used."""
    id, k = builder.records[at].id, builder.records[at].frame or 0
    if where in wrong:
        builder.adopt([wrong[where]], id)
    elif k >= len(rows):
        text = f"{len(rows)} labels: this frame has none"
        builder.find("error", "label-missing", text, path, where=where, record=id)
    else:
        x, y, w, h = rows[k] or (1.0, 1.0, 0.0, 0.0)
        box = np.array([[x - 1, y - 1, x - 1 + w, y - 1 + h]])
        builder.set_boxes(box if rows[k] is not None else box[:0], path=path, at=at)


def _dataset(builder: Builder, layout: str) -> Dataset:
    """Records with their splits: the scheme known by name, and lists of ids."""
    known = {**dict.fromkeys(TRAIN, "train"), **dict.fromkeys(TEST, "test")}
    splits, unions = assign_splits(builder, find_lists(builder.probe), {r.id: None for r in builder.records})
    records = []
    for r in builder.records:
        named = {SCHEME: known[r.sequence]} if layout == NAME and r.sequence in known else {}
        records.append(replace(r, splits={**named, **splits.get(r.id, {})}))
    schemes = sorted({s for r in records for s in r.splits})
    scheme = SCHEME if SCHEME in schemes else schemes[0] if len(schemes) == 1 else None
    root, findings = builder.probe.root, tuple(builder.findings)
    return Dataset(root, layout, tuple(records), scheme, findings, unions)
