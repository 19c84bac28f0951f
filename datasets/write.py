"""Writing a data set in irstkit's own layout: images/, masks/, annotations.json, splits/SCHEME/PART.txt."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..annotate.coco import add_box, add_image, add_instance, new_coco, write_coco
from ..annotate.console import progress
from ..annotate.errors import IrstkitError
from ..annotate.files import GrayImage, atomic_folder, encode_png, pixel_hash, write_atomic
from ..annotate.masks import instances_to_mask
from .targets import Target

T = TypeVar("T")
R = TypeVar("R")


@dataclass
class Item:
    """One image to write.

    ``name`` is the path below images/ without suffix; ``targets`` None means not labelled; ``splits`` is
    {scheme: part}; ``extra`` are further keys of its entry in annotations.json.
    """

    name: str
    image: GrayImage
    targets: list[Target] | None
    splits: Mapping[str, str] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class Written:
    """What was written: counts for the report."""

    images: int = 0
    targets: int = 0
    unlabelled: int = 0
    boxes_only: int = 0
    repeated: list[tuple[str, str]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**vars(self), "repeated": [list(pair) for pair in self.repeated]}


def ordered(function: Callable[[T], R], items: Iterable[T], *, workers: int | None = None) -> Iterator[R]:
    """``map`` on threads, results in order, with only a few items in memory at once."""
    count = workers or min(4, os.cpu_count() or 1)
    with ThreadPoolExecutor(count) as pool:
        source = iter(items)
        pending = [pool.submit(function, item) for item in itertools.islice(source, 4 * count)]
        try:
            while pending:
                result = pending.pop(0).result()
                pending += [pool.submit(function, item) for item in itertools.islice(source, 1)]
                yield result
        finally:
            for future in pending:
                future.cancel()


def write_dataset(
    out: str | Path,
    items: Iterable[T],
    make: Callable[[T], Item],
    *,
    total: int,
    info: Mapping[str, Any],
    overwrite: bool = False,
) -> Written:
    """Write ``make(item)`` of every item as a data set in ``out``, all of it or nothing.

    Masks are written when every image is labelled and every target has pixels; a set of boxes gets none (its
    segmentations are the boxes' rectangles, marked as such). ``make`` runs on threads; the result does not
    depend on how many. Pixels are kept in their depth, as gray PNGs; ``info`` goes into annotations.json.

    Raises
    ------
    IrstkitError
        When ``out`` holds something already, two items have one name, or some images are labelled by pixels
        and others by boxes alone or not at all.
    """
    done = Written()
    coco = new_coco(**info)
    lists: dict[tuple[str, str], list[str]] = {}
    hashes: dict[str, str] = {}
    names: set[str] = set()
    kinds: dict[str, str] = {}  # the first image of each kind of labels
    with atomic_folder(out, overwrite=overwrite) as folder, progress("writing", total) as bar:

        def work(item: T) -> tuple[Item, str]:
            made = make(item)
            image_file = folder / "images" / f"{made.name}.png"
            image_file.parent.mkdir(parents=True, exist_ok=True)
            image_file.write_bytes(encode_png(made.image))
            size = (int(made.image.shape[0]), int(made.image.shape[1]))
            if made.targets is not None and all(t.instance is not None for t in made.targets):
                mask = instances_to_mask([t.instance for t in made.targets if t.instance is not None], size)
                mask_file = folder / "masks" / f"{made.name}.png"
                mask_file.parent.mkdir(parents=True, exist_ok=True)
                mask_file.write_bytes(encode_png(mask.astype(np.uint8) * 255))
            return made, pixel_hash(made.image)

        for made, digest in ordered(work, items):
            if made.name in names:
                raise IrstkitError(f"two images would be called images/{made.name}.png", path=out)
            names.add(made.name)
            if digest in hashes:
                done.repeated.append((hashes[digest], made.name))
            hashes.setdefault(digest, made.name)
            size = (int(made.image.shape[0]), int(made.image.shape[1]))
            image_id = add_image(coco, f"images/{made.name}.png", size, **made.extra, sha256=digest)
            _add_targets(coco, image_id, made, size, kinds)
            for scheme, part in made.splits.items():
                lists.setdefault((scheme, part), []).append(f"images/{made.name}")
            done.images += 1
            done.targets += len(made.targets or ())
            done.unlabelled += made.targets is None
            done.boxes_only += sum(t.instance is None for t in made.targets or ())
            bar.advance()
        if len(kinds) > 1:
            text = ", ".join(f"{first} {kind}" for kind, first in kinds.items())
            raise IrstkitError(
                f"images of one data set must be labelled alike: {text}",
                hint="convert the boxes or masks of one kind to the other first (irstkit annotate convert)",
            )
        if "is not labelled" in kinds:
            coco["info"]["labelled"] = False
        if "has boxes alone" in kinds:  # images without targets among them have an empty mask until now
            for path in sorted((folder / "masks").rglob("*.png")):
                path.unlink()
            for path in sorted((folder / "masks").rglob("*"), reverse=True):
                path.rmdir()
            if (folder / "masks").exists():
                (folder / "masks").rmdir()
        write_coco(folder / "annotations.json", coco)
        for (scheme, part), ids in sorted(lists.items()):
            write_list(folder / "splits" / scheme / f"{part}.txt", ids)
    return done


def _add_targets(
    coco: dict[str, Any],
    image_id: int,
    made: Item,
    size: tuple[int, int],
    kinds: dict[str, str],
) -> None:
    if made.targets is None:
        kinds.setdefault("is not labelled", made.name)
        return
    for target in made.targets:
        if target.instance is None:
            kinds.setdefault("has boxes alone", made.name)
            add_box(coco, image_id, target.box, **target.extra)
        else:
            kinds.setdefault("has masks", made.name)
            add_instance(coco, image_id, target.instance, size, **target.extra)


def write_list(path: Path, ids: Iterable[str]) -> None:
    """Write a split list: an id a line."""
    write_atomic(path, "".join(f"{id}\n" for id in ids))
