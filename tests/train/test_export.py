"""ONNX files of every network that gives masks: what onnxruntime makes of them is what PyTorch gives."""

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


def test_every_network_that_gives_masks_is_tried_here():
    assert set(MODELS) - {"dfar", "eflnet"} == set(SMALL), "a new network needs a line above, or gives boxes"


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


def test_networks_of_boxes_are_refused_by_name(tmp_path):
    net = build("unet", base=2)
    net.task = "boxes"
    with pytest.raises(IrstkitError, match="boxes"):
        export_onnx(net, tmp_path / "net.onnx", 16)


def test_the_command_writes_a_checkpoint_as_onnx(irstkit, tmp_path):
    net = settled("unet", {"base": 2})
    save_checkpoint(
        tmp_path / "best.pt",
        {
            "model": {"name": "unet", "options": {"base": 2}, "state": net.state_dict()},
            "normalisation": {"mean": 0.25, "std": 0.5},
        },
    )
    out = tmp_path / "net.onnx"
    result = irstkit("train", "export", tmp_path, "--out", out, "--size", 16, 32, "--batch", 2, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["input"] == [2, 1, 16, 32] and told["normalisation"] == {"mean": 0.25, "std": 0.5}
    kept = {p.key: p.value for p in onnx.load(out).metadata_props}
    assert kept["model"] == "unet" and kept["mean"] == "0.25"
    result = irstkit("train", "export", tmp_path / "best.pt", "--out", out)
    assert "agrees with PyTorch" in result.stdout
    result = irstkit("train", "export", tmp_path / "best.pt", "--out", out, "--size", 17, 32)
    assert result.exit_code == 1 and "multiples of 16" in result.stderr
