"""One mask file to targets: the step that every export from masks begins with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .boxes import CONVENTIONS, eflnet_contours
from .errors import IrstkitError
from .files import binarise, read_header, read_mask_values
from .masks import Instance, label_mask, mask_to_instances
from .rle import encode_instance

if TYPE_CHECKING:
    from .labels import Label, LabelledImage


@dataclass(frozen=True)
class MaskRule:
    """How targets are taken from a mask: recorded with every output made by it.

    ``merge_distance``: targets whose nearest pixels are at most this far apart (pixel centres, Euclidean,
    chains too) become one; 0 is off. ``min_area``: smaller targets, after merging, are left out and counted;
    0 is off. Both are off in every published release.
    """

    convention: str = "components"
    connectivity: int = 8
    threshold: int = 127
    min_area: int = 0
    merge_distance: float = 0.0

    def __post_init__(self) -> None:
        if self.convention not in CONVENTIONS:
            raise IrstkitError(f"no box convention {self.convention!r}: choose from {', '.join(CONVENTIONS)}")
        if self.connectivity not in (4, 8):
            raise IrstkitError(f"the connectivity is 4 or 8, got {self.connectivity}")
        if not 0 <= self.threshold <= 254:
            raise IrstkitError(f"the threshold is 0 to 254, got {self.threshold}")
        if self.min_area < 0 or not 0 <= self.merge_distance < float("inf"):
            raise IrstkitError("minimum area and merge distance are 0 (off) or positive")
        if self.convention == "eflnet" and (self.connectivity != 8 or self.min_area or self.merge_distance):
            raise IrstkitError("the convention 'eflnet' is 8-connected, without minimum area or merging")

    def as_dict(self) -> dict[str, Any]:
        """For an output's ``info``: options that are off are left out."""
        out: dict[str, Any] = {
            "convention": self.convention,
            "connectivity": self.connectivity,
            "threshold": self.threshold,
        }
        if self.min_area:
            out["min_area"] = self.min_area
        if self.merge_distance:
            out["merge_distance"] = self.merge_distance
        return out


DEFAULT_RULE = MaskRule()


def scan_mask(
    path: str | Path,
    name: str,
    rule: MaskRule = DEFAULT_RULE,
    *,
    image: Path | None = None,
    rle: bool = False,
) -> LabelledImage:
    """Read a mask file and take its targets by ``rule``.

    ``image``: the image's file, whose size must be the mask's. ``rle`` encodes the targets too, so that
    worker processes do that.

    Raises
    ------
    IrstkitError
        As :func:`irstkit.annotate.files.read_mask_values`, or when the sizes differ.
    """
    from .labels import LabelledImage, MaskFacts

    values = read_mask_values(path)
    height, width = values.shape
    size = (height, width)
    if image is not None:
        header = read_header(image)
        if (header.height, header.width) != size:
            raise IrstkitError(
                f"the mask is {width}x{height}, its image {image.name} is {header.width}x{header.height}",
                path=path,
                hint="masks are never stretched: repair or remove this one",
            )
    mask = binarise(values, threshold=rule.threshold)
    labels, count, merged, removed = mask_labels(mask, rule)
    if rle:
        for label in labels:
            if label.instance is not None:
                label.rle = encode_instance(label.instance, size)
    gray, binary01 = is_gray(values)
    above_zero = count
    if gray and not binary01:
        above_zero = len(label_mask(values > 0, connectivity=rule.connectivity)[1])
    holes = sum(label.parent is not None for label in labels)
    return LabelledImage(name, size, labels, facts=MaskFacts(count, holes, gray, above_zero, removed, merged))


def is_gray(values: NDArray[np.uint8]) -> tuple[bool, bool]:
    """Whether mask values are other than 0 and 255 (or 0 and 1), and whether they are 0 and 1."""
    filled = cv2.countNonZero(values)
    if filled == 0 or filled == np.count_nonzero(values == 255):
        return False, False
    ones = filled == np.count_nonzero(values == 1)
    return not ones, ones


def mask_labels(mask: NDArray[np.bool_], rule: MaskRule = DEFAULT_RULE) -> tuple[list[Label], int, int, int]:
    """The targets of a (H, W) boolean mask, and the numbers of components, merged and removed ones."""
    from .labels import Label

    instances = mask_to_instances(mask, connectivity=rule.connectivity)
    count = len(instances)
    if rule.convention == "eflnet" and instances:
        return _eflnet_labels(mask, instances), count, 0, 0
    if rule.merge_distance > 0:
        instances = merge_near(instances, rule.merge_distance)
    merged = count - len(instances)
    if rule.min_area > 0:
        instances = [i for i in instances if i.area >= rule.min_area]
    labels = []
    for instance in instances:
        x1, y1, x2, y2 = instance.box
        labels.append(Label((float(x1), float(y1), float(x2), float(y2)), instance=instance))
    return labels, count, merged, count - merged - len(instances)


def _eflnet_labels(mask: NDArray[np.bool_], instances: list[Instance]) -> list[Label]:
    """The boxes of every contour in the published order, each with its target's pixels inside it.

    So that a COCO file of them is consistent (every box is that of its pixels) and paints the mask back.
    """
    from .labels import Label

    numbered, _ = label_mask(mask)
    contours = eflnet_contours(mask)
    owner = [int(numbered[c.pixel[1], c.pixel[0]]) for c in contours]
    outer = {number: index for index, number in enumerate(owner) if not contours[index].hole}
    labels = []
    for contour, number in zip(contours, owner, strict=True):
        x1, y1, x2, y2 = contour.box
        box = (float(x1), float(y1), float(x2), float(y2))
        if contour.hole:
            inside = Instance(contour.box, numbered[y1:y2, x1:x2] == number)
            labels.append(Label(box, instance=inside, parent=outer[number]))
        else:
            labels.append(Label(box, instance=instances[number - 1]))
    return labels


def merge_near(instances: list[Instance], distance: float) -> list[Instance]:
    """Unite instances whose nearest pixels are at most ``distance`` apart, chains included.

    Distances are Euclidean between pixel centres: diagonal neighbours are 1.41 apart, one empty pixel
    between makes 2. The order is that of each group's first instance.
    """
    from scipy.spatial import cKDTree

    points = []
    for instance in instances:
        ys, xs = np.nonzero(instance.mask)
        points.append(np.column_stack([xs + instance.box[0], ys + instance.box[1]]))
    group = list(range(len(instances)))

    def root(k: int) -> int:
        while group[k] != k:
            group[k] = group[group[k]]
            k = group[k]
        return k

    for a, b in _near_boxes(instances, distance):
        if root(a) != root(b):
            nearest = cKDTree(points[a]).query(points[b], distance_upper_bound=distance + 1e-9)[0].min()
            if nearest <= distance + 1e-9:
                group[max(root(a), root(b))] = min(root(a), root(b))
    members: dict[int, list[Instance]] = {}
    for k, instance in enumerate(instances):
        members.setdefault(root(k), []).append(instance)
    return [unite(m) if len(m) > 1 else m[0] for m in members.values()]


def _near_boxes(instances: list[Instance], distance: float) -> Iterator[tuple[int, int]]:
    boxes = np.array([i.box for i in instances]).reshape(-1, 4)
    for a in range(len(boxes)):
        gap = np.maximum(boxes[a + 1 :, :2] - boxes[a, 2:], boxes[a, :2] - boxes[a + 1 :, 2:]).max(axis=1) + 1
        for b in np.flatnonzero(gap <= distance) + a + 1:
            yield a, int(b)


def unite(instances: list[Instance]) -> Instance:
    """One instance of all their pixels."""
    boxes = np.array([i.box for i in instances])
    x1, y1 = (int(v) for v in boxes[:, :2].min(axis=0))
    x2, y2 = (int(v) for v in boxes[:, 2:].max(axis=0))
    mask = np.zeros((y2 - y1, x2 - x1), dtype=bool)
    for i in instances:
        mask[i.box[1] - y1 : i.box[3] - y1, i.box[0] - x1 : i.box[2] - x1] |= i.mask
    return Instance((x1, y1, x2, y2), mask)
