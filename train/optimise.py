"""The optimiser of a run, and the moving average of its weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .settings import Settings


def optimiser_of(s: Settings, net: nn.Module, *, fused: bool = False) -> torch.optim.Optimizer:
    """The optimiser that the settings name, over the weights that are trained.

    ``fused``: Adam as one kernel, for a GPU; half precision's scaler does not go with it.
    """
    parameters = [p for p in net.parameters() if p.requires_grad]
    if s.optimiser == "sgd":
        return torch.optim.SGD(
            parameters, lr=s.lr, momentum=s.momentum, weight_decay=s.weight_decay, nesterov=s.momentum > 0
        )
    kinds: dict[str, Any] = {
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "adagrad": torch.optim.Adagrad,
    }
    more: dict[str, Any] = {"fused": True} if fused and s.optimiser != "adagrad" else {}
    return kinds[s.optimiser](parameters, lr=s.lr, weight_decay=s.weight_decay, **more)


@torch.no_grad()
def follow(average: dict[str, Tensor], state: dict[str, Tensor], decay: float) -> None:
    """Move an exponential moving average of weights and running statistics; whole numbers are copied."""
    for name, value in state.items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)


@contextmanager
def swapped(net: nn.Module, state: dict[str, Tensor] | None) -> Iterator[None]:
    """``net`` with other weights for a while."""
    if state is None:
        yield
        return
    own = {k: v.detach().clone() for k, v in net.state_dict().items()}
    net.load_state_dict(state)
    try:
        yield
    finally:
        net.load_state_dict(own)
