"""Recording a step where it is not possible: said once, and the steps go on eagerly. The rest is in test_cuda.py."""

import contextlib

import pytest
import torch
from torch import nn

from irstkit.train import captured
from irstkit.train.captured import WARM, Captured


class Stream:
    def __init__(self, device=None):
        pass

    def wait_stream(self, other):
        pass


@pytest.fixture
def no_recording(monkeypatch):
    """A machine that cannot record: entering a graph fails with ``message``."""

    def make(message):
        @contextlib.contextmanager
        def graph(recorded):
            yield
            raise RuntimeError(message)

        for name, stand_in in {
            "device": lambda device: contextlib.nullcontext(),
            "Stream": Stream,
            "current_stream": Stream,
            "stream": lambda stream: contextlib.nullcontext(),
            "CUDAGraph": object,
            "graph": graph,
            "synchronize": lambda device: None,
        }.items():
            monkeypatch.setattr(torch.cuda, name, stand_in)

    return make


def step_of(net):
    def compute(images, targets):
        loss = (net(images) - targets).square().mean()
        loss.backward()
        return loss.detach()

    return compute


def test_a_step_that_cannot_be_recorded_stays_eager(no_recording, monkeypatch):
    no_recording("operation not permitted when stream is capturing\nand more")
    said = []
    monkeypatch.setattr(captured, "note", said.append)
    net = nn.Linear(3, 1)
    step, images, targets = Captured(step_of(net), net), torch.rand(4, 3), torch.rand(4, 1)
    wanted = torch.autograd.grad((net(images) - targets).square().mean(), net.weight)[0]
    for _ in range(WARM + 3):
        net.zero_grad()
        step(images, targets)
        torch.testing.assert_close(net.weight.grad, wanted)
    assert step.failed and not step.replays
    assert len(said) == 1 and "operation not permitted when stream is capturing" in said[0]
    assert "and more" not in said[0]


def test_too_little_memory_is_not_hidden(no_recording):
    no_recording("CUDA out of memory")
    net = nn.Linear(3, 1)
    step = Captured(step_of(net), net)
    for _ in range(WARM):
        step(torch.rand(4, 3), torch.rand(4, 1))
    with pytest.raises(RuntimeError, match="out of memory"):
        step(torch.rand(4, 3), torch.rand(4, 1))
