"""Published lists that frames are made for: SSTNet's lists, COCO files, and the tracks that their boxes form."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from scipy.optimize import linear_sum_assignment

from ...annotate.console import note
from ...annotate.errors import IrstkitError
from ...annotate.files import IMAGE_SUFFIXES, natural_key
from ...annotate.formats.coco_load import leaves_root
from ...annotate.labels import LabelledImage, ReadOptions, recognise
from ...datasets.readers.sequences import frame_number
from ...datasets.readers.sstnet import published_size

Box = tuple[float, float, float, float]

_PART = re.compile(r"(?<![a-z])(train|val|test)(?![a-z])", re.IGNORECASE)
_KNOWN = re.compile(r"(DAUB|IRDST)", re.IGNORECASE)
LARGE = (742, 992)
JUMP = 120.0  # pixels between frames beyond which a box is another target's, where there are several


@dataclass(frozen=True, eq=False)
class Listed:
    """One sequence of a list.

    ``files`` are the frames' paths below images/, ``frames`` their numbers; ``tracks`` hold a box a position in
    ``frames``; ``source`` is the file that lists it, ``where`` the sequence's folder below images/.
    """

    name: str
    part: str
    size: tuple[int, int]
    files: tuple[str, ...]
    frames: tuple[int, ...]
    tracks: tuple[dict[int, Box], ...]
    source: str
    boxes: tuple[tuple[Box, ...], ...]


def read_listed(
    paths: Sequence[str | Path],
    size: tuple[int, int] | None = None,
    sequences: int | None = None,
    frames: int | None = None,
) -> tuple[Listed, ...]:
    """The sequences of lists, COCO files, or of a folder that holds lists, in their order.

    ``size`` (height, width) is that of frames whose size no file tells; DAUB's and IRDST's are known. At most
    ``sequences`` of each file and the first ``frames`` of each sequence are taken.

    Raises
    ------
    IrstkitError
        Naming file and line: a list with errors, frames without a number, a name that would leave the folder,
        two frames of one name, an unknown size.
    """
    out: list[Listed] = []
    for file in (f for p in paths for f in _files(Path(p))):
        out += _read(file, size, sequences, frames)
    seen: dict[str, str] = {}
    for listed in out:
        for name in listed.files:
            stem = PurePosixPath(name).with_suffix("").as_posix()
            if stem in seen:
                raise IrstkitError(f"the frame {name!r} is in {seen[stem]} too", path=listed.source)
            seen[stem] = listed.source
    if not out:
        raise IrstkitError("no sequence in it", path=paths[0])
    names = [listed.name for listed in out]
    if len(set(names)) < len(names):  # data1 of train and of test: named apart by their part
        out = [Listed(**{**vars(listed), "name": f"{listed.part}/{listed.name}"}) for listed in out]
    return tuple(out)


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise IrstkitError("no such file or folder", path=path)
    if path.is_file():
        return [path]
    found = [f for folder in (path, path / "annotations") for f in sorted(folder.glob("coco_*_*.txt"))]
    found.sort(key=lambda f: (_part(f) != "train", natural_key(f.name)))
    if not found:
        raise IrstkitError(
            "no list coco_train_NAME.txt in this folder", path=path, hint="name the list itself"
        )
    return found


def _part(path: Path) -> str:
    found = _PART.search(path.stem.replace("_", " ").replace("2017", " "))
    return {"train": "train", "val": "test", "test": "test"}[found[1].lower()] if found else "train"


def _read(
    path: Path, size: tuple[int, int] | None, sequences: int | None, frames: int | None
) -> list[Listed]:
    try:
        labels = recognise(path).read
    except IrstkitError as error:
        if error.hint is None:
            raise
        told = (
            "expected SSTNet's lists, a COCO file, or a folder of lists"  # here is no --from to say it with
        )
        raise IrstkitError(error.message, path=path, hint=told) from error
    if labels is None:
        raise IrstkitError("this format cannot be read", path=path)
    groups: dict[str, list[tuple[int, str, LabelledImage]]] = {}
    for image in labels(path, ReadOptions(size=None)).images:
        name = image.name.removeprefix("images/")
        pure = PurePosixPath(name)
        if leaves_root(name) or pure.suffix.lower() not in IMAGE_SUFFIXES:
            raise IrstkitError(f"cannot be the name of a frame to write: {image.name!r}", path=path)
        number = image.extra.get("frame", frame_number(pure.stem))
        if not isinstance(number, int) or not pure.parent.name:
            raise IrstkitError(
                f"the frame {image.name!r} belongs to no sequence", path=path,
                hint="expected FOLDER/NUMBER, a folder a sequence",
            )  # fmt: skip
        groups.setdefault(pure.parent.as_posix(), []).append((number, name, image))
    out = []
    for folder in sorted(groups, key=natural_key)[:sequences]:
        rows = sorted(groups[folder], key=lambda row: row[0])[:frames]
        numbers = tuple(row[0] for row in rows)
        if len(set(numbers)) < len(numbers):
            raise IrstkitError(f"a frame number of the sequence {folder!r} stands twice", path=path)
        boxes = tuple(tuple(label.box for label in row[2].labels) for row in rows)
        name = PurePosixPath(folder).name
        declared = {row[2].size for row in rows}
        if len(declared) > 1:
            raise IrstkitError(f"frames of two sizes in the sequence {folder!r}", path=path)
        shape = _size(path, name, boxes, size or declared.pop(), size is not None)
        files = tuple(row[1] for row in rows)
        out.append(Listed(name, _part(path), shape, files, numbers, link(boxes), path.name, boxes))
    return out


def _size(
    path: Path, name: str, boxes: tuple[tuple[Box, ...], ...], declared: tuple[int, int] | None, asked: bool
) -> tuple[int, int]:
    """(height, width): asked for, declared, or published; IRDST's larger one where the boxes go far beyond it."""
    known = _KNOWN.search(path.name)
    shape = declared or (published_size(known[1].upper(), name) if known else None)
    if shape is None:
        raise IrstkitError(
            f"the size of the frames of {name!r} is not known", path=path, hint="give --size WxH"
        )
    right = max((b[2] for row in boxes for b in row), default=0.0)
    foot = max((b[3] for row in boxes for b in row), default=0.0)
    if right > shape[1] + 2 or foot > shape[0] + 2:
        reach = f"reach {right:g}x{foot:g}"
        if known and not asked and shape != LARGE and right <= LARGE[1] and foot <= LARGE[0]:
            note(
                f"{path.name}: sequence {name}: boxes {reach}, so its frames are taken for "
                f"{LARGE[1]}x{LARGE[0]}, not {shape[1]}x{shape[0]}"
            )
            shape = LARGE
        else:
            raise IrstkitError(
                f"boxes of the sequence {name!r} {reach} in frames of {shape[1]}x{shape[0]}",
                path=path, hint="give --size WxH",
            )  # fmt: skip
    for b in (b for row in boxes for b in row):
        if b[0] >= shape[1] or b[1] >= shape[0] or b[2] <= 0 or b[3] <= 0:
            told = ", ".join(f"{v:g}" for v in b)
            raise IrstkitError(
                f"the box ({told}) of the sequence {name!r} lies outside its frames of {shape[1]}x{shape[0]}",
                path=path,
            )
    return shape


def link(boxes: Sequence[Sequence[Box]]) -> tuple[dict[int, Box], ...]:
    """Tracks through the boxes of successive frames: ``{position: box}`` each, in the order of appearance.

    One box a frame throughout is one target, however it jumps (DAUB, most of IRDST). Otherwise boxes go to the
    tracks that were there in the frame before by the assignment of least total distance between centres; what
    would jump by more than 120 pixels begins a track of its own.
    """
    most = max((len(row) for row in boxes), default=0)
    tracks: list[dict[int, Box]] = []
    live: list[int] = []
    for k, row in enumerate(boxes):
        if most == 1:
            if row:
                if not tracks:
                    tracks.append({})
                tracks[0][k] = row[0]
            continue
        taken: dict[int, int] = {}
        if live and row:
            cost = np.array([[_apart(tracks[t][max(tracks[t])], box) for box in row] for t in live])
            for i, j in zip(*linear_sum_assignment(cost), strict=True):
                if cost[i, j] <= JUMP:
                    taken[int(j)] = live[int(i)]
        now = []
        for j, box in enumerate(row):
            if j not in taken:
                taken[j] = len(tracks)
                tracks.append({})
            tracks[taken[j]][k] = box
            now.append(taken[j])
        live = now
    return tuple(tracks)


def _apart(a: Box, b: Box) -> float:
    return float(np.hypot((a[0] + a[2] - b[0] - b[2]) / 2, (a[1] + a[3] - b[1] - b[3]) / 2))
