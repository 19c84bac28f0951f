"""What the distances and the two-sample test mean, in words: which key of the preset to move, and by how much.

Amounts are first steps: ratios of medians where a key multiplies what is measured, differences of medians times
a slope where it does not. The slopes are rough first steps, from a few trials with
the preset ``real``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any

from .distances import Distance
from .knobs import KNOBS, Knob, has, shown

CLOSE, FAIR, FAR = 0.6, 0.75, 0.9
"""AUC of the two-sample test: below, a network hardly tells the sets apart; above the last, at a glance."""


@dataclass(frozen=True)
class Change:
    """Move ``key`` by ``amount`` (see :class:`.knobs.Knob`); ``measure`` is why, ``ks`` how much it matters."""

    key: str
    op: str
    amount: float
    measure: str
    ks: float
    text: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**vars(self), "amount": float(f"{self.amount:.4g}"), "ks": round(self.ks, 4)}


@dataclass(frozen=True)
class _Rule:
    """``amount`` of (reference median, made median, reference mean-ish width) that moves ``key``."""

    measure: str
    key: str
    how: str  # "ratio", "inverse", "excess", "slope"
    slope: float = 1.0
    limit: float = 0.0  # of a slope's amount, either way
    up_only: bool = False


_RULES: tuple[_Rule, ...] = (
    _Rule("area", "scenes.*.area", "ratio"),
    _Rule("contrast", "contrast.wanted", "ratio"),
    _Rule("y", "scenes.*.height", "slope", 1.0, 0.3),
    _Rule("energy_inside", "mask.energy", "slope", 1.0, 0.3),
    _Rule("energy_inside", "point.energy", "slope", 1.0, 0.3),
    _Rule("psf_sigma", "point.sigma", "ratio"),
    _Rule("psf_sigma", "blur", "ratio"),
    _Rule("psf_anisotropy", "point.anisotropy", "excess"),
    _Rule("halo", "optics.sharpen", "slope", -4.0, 1.0),
    _Rule("skirt", "optics.glow", "slope", 4.0, 0.3),
    _Rule("ring_std", "background.contrast", "ratio"),
    _Rule("gradient", "background.contrast", "ratio"),
    _Rule("noise", "sensor.read", "quadrature", up_only=True),
    _Rule("noise", "background.coring", "slope", -3.0, 4.0),
    _Rule("flat", "background.coring", "slope", 4.0, 4.0),
    _Rule("gradient_tail", "sensor.jpeg", "slope", -4.0, 25.0),
    _Rule("whiteness", "background.scale", "slope_factor", 1.5),
    _Rule("high_band", "background.scale", "slope_factor", -5.0),
    _Rule("deviation", "background.contrast", "ratio"),
)
_RING = ("scr_10", "scr_5", "scr_3", "scr_15", "scr_20")
_WITHOUT_KEY = {
    "count": "targets an image: `scenes.*.count`, whose mean should go from {m} to {r}",
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
    rules = [_Rule(f"scr_{ring}" if f"scr_{ring}" in _RING else "scr_10", "scenes.*.scr", "ratio"), *_RULES]
    for rule in rules:
        distance = distances.get(rule.measure)
        if distance is None or not distance.differs or rule.measure in done:  # a nearer key has spoken
            continue
        knob = KNOBS[rule.key]
        if not _serves(preset, rule, knob):
            continue
        amount = _amount(rule, distance.reference[2], distance.made[2])
        if amount is None:
            continue
        done.add(rule.measure)
        before = found.get(knob.key)
        if before is None or before.ks < distance.ks:
            found[knob.key] = Change(
                knob.key, knob.op, amount, rule.measure, distance.ks, _words(knob, amount, distance, preset)
            )
    return sorted(found.values(), key=lambda c: -c.ks)


def _serves(preset: dict[str, Any] | None, rule: _Rule, knob: Knob) -> bool:
    if preset is None:  # the commonest of presets: the mask is the core
        return rule.key != "mask.energy"
    if rule.key == "mask.energy":
        return preset.get("mask", {}).get("policy") == "energy"
    if rule.key == "point.sigma" and preset.get("point", {}).get("energy") is not None:
        return False  # the share of energy decides the width
    return has(preset, knob)


def _amount(rule: _Rule, reference: float, made: float) -> float | None:
    """The amount, None where it would be nothing worth a try."""
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
        return sqrt(reference**2 - made**2) if reference > made else None
    amount = rule.slope * (reference - made)
    if rule.up_only and amount <= 0:
        return None
    amount = min(max(amount, -rule.limit), rule.limit) if rule.limit else amount
    return None if abs(amount) < 0.03 * (KNOBS[rule.key].step / 0.05) * 0.2 else amount


def _words(knob: Knob, amount: float, distance: Distance, preset: dict[str, Any] | None) -> str:
    from .measures import MEASURES

    measure = MEASURES[distance.key]
    if knob.op == "times":
        told = f"multiply {knob.key} by {amount:.2f}"
    elif knob.op == "plus":
        told = f"{'raise' if amount > 0 else 'lower'} {knob.key} by {abs(amount):.3g}"
    else:
        told = f"multiply what {knob.key} has above 1 by {amount:.2f}"
    now = f" (now {shown(preset, knob.key)})" if preset is not None else ""
    unit = f" {measure.unit}" if measure.unit else ""
    return (
        f"{told}{now}: {measure.title}, median {distance.made[2]:.3g} against {distance.reference[2]:.3g}{unit} "
        f"of the reference, KS {distance.ks:.2f}"
    )


def remarks(distances: Mapping[str, Distance]) -> list[str]:
    """What differs and has no single key, in words."""
    out = []
    for key, text in _WITHOUT_KEY.items():
        distance = distances.get(key)
        if distance is not None and distance.differs:
            told = text.format(m=f"{distance.made[2]:.3g}", r=f"{distance.reference[2]:.3g}")
            out.append(f"{told} (KS {distance.ks:.2f})")
    return out


def summary(
    distances: Mapping[str, Distance],
    targets: Mapping[str, Any] | None,
    backgrounds: Mapping[str, Any] | None,
) -> list[str]:
    """One to four sentences: how far apart the sets are, and whether targets or backgrounds give it away."""
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
    else:
        out.append(f"None of {len(distances)} distributions differs by more than chance (KS 0.1, p 0.01).")
    return out
