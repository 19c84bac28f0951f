"""Training in stages: other options of the network first, each stage from the weights of the former.

A stage is a run of its own in ``stage1/``, ``stage2/``, ... of the run's folder, on the same images and with the
same settings but for its length and options. The run itself is the last part. Without stages it is all there is.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ..annotate.console import note
from ..annotate.errors import IrstkitError
from ..annotate.files import occupied
from .loop import fit as fit_one
from .material import Material
from .runs import clear_folder, clear_stages, make_folder, prepare_folder, read_run, write_run
from .settings import Settings, stage_lengths


def fit(
    settings: Settings,
    material: Material,
    out: str | Path,
    *,
    device: str = "auto",
    overwrite: bool = False,
    resume: bool = False,
    max_steps: int | None = None,
    max_minutes: float | None = None,
    save_minutes: float = 10.0,
    cuda_graph: bool = True,
) -> dict[str, Any]:
    """:func:`.loop.fit`, after the stages of ``settings`` where it has some. Stopped in a stage it is resumed there.

    Returns
    -------
    What ``run.json`` holds; where it stopped in a stage, with ``stage``: its number and options, and ``step`` and
    ``steps`` of that stage.
    """
    out = Path(out)
    how: dict[str, Any] = {"device": device, "save_minutes": save_minutes, "cuda_graph": cuda_graph}
    if not settings.stages or (resume and (out / "last.pt").exists()):
        return fit_one(
            settings, material, out, overwrite=overwrite, resume=resume, max_steps=max_steps, max_minutes=max_minutes, **how,
            started=partial(clear_stages, out) if overwrite else None,
        )  # fmt: skip
    prepare_folder(out, overwrite=overwrite, resume=resume)
    lengths = stage_lengths(settings)
    end = None if max_minutes is None else time.monotonic() + 60 * max_minutes
    init, left, fresh = settings.init, max_steps, not resume
    for k, (stage, length) in enumerate(zip(settings.stages, lengths, strict=False), start=1):
        folder = out / f"stage{k}"
        unit = "epochs" if settings.steps is None else "steps"
        one = replace(settings, stages=(), init=init, options={**settings.options, **stage["options"]})
        one = replace(one, epochs=length) if settings.steps is None else replace(one, steps=length)
        told: dict[str, Any] = {"stage": k, "of": len(lengths), "options": dict(stage["options"])}
        report = None if fresh else _former(folder, one)
        if report is None:
            shown = " ".join(f"{name}={value}" for name, value in stage["options"].items())
            note(f"stage {k} of {len(lengths)}: {shown}, {length} {unit}")
            begun: dict[str, Any] = {
                "kind": "irstkit training run",
                "status": "running",
                "reason": None,
                "stage": told,
            }
            begun |= {"step": 0, "steps": length, "settings": settings.as_dict()}
            begun |= {"data": material.about, "paths": material.paths}
            going_on = not fresh and (folder / "last.pt").exists()
            before = read_run(folder)["step"] if going_on else 0
            report = fit_one(
                one, material, folder, **how, resume=going_on, overwrite=folder.exists() and not going_on,
                max_steps=left, max_minutes=None if end is None else max(1e-3, (end - time.monotonic()) / 60),
                started=partial(_begin, out, begun, fresh),
            )  # fmt: skip
            fresh = False
            left = None if left is None else left - (report["step"] - before)
        over = (left is not None and left <= 0) or (end is not None and time.monotonic() >= end)
        if report["status"] != "finished" or over:
            report = {**report, "status": "stopped", "stage": told, "settings": settings.as_dict()}
            write_run(out, report)
            return report
        init = str(folder)
    note(f"stage {len(lengths)} of {len(lengths)}: the whole network, {lengths[-1]} {unit}")
    return fit_one(
        replace(settings, init=init), material, out, **how, overwrite=True, max_steps=left,
        max_minutes=None if end is None else max(1e-3, (end - time.monotonic()) / 60),
    )  # fmt: skip


def _begin(out: Path, report: dict[str, Any], fresh: bool) -> None:
    """A stage begins: the run's own folder says so; of a new run it loses what a former one left."""
    if fresh:
        for path in (out, *out.glob("stage?")):
            with occupied(path) if path.is_dir() else nullcontext():  # nobody is at work here
                pass
        clear_stages(out)
        clear_folder(out)
    make_folder(out)
    write_run(out, report)


def _former(folder: Path, settings: Settings) -> dict[str, Any] | None:
    """The report of a stage that is done, with these settings; None where it is not."""
    if not (folder / "run.json").exists():
        return None
    report = read_run(folder)
    if report["status"] != "finished":
        return None
    now, then = settings.as_dict(), report["settings"]
    for key in sorted((now.keys() | then.keys()) - {"init"}):
        if now.get(key) != then.get(key):
            raise IrstkitError(
                f"this stage was trained with {key} {then.get(key)!r}, {now.get(key)!r} is asked for",
                path=folder,
                hint="resume with the run's own settings, or --overwrite",
            )
    return report
