"""The scene network: which of the five scenes an image shows.

A small plain CNN (Conv-BatchNorm-ReLU, global average, one linear layer) on a 96 x 96 reduction, each image
brought to zero mean and unit deviation, so that gain and offset tell nothing. Training mixes labelled real
images with procedural scenes, classes drawn evenly. Torch is imported only to train; prediction runs the
exported ONNX file through OpenCV.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..annotate.console import note, progress
from ..annotate.errors import IrstkitError, require
from .preset import SCENES
from .procedural import procedural

SIDE = 96
WEIGHTS = Path(__file__).resolve().parent / "weights" / "scenes.onnx"
CHANNELS = (16, 32, 48, 64, 80)


def reduce_image(image: NDArray) -> NDArray[np.float32]:
    """(96, 96) float32 of zero mean and unit deviation."""
    small = cv2.resize(image.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    small -= small.mean()
    return np.asarray(small / max(float(small.std()), 1e-3), np.float32)


def shrink(image: NDArray, side: int = 160) -> NDArray:
    """The image with its shorter side brought down to ``side`` pixels, to keep many in memory."""
    scale = side / min(image.shape)
    if scale >= 1:
        return image
    size = max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


class SceneNet:
    """The exported network. ``probabilities`` of images, (N, 5) in the order of SCENES."""

    def __init__(self, path: str | Path = WEIGHTS) -> None:
        path = Path(path)
        if not path.is_file():
            raise IrstkitError("no such file", path=path, hint="irstkit synth scenes train writes one")
        try:
            self.net = cv2.dnn.readNetFromONNX(str(path))
        except cv2.error as error:
            raise IrstkitError("not a network that OpenCV can read", path=path) from error

    def probabilities(self, images: Sequence[NDArray]) -> NDArray[np.float64]:
        """Softmax over the five scenes, a row an image; the mirrored image has half a say."""
        rows = []
        for image in images:
            reduced = reduce_image(image)
            both = np.stack([reduced, reduced[:, ::-1]])[:, None]
            scores = np.zeros(len(SCENES))
            for one in both:  # one by one: exported with a batch of one
                self.net.setInput(np.ascontiguousarray(one[None]))
                scores += self.net.forward().ravel().astype(np.float64) / 2
            scores = np.exp(scores - scores.max())
            rows.append(scores / scores.sum())
        return np.array(rows).reshape(len(images), len(SCENES))

    def predict(self, image: NDArray) -> tuple[str, float]:
        """The likeliest scene and its probability."""
        found = self.probabilities([image])[0]
        return SCENES[int(found.argmax())], float(found.max())


def confusion(truth: Sequence[str], predicted: Sequence[str]) -> NDArray[np.int64]:
    """(5, 5) counts, a row a true scene, a column a predicted one, in the order of SCENES."""
    out = np.zeros((len(SCENES), len(SCENES)), dtype=np.int64)
    for t, p in zip(truth, predicted, strict=True):
        out[SCENES.index(t), SCENES.index(p)] += 1
    return out


def scores(matrix: NDArray[np.int64]) -> dict[str, Any]:
    """Accuracy, and balanced accuracy: the mean recall of the scenes that occur."""
    total = matrix.sum(axis=1)
    there = total > 0
    recall = matrix.diagonal()[there] / total[there]
    return {
        "images": int(total.sum()),
        "accuracy": float(matrix.diagonal().sum() / max(int(total.sum()), 1)),
        "balanced_accuracy": float(recall.mean()) if there.any() else 0.0,
        "recall": {s: float(matrix[k, k] / total[k]) for k, s in enumerate(SCENES) if total[k]},
        "confusion": {s: dict(zip(SCENES, matrix[k].tolist(), strict=True)) for k, s in enumerate(SCENES)},
    }


# --------------------------------------------------------------------------------------------- training


def train(
    images: Sequence[NDArray],
    labels: Sequence[str],
    weights: Sequence[float],
    out: str | Path,
    *,
    steps: int = 2500,
    batch: int = 64,
    synthetic: int = 150,
    synthetic_share: float = 0.5,
    seed: int = 0,
) -> int:
    """Train on real images and procedural scenes, write an ONNX file, return its number of parameters.

    ``weights`` are the images' chances within their scene (less for uncertain labels); ``synthetic`` is the
    number of procedural images a scene, ``synthetic_share`` their share of a batch.
    """
    torch = require("torch", "train")
    require("onnx", "train")
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    real = {s: [k for k, label in enumerate(labels) if label == s] for s in SCENES}
    made: dict[str, list[NDArray]] = {}
    with progress("Procedural scenes", synthetic * len(SCENES)) as bar:
        for number, scene in enumerate(SCENES):
            made[scene] = []
            for k in range(synthetic):
                draw = np.random.Generator(
                    np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(9, number, k)))
                )
                made[scene].append(procedural(scene, 160, draw)[0])
                bar.advance()
    net = build(torch)
    optimiser = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    loss_of = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    chances = {s: np.asarray([weights[k] for k in real[s]], float) for s in SCENES}
    net.train()
    with progress("Training", steps, unit="steps") as bar:
        for step in range(steps):
            chosen = rng.integers(len(SCENES), size=batch)
            rows = []
            for number in chosen.tolist():
                scene = SCENES[number]
                pool, p = real[scene], chances[scene]
                if pool and p.sum() > 0 and (synthetic == 0 or rng.random() >= synthetic_share):
                    image = images[pool[int(rng.choice(len(pool), p=p / p.sum()))]]
                elif made[scene]:
                    image = made[scene][int(rng.integers(synthetic))]
                else:
                    raise IrstkitError(f"no image of the scene {scene!r} and no procedural ones to train on")
                rows.append(augment(image, rng))
            x = torch.from_numpy(np.stack(rows)[:, None])
            loss = loss_of(net(x), torch.from_numpy(chosen))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            bar.advance(1, f"loss {float(loss.detach()):.3f}")
            if (step + 1) % 500 == 0:
                note(f"step {step + 1}: loss {float(loss.detach()):.3f}")
    export(torch, net.eval(), Path(out))
    return sum(p.numel() for p in net.parameters())


def augment(image: NDArray, rng: np.random.Generator) -> NDArray[np.float32]:
    """A random crop of 60 to 100 % of each side, mirrored or not, of other gamma, sharpness and noise."""
    height, width = image.shape
    h, w = (max(int(n * rng.uniform(0.6, 1.0)), 16) for n in (height, width))
    y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    part = image[y : y + h, x : x + w].astype(np.float32)
    if rng.random() < 0.5:
        part = part[:, ::-1]
    low, high = float(part.min()), float(part.max())
    part = ((part - low) / max(high - low, 1e-3)) ** np.float32(np.exp(rng.uniform(-0.5, 0.5)))
    small = cv2.resize(np.ascontiguousarray(part), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    if rng.random() < 0.5:
        small = cv2.GaussianBlur(small, (0, 0), float(rng.uniform(0.3, 1.2)))
    small = small + np.float32(rng.uniform(0, 0.04)) * rng.standard_normal(small.shape, dtype=np.float32)
    return reduce_image(small)


def build(torch: Any) -> Any:
    """The network: five blocks of two 3x3 convolutions, each but the last halving the side."""
    nn = torch.nn
    layers: list[Any] = []
    before = 1
    for k, width in enumerate(CHANNELS):
        for half in (0, 1):
            stride = 2 if half == 0 and k < 4 else 1
            layers += [nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            before = width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(before, len(SCENES))]
    return nn.Sequential(*layers)


def export(torch: Any, net: Any, out: Path) -> None:
    """Write the network as ONNX, atomically, and check that OpenCV gives what torch gives."""
    import contextlib
    import io

    from ..annotate.files import atomic_path

    sample = torch.randn(1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with atomic_path(out) as temporary:
        with contextlib.redirect_stdout(io.StringIO()):
            torch.onnx.export(
                net, (sample,), str(temporary), input_names=["image"], output_names=["scores"], opset_version=18,
                dynamo=True, external_data=False, verbose=False,
            )  # fmt: skip
        temporary.write_bytes(_without_traces(temporary))
        check = cv2.dnn.readNetFromONNX(str(temporary))
        check.setInput(sample.numpy())
        with torch.no_grad():
            difference = float(np.abs(check.forward() - net(sample).numpy()).max())
        if difference > 1e-3:
            raise IrstkitError(
                f"the exported network differs from the trained one by {difference:.2g}", path=out
            )


def _without_traces(path: Path) -> bytes:
    """The ONNX file without the exporter's stack traces: they name folders of the machine it was made on."""
    import onnx

    model = onnx.load(str(path))
    graph = model.graph
    parts = [model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer]
    for function in model.functions:
        parts += [function, *function.node]
    for part in parts:
        part.doc_string = ""
        del part.metadata_props[:]
    return model.SerializeToString(deterministic=True)
