"""A two-sample test by a small network: can patches of one data set be told from those of another?

A network is trained to tell the two apart on some images and asked about others; the area under its ROC
curve is 0.5 where nothing distinguishes the sets and 1 where everything does (classifier two-sample tests:
D. Lopez-Paz and M. Oquab, *Revisiting classifier two-sample tests*, ICLR 2017). Patches are brought to zero
mean and unit deviation, so that brightness and contrast tell nothing; folds are grouped, so that no image
(and no background) is in both training and test. Torch is imported only here, lazily.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..annotate.console import progress
from ..annotate.errors import IrstkitError, require

CHANNELS = (12, 24, 48)
EPOCHS = 20
BATCH = 32
RATE = 4e-3
MIN_GROUPS = 10


@dataclass(frozen=True)
class TwoSample:
    """``auc`` is the mean over seeds of the AUC over all held-out scores of a seed; ``interval`` 95 %.

    ``by_fold`` (seeds, folds); ``indices`` say which patches of the two pools were given; ``scores_a`` and ``scores_b`` are each patch's mean held-out logit that it is of
    B, where it had one (a patch left out to balance the classes has NaN).
    """

    auc: float
    interval: tuple[float, float]
    by_seed: tuple[float, ...]
    by_fold: tuple[tuple[float, ...], ...]
    patches: tuple[int, int]
    groups: tuple[int, int]
    scores_a: NDArray[np.float64]
    scores_b: NDArray[np.float64]
    indices: tuple[NDArray[np.intp], NDArray[np.intp]]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "auc": round(self.auc, 4),
            "interval": [round(float(v), 4) for v in self.interval],
            "by_seed": [round(float(v), 4) for v in self.by_seed],
            "by_fold": [[round(v, 4) for v in row] for row in self.by_fold],
            "patches": list(self.patches),
            "groups": list(self.groups),
        }


def normalise(patches: NDArray) -> NDArray[np.float32]:
    """(N, H, W) patches of any depth at zero mean and unit deviation each; flat ones become zero."""
    x = np.asarray(patches, np.float32)
    x = x - x.mean(axis=(1, 2), keepdims=True)
    return np.asarray(x / np.maximum(x.std(axis=(1, 2), keepdims=True), 1e-3), np.float32)


def auc(negative: NDArray[np.float64], positive: NDArray[np.float64]) -> float:
    """Area under the ROC curve: the Mann-Whitney U over its maximum, ties count half."""
    from scipy.stats import rankdata

    n, m = len(negative), len(positive)
    ranks = rankdata(np.concatenate([negative, positive]))
    return float((ranks[n:].sum() - m * (m + 1) / 2) / (n * m))


def grouped_folds(groups: Sequence[Any], folds: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """The fold of each item: whole groups, the largest first, each into the smallest fold so far."""
    names, place, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    if len(names) < folds:
        raise IrstkitError(f"{len(names)} images are too few for {folds} folds")
    order = rng.permutation(len(names))
    order = order[np.argsort(-sizes[order], kind="stable")]
    load = np.zeros(folds, int)
    where = np.zeros(len(names), int)
    for k in order:
        fold = int(np.argmin(load))
        where[k] = fold
        load[fold] += sizes[k]
    return where[place]


def two_sample(
    a: NDArray, b: NDArray, groups_a: Sequence[Any], groups_b: Sequence[Any], *, folds: int = 5, seeds: int = 3,
    seed: int = 0, epochs: int = EPOCHS, title: str = "Two-sample test", paired: bool = False,
) -> TwoSample:  # fmt: skip
    """Train on 4 of 5 folds, ask about the fifth, in turns, with three seeds.

    Parameters
    ----------
    a, b
        (N, 32, 32) and (M, 32, 32) patches as cut from the images; normalised here. The larger set is
        thinned, whole patches at random, to the size of the smaller one, anew for each seed.
    groups_a, groups_b
        The image (or background) of each patch; groups are kept whole.
    paired
        ``a[k]`` and ``b[k]`` belong together (one place, before and after) and share a fold.

    Raises
    ------
    IrstkitError
        For fewer than ten groups on a side.
    MissingExtra
        Without torch.
    """
    torch = require("torch", "train")
    for name, groups in (("first", groups_a), ("second", groups_b)):
        if len(set(groups)) < max(MIN_GROUPS, folds):
            raise IrstkitError(
                f"the {name} set has patches of {len(set(groups))} images, the two-sample test needs "
                f"{max(MIN_GROUPS, folds)}"
            )
    xa, xb = normalise(a), normalise(b)
    total = np.zeros(len(a)), np.zeros(len(b))
    asked = np.zeros(len(a)), np.zeros(len(b))
    by_fold: list[tuple[float, ...]] = []
    by_seed: list[float] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in one order: the same numbers whatever the machine's load
    try:
        with torch.random.fork_rng(devices=[]), progress(title, folds * seeds, unit="folds") as bar:
            for s in range(seeds):
                rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(11, s))))
                n = min(len(xa), len(xb))
                ka, kb = (np.sort(rng.permutation(len(x))[:n]) for x in (xa, xb))
                fa = grouped_folds([groups_a[k] for k in ka], folds, rng)
                fb = grouped_folds([groups_b[k] for k in kb], folds, rng)
                if paired:
                    kb, fb = ka, fa
                sa, sb = np.zeros(n), np.zeros(n)
                row = []
                for fold in range(folds):
                    net = _train(
                        torch, np.concatenate([xa[ka[fa != fold]], xb[kb[fb != fold]]]),
                        np.concatenate([np.zeros((fa != fold).sum()), np.ones((fb != fold).sum())]),
                        epochs, rng, int(rng.integers(2**31)),
                    )  # fmt: skip
                    sa[fa == fold] = _ask(torch, net, xa[ka[fa == fold]])
                    sb[fb == fold] = _ask(torch, net, xb[kb[fb == fold]])
                    row.append(auc(sa[fa == fold], sb[fb == fold]))
                    bar.advance(1, f"AUC {np.mean(row):.2f}")
                by_fold.append(tuple(row))
                # folds have scales of their own: the mean over folds, not one curve over all
                by_seed.append(float(np.mean(row)))
                for k, scores, t, c in ((ka, sa, total[0], asked[0]), (kb, sb, total[1], asked[1])):
                    t[k] += scores
                    c[k] += 1
    finally:
        torch.set_num_threads(threads)
    values = np.array(by_fold)
    with np.errstate(invalid="ignore"):
        scores_a, scores_b = total[0] / asked[0], total[1] / asked[1]
    half = _half_width(values)
    mean = float(values.mean())
    return TwoSample(
        mean, (max(mean - half, 0.0), min(mean + half, 1.0)), tuple(by_seed), tuple(by_fold), (len(a), len(b)),
        (len(set(groups_a)), len(set(groups_b))), scores_a, scores_b, (np.arange(len(a)), np.arange(len(b))),
    )  # fmt: skip


def _half_width(values: NDArray[np.float64]) -> float:
    """Half of a 95 % interval of the mean over folds: seeds share their data, so that folds are averaged over
    seeds first and only the folds are taken for independent (Student's t)."""
    from scipy.stats import t

    folds = values.shape[1]
    spread = float(values.std(axis=1, ddof=1).mean()) if folds > 1 else 0.0
    return float(t.ppf(0.975, folds - 1)) * spread / np.sqrt(folds) if folds > 1 else 0.5


def _net(torch: Any) -> Any:
    nn = torch.nn
    a, b, c = CHANNELS
    layers: list[Any] = []
    before = 1
    for width, stride in ((a, 1), (b, 2), (b, 1), (c, 2), (c, 1)):
        layers += [nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        before = width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(before, 1)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def _train(
    torch: Any, x: NDArray[np.float32], y: NDArray, epochs: int, rng: np.random.Generator, seed: int
) -> Any:
    torch.manual_seed(seed)
    net = _net(torch)
    optimiser = torch.optim.AdamW(net.parameters(), RATE, weight_decay=0.05)
    per_epoch = -(-len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=epochs * per_epoch)
    loss_of = torch.nn.BCEWithLogitsLoss()
    truth = torch.from_numpy(y.astype(np.float32))
    net.train()
    for _ in range(epochs):
        mirrored = x.copy()
        for axis in (1, 2):
            which = rng.random(len(x)) < 0.5
            mirrored[which] = np.flip(mirrored[which], axis)
        order = rng.permutation(len(x))
        batches = np.array_split(order, per_epoch)
        data = torch.from_numpy(mirrored[:, None])
        for batch in batches:
            k = torch.from_numpy(batch)
            part = data[k].contiguous(memory_format=torch.channels_last)
            loss = loss_of(net(part)[:, 0], truth[k])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
    return net.eval()


def _ask(torch: Any, net: Any, x: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean logit over the patch and its three mirror images."""
    out = np.zeros(len(x))
    with torch.no_grad():
        for flip in ((), (1,), (2,), (1, 2)):
            part = np.ascontiguousarray(np.flip(x, flip) if flip else x)[:, None]
            for k in range(0, len(x), 256):
                out[k : k + 256] += net(torch.from_numpy(part[k : k + 256]))[:, 0].double().numpy() / 4
    return out
