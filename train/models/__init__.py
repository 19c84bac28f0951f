"""The networks by name, one file a paper; nothing is imported before it is built.

What every network keeps to
---------------------------
``forward(images)`` takes (B, C, H, W) float images, gray divided by the largest value of its depth (0 to 1),
H and W multiples of ``stride``, and returns logits (B, 1, H, W), or a sequence of such maps (deep
supervision) whose **last** one is the prediction. Class attributes: ``stride`` (sides are padded to multiples
of it in prediction) and ``in_channels`` (set per instance where it can be chosen). Option values are
plain types, so that a checkpoint can rebuild its network.

Networks of boxes (``task = "boxes"``) return raw maps instead and offer ``losses(output, targets)`` (a dict with
``total``; targets: a (N, 4) half-open xyxy tensor an image) and ``decode(raw)`` (boxes (B, A, 4), scores (B, A)).

Networks of clips have ``window`` (frames), ``key`` (index of the frame that is predicted) and ``border``, take
(B, T, C, H, W), and offer ``encode(frames)`` and ``fuse(features, same)``, which ``forward`` is made of.
"""

from __future__ import annotations

import importlib
import inspect
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from ...annotate.errors import IrstkitError

if TYPE_CHECKING:
    from torch import nn

MODELS: dict[str, str] = {
    "acm": "irstkit.train.models.acm:ACM",
    "datransnet": "irstkit.train.models.datransnet:DATransNet",
    "dnanet": "irstkit.train.models.dnanet:DNANet",
    "sd2net": "irstkit.train.models.sd2net:SD2Net",
    "std2net": "irstkit.train.models.std2net:STD2Net",
    "dfar": "irstkit.train.models.dfar:DFAR",
    "eflnet": "irstkit.train.models.eflnet:EFLNet",
    "unet": "irstkit.train.models.unet:UNet",
}
"""``{name: "module:callable"}``. Other packages add theirs under the entry-point group ``irstkit.models``."""


def model_names() -> list[str]:
    """All names that :func:`build` knows, those of entry points after our own."""
    return [*MODELS, *(e.name for e in entry_points(group="irstkit.models") if e.name not in MODELS)]


def build(name: str, **options: Any) -> nn.Module:
    """The network ``name`` with PyTorch's default initialisation.

    Raises
    ------
    IrstkitError
        For an unknown name (listing the known ones) or an option that the network does not take.
    """
    if name in MODELS:
        module, _, attribute = MODELS[name].partition(":")
        factory = getattr(importlib.import_module(module), attribute)
    else:
        found = [e for e in entry_points(group="irstkit.models") if e.name == name]
        if not found:
            raise IrstkitError(f"no model {name!r}", hint=f"there are: {', '.join(model_names())}")
        factory = found[0].load()
    try:
        return factory(**options)
    except (TypeError, ValueError) as error:
        given = ", ".join(f"{k}={v!r}" for k, v in options.items())
        known = _options(factory)
        unknown = [k for k in options if known and k not in known]
        reason = f"it has no option {', '.join(unknown)}" if unknown else str(error)
        raise IrstkitError(
            f"the model {name!r} cannot be built with {given or 'no options'}: {reason}",
            hint=f"its options: {', '.join(f'{k}={v}' for k, v in known.items())}" if known else None,
        ) from error


def _options(factory: Any) -> dict[str, Any]:
    """The options of a network and their defaults; empty where it takes any."""
    parameters = inspect.signature(factory).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return {}
    return {p.name: "..." if p.default is p.empty else p.default for p in parameters}


def task_of_model(name: str) -> str:
    """``mask`` or ``boxes``: what the network ``name`` predicts, without building it."""
    if name in MODELS:
        module, _, attribute = MODELS[name].partition(":")
        return getattr(getattr(importlib.import_module(module), attribute), "task", "mask")
    return getattr(build(name), "task", "mask")


def count_parameters(model: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
