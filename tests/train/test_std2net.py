"""STD2Net: to the parameter, its formula by brute force, and repeated frames."""

from __future__ import annotations

import pytest
import torch

from irstkit.train.losses import soft_iou
from irstkit.train.models import build, count_parameters
from irstkit.train.models.std2net import TD2M, STD2Net


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, 461_195), ({"features": 16}, 318_139)],
    ids=["paper", "light"],
)
def test_parameters_of_the_sheet(options, expected):
    assert count_parameters(build("std2net", **options)) == expected


def test_every_parameter_gets_a_gradient_from_a_clip_that_is_not_square():
    torch.manual_seed(0)
    net = STD2Net(window=3, base=4, features=4).train()
    masks = torch.zeros(2, 1, 48, 64)
    masks[:, :, 20:23, 30:33] = 1
    loss = soft_iou(net(torch.rand(2, 3, 1, 48, 64)), masks)
    loss.backward()
    missing = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not missing
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


def test_the_temporal_module_is_the_formula():
    torch.manual_seed(1)
    module = TD2M(3, 4).double()
    maps = torch.randn(2, 4, 3, 5, 7, dtype=torch.float64)
    out = module(maps)
    original = module.original(maps.flatten(1, 2))
    for b in range(2):
        for c in range(3):
            current = maps[b, 3, c]
            expected = torch.zeros_like(current)
            for basis in (*(current - maps[b, k, c] for k in range(3)), current):
                unit = basis / basis.norm()
                expected = expected + (original[b, c] * unit).sum() * unit
            assert torch.allclose(out[b, c], expected, atol=1e-12)


def test_a_repeated_frame_adds_nothing_and_no_nan():
    """The first frame of a sequence: all references repeat it, so only the current map is a basis."""
    torch.manual_seed(2)
    net = STD2Net(window=3, base=4, features=4).eval()
    still = torch.rand(1, 1, 1, 48, 48).repeat(1, 3, 1, 1, 1).requires_grad_()
    with torch.no_grad():
        maps = net.encode(still[0, :1]).repeat(3, 1, 1, 1)[None]
        assert torch.allclose(net(still), net.fuse(maps), atol=1e-5)
        # maps that differ by rounding only, marked as repeats, change nothing
        noisy = maps.clone()
        noisy[:, :2] += 3e-8 * torch.randn_like(noisy[:, :2])
        marked = net.fuse(noisy, torch.tensor([[True, True, True]]))
        assert torch.allclose(marked, net.fuse(maps), atol=1e-5)
    net.train()
    net(torch.cat((still, still))).mean().backward()
    assert torch.isfinite(still.grad).all()


def test_a_dead_channel_is_harmless():
    maps = torch.zeros(1, 3, 2, 4, 4, requires_grad=True)
    out = TD2M(2, 3)(maps)
    out.sum().backward()
    assert torch.equal(out, torch.zeros_like(out)) and torch.isfinite(maps.grad).all()


def test_the_order_of_frames_matters():
    torch.manual_seed(3)
    net = STD2Net(window=3, base=4, features=4).eval()
    clip = torch.rand(1, 3, 1, 48, 48)
    with torch.no_grad():
        assert not torch.allclose(net(clip), net(clip.flip(1)), atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [((1, 5, 48, 48), "axis missing"), ((1, 4, 1, 48, 48), "frames"), ((1, 3, 5, 48, 48), "axes swapped")],
)
def test_wrong_clips_are_refused(shape, reason):
    with pytest.raises(ValueError, match="expected a clip"):
        STD2Net(window=5 if reason != "axes swapped" else 3, base=4, features=4)(torch.zeros(shape))


def test_wrong_options_are_refused_by_name():
    with pytest.raises(ValueError, match="window is a whole number of at least 2"):
        STD2Net(window=1)
