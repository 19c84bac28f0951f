"""A synthetic data set from a recipe: workers, parts, interruption, continuation. The bytes depend on none of it."""

from __future__ import annotations

import os
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

import cv2
import numpy as np
import yaml

from ..annotate.console import note, progress
from ..annotate.errors import IrstkitError
from ..annotate.files import occupied, write_atomic
from .backgrounds import PROCEDURAL, Source, gather, read_scenes, refuse_inside
from .cluster import MOST, Cluster, connect
from .compose import make_image
from .pool import results
from .preset import Preset, load_preset
from .recipe import Recipe
from .writer import (
    FLAT_LIMIT,
    PART,
    encode_image,
    merge,
    part_path,
    read_part,
    tell_troubles,
    unmerge,
    write_image,
    write_part,
)

CHUNK = 20
MIN_SIZE = 48
PREDICT = "predict"
VERSION = 6  # of what the recipe means: raised whenever the same recipe gives other pixels


def generate(
    out: str | Path,
    count: int,
    seed: int = 0,
    backgrounds: Sequence[str | Path] | str | Path = (),
    preset: str | Path | Preset = "nudt",
    *,
    size: int = 256,
    splits: dict[str, float] | None = None,
    workers: int | None = None,
    dask: str | None = None,
    overrides: Sequence[str] = (),
    exclude: Sequence[str | Path] = (),
    include_test: bool = False,
    scenes: str | Path | None = None,
    depth: int | None = None,
) -> dict[str, Any]:
    """Make a synthetic data set in the folder ``out`` and return its totals.

    Parameters
    ----------
    out
        New or empty, or what an earlier, perhaps interrupted, run with the same recipe left.
    count, size
        Number of images, and their side in pixels.
    backgrounds
        Folders of images or data sets, each ``PATH`` or ``PATH:SCHEME/PART``; none: procedural ones.
    splits
        ``{part: share}``; which part an image belongs to follows from its background. Default: all train.
    workers
        Processes; default one a processor. The result does not depend on it.
    dask
        In their place a Dask cluster: its scheduler's address, or ``local:N``. Nor does it depend on this.
    scenes
        CSV of the backgrounds' scenes, or "predict": the scene network's say where the data set has none.
    exclude, include_test
        Further lists whose images, and near twins of them, are no backgrounds; whether test lists count.
    depth
        8 or 16 bit; default 16 when all backgrounds are, else 8.

    Raises
    ------
    IrstkitError
        For bad input, or when ``out`` holds something else or the result of another recipe.
    """
    root = Path(out)
    shares = splits or {"train": 1.0}
    _check(root, count, seed, size, shares, depth)
    refuse_inside(root, backgrounds)
    parts = root / "parts"
    with connect(dask) if dask else nullcontext() as cluster, held(root) as fresh:
        with beginning(root, fresh):
            recipe = prepare(
                parts / "backgrounds.raw",
                seed,
                backgrounds,
                preset,
                size=size,
                splits=shares,
                overrides=overrides,
                exclude=exclude,
                include_test=include_test,
                scenes=scenes,
                depth=depth,
            )
            claim(root, describe(recipe, count, include_test), count)
        _run(root, recipe, count, workers or processors(), cluster)
        info = {"description": "made by irstkit synth", "preset": recipe.preset.name, "seed": seed}
        totals = merge(root, count, shares, info)
        shutil.rmtree(parts)
    for name, number in totals["splits"].items():
        if number == 0:
            note(f"no image fell into {name}: the backgrounds of its share are too few (or the set is small)")
    tell_troubles(totals, recipe, totals["images"])
    return {**totals, "preset": recipe.preset.name, "seed": seed, "out": str(root)}


@contextmanager
def held(root: Path) -> Iterator[bool]:
    """The output folder, made where it is missing (then True is given), held against other processes."""
    fresh = not root.exists()
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise IrstkitError(f"cannot write here: {error.strerror or error}", path=root) from error
    with occupied(root):
        yield fresh


@contextmanager
def beginning(root: Path, fresh: bool) -> Iterator[None]:
    """What goes wrong inside leaves the output folder as it was found."""
    parts = root / "parts"
    try:
        yield
    except BaseException:
        if fresh:
            shutil.rmtree(root, ignore_errors=True)
        else:
            (parts / "backgrounds.raw").unlink(missing_ok=True)
            if parts.is_dir() and not any(parts.iterdir()):
                parts.rmdir()
        raise


def prepare(
    store_path: Path,
    seed: int,
    backgrounds: Sequence[str | Path] | str | Path = (),
    preset: str | Path | Preset = "nudt",
    *,
    size: int = 256,
    splits: dict[str, float] | None = None,
    overrides: Sequence[str] = (),
    exclude: Sequence[str | Path] = (),
    include_test: bool = False,
    scenes: str | Path | None = None,
    depth: int | None = None,
) -> Recipe:
    """Everything that :func:`make_image` needs; cleaned backgrounds are kept in the file ``store_path``."""
    chosen = preset if isinstance(preset, Preset) else load_preset(preset, list(overrides))
    texts = [backgrounds] if isinstance(backgrounds, (str, Path)) else list(backgrounds)
    sources = [Source.parse(t) for t in texts if str(t) != PROCEDURAL]
    if sources and len(sources) < len(texts):
        raise IrstkitError(
            "procedural backgrounds and folders cannot be mixed", hint="make two sets and join them"
        )
    store = None
    if not sources and (exclude or scenes):
        note(
            "procedural backgrounds have their scenes and resemble no image: --exclude and --scenes do nothing here"
        )
    if sources:
        store = gather(
            sources,
            store_path,
            size=size,
            exclude=[Source.parse(e) for e in exclude],
            include_test=include_test,
            scenes=read_scenes(Path(scenes)) if scenes and str(scenes) != PREDICT else None,
            predict=str(scenes) == PREDICT,
        )
        labelled = sum(item.labelled for item in store.items)
        if scenes and str(scenes) != PREDICT and labelled < len(store.items):
            if not labelled:
                raise IrstkitError(
                    "no label in it is of a background", path=scenes,
                    hint="`file` is the image's name, `dataset` (where given) its folder's",
                )  # fmt: skip
            note(
                f"scenes: known of {labelled} of {len(store.items)} backgrounds, the others have the table `all`"
            )
        guessed = Counter(item.scene for item in store.items if not item.labelled and item.scene)
        if guessed:
            told = ", ".join(f"{scene} {n}" for scene, n in sorted(guessed.items()))
            note(f"scenes of {guessed.total()} backgrounds by the scene network: {told}")
        if store.left_out:
            told = ", ".join(f"{n} {reason}" for reason, n in sorted(store.left_out.items()))
            note(f"{len(store.items)} backgrounds; left out: {told}")
        if store.colour:
            note(
                f"{store.colour} of {len(store.items)} backgrounds are in colour, their channels differ: gray is 0.299 R + 0.587 G + "
                "0.114 B (of a false-colour picture that is no temperature)"
            )
    depth = depth or (16 if store and all(item.depth == 16 for item in store.items) else 8)
    return Recipe(chosen, seed, size, depth, store, splits or {"train": 1.0})


def processors() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check(root: Path, count: int, seed: int, size: int, splits: dict[str, float], depth: int | None) -> None:
    if count < 1:
        raise IrstkitError(f"the number of images must be at least 1, got {count}")
    if seed < 0:
        raise IrstkitError(f"the seed must be at least 0, got {seed}")
    if not MIN_SIZE <= size <= 8192:
        raise IrstkitError(f"the image size must be from {MIN_SIZE} to 8192 pixels, got {size}")
    check_folder(root, splits, depth)


def check_folder(root: Path, splits: dict[str, float], depth: int | None) -> None:
    """Refuse bad splits and depths, and an output folder that holds what irstkit synth did not write."""
    if depth not in (None, 8, 16):
        raise IrstkitError(f"the depth is 8 or 16 bit, got {depth}")
    for part, share in splits.items():
        if not part.replace("_", "").replace("-", "").isalnum() or not share > 0:
            raise IrstkitError(f"a split is NAME=SHARE with a positive share, got {part}={share}")
    if root.exists() and not root.is_dir():
        raise IrstkitError("is a file, a folder was expected", path=root)
    if root.is_dir() and not (root / "synth.yaml").is_file():
        strangers = sorted(p.name for p in root.iterdir() if p.name != "parts")
        if strangers:
            raise IrstkitError(
                f"the folder is not empty ({', '.join(strangers[:3])}) and has no synth.yaml",
                path=root,
                hint="choose another --out",
            )


def describe(recipe: Recipe, count: int, include_test: bool = False) -> dict[str, Any]:
    """synth.yaml: all that regenerates the set; no absolute path, no date."""
    from .. import __version__

    store = recipe.store
    return {
        "count": count,
        "recipe": VERSION,
        "seed": recipe.seed,
        "size": recipe.size,
        "depth": recipe.depth,
        "splits": recipe.splits,
        "preset": recipe.preset.as_dict(),
        "include_test": include_test,
        "versions": {"irstkit": __version__, "numpy": np.__version__, "opencv": cv2.__version__},
        "left_out": dict(sorted(store.left_out.items())) if store else {},
        "backgrounds": PROCEDURAL
        if store is None
        else [
            {
                "id": b.id,
                "used": b.used,
                "name": b.name,
                "scene": b.scene,
                "labelled": b.labelled,
                "group": b.group,
                "removed": b.removed,
            }
            for b in store.items
        ],
    }


def claim(
    root: Path,
    document: dict[str, Any],
    count: int,
    *,
    what: str = "images",
    reopen: Callable[[Path], None] = unmerge,
    limit: int = FLAT_LIMIT,
) -> None:
    """Refuse a folder of another recipe, then write synth.yaml.

    ``what`` the count counts; ``reopen`` turns a finished set back into parts; a set of up to ``limit`` cannot
    be continued beyond it.
    """
    path = root / "synth.yaml"
    if path.is_file():
        try:
            old = yaml.safe_load(path.read_text("utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise IrstkitError("cannot be read, so this run cannot be compared with it", path=path) from error
        if not isinstance(old, dict) or not isinstance(old.get("count"), int):
            raise IrstkitError("not what irstkit synth writes", path=path)
        new = yaml.safe_load(_yaml(document))
        differing = [k for k in new if k != "count" and new[k] != old.get(k)]
        differing += [k for k in old if k not in new]
        if differing:
            raise IrstkitError(
                f"this folder was made by another recipe: {', '.join(differing)} differ",
                path=path,
                hint="choose another --out, or remove the folder",
            )
        if count < old["count"]:
            raise IrstkitError(
                f"this folder is of {old['count']} {what}, {count} were asked for",
                path=path,
                hint="a larger count continues it, a smaller one needs another --out",
            )
        if count > limit >= old["count"]:
            raise IrstkitError(
                f"sets of more than {limit} images lie in sub-folders: {old['count']} images cannot be continued to {count}",
                path=path,
                hint="choose another --out",
            )
    if (root / "manifest.jsonl").is_file():  # finished: back into parts, to be checked and continued
        reopen(root)
        (root / "manifest.jsonl").unlink()
    write_atomic(path, _yaml(document))


def _yaml(document: dict[str, Any]) -> str:
    return yaml.safe_dump(document, sort_keys=False, width=110, default_flow_style=None, allow_unicode=True)


# -------------------------------------------------------------------------------------------------- run


@dataclass(frozen=True)
class ImageJob:
    """Makes images ``start`` to ``stop`` of a recipe, in whatever process.

    ``root`` None: the images come back with the rows instead of being written. ``part``: the span is a whole
    part of so many images, which is written where it is made; only its number of images comes back.
    """

    root: Path | None
    recipe: Recipe
    count: int
    part: int | None = None

    def __call__(self, start: int, stop: int) -> Any:
        if self.root is None:
            made = (
                encode_image(self.recipe, k, self.count, make_image(self.recipe, k))
                for k in range(start, stop)
            )
            return list(made)
        rows = [
            write_image(self.root, self.recipe, k, self.count, make_image(self.recipe, k))
            for k in range(start, stop)
        ]
        if self.part is None:
            return rows
        write_part(self.root, start // self.part, rows)
        return len(rows)


def _run(root: Path, recipe: Recipe, count: int, workers: int, cluster: Cluster | None) -> None:
    missing = []
    for part in range((count + PART - 1) // PART):
        if read_part(root, part, count) is None:
            part_path(root, part).unlink(missing_ok=True)
            missing.append(part)
    sweep(root)
    todo = [(part * PART, min((part + 1) * PART, count)) for part in missing]
    total = sum(stop - start for start, stop in todo)
    if total < count:
        note(f"continuing: {count - total} of {count} images are there")
    (root / "parts").mkdir(parents=True, exist_ok=True)
    begun = monotonic()
    with progress("Synthesising", count) as bar:
        bar.advance(count - total)
        made = 0
        rows: list[dict[str, Any]] = []
        for result in _results(root, recipe, count, workers, cluster, todo):
            number = result if isinstance(result, int) else len(result)
            made += number
            bar.advance(number, f"{made / max(monotonic() - begun, 1e-6):.0f} images/s")
            if isinstance(result, int):
                continue
            rows += result
            part = rows[0]["manifest"]["index"] // PART
            if len(rows) == min(PART, count - part * PART):
                write_part(root, part, rows)
                rows = []
    if cluster is not None:
        sweep(root)


def sweep(root: Path) -> None:
    """Remove what a killed process was writing."""
    for left in (f for folder in ("images", "masks", "parts") for f in (root / folder).rglob(".*-*")):
        left.unlink()


def _results(
    root: Path, recipe: Recipe, count: int, workers: int, cluster: Cluster | None, todo: list[tuple[int, int]]
) -> Iterator[Any]:
    """Rows of chunk after chunk in index order, or the sizes of parts that were written where they were made."""
    spans = [(a, min(a + CHUNK, stop)) for start, stop in todo for a in range(start, stop, CHUNK)]
    job = ImageJob(root.resolve(), recipe.located(), count)
    if cluster is None:
        yield from results(job, spans, workers)
        return
    token = f"seen-{uuid.uuid4().hex}"
    try:
        if cluster.shares(root / "parts", token):
            whole = len(todo) >= 2 * cluster.slots  # many parts: no row has to come back
            note(
                f"Dask, {cluster.slots} at once: the workers see {root}, read the backgrounds there and write "
                f"the images; tasks of {PART if whole else CHUNK} images"
            )
            job = replace(job, part=PART if whole else None)
            yield from cluster.results(job, todo if whole else spans, root / "parts" / token)
            return
        (root / "parts" / token).unlink()
        sent, size = recipe, 0
        if recipe.store is not None:
            size = recipe.store.path.stat().st_size
            if size > MOST:
                raise IrstkitError(
                    f"the backgrounds are {size >> 20} MiB, more than the {MOST >> 20} that are sent to workers",
                    path=root,
                    hint="an output folder that every worker mounts under the same path",
                )
            sent = replace(recipe, store=replace(recipe.store, data=recipe.store.path.read_bytes()))
        note(
            f"Dask, {cluster.slots} at once: the workers do not see {root}: {size / 2**20:.1f} MiB of backgrounds "
            "were sent to them, the images come back"
        )
        for made in cluster.results(replace(job, root=None, recipe=sent), spans, None):
            for _, files in made:
                for name, data in files.items():
                    write_atomic(root / name, data)
            yield [row for row, _ in made]
    finally:
        (root / "parts" / token).unlink(missing_ok=True)
