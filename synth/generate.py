"""A synthetic data set from a recipe: workers, parts, interruption, continuation. The bytes depend on none of it."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from time import monotonic
from typing import Any

import cv2
import numpy as np
import yaml

from ..annotate.console import note, progress
from ..annotate.errors import IrstkitError
from ..annotate.files import write_atomic
from .backgrounds import PROCEDURAL, Source, gather, read_scenes
from .compose import make_image
from .preset import Preset, load_preset
from .recipe import Recipe
from .writer import FLAT_LIMIT, PART, merge, part_path, read_part, unmerge, write_image, write_part

CHUNK = 20
MIN_SIZE = 48
PREDICT = "predict"
VERSION = 1  # of what the recipe means: raised whenever the same recipe gives other pixels


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
    fresh = not root.exists()
    parts = root / "parts"
    try:
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
    except BaseException:
        if fresh:
            shutil.rmtree(root, ignore_errors=True)
        else:
            (parts / "backgrounds.raw").unlink(missing_ok=True)
            if parts.is_dir() and not any(parts.iterdir()):
                parts.rmdir()
        raise
    _run(root, recipe, count, workers or processors())
    info = {"description": "made by irstkit synth", "preset": recipe.preset.name, "seed": seed}
    totals = merge(root, count, shares, info)
    shutil.rmtree(parts)
    for name, number in totals["splits"].items():
        if number == 0:
            note(f"no image fell into {name}: the backgrounds of its share are too few (or the set is small)")
    return {**totals, "preset": recipe.preset.name, "seed": seed, "out": str(root)}


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
        guessed = Counter(item.scene for item in store.items if not item.labelled and item.scene)
        if guessed:
            told = ", ".join(f"{scene} {n}" for scene, n in sorted(guessed.items()))
            note(f"scenes of {guessed.total()} backgrounds by the scene network: {told}")
        if store.left_out:
            told = ", ".join(f"{n} {reason}" for reason, n in sorted(store.left_out.items()))
            note(f"{len(store.items)} backgrounds; left out: {told}")
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

_recipe: Recipe | None = None


def _begin(recipe: Recipe) -> None:
    """In a worker: one thread each, and no cry when the user interrupts."""
    import signal

    global _recipe
    _recipe = recipe
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _chunk(root: Path, start: int, stop: int, count: int) -> list[dict[str, Any]]:
    assert _recipe is not None
    return [write_image(root, _recipe, k, count, make_image(_recipe, k)) for k in range(start, stop)]


def _run(root: Path, recipe: Recipe, count: int, workers: int) -> None:
    missing = []
    for part in range((count + PART - 1) // PART):
        if read_part(root, part, count) is None:
            part_path(root, part).unlink(missing_ok=True)
            missing.append(part)
    for left in (f for folder in ("images", "masks") for f in (root / folder).rglob(".*.png")):
        left.unlink()  # what a killed run was writing
    todo = [(part * PART, min((part + 1) * PART, count)) for part in missing]
    total = sum(stop - start for start, stop in todo)
    if total < count:
        note(f"continuing: {count - total} of {count} images are there")
    begun = monotonic()
    with progress("Synthesising", count) as bar:
        bar.advance(count - total)
        made = 0
        rows: list[dict[str, Any]] = []
        for part_rows in _results(root, recipe, count, workers, todo):
            rows += part_rows
            made += len(part_rows)
            bar.advance(len(part_rows), f"{made / max(monotonic() - begun, 1e-6):.0f} images/s")
            part = rows[0]["manifest"]["index"] // PART
            if len(rows) == min(PART, count - part * PART):
                write_part(root, part, rows)
                rows = []
    (root / "parts").mkdir(parents=True, exist_ok=True)


def _results(
    root: Path, recipe: Recipe, count: int, workers: int, todo: list[tuple[int, int]]
) -> Iterator[list[dict[str, Any]]]:
    """Rows of chunk after chunk in index order; at most a few chunks a worker are under way at once."""
    spans = [(a, min(a + CHUNK, stop)) for start, stop in todo for a in range(start, stop, CHUNK)]
    if workers == 1 or len(spans) <= 1:
        global _recipe
        before, threads = _recipe, cv2.getNumThreads()
        cv2.setNumThreads(1)
        _recipe = recipe
        try:
            for a, b in spans:
                yield _chunk(root, a, b, count)
        finally:
            _recipe = before
            cv2.setNumThreads(threads)
        return
    # spawn, not fork: OpenCV's own threads, once used, leave a forked child waiting for ever
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(spans)), context, initializer=_begin, initargs=(recipe,))
    try:
        waiting: list[Future] = []
        queue = iter(spans)
        for a, b in queue:
            waiting.append(pool.submit(_chunk, root, a, b, count))
            if len(waiting) >= 4 * workers:
                wait(waiting[:1], return_when=FIRST_COMPLETED)
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def preview(
    out: str | Path,
    recipe: Recipe,
    number: int = 16,
    columns: int = 8,
    *,
    frames: bool = True,
    refused: bool = False,
) -> int:
    """A contact sheet of the first ``number`` images, targets framed, as one PNG; nothing else is written.

    With ``refused``: of what the quality gate turned away, with the reason, among the first 50 x ``number``
    images. Returns the number of images shown.
    """
    from ..annotate.files import write_png

    tiles: list[np.ndarray] = []
    with progress("Looking", number) as bar:
        for index in range(50 * number if refused else number):
            made = make_image(recipe, index)
            if refused:
                for image, reason in made.refused[: number - len(tiles)]:
                    tiles.append(_tile(image))
                    cv2.putText(
                        tiles[-1],
                        reason,
                        (4, 14),
                        cv2.FONT_HERSHEY_SIMPLEX,
                        0.4,
                        (255, 210, 0),
                        1,
                        cv2.LINE_AA,
                    )
                    bar.advance()
                if len(tiles) >= number:
                    break
                continue
            tile = _tile(made.image)
            for target in made.targets if frames else ():
                x1, y1, x2, y2 = target.box
                cv2.rectangle(tile, (x1 - 4, y1 - 4), (x2 + 3, y2 + 3), (255, 210, 0), 1)
            tiles.append(tile)
            bar.advance()
    if not tiles:
        raise IrstkitError(f"the quality gate turned nothing away among {50 * number} images")
    shown = len(tiles)
    tiles = [np.pad(tile, ((1, 1), (1, 1), (0, 0)), constant_values=255) for tile in tiles]
    columns = min(columns, shown)
    while len(tiles) % columns:
        tiles.append(np.full_like(tiles[0], 255))
    rows = [np.hstack(tiles[k : k + columns]) for k in range(0, len(tiles), columns)]
    write_png(out, np.vstack(rows))
    return shown


def _tile(image: np.ndarray) -> np.ndarray:
    gray = image if image.dtype == np.uint8 else (image >> 8).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=2)
