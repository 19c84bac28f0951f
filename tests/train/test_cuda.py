"""What only a GPU can show: steps of one graph, reproducible bits, the CPU's numbers. Skipped without one."""

import numpy as np
import pytest
import torch

from irstkit.datasets.batches import Batches
from irstkit.datasets.readers import open_dataset
from irstkit.train import loop
from irstkit.train.checkpoint import load_checkpoint, weights_hash
from irstkit.train.evaluate import evaluate
from irstkit.train.losses import final
from irstkit.train.material import compose
from irstkit.train.models import build
from irstkit.train.models.differences import recombine
from irstkit.train.models.layers import resize
from irstkit.train.runtime import deterministic
from irstkit.train.settings import settings_from
from irstkit.train.sources import open_source

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

MASKS = {
    "sd2net": {"base": 4},
    "dnanet": {"backbone": "light"},
    "datransnet": {},
    "acm": {},
    "unet": {},
}


@pytest.fixture
def exact():
    """Convolutions in float32: by default cuDNN rounds their inputs to 10 bits of mantissa."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def settings_of(name, **changes):
    values = {"model": name, "options": MASKS[name], "crop": 64, "batch": 4, "steps": 9, "clip": 1.0}
    return settings_from(values | changes)


def hash_of(folder):
    return weights_hash(load_checkpoint(folder / "last.pt")["model"]["state"])


@pytest.mark.parametrize("name", MASKS)
def test_a_replayed_step_is_the_eager_one_to_the_bit(name, split_pairs, tmp_path):
    material = compose(split_pairs(8, 2, size=(96, 80)), None)
    for folder, graph in (("graph", True), ("again", True), ("eager", False)):
        report = loop.fit(settings_of(name), material, tmp_path / folder, device="cuda", cuda_graph=graph)
        assert report["cuda_graph"] is graph
    assert hash_of(tmp_path / "graph") == hash_of(tmp_path / "again"), "same seed, same bits"
    assert hash_of(tmp_path / "graph") == hash_of(tmp_path / "eager")


def test_resumed_on_a_gpu(split_pairs, tmp_path):
    material = compose(split_pairs(8, 2, size=(96, 80)), None)
    loop.fit(settings_of("sd2net"), material, tmp_path / "whole", device="cuda")
    loop.fit(settings_of("sd2net"), material, tmp_path / "parts", device="cuda", max_steps=5)
    loop.fit(settings_of("sd2net"), material, tmp_path / "parts", device="cuda", resume=True)
    assert hash_of(tmp_path / "parts") == hash_of(tmp_path / "whole")


@pytest.mark.parametrize(
    "changes",
    [
        {"accumulate": 2},
        {"precision": "16-mixed"},
        {"precision": "bf16-mixed"},
        *({"optimiser": name} for name in ("adamw", "sgd", "adagrad")),
    ],
    ids=str,
)
def test_other_steps_train_too(changes, split_pairs, tmp_path):
    material = compose(split_pairs(8, 2, size=(96, 80)), None)
    report = loop.fit(settings_of("sd2net", **changes), material, tmp_path / "run", device="cuda")
    assert report["step"] == 9 and report["cuda_graph"] is not bool(
        {"accumulate", "16-mixed"} & {*changes, *changes.values()}
    )


@pytest.mark.parametrize("name", MASKS)
def test_forward_is_the_cpus(name, exact):
    torch.manual_seed(0)
    net, images = build(name, **MASKS[name]).eval(), torch.rand(2, 1, 64, 96)
    channels = int(getattr(net, "in_channels", 1))
    images = images.expand(-1, channels, -1, -1)
    with torch.no_grad(), deterministic():
        wanted = final(net(images))
        found = final(net.cuda()(images.cuda())).cpu()
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_differences_are_the_cpus(mode):
    torch.manual_seed(0)
    x, o, weights = torch.rand(3, 2, 5, 40, 56)
    results = []
    for device in ("cpu", "cuda"):
        a = x.to(device, copy=True).requires_grad_()
        b = o.to(device, copy=True).requires_grad_()
        out = recombine(a, b, mode=mode)
        out.backward(weights.to(device))
        results.append([t.cpu() for t in (out.detach(), a.grad, b.grad)])
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("corners", [True, False])
def test_resize_is_the_cpus(corners):
    x = torch.rand(2, 3, 17, 23)
    with deterministic():
        found = resize(x.cuda(), (40, 31), corners=corners).cpu()
    torch.testing.assert_close(found, resize(x, (40, 31), corners=corners), rtol=1e-5, atol=1e-5)


def test_batches_are_the_cpus(split_pairs):
    records = open_dataset(split_pairs(8, 2, size=(50, 90))).part("own/train")
    one, other = (Batches(records, 4, 64, seed=3, device=d) for d in ("cpu", "cuda"))
    for step in range(6):
        for a, b in zip(one.batch(step), other.batch(step), strict=True):
            assert np.array_equal(a.numpy(), b.cpu().numpy())


def test_scores_are_the_cpus(checkpoint, split_pairs, exact):
    root = split_pairs(4, 6)
    data = open_dataset(root)
    records = data.part("own/test")
    scores = {}
    for device in ("cpu", "cuda"):
        source = open_source(checkpoint(), records, device=device)
        scores[device] = evaluate(source, data, "own/test")
    for key in ("iou", "niou", "pd", "fa", "f1"):
        assert scores["cuda"][key] == pytest.approx(scores["cpu"][key], rel=1e-3, abs=1e-6), key
