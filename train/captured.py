"""A training step as one CUDA graph: thousands of small kernels launched by one call.

Networks of this field are small: on a fast GPU most of a step is spent on launching kernels, not in them. The
shapes of a step never change, so its forward pass, loss and backward pass are recorded once and replayed. The
kernels are those of the eager step; only who launches them differs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..annotate.console import note

WARM = 3
"""Steps before recording: libraries choose their algorithms and reserve their workspaces in them."""


class Captured:
    """``compute(images, targets) -> loss``, which leaves gradients behind, recorded after ``WARM`` calls.

    Where recording fails (a network that waits for the device in its forward pass) it is said, and steps stay
    eager.

    Parameters
    ----------
    compute
        Forward pass, loss and backward pass; its arguments always have the same shapes.
    net
        The network whose parameters get the gradients: written, not added up.
    """

    def __init__(self, compute: Callable[[Tensor, Tensor], Tensor], net: nn.Module) -> None:
        self._compute = compute
        self._parameters = [p for p in net.parameters() if p.requires_grad]
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self.failed = False

    @property
    def replays(self) -> bool:
        """Whether the step is recorded."""
        return self._graph is not None

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        """The loss of a step, on the device; the gradients are in the parameters' ``grad``."""
        with torch.cuda.device(images.device):  # graphs and streams are of the current device
            return self._step(images, targets)

    def _step(self, images: Tensor, targets: Tensor) -> Tensor:
        if self.failed:
            return self._compute(images, targets)
        if self._graph is None:
            self._calls += 1
            if self._calls <= WARM:
                return self._aside(images, targets)
            if not self._record(images, targets):
                return self._compute(images, targets)
        assert self._graph is not None
        self._images.copy_(images)
        self._targets.copy_(targets)
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        self._graph.replay()
        return self._loss

    def _aside(self, images: Tensor, targets: Tensor) -> Tensor:
        """An eager step on a stream of its own, as recording asks for."""
        stream = torch.cuda.Stream(images.device)
        stream.wait_stream(torch.cuda.current_stream(images.device))
        with torch.cuda.stream(stream):
            loss = self._compute(images, targets)
        torch.cuda.current_stream(images.device).wait_stream(stream)
        return loss

    def _record(self, images: Tensor, targets: Tensor) -> bool:
        self._images, self._targets = images.clone(), targets.clone()
        for parameter in self._parameters:
            parameter.grad = None
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self._loss = self._compute(self._images, self._targets)
        except RuntimeError as error:
            if "out of memory" in str(error).lower():
                raise
            self.failed = True
            for parameter in self._parameters:
                parameter.grad = None
            torch.cuda.synchronize(images.device)
            note(f"no CUDA graph, steps are launched kernel by kernel: {str(error).splitlines()[0]}")
            return False
        self._gradients = [p.grad for p in self._parameters]
        self._graph = graph
        return True
