"""How likely each label and each prediction points at a labelling error, learned from the data set itself.

Networks differ in what they see: one draws every target a pixel too large, another misses faint ones, a third is
sure of everything. So no fixed rule says which disagreement is an error. Instead, labels as they are are compared
with the same labels damaged in memory the way people damage them: put beside the target, drawn too large or too
small, made twice, put where nothing is; and predictions on labels, as if these were missing, with predictions
beside all labels. A logistic regression on all products of a few measured features tells the two apart; each image
is judged by the one that has not seen it (five parts). Its answer is the probability of an error when one label in
twenty is wrong: equal for all kinds, so that one queue can be made of them.

Labels that are wrong already are few among those taken as right, and only make the answer more careful.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...annotate.files import GrayImage
from ...annotate.masks import Instance
from ...annotate.scr import Contrast, measure_contrast
from .evidence import Seen, look, pixels_of
from .logistic import Quadratic
from .matching import Shape
from .pixels import drawn_larger, drawn_smaller, move

RATE = 0.05
"""Of labels that are wrong, by assumption; half of them missing or not where they should be."""
MISSING = 0.25
"""Share of missing labels among the wrong ones."""
PARTS = 5
ENOUGH = 30
"""Labels (and predictions on labels) that are needed to learn anything."""
DAMAGED = 4000
"""Labels that are damaged at most; of larger sets as many, evenly spread."""

Row = list[float]


@dataclass
class Judged:
    """Of one image: a suspicion (0 to 1) and a reason for each label and each prediction."""

    labels: list[float]
    label_reasons: list[str]
    predictions: list[float]
    prediction_reasons: list[str]

    @property
    def worst(self) -> float:
        """Of all of them; 0 without any."""
        return max([*self.labels, *self.predictions], default=0.0)

    @property
    def reason(self) -> str:
        """The reason of the worst."""
        found = [*zip(self.labels, self.label_reasons, strict=True)]
        found += zip(self.predictions, self.prediction_reasons, strict=True)
        return max(found, default=(0.0, ""), key=lambda row: row[0])[1]


@dataclass
class Collected:
    """The measured features of one image, all that is kept of it."""

    seen: list[Seen]
    labels: list[Row]
    damaged: list[Row]
    predictions: list[Row]
    on_label: list[bool]
    scores: list[float] = field(default_factory=list)


def collect(
    image: GrayImage,
    labels: Sequence[Shape],
    predictions: Sequence[Shape],
    pairs: Sequence[tuple[int, int]],
    probability: NDArray | None,
    *,
    seed: int,
    damage: bool = True,
) -> Collected:
    """Measure one image: what is seen at its labels, at damaged ones (``damage``), and its predictions."""
    size = (image.shape[0], image.shape[1])
    instances = [pixels_of(shape, size) for shape in labels]
    scr = [_scr(c) for c in measure_contrast(image, instances)]
    seen = look(labels, scr, predictions, size, probability)
    out = Collected(seen, [label_row(s, i) for s, i in zip(seen, instances, strict=True)], [], [], [])
    if damage:
        rng = np.random.default_rng(seed)
        for k, instance in enumerate(instances):
            for wrong, keeps in damages(instance, size, rng):
                # a doubled label is wrong, and so is the one it was made from: nobody can tell which was first
                now = [*instances, wrong] if keeps else [*instances[:k], wrong, *instances[k + 1 :]]
                judged = (k, len(now) - 1) if keeps else (k,)
                shapes = [shape_of(i) for i in now]
                around = [_scr(c) for c in measure_contrast(image, now)]
                for j, one in zip(
                    judged, look(shapes, around, predictions, size, probability, only=judged), strict=True
                ):  # fmt: skip
                    out.damaged.append(label_row(one, now[j]))
    found = [pixels_of(p, size) for p in predictions]
    hits = {b for _, b in pairs}
    for k, (instance, contrast) in enumerate(zip(found, measure_contrast(image, found), strict=True)):
        values = probability_in(instance, predictions[k].score, probability)
        out.predictions.append(prediction_row(instance, values, contrast))
        out.on_label.append(k in hits)
        out.scores.append(min(max(predictions[k].score, 0.0), 1.0))
    return out


def damages(
    instance: Instance, size: tuple[int, int], rng: np.random.Generator
) -> list[tuple[Instance, bool]]:
    """Wrong versions of a label: (pixels, whether the right one is there as well)."""
    out: list[tuple[Instance, bool]] = []
    side = max(instance.mask.shape)
    for keeps in (False, False, True):
        angle, length = rng.uniform(0, 2 * math.pi), rng.uniform(1.5, 2 + side)
        moved = move(instance, round(length * math.cos(angle)), round(length * math.sin(angle)), size)
        if moved is not None:
            out.append((moved, keeps))
    out.append((drawn_larger(instance, int(rng.integers(1, 3)), size), False))
    smaller = drawn_smaller(instance)
    if smaller is not None:
        out.append((smaller, False))
    anywhere = move(
        instance,
        int(rng.integers(0, size[1])) - instance.box[0],
        int(rng.integers(0, size[0])) - instance.box[1],
        size,
    )
    if anywhere is not None:
        out.append((anywhere, False))
    return out


def label_row(seen: Seen, instance: Instance) -> Row:
    """The features of a label."""
    return [
        math.log(seen.area),
        seen.misfit,
        min(seen.distance, 20.0),
        math.log((seen.area + 1) / (seen.mass + 1)),
        math.log1p(seen.mass),
        seen.shared,
        seen.common / seen.area,
        seen.common / max(seen.mass, 1e-3),
        seen.peak,
        min(seen.scr or 0.0, 50.0),
        seen.area / instance.mask.size,
        0.0 if seen.shift is None else seen.shift[0],
        0.0 if seen.shift is None else seen.shift[1],
    ]


def prediction_row(instance: Instance, values: NDArray, contrast: Contrast) -> Row:
    """The features of a prediction."""
    return [
        math.log(instance.area),
        float(values.max()),
        float(values.mean()),
        math.log1p(float(values.sum())),
        min(max(contrast.scr or 0.0, -50.0), 50.0),
        math.log1p(max(contrast.target_mean, 0.0)),
        instance.area / instance.mask.size,
    ]


def judge(images: Sequence[Collected]) -> list[Judged]:
    """Suspicions and reasons of all images of a data set; :data:`ENOUGH` labels are needed, else by fixed rules."""
    part = np.random.default_rng(0).permutation(len(images)) % PARTS
    of_labels = _learned(
        [(k, r) for k, c in enumerate(images) for r in c.labels],
        [(k, r) for k, c in enumerate(images) for r in c.damaged],
        part,
        rate=RATE * (1 - MISSING),
        whole=sum(len(c.labels) for c in images),
    )
    beside = [
        (k, r)
        for k, c in enumerate(images)
        for r, on in zip(c.predictions, c.on_label, strict=True)
        if not on
    ]
    on = [(k, r) for k, c in enumerate(images) for r, on in zip(c.predictions, c.on_label, strict=True) if on]
    of_beside = _learned(beside, on, part, rate=RATE * MISSING, whole=len(on))
    out, a, b = [], 0, 0
    for c in images:
        n = len(c.labels)
        doubts = (
            [fixed_rule(s) for s in c.seen] if of_labels is None else [float(v) for v in of_labels[a : a + n]]
        )
        a += n
        guesses = []
        for score, is_on in zip(c.scores, c.on_label, strict=True):
            guesses.append(0.0 if is_on else score if of_beside is None else float(of_beside[b]))
            b += not is_on
        out.append(
            Judged(
                doubts, [reason_of(s) for s in c.seen],
                guesses, ["" if is_on else "not labelled" for is_on in c.on_label],
            )
        )  # fmt: skip
    return out


def _learned(
    right: list[tuple[int, Row]], wrong: list[tuple[int, Row]], part: NDArray, *, rate: float, whole: int
) -> NDArray | None:
    """Probability that each of ``right`` is one of ``wrong``, of which there are ``rate`` times ``whole``."""
    if len(right) == 0:
        return np.zeros(0)
    if len(wrong) < ENOUGH or whole < ENOUGH:
        return None
    x0, x1 = np.array([r for _, r in right]), np.array([r for _, r in wrong])
    p0, p1 = part[[k for k, _ in right]], part[[k for k, _ in wrong]]
    out = np.zeros(len(right))
    for number in range(PARTS):
        seen0, seen1 = p0 != number, p1 != number
        if not (~seen0).any():
            continue
        weight = rate * whole / len(wrong)
        model = Quadratic.fit(
            np.concatenate([x0[seen0], x1[seen1]]),
            np.concatenate([np.zeros(seen0.sum()), np.ones(seen1.sum())]),
            np.concatenate([np.ones(seen0.sum()), np.full(seen1.sum(), weight)]),
        )
        out[~seen0] = model.probability(x0[~seen0])
    return out


def fixed_rule(seen: Seen) -> float:
    """Where too little is there to learn from: 1 - overlap; of an unseen label 0.6, and more the fainter it is."""
    if seen.shared > 0:
        return 1.0
    if seen.common == 0:
        return 0.6 + 0.4 * math.exp(-(seen.scr or 0.0) / 2)
    return seen.misfit


def reason_of(seen: Seen) -> str:
    """In words, what is odd about a label, if anything is: the largest oddity that can be named."""
    if seen.shared >= 0.2:
        return "doubled"
    if seen.mass < 0.5:
        return "nothing seen here"
    ratio = seen.area / seen.mass
    if seen.shift is not None and seen.distance >= 1.5:
        return f"seen {seen.distance:.1f} px away ({_direction(*seen.shift)})"
    if ratio >= 1.5:
        return f"{ratio:.1f} times as large as what is seen"
    if ratio <= 1 / 1.5:
        return f"{1 / ratio:.1f} times as small as what is seen"
    return ""


def _direction(x: float, y: float) -> str:
    across = "right" if x > 0 else "left"
    down = "down" if y > 0 else "up"
    if abs(x) > 2.4 * abs(y):
        return across
    return down if abs(y) > 2.4 * abs(x) else f"{down} {across}"


def shape_of(instance: Instance) -> Shape:
    """An instance as a shape."""
    x1, y1, x2, y2 = instance.box
    return Shape((float(x1), float(y1), float(x2), float(y2)), instance)


def probability_in(instance: Instance, score: float, probability: NDArray | None) -> NDArray[np.float64]:
    """The probabilities of an instance's pixels; its score where there is no map."""
    if probability is None:
        return np.full(instance.area, min(max(score, 0.0), 1.0))
    x1, y1, x2, y2 = instance.box
    return probability[y1:y2, x1:x2][instance.mask].astype(np.float64)


def _scr(contrast: Contrast) -> float | None:
    return None if contrast.scr is None else abs(contrast.scr)
