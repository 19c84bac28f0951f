"""Whether a run that is resumed is the run that was stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..annotate.console import note
from ..annotate.errors import IrstkitError
from .material import Material
from .settings import Settings, settings_from


def check_same(former: dict[str, Any], settings: Settings, material: Material, path: Path) -> None:
    """Refuse to go on from ``former`` (the checkpoint ``path``) with other settings or images.

    A longer run is no difference where the schedule is constant, but is said, and so is another number of threads.
    """
    if "training" not in former:
        raise IrstkitError("a best.pt under another name: it holds no state to go on from", path=path)
    now = settings.as_dict()
    then = settings_from(former["settings"], source=path).as_dict()
    for key in [k for k in {**then, **now} if k != "init"]:  # a path, which checkpoints do not hold
        value = then.get(key)
        if now.get(key) == value:
            continue
        longer = settings.schedule == "constant" and not settings.curriculum
        if key in ("steps", "epochs") and longer:
            note(f"{key} was {value}, is {now.get(key)}")
            continue
        raise IrstkitError(
            f"the run has {key} {value!r}, {now.get(key)!r} is asked for",
            path=path,
            hint="resume with the run's own settings; only a constant schedule without curriculum can be made longer",
        )
    seen, about = former["data"], material.about
    if seen != about:
        different = sorted(k for k in {**seen, **about} if seen.get(k) != about.get(k))
        raise IrstkitError(f"the run was on other images (different: {', '.join(different)})", path=path)
    threads = former["training"]["threads"]
    if threads != torch.get_num_threads():
        now_used = torch.get_num_threads()
        note(f"the run used {threads} threads, now {now_used}: equal only up to rounding (--threads)")
