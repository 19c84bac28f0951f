"""Clips and inference over a sequence: border rules, missing frames, each frame encoded once, equal outputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from irstkit.datasets.clips import window_positions
from irstkit.train.models import build
from irstkit.train.models.dfar import DFAR
from irstkit.train.models.eflnet import EFLNet
from irstkit.train.models.std2net import STD2Net
from irstkit.train.sequence import clip_of, folded, outputs, to_tensor


def make(name):
    torch.manual_seed(0)
    net = STD2Net(window=3, base=4, features=4) if name == "std2net" else DFAR()
    for module in net.modules():  # statistics and offsets as after training
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    if name == "dfar":
        for block in net.align:
            torch.nn.init.normal_(block.offset.weight, 0, 0.02)
    return net.eval()


@pytest.mark.parametrize("name", ["std2net", "dfar"])
@pytest.mark.parametrize("border", ["target", "clamp", "reflect"])
def test_equal_to_each_clip_on_its_own(name, border):
    net = make(name)
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (32, 48), dtype=np.uint8) for _ in range(6)]
    frames[3] = frames[2].copy()  # a camera that repeats a frame
    numbers = [0, 1, 2, 3, 5, 6]
    encoded = 0
    encode = net.encode

    def counted(batch):
        nonlocal encoded
        encoded += len(batch)
        return encode(batch)

    def prepare(image):
        return to_tensor(image, channels=net.in_channels, multiple=16)

    net.encode = counted
    streamed = list(outputs(net, frames, prepare, numbers=numbers, border=border))
    assert encoded == len(frames)
    for k, output in enumerate(streamed):
        places = window_positions(numbers, k, net.window, net.key, border)
        with torch.inference_mode():
            alone = net(clip_of(frames, places, prepare))
        assert (output - alone).abs().max() < 1e-5


def test_a_sequence_shorter_than_the_window():
    net = make("dfar")
    frame = np.full((16, 16), 9, np.uint8)
    (only,) = outputs(net, [frame], lambda f: to_tensor(f, channels=3))
    assert torch.isfinite(only).all()


def test_training_mode_is_refused():
    with pytest.raises(ValueError, match="evaluation mode"):
        next(outputs(make("dfar").train(), [np.zeros((8, 8), np.uint8)], lambda f: to_tensor(f, channels=3)))


@pytest.mark.parametrize("name", ["std2net", "dfar"])
def test_folding_changes_rounding_only(name):
    net = make(name)
    clip = torch.rand(1, net.window, net.in_channels, 32, 32)
    with torch.inference_mode():
        a, b = net(clip), folded(net)(clip)
    assert (a - b).abs().max() < 1e-4 * max(1, float(a.abs().max()))


def test_eflnet_folded_is_equal_and_has_the_sheets_parameters():
    assert sum(p.numel() for p in folded(build("eflnet")).parameters()) == 38_081_226
    torch.manual_seed(0)
    net = EFLNet(width=0.125, blocks=1)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        for a, b in zip(net.eval()(image), folded(net)(image), strict=True):
            assert (a - b).abs().max() < 1e-4


def test_images_become_tensors_by_their_depth_padded_by_reflection():
    image = np.array([[0, 255], [51, 102]], np.uint8)
    tensor = to_tensor(image, channels=3)
    assert tensor.shape == (3, 2, 2) and torch.allclose(tensor[1], torch.tensor([[0, 1], [0.2, 0.4]]))
    assert to_tensor(np.full((5, 7), 65535, np.uint16), multiple=8).shape == (1, 8, 8)
    assert to_tensor(np.full((5, 7), 65535, np.uint16), multiple=8).unique().tolist() == [1.0]
