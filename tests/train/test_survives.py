"""What training and inference survive: ends of sequences, short ones, gaps, empty batches, half precision; and
what they refuse with its place: boxes of zero size."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch

from irstkit.annotate.coco import add_box, add_image, new_coco
from irstkit.annotate.errors import IrstkitError
from irstkit.annotate.files import write_json
from irstkit.datasets.clip_batches import ClipBatches
from irstkit.datasets.clips import Clips
from irstkit.datasets.readers import open_dataset
from irstkit.train.models.dfar import DFAR
from irstkit.train.models.eflnet import EFLNet
from irstkit.train.models.std2net import STD2Net

SIZE = (32, 40)
NETWORKS = {
    "dfar": {"radius": 2, "width": 0.125, "afs": False, "agdf": False},
    "std2net": {"window": 5, "base": 3, "features": 4},
}


@pytest.fixture
def make(tmp_path):
    """``make({sequence: frame numbers})``: our own layout with masks, a bright target in every frame."""

    def write(layout, folder="set"):
        root, coco, rng = tmp_path / folder, new_coco(), np.random.default_rng(0)
        for s, numbers in layout.items():
            for n in numbers:
                image = rng.normal(90, 4, SIZE).clip(0, 255).astype(np.uint8)
                mask = np.zeros(SIZE, np.uint8)
                mask[10:14, 8 + n : 12 + n] = 255
                image[mask > 0] = 220
                for kind, values in (("images", image), ("masks", mask)):
                    path = root / kind / s / f"{n:06d}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    cv2.imwrite(str(path), values)
                k = add_image(coco, f"images/{s}/{n:06d}.png", SIZE, sequence=s, frame=n)
                add_box(coco, k, (8 + n, 10, 12 + n, 14))
        write_json(root / "annotations.json", coco)
        return root

    return write


def fit(irstkit, name, root, out, *more):
    options = [a for k, v in NETWORKS[name].items() for a in ("--option", f"{k}={json.dumps(v)}")]
    if name == "dfar":  # its best recipe has stages, for which two steps are too few
        options += ["--recipe", "paper"]
    return irstkit("train", "fit", name, "--synthetic", root, "--out", out, "--steps", 2, "--crop", 32, "--batch",
                   2, "--threads", 1, "--device", "cpu", *options, *more)  # fmt: skip


LAYOUTS = {
    "ends": {"a": range(6), "b": range(6)},
    "shorter than the window": {"a": range(2), "b": [0], "c": range(3)},
    "missing frames": {"a": [0, 1, 4, 5, 9], "b": [0, 2, 3]},
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_sequences_of_any_length_and_with_gaps(irstkit, make, tmp_path, name, layout):
    root = make(LAYOUTS[layout])
    result = fit(irstkit, name, root, tmp_path / "run")
    assert result.exit_code == 0, result.stderr
    assert ("frames missing" in result.stderr) == (layout == "missing frames")
    boxes = ("--boxes",) if name == "std2net" else ()
    result = irstkit("train", "evaluate", tmp_path / "run", "--data", root, "--split", "all", "--json",
                     "--device", "cpu", *boxes)  # fmt: skip
    assert result.exit_code == 0, result.stderr
    numbers = json.loads(result.stdout)
    assert numbers["frames"] == sum(map(len, LAYOUTS[layout].values()))
    assert ("frames missing" in result.stderr) == (layout == "missing frames")
    result = irstkit(
        "train", "predict", tmp_path / "run", root, "--out", tmp_path / "found", "--device", "cpu"
    )
    assert result.exit_code == 0, result.stderr


def test_boxes_of_zero_size_are_refused_with_their_place(irstkit, make, tmp_path):
    """A COCO file by its JSON path, a list by its line: before anything is written."""
    root = make({"a": range(3), "b": range(3)})
    coco = json.loads((root / "annotations.json").read_text())
    coco["annotations"][2]["bbox"] = [9, 10, 0, 4]
    (root / "annotations.json").write_text(json.dumps(coco))
    result = fit(irstkit, "dfar", root, tmp_path / "run")
    assert result.exit_code == 1 and "annotations[2]" in result.stderr and not (tmp_path / "run").exists()

    lists = tmp_path / "daub"
    for n in range(3):
        path = lists / "images" / "train" / "data5" / f"{n}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full(SIZE, 90, np.uint8))
    lines = [f"/x/images/train/data5/{n}.bmp 8,8,{16 if n != 1 else 8},16,0" for n in range(3)]
    (lists / "coco_train_DAUB.txt").write_text("\n".join(lines) + "\n")
    result = fit(irstkit, "dfar", lists, tmp_path / "run")
    assert result.exit_code == 1 and "line 2" in result.stderr and "without area" in result.stderr
    assert not (tmp_path / "run").exists()


def clips_without_targets(root):
    data = open_dataset(root)
    clips = Clips(list(data), 5, 2, "target")
    clips.boxes = [b[:0] for b in clips.boxes]
    return clips


def test_batches_without_any_target(make):
    """Loss finite, gradients finite, for a step that holds nothing but background."""
    clips = clips_without_targets(make({"a": range(6)}))
    images, targets = ClipBatches(clips, 2, 32).batch(0)
    images = images.expand(-1, -1, 3, -1, -1)
    for net, batch in (
        (DFAR(width=0.125).train(), images),
        (EFLNet(width=0.125, blocks=1).train(), images[:, 2]),
    ):
        loss = net.losses(net(batch), targets)["total"]
        loss.backward()
        assert torch.isfinite(loss) and not any(len(t) for t in targets)
        assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", ["dfar", "eflnet"])
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_trains(name, kind):
    """Autocast to either half: finite loss and gradients."""
    torch.manual_seed(0)
    net = DFAR(width=0.125) if name == "dfar" else EFLNet(width=0.125, blocks=1)
    batch = torch.rand(2, 5, 3, 32, 32) if name == "dfar" else torch.rand(2, 3, 64, 64)
    targets = [torch.tensor([[8.0, 8, 14, 14]]), torch.zeros(0, 4)]
    with torch.autocast("cpu", dtype=kind):
        output = net.train()(batch)
    loss = net.losses(output, targets)["total"]
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def test_overflow_in_half_precision_is_an_error_that_says_what_to_do():
    """Activations beyond float16's range become offsets that are not finite: no crash of the operator."""
    net = DFAR(width=0.125).train()
    with torch.no_grad():
        net.extract[-1][1].weight.fill_(3e4)
        for block in net.align:
            torch.nn.init.normal_(block.offset.weight, 0, 1e3)
    with torch.autocast("cpu", dtype=torch.float16), pytest.raises(IrstkitError, match="diverged") as caught:
        net(torch.rand(1, 5, 3, 32, 32))
    assert "--lr" in str(caught.value.hint)


def test_std2net_in_half_precision_keeps_norms_in_range():
    """The norms over the plane are of float32: differences of thousands do not overflow."""
    torch.manual_seed(0)
    net = STD2Net(window=3, base=3, features=4).train()
    with torch.no_grad():
        net.frame.head.weight.mul_(1e3)
    with torch.autocast("cpu", dtype=torch.float16):
        out = net(torch.rand(2, 3, 1, 64, 64))
    assert torch.isfinite(out).all()
    out.float().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)
