"""Two sets of labels of the same images, compared: what was added, moved, deleted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...annotate.coco import read_coco
from ...annotate.errors import IrstkitError
from .documents import as_document
from .matching import Shape, match_shapes, shape_iou
from .sources import Annotation, has_mask, open_sources, to_instance
from .store import canonical

GEOMETRY = ("bbox", "area", "segmentation", "segmentation_source")
IDS = ("id", "image_id")


@dataclass
class Difference:
    """Images in one only, and per image of both what its labels differ in."""

    only_a: list[str] = field(default_factory=list)
    only_b: list[str] = field(default_factory=list)
    images: int = 0
    same: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """By kind."""
        found = Counter(row["kind"] for row in self.rows)
        return {
            kind: found.get(kind, 0)
            for kind in ("added", "deleted", "moved", "reshaped", "attributes", "ids")
        }

    def empty(self) -> bool:
        """Whether there is no difference at all."""
        return not (self.only_a or self.only_b or self.rows)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "images_in_both": self.images,
            "images_only_in_a": self.only_a,
            "images_only_in_b": self.only_b,
            "labels_equal": self.same,
            **self.counts(),
            "changes": self.rows,
        }

    def lines(self, *, most: int | None = 20) -> list[str]:
        """For people."""
        told = ", ".join(f"{n} {kind}" for kind, n in self.counts().items() if n)
        out = [f"{self.images} images in both, {self.same} labels equal" + (f", {told}" if told else "")]
        for which, names in (("A", self.only_a), ("B", self.only_b)):
            if names:
                more = ", ..." if len(names) > 3 else ""
                out.append(f"{len(names)} images only in {which}: {', '.join(names[:3])}{more}")
        shown = self.rows if most is None else self.rows[:most]
        for row in shown:
            boxes = " -> ".join(str(row[k]) for k in ("was", "now") if row.get(k) is not None)
            what = f" ({', '.join(row['keys'])})" if row.get("keys") else ""
            out.append(f"  {row['image']}: {row['kind']} {boxes}{what}")
        if len(shown) < len(self.rows):
            out.append(f"  ... and {len(self.rows) - len(shown)} more (--all)")
        return out


def load_labels(path: Path) -> dict[str, Any]:
    """The COCO document of a file, or of the data set in a folder.

    Raises
    ------
    IrstkitError
        When it is neither, or a folder of several COCO files.
    """
    if not path.is_dir():
        return read_coco(path)
    sources = open_sources([path])
    if len(sources) > 1:
        raise IrstkitError("a data set of several COCO files", path=path, hint="name one of the files")
    return as_document(sources[0])


def compare(a: dict[str, Any], b: dict[str, Any], *, names: tuple[str, str] = ("A", "B")) -> Difference:
    """Compare two COCO documents image by image (by file name).

    Labels are paired by equal content, then by id where both have it with a box that overlaps, then one to one
    by centroids closer than 3 pixels; the rest of A is deleted, the rest of B added.

    Raises
    ------
    IrstkitError
        For an image without name, two of one name, or a damaged label, naming the document.
    """
    images_a, images_b = _by_name(a, names[0]), _by_name(b, names[1])
    result = Difference(
        [n for n in images_a if n not in images_b], [n for n in images_b if n not in images_a]
    )
    for name, (image, labels) in images_a.items():
        if name not in images_b:
            continue
        result.images += 1
        other, others = images_b[name]
        size = (image.get("height"), image.get("width"))
        if size != (other.get("height"), other.get("width")):
            raise IrstkitError(
                f"{name} is {size[1]}x{size[0]} here and {other.get('width')}x{other.get('height')} in {names[0]}",
                path=names[1],
            )
        _compare_image(name, labels, others, size, result, names)
    return result


def _by_name(document: dict[str, Any], path: str) -> dict[str, tuple[dict[str, Any], list[Annotation]]]:
    labels: dict[Any, list[Annotation]] = {}
    for k, annotation in enumerate(document["annotations"]):
        if not isinstance(annotation, dict) or not isinstance(annotation.get("image_id"), (int, str)):
            raise IrstkitError("no image_id", path=path, where=f"$.annotations[{k}]")
        labels.setdefault(annotation["image_id"], []).append(annotation)
    out: dict[str, tuple[dict[str, Any], list[Annotation]]] = {}
    for k, image in enumerate(document["images"]):
        name = image.get("file_name") if isinstance(image, dict) else None
        if not isinstance(name, str) or name in out:
            told = "no file_name" if not isinstance(name, str) else f"{name!r} is listed twice"
            raise IrstkitError(told, path=path, where=f"$.images[{k}]")
        out[name] = (image, labels.pop(image.get("id"), []))
    if labels:
        raise IrstkitError(f"labels of the image {next(iter(labels))!r}, which is not listed", path=path)
    return out


def _content(annotation: Annotation) -> str:
    return canonical({k: v for k, v in annotation.items() if k not in IDS})


def _compare_image(
    name: str, a: list[Annotation], b: list[Annotation], size: Any, result: Difference, names: tuple[str, str]
) -> None:
    left = list(b)
    rest = []
    for one in a:
        content = _content(one)
        equal = [o for o in left if _content(o) == content]
        if not equal:
            rest.append(one)
            continue
        other = next((o for o in equal if o.get("id") == one.get("id")), equal[0])
        left.remove(other)
        if one.get("id") == other.get("id"):
            result.same += 1
        else:
            row = {"kind": "ids", "image": name, "was": one.get("id"), "now": other.get("id")}
            result.rows.append(row)
    pairs = _pairs(rest, left, size, names)
    for one, other in pairs:
        result.rows.append(_row(name, one, other))
    used = {id(x) for pair in pairs for x in pair}
    result.rows += [
        {"kind": "deleted", "image": name, "was": one["bbox"], "id": one.get("id")}
        for one in rest
        if id(one) not in used
    ]
    result.rows += [
        {"kind": "added", "image": name, "now": other["bbox"], "id": other.get("id")}
        for other in left
        if id(other) not in used
    ]


def _pairs(
    a: list[Annotation], b: list[Annotation], size: Any, names: tuple[str, str]
) -> list[tuple[Annotation, Annotation]]:
    if not a or not b:
        return []
    shapes_a, shapes_b = ([_shape(x, size, n) for x in xs] for xs, n in ((a, names[0]), (b, names[1])))
    out, free_a, free_b = [], [], list(range(len(b)))
    for k, one in enumerate(a):
        found = next(
            (
                j
                for j in free_b
                if b[j].get("id") == one.get("id") and shape_iou(shapes_a[k], shapes_b[j]) > 0
            ),
            None,
        )
        if found is None or one.get("id") is None:
            free_a.append(k)
        else:
            free_b.remove(found)
            out.append((one, b[found]))
    near = match_shapes([shapes_a[k] for k in free_a], [shapes_b[j] for j in free_b])
    return out + [(a[free_a[k]], b[free_b[j]]) for k, j in near]


def _shape(annotation: Annotation, size: Any, path: str) -> Shape:
    try:
        x, y, w, h = (float(v) for v in annotation["bbox"])
        instance = to_instance(annotation["segmentation"], size) if has_mask(annotation) else None
    except (ValueError, TypeError, KeyError) as error:
        raise IrstkitError(f"not a label (id {annotation.get('id')!r}): {error}", path=path) from error
    return Shape((x, y, x + w, y + h), instance)


def _row(name: str, one: Annotation, other: Annotation) -> dict[str, Any]:
    keys = sorted(k for k in one.keys() | other.keys() if k not in IDS and one.get(k) != other.get(k))
    if one.get("bbox") != other.get("bbox"):
        same_size = [round(v, 6) for v in one["bbox"][2:]] == [round(v, 6) for v in other["bbox"][2:]]
        kind = "moved" if same_size else "reshaped"
    elif any(k in GEOMETRY for k in keys):
        kind = "reshaped"
    else:
        kind = "attributes"
    return {
        "kind": kind,
        "image": name,
        "was": one["bbox"],
        "now": other["bbox"],
        "id": one.get("id"),
        "keys": keys,
    }
