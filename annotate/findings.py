"""Findings: what is wrong in a label file, where, and what it would do to a metric."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .errors import IrstkitError

Severity = Literal["error", "warning", "info"]

KINDS: dict[str, tuple[Severity, str]] = {
    # files and structure
    "unreadable": ("error", "nothing of the file can be used"),
    "not-json": ("error", "nothing of the file can be used"),
    "missing-key": ("error", "readers stop, or take a default of their own"),
    "wrong-type": ("error", "readers stop, or compare text with numbers and match nothing"),
    "not-finite": ("error", "a box of NaN or infinity has IoU 0 or NaN with everything"),
    "bad-line": ("error", "readers stop here, or take the line's numbers for other ones"),
    "empty-line": ("warning", "most readers skip it, some stop"),
    "duplicate-key": ("error", "only the last value of the key is seen"),
    "duplicate-entry": ("error", "one image is counted twice"),
    "no-images": ("error", "every metric is undefined"),
    "no-targets": ("warning", "recall and AP are undefined (COCO reports -1)"),
    "encoding": ("error", "the text cannot be read"),
    # ids
    "duplicate-image-id": ("error", "the later image hides the earlier one; its targets count for the other"),
    "duplicate-annotation-id": ("error", "only one of the targets can be matched"),
    "duplicate-category-id": ("error", "the later category hides the earlier one"),
    "zero-annotation-id": ("error", "COCO's matcher takes 0 for unmatched: a perfect hit scores 0"),
    "id-not-counting-from-1": ("warning", "allowed, but 0 or negative ids confuse matchers"),
    "dangling-image": ("error", "the target belongs to no image: recall loses it or readers stop"),
    "dangling-category": ("error", "the target belongs to no class and is left out of every class's AP"),
    "unused-category": ("info", "its AP is -1 and must not enter a mean"),
    # boxes
    "box-empty": ("error", "a box without area can never be matched: recall is below 1 for any detector"),
    "box-negative": ("error", "a negative side gives IoU 0 or a negative union"),
    "box-outside": ("error", "the target is not in the image and can never be matched"),
    "box-leaves": ("warning", "the part outside cannot be found: IoU with a perfect detection is below 1"),
    "box-inverted": ("error", "x2 <= x1 or y2 <= y1: readers drop it or swap the corners"),
    "box-duplicate": ("warning", "two targets at one place: one detection can hit only one of them"),
    "fraction-range": ("warning", "fractions outside 0..1 lie outside the image, or are pixels by mistake"),
    "class-range": ("error", "the class is not of the list: readers stop or drop the target"),
    "wrong-frame": (
        "error",
        "the box was made for an image of another size: IoU is 0 though the target is there",
    ),
    "object-without-box": ("warning", "no target: readers that expect a box stop or invent one"),
    "frame-without-box": ("info", "a frame without target: only false alarms can happen in it"),
    "extra-label": ("warning", "labels beyond the last frame: ignored"),
    "missing-label": ("warning", "frames without a label line are taken for target-free"),
    # segmentation
    "segmentation-missing": ("warning", "box metrics work; masks cannot be made"),
    "segmentation-empty": ("warning", "box metrics work; pycocotools raises when masks are asked for"),
    "segmentation-type": ("error", "neither RLE nor polygons: masks cannot be made"),
    "polygon-short": ("error", "under 3 points: pycocotools raises, and takes 4 numbers for a box"),
    "polygon-odd": ("error", "an odd number of coordinates"),
    "polygon-no-area": ("error", "the polygon covers no pixel: IoU 0 with everything"),
    "polygon-outside": ("error", "the polygon leaves the image"),
    "rle-damaged": ("error", "the runs cannot be decoded; pycocotools may crash on them"),
    "rle-size": ("error", "the RLE is of another size than its image: pixels land elsewhere"),
    "rle-empty": ("error", "a mask without pixel can never be matched"),
    "box-against-mask": ("warning", "the box is not that of the pixels: box and mask metrics disagree"),
    "area-missing": ("warning", "COCO's size ranges need it: pycocotools stops without"),
    "area-against-mask": ("warning", "COCO sorts targets into size ranges by this number"),
    "area-negative": ("error", "the target falls in no size range and is ignored"),
    "iscrowd": ("warning", "crowd targets are ignored: misses are free and false alarms inside do not count"),
    # images on disk
    "path-leaves-root": ("error", "the path points outside the data set and is not followed"),
    "image-missing": ("error", "the image cannot be evaluated; its targets are all missed"),
    "image-damaged": ("error", "the image cannot be decoded"),
    "image-colour": (
        "info",
        "channels differ: irstkit weighs them by BT.601, other tools may take one of them",
    ),
    "image-size": ("error", "boxes and masks are placed for another size"),
    "duplicate-file-name": (
        "error",
        "one image, two entries: half of its targets are false alarms of the other",
    ),
    "image-bad-size": ("error", "width and height are not positive whole numbers"),
    "label-without-image": ("error", "the targets belong to no image"),
    "image-without-label": ("warning", "taken for target-free: its targets turn hits into false alarms"),
    "order": ("warning", "frames are not in numeric order: clips mix them up"),
    # masks
    "mask-gray": ("warning", "values between 0 and 255: the threshold decides boxes and pixels"),
    "mask-colour": ("error", "channels differ: which one is the mask?"),
    "mask-empty": ("info", "a mask without target: only false alarms can happen in it"),
    "mask-binary-0-1": ("info", "0 and 1 instead of 0 and 255: > 127 would see nothing (irstkit reads them)"),
    "mask-size": ("error", "mask and image differ in size: pixels cannot be compared"),
    "pieces": ("info", "one target in several pieces: component-based metrics count each piece"),
    "eflnet-holes": (
        "info",
        "the convention 'eflnet' gives holes boxes of their own, which no detector finds",
    ),
}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong (or worth knowing).

    ``path`` is the file, ``where`` the place in it (``annotations[3].bbox``, ``line 7``); ``kind`` is one of
    :data:`KINDS`, which also tells the usual severity and what the defect does to a metric (``effect``).
    """

    severity: Severity
    kind: str
    message: str
    path: str | None = None
    where: str | None = None

    @property
    def effect(self) -> str:
        """What it would do to a metric."""
        return KINDS[self.kind][1] if self.kind in KINDS else ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "severity": self.severity,
            "kind": self.kind,
            "path": self.path,
            "where": self.where,
            "message": self.message,
            "effect": self.effect,
        }

    def __str__(self) -> str:
        place = ": ".join(p for p in (self.path, self.where) if p)
        return f"{self.severity}: {place}: {self.message} [{self.kind}]"


class Findings(list[Finding]):
    """A list of findings of one file."""

    def __init__(self, path: str | Path | None = None, items: Iterable[Finding] = ()) -> None:
        super().__init__(items)
        self.path = None if path is None else str(path)

    def note(
        self, kind: str, message: str, where: str | None = None, *, path: str | Path | None = None
    ) -> None:
        """Append a finding of a known kind."""
        self.append(Finding(KINDS[kind][0], kind, message, self.path if path is None else str(path), where))

    @property
    def errors(self) -> list[Finding]:
        """Those that make the labels unusable."""
        return [f for f in self if f.severity == "error"]


def refuse_errors(findings: Iterable[Finding], path: str | Path) -> None:
    """Raise for the first error, saying how many there are and how to see them all."""
    errors = [f for f in findings if f.severity == "error"]
    if errors:
        first = errors[0]
        more = f" and {len(errors) - 1} more errors" if len(errors) > 1 else ""
        raise IrstkitError(
            f"{first.message}{more}",
            path=first.path or path,
            where=first.where,
            hint=f"irstkit annotate check {path} lists all",
        )
