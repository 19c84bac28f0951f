"""A set of sequences from a recipe: workers, parts, interruption, continuation. The bytes depend on none of it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from time import monotonic
from typing import Any
from uuid import uuid4

from ...annotate.console import note, progress
from ...annotate.errors import IrstkitError
from ..backgrounds import refuse_inside
from ..cluster import Cluster, connect
from ..generate import beginning, check_folder, claim, describe, held, prepare, processors, sweep
from ..pool import results
from ..recipe import Recipe
from ..writer import part_path, tell_troubles
from .frames import make_frame
from .listing import Listed, read_listed
from .plan import Plan, SequenceRecipe, make_plan
from .preset import SequencePreset, load_sequence_preset
from .writer import (
    LOSSLESS,
    Span,
    describe_plan,
    merge,
    read_block,
    spans_of,
    unmerge,
    write_block,
    write_frame,
)

VERSION = 2  # of what the recipe means: raised whenever the same recipe gives other pixels
MOST = 9999


def generate(
    out: str | Path,
    sequences: int | None = None,
    frames: int | None = None,
    seed: int = 0,
    backgrounds: Sequence[str | Path] | str | Path = (),
    preset: str | Path | SequencePreset = "daub",
    *,
    size: tuple[int, int] | None = None,
    splits: dict[str, float] | None = None,
    workers: int | None = None,
    dask: str | None = None,
    overrides: Sequence[str] = (),
    exclude: Sequence[str | Path] = (),
    include_test: bool = False,
    scenes: str | Path | None = None,
    depth: int | None = None,
    onto: Sequence[str | Path] = (),
) -> dict[str, Any]:
    """Make a data set of sequences in the folder ``out`` and return its totals.

    Parameters
    ----------
    out
        New or empty, or what an earlier, perhaps interrupted, run with the same recipe left.
    sequences, frames
        Number of sequences (default 10), and of frames in each (default 100). With ``onto`` the most that is
        taken of each list, and of each of its sequences (default all).
    size
        (width, height) of the frames; default the preset's, with ``onto`` the list's.
    splits
        ``{part: share}``; which part a sequence belongs to follows from its background. Default: all train.
        With ``onto`` the lists decide.
    onto
        Published lists (SSTNet's, COCO files, or a folder with lists) whose frames are made, with a target in
        each of their boxes.

    The other parameters are those of :func:`irstkit.synth.generate.generate`.

    Raises
    ------
    IrstkitError
        For bad input, or when ``out`` holds something else or the result of another recipe.
    """
    root = Path(out)
    check_folder(root, splits or {"train": 1.0}, depth)
    refuse_inside(root, backgrounds)
    parts = root / "parts"
    with connect(dask) if dask else nullcontext() as cluster, held(root) as fresh:
        with beginning(root, fresh):
            recipe = prepare_sequences(
                parts / "backgrounds.raw", sequences, frames, seed, backgrounds, preset, size=size, splits=splits,
                overrides=overrides, exclude=exclude, include_test=include_test, scenes=scenes, depth=depth, onto=onto,
            )  # fmt: skip
            count = len(recipe.listed) or sequences or 10
            claim(
                root, describe_sequences(recipe, count, include_test), count, what="sequences", limit=MOST,
                reopen=lambda path: unmerge(path, recipe),
            )  # fmt: skip
        spans = spans_of(recipe, count)
        _run(root, recipe, spans, workers or processors(), cluster)
        info = {"description": "made by irstkit synth sequences", "preset": recipe.preset.name, "seed": seed}
        totals = merge(root, recipe, spans, recipe.splits, info)
        shutil.rmtree(parts)
    for name, number in totals["splits"].items():
        if number == 0:
            note(
                f"no sequence fell into {name}: the backgrounds of its share are too few (or the set is small)"
            )
    tell_troubles(totals, recipe, totals["sequences"])
    return {**totals, "preset": recipe.preset.name, "seed": seed, "out": str(root)}


def prepare_sequences(
    store_path: Path,
    sequences: int | None = None,
    frames: int | None = None,
    seed: int = 0,
    backgrounds: Sequence[str | Path] | str | Path = (),
    preset: str | Path | SequencePreset = "daub",
    *,
    size: tuple[int, int] | None = None,
    splits: dict[str, float] | None = None,
    onto: Sequence[str | Path] = (),
    overrides: Sequence[str] = (),
    **other: Any,
) -> SequenceRecipe:
    """Everything that a plan and its frames need; cleaned backgrounds are kept in the file ``store_path``."""
    for what, number, most in (("sequences", sequences, MOST), ("frames", frames, 1_000_000)):
        if number is not None and not 1 <= number <= most:
            raise IrstkitError(f"the number of {what} must be from 1 to {most}, got {number}")
    if seed < 0:
        raise IrstkitError(f"the seed must be at least 0, got {seed}")
    if size is not None and not all(48 <= side <= 8192 for side in size):
        raise IrstkitError(f"the sides of a frame go from 48 to 8192 pixels, got {size[0]}x{size[1]}")
    chosen = preset if isinstance(preset, SequencePreset) else load_sequence_preset(preset, list(overrides))
    listed: tuple[Listed, ...] = ()
    if onto:
        if splits:
            raise IrstkitError("the parts of listed sequences are those of their lists", hint="drop --splits")
        listed = read_listed(onto, size[::-1] if size else None, sequences, frames)
        _check_listed(listed, other.get("depth"))
        splits = _shares(listed)
        shape = max((s.size for s in listed), key=lambda v: v[0] * v[1])
    else:
        shape = (size or chosen.sequence.size)[::-1]
    # the smaller side of a background: three eighths of the frame's, since it is enlarged and mirrored
    least = -(-3 * min(shape) // 4)
    made: Recipe = prepare(store_path, seed, backgrounds, chosen, size=least, splits=splits, **other)
    recipe = SequenceRecipe(
        chosen, seed, min(shape), made.depth, made.store, made.splits, frames or 100, shape, listed
    )
    if listed and recipe.depth == 16 and any(f.lower().endswith(".bmp") for s in listed for f in s.files):
        raise IrstkitError("BMP has no 16 bits: these lists' frames are made with --depth 8")
    return recipe


def _check_listed(listed: tuple[Listed, ...], depth: int | None) -> None:
    for sequence in listed:
        for name in sequence.files:
            if PurePosixPath(name).suffix.lower() not in LOSSLESS:
                raise IrstkitError(
                    f"the frame {name!r} would be written with loss, and its SCR with it",
                    path=sequence.source, hint=f"names may end in {', '.join(LOSSLESS)}",
                )  # fmt: skip


def _shares(listed: tuple[Listed, ...]) -> dict[str, float]:
    """Parts of the lists by their frames, the training part first."""
    total: dict[str, float] = {}
    for sequence in sorted(listed, key=lambda s: s.part != "train"):
        total[sequence.part] = total.get(sequence.part, 0.0) + len(sequence.files)
    return total


def describe_sequences(recipe: SequenceRecipe, count: int, include_test: bool = False) -> dict[str, Any]:
    """synth.yaml of a set of sequences."""
    document = describe(recipe, count, include_test)
    document["recipe"] = f"sequences {VERSION}"
    document["size"] = [recipe.shape[1], recipe.shape[0]]
    out: dict[str, Any] = {}
    for key, value in document.items():
        out[key] = value
        if key == "size":
            out["frames"] = recipe.frames if not recipe.listed else None
    if recipe.listed:
        out["onto"] = [
            {"list": s.source, "sequence": s.name, "part": s.part, "size": [s.size[1], s.size[0]],
             "frames": len(s.files), "boxes": _digest(s)}
            for s in recipe.listed
        ]  # fmt: skip
    return out


def _digest(listed: Listed) -> str:
    return hashlib.sha256(repr((listed.files, listed.frames, listed.boxes)).encode()).hexdigest()[:16]


# -------------------------------------------------------------------------------------------------- run


@dataclass
class SequenceJob:
    """Makes and writes parts; picklable. The plan of the last sequence is kept, since its parts follow."""

    root: Path
    recipe: SequenceRecipe
    spans: list[Span]
    _plan: Plan | None = field(default=None, repr=False)

    def __call__(self, start: int, stop: int) -> int:
        """Make the parts ``start`` to ``stop``; returns the number of frames."""
        made = 0
        for number in range(start, stop):
            span = self.spans[number]
            plan = self._plan  # a thread beside this one may set another
            if plan is None or plan.index != span[0]:
                plan = self._plan = make_plan(self.recipe, span[0])
            rows = [
                write_frame(self.root, self.recipe, plan, t, make_frame(self.recipe, plan, t))
                for t in range(span[1], span[2])
            ]
            write_block(self.root, number, span, describe_plan(self.recipe, plan), rows)
            made += len(rows)
        return made


def _run(
    root: Path, recipe: SequenceRecipe, spans: list[Span], workers: int, cluster: Cluster | None
) -> None:
    todo = []
    for number, span in enumerate(spans):
        if read_block(root, number, recipe, span) is None:
            part_path(root, number).unlink(missing_ok=True)
            todo.append(number)
    sweep(root)
    total = sum(b - a for _, a, b in spans)
    there = total - sum(spans[k][2] - spans[k][1] for k in todo)
    if there:
        note(f"continuing: {there} of {total} frames are there")
    begun, made = monotonic(), 0
    with progress("Synthesising", total, unit="frames") as bar:
        bar.advance(there)
        for number in _results(root, recipe, spans, todo, workers, cluster):
            made += number
            bar.advance(number, f"{made / max(monotonic() - begun, 1e-6):.0f} frames/s")
    if cluster is not None:
        sweep(root)
    (root / "parts").mkdir(parents=True, exist_ok=True)


def _results(
    root: Path,
    recipe: SequenceRecipe,
    spans: list[Span],
    todo: list[int],
    workers: int,
    cluster: Cluster | None,
) -> Iterator[int]:
    """Numbers of frames, part after part."""
    job = SequenceJob(root.resolve(), recipe.located(), spans)
    tasks = [(k, k + 1) for k in todo]
    if cluster is None:
        yield from results(job, tasks, workers)
        return
    (root / "parts").mkdir(parents=True, exist_ok=True)
    token = f"seen-{uuid4().hex}"
    try:
        if not cluster.shares(root / "parts", token):
            raise IrstkitError(
                "the cluster's workers do not see this folder, and sequences are written where they are made",
                path=root,
                hint="an output folder that every worker mounts under the same path",
            )
        note(f"Dask, {cluster.slots} at once: the workers see {root} and write the frames; a part is a task")
        yield from cluster.results(job, tasks, root / "parts" / token)
    finally:
        (root / "parts" / token).unlink(missing_ok=True)
