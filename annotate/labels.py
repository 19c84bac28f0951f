"""What every label format is read into and written from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from .boxes import Boxes, as_boxes
from .errors import IrstkitError
from .findings import Findings
from .masks import Instance
from .scan import DEFAULT_RULE, MaskRule

Box = tuple[float, float, float, float]


@dataclass(eq=False)
class Label:
    """One target of an image.

    ``box`` is half-open xyxy in pixels; ``category`` an index into the set's names; ``instance`` the pixels
    where the format has them, ``rle`` their encoding where it is at hand already; ``extra`` what else a COCO
    annotation holds and is kept; ``parent`` the index of the target that a hole's box belongs to (eflnet).
    """

    box: Box
    category: int = 0
    instance: Instance | None = None
    rle: dict[str, Any] | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    parent: int | None = None

    @property
    def hole(self) -> bool:
        """Whether this is the box of a hole in another target (convention ``eflnet``), not a target."""
        return self.parent is not None or (self.extra.get("attributes") or {}).get("contour") == "hole"


@dataclass(frozen=True)
class MaskFacts:
    """What a mask file held: targets by the rule and by ``> 0``, and whether it has gray values."""

    components: int
    holes: int
    gray: bool
    above_zero: int
    removed: int = 0
    merged: int = 0


@dataclass(eq=False)
class LabelledImage:
    """One image and its targets: ``name`` as the format gives it (posix), ``size`` (height, width) or None."""

    name: str
    size: tuple[int, int] | None
    labels: list[Label]
    extra: dict[str, Any] = field(default_factory=dict)
    facts: MaskFacts | None = None

    @property
    def boxes(self) -> Boxes:
        """(N, 4) half-open xyxy."""
        return as_boxes([label.box for label in self.labels])

    def known_size(self) -> tuple[int, int]:
        """(height, width), or an error that says how to give it."""
        if self.size is None:
            raise IrstkitError(
                f"the size of the image {self.name!r} is not in the labels",
                hint="--images DIR takes it from the files, --size WxH gives one for all",
            )
        return self.size


@dataclass(eq=False)
class LabelSet:
    """Labels of many images, in order; ``images`` may be read as they are asked for (masks are)."""

    images: Iterable[LabelledImage]
    count: int | None
    categories: Sequence[str] = ("target",)
    info: dict[str, Any] = field(default_factory=dict)
    findings: Findings = field(default_factory=Findings)
    raw: dict[str, Any] | None = None  # a COCO document's own keys (info, licenses, categories)


@dataclass(frozen=True)
class ReadOptions:
    """What a reader may need to be told.

    ``rule`` how targets come from masks; ``images`` the folder that names and sizes are taken from; ``size``
    (height, width) of all images where no file tells; ``side`` of a box around a centre point; ``columns`` of
    centre points; ``frames`` the folder that a video's frames are written to; ``workers`` processes;
    ``rle`` has masks encoded where they are read (in the workers); ``beside`` the path whose neighbours
    (images, masks) belong to the labels, when that is not the labels' own (a repaired copy).
    """

    rule: MaskRule = DEFAULT_RULE
    images: Path | None = None
    size: tuple[int, int] | None = None
    side: float = 8.0
    columns: str = "auto"
    frames: Path | None = None
    workers: int = 1
    rle: bool = False
    beside: Path | None = None


@dataclass(frozen=True)
class WriteOptions:
    """What a writer may be told.

    ``digits`` of YOLO's fractions; ``polygons`` instead of RLE in COCO; ``rectangles`` paints boxes where a
    mask is wanted and the source has no pixels; ``prefix`` of the paths in a list.
    """

    overwrite: bool = False
    digits: int = 10
    polygons: bool = False
    rectangles: bool = False
    prefix: str = ""


@dataclass(frozen=True)
class Format:
    """A label format: what it is called, how it is recognised, read, written and checked.

    ``folder``: it is written as a folder (else as one file). ``check(path, options)`` gives every problem.
    """

    name: str
    summary: str
    read: Callable[[Path, ReadOptions], LabelSet] | None = None
    write: Callable[[LabelSet, Path, WriteOptions], None] | None = None
    check: Callable[[Path, ReadOptions], Findings] | None = None
    recognise: Callable[[Path], bool] = lambda path: False
    folder: bool = False


FORMATS = {
    "coco": "irstkit.annotate.formats.coco:FORMAT",
    "yolo": "irstkit.annotate.formats.yolo:FORMAT",
    "voc": "irstkit.annotate.formats.voc:NOMINAL",
    "sirst-v2": "irstkit.annotate.formats.voc:SHIFTED",
    "sstnet": "irstkit.annotate.formats.lists:SSTNET",
    "irdst": "irstkit.annotate.formats.lists:IRDST",
    "centres": "irstkit.annotate.formats.lists:CENTRES",
    "masks": "irstkit.annotate.formats.mask_folders:MASKS",
    "instances": "irstkit.annotate.formats.mask_folders:INSTANCES",
    "mirsdt": "irstkit.annotate.formats.sequences:MIRSDT",
    "video": "irstkit.annotate.formats.sequences:VIDEO",
}
"""The formats of irstkit; further ones come from the entry points ``irstkit.formats`` (a :class:`Format`)."""


def format_names() -> list[str]:
    """All formats, irstkit's own first."""
    return [*FORMATS, *sorted({e.name for e in entry_points(group="irstkit.formats")} - set(FORMATS))]


def get_format(name: str) -> Format:
    """The format of that name.

    Raises
    ------
    IrstkitError
        Naming those there are.
    """
    if name in FORMATS:
        module, _, attribute = FORMATS[name].partition(":")
        from importlib import import_module

        return getattr(import_module("." + module.removeprefix("irstkit.annotate."), __package__), attribute)
    for entry in entry_points(group="irstkit.formats"):
        if entry.name == name:
            found = entry.load()
            if not isinstance(found, Format):
                raise IrstkitError(f"the entry point {name!r} of irstkit.formats is not a Format: {found!r}")
            return found
    raise IrstkitError(f"no label format {name!r}", hint=f"there are: {', '.join(format_names())}")


def recognise(path: Path) -> Format:
    """The format that ``path`` is in, by its names and first bytes.

    Raises
    ------
    IrstkitError
        When there is no such path, or no format or several recognise it.
    """
    if not path.exists():
        raise IrstkitError("no such file or folder", path=path)
    found = [f for f in map(get_format, format_names()) if f.recognise(path)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise IrstkitError(
            "no label format is recognised here",
            path=path,
            hint=f"say it with --from: {', '.join(format_names())}",
        )
    names = " or ".join(f.name for f in found)
    raise IrstkitError(f"this may be {names}", path=path, hint="say which with --from")
