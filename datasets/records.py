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

    def read_image(self) -> GrayImage:
        """The image, (H, W) uint8 or uint16 gray."""
        image = read_image(self.image)
        if image.shape != self.size:
            raise IrstkitError(f"the image is {image.shape}, {self.size} was expected", path=self.image)
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
                    f"the mask is {values.shape[1]}x{values.shape[0]}, its image {self.size[1]}x{self.size[0]}",
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
    """Something noticed about a data set; ``severity`` is ``error``, ``warning`` or ``info``."""

    severity: Literal["error", "warning", "info"]
    kind: str
    message: str
    path: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"severity": self.severity, "kind": self.kind, "path": self.path, "message": self.message}


@dataclass(frozen=True, eq=False)
class Dataset(Sequence[Record]):
    """A list of records, where it lies and how it was recognised.

    ``layout`` is the reader's name, ``default_scheme`` the split scheme meant where none is named, and
    ``findings`` what the reader noticed while listing (missing masks, unknown list entries, ...).
    """

    root: Path
    layout: str
    records: tuple[Record, ...]
    default_scheme: str | None = None
    findings: tuple[Finding, ...] = field(default=())

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
        return out

    def part(self, split: str) -> list[Record]:
        """The records of ``SCHEME/PART`` (``PART`` alone means the default scheme; ``all`` means all).

        Raises
        ------
        IrstkitError
            Naming the splits there are, when there is no such one or it is empty.
        """
        if split == "all":
            return list(self.records)
        scheme, slash, part = split.rpartition("/")
        if not slash:
            scheme = self.default_scheme or ""
        chosen = [r for r in self.records if r.splits.get(scheme) == part]
        if not chosen:
            known = ", ".join(f"{s}/{p}" for s, parts in self.schemes().items() for p in parts) or "none"
            raise IrstkitError(f"no split {split!r} here", path=self.root, hint=f"there are: {known}")
        return chosen


def split_hash(ids: Iterable[str]) -> str:
    """First 12 hex digits of the sha256 of the sorted ids joined by newlines: printed with every result."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()[:12]
