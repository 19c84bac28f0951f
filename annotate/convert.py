"""Any label format to any other: read, count, write."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from .console import track
from .errors import IrstkitError
from .files import atomic_folder, refuse_existing, write_atomic
from .findings import Findings
from .labels import Format, LabelledImage, LabelSet, ReadOptions, WriteOptions, get_format, recognise
from .parallel import usable_cores
from .scan import MaskRule

FEW = 2000
"""Up to so many masks one process is faster than starting others."""


@dataclass
class Summary:
    """What a conversion read and wrote, and what the rule for masks decided."""

    out: str
    source_format: str
    format: str
    images: int = 0
    boxes: int = 0
    without_target: int = 0
    rule: dict[str, Any] | None = None
    targets: int = 0
    holes: int = 0
    gray_masks: int = 0
    gray_masks_that_differ: int = 0
    targets_above_zero: int = 0
    merged: int = 0
    removed: int = 0
    gray_names: list[str] = field(default_factory=list)
    findings: dict[str, int] = field(default_factory=dict)

    def add(self, image: LabelledImage) -> None:
        """Count one image."""
        self.images += 1
        self.boxes += len(image.labels)
        self.without_target += not image.labels
        facts = image.facts
        if facts is None:
            self.targets += sum(not label.hole for label in image.labels)
            self.holes += sum(label.hole for label in image.labels)
            return
        self.targets += facts.components
        self.holes += facts.holes
        self.targets_above_zero += facts.above_zero
        self.merged += facts.merged
        self.removed += facts.removed
        if facts.gray:
            self.gray_masks += 1
            self.gray_masks_that_differ += facts.above_zero != facts.components
            self.gray_names.append(image.name)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        what = "masks" if self.rule is not None else "images"
        holes = f" ({self.targets} targets and {self.holes} boxes of holes)" if self.holes else ""
        out = [
            f"{self.images} {what}, {self.boxes} boxes{holes}, {self.without_target} {what} without target"
        ]
        if self.rule is not None and self.gray_masks:
            out.append(
                f"{self.gray_masks} masks hold gray values; > {self.rule['threshold']} gives {self.targets} "
                f"targets in all, > 0 would give {self.targets_above_zero} "
                f"({self.gray_masks_that_differ} masks would have another number)"
            )
        if self.merged or self.removed:
            out.append(
                f"{self.targets} components: {self.merged} merged into others, {self.removed} left out"
            )
        if self.findings:
            kinds = ", ".join(f"{count} {kind}" for kind, count in self.findings.items())
            out.append(f"noticed while reading: {kinds} (irstkit annotate check lists them)")
        out.append(f"{self.format}: {self.out}")
        return out


def choose_workers(workers: int | None, count: int) -> int:
    """Processes for ``count`` masks: one a core for many, one for few, unless a number is given."""
    if workers is not None:
        return workers
    return usable_cores() if count > FEW else 1


def convert(
    source: str | Path,
    out: str | Path,
    *,
    to: str,
    source_format: str | None = None,
    read: ReadOptions = ReadOptions(),  # noqa: B008  (frozen)
    write: WriteOptions = WriteOptions(),  # noqa: B008  (frozen)
) -> Summary:
    """Convert labels; nothing is written unless everything can be read.

    Parameters
    ----------
    source, out
        Files or folders, as the formats have them.
    to, source_format
        Names of formats; without ``source_format`` it is recognised.

    Raises
    ------
    IrstkitError
        For the first error in the source, an output that exists, or content that ``to`` cannot carry.
    """
    source, out = Path(source), Path(out)
    target = get_format(to)
    if target.write is None:
        raise IrstkitError(f"the format {to!r} can be read only")
    refuse_existing(out, overwrite=write.overwrite, folder=target.folder)
    origin = get_format(source_format) if source_format else recognise(source)
    if origin.read is None:
        raise IrstkitError(f"the format {origin.name!r} can be written only")
    if out.resolve() == source.resolve():
        raise IrstkitError("the output is the source", path=out)
    if origin.name in ("masks", "irdst", "mirsdt"):
        read = replace(read, rle=to == "coco" and not write.polygons)
    elif read.rule.min_area or read.rule.merge_distance:
        raise IrstkitError(
            f"minimum area and merge distance go with masks, not with {origin.name}", path=source
        )
    if read.frames is not None:
        with atomic_folder(read.frames, overwrite=write.overwrite) as frames:
            return _run(origin, target, source, out, replace(read, frames=frames), write)
    return _run(origin, target, source, out, read, write)


def _run(
    origin: Format, target: Format, source: Path, out: Path, read: ReadOptions, write: WriteOptions
) -> Summary:
    assert origin.read is not None and target.write is not None
    labels = origin.read(source, read)
    summary = Summary(
        str(out), origin.name, target.name, rule=labels.info.get("masks") if _from_masks(origin) else None
    )
    counted = replace(labels, images=_counted(labels, summary))
    target.write(counted, out, write)
    for finding in labels.findings:
        summary.findings[finding.kind] = summary.findings.get(finding.kind, 0) + 1
    if target.name not in ("coco", "masks", "instances"):
        _record(labels, out, target, read.rule)
    return summary


def _from_masks(origin: Format) -> bool:
    return origin.name in ("masks", "irdst", "mirsdt")


def _counted(labels: LabelSet, summary: Summary) -> Iterator[LabelledImage]:
    unit = "masks" if summary.rule is not None else "images"
    for image in track(
        labels.images, f"{summary.source_format} to {summary.format}", labels.count, unit=unit
    ):
        summary.add(image)
        yield image


def _record(labels: LabelSet, out: Path, target: Format, rule: MaskRule) -> None:
    """Formats without a place for it get a file that says which targets were merged or left out."""
    if not (rule.min_area or rule.merge_distance):
        return
    file = out / "about.json" if target.folder else out.with_name(out.name + ".about.json")
    write_atomic(file, json.dumps(labels.info, indent=2) + "\n")


def _recognise_broken(path: Path) -> Format:
    """As :func:`recognise`, but a file too damaged for that goes by its suffix, so that it can be checked."""
    try:
        return recognise(path)
    except IrstkitError:
        if path.is_file() and path.suffix.lower() in (".json", ".xml"):
            return get_format("coco" if path.suffix.lower() == ".json" else "voc")
        raise


def check(
    path: str | Path,
    *,
    source_format: str | None = None,
    read: ReadOptions = ReadOptions(),  # noqa: B008
) -> tuple[str, Findings]:
    """All problems of a label file or folder, and the format's name.

    Raises
    ------
    IrstkitError
        When the path does not exist or its format is not recognised.
    """
    path = Path(path)
    if not path.exists():
        raise IrstkitError("no such file or folder", path=path)
    origin = get_format(source_format) if source_format else _recognise_broken(path)
    if origin.check is None:
        raise IrstkitError(f"the format {origin.name!r} has no check")
    return origin.name, origin.check(path, read)
