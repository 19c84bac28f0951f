"""DFAR: to the parameter, odd sizes, gradients, the sheet's loss values, offsets that are not finite."""

from __future__ import annotations

import pytest
import torch

from irstkit.annotate.errors import IrstkitError
from irstkit.train.box_losses import yolox_losses
from irstkit.train.models import build, count_parameters
from irstkit.train.models.deform import DeformConv
from irstkit.train.models.dfar import DFAR, decode_cells, motion_compensation


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return DFAR()


def test_parameters_of_the_sheet_by_part(net):
    parts = {name: count_parameters(m) for name, m in net.named_children()}
    assert parts == {
        "extract": 133_680,
        "align": 4 * (530_824 + 161_560),
        "fuse_frames": 53_728,
        "mid": 37_056,
        "refine": 4 * 561_408,
        "out": 74_112,
        "head": 2_397_446,
    }
    assert count_parameters(build("dfar")) == 7_711_190


@pytest.mark.parametrize("size", [(61, 77), (40, 40), (33, 8)], ids=str)
def test_any_size_gives_a_cell_for_every_8_pixels_begun(net, size):
    with torch.no_grad():
        raw = net.eval()(torch.rand(1, 5, 3, *size))
    assert raw.shape == (1, 6, -(-size[0] // 8), -(-size[1] // 8)) and torch.isfinite(raw).all()


def test_every_parameter_gets_a_gradient():
    torch.manual_seed(0)
    net = DFAR().train()
    for name, p in net.named_parameters():
        # zero offsets leave what only feeds them without a gradient at the first step
        if "offset" in name:
            torch.nn.init.normal_(p, 0, 0.02)
    losses = net.losses(
        net(torch.rand(2, 5, 3, 32, 40)), [torch.tensor([[4.0, 4, 30, 30]]), torch.zeros(0, 4)]
    )
    losses["total"].backward()
    missing = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not missing and losses["positives"] > 0


def test_nothing_is_left_uninitialised():
    """Memory filled with NaN before construction must not come through."""
    torch.manual_seed(0)
    before = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        for options in ({}, {"init": "identity"}, {"init": "released"}):
            net = DFAR(**options)
            assert all(torch.isfinite(p).all() for p in net.parameters())
            assert all(b.alpha == 1 and b.beta == 1 for a in net.align for b in a.fusion[1:5])
    finally:
        torch.use_deterministic_algorithms(False)
        torch.utils.deterministic.fill_uninitialized_memory = before


def test_refinement_may_start_where_signals_pass():
    """What one cell changes stays in that cell through four AGDFs; started at random it is all over the map."""
    share = {}
    for init in ("zero", "identity"):
        torch.manual_seed(0)
        refine = DFAR(width=0.25, init=init).refine.eval()
        x = torch.randn(1, 16, 24, 24)
        other = x.clone()
        other[0, :, 9, 13] += torch.randn(16)
        with torch.no_grad():
            change = (refine(other) - refine(x)).abs().sum(1)[0]
        share[init] = float(change[9, 13] / change.sum())
    assert share["identity"] > 0.5 and share["zero"] < 0.1, share
    block = DFAR(width=0.25, init="identity").refine[0]
    f = torch.randn(2, 8, 9, 7)
    same = block.sample(f, torch.zeros(2, 18 * 8, 9, 7), torch.full((2, 9 * 8, 9, 7), 0.5))
    assert torch.allclose(same, f, atol=1e-5), "offset 0 and mask 0.5: the input comes back"


SWITCHES = [
    {"radius": 1},
    {"tda": False},
    {"afs": False, "agdf": False},
    {"tda": False, "afs": False, "agdf": False},
]


@pytest.mark.parametrize("options", SWITCHES, ids=str)
def test_switches_train(options):
    net = DFAR(**options).train()
    raw, motion = net(torch.rand(2, net.window, 3, 16, 16))
    assert raw.shape == (2, 6, 2, 2) and (motion > 0) == options.get("tda", True)
    net.losses((raw, motion), [torch.zeros(0, 4)] * 2)["total"].backward()


# the sheet's table: raw maps 8x8 of zeros; targets (cx, cy, w, h), raw w and h; L_reg, L_obj, L_cls, loss
CASES = [
    ([[(30, 34, 8, 8)]], 0.0, (0.98930, 44.36142, 0.69315), 50.00106, 1),
    ([[(30, 34, 8, 8), (38, 30, 17, 17)]], 0.0, (1.94026, 44.36142, 1.38629), 27.72450, 2),
    ([[(30, 34, 17, 17)]], 0.75, (1.43536, 44.36142, 1.38629), 26.46226, 2),
    ([[]], 0.0, (0.0, 44.36142, 0.0), 44.36142, 0),
    ([[(30, 34, 8, 8)], []], 0.0, (0.98930, 88.72284, 0.69315), 94.36248, 1),
]


def xyxy(boxes):
    t = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return torch.cat((t[:, :2] - t[:, 2:] / 2, t[:, :2] + t[:, 2:] / 2), dim=1)


@pytest.mark.parametrize(("truth", "side", "terms", "total", "positives"), CASES)
def test_losses_of_the_sheet(truth, side, terms, total, positives):
    raw = torch.zeros(len(truth), 6, 8, 8)
    raw[:, 2:4] = side
    raw.requires_grad_()
    losses = yolox_losses(raw, [xyxy(t) for t in truth])
    measured = [losses[k].item() for k in ("box", "objectness", "class")]
    assert measured == pytest.approx(terms, abs=2e-5)
    assert losses["total"].item() == pytest.approx(total, abs=2e-5) and losses["positives"] == positives
    losses["total"].backward()
    assert torch.isfinite(raw.grad).all()


@pytest.mark.parametrize("value", [0.0, 30.0, -300.0, 6e4])
def test_losses_are_finite_for_any_half_precision_map(value):
    raw = torch.full((2, 6, 4, 4), value, dtype=torch.float16).requires_grad_()
    losses = yolox_losses(raw, [torch.tensor([[4.0, 4, 12, 12]]), torch.zeros(0, 4)])
    losses["total"].backward()
    assert torch.isfinite(losses["total"]) and torch.isfinite(raw.grad).all()


def test_decoding_is_from_the_corner_of_the_cell():
    raw = torch.zeros(1, 6, 2, 3)
    boxes = decode_cells(raw.flatten(2).transpose(1, 2), (2, 3), 8)
    assert boxes[0, 5].tolist() == [12.0, 4.0, 20.0, 12.0]  # column 2, row 1: centre (16, 8), side 8


def test_motion_loss_is_a_mean_and_can_leave_the_target_alone():
    a, b = torch.full((1, 2, 2, 2), 3.0, requires_grad=True), torch.ones(1, 2, 2, 2, requires_grad=True)
    assert motion_compensation(a, b).item() == 2
    motion_compensation(a, b, detach_target=True).backward()
    assert b.grad is None and a.grad.sum() == 1
    assert torch.isfinite(
        motion_compensation(torch.full((1, 1, 300, 300), 6e4).half(), torch.zeros(1, 1, 300, 300).half())
    )


def test_evaluation_gives_the_map_alone_and_ignores_the_motion_loss(net):
    assert isinstance(net.eval()(torch.rand(1, 5, 3, 16, 16)), torch.Tensor)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_offset_that_is_not_finite_never_reaches_the_operator(bad):
    layer = DeformConv(2, 2)
    offset = torch.zeros(1, 18, 4, 4)
    offset[0, 3, 1, 1] = bad
    with pytest.raises(IrstkitError, match="1 of 288 deformable offset values are not finite"):
        layer(torch.zeros(1, 2, 4, 4), offset, torch.ones(1, 9, 4, 4))


def test_a_deformable_convolution_without_offsets_is_a_convolution():
    layer = DeformConv(4, 6, groups=2, stride=2)
    x = torch.rand(2, 4, 7, 9)
    out = layer(x, torch.zeros(2, 36, 4, 5), torch.ones(2, 18, 4, 5))
    assert torch.allclose(out, torch.nn.functional.conv2d(x, layer.weight, layer.bias, 2, 1), atol=1e-5)
    moved = torch.zeros(2, 36, 4, 5)
    moved[:, 1::2] = 1.0  # one pixel to the right, every tap
    x_shifted = torch.nn.functional.pad(x[..., 1:], (0, 1))
    stride_two = torch.nn.functional.conv2d(x_shifted, layer.weight, layer.bias, 2, 1)
    assert torch.allclose(
        layer(x, moved, torch.ones(2, 18, 4, 5))[..., 1:-1], stride_two[..., 1:-1], atol=1e-5
    )


@pytest.mark.parametrize("bad", [(1, 5, 1, 16, 16), (1, 4, 3, 16, 16), (1, 3, 5, 16, 16), (5, 3, 16, 16)])
def test_wrong_clips_are_refused(net, bad):
    with pytest.raises(ValueError, match="expected a clip"):
        net(torch.zeros(bad))
