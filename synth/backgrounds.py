"""Backgrounds: found, made target-free, kept out of test lists, put into splits, decoded once.

A background's id is the hash of its source image's pixels; crops, flips and scales keep it. The order of
backgrounds is that of their ids, so that no path and no order of arguments decides what an image shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray

from ..annotate.console import track
from ..annotate.errors import IrstkitError
from ..annotate.files import GrayImage, decode_image, pixel_hash
from ..datasets.readers import open_dataset
from ..datasets.records import Dataset, Record
from .regions import outline

PROCEDURAL = "procedural"
ID_LENGTH = 16
MAX_SCALE = 2.0
SURE = 0.6  # below this probability a predicted scene is taken for unknown


@dataclass(frozen=True)
class Background:
    """One background in the store.

    ``id`` hashes the source, ``used`` the pixels that are drawn from (targets removed); ``group`` is the
    smallest id among its near twins; ``offset`` counts bytes into the store's file; ``outline`` is the
    skyline (regions.py).
    """

    id: str
    used: str
    name: str
    group: str
    scene: str | None
    size: tuple[int, int]
    depth: int
    offset: int
    removed: int = 0
    outline: tuple[float, ...] | None = None
    labelled: bool = False


@dataclass
class Store:
    """Target-free backgrounds in one flat file, opened read-only by every worker.

    ``data`` is the file's content where it is sent to workers that do not see the file; ``colour`` counts the
    backgrounds whose source is in colour.
    """

    path: Path
    items: tuple[Background, ...]
    left_out: dict[str, int] = field(default_factory=dict)
    data: bytes | None = None
    colour: int = 0

    def read(self, item: Background) -> NDArray:
        """The (H, W) uint8 or uint16 pixels, memory-mapped; the file is opened once a process."""
        flat = self.__dict__.get("_flat")
        if flat is None:
            file = np.memmap(self.path, np.uint8, "r") if self.data is None else None
            flat = np.frombuffer(self.data or b"", np.uint8) if file is None else np.asarray(file)
            self.__dict__["_flat"] = flat
        wide = 2 if item.depth == 16 else 1
        part = flat[item.offset : item.offset + item.size[0] * item.size[1] * wide]
        return part.view("<u2" if wide == 2 else "u1").reshape(item.size)

    def __getstate__(self) -> dict:
        return {k: v for k, v in self.__dict__.items() if k != "_flat"}


@dataclass(frozen=True)
class Source:
    """What ``--backgrounds PATH[:SCHEME/PART]`` or ``--exclude`` names."""

    path: Path
    split: str | None

    @classmethod
    def parse(cls, text: str | Path) -> Source:
        """The last colon parts path and split, where what follows is no path of its own."""
        if Path(text).exists():
            return cls(Path(text), None)
        head, colon, tail = str(text).rpartition(":")
        if colon and head and Path(head).exists():
            return cls(Path(head), tail)
        return cls(Path(text), None)


def gather(
    sources: Sequence[Source],
    store_path: Path,
    *,
    size: int,
    exclude: Sequence[Source] = (),
    include_test: bool = False,
    scenes: dict[tuple[str, str], str] | None = None,
    predict: bool = False,
) -> Store:
    """Read, clean and store the backgrounds.

    Of a data set with lists, the images of its test part are left out unless ``include_test``, and so is
    every near twin of one, in whatever folder; ``exclude`` names further lists. ``scenes`` are labels (see
    :func:`read_scenes`); with ``predict`` the shipped network is asked where there is none.

    Raises
    ------
    IrstkitError
        For a missing or empty folder, an image that cannot be decoded, or when nothing is left.
    """
    from ..datasets.twins import SIDE, THRESHOLD, thumbnail, twin_groups_of

    wanted: list[tuple[Dataset, Record]] = []
    banned: dict[tuple[Path, int | None], Record] = {}
    for source in sources:
        data = open_dataset(source.path)
        if source.split:
            chosen = data.part(source.split)
            scheme = data.full_split(source.split).rpartition("/")[0] if source.split != "all" else ""
        else:
            chosen, scheme = data.part("all"), data.default_scheme or ""
        wanted += [(data, record) for record in chosen]
        if not include_test:
            for record in data:
                if record.splits.get(scheme, "").startswith("test"):
                    banned[record.image.resolve(), record.video_frame] = record
    for source in exclude:
        data = open_dataset(source.path)
        for record in data.part(source.split or "all", check=False):
            banned[record.image.resolve(), record.video_frame] = record
    left_out: dict[str, int] = {}
    net, colour = None, 0

    def leave(reason: str) -> None:
        left_out[reason] = left_out.get(reason, 0) + 1

    banned_vectors = [
        thumbnail(record.read_image()) for record in track(list(banned.values()), "Reading test images")
    ]
    against = np.array(banned_vectors).reshape(len(banned_vectors), SIDE * SIDE)
    found: dict[str, tuple[Background, NDArray]] = {}
    offset = 0
    with _created(store_path) as stream:
        for data, record in track(wanted, "Preparing backgrounds"):
            if (record.image.resolve(), record.video_frame) in banned:
                leave("test image")
                continue
            need = size / (min(record.size) or 1)
            if need > MAX_SCALE:
                leave(f"smaller than {size / MAX_SCALE:.0f} px")
                continue
            image, coloured = _gray(record)
            vector = thumbnail(image)
            if len(against) and float((against @ vector).max()) > THRESHOLD:
                leave("twin of a test image")
                continue
            identity = pixel_hash(image)[:ID_LENGTH]
            if identity in found:
                leave("same pixels as another")
                continue
            colour += coloured
            clean, removed = _clean(record, image)
            offset += -offset % 2
            stream.seek(offset)
            depth = 16 if clean.dtype == np.uint16 else 8
            stream.write(np.ascontiguousarray(clean).astype("<u2" if depth == 16 else "u1").tobytes())
            scene = _scene(data, record, scenes)
            labelled = scene is not None
            if scene is None and predict:
                if net is None:
                    from .learn import SceneNet

                    net = SceneNet()
                guess, sure = net.predict(clean)
                scene = guess if sure >= SURE else None
            item = Background(
                identity,
                pixel_hash(clean)[:ID_LENGTH],
                f"{data.root.resolve().name}/{record.id}",
                identity,
                scene,
                (clean.shape[0], clean.shape[1]),
                depth,
                offset,
                removed,
                outline(clean, scene),
                labelled,
            )
            found[identity] = item, vector
            offset += clean.nbytes
    if not found:
        told = ", ".join(f"{n} {reason}" for reason, n in left_out.items()) or "no image found"
        raise IrstkitError(
            f"no background is left of {len(wanted)} images: {told}",
            path=sources[0].path,
            hint=f"crops are {size} px, backgrounds at least {size / MAX_SCALE:.0f} px high and wide",
        )
    order = sorted(found)
    groups = twin_groups_of(np.array([found[k][1] for k in order]))
    items = []
    for k, identity in enumerate(order):
        item = found[identity][0]
        items.append(Background(**{**vars(item), "group": order[groups[k]]}))
    return Store(store_path, tuple(items), left_out, colour=colour)


@contextmanager
def _created(path: Path) -> Iterator[BinaryIO]:
    """A new file, whose troubles (no room, no right to write) are told with its name."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as stream:
            yield stream
    except OSError as error:
        raise IrstkitError(f"cannot write: {error.strerror or error}", path=path) from error


def refuse_inside(out: Path, backgrounds: Sequence[str | Path] | str | Path) -> None:
    """Refuse an output within a background folder: the next run would take what is written for backgrounds.

    Raises
    ------
    IrstkitError
        Naming both.
    """
    for text in [backgrounds] if isinstance(backgrounds, (str, Path)) else backgrounds:
        source = Source.parse(text).path
        if str(text) != PROCEDURAL and source.is_dir() and out.resolve().is_relative_to(source.resolve()):
            raise IrstkitError(
                f"the output lies inside the backgrounds' folder {source}: it would be taken for backgrounds",
                path=out,
                hint="choose an --out outside it",
            )


def _gray(record: Record) -> tuple[GrayImage, bool]:
    """A record's image, and whether its file is in colour."""
    if record.video_frame is None:
        decoded = decode_image(record.image)
        if decoded.gray.shape == record.size:
            return decoded.gray, not decoded.gray_equal
    return record.read_image(), False


def _clean(record: Record, image: GrayImage) -> tuple[NDArray, int]:
    from .removal import remove_targets

    if record.mask is not None:
        mask = record.read_mask()
    elif record.boxes is not None and len(record.boxes):
        mask = np.zeros(image.shape, dtype=bool)
        for x1, y1, x2, y2 in np.rint(record.boxes).astype(int).tolist():
            mask[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)] = True
    else:
        return image, 0
    if not mask.any():
        return image, 0
    count = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0] - 1
    return remove_targets(image, mask), count


def _scene(data: Dataset, record: Record, scenes: dict[tuple[str, str], str] | None) -> str | None:
    """The table's scene of a record: by the folder's name, by a data set's name that it begins with, by no name."""
    if scenes:
        root, file = data.root.resolve().name, record.image.name
        names = [root, *sorted({d for d, _ in scenes if d and root.startswith(d)}, key=len, reverse=True), ""]
        for name in names:
            if found := scenes.get((name, file)):
                return found
    return record.scene


def label_scenes(
    data: Dataset, records: Sequence[Record], scenes: dict[tuple[str, str], str]
) -> dict[str, str]:
    """``{record id: scene}`` of those that a table of :func:`read_scenes` knows."""
    found = {record.id: _scene(data, record, scenes) for record in records}
    return {id: scene for id, scene in found.items() if scene}


def read_scenes(path: Path, *, certain: bool = False) -> dict[tuple[str, str], str]:
    """Scene labels from a CSV file with the columns ``file`` and ``scene`` (and ``dataset``, a folder's name).

    With ``certain`` only rows are kept whose column ``confidence`` is ``high``.

    Raises
    ------
    IrstkitError
        Naming the file and line: a missing column, a scene that there is not.
    """
    import csv

    from ..annotate.files import read_bytes
    from .preset import SCENES

    try:
        reader = csv.DictReader(read_bytes(path).decode("utf-8-sig").splitlines())
        rows = list(reader)
    except UnicodeDecodeError as error:
        raise IrstkitError("not UTF-8 text", path=path) from error
    if not {"file", "scene"} <= set(reader.fieldnames or ()):
        raise IrstkitError("the columns 'file' and 'scene' are needed", path=path, where="line 1")
    out: dict[tuple[str, str], str] = {}
    for line, row in enumerate(rows, start=2):
        file, scene = row.get("file"), row.get("scene")
        if not file or not scene:
            raise IrstkitError("the columns 'file' and 'scene' are needed", path=path, where=f"line {line}")
        if scene not in SCENES:
            raise IrstkitError(
                f"no scene {scene!r}", path=path, where=f"line {line}", hint=f"there are: {', '.join(SCENES)}"
            )
        key = row.get("dataset") or "", Path(file).name
        if out.get(key, scene) != scene:
            raise IrstkitError(
                f"{file!r} is {scene} here, {out[key]} before", path=path, where=f"line {line}"
            )
        if not certain or row.get("confidence") == "high":
            out[key] = scene
    return out


def part_of(group: str, seed: int, splits: dict[str, float]) -> str:
    """The part of the split that a twin group falls into: by its hash and the seed, nothing else."""
    words = [int(group[k : k + 8], 16) for k in range(0, len(group), 8)]
    u = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(3, *words)))).random()
    total, run = sum(splits.values()), 0.0
    for part, share in splits.items():
        run += share / total
        if u < run:
            return part
    return list(splits)[-1]
