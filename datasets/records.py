"""Records: what is known of each image, and the data set as a list of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, overload

import cv2
import numpy as np
from numpy.typing import NDArray

from ..annotate.boxes import Boxes, mask_to_boxes
from ..annotate.errors import IrstkitError
from ..annotate.files import GrayImage, binarise, read_image, read_mask_values
from ..annotate.video import read_frame


def _wxh(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"


@dataclass(frozen=True, eq=False)
class Record:
    """One image on disk and what is known of it.

    Attributes
    ----------
    id
        Posix path without suffix, relative to the data set's root (published sets: relative to their image
        folder, as their lists name it: ``Misc_1``).
    image, mask
        Files; ``mask`` is None for box-only or unlabelled images.
    boxes
        (N, 4) float64 half-open xyxy where the label file has boxes, else None (see :meth:`read_boxes`).
    track_ids
        One per box, or None.
    size
        (height, width) of the image file.
    bit_depth
        8 or 16.
    sequence, frame
        Name of the sequence and number of the frame in it, or None.
    splits
        ``{scheme: part}``, for example ``{"50_50": "train", "idx_427": "val"}``.
    source
        ``real`` or ``synthetic``.
    scene
        city, field, highlight, sea, cloud, or None.
    attributes
        Whatever else is known; ``mask_size`` (h, w) says that the published mask has another size, known
        and documented, and is brought to the image's size by nearest neighbour.
    video_frame
        Where ``image`` is a video: which of its frames this is, from 0. None for image files.
    """

    id: str
    image: Path
    mask: Path | None = None
    boxes: Boxes | None = None
    track_ids: tuple[int, ...] | None = None
    size: tuple[int, int] = (0, 0)
    bit_depth: int = 8
    sequence: str | None = None
    frame: int | None = None
    splits: Mapping[str, str] = field(default_factory=dict)
    source: Literal["real", "synthetic"] = "real"
    scene: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    video_frame: int | None = None

    @property
    def suffix(self) -> str:
        """Of the image as a file by itself: a video's frame would be a PNG."""
        return self.image.suffix if self.video_frame is None else ".png"

    def read_image(self) -> GrayImage:
        """The image, (H, W) uint8 or uint16 gray; a video is decoded once, not once a frame."""
        if self.video_frame is None:
            image = read_image(self.image)
        else:
            image = read_frame(self.image, self.video_frame)
        if image.shape != self.size:
            raise IrstkitError(
                f"the image is {_wxh(image.shape)}, {_wxh(self.size)} was expected", path=self.image
            )
        return image

    def read_mask(self, *, threshold: int = 127) -> NDArray[np.bool_]:
        """The mask, (H, W) boolean, of the image's size.

        Raises
        ------
        IrstkitError
            When there is no mask or it is of another size than the image (masks are never stretched, but
            for the one published defect that a reader names in ``attributes["mask_size"]``).
        """
        if self.mask is None:
            raise IrstkitError(f"no mask for the image {self.id!r}", path=self.image)
        values = read_mask_values(self.mask)
        if values.shape != self.size:
            if tuple(self.attributes.get("mask_size", ())) != values.shape:
                raise IrstkitError(
                    f"the mask is {_wxh(values.shape)}, its image {_wxh(self.size)}",
                    path=self.mask,
                )
            values = np.asarray(
                cv2.resize(values, self.size[::-1], interpolation=cv2.INTER_NEAREST_EXACT), dtype=np.uint8
            )
        return binarise(values, threshold=threshold)

    def read_boxes(self) -> Boxes:
        """The boxes of the label file, or those of the mask's 8-connected components."""
        return self.boxes if self.boxes is not None else mask_to_boxes(self.read_mask())


@dataclass(frozen=True)
class Finding:
    """Something noticed about a data set.

    Attributes
    ----------
    severity
        ``error``: what it is about cannot be used; ``warning``: usable, but one should know; ``info``.
    kind
        A short name for scripts: ``mask-missing``, ``mask-size``, ``list-entry``, ...
    message
        What is wrong, with the expected and the actual value.
    path, where
        File and place in it (a JSON path or a line), as text.
    record
        Id of the record it is about; None: the whole data set.
    split
        ``SCHEME/PART`` when it is about a list: only who asks for that part is concerned.
    """

    severity: Literal["error", "warning", "info"]
    kind: str
    message: str
    path: str | None = None
    where: str | None = None
    record: str | None = None
    split: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON: every field but those that are not set."""
        return {key: value for key, value in vars(self).items() if value is not None}

    def __str__(self) -> str:
        place = ": ".join(part for part in (self.path, self.where) if part)
        return f"{place}: {self.message}" if place else self.message


@dataclass(frozen=True, eq=False)
class Dataset(Sequence[Record]):
    """A list of records, where it lies and how it was recognised.

    Attributes
    ----------
    root, layout
        Where it lies, and the name of the reader.
    records
        In natural order (frame 10 after frame 2).
    default_scheme
        The split scheme meant where none is named.
    findings
        What the reader noticed while listing (missing masks, unknown list entries, ...). Records with an
        error, and lists with one, are refused where they are used, not where they are listed.
    unions
        Lists that only join others: ``{"idx_427/trainval": ("train", "val")}``.
    why
        By what the layout was recognised.
    """

    root: Path
    layout: str
    records: tuple[Record, ...]
    default_scheme: str | None = None
    findings: tuple[Finding, ...] = field(default=())
    unions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    why: str = ""

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...
    def __getitem__(self, index):
        return self.records[index]

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def schemes(self) -> dict[str, dict[str, int]]:
        """``{scheme: {part: number of images}}``."""
        out: dict[str, dict[str, int]] = {}
        for record in self.records:
            for scheme, part in record.splits.items():
                parts = out.setdefault(scheme, {})
                parts[part] = parts.get(part, 0) + 1
        return {scheme: dict(sorted(out[scheme].items(), key=_part_order)) for scheme in sorted(out)}

    def split_names(self) -> list[str]:
        """Every ``SCHEME/PART`` there is, joined lists last in their scheme."""
        names = []
        for scheme, parts in self.schemes().items():
            names += [f"{scheme}/{part}" for part in parts]
            names += [name for name in self.unions if name.rpartition("/")[0] == scheme]
        return names

    def full_split(self, split: str) -> str:
        """``PART`` as ``SCHEME/PART`` in the default scheme; ``SCHEME/PART`` and ``all`` as they are."""
        if "/" in split or split == "all" or self.default_scheme is None:
            return split
        return f"{self.default_scheme}/{split}"

    def part(self, split: str, *, check: bool = True) -> list[Record]:
        """The records of ``SCHEME/PART`` (``PART`` alone means the default scheme; ``all`` means all).

        Raises
        ------
        IrstkitError
            Naming the splits there are, when there is no such one or it is empty; naming the first error
            (and how many more) when something about these records or this list is wrong and ``check``.
        """
        chosen = list(self.records)
        if split != "all":
            scheme, _, part = self.full_split(split).rpartition("/")
            parts = self.unions.get(f"{scheme}/{part}", (part,))
            chosen = [r for r in self.records if r.splits.get(scheme) in parts]
        if not chosen:
            known = ", ".join(self.split_names()) or "none"
            raise IrstkitError(f"no split {split!r} here", path=self.root, hint=f"there are: {known}")
        if check:
            self.require_clean(chosen, split)
        return chosen

    def require_clean(self, records: Iterable[Record] | None = None, split: str | None = None) -> None:
        """Raise the first listed error that concerns ``records`` (None: all) or the list ``split``.

        Errors about the data set as a whole (a mask without image) concern every use of it.
        """
        ids = {r.id for r in (self.records if records is None else records)}
        lists = set()
        if split is not None and split != "all":
            scheme, _, part = self.full_split(split).rpartition("/")
            lists = {f"{scheme}/{p}" for p in (part, *self.unions.get(f"{scheme}/{part}", ()))}
        errors = [
            f
            for f in self.findings
            if f.severity == "error"
            and ((f.record in ids) if f.record is not None else (f.split is None or f.split in lists))
        ]
        if errors:
            more = f"{len(errors) - 1} more; " if len(errors) > 1 else ""
            raise IrstkitError(str(errors[0]), hint=f"{more}irstkit data info {self.root} lists all of it")


def _part_order(item: tuple[str, int]) -> tuple[int, str]:
    order = ("train", "val", "test")
    return (order.index(item[0]) if item[0] in order else len(order)), item[0]


def split_hash(ids: Iterable[str]) -> str:
    """First 12 hex digits of the sha256 of the sorted ids joined by newlines: printed with every result."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()[:12]
