"""DNA-Net, DATransNet, ACM and the U-Net against their sheets."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from irstkit.annotate.errors import IrstkitError
from irstkit.train.losses import final, soft_iou, supervised
from irstkit.train.models import build, count_parameters, layers
from irstkit.train.models.acm import BasicBlock, Modulation
from irstkit.train.models.datransnet import GFEM, NEIGHBOURS, DATrans, InceptionHead, differences
from irstkit.train.models.dnanet import Block
from irstkit.train.models.layers import resize_by_products

COUNTS = [
    ("dnanet", {}, 4_696_568),
    ("dnanet", {"in_channels": 3}, 4_696_888),
    ("dnanet", {"backbone": "resnet10"}, 2_611_876),
    ("dnanet", {"backbone": "resnet10", "in_channels": 3}, 2_612_196),
    ("dnanet", {"backbone": "resnet34"}, 8_792_382),
    ("dnanet", {"backbone": "resnet34", "in_channels": 3}, 8_792_702),
    ("dnanet", {"backbone": "vgg10"}, 2_455_732),
    ("dnanet", {"backbone": "vgg10", "in_channels": 3}, 2_456_020),
    ("dnanet", {"backbone": "light"}, 656_356),
    ("dnanet", {"backbone": "light", "in_channels": 3}, 656_516),
    ("dnanet", {"deep_supervision": False}, 4_696_568 - 51),
    ("dnanet", {"nested_down": "maxpool"}, 4_696_568),
    ("datransnet", {}, 4_038_945),
    ("datransnet", {"variant": "release"}, 2_175_401),
    ("acm", {}, 397_821),
    ("acm", {"in_channels": 3}, 397_965),
    ("acm", {"variant": "fpn"}, 289_821),
    ("acm", {"variant": "fpn", "in_channels": 3}, 289_965),
    ("acm", {"blocks": 1, "in_channels": 3}, 157_069),
    ("acm", {"blocks": 2, "in_channels": 3}, 277_517),
    ("acm", {"blocks": 4, "in_channels": 3}, 518_413),
    ("acm", {"variant": "fpn", "blocks": 1, "in_channels": 3}, 95_533),
    ("acm", {"variant": "fpn", "blocks": 2, "in_channels": 3}, 192_749),
    ("acm", {"variant": "fpn", "blocks": 4, "in_channels": 3}, 387_181),
    ("unet", {}, 1_942_289),
]


def name_of(value):
    if isinstance(value, dict):
        return " ".join(f"{k}={v}" for k, v in value.items()) or "default"
    return str(value)


@pytest.mark.parametrize(("model", "options", "expected"), COUNTS, ids=name_of)
def test_parameters_are_the_sheets(model, options, expected):
    with torch.device("meta"):
        assert (
            count_parameters(build(model, **{"init": "default", **options} if model == "dnanet" else options))
            == expected
        )


@pytest.mark.parametrize(
    ("module", "expected", "why"),
    [
        (Block(1, 16, True), 2_738, "L00"),
        (Block(96, 16, True), 17_938, "L04"),
        (Block(80, 16, True), 15_378, "the fusion block"),
        (nn.Sequential(Block(448, 128, True), Block(128, 128, True)), 1_022_020, "L31"),
        (Modulation(32), 10_576, "U-Net, 32 channels"),
        (Modulation(16), 2_728, "U-Net, 16 channels"),
        (Modulation(32, 64), 12_720, "FPN, 64 to 32"),
        (Modulation(16, 32), 3_288, "FPN, 32 to 16"),
        (nn.Sequential(BasicBlock(16, 32, 2), BasicBlock(32, 32), BasicBlock(32, 32)), 51_648, "ACM stage 2"),
        (GFEM(128), 8_624 + 16_384 + 147_584 + 16_512 + 147_584, "GFEM"),
        (DATrans(16, 16), 33_312, "130 C^2 + 2 C"),
        (DATrans(128, 128), 2_130_176, "130 C^2 + 2 C"),
        (DATrans(64, 32, interleaved=True), 266_368, "release, level 3"),
        (DATrans(128, 32, (1,)), 532_736, "release, level 4"),
        (InceptionHead(16), 153, "release head"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_module_parameters_are_the_sheets(module, expected, why):
    assert count_parameters(module) == expected, why


@pytest.mark.parametrize(
    ("model", "options", "gigamacs"),
    [
        ("dnanet", {}, 13.91),
        ("dnanet", {"in_channels": 3}, 13.93),
        ("dnanet", {"backbone": "resnet10"}, 10.88),
        ("dnanet", {"backbone": "resnet34"}, 19.66),
        ("dnanet", {"backbone": "vgg10"}, 10.04),
        ("dnanet", {"backbone": "light"}, 2.76),
        ("datransnet", {}, 11.37),
        ("datransnet", {"variant": "release"}, 8.436),
        ("acm", {}, 0.343),
        ("acm", {"variant": "fpn"}, 0.217),
    ],
    ids=name_of,
)
def test_operations_are_the_sheets(model, options, gigamacs):
    """A second witness for the graph: widths, resolutions and counts of convolutions."""
    # without storage where it can be: switching autocast off needs a device that has autocast
    with torch.device("cpu" if model == "datransnet" else "meta"):
        net = build(model, **{"init": "default", **options} if model == "dnanet" else options)
        images = torch.empty(1, net.in_channels, 256, 256)
    net.train(model == "dnanet")  # the sheet counts DNA-Net's four heads
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(images)
    assert counter.get_total_flops() / 2e9 == pytest.approx(gigamacs, abs=0.006 if gigamacs > 1 else 0.0006)


SMALLEST = [
    ("dnanet", {"backbone": "resnet10", "base": 2}, (16, 32)),
    ("dnanet", {"backbone": "light", "base": 2, "in_channels": 3}, (32, 16)),
    ("dnanet", {"backbone": "vgg10", "base": 2, "nested_down": "maxpool"}, (16, 16)),
    ("dnanet", {"backbone": "resnet10", "base": 2, "deep_supervision": False}, (16, 16)),
    ("datransnet", {"base": 4}, (32, 64)),
    ("datransnet", {"base": 4, "variant": "release"}, (64, 32)),
    ("acm", {"blocks": 1}, (16, 32)),
    ("acm", {"blocks": 1, "variant": "fpn", "in_channels": 3}, (19, 27)),
    ("acm", {"blocks": 1, "tiny": True}, (8, 12)),
    ("acm", {"blocks": 1, "tiny": True, "variant": "fpn"}, (9, 7)),
    ("unet", {"base": 2}, (16, 32)),
    ("unet", {"base": 2, "levels": 2, "in_channels": 3}, (8, 4)),
]


def batch_for(net, size, count=2):
    torch.manual_seed(1)
    images, masks = torch.rand(count, net.in_channels, *size), torch.zeros(count, 1, *size)
    masks[:, :, size[0] // 2 :, size[1] // 2 :] = 1
    return images, masks


@pytest.mark.parametrize(("model", "options", "size"), SMALLEST, ids=name_of)
def test_smallest_sizes_give_maps_of_the_image_size(model, options, size):
    net = build(model, **options)
    images, _ = batch_for(net, size)
    maps = net(images)
    maps = list(maps) if not isinstance(maps, torch.Tensor) else [maps]
    assert len(maps) == (4 if model == "dnanet" and options.get("deep_supervision", True) else 1)
    assert all(m.shape == (2, 1, *size) for m in maps)
    net.eval()
    one = net(images)
    assert one.shape == (2, 1, *size) and torch.isfinite(one).all()
    assert torch.allclose(one[:1], net(images[:1]), atol=1e-5), "an image's map does not depend on its batch"


@pytest.mark.parametrize(("model", "options", "size"), SMALLEST, ids=name_of)
def test_every_parameter_gets_a_gradient(model, options, size):
    torch.manual_seed(0)
    net = build(model, **options)
    size = tuple(3 * s for s in size) if net.stride == 1 else tuple(max(s, 4 * net.stride) for s in size)
    images, masks = batch_for(net, size, 3)
    optimiser = torch.optim.SGD(net.parameters(), 0.01)
    for _ in range(2):  # GFEM's last norm starts at zero: what lies behind it moves in the second step
        optimiser.zero_grad()
        supervised(soft_iou, net(images), masks).backward()
        assert not [n for n, p in net.named_parameters() if p.grad is None]
        optimiser.step()
    still = {n for n, p in net.named_parameters() if not p.grad.abs().sum() > 0}
    assert not [n for n in still if not n.endswith("bias")], "norms cancel biases before them, nothing else"


@pytest.mark.parametrize(
    ("model", "options", "shape", "words"),
    [
        ("dnanet", {"base": 2}, (1, 1, 24, 32), "multiples of 16"),
        ("dnanet", {"base": 2}, (1, 3, 32, 32), r"expected \(B, 1, H, W\)"),
        ("datransnet", {"base": 4}, (1, 1, 48, 64), "multiples of 32"),
        ("acm", {"blocks": 1}, (2, 1, 40, 32), "multiples of 16"),
        ("acm", {"blocks": 1, "variant": "fpn"}, (2, 3, 40, 32), "any size"),
        ("acm", {"blocks": 1}, (1, 1, 32, 32), "two images or more"),
        ("unet", {"base": 2}, (1, 1, 8, 16), "multiples of 16"),
        ("unet", {"base": 2}, (16, 16), r"got \(16, 16\)"),
    ],
    ids=name_of,
)
def test_other_shapes_are_refused(model, options, shape, words):
    with pytest.raises(ValueError, match=words):
        build(model, **options)(torch.rand(shape))


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("dnanet", {"backbone": "resnet50"}),
        ("dnanet", {"deep_supervision": "False"}),
        ("dnanet", {"in_channels": 0}),
        ("dnanet", {"nested_down": "average"}),
        ("dnanet", {"init": "zeros"}),
        ("datransnet", {"variant": "april"}),
        ("datransnet", {"base": 6}),
        ("acm", {"variant": "pan"}),
        ("acm", {"blocks": 0}),
        ("acm", {"blocks": True}),
        ("unet", {"levels": 0}),
        ("unet", {"depth": 3}),
    ],
    ids=name_of,
)
def test_options_out_of_range_are_refused_by_name(model, options):
    with pytest.raises(IrstkitError, match=next(iter(options))):
        build(model, **options)


# ------------------------------------------------------------------------------------------ DATransNet


def test_differences_are_neighbour_minus_centre_with_reflected_borders():
    x = torch.arange(2 * 5 * 6, dtype=torch.float64).reshape(1, 2, 5, 6) ** 2
    for n in (1, 3):
        got = differences(x, n).reshape(8, 2, 5, 6)
        for j, (r, c) in enumerate(NEIGHBOURS):
            for y in range(5):
                for z in range(6):
                    yy, zz = y + n * r, z + n * c
                    yy, zz = (-yy if yy < 0 else min(yy, 8 - yy)), (-zz if zz < 0 else min(zz, 10 - zz))
                    assert torch.equal(got[j, :, y, z], x[0, :, yy, zz] - x[0, :, y, z])


def attention_by_loops(module, x):
    """Steps 1 to 6 of the sheet, an image and a head at a time."""
    heads = []
    for h, n in enumerate(module.dilations):
        d = differences(x, n)
        q, k, v = (
            layer[h](a)[0].flatten(1) for layer, a in ((module.query, x), (module.key, d), (module.value, d))
        )
        q, k = q / q.norm(dim=1, keepdim=True), k / k.norm(dim=1, keepdim=True)
        s = q @ k.T / (x.shape[2] * x.shape[3]) ** 0.5
        s = (s - s.mean()) / (s.var(unbiased=False) + 1e-5).sqrt()
        heads.append(torch.softmax(s, dim=1) @ v)
    return module.out(torch.cat(heads)[None].unflatten(2, x.shape[2:]))


def test_attention_follows_the_equations_head_by_head():
    torch.manual_seed(0)
    module = DATrans(6, 4, (1, 3)).double().eval()
    x = torch.randn(1, 6, 7, 5, dtype=torch.float64)
    assert torch.allclose(module(x), attention_by_loops(module, x), atol=1e-12)


def test_the_release_interleaves_the_channels_of_its_heads():
    torch.manual_seed(0)
    module = DATrans(6, 4, (1, 3), interleaved=True)
    a, b = torch.arange(3.0).reshape(1, 3, 1, 1), torch.arange(10.0, 13).reshape(1, 3, 1, 1)
    got = module._heads([a, b]).flatten().tolist()  # channel c of head h goes to place 2 c + h
    assert got == [0, 10, 1, 11, 2, 12]


def test_dnanet_returns_the_fused_map_last():
    torch.manual_seed(0)
    net = build("dnanet", backbone="resnet10", base=2)
    images, _ = batch_for(net, (16, 16))
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 0.0  # so that evaluation would see what training saw
    with torch.no_grad():
        net.head.bias.fill_(100.0)
        maps = net(images)
    assert torch.equal(final(maps), maps[3])
    assert maps[3].min() > 50 and max(float(m.max()) for m in maps[:3]) < 50


@pytest.mark.parametrize("corners", [True, False])
@pytest.mark.parametrize(
    ("source", "target"),
    [
        ((4, 6), (8, 12)),
        ((5, 3), (9, 7)),
        ((1, 1), (4, 2)),
        ((8, 9), (3, 1)),
        ((6, 6), (6, 6)),
        ((2, 7), (1, 30)),
    ],
    ids=str,
)
def test_resize_by_products_is_interpolation(source, target, corners):
    """What a GPU computes, and its gradient, against PyTorch's own on the CPU."""
    torch.manual_seed(0)
    x = torch.rand(2, 3, *source, dtype=torch.float64, requires_grad=True)
    wanted = F.interpolate(x, size=target, mode="bilinear", align_corners=corners)
    found = resize_by_products(x, target, corners=corners)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)
    weights = torch.rand_like(wanted)
    (a,) = torch.autograd.grad((wanted * weights).sum(), x)
    (b,) = torch.autograd.grad((found * weights).sum(), x)
    torch.testing.assert_close(b, a, rtol=1e-6, atol=1e-6)
    half = resize_by_products(x.detach().bfloat16(), target, corners=corners)
    assert half.dtype == torch.bfloat16


def test_matrices_of_resize_stay_where_they_are():
    """A recorded step reads them where they lay when it was recorded, whatever sizes come later."""
    x = torch.rand(1, 1, 4, 4)
    resize_by_products(x, (8, 8), corners=False)
    first = layers._bilinear(4, 8, False, torch.float32, x.device)
    for size in range(9, 400):
        resize_by_products(x, (size, size + 1), corners=False)
    assert layers._bilinear(4, 8, False, torch.float32, x.device) is first
