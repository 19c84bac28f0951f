"""One reader a published data set, read where it lies and as it was downloaded.

A reader is a pair of functions: ``match(probe) -> Match`` (does the layout fit, and by what is it told) and
``read(probe) -> Dataset``. Further ones come from packages with an entry point in the group
``irstkit.readers`` whose object has these two functions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path

from ...annotate.errors import IrstkitError
from ...annotate.files import IMAGE_SUFFIXES
from ..records import Dataset
from . import (
    coco_files,
    daub,
    drone_ir,
    folders,
    irdst,
    irstd_1k,
    nuaa_sirst,
    nudt_mirsdt,
    nudt_sirst,
    own,
    sirst_v2,
    sstnet,
    webdataset,
    yolo_folders,
)
from .probe import Match, Probe

__all__ = ["READERS", "Match", "Probe", "Reader", "open_dataset"]


@dataclass(frozen=True)
class Reader:
    """Recognises and reads one layout."""

    match: Callable[[Probe], Match]
    read: Callable[[Probe], Dataset]


READERS: dict[str, Reader] = {
    own.NAME: Reader(own.match, own.read),
    webdataset.NAME: Reader(webdataset.match, webdataset.read),
    nuaa_sirst.NAME: Reader(nuaa_sirst.match, nuaa_sirst.read),
    nudt_sirst.NAME: Reader(nudt_sirst.match, nudt_sirst.read),
    irstd_1k.NAME: Reader(irstd_1k.match, irstd_1k.read),
    sirst_v2.NAME: Reader(sirst_v2.match, sirst_v2.read),
    nudt_mirsdt.NAME: Reader(nudt_mirsdt.match, nudt_mirsdt.read),
    sstnet.DAUB: Reader(sstnet.match_daub, sstnet.read_daub),
    sstnet.IRDST: Reader(sstnet.match_irdst, sstnet.read_irdst),
    daub.NAME: Reader(daub.match, daub.read),
    irdst.NAME: Reader(irdst.match, irdst.read),
    coco_files.NAME: Reader(coco_files.match, coco_files.read),
    yolo_folders.NAME: Reader(yolo_folders.match, yolo_folders.read),
    drone_ir.NAME: Reader(drone_ir.match, drone_ir.read),
    folders.PAIRS: Reader(folders.match_pairs, folders.read_pairs),
    drone_ir.VIDEOS: Reader(drone_ir.match_videos, drone_ir.read_videos),
    folders.IMAGES: Reader(folders.match_images, folders.read_images),
}
"""In the order of asking: the most particular layout first."""


def open_dataset(path: str | Path, layout: str | None = None) -> Dataset:
    """Read the data set in the folder ``path``, recognising its layout (or by the one named).

    ``path`` may also be one COCO file, its images beside it.

    What is wrong with single images or lists is listed in ``Dataset.findings``; see ``Dataset.part``.

    Raises
    ------
    IrstkitError
        When there is no such folder, it is empty, is a synthetic set that is not finished, or no layout fits (with
        each one's reason).
    """
    root = Path(path)
    if not root.exists():
        raise IrstkitError("no such folder", path=root)
    if root.is_file() and root.suffix == ".json" and layout in (None, coco_files.NAME):
        home = root.parent.parent if root.parent.name == "annotations" else root.parent
        reader = Reader(lambda p: Match(True, ""), lambda p: coco_files.read_files(p, [root]))
        return _read(reader, Probe(home), Match(True, f"COCO: {root.name}"))
    if not root.is_dir():
        raise IrstkitError("is a file, the folder of a data set was expected", path=root)
    probe = Probe(root)
    if not probe.entries():
        raise IrstkitError("the folder is empty", path=root)
    if layout is not None:
        reader = _reader(layout)
        matched = reader.match(probe)
        if not matched.fits:
            raise IrstkitError(f"not a data set of the layout {layout!r}: {matched.why}", path=root)
        return _read(reader, probe, matched)
    if own.unfinished(probe):
        raise IrstkitError(
            "this synthetic set is not finished: it was interrupted, or is being made",
            path=root,
            hint="the `irstkit synth` command that began it, run again, finishes it",
        )
    reasons: dict[str, list[str]] = {}
    for name, reader in READERS.items():
        matched = reader.match(probe)
        if matched.fits:
            return _read(reader, probe, matched)
        reasons.setdefault(matched.why, []).append(name)
    for point in entry_points(group="irstkit.readers"):
        reader = _reader(point.name)
        matched = reader.match(probe)
        if matched.fits:
            return _read(reader, probe, matched)
        reasons.setdefault(matched.why, []).append(point.name)
    ours = all(name in READERS for names in reasons.values() for name in names)
    if ours and "no video" in reasons and (told := "no image in this folder or below") in reasons:
        raise IrstkitError(
            f"no data set layout fits ({told}, and no video)",
            path=root,
            hint=f"images are {' '.join(IMAGE_SUFFIXES)}",
        )
    text = "; ".join(f"{', '.join(names)}: {why}" for why, names in reasons.items())
    raise IrstkitError(f"no data set layout fits ({text})", path=root)


def _read(reader: Reader, probe: Probe, matched: Match) -> Dataset:
    data = reader.read(probe)
    if not data.records:
        errors = [f for f in data.findings if f.severity == "error"]
        first = f"; first of {len(errors)} errors: {errors[0]}" if errors else ""
        text = f"no image in this data set ({data.layout}: {matched.why}{first})"
        raise IrstkitError(text, path=probe.root)
    return replace(data, why=data.why or matched.why)


def _reader(name: str) -> Reader:
    if name in READERS:
        return READERS[name]
    points = {point.name: point for point in entry_points(group="irstkit.readers")}
    if name not in points:
        known = ", ".join([*READERS, *points])
        raise IrstkitError(f"no layout {name!r}", hint=f"there are: {known}")
    found = points[name].load()
    if not callable(getattr(found, "match", None)) or not callable(getattr(found, "read", None)):
        raise IrstkitError(f"the reader {name!r} ({points[name].value}) has no functions match and read")
    return Reader(found.match, found.read)
