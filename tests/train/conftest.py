"""Small runs that the tests of this room share."""

import cv2
import numpy as np
import pytest
import torch

from irstkit.annotate.coco import add_box, add_image, new_coco
from irstkit.annotate.files import write_json
from irstkit.train.checkpoint import save_checkpoint, weights_hash
from irstkit.train.models import build


@pytest.fixture(autouse=True)
def one_thread():
    """Equal numbers need equal threads, and small networks gain nothing from more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def split_pairs(make_pairs):
    """``split_pairs(train, test)``: a data set of pairs with the lists ``own/train`` and ``own/test``."""

    def make(train: int = 8, test: int = 3, **kwargs):
        root = make_pairs(train + test, **kwargs)
        lists = root / "splits" / "own"
        lists.mkdir(parents=True)
        names = [f"{k:06d}" for k in range(train + test)]
        (lists / "train.txt").write_text("\n".join(names[:train]) + "\n")
        (lists / "test.txt").write_text("\n".join(names[train:]) + "\n")
        return root

    return make


@pytest.fixture
def checkpoint(tmp_path):
    """``checkpoint(**changes)``: a file with an untrained SD2Net whose head answers yes about half the time."""

    def make(name="net.pt", **changes):
        torch.manual_seed(3)
        net = build("sd2net", base=3)
        noise = np.random.default_rng(0).normal(90, 25, (4, 1, 48, 48))
        images = torch.from_numpy(
            np.stack([cv2.GaussianBlur(x[0], (0, 0), 4) for x in noise])[:, None] / 255
        ).float()
        with torch.no_grad():
            for _ in range(20):
                net(images)
            net.head.bias -= net.eval()(images).median()
        state = net.state_dict()
        content = {
            "model": {"name": "sd2net", "options": {"base": 3}, "state": state},
            "normalisation": {"mean": 0.0, "std": 1.0},
            "step": 7,
            "epoch": 1.0,
            "metrics": {},
            "data": {},
            "seen": {},
            "settings": {},
            "weights": weights_hash(state),
            **changes,
        }
        save_checkpoint(tmp_path / name, content)
        return tmp_path / name

    return make


@pytest.fixture(scope="module")
def sequences(tmp_path_factory):
    """Our own layout: three sequences of five frames, one target that moves, masks and boxes."""
    root = tmp_path_factory.mktemp("sequences")
    size = (32, 40)
    coco, rng = new_coco(), np.random.default_rng(0)
    for s in range(3):
        (root / "images" / f"{s:04d}").mkdir(parents=True)
        (root / "masks" / f"{s:04d}").mkdir(parents=True)
        y, x = rng.integers(8, 20, 2)
        for n in range(5):
            image = rng.normal(90, 4, size).clip(0, 255).astype(np.uint8)
            mask = np.zeros(size, np.uint8)
            mask[y : y + 4, x + n : x + n + 4] = 255
            image[mask > 0] = 220
            name = f"{s:04d}/{n:06d}.png"
            cv2.imwrite(str(root / "images" / name), image)
            cv2.imwrite(str(root / "masks" / name), mask)
            k = add_image(coco, f"images/{name}", size, sequence=f"{s:04d}", frame=n)
            add_box(coco, k, (x + n, y, x + n + 4, y + 4))
    write_json(root / "annotations.json", coco)
    lists = root / "splits" / "own"
    lists.mkdir(parents=True)
    ids = [i["file_name"].removesuffix(".png") for i in coco["images"]]
    (lists / "train.txt").write_text("\n".join(ids[:10]) + "\n")
    (lists / "test.txt").write_text("\n".join(ids[10:]) + "\n")
    return root
