"""What readers share: a cached look at folders, records from file headers, pairing, and findings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from numpy.typing import ArrayLike

from ...annotate.boxes import as_boxes
from ...annotate.errors import IrstkitError
from ...annotate.files import IMAGE_SUFFIXES, natural_key, read_header
from ...annotate.findings import Finding as LabelFinding
from ..records import Finding, Record

MASK_SUFFIXES = ("", "_pixels0", "_mask", "_gt", "_label")
"""Endings under which a mask's name is looked for: ``a.png`` goes with ``a_pixels0.png``."""


@dataclass(frozen=True)
class Match:
    """Whether a layout fits a folder, and by what it was told."""

    fits: bool
    why: str


class Probe:
    """A folder and what lies in it, listed once however many readers ask."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._images: dict[str, dict[str, Path]] = {}
        self._entries: dict[str, list[str]] = {}

    def entries(self, folder: str = ".") -> list[str]:
        """Names in a sub-folder without hidden ones, sorted; empty when there is no such folder."""
        if folder not in self._entries:
            try:
                names = [entry.name for entry in (self.root / folder).iterdir()]
            except (FileNotFoundError, NotADirectoryError):
                names = []
            except OSError as error:
                reason = error.strerror or str(error)
                raise IrstkitError(f"cannot be read: {reason}", path=self.root / folder) from error
            self._entries[folder] = sorted(n for n in names if not n.startswith(".") and n != "__MACOSX")
        return self._entries[folder]

    def has(self, *folders: str) -> bool:
        """Whether all of these sub-folders exist."""
        return all((self.root / folder).is_dir() for folder in folders)

    def images(self, folder: str = ".", *, deep: bool = True) -> dict[str, Path]:
        """``{id: file}`` of the images under a sub-folder, in natural order.

        The id is the path below the folder without suffix. Where two files differ only in their suffix,
        the later one keeps it in its id.
        """
        key = f"{folder}|{deep}"
        if key not in self._images:
            base = self.root / folder
            found: list[str] = []
            for here, folders, names in os.walk(base):
                folders[:] = sorted(f for f in folders if deep and not f.startswith(".") and f != "__MACOSX")
                inner = os.path.relpath(here, base)
                prefix = "" if inner == "." else inner.replace(os.sep, "/") + "/"
                found += [
                    prefix + n
                    for n in names
                    if not n.startswith(".") and _split(n)[1].lower() in IMAGE_SUFFIXES
                ]
            out: dict[str, Path] = {}
            for name in sorted(found, key=natural_key):
                stem = _split(name)[0]
                out[name if stem in out else stem] = base / name
            self._images[key] = out
        return self._images[key]

    def show(self, path: Path) -> str:
        """``path`` relative to the root, as text for findings."""
        try:
            return path.relative_to(self.root).as_posix()
        except ValueError:
            return str(path)


def _split(name: str) -> tuple[str, str]:
    stem, dot, suffix = name.rpartition(".")
    return (stem, dot + suffix) if stem else (name, "")


class Builder:
    """Collects the records and findings of one data set while a reader lists it."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        self.records: list[Record] = []
        self.findings: list[Finding] = []

    def find(
        self,
        severity: Literal["error", "warning", "info"],
        kind: str,
        message: str,
        path: Path | None = None,
        **about: Any,
    ) -> None:
        """Note a finding; ``about``: where, record, split."""
        shown = None if path is None else self.probe.show(path)
        self.findings.append(Finding(severity, kind, message, shown, **about))

    def add(
        self,
        id: str,
        image: Path,
        mask: Path | None = None,
        *,
        known_mask_size: Callable[[str, tuple[int, int], tuple[int, int]], bool] | None = None,
        **known: Any,
    ) -> None:
        """Append a record with size and depth from the image's header, and compare the mask's size.

        ``known_mask_size(id, image size, mask size)`` tells a published defect from an unknown one.
        """
        try:
            header = read_header(image)
            size, depth = (header.height, header.width), header.bit_depth
        except IrstkitError as error:
            self.find("error", "image-unreadable", error.message, image, record=id)
            size, depth = (0, 0), 8
        attributes = dict(known.pop("attributes", {}))
        if mask is not None and size != (0, 0):
            try:
                header = read_header(mask)
            except IrstkitError as error:
                self.find("error", "mask-unreadable", error.message, mask, record=id)
            else:
                mask_size = (header.height, header.width)
                if mask_size != size:
                    text = f"the mask is {mask_size[1]}x{mask_size[0]}, its image {size[1]}x{size[0]}"
                    if known_mask_size is not None and known_mask_size(id, size, mask_size):
                        attributes["mask_size"] = mask_size
                        text += ": a known defect of the published set, read by nearest neighbour"
                        self.find("warning", "mask-size", text, mask, record=id)
                    else:
                        self.find("error", "mask-size", text, mask, record=id)
        self.records.append(
            Record(id=id, image=image, mask=mask, size=size, bit_depth=depth, attributes=attributes, **known)
        )

    def add_frame(self, id: str, video: Path, index: int, shape: tuple[int, ...], **known: Any) -> None:
        """Append a record that is a frame (from 0, also its number) of a video."""
        size = (shape[0], shape[1])
        self.records.append(
            Record(id=id, image=video, video_frame=index, frame=index, size=size, bit_depth=8, **known)
        )

    def adopt(
        self, findings: Iterable[LabelFinding], record: str | None = None, split: str | None = None
    ) -> None:
        """Take over what a label file's parser found."""
        for f in findings:
            path = None if f.path is None else self.probe.show(Path(f.path))
            self.findings.append(Finding(f.severity, f.kind, f.message, path, f.where, record, split))

    def set_boxes(self, boxes: ArrayLike, *, path: Path | None = None, at: int = -1) -> None:
        """Give the last record (or that at ``at``) its boxes: what leaves the image is listed and cut, what is
        outside dropped."""
        record = replace(self.records[at], boxes=as_boxes(boxes))
        self.records[at] = record
        assert record.boxes is not None
        if record.size == (0, 0) or not self.note_leaving(record, path=path):
            return
        height, width = record.size
        cut = record.boxes.clip(0, [width, height, width, height])
        inside = (cut[:, 2] > cut[:, 0]) & (cut[:, 3] > cut[:, 1])
        self.records[at] = replace(record, boxes=cut[inside])

    def note_leaving(self, record: Record, *, path: Path | None = None) -> bool:
        """List the boxes of a record that are not wholly in its image; whether there was one."""
        height, width = record.size
        found = False
        for x1, y1, x2, y2 in [] if record.boxes is None else record.boxes.tolist():
            if x1 >= 0 and y1 >= 0 and x2 <= width and y2 <= height:
                continue
            found = True
            gone = x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height
            box = f"{x1:g},{y1:g},{x2:g},{y2:g}"
            text = f"the box {box} {'lies outside' if gone else 'leaves'} the image of {width}x{height}"
            kind = "box-outside" if gone else "box-leaves"
            self.find("warning", kind, text, path or record.image, record=record.id)
        return found

    def add_pairs(
        self,
        images: Mapping[str, Path],
        masks: Mapping[str, Path],
        *,
        known_mask_size: Callable[[str, tuple[int, int], tuple[int, int]], bool] | None = None,
        splits: Mapping[str, Mapping[str, str]] | None = None,
        describe: Callable[[str], Mapping[str, Any]] = lambda id: {},
    ) -> None:
        """A record an image with the mask of its name; what has no partner becomes an error."""
        left = dict(masks)
        for id, image in images.items():
            mask = next((left.pop(id + end) for end in MASK_SUFFIXES if id + end in left), None)
            if mask is None:
                self.find("error", "mask-missing", "an image without mask", image, record=id)
            extra = dict(describe(id))
            self.add(
                id,
                image,
                mask,
                known_mask_size=known_mask_size,
                splits=dict((splits or {}).get(id, {})),
                **extra,
            )
        for path in left.values():
            self.find("error", "image-missing", "a mask without image", path)


def stems_like(ids: Iterable[str], fits: Callable[[str], bool]) -> tuple[int, int]:
    """How many ids fit a naming rule, and how many there are."""
    listed = list(ids)
    return sum(map(fits, listed)), len(listed)


def missing_folders(probe: Probe, folders: Sequence[str]) -> str:
    """``no folder masks/`` for the folders that are not there; empty text when all are."""
    lost = [f + "/" for f in folders if not probe.has(f)]
    return f"no {' and '.join(lost)}" if lost else ""
