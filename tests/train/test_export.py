"""ONNX files of every network: what onnxruntime makes of them is what PyTorch gives."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from irstkit.annotate.errors import IrstkitError
from irstkit.train.checkpoint import save_checkpoint
from irstkit.train.export import export_onnx
from irstkit.train.models import MODELS, build
from irstkit.train.models.deform import deform_by_sampling

SMALL = {
    "acm": ({"blocks": 1}, (32, 48)),
    "datransnet": ({"base": 4}, (32, 64)),
    "dnanet": ({"backbone": "resnet10", "base": 2}, (16, 32)),
    "sd2net": ({"base": 3}, (32, 48)),
    "std2net": ({"base": 3, "features": 4, "window": 3}, (32, 48)),
    "unet": ({"base": 2, "levels": 2}, (8, 12)),
}
OTHERS = [
    ("acm", {"blocks": 1, "variant": "fpn", "in_channels": 3}, (19, 27)),
    ("datransnet", {"base": 4, "variant": "release"}, (64, 32)),
    ("dnanet", {"backbone": "vgg10", "base": 2, "nested_down": "maxpool"}, (32, 16)),
    ("sd2net", {"base": 3, "padding": "reflect"}, (64, 64)),
]


def settled(name, options):
    """A network whose norms have seen data, so that nothing is the identity by luck."""
    torch.manual_seed(0)
    net = build(name, **options)
    for part in net.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.uniform_(-0.2, 0.2)
            part.running_var.uniform_(0.5, 1.5)
            if part.affine:
                torch.nn.init.uniform_(part.weight, 0.5, 1.5)
    return net


def test_every_network_is_tried_here():
    assert set(MODELS) == {*SMALL, *BOXES}, "a new network needs a line"


@pytest.mark.parametrize(
    ("name", "options", "size"), [(n, *v) for n, v in SMALL.items()] + OTHERS, ids=lambda v: str(v)
)
def test_onnxruntime_gives_what_pytorch_gives(name, options, size, tmp_path):
    net = settled(name, options)
    told = export_onnx(net, tmp_path / "net.onnx", size, probabilities=True, about={"model": name})
    assert net.training, "the network's mode is left alone"
    assert told["largest_difference"] < 1e-4 and told["trials"] == 3
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    images = np.random.default_rng(9).random(told["input"], np.float32)  # an input the export did not try
    got = session.run(["probabilities"], {"images": images})[0]
    with torch.no_grad():
        expected = torch.sigmoid(net.eval()(torch.from_numpy(images))).numpy()
    assert got.shape == (1, 1, *size)
    np.testing.assert_allclose(got, expected, atol=1e-4)
    assert session.get_modelmeta().custom_metadata_map == {"model": name}


def test_equal_networks_give_equal_files(tmp_path):
    for name in ("a.onnx", "b.onnx"):
        export_onnx(settled("unet", SMALL["unet"][0]), tmp_path / name, (8, 8), about={"b": "1", "a": "2"})
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


class Doubled(torch.autograd.Function):
    """Traced as what its forward does, but the tracer is told something else."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def symbolic(g, x):
        return g.op("Identity", x)


class Wrong(torch.nn.Module):
    def forward(self, images):
        return Doubled.apply(images)


def test_an_export_that_computes_something_else_is_not_written(tmp_path):
    with pytest.raises(IrstkitError, match=r"differs from PyTorch's by .*not written"):
        export_onnx(Wrong(), tmp_path / "net.onnx", 8)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("size", "changes", "words"),
    [
        ((30, 32), {}, "multiples of 16, got 30x32.*32x32"),
        ((0, 32), {}, "multiples of 16"),
        (32, {"batch": 0}, "batch"),
    ],
)
def test_sizes_the_network_does_not_take_are_refused(size, changes, words, tmp_path):
    with pytest.raises(IrstkitError, match=words):
        export_onnx(build("sd2net", base=3), tmp_path / "net.onnx", size, **changes)


BOXES = {
    "dfar": ({"radius": 1}, (24, 40)),
    "eflnet": ({"width": 0.125, "blocks": 1}, (64, 96)),
}


def moving(name, options):
    """A network of boxes whose offsets, zero at the start, are not: every position is a fraction of a pixel."""
    net = settled(name, options)
    for part in net.modules():
        for found in (getattr(part, "offset", None), getattr(part, "offset_coarse", None)):
            if isinstance(found, torch.nn.Conv2d):
                torch.nn.init.normal_(found.weight, 0, 0.02)
                torch.nn.init.uniform_(found.bias, -2, 2)
    return net


@pytest.mark.parametrize("name", BOXES)
@pytest.mark.parametrize("way", [{}, {"portable": True}, {"raw": True}], ids=str)
def test_networks_of_boxes_give_pytorchs_boxes_and_scores(name, way, tmp_path):
    options, size = BOXES[name]
    net = moving(name, options)
    told = export_onnx(net, tmp_path / "net.onnx", size, **way)
    assert told["deformable"] == ("GridSample" if "portable" in way else "DeformConv")
    kinds = {n.op_type for n in onnx.load(tmp_path / "net.onnx").graph.node}
    assert ("DeformConv" in kinds) == ("portable" not in way) and "BatchNormalization" not in kinds
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    images = np.random.default_rng(9).random(told["input"], np.float32)
    got = session.run(None, {"images": images})
    names = [o.name for o in session.get_outputs()]
    with torch.no_grad():
        maps = net.eval()(torch.from_numpy(images))
        expected = net.decode(maps)
    if "raw" in way:
        expected = [maps] if isinstance(maps, torch.Tensor) else maps
        assert names == (["raw"] if name == "dfar" else ["raw_0", "raw_1", "raw_2"])
    else:
        assert names == ["boxes", "scores"]
    assert told["outputs"] == {n: list(v.shape) for n, v in zip(names, expected, strict=True)}
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b.numpy(), atol=1e-4 * max(1.0, float(b.abs().max())))


@pytest.mark.parametrize(
    ("stride", "size", "groups", "channels"),
    [(1, (13, 9), 4, 8), (2, (13, 9), 1, 8), (2, (12, 10), 2, 8), (1, (1, 7), 1, 4), (1, (40, 40), 8, 64)],
)
def test_deformable_convolution_by_sampling_is_torchvisions(stride, size, groups, channels):
    from torchvision.ops import deform_conv2d

    rng = torch.Generator().manual_seed(0)
    out = [-(-s // stride) for s in size]
    x = torch.randn(2, channels, *size, generator=rng)
    offset = 4 * torch.randn(2, 18 * groups, *out, generator=rng)  # many of them leave the map
    mask = torch.rand(2, 9 * groups, *out, generator=rng)
    weight, bias = torch.randn(5, channels, 3, 3, generator=rng) / 9, torch.randn(5, generator=rng)
    expected = deform_conv2d(x, offset, weight, bias, stride=stride, padding=1, mask=mask)
    got = deform_by_sampling(x, offset, mask, weight, bias, stride=stride)
    assert (got - expected).abs().max() < 1e-5 * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize(
    ("name", "way", "words"),
    [("eflnet", {"probabilities": True}, "no map of probabilities"), ("unet", {"raw": True}, "gives masks")],
)
def test_outputs_the_network_does_not_have_are_refused(name, way, words, tmp_path):
    options = BOXES[name][0] if name in BOXES else SMALL[name][0]
    with pytest.raises(IrstkitError, match=words):
        export_onnx(build(name, **options), tmp_path / "net.onnx", 32, **way)


def test_the_command_writes_a_checkpoint_as_onnx(irstkit, tmp_path):
    net = settled("unet", {"base": 2})
    save_checkpoint(
        tmp_path / "best.pt",
        {
            "model": {"name": "unet", "options": {"base": 2}, "state": net.state_dict()},
            "normalisation": {"mean": 0.25, "std": 0.5},
            "step": 1,
            "data": {},
            "seen": {},
        },
    )
    out = tmp_path / "net.onnx"
    result = irstkit("train", "export", tmp_path, "--out", out, "--size", 16, 32, "--batch", 2, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["input"] == [2, 1, 16, 32] and told["normalisation"] == {"mean": 0.25, "std": 0.5}
    kept = {p.key: p.value for p in onnx.load(out).metadata_props}
    assert kept["model"] == "unet" and kept["mean"] == "0.25"
    result = irstkit("train", "export", tmp_path / "best.pt", "--out", tmp_path / "more.onnx")
    assert "agrees with PyTorch" in result.stdout
    result = irstkit(
        "train", "export", tmp_path / "best.pt", "--out", tmp_path / "odd.onnx", "--size", 17, 32
    )
    assert result.exit_code == 1 and "multiples of 16" in result.stderr
