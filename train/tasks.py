"""What differs between networks of masks and of boxes, of images and of clips: batches, loss, validation.

A network says what it is: ``task`` (``mask``, the default, or ``boxes``), and for clips ``window``, ``key`` and
``border`` (see :mod:`.models`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..annotate.console import note
from ..annotate.errors import IrstkitError
from ..datasets.batches import Batches, Pixels
from ..datasets.clip_batches import ClipBatches, Images
from ..datasets.clips import Clips, sequences_of
from ..datasets.curriculum import Curriculum, curriculum_of
from ..datasets.real_share import RealShare
from ..datasets.records import Record
from ..datasets.shard_batches import ShardBatches
from .anchors import fit_anchors
from .box_predictor import BoxPredictor
from .detection_metrics import DetectionMeter, DetectionSettings
from .device_sums import Pending, begin
from .losses import get_loss, supervised
from .material import Material
from .metrics import SegmentationMeter
from .predictor import Predictor, are_numbers
from .sequence import is_clip_model, outputs, to_tensor
from .settings import Settings


class Task(Protocol):
    """What the loop asks of a task."""

    batches: Any
    columns: tuple[str, ...]
    """Validation numbers that are logged."""
    best: str
    """The one by which the best checkpoint is chosen, and its name for people in ``best_name``."""
    best_name: str
    validated: bool

    def loss(self, model: nn.Module, images: Tensor, targets: Any) -> Tensor: ...

    def validate(self, net: nn.Module) -> dict[str, Any]: ...

    def end_epoch(self, net: nn.Module) -> None: ...


def task_of(net: nn.Module, settings: Settings, material: Material, device: torch.device) -> Task:
    """The task of a network."""
    if getattr(net, "task", "mask") == "boxes":
        return BoxTask(net, settings, material, device)
    return MaskTask(net, settings, material, device)


class MaskTask:
    """Masks of images, or of the key frames of clips."""

    columns: tuple[str, ...] = ("iou", "niou", "pd", "fa", "precision", "recall")
    best, best_name = "iou", "IoU"

    def __init__(self, net: nn.Module, s: Settings, material: Material, device: torch.device) -> None:
        self.settings, self.device = s, device
        if s.mosaic or s.scale != (1.0, 1.0):
            raise IrstkitError(
                f"scale and mosaic are for networks of boxes, {s.model} learns masks: these are never resized",
                hint="leave --scale and --mosaic away",
            )
        self._loss = get_loss(s.loss)
        self._clips = is_clip_model(net)
        self.validated = bool(material.validation)
        self.batches: Any
        if self._clips:
            _refuse(s, material)
            clips = clips_of(net, material.train, material.context, masks=True)
            self.batches = ClipBatches(
                clips, s.batch, s.crop, s.seed, s.augment, device=device, targets="masks",
                real_share=_real_share(s, material),
            )  # fmt: skip
            self._records = list(material.validation)
            self._images = {r.id: r.read_image() for r in self._records}
        else:
            self.batches = self._single(material)
            self._pixels = Pixels(material.validation) if material.validation else None

    def _single(self, material: Material) -> Batches | ShardBatches:
        """Batches of single images."""
        s = self.settings
        if material.stream is None:
            pixels = Pixels(material.train)
            return Batches(
                pixels, s.batch, s.crop, s.seed, s.augment, device=self.device,
                curriculum=_curriculum(s, material.train, pixels), real_share=_real_share(s, material),
            )  # fmt: skip
        if s.curriculum:
            raise IrstkitError(
                "a curriculum needs the whole set at hand", hint="leave --stream or --curriculum away"
            )
        if s.real_share is not None:
            raise IrstkitError(
                "with --stream, --real-fraction is the share of real samples", hint="leave --real-share away"
            )
        return ShardBatches(
            material.stream, s.batch, s.crop, s.seed, s.augment, device=self.device,
            real=material.train, real_share=material.real_share,
        )  # fmt: skip

    def end_epoch(self, net: nn.Module) -> None:
        """Nothing is remembered from epoch to epoch."""

    def loss(self, model: nn.Module, images: Tensor, targets: Any) -> Tensor:
        return supervised(self._loss, model(images), targets)

    def validate(self, net: nn.Module) -> dict[str, Any]:
        s = self.settings
        meter = SegmentationMeter(threshold=s.threshold, distance=s.distance)
        if self._clips:
            predictor = ClipPredictor(net, device=self.device, mean=s.mean, std=s.std)
            for record, found in predictor.records(self._records, read=lambda r: self._images[r.id]):
                meter.update(found, record.read_mask(), id=record.id)
            return meter.compute()
        single = Predictor(net, device=self.device, mean=s.mean, std=s.std)
        pixels = self._pixels
        assert pixels is not None

        def one(k: int, mask: NDArray[np.bool_], found: Pending) -> SegmentationMeter:
            answer, part = found.wait(), SegmentationMeter(threshold=s.threshold, distance=s.distance)
            part.update(answer.positive, mask, id=pixels.ids[k], sums=answer.sums)
            return part

        with ThreadPoolExecutor(2) as pool:  # components, while the network is at the next image
            parts = []
            for k in range(len(pixels)):
                mask = pixels.mask(k).astype(bool)
                begun = begin(single.logits(pixels.image(k)), mask, s.threshold)
                parts.append(pool.submit(one, k, mask, begun))
            for part in parts:
                meter.merge(part.result())
        return meter.compute()


def _curriculum(s: Settings, records: Sequence[Record], pixels: Pixels) -> Curriculum | None:
    """The curriculum that the settings ask for."""
    if not s.curriculum:
        return None
    passes = -(-len(pixels) // (s.batch * s.accumulate))
    batches = (s.steps or (s.epochs or 0) * passes) * s.accumulate
    found = curriculum_of(records, pixels, max(1, round(s.curriculum * batches)))
    finite = found.scores[np.isfinite(found.scores)]
    if len(finite):
        note(
            f"curriculum: SCR {found.threshold(0):.1f} and more at first, all ({finite.min():.1f} and more) after "
            f"{found.batches} of {batches} batches"
        )
    return found


def _real_share(s: Settings, material: Material) -> RealShare | None:
    """How often real images come, where the settings say."""
    if s.real_share is None:
        return None
    return RealShare(material.real, len(material.train), s.real_share)


def _refuse(s: Settings, material: Material) -> None:
    """What only networks of masks of single images have."""
    for word, given in (("curriculum", s.curriculum), ("stream", material.stream)):
        if given:
            raise IrstkitError(
                f"a {word} is for networks of masks of single images, not for {s.model}",
                hint=f"leave --{word} away",
            )


class BoxTask:
    """Boxes of images, or of the key frames of clips."""

    columns: tuple[str, ...] = ("ap50", "precision", "recall", "f1", "pd", "fa")
    best, best_name = "ap50", "AP50"

    def __init__(self, net: nn.Module, s: Settings, material: Material, device: torch.device) -> None:
        self.settings, self.device, self.net = s, device, net
        _refuse(s, material)
        self.validated = bool(material.validation)
        clips = clips_of(net, material.train, material.context)
        self.batches = ClipBatches(
            clips, s.batch, s.crop, s.seed, s.augment, device=device, single=not is_clip_model(net),
            scale=(s.scale[0], s.scale[1]) if s.augment else (1.0, 1.0), mosaic=s.mosaic if s.augment else 0.0,
            real_share=_real_share(s, material),
        )  # fmt: skip
        self._records = list(material.validation)
        self._images = {r.id: r.read_image() for r in self._records}
        self._boxes = {r.id: r.read_boxes() for r in self._records}
        if hasattr(net, "set_anchors") and "anchors" not in s.options:
            self._fit_anchors(net, clips)

    @staticmethod
    def _fit_anchors(net: Any, clips: Clips | Images) -> None:
        sizes = np.concatenate([b[:, 2:] - b[:, :2] for b in clips.boxes])
        if not len(sizes):
            return
        fit = fit_anchors(sizes, net.anchors.cpu().numpy())
        if fit.changed:
            net.set_anchors(fit.anchors)
            shown = " ".join(f"{w:.0f}x{h:.0f}" for w, h in fit.anchors)
            note(f"anchors fitted to the training targets ({fit.recall:.1%} within a factor 4): {shown}")

    def end_epoch(self, net: nn.Module) -> None:
        """Close the epoch of a loss with a memory (ATFL)."""
        closed: Any = getattr(net, "end_epoch", None)
        if closed is not None:
            closed()

    def loss(self, model: nn.Module, images: Tensor, targets: Any) -> Tensor:
        net: Any = self.net
        return net.losses(model(images), targets)["total"]

    def validate(self, net: nn.Module) -> dict[str, Any]:
        s = self.settings
        meter = DetectionMeter(DetectionSettings(score=s.threshold, distance=s.distance))
        was_training = net.training
        predictor = BoxPredictor(net, device=self.device, mean=s.mean, std=s.std, fast=False)
        for record, (boxes, scores) in predictor.records(self._records, read=lambda r: self._images[r.id]):
            meter.update(boxes, scores, self._boxes[record.id], id=record.id, size=record.size)
        net.train(was_training)
        full = meter.compute(sequences=False)
        at, centre = full["operating"], full["centre"]
        return {
            **{k: full[k] for k in ("ap50", "ap75", "ap")},
            **{k: at[k] for k in ("precision", "recall", "f1", "false_alarms_per_frame")},
            "pd": centre["pd"],
            "fa": centre["fa"],
            "score": s.threshold,
            "chosen_score": meter.best_score()["score"],
            "images": full["frames"],
            "targets": full["targets"],
        }


class ClipSource:
    """A clip network's maps, for :func:`.evaluate.evaluate`: whole sequences, whatever record is asked for.

    ``context``: frames that are only looked at, beside ``records``.
    """

    def __init__(
        self,
        predictor: ClipPredictor,
        records: Sequence[Record],
        about: dict[str, Any],
        name: str,
        context: Sequence[Record] = (),
    ) -> None:
        self.predictor, self.name, self.about = predictor, name, about
        self.seen: dict[str, list[str]] = {}
        beside = {r.id for r in context}
        self._stream = (
            (r, found) for r, found in predictor.records([*records, *context]) if r.id not in beside
        )
        self._ahead: dict[str, NDArray] = {}

    def map(self, record: Record) -> NDArray:
        while record.id not in self._ahead:
            done, found = next(self._stream)
            self._ahead[done.id] = found
        return self._ahead.pop(record.id)

    def described(self) -> dict[str, Any]:
        net = self.predictor.network
        return {
            "size": "native",
            "padding": f"reflect at the right and bottom to multiples of {net.stride}",
            "mean": self.predictor.mean,
            "std": self.predictor.std,
            "window": net.window,
            "key": net.key,
            "border": self.predictor.border,
        }


def clip_source(
    predictor: Predictor, records: Sequence[Record], name: str, context: Sequence[Record] = ()
) -> ClipSource:
    """The source of a loaded clip network's maps."""
    clips = ClipPredictor(predictor.network, device=predictor.device, mean=predictor.mean, std=predictor.std)
    about = {**predictor.about, "device": str(predictor.device)}
    source = ClipSource(clips, records, about, name, context)
    source.seen = predictor.seen
    return source


def clips_of(
    net: Any, records: Sequence[Record], context: Sequence[Record] = (), *, masks: bool = False
) -> Clips | Images:
    """Decoded clips for a clip network, images for others."""
    if is_clip_model(net):
        return Clips(records, net.window, net.key, net.border, context=context, masks=masks)
    return Images(records)


class ClipPredictor:
    """Probabilities of the key frame, for clip networks of masks, over whole sequences."""

    def __init__(
        self,
        network: nn.Module,
        *,
        device: torch.device | str = "cpu",
        mean: float = 0.0,
        std: float = 1.0,
        border: str | None = None,
    ) -> None:
        if not is_clip_model(network):
            raise IrstkitError("this network takes single images")
        self.device, self.mean, self.std = torch.device(device), mean, std
        self.network: Any = network.to(self.device)
        self.border: str = border or str(self.network.border)

    def _prepare(self, image: NDArray) -> Tensor:
        net = self.network
        tensor = to_tensor(
            image, channels=int(net.in_channels), mean=self.mean, std=self.std, multiple=int(net.stride)
        )
        return tensor.to(self.device)

    def sequence(
        self, frames: Sequence[NDArray], numbers: Sequence[int] | None = None
    ) -> Iterator[NDArray[np.float64]]:
        """(H, W) probabilities of each frame of a sequence, in order; each frame is encoded once."""
        was_training = self.network.training
        self.network.eval()
        try:
            for k, logits in enumerate(
                outputs(self.network, frames, self._prepare, numbers=numbers, border=self.border)
            ):
                height, width = frames[k].shape
                yield are_numbers(torch.sigmoid(logits[0, 0, :height, :width].double()).cpu().numpy())
        finally:
            self.network.train(was_training)

    def records(
        self, records: Sequence[Record], *, read: Callable[[Record], NDArray] = Record.read_image
    ) -> Iterator[tuple[Record, NDArray[np.float64]]]:
        """Probabilities of each record, sequence after sequence."""
        groups, findings = sequences_of(records)
        for finding in findings:
            note(f"warning: {finding}")
        for group in groups:
            frames = [read(r) for r in group.records]
            yield from zip(group.records, self.sequence(frames, group.numbers), strict=True)


@torch.inference_mode()
def check_output(net: nn.Module, s: Settings) -> None:
    """Refuse a network that gives neither logit maps nor boxes, before anything is written."""
    checked: Any = net
    frames = (checked.window,) if is_clip_model(net) else ()
    net.eval()
    try:
        output = net(torch.zeros(1, *frames, int(getattr(net, "in_channels", 1)), s.crop, s.crop))
        if getattr(net, "task", "mask") == "boxes":
            boxes, scores = checked.decode(output)
            if boxes.shape[:2] != scores.shape or boxes.shape[2:] != (4,):
                raise IrstkitError(
                    f"{s.model} decodes to boxes of shape {tuple(boxes.shape)} and scores of "
                    f"{tuple(scores.shape)}, expected (B, N, 4) and (B, N)"
                )
            return
    except (ValueError, TypeError) as error:
        raise IrstkitError(f"{s.model} does not take {s.crop}x{s.crop} images: {error}") from error
    finally:
        net.train()
    for one in [output] if isinstance(output, Tensor) else output:
        if not isinstance(one, Tensor) or one.dim() != 4 or one.shape[:2] != (1, 1):
            raise IrstkitError(
                f"{s.model} gives neither boxes nor a mask: its output is not (B, 1, H, W) logits"
            )
