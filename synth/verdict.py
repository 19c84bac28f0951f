"""What the distances and the two-sample test mean, in words: which key of the preset to move, and by how much.

Amounts are first steps: ratios of medians where a key multiplies what is measured, differences of medians times
a slope where it does not. The slopes are rough first steps, from a few trials with
the preset ``real``. What is measured is seldom of one key alone: a change whose measure also moves with that of a
stronger change comes after it and says so. benchmarks/verdict.py spoils the preset key by key and tells what is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from statistics import median
from typing import Any

from .distances import FEW, Distance
from .knobs import KNOBS, Knob, has, numbers, shown

CLOSE, FAIR, FAR = 0.6, 0.75, 0.9
"""AUC of the two-sample test: below, a network hardly tells the sets apart; above the last, at a glance."""


@dataclass(frozen=True)
class Change:
    """Move ``key`` by ``amount`` (see :class:`.knobs.Knob`); ``measure`` is why, ``ks`` how much it matters.

    ``op`` "set" gives the key values about ``amount``, where the ones it has cannot be moved there. ``follows`` is the
    key of a stronger change that may explain this one.
    """

    key: str
    op: str
    amount: float
    measure: str
    ks: float
    text: str
    follows: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**vars(self), "amount": float(f"{self.amount:.4g}"), "ks": round(self.ks, 4)}


@dataclass(frozen=True)
class _Rule:
    """``amount`` of (reference median, made median) that moves ``key``.

    ``needs``: of these measures one must differ the same way, where any of them was compared.
    """

    measure: str
    key: str
    how: str  # "ratio", "excess", "slope", "slope_factor", "quadrature", "means"
    slope: float = 1.0
    limit: float = 0.0  # of a slope's amount, either way
    needs: tuple[str, ...] = ()


_RULES: tuple[_Rule, ...] = (
    _Rule("area", "scenes.*.area", "ratio"),
    _Rule("contrast", "contrast.wanted", "ratio"),
    _Rule("y", "scenes.*.height", "slope", 1.0, 0.3),
    _Rule("dark", "contrast.dark", "means"),
    _Rule("energy_inside", "mask.energy", "slope", 1.0, 0.3),
    _Rule("energy_inside", "mask.level", "slope", -1.0, 0.3),
    _Rule("energy_inside", "point.energy", "slope", 1.0, 0.3),
    _Rule("psf_sigma", "point.sigma", "ratio"),
    _Rule("psf_sigma", "blur", "ratio"),
    _Rule("psf_anisotropy", "point.anisotropy", "excess"),
    _Rule("halo", "optics.sharpen", "slope", -4.0, 1.0),
    _Rule("skirt", "optics.glow", "slope", 4.0, 0.3),
    _Rule("ring_std", "background.contrast", "ratio", needs=("deviation", "gradient")),
    _Rule("gradient", "background.contrast", "ratio"),
    _Rule("noise", "sensor.read", "quadrature"),
    _Rule("noise", "background.coring", "slope", -3.0, 4.0),
    _Rule("flat", "background.coring", "slope", 4.0, 4.0),
    _Rule("gradient_tail", "sensor.jpeg", "slope", -4.0, 25.0),
    _Rule("whiteness", "background.scale", "slope_factor", 1.5),
    _Rule("high_band", "background.scale", "slope_factor", -5.0),
    _Rule("deviation", "background.contrast", "ratio"),
)
_RING = ("scr_10", "scr_5", "scr_3", "scr_15", "scr_20")
_MASK_KEYS = {"energy": "mask.energy", "half": "mask.level"}
_LOOK = ("halo", "skirt", "energy_inside", "psf_sigma", "psf_anisotropy", "area", "contrast")
_FINE = ("noise", "flat", "levels", "whiteness", "high_band", "gradient", "gradient_tail")
_MOVES = {
    **dict.fromkeys(_RING, ("ring_std", *_LOOK)),
    "area": ("psf_sigma", "energy_inside"),
    "psf_sigma": _LOOK,
    "energy_inside": ("area", "skirt"),
    "halo": ("skirt", "energy_inside", "psf_anisotropy", "area"),
    "skirt": ("halo",),
    "noise": ("ring_std", *_FINE),
    "deviation": ("ring_std", *_FINE),
    "ring_std": ("contrast", *_FINE),
    "gradient": ("ring_std", *_FINE),
    "gradient_tail": ("halo", *_FINE),
    "flat": _FINE,
}
"""What a change for one measure moves besides: what is explained by another change is no first step."""
NEARLY = 0.75
"""A cause may have a KS so much smaller than what it explains."""
_WITHOUT_KEY = {
    "count": "targets an image: `scenes.*.count`, whose mean should go from {m} to {r}",
    "ring_std": "the ring's deviation (median {m} against {r}) follows scenes.*.scr and contrast.wanted: of the places with "
    "the contrast, higher SCRs take the calmer",
    "rank": "brightness rank follows contrast.wanted and the backgrounds: brighter backgrounds or dimmer targets raise it",
    "saturated": "saturation follows contrast.wanted and contrast.limits (its upper end) and the backgrounds' level",
    "level": "the backgrounds' level (median {m} against {r}) is theirs: other backgrounds, or sensor.offset",
    "image_saturated": "saturated backgrounds: gate.max_saturated turns them away, other backgrounds have others",
    "lines": "line structure of the backgrounds (across over along {m} against {r}): another camera's; sensor.row and "
    "sensor.column add noise of lines, nothing takes it away",
    "levels": "gray levels follow background.contrast and background.coring",
}


def changes(
    distances: Mapping[str, Distance], preset: dict[str, Any] | None = None, ring: int = 10
) -> list[Change]:
    """What to move, the most telling first; of rules for one key the one with the larger KS speaks.

    ``preset`` in plain values: keys it does not have are left out. None: any preset.
    """
    found: dict[str, Change] = {}
    done: set[str] = set()
    area, light = distances.get("area"), distances.get("energy_inside")
    if (
        preset is not None and area is not None and light is not None and area.differs and light.differs
        and preset.get("mask", {}).get("policy") in _MASK_KEYS and _rise(area) == _rise(light)
    ):  # fmt: skip
        done.add("area")  # a tighter or wider mask of the same targets
    rules = [_Rule(f"scr_{ring}" if f"scr_{ring}" in _RING else "scr_10", "scenes.*.scr", "ratio"), *_RULES]
    for rule in rules:
        distance = distances.get(rule.measure)
        if distance is None or not distance.differs or rule.measure in done:  # a nearer key has spoken
            continue
        knob = KNOBS[rule.key]
        if not _serves(preset, rule, knob) or not _supported(rule, distances):
            continue
        op: str = knob.op
        if op == "excess times" and preset is not None and set(numbers(preset, knob.key)) == {1.0}:
            op, amount = "set", distance.reference[2]
            if amount < 1.05:
                continue
        elif (told := _amount(rule, distance, preset)) is None:
            continue
        else:
            amount = told
        done.add(rule.measure)
        before = found.get(knob.key)
        if before is None or before.ks < distance.ks:
            found[knob.key] = Change(
                knob.key, op, amount, rule.measure, distance.ks, _words(knob, op, amount, distance, preset)
            )
    return _ordered(sorted(found.values(), key=lambda c: -c.ks))


def _ordered(told: list[Change]) -> list[Change]:
    """What may follow from another change comes after those that stand for themselves."""
    out = []
    for change in told:
        causes = [
            c for c in told
            if c is not change and change.measure in _moved_by(c) and c.ks >= NEARLY * change.ks
            and not (c.measure in _moved_by(change) and change.ks >= c.ks)
        ]  # fmt: skip
        if causes:
            text = f"{change.text}; this may follow from {causes[0].key}: move that first"
            change = replace(change, follows=causes[0].key, text=text)
        out.append(change)
    if told and all(c.follows for c in out):
        out[0] = told[0]
    return sorted(out, key=lambda c: c.follows is not None)


def _moved_by(change: Change) -> tuple[str, ...]:
    if change.key == "sensor.read" and change.amount > 0:
        return ()  # noise that lacks explains nothing: what took it away does
    if change.measure == "flat" and change.amount > 0:
        return tuple(
            m for m in _FINE if m not in ("noise", "flat")
        )  # nor does coring that lacks explain noise
    return _MOVES.get(change.measure, ())


def _rise(distance: Distance) -> bool:
    return distance.made[2] > distance.reference[2]


def _supported(rule: _Rule, distances: Mapping[str, Distance]) -> bool:
    others = [distances[k] for k in rule.needs if k in distances]
    return not others or any(d.differs and _rise(d) == _rise(distances[rule.measure]) for d in others)


def _serves(preset: dict[str, Any] | None, rule: _Rule, knob: Knob) -> bool:
    if preset is None:  # the commonest of presets: the mask is the core
        return rule.key not in _MASK_KEYS.values()
    if rule.key in _MASK_KEYS.values():
        return _MASK_KEYS.get(preset.get("mask", {}).get("policy", "core")) == rule.key
    if rule.key == "point.sigma":
        if preset.get("point", {}).get("energy") is not None:
            return False  # the share of energy decides the width
        if median(numbers(preset, "blur") or [0.0]) > median(numbers(preset, rule.key) or [0.0]):
            return False  # the wider of the two decides it
    return has(preset, knob)


def _amount(rule: _Rule, distance: Distance, preset: dict[str, Any] | None) -> float | None:
    """The amount, None where it would be nothing worth a try."""
    reference, made = distance.reference[2], distance.made[2]
    if rule.how == "means":
        least = -max(numbers(preset, rule.key), default=0.0) if preset is not None else -1.0
        amount = max(distance.means[0] - distance.means[1], least)
        return None if not abs(amount) >= 0.03 else amount
    if rule.how in ("ratio", "excess"):
        up, down = (reference, made) if rule.how == "ratio" else (reference - 1.0, made - 1.0)
        if down <= 1e-9 or up <= 0:
            return None
        amount = min(max(up / down, 0.33), 3.0)
        return None if abs(amount - 1) < 0.03 else amount
    if rule.how == "slope_factor":
        amount = min(max(1.0 + rule.slope * (reference - made), 0.6), 1.7)
        return None if abs(amount - 1) < 0.03 else amount
    if rule.how == "quadrature":
        if reference > made:
            return sqrt(reference**2 - made**2)
        now = max(numbers(preset, rule.key), default=0.0) if preset is not None else 0.0
        return sqrt(max(now**2 - made**2 + reference**2, 0.0)) - now if now > 0 else None
    amount = rule.slope * (reference - made)
    amount = min(max(amount, -rule.limit), rule.limit) if rule.limit else amount
    return None if abs(amount) < 0.03 * (KNOBS[rule.key].step / 0.05) * 0.2 else amount


def _words(knob: Knob, op: str, amount: float, distance: Distance, preset: dict[str, Any] | None) -> str:
    from .measures import MEASURES

    measure = MEASURES[distance.key]
    if op == "set":
        told = f"give {knob.key} values above 1, about {amount:.2f}"
    elif knob.op == "times":
        told = f"multiply {knob.key} by {amount:.2f}"
    elif knob.op == "plus":
        told = f"{'raise' if amount > 0 else 'lower'} {knob.key} by {abs(amount):.3g}"
    else:
        told = f"multiply what {knob.key} has above 1 by {amount:.2f}"
    if knob.key == "point.anisotropy" and op != "set" and amount < 1:
        told += ", or raise blur, which rounds"
    policy = (preset or {}).get("mask", {}).get("policy", "core")
    if knob.key == "scenes.*.area" and policy in _MASK_KEYS:  # it decides the written area as well
        told += f", or {'raise' if (amount > 1) == (policy == 'energy') else 'lower'} {_MASK_KEYS[policy]}"
    now = f" (now {shown(preset, knob.key)})" if preset is not None else ""
    if knob.key in _MASK_KEYS.values():
        now += f", or choose another mask.policy than {policy}"
    unit = f" {measure.unit}" if measure.unit else ""
    word, (reference, made) = _middle(distance)
    return (
        f"{told}{now}: {measure.title}, {word} {made:.3g} against {reference:.3g}{unit} of the reference, "
        f"KS {distance.ks:.2f}"
    )


def _middle(distance: Distance) -> tuple[str, tuple[float, float]]:
    """The medians; of what is counted or yes or no the means."""
    if distance.key in ("count", "dark"):
        return "mean", distance.means
    return "median", (distance.reference[2], distance.made[2])


def remarks(distances: Mapping[str, Distance], told: Sequence[Change] = ()) -> list[str]:
    """What differs and has no single key, in words; what ``told`` explains is left out."""
    out = []
    explained = {c.measure for c in told} | ({"rank"} if any(c.measure == "dark" for c in told) else set())
    if any(c.key == "background.contrast" for c in told):
        explained.add("ring_std")
    for key, text in _WITHOUT_KEY.items():
        distance = distances.get(key)
        if distance is not None and distance.differs and key not in explained:
            _, (reference, made) = _middle(distance)
            words = text.format(m=f"{made:.3g}", r=f"{reference:.3g}")
            out.append(f"{words} (KS {distance.ks:.2f})")
    return out


def summary(
    distances: Mapping[str, Distance],
    targets: Mapping[str, Any] | None,
    backgrounds: Mapping[str, Any] | None,
    lacking: Mapping[str, tuple[int, int]] | None = None,
) -> list[str]:
    """One to five sentences: how far apart the sets are, and whether targets or backgrounds give it away.

    ``lacking`` are the measures that were not compared, with the numbers of values (:func:`.distances.too_few`).
    """
    out = []
    differing = sorted((d for d in distances.values() if d.differs), key=lambda d: -d.ks)
    if targets and "auc" in targets:
        auc, (low, high) = targets["auc"], targets["interval"]
        word = (
            "hardly tells them apart" if auc < CLOSE else "tells them apart now and then" if auc < FAIR
            else "mostly tells them apart" if auc < FAR else "tells them apart at a glance"
        )  # fmt: skip
        out.append(
            f"A small network shown targets {word}: AUC {auc:.2f} ({low:.2f} to {high:.2f}; 0.5 is chance)."
        )
    elif targets:
        out.append(f"No two-sample test of targets: {targets['left_out']}.")
    if backgrounds and "auc" in backgrounds:
        auc = backgrounds["auc"]
        text = f"Shown backgrounds alone it has AUC {auc:.2f}"
        if targets and "auc" in targets:
            gap = targets["auc"] - auc
            if max(auc, targets["auc"]) < CLOSE:
                text += ": neither gives the set away"
            elif gap < 0.05:
                text += (
                    ": the backgrounds explain what it finds. Change background.*, sensor.* and optics of the frame, or "
                    "take other backgrounds, before touching the targets"
                )
            elif gap > 0.15:
                text += ": it is the targets that give the set away"
            else:
                text += ": targets and backgrounds both give it away"
        out.append(text + ".")
    elif backgrounds:
        out.append(f"No two-sample test of backgrounds: {backgrounds['left_out']}.")
    if differing:
        from .measures import MEASURES

        first = ", ".join(f"{MEASURES[d.key].title} ({d.ks:.2f})" for d in differing[:4])
        out.append(f"{len(differing)} of {len(distances)} distributions differ; by KS first {first}.")
    elif distances:
        out.append(f"None of {len(distances)} distributions differs by more than chance (KS 0.1, p 0.01).")
    if lacking:
        side = "the reference" if max(n[0] for n in lacking.values()) < FEW else "the made set"
        most = max(min(n) for n in lacking.values())
        who = f"{len(lacking)} distributions were not" if distances else "No distribution was"
        out.append(f"{who} compared: {side} has at most {most} of their values, {FEW} are needed.")
    return out
