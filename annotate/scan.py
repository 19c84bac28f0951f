"""One mask file to targets: the step that every export from masks begins with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from .boxes import CONVENTIONS, Boxes, as_boxes, eflnet_contours
from .errors import IrstkitError
from .files import binarise, read_mask_values
from .masks import Instance, label_mask, mask_to_instances
from .rle import encode_instance


@dataclass(frozen=True)
class MaskRule:
    """How targets are taken from a mask: recorded with every output made by it."""

    convention: str = "components"
    connectivity: int = 8
    threshold: int = 127

    def __post_init__(self) -> None:
        if self.convention not in CONVENTIONS:
            raise IrstkitError(f"no box convention {self.convention!r}: choose from {', '.join(CONVENTIONS)}")
        if self.connectivity not in (4, 8):
            raise IrstkitError(f"the connectivity is 4 or 8, got {self.connectivity}")
        if self.convention == "eflnet" and self.connectivity != 8:
            raise IrstkitError("the convention 'eflnet' is 8-connected, as the published files are")
        if not 0 <= self.threshold <= 254:
            raise IrstkitError(f"the threshold is 0 to 254, got {self.threshold}")

    def as_dict(self) -> dict[str, Any]:
        """For an output's ``info``."""
        return {
            "convention": self.convention,
            "connectivity": self.connectivity,
            "threshold": self.threshold,
        }


DEFAULT_RULE = MaskRule()


@dataclass(frozen=True, eq=False)
class Target:
    """One box of a mask with the pixels it stands for.

    ``parent`` is None, or for the box of a hole (convention ``eflnet``) the index of its target's box; its
    pixels are those of that target that lie in the box.
    """

    instance: Instance
    parent: int | None = None


@dataclass(frozen=True, eq=False)
class MaskScan:
    """What one mask file holds.

    ``gray`` says that it has values other than 0 and 255 (or 0 and 1); then ``above_zero`` counts the
    targets (components) that ``value > 0`` would give, otherwise it equals ``components``.
    """

    path: Path
    size: tuple[int, int]
    targets: tuple[Target, ...]
    components: int
    gray: bool = False
    above_zero: int = 0
    segmentations: tuple[dict[str, Any], ...] = field(default=())

    @property
    def boxes(self) -> Boxes:
        """(N, 4) half-open xyxy."""
        return as_boxes([t.instance.box for t in self.targets])


def scan_mask(path: str | Path, rule: MaskRule = DEFAULT_RULE, *, segment: bool = False) -> MaskScan:
    """Read a mask file and take its targets by ``rule``; ``segment`` also encodes their RLE.

    Raises
    ------
    IrstkitError
        As :func:`irstkit.annotate.files.read_mask_values`.
    """
    path = Path(path)
    values = read_mask_values(path)
    mask = binarise(values, threshold=rule.threshold)
    instances = mask_to_instances(mask, connectivity=rule.connectivity)
    targets = [Target(i) for i in instances]
    if rule.convention == "eflnet" and instances:
        targets = _eflnet_targets(mask, instances)
    filled = cv2.countNonZero(values)
    gray = filled != np.count_nonzero(values == 255) and (filled != np.count_nonzero(values == 1))
    above_zero = len(instances)
    if gray:
        above_zero = len(label_mask(values > 0, connectivity=rule.connectivity)[1])
    height, width = mask.shape
    size = (height, width)
    return MaskScan(
        path=path,
        size=size,
        targets=tuple(targets),
        components=len(instances),
        gray=bool(gray),
        above_zero=above_zero,
        segmentations=tuple(encode_instance(t.instance, size) for t in targets) if segment else (),
    )


def _eflnet_targets(mask: np.ndarray, instances: list[Instance]) -> list[Target]:
    """The boxes of every contour in the published order, each with its target's pixels inside it."""
    labels, _ = label_mask(mask)
    contours = eflnet_contours(mask)
    owner = [int(labels[c.pixel[1], c.pixel[0]]) for c in contours]
    outer = {number: index for index, number in enumerate(owner) if not contours[index].hole}
    targets = []
    for contour, number in zip(contours, owner, strict=True):
        if not contour.hole:
            targets.append(Target(instances[number - 1]))
            continue
        x1, y1, x2, y2 = contour.box
        targets.append(Target(Instance(contour.box, labels[y1:y2, x1:x2] == number), outer[number]))
    return targets
