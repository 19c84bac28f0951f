"""EFLNet: to the parameter, the dynamic head's offsets, and the sheet's values of assignment and loss."""

from __future__ import annotations

import pytest
import torch

from irstkit.train.models import build, count_parameters
from irstkit.train.models.dynamic_head import OFFSET_MODES, DynamicBlock
from irstkit.train.models.eflnet import EFLNet
from irstkit.train.models.eflnet_loss import EFLNetLoss

PARAMETERS = [
    (80, 0, 32_769_434),
    (80, 3, 38_518_958),
    (1, 0, 32_585_996),
    (1, 3, 38_335_520),
    (1, 4, 40_252_028),
]


@pytest.mark.parametrize(("classes", "blocks", "expected"), PARAMETERS)
def test_parameters_of_the_sheet(classes, blocks, expected):
    with torch.device("meta"):  # counting needs no memory
        block = DynamicBlock(256)
    assert count_parameters(block) == 1_916_508
    if (classes, blocks) in ((80, 0), (1, 3)):
        assert count_parameters(build("eflnet", classes=classes, blocks=blocks)) == expected
    else:
        bare, each = 32_769_434, 1_916_508
        fewer_classes = (80 - classes) * 3 * (771 + 3)
        assert bare - fewer_classes + blocks * each == expected


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return EFLNet(width=0.125)


def test_maps_of_an_image_that_is_not_square_and_its_boxes(small):
    with torch.no_grad():
        raw = small.eval()(torch.rand(2, 3, 64, 160))
        boxes, scores = small.decode(raw)
    assert [tuple(r.shape) for r in raw] == [(2, 3, 8, 20, 6), (2, 3, 4, 10, 6), (2, 3, 2, 5, 6)]
    cells = 3 * (160 + 40 + 10)
    assert boxes.shape == (2, cells, 4) and scores.shape == (2, cells)
    assert (boxes[..., 2:] >= boxes[..., :2]).all() and (scores >= 0).all() and (scores <= 1).all()


@pytest.mark.parametrize("shape", [(1, 3, 100, 96), (1, 1, 64, 64), (3, 64, 64)])
def test_other_inputs_are_refused_with_the_shape(small, shape):
    with pytest.raises(ValueError, match="multiples of 32"):
        small(torch.zeros(shape))


@pytest.mark.parametrize(
    "options", [{}, {"offset_mode": "upsample"}, {"blocks": 0, "atfl": False, "nwd": False}]
)
def test_every_parameter_gets_a_gradient_at_the_first_step(options):
    torch.manual_seed(0)
    net = EFLNet(width=0.125, **options).train()
    terms = net.losses(net(torch.rand(2, 3, 64, 96)), [torch.tensor([[20.0, 20, 30, 28]]), torch.zeros(0, 4)])
    terms["total"].backward()
    missing = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not missing and terms["positives"] > 0


def test_published_read_and_scaled_offsets_run():
    for options in ({"preset": "released"}, {"offset_scale": True}):
        net = EFLNet(width=0.125, blocks=1, **options).train()
        net.losses(net(torch.rand(1, 3, 64, 64)), [torch.zeros(0, 4)])["total"].backward()


def test_resized_offsets_are_two_by_two_means_and_modes_agree_at_the_start():
    torch.manual_seed(0)
    blocks = {mode: DynamicBlock(32, mode) for mode in OFFSET_MODES}
    for block in blocks.values():
        block.load_state_dict(blocks["resize"].state_dict())
    coarse = torch.rand(2, 32, 4, 6)
    zero, half = torch.zeros(2, 18, 8, 12), torch.full((2, 9, 8, 12), 0.5)
    start = blocks["resize"].from_coarse(coarse, zero, half)
    assert torch.allclose(start, blocks["flat"].from_coarse(coarse, zero, half), atol=1e-6)
    plain = torch.nn.functional.conv2d(coarse, blocks["resize"].high.conv.weight, padding=1) / 2
    expected = torch.nn.functional.interpolate(
        blocks["resize"].high.norm(plain), size=(8, 12), mode="bilinear", align_corners=True
    )
    assert torch.allclose(start, expected, atol=1e-5)
    offset, mask = torch.randn(2, 18, 8, 12), torch.rand(2, 9, 8, 12)
    mean = [torch.nn.functional.avg_pool2d(v, 2) for v in (offset, mask)]
    high = blocks["resize"].high(coarse, *mean)
    expected = torch.nn.functional.interpolate(high, size=(8, 12), mode="bilinear", align_corners=True)
    assert torch.allclose(blocks["resize"].from_coarse(coarse, offset, mask), expected, atol=1e-5)


def test_the_flat_read_is_the_first_quarter_of_the_memory():
    block = DynamicBlock(16, "flat")
    offset, mask = torch.randn(1, 18, 4, 4), torch.rand(1, 9, 4, 4)
    coarse = torch.rand(1, 16, 2, 2)
    high = block.high(coarse, offset.flatten()[:72].view(1, 18, 2, 2), mask.flatten()[:36].view(1, 9, 2, 2))
    expected = torch.nn.functional.interpolate(high, size=(4, 4), mode="bilinear", align_corners=True)
    assert torch.equal(block.from_coarse(coarse, offset, mask), expected)


def criterion(preset: str) -> EFLNetLoss:
    options = {
        "recommended": {"lam": 3.5, "smoothing": 0.05, "detach": "exponents", "f_max": 1000.0},
        "released": {"lam": 1.5, "smoothing": 0.0, "detach": "none", "f_max": None},
    }[preset]
    unit = {"recommended": (11.0, "pixels", "remove"), "released": (12.0, "grid", "keep")}[preset]
    return EFLNetLoss(
        1,
        atfl=True,
        nwd=True,
        nwd_c=unit[0],
        nwd_unit=unit[1],
        duplicates=unit[2],
        tau=0.5,
        over="all",
        **options,
    )


FIRST, SECOND = (26.0, 30.0, 34.0, 38.0), (28.0, 30.0, 38.0, 40.0)  # centres (30, 34) and (33, 35)
# case: targets an image, objectness logit, preset: box, objectness, total
SHEET = [
    ("first", [[FIRST]], 0.0, (0.002681, 0.026201, 0.028882), (0.019093, 0.056109, 0.075202)),
    ("logit", [[FIRST]], -6.684612, (0.002681, 0.002735, 0.005417), (0.019093, 0.001846, 0.020939)),
    ("two", [[FIRST, SECOND]], 0.0, (0.002411, 0.026201, 0.028612), (0.017898, 0.056109, 0.074007)),
    ("none", [[]], 0.0, (0.0, 0.026201, 0.026201), (0.0, 0.056109, 0.056109)),
]


def zeros(batch: int, logit: float = 0.0):
    maps = [torch.zeros(batch, 3, n, n, 6) for n in (8, 4, 2)]
    for m in maps:
        m[..., 4] = logit
    return [m.requires_grad_() for m in maps]


@pytest.mark.parametrize("preset", ["released", "recommended"])
@pytest.mark.parametrize("case", SHEET, ids=lambda c: c[0])
def test_losses_of_the_sheet(case, preset):
    _, truth, logit, released, recommended = case
    maps = zeros(len(truth), logit)
    terms = criterion(preset)(
        maps, [torch.tensor(t).reshape(-1, 4) for t in truth], EFLNet(width=0.125).anchors
    )
    measured = [terms[k].item() for k in ("box", "objectness", "total")]
    assert measured == pytest.approx(released if preset == "released" else recommended, abs=2e-6)
    assert terms["positives"] == {"first": 1, "logit": 1, "none": 0}.get(case[0], 2 + (preset == "released"))
    terms["total"].backward()
    assert all(torch.isfinite(m.grad).all() for m in maps)


@pytest.mark.parametrize(("preset", "total"), [("released", 0.057765), ("recommended", 0.150404)])
def test_a_batch_with_an_empty_image(preset, total):
    terms = criterion(preset)(
        zeros(2), [torch.tensor([FIRST]), torch.zeros(0, 4)], EFLNet(width=0.125).anchors
    )
    assert terms["total"].item() == pytest.approx(total, abs=3e-6)


def test_cross_entropy_of_the_sheet_and_targets_without_an_anchor_are_counted(small):
    plain = EFLNetLoss(1, atfl=False, nwd=True, nwd_c=12.0, nwd_unit="grid", duplicates="keep")
    terms = plain(zeros(1, -6.684612), [torch.tensor([FIRST])], small.anchors)
    assert terms["objectness"].item() == pytest.approx(0.000970, abs=2e-6)
    tiny = torch.tensor([[10.0, 10, 13, 13]])  # 12 / 3 is not below 4
    terms = plain(zeros(1), [tiny], small.anchors)
    assert terms["orphans"] == 1 and terms["positives"] == 0


@pytest.mark.parametrize("logit", [20.0, -20.0, 200.0, -200.0, 1e4, -1e4])
def test_losses_are_finite_in_half_precision(small, logit):
    maps = [m.detach().half().requires_grad_() for m in zeros(2, logit)]
    terms = criterion("recommended")(maps, [torch.tensor([FIRST]), torch.zeros(0, 4)], small.anchors)
    terms["total"].backward()
    assert torch.isfinite(terms["total"]) and all(torch.isfinite(m.grad).all() for m in maps)


def test_anchors_are_checked_and_saved_with_the_weights():
    net = EFLNet(width=0.125, blocks=0)
    net.set_anchors([[k, k + 1] for k in range(3, 12)])
    other = EFLNet(width=0.125, blocks=0)
    other.load_state_dict(net.state_dict())
    assert other.anchors[2, 2].tolist() == [11, 12]
    with pytest.raises(ValueError, match="3 levels of 3"):
        net.set_anchors([[1, 2]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0.1}, "no multiple of 16"),
        ({"offset_mode": "fix"}, "resize, upsample, flat"),
        ({"preset": "best"}, "default, released"),
        ({"nwd_unit": "metres"}, "pixels"),
        ({"blocks": -1}, "at least 0"),
    ],
)
def test_wrong_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        EFLNet(**{"width": 0.125, **options})
