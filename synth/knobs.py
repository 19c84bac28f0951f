"""The keys of a preset that decide how targets and backgrounds look, and how each is moved by a number."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

Op = Literal["times", "plus", "excess times"]


@dataclass(frozen=True)
class Knob:
    """How a key is moved: ``times`` a factor, ``plus`` a number, or its excess over 1 ``times`` a factor.

    ``low`` and ``high`` are what its values are kept in, ``step`` the first step a search takes (of a factor:
    its logarithm), ``reach`` how far a search may go from where it begins, in steps.
    """

    key: str
    op: Op
    low: float
    high: float
    step: float
    reach: float = 5.0

    @property
    def factor(self) -> bool:
        """Whether the amount multiplies."""
        return self.op != "plus"


KNOBS: dict[str, Knob] = {
    knob.key: knob
    for knob in (
        Knob("scenes.*.area", "times", 1, 4000, 0.15),
        Knob("scenes.*.scr", "times", 0.3, 200, 0.15),
        Knob("scenes.*.height", "plus", 0, 1, 0.05),
        Knob("contrast.wanted", "times", 0.002, 1, 0.2),
        Knob("contrast.dark", "plus", 0, 1, 0.1),
        Knob("mask.energy", "plus", 0.05, 0.99, 0.05),
        Knob("mask.level", "plus", 0.05, 0.95, 0.05),
        Knob("point.energy", "plus", 0.05, 0.98, 0.05),
        Knob("point.sigma", "times", 0.1, 5, 0.15),
        Knob("point.anisotropy", "excess times", 1, 6, 0.4),
        Knob("spot.aspect", "excess times", 1, 4, 0.4),
        Knob("spot.shading", "plus", 0, 1, 0.1),
        Knob("blur", "times", 0.1, 10, 0.2),
        Knob("optics.glow", "plus", 0, 0.9, 0.08),
        Knob("optics.sharpen", "plus", 0, 5, 0.3),
        Knob("background.contrast", "times", 0.05, 5, 0.2),
        Knob("background.coring", "plus", 0, 50, 0.5),
        Knob("background.scale", "times", 0.5, 2, 0.15),
        Knob("sensor.read", "plus", 0, 50, 0.3),
        Knob("sensor.shot", "plus", 0, 10, 0.01),
        Knob("sensor.jpeg", "plus", 1, 100, 8),
    )
}


def apply(preset: dict[str, Any], knob: Knob, amount: float) -> bool:
    """Move a key of a preset in plain values in place; False where the preset does not have it.

    ``amount`` is a factor (1 leaves it) or a number to add (0 leaves it).
    """
    found = False
    for parent, name in list(_places(preset, knob.key.split("."))):
        value = parent[name]
        if isinstance(value, dict):
            for form in ("value", "uniform", "quantiles", "values"):
                if value.get(form) is not None:
                    inner = value[form]
                    value[form] = (
                        _moved(inner, knob, amount)
                        if form == "value"
                        else [_moved(v, knob, amount) for v in inner]
                    )
                    found = True
        elif isinstance(value, list):
            parent[name] = [_moved(v, knob, amount) for v in value]
            found = True
        elif value is not None:
            parent[name] = _moved(value, knob, amount)
            found = True
    return found


def moved(preset: dict[str, Any], amounts: dict[str, float]) -> dict[str, Any]:
    """A copy of a preset in plain values with keys moved."""
    out = copy.deepcopy(preset)
    for key, amount in amounts.items():
        apply(out, KNOBS[key], amount)
    return out


def has(preset: dict[str, Any], knob: Knob) -> bool:
    """Whether a preset in plain values has the key."""
    return any(parent[name] is not None for parent, name in _places(preset, knob.key.split(".")))


def numbers(preset: dict[str, Any], key: str) -> list[float]:
    """The numbers that a key of a preset in plain values has, of all its scenes; weights aside."""
    out: list[float] = []
    for parent, name in _places(preset, key.split(".")):
        value = parent[name]
        if isinstance(value, dict):
            given = next(
                value[f] for f in ("value", "uniform", "quantiles", "values") if value.get(f) is not None
            )
            out += given if isinstance(given, list) else [given]
        elif value is not None:
            out += value if isinstance(value, list) else [value]
    return out


def shown(preset: dict[str, Any], key: str) -> str:
    """A key's value in few words: of a distribution its form and range, of the scenes those of ``all``."""
    places = list(_places(preset, key.replace("*", "all").split(".")))
    if not places:
        return "-"
    value = places[0][0][places[0][1]]
    if isinstance(value, dict):
        for form in ("quantiles", "uniform", "values"):
            if value.get(form) is not None:
                numbers = sorted(value[form])
                middle = numbers[len(numbers) // 2] if len(numbers) % 2 else sum(numbers) / len(numbers)
                return f"{numbers[0]:.3g} .. {middle:.3g} .. {numbers[-1]:.3g}"
        return f"{value['value']:.3g}"
    if isinstance(value, list):
        return " .. ".join(f"{v:.3g}" for v in value)
    return f"{value:.3g}"


def _places(value: Any, path: list[str]) -> Iterator[tuple[dict[str, Any], str]]:
    if not isinstance(value, dict):
        return
    names = list(value) if path[0] == "*" else [path[0]] if path[0] in value else []
    for name in names:
        if len(path) == 1:
            yield value, name
        else:
            yield from _places(value[name], path[1:])


def _moved(value: float, knob: Knob, amount: float) -> float:
    if knob.op == "times":
        new = value * amount
    elif knob.op == "plus":
        new = value + amount
    else:
        new = 1.0 + (value - 1.0) * amount
    return float(f"{min(max(new, knob.low), knob.high):.6g}")
