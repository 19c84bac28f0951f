"""The scene network: which of the five scenes an image shows.

Two branches whose scores are added: a small plain CNN (Conv-BatchNorm-ReLU, global average, one linear
layer) on a 64 x 64 reduction, and a linear layer on named cues (cues.py): straight edges and their directions,
texture by scale and height. Each image is brought to zero mean and unit deviation, so that gain and offset
tell nothing. Training mixes labelled real images with procedural scenes, classes drawn evenly. Torch is
imported only to train; prediction runs the exported ONNX file through OpenCV.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..annotate.console import note, progress
from ..annotate.errors import IrstkitError, require
from .cues import COUNT, cues
from .preset import SCENES
from .procedural import procedural

SIDE = 64
WEIGHTS = Path(__file__).resolve().parent / "weights" / "scenes.onnx"
CHANNELS = (16, 32, 48, 64)
VIEW = 160  # side of a training view, and the cues' own


def reduce_image(image: NDArray) -> NDArray[np.float32]:
    """(64, 64) float32 of zero mean and unit deviation."""
    small = cv2.resize(image.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    small -= small.mean()
    return np.asarray(small / max(float(small.std()), 1e-3), np.float32)


def shrink(image: NDArray, side: int = 256) -> NDArray:
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
            scores = np.zeros(len(SCENES))
            for view in (image, np.ascontiguousarray(image[:, ::-1])):
                self.net.setInput(reduce_image(view)[None, None], "image")
                self.net.setInput(cues(view)[None], "cues")
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


@dataclass
class Views:
    """Augmented views: ``images`` (N, 64, 64) and ``cues`` (N, COUNT) float32, ``labels`` (N,) and ``weights``."""

    images: NDArray[np.float32]
    cues: NDArray[np.float32]
    labels: NDArray[np.int64]
    weights: NDArray[np.float64]


def make_views(
    images: Sequence[NDArray],
    labels: Sequence[str],
    weights: Sequence[float],
    *,
    synthetic: int,
    views: int,
    synthetic_share: float,
    rng: np.random.Generator,
    seed: int,
) -> Views:
    """About ``views`` augmented views a scene of the labelled images, and two of each procedural image."""
    rows: list[tuple[NDArray, NDArray, int, float]] = []

    def add(image: NDArray, number: int, weight: float) -> None:
        view = augment(image, rng)
        rows.append((reduce_image(view), cues(view), number, weight))

    totals = {s: sum(w for w, label in zip(weights, labels, strict=True) if label == s) for s in SCENES}
    with progress("Views", len(images) + synthetic * len(SCENES)) as bar:
        for image, label, weight in zip(images, labels, weights, strict=True):
            times = max(1, min(30, round(views / labels.count(label))))
            for _ in range(times if weight > 0 else 0):
                share = (1 - synthetic_share) if synthetic else 1.0
                add(image, SCENES.index(label), share * weight / totals[label] / times)
            bar.advance()
        for number, scene in enumerate(SCENES):
            there = totals[scene] > 0
            for k in range(synthetic):
                draw = np.random.Generator(
                    np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(9, number, k)))
                )
                image = procedural(scene, VIEW, draw)[0]
                for _ in range(2):
                    add(image, number, (synthetic_share if there else 1.0) / synthetic / 2)
                bar.advance()
    found = {row[2] for row in rows if row[3] > 0}
    for number, scene in enumerate(SCENES):
        if number not in found:
            raise IrstkitError(f"no image of the scene {scene!r} and no procedural ones to train on")
    return Views(
        np.stack([r[0] for r in rows]),
        np.stack([r[1] for r in rows]),
        np.array([r[2] for r in rows], dtype=np.int64),
        np.array([r[3] for r in rows]),
    )


def train(
    images: Sequence[NDArray],
    labels: Sequence[str],
    weights: Sequence[float],
    out: str | Path,
    *,
    steps: int = 500,
    batch: int = 32,
    synthetic: int = 60,
    synthetic_share: float = 0.45,
    views: int = 250,
    seed: int = 0,
) -> int:
    """Train on real images and procedural scenes, write an ONNX file, return its number of parameters.

    ``weights`` are the images' chances within their scene (less for uncertain labels); ``synthetic`` is the
    number of procedural images a scene, ``synthetic_share`` their share of a batch, ``views`` the number of
    augmented views a scene that are made of the real ones.
    """
    torch = require("torch", "train")
    require("onnx", "train")
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    pool = make_views(
        images, list(labels), weights, synthetic=synthetic, views=views, synthetic_share=synthetic_share, rng=rng,
        seed=seed,
    )  # fmt: skip
    net = fit(torch, pool, steps=steps, batch=batch, rng=rng)
    export(torch, net.eval(), Path(out))
    return sum(p.numel() for p in net.parameters())


def fit(torch: Any, pool: Views, *, steps: int, batch: int, rng: np.random.Generator) -> Any:
    """The network trained on views, scenes drawn evenly; each branch also answers for itself."""
    chances = pool.weights / pool.weights.sum()
    mean = (pool.cues * chances[:, None]).sum(axis=0)
    spread = np.sqrt((((pool.cues - mean) ** 2) * chances[:, None]).sum(axis=0)) + 0.05
    net = build(torch, mean, spread)
    groups = [
        {"params": net.pixels.parameters(), "weight_decay": 0.02},
        {"params": net.named.parameters(), "weight_decay": 0.05},
    ]
    optimiser = torch.optim.AdamW(groups, 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    loss_of = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    net.train()
    with progress("Training", steps, unit="steps") as bar:
        for step in range(steps):
            chosen = rng.choice(len(chances), batch, p=chances)
            x = pool.images[chosen]
            turned = rng.random(batch) < 0.5
            x[turned] = x[turned, :, ::-1]
            image, truth = torch.from_numpy(x[:, None]), torch.from_numpy(pool.labels[chosen])
            pixels, named = net.branches(image, torch.from_numpy(pool.cues[chosen]))
            loss = loss_of(pixels, truth) + loss_of(named, truth)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            bar.advance(1, f"loss {float(loss.detach()):.3f}")
            if (step + 1) % 500 == 0:
                note(f"step {step + 1}: loss {float(loss.detach()):.3f}")
    return net


def augment(image: NDArray, rng: np.random.Generator) -> NDArray[np.float32]:
    """A view of ``VIEW`` pixels a side, 0 to 255: part of the image, mirrored or not, of other gamma and sharpness.

    Some are shown black-hot. Crops of 45 % of a side and blur stand for longer lenses.
    """
    height, width = image.shape
    share = rng.uniform(0.45, 1.0) if rng.random() < 0.7 else 1.0
    other = min(1.0, share * float(np.exp(rng.uniform(-0.15, 0.15))))
    h, w = max(int(height * share), 16), max(int(width * other), 16)
    y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    part = image[y : y + h, x : x + w].astype(np.float32)
    if rng.random() < 0.5:
        part = part[:, ::-1]
    low, high = float(part.min()), float(part.max())
    part = (part - low) / max(high - low, 1e-3)
    if rng.random() < 0.15:
        part = 1 - part
    part = np.ascontiguousarray(part ** np.float32(np.exp(rng.uniform(-0.6, 0.6))))
    if rng.random() < 0.6:
        blur = float(rng.uniform(0.4, 2.5)) * min(part.shape) / 256
        part = np.asarray(cv2.GaussianBlur(part, (0, 0), blur), np.float32)
    small = cv2.resize(part, (VIEW, VIEW), interpolation=cv2.INTER_AREA)
    small = small + np.float32(rng.uniform(0, 0.02)) * rng.standard_normal(small.shape, dtype=np.float32)
    return np.asarray(np.clip(small * 235 + 10, 0, 255), np.float32)


def build(torch: Any, mean: NDArray, spread: NDArray) -> Any:
    """Four blocks of two 3x3 convolutions, each block halving the side, beside a linear layer on the cues."""
    nn = torch.nn
    layers: list[Any] = []
    before = 1
    for width in CHANNELS:
        for stride in (2, 1):
            layers += [nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            before = width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(before, len(SCENES))]

    class Scenes(nn.Module):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            self.pixels = nn.Sequential(*layers)
            self.named = nn.Sequential(nn.Dropout(0.3), nn.Linear(COUNT, len(SCENES)))
            self.register_buffer("mean", torch.from_numpy(np.asarray(mean, np.float32)))
            self.register_buffer("scale", torch.from_numpy(np.asarray(1 / spread, np.float32)))

        def branches(self, image: Any, named: Any) -> tuple[Any, Any]:
            z = torch.clamp((named - self.mean) * self.scale, -4.0, 4.0)
            if self.training:
                z = z + 0.3 * torch.randn_like(z)
            return self.pixels(image), self.named(z)

        def forward(self, image: Any, cues: Any) -> Any:
            pixels, named = self.branches(image, cues)
            return 0.5 * (pixels + named)

    return Scenes()


def export(torch: Any, net: Any, out: Path) -> None:
    """Write the network as ONNX, atomically, and check that OpenCV gives what torch gives."""
    import contextlib
    import io

    from ..annotate.files import atomic_path

    draw = torch.Generator().manual_seed(0)
    sample = torch.randn(1, 1, SIDE, SIDE, generator=draw), torch.randn(1, COUNT, generator=draw)
    with atomic_path(out) as temporary:
        with contextlib.redirect_stdout(io.StringIO()):
            torch.onnx.export(
                net, sample, str(temporary), input_names=["image", "cues"], output_names=["scores"], opset_version=18,
                dynamo=True, external_data=False, verbose=False,
            )  # fmt: skip
        temporary.write_bytes(_without_traces(temporary))
        check = cv2.dnn.readNetFromONNX(str(temporary))
        check.setInput(sample[0].numpy(), "image")
        check.setInput(sample[1].numpy(), "cues")
        with torch.no_grad():
            difference = float(np.abs(check.forward() - net(*sample).numpy()).max())
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
