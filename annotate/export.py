"""Masks to label files: COCO (a file) and YOLO (a folder with one text file a mask)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .coco import CATEGORY
from .console import track
from .errors import IrstkitError
from .files import atomic_folder, atomic_path, list_images, read_header, refuse_existing
from .formats.yolo_files import yolo_text
from .scan import DEFAULT_RULE, MaskRule, MaskScan, scan_mask


@dataclass
class Summary:
    """What an export read and wrote, and what the threshold decided."""

    out: str
    format: str
    rule: dict[str, Any]
    files: int = 0
    boxes: int = 0
    components: int = 0
    holes: int = 0
    without_target: int = 0
    gray_files: int = 0
    gray_files_that_differ: int = 0
    components_above_zero: int = 0
    gray_names: list[str] = field(default_factory=list)

    def add(self, scan: MaskScan) -> None:
        """Count one mask."""
        self.files += 1
        self.boxes += len(scan.targets)
        self.components += scan.components
        self.holes += sum(t.parent is not None for t in scan.targets)
        self.without_target += not scan.targets
        self.gray_files += scan.gray
        self.components_above_zero += scan.above_zero
        if scan.gray:
            self.gray_files_that_differ += scan.above_zero != scan.components
            self.gray_names.append(scan.path.name)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        holes = f" ({self.components} targets and {self.holes} boxes of holes)" if self.holes else ""
        out = [f"{self.files} masks, {self.boxes} boxes{holes}, {self.without_target} masks without target"]
        if self.gray_files:
            out.append(
                f"{self.gray_files} masks hold gray values; > {self.rule['threshold']} gives "
                f"{self.components} targets in all, > 0 would give {self.components_above_zero} "
                f"({self.gray_files_that_differ} masks would have another number)"
            )
        out.append(f"{self.format}: {self.out}")
        return out


# ------------------------------------------------------------------------------------------------ input


def list_masks(folder: str | Path) -> list[Path]:
    """The mask files of a folder in natural order; two of one stem are refused (both would be one label)."""
    masks = list_images(folder)
    seen: dict[str, Path] = {}
    for mask in masks:
        other = seen.setdefault(mask.stem, mask)
        if other is not mask:
            raise IrstkitError(f"two masks of one name: {other.name} and {mask.name}", path=folder)
    return masks


def pair_images(masks: Iterable[Path], images: str | Path) -> dict[str, Path]:
    """``{mask file name: image}``: by stem, or by the stem without ``_pixels0`` (SIRST's masks).

    Raises
    ------
    IrstkitError
        Naming the first mask without an image.
    """
    stems: dict[str, Path] = {}
    for image in list_images(images):
        if image.stem in stems:
            raise IrstkitError(f"two images of one name: {stems[image.stem].name}, {image.name}", path=images)
        stems[image.stem] = image
    out = {}
    for mask in masks:
        found = stems.get(mask.stem) or stems.get(mask.stem.removesuffix("_pixels0"))
        if found is None:
            raise IrstkitError(f"no image of this mask in {images}", path=mask)
        out[mask.name] = found
    return out


def scan_folder(
    masks: list[Path], rule: MaskRule, *, segment: bool, images: dict[str, Path] | None = None
) -> Iterator[MaskScan]:
    """Scan mask files in order, with a progress bar; with ``images``, sizes are compared."""
    for path in track(masks, "reading masks", unit="masks"):
        scan = scan_mask(path, rule, segment=segment)
        if images is not None:
            image = images[path.name]
            header = read_header(image)
            if (header.height, header.width) != scan.size:
                raise IrstkitError(
                    f"the mask is {scan.size[1]}x{scan.size[0]}, its image {image.name} is "
                    f"{header.width}x{header.height}",
                    path=path,
                    hint="masks are never stretched: repair or remove this one",
                )
        yield scan


# ----------------------------------------------------------------------------------------------- output


def masks_to_yolo(
    folder: str | Path,
    out: str | Path,
    rule: MaskRule = DEFAULT_RULE,
    *,
    digits: int = 6,
    overwrite: bool = False,
) -> Summary:
    """Write one ``STEM.txt`` a mask into the folder ``out``, empty where a mask has no target.

    Nothing is written unless every mask can be read.
    """
    masks = list_masks(folder)
    summary = Summary(str(out), "yolo", rule.as_dict())
    with atomic_folder(out, overwrite=overwrite) as temporary:
        for scan in scan_folder(masks, rule, segment=False):
            summary.add(scan)
            text = yolo_text(scan.boxes, scan.size, digits=digits)
            (temporary / f"{scan.path.stem}.txt").write_bytes(text.encode())
    return summary


def masks_to_coco(
    folder: str | Path,
    out: str | Path,
    rule: MaskRule = DEFAULT_RULE,
    *,
    images: str | Path | None = None,
    overwrite: bool = False,
) -> Summary:
    """Write the COCO file ``out``: an image entry a mask, an annotation a box with RLE and pixel area.

    ``file_name`` is the image's name when ``images`` is given, else the mask's. Under ``eflnet`` the box of
    a hole is an annotation of its own, marked ``attributes.contour = "hole"`` with the ``attributes.parent``
    id; its pixels are those of the target inside it, so that painting all annotations gives the mask back.
    """
    masks = list_masks(folder)
    refuse_existing(out, overwrite=overwrite, folder=False)
    pairs = pair_images(masks, images) if images is not None else None
    summary = Summary(str(out), "coco", rule.as_dict())
    with atomic_path(out) as temporary, CocoStream(temporary, {"masks": rule.as_dict()}) as stream:
        for scan in scan_folder(masks, rule, segment=True, images=pairs):
            summary.add(scan)
            name = pairs[scan.path.name].name if pairs is not None else scan.path.name
            stream.add(name, scan)
    return summary


class CocoStream:
    """Writes a COCO file an image at a time, in memory that does not grow with their number.

    Image entries go to the file at once, annotations to one beside it, which is appended at the end.
    """

    def __init__(self, path: Path, info: dict[str, Any]) -> None:
        self._path = path
        self._side = path.with_name(path.name + ".annotations")
        self._images = self._annotations = 0
        self._info = info

    def __enter__(self) -> CocoStream:
        self._out = self._path.open("wb")
        self._rest = self._side.open("w+b")
        self._out.write(f'{{"info": {_json(self._info)}, "licenses": [], "images": ['.encode())
        return self

    def add(self, file_name: str, scan: MaskScan, **extra: Any) -> None:
        """Append one image and its annotations."""
        self._images += 1
        height, width = scan.size
        image = {"id": self._images, "file_name": file_name, "width": width, "height": height, **extra}
        self._out.write(f"{',' if self._images > 1 else ''}\n{_json(image)}".encode())
        first = self._annotations + 1
        for target, segmentation in zip(scan.targets, scan.segmentations, strict=True):
            x1, y1, x2, y2 = target.instance.box
            self._annotations += 1
            annotation: dict[str, Any] = {
                "id": self._annotations,
                "image_id": self._images,
                "category_id": 1,
                "iscrowd": 0,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": target.instance.area,
                "segmentation": segmentation,
            }
            if target.parent is not None:
                annotation["attributes"] = {"contour": "hole", "parent": first + target.parent}
            self._rest.write(f"{',' if self._annotations > 1 else ''}\n{_json(annotation)}".encode())

    def __exit__(self, kind: Any, *_: Any) -> None:
        try:
            if kind is None:
                self._out.write(b'\n], "annotations": [')
                self._rest.seek(0)
                shutil.copyfileobj(self._rest, self._out)
                self._out.write(f'\n], "categories": {_json([CATEGORY])}}}\n'.encode())
        finally:
            self._out.close()
            self._rest.close()
            self._side.unlink()


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
