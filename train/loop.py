"""The training loop: one step after the other on Lightning Fabric, resumable to the bit on the CPU.

A step's batches are a function of (seed, step), the learning rate of (step, steps); the rest of the state
(weights, optimiser, average, random generators, sums of the epoch under way) is in ``last.pt``.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..annotate.console import note, progress
from ..annotate.errors import IrstkitError, require
from ..annotate.files import occupied
from .captured import Captured
from .checkpoint import (
    load_checkpoint,
    load_weights,
    merged_ids,
    save_checkpoint,
    start_from,
    streamed_sets,
    weights_hash,
)
from .material import Material
from .models import build, count_parameters
from .optimise import follow, optimiser_of, swapped
from .predictor import choose_device
from .resuming import check_same
from .runs import (
    clear_folder,
    clear_half_written,
    make_folder,
    prepare_folder,
    versions,
    write_log,
    write_run,
)
from .runtime import (
    board_writer,
    cpu_name,
    deterministic,
    memory_kept,
    out_of_memory,
    random_state,
    seed_everything,
    set_random_state,
    signals,
)
from .settings import Settings, learning_rate, stage_lengths
from .tasks import MaskTask, check_output, task_of

DIVERGED = "a smaller --lr, --clip 1, --warmup 100 or --precision 32-true"
"""What helps."""


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
    started: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Train a network; leave ``last.pt``, ``best.pt``, ``log.csv``, ``run.json``, ``tensorboard/`` in ``out``.

    One stage: of settings with stages the last part, see :func:`.stages.fit`.

    Parameters
    ----------
    max_steps, max_minutes
        Stop there, with everything saved; the learning rate keeps following ``settings``' length.
    resume
        Go on with the run in ``out``; its settings and images must be the same. On the CPU, with the same
        number of threads, the end is that of an uninterrupted run, to the bit.
    save_minutes
        Between validations too write ``last.pt`` where the one before is older: what a killed process loses.
    cuda_graph
        On a GPU, networks of masks: record a step and replay it (see :mod:`.captured`).
    started
        Called once all inputs were checked, before anything is written.

    Returns
    -------
    What ``run.json`` holds.

    Raises
    ------
    IrstkitError
        For a folder in use, settings or images that differ on resuming, a loss that is not finite, or a batch
        that does not fit in memory. Nothing is written before all inputs were checked.
    """
    with deterministic(), memory_kept():
        run = _Run(settings, material, Path(out), device, overwrite, resume, cuda_graph)
        if started is not None:
            started()
        return run.train(max_steps, max_minutes, save_minutes)


class _Run:
    """One run; its attributes are what a checkpoint holds."""

    def __init__(
        self,
        settings: Settings,
        material: Material,
        out: Path,
        device: str,
        overwrite: bool,
        resume: bool,
        cuda_graph: bool,
    ) -> None:
        fabric_module = require("lightning.fabric", "train")
        prepare_folder(out, overwrite=overwrite, resume=resume)
        if settings.stages and settings.init is None and not resume:
            raise IrstkitError("the last of several stages starts from weights: see train.stages.fit")
        self.settings, self.material, self.out, self.overwrite = settings, material, out, overwrite
        target = choose_device(device)
        # Fabric would take bfloat16 there and not say so
        if target.type == "cpu" and settings.precision == "16-mixed":
            raise IrstkitError(
                "precision 16-mixed needs a GPU: the CPU has no half precision to train in",
                hint="--precision bf16-mixed or 32-true",
            )
        former = load_checkpoint(out / "last.pt", model=settings.model) if resume else None
        if former is not None:
            check_same(former, settings, material, out / "last.pt")
        seed_everything(settings.seed)
        self.net: nn.Module = build(settings.model, **settings.options)
        self.seen = material.ids
        self.streamed = [] if material.stream is None else [material.about["synthetic"]["name"]]
        self.init: dict[str, Any] | None = (former or {}).get("init")
        if former is None and settings.init is not None:
            self.init, start = start_from(self.net, settings.init)
            self.seen = merged_ids(material.ids, start["seen"])
            self.streamed = sorted({*self.streamed, *streamed_sets(start)})
        stride = int(getattr(self.net, "stride", 1))
        if settings.crop % stride:
            raise IrstkitError(
                f"crop is {settings.crop}, expected a multiple of {stride} for {settings.model}"
            )
        check_output(self.net, settings)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice on settings that are ours to make
            self.fabric = fabric_module.Fabric(
                accelerator="cuda" if target.type == "cuda" else target.type,
                devices=[target.index or 0] if target.type == "cuda" else 1,
                precision=settings.precision,  # type: ignore[arg-type]
            )
            self.fabric.launch()
        self.device = self.fabric.device
        self.task = task_of(self.net, settings, material, self.device)
        self.batches = self.task.batches
        passes = -(-len(self.batches) // settings.accumulate)
        self.epoch_steps = max(1, passes)
        self.steps = stage_lengths(settings)[-1] * (self.epoch_steps if settings.steps is None else 1)
        fused = self.device.type == "cuda" and settings.precision != "16-mixed"
        self.net.to(self.device)  # before its optimiser: Adagrad begins with tensors beside the weights
        self.optimiser = optimiser_of(settings, self.net, fused=fused)
        self.model, self.optimiser = self.fabric.setup(self.net, self.optimiser)
        self.channels = int(getattr(self.net, "in_channels", 1))
        # gradients of several passes add up, and half precision's scaler decides on the host: both stay eager
        recorded = isinstance(self.task, MaskTask) and settings.accumulate == 1
        recorded &= self.device.type == "cuda" and settings.precision != "16-mixed"
        self.captured = Captured(self._pass, self.net) if recorded and cuda_graph else None
        self.average: dict[str, Tensor] | None = None
        if settings.ema is not None:
            self.average = {k: v.detach().clone() for k, v in self.net.state_dict().items()}
        self.step = 0
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {}
        self.stale = 0
        self.sums = {"loss": 0.0, "seconds": 0.0, "data": 0.0, "steps": 0}
        self.resumed = former is not None
        if former is not None:
            self._restore(former)

    # ------------------------------------------------------------------------------------------ the loop

    def train(self, max_steps: int | None, max_minutes: float | None, save_minutes: float) -> dict[str, Any]:
        """Run to the end, or to the first reason to stop before it; the folder is held against other processes."""
        make_folder(self.out)
        with occupied(self.out):
            if not self.resumed:  # another run may have come and gone here since
                prepare_folder(self.out, overwrite=self.overwrite, resume=False)
            return self._train(max_steps, max_minutes, save_minutes)

    def _train(self, max_steps: int | None, max_minutes: float | None, save_minutes: float) -> dict[str, Any]:
        self._saved_at = begun = time.monotonic()
        first = self.step
        if not self.resumed:
            clear_folder(self.out)
        clear_half_written(self.out)
        write_log(self.out, self.history)
        write_run(self.out, self._report("running"))
        reason = None
        with (
            signals() as signalled,  # first: a writer of TensorBoard takes a second to begin
            board_writer(self.out, self.step) as board,
            progress(f"training {self.settings.model}", self.steps, unit="steps") as bar,
        ):
            bar.advance(first)
            self.model.train()
            while self.step < self.steps and (reason := reason or self._tired()) is None:
                loss = self._step()
                self.step += 1
                if self.step % self.epoch_steps == 0:
                    self.task.end_epoch(self.net)
                bar.advance(1, f"loss {loss:.4f}  best val {self.task.best_name} {self._best_text()}")
                if (
                    self.step % (self.epoch_steps * self.settings.validate_every) == 0
                    or self.step == self.steps
                ):
                    self._end_epoch(board)
                elif time.monotonic() - self._saved_at >= 60 * save_minutes:
                    self._save_last()
                if signalled:
                    reason = f"{signalled[0]} received"
                elif max_steps is not None and self.step - first >= max_steps and self.step < self.steps:
                    reason = f"{max_steps} steps of --max-steps done"
                elif max_minutes is not None and time.monotonic() - begun >= 60 * max_minutes:
                    reason = f"{max_minutes:g} minutes of --max-minutes passed"
        if self.step == self.steps:
            reason = None
        elif reason is not None and self._saved != self.step:
            self._save_last()
        early = reason is not None and reason == self._tired()
        report = self._report("finished" if reason is None or early else "stopped", reason)
        write_run(self.out, report)
        if reason is not None and not early:
            note(f"stopped at step {self.step} of {self.steps}: {reason}; go on with --resume")
        elif early:
            note(f"finished at step {self.step} of {self.steps}: {reason}")
        return report

    def _tired(self) -> str | None:
        """The reason of early stopping, once there is one."""
        if self.settings.patience is None or self.stale < self.settings.patience:
            return None
        return f"no better validation {self.task.best_name} in {self.stale} validations"

    def _pass(self, images: Tensor, targets: Any) -> Tensor:
        """Forward pass, loss and backward pass of a batch; the loss."""
        loss = self.task.loss(self.model, images, targets) / self.settings.accumulate
        self.fabric.backward(loss)
        return loss.detach()

    def _step(self) -> float:
        """One optimiser step; returns its loss."""
        s, start = self.settings, time.perf_counter()
        rate = learning_rate(s, self.step, self.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        total, waited = 0.0, 0.0
        try:
            for k in range(s.accumulate):
                before = time.perf_counter()
                images, targets = self.batches.batch(self.step * s.accumulate + k)
                images = (images - s.mean) / s.std
                images = images.expand(*images.shape[:-3], self.channels, *images.shape[-2:])
                waited += time.perf_counter() - before
                try:
                    loss = (self.captured or self._pass)(images, targets)
                except ValueError as error:  # a norm over one value, a size the network does not take
                    raise IrstkitError(
                        f"{s.model} cannot be trained on batches of {tuple(images.shape)}: {error}",
                        hint="a larger --batch or --crop",
                    ) from error
                total += loss.item()
            if not math.isfinite(total):
                raise IrstkitError(
                    f"the loss is {total} at step {self.step + 1} (lr {rate:g}, {s.precision})",
                    path=self.out,
                    hint=DIVERGED,
                )
            if s.clip is not None:
                self.fabric.clip_gradients(
                    self.model, self.optimiser, max_norm=s.clip, error_if_nonfinite=False
                )
            self.optimiser.step()
            self.optimiser.zero_grad()
        except (MemoryError, RuntimeError) as error:
            if (explained := out_of_memory(error, s, self.step, self.device)) is not None:
                raise explained from error
            raise
        if self.average is not None:
            follow(self.average, self.net.state_dict(), min(s.ema or 0.0, (1 + self.step) / (10 + self.step)))
        self.sums["loss"] += total
        self.sums["data"] += waited
        self.sums["seconds"] += time.perf_counter() - start
        self.sums["steps"] += 1
        return total

    def _end_epoch(self, board: Any) -> None:
        """Validate, log, and write the checkpoints."""
        sums = self.sums
        row: dict[str, Any] = {
            "step": self.step,
            "epoch": round(self.step / self.epoch_steps, 6),
            "loss": sums["loss"] / sums["steps"],
            "lr": learning_rate(self.settings, self.step - 1, self.steps),
            "seconds": round(sums["seconds"], 3),
            "data_share": round(sums["data"] / max(sums["seconds"], 1e-9), 4),
        }
        numbers = self._validate()
        row.update({f"val_{k}": numbers[k] for k in self.task.columns if numbers})
        self.history.append(row)
        self.sums = dict.fromkeys(sums, 0)
        # without validation images, or targets in them, there is nothing to choose by: the last is the best known
        # (without targets, IoU is 0 with a false alarm and undefined without)
        found = numbers[self.task.best] if numbers and numbers["targets"] else None
        score = -1.0 if found is None else found
        if numbers and not numbers["targets"] and not self.best:
            note("no target in the validation part: nothing to choose by, the last weights are kept")
        if not self.best or score > self.best["score"] or score < 0:
            self.best = {"score": score, "step": self.step, "metrics": numbers}
            self.stale = 0
            save_checkpoint(self.out / "best.pt", self._content(self._weights(), numbers))
        else:
            self.stale += 1
        self._save_last()
        write_log(self.out, self.history)
        for key, value in row.items():
            if value is not None and key not in ("step", "epoch"):
                board.add_scalar(key.replace("val_", "validation/"), value, self.step)
        board.flush()

    def _validate(self) -> dict[str, Any]:
        """The metrics on the validation part, at native size, of the averaged weights where there are some."""
        if not self.task.validated:
            return {}
        with swapped(self.net, self.average):
            return self.task.validate(self.net)

    # ------------------------------------------------------------------------------------------ its state

    def _weights(self) -> dict[str, Tensor]:
        """The weights to use: averaged ones where there are some."""
        return self.net.state_dict() if self.average is None else self.average

    def _content(self, state: dict[str, Tensor], metrics: dict[str, Any]) -> dict[str, Any]:
        state = {k: v.detach().cpu().clone() for k, v in state.items()}
        return {
            "model": {"name": self.settings.model, "options": dict(self.settings.options), "state": state},
            "normalisation": {"mean": self.settings.mean, "std": self.settings.std},
            "step": self.step,
            "epoch": self.step / self.epoch_steps,
            "metrics": metrics,
            "data": self.material.about,
            "init": self.init,
            "seen": self.seen,
            "streamed": self.streamed,
            "settings": {k: v for k, v in self.settings.as_dict().items() if k != "init"},  # a path
            "steps": self.steps,
            "weights": weights_hash(state),
            "versions": versions(),
        }

    def _save_last(self) -> None:
        for name, values in self.net.named_parameters():
            if not torch.isfinite(
                values
            ).all():  # the next step's loss would say so, but last.pt would be lost
                raise IrstkitError(
                    f"the weights {name} are not numbers after step {self.step}", path=self.out, hint=DIVERGED
                )
        metrics = self.best.get("metrics", {}) if self.best.get("step") == self.step else {}
        content = self._content(self.net.state_dict(), metrics)
        content["training"] = {
            "optimiser": self.optimiser.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "average": self.average,
            "random": random_state(),
            "history": self.history,
            "best": self.best,
            "stale": self.stale,
            "sums": self.sums,
            "threads": torch.get_num_threads(),
        }
        save_checkpoint(self.out / "last.pt", content)
        self._saved, self._saved_at = self.step, time.monotonic()

    _saved, _saved_at = -1, 0.0

    def _restore(self, former: dict[str, Any]) -> None:
        state = former["training"]
        load_weights(self.net, former["model"]["state"], self.out / "last.pt")
        self.optimiser.load_state_dict(state["optimiser"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        if state["average"] is not None and self.average is not None:
            self.average = {k: v.to(self.device) for k, v in state["average"].items()}
        self.step, self.seen, self.streamed = former["step"], former["seen"], sorted(streamed_sets(former))
        self.history, self.best = state["history"], state["best"]
        self.stale, self.sums = state["stale"], state["sums"]
        self._saved = self.step
        set_random_state(state["random"])

    def _selection(self) -> str:
        """How the best checkpoint is chosen."""
        if not self.task.validated:
            return "last (no validation part)"
        if self.best and self.best["score"] < 0:
            return "last (no target in the validation part)"
        return f"largest {self.task.best_name} on the validation part"

    def _best_text(self) -> str:
        return f"{self.best['score']:.4f}" if self.best and self.best["score"] >= 0 else "-"

    def _report(self, status: str, reason: str | None = None) -> dict[str, Any]:
        return {
            "kind": "irstkit training run",
            "status": status,
            "reason": reason,
            "step": self.step,
            "steps": self.steps,
            "steps_an_epoch": self.epoch_steps,
            "parameters": count_parameters(self.net),
            "settings": self.settings.as_dict(),
            "init": self.init,
            "data": self.material.about,
            "paths": self.material.paths,
            "selection": self._selection(),
            "best": {"step": self.best["step"], "metrics": self.best["metrics"]} if self.best else None,
            "last": self.history[-1] if self.history else None,
            "weights": weights_hash(self.net.state_dict()),
            "device": str(self.device),
            "device_name": torch.cuda.get_device_name(self.device)
            if self.device.type == "cuda"
            else cpu_name(),
            "cuda_graph": self.captured is not None and self.captured.replays,
            "threads": torch.get_num_threads(),
            "versions": versions(),
        }
