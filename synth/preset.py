"""Presets: everything that decides what is drawn, as YAML files checked by name and type."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from ..annotate.errors import IrstkitError
from .dist import Distribution, Finite
from .preset_parts import Copies, Negatives, Part, Sensor, between

FOLDER = Path(__file__).resolve().parent / "presets"
SCENES = ("city", "cloud", "field", "sea", "highlight")
SILHOUETTES = ("aircraft", "helicopter", "uav", "bird", "ship", "vehicle")

Scene = Literal["city", "cloud", "field", "sea", "highlight"]
Silhouette = Literal["aircraft", "helicopter", "uav", "bird", "ship", "vehicle"]


class SceneTable(Part):
    """What is drawn in one scene (P_size of the DNA-Net paper and what it needs besides)."""

    count: Distribution = Field(description="targets an image")
    area: Distribution = Field(description="pixels of a target's core before the blur")
    scr: Distribution = Field(description="requested |SCR| at the preset's ring")
    height: Distribution = Field(description="centre's row over the image's height, 0 top to 1 bottom")
    silhouettes: dict[Silhouette, Finite] = Field(description="weights of the extended targets' shapes")

    @field_validator("count", "area", "scr")
    @classmethod
    def _positive(cls, value: Distribution) -> Distribution:
        if value.bounds()[0] < 0:
            raise ValueError(f"must not go below 0, goes down to {value.bounds()[0]}")
        return value

    @field_validator("height")
    @classmethod
    def _fraction(cls, value: Distribution) -> Distribution:
        low, high = value.bounds()
        if low < 0 or high > 1:
            raise ValueError(f"must lie in [0, 1], runs from {low} to {high}")
        return value

    @field_validator("silhouettes")
    @classmethod
    def _weights(cls, value: dict[str, float]) -> dict[str, float]:
        if not value or min(value.values()) < 0 or sum(value.values()) <= 0:
            raise ValueError("weights must be at least 0 and not all 0")
        return value


def _share(value: Distribution) -> Distribution:
    low, high = value.bounds()
    if low <= 0 or high > 0.999:
        raise ValueError(f"must lie in (0, 0.999], runs from {low} to {high}")
    return value


class KindRule(Part):
    """Weights of the kinds for targets of at most ``up_to`` pixels (the last rule has no limit)."""

    up_to: Finite | None = None
    point: Finite = 0.0
    spot: Finite = 0.0
    extended: Finite = 0.0

    @model_validator(mode="after")
    def _some(self) -> KindRule:
        if min(self.point, self.spot, self.extended) < 0 or self.point + self.spot + self.extended <= 0:
            raise ValueError("weights of point, spot and extended must be at least 0 and not all 0")
        return self


class Contrast(Part):
    """SCR and what else decides how bright a target is. Levels are fractions of the full range."""

    ring: int = Field(default=10, ge=1, le=100, description="pixels around the tight box")
    limits: tuple[Finite, Finite] = Field(default=(0.02, 0.9), description="wanted mean(T) - mean(B)")
    wanted: Distribution | None = Field(
        default=None, description="among the places tried, the nearest to this one wins"
    )
    dark: float = Field(default=0.0, ge=0, le=1, description="share of dark targets")


class MaskPolicy(Part):
    """Where the mask is cut: ``core`` before the blur, ``half`` of the blurred maximum, ``energy`` share."""

    policy: Literal["core", "half", "energy"] = "core"
    level: float = Field(default=0.5, gt=0, lt=1, description="half: share of the maximum")
    energy: Distribution = Distribution(value=0.7)

    @field_validator("energy")
    @classmethod
    def _energy(cls, value: Distribution) -> Distribution:
        return _share(value)


class Point(Part):
    """Point targets: a Gaussian PSF integrated over each pixel."""

    sigma: Distribution = Distribution(uniform=(0.6, 0.9))
    energy: Distribution | None = Field(
        default=None, description="share of the energy inside the core; decides sigma where given"
    )
    anisotropy: Distribution = Field(default=Distribution(value=1.0), description="larger over smaller sigma")
    phase: float = Field(default=0.5, ge=0, le=0.5, description="sub-pixel offsets run from -phase to phase")
    aligned: float = Field(default=0.0, ge=0, le=1, description="share whose long axis lies along the rows")

    @field_validator("sigma")
    @classmethod
    def _sigma(cls, value: Distribution) -> Distribution:
        low, high = value.bounds()
        if low < 0.1 or high > 5:
            raise ValueError(f"must lie in [0.1, 5] pixels, runs from {low} to {high}")
        return value

    @field_validator("energy")
    @classmethod
    def _energy(cls, value: Distribution | None) -> Distribution | None:
        return None if value is None else _share(value)

    @field_validator("anisotropy")
    @classmethod
    def _ratio(cls, value: Distribution) -> Distribution:
        if value.bounds()[0] < 1:
            raise ValueError("must be at least 1")
        return value


class Spot(Part):
    """Spot targets: flat-topped ellipses, or less regular ones."""

    aspect: Distribution = Distribution(uniform=(1.0, 1.8))
    lumps: Distribution = Field(default=Distribution(value=1), description="ellipses whose union it is")
    power: Distribution = Field(default=Distribution(value=2), description="superellipse: 2 round, 8 a box")
    aligned: float = Field(default=0.0, ge=0, le=1, description="share whose long axis lies along the rows")
    shading: float = Field(default=0.0, ge=0, le=1, description="deviation of the body's own texture")

    @field_validator("aspect")
    @classmethod
    def _ratio(cls, value: Distribution) -> Distribution:
        low, high = value.bounds()
        if low < 1 or high > 4:
            raise ValueError(f"must lie in [1, 4], runs from {low} to {high}")
        return value

    @field_validator("lumps")
    @classmethod
    def _lumps(cls, value: Distribution) -> Distribution:
        return between(value, 1, 8)

    @field_validator("power")
    @classmethod
    def _power(cls, value: Distribution) -> Distribution:
        return between(value, 1, 20)

    @property
    def regular(self) -> bool:
        """Whether all spots are plain ellipses in any direction."""
        return (
            self.lumps.bounds()[1] < 1.5
            and self.power.bounds() == (2, 2)
            and self.aligned + self.shading == 0
        )


class Optics(Part):
    """What lens and camera do to a target's light; off at the defaults."""

    glow: Distribution = Field(default=Distribution(value=0.0), description="share of the light in the glow")
    glow_sigma: Distribution = Field(default=Distribution(value=3.0), description="of the glow, pixels")
    sharpen: Distribution = Field(
        default=Distribution(value=0.0), description="edge enhancement (unsharp mask): leaves a dark rim"
    )
    sharpen_sigma: Distribution = Field(default=Distribution(value=1.5), description="its Gaussian, pixels")

    @field_validator("glow")
    @classmethod
    def _glow(cls, value: Distribution) -> Distribution:
        return between(value, 0, 0.9)

    @field_validator("sharpen")
    @classmethod
    def _sharpen(cls, value: Distribution) -> Distribution:
        return between(value, 0, 5)

    @field_validator("glow_sigma", "sharpen_sigma")
    @classmethod
    def _sigmas(cls, value: Distribution) -> Distribution:
        return between(value, 0.3, 10)

    @property
    def active(self) -> bool:
        """Whether anything is on."""
        return self.glow.bounds()[1] > 0 or self.sharpen.bounds()[1] > 0


class Extended(Part):
    """Extended targets: silhouettes."""

    hot_spots: float = Field(
        default=0.5, ge=0, le=1, description="share of targets that show engines or exhausts"
    )
    shading: float = Field(default=0.15, ge=0, le=1, description="deviation of the body's own texture")


class Placement(Part):
    """Where targets go."""

    crowded: bool = Field(default=False, description="allow targets in each other's rings, touching ones too")
    candidates: int = Field(default=6, ge=1, le=64, description="places compared at one height")
    regions: bool = Field(
        default=True, description="ships on water, vehicles on land, aircraft before the sky"
    )
    rounds: int = Field(default=30, ge=1, le=200, description="heights tried before a target is marked")


class Background(Part):
    """How a crop is taken."""

    scale: tuple[Finite, Finite] = Field(default=(1.0, 1.0), description="output pixels a source pixel")
    flip: bool = Field(default=True, description="mirror left and right")
    contrast: Distribution = Field(
        default=Distribution(value=1.0), description="deviations from the crop's mean are multiplied by it"
    )
    coring: Distribution = Field(
        default=Distribution(value=0.0),
        description="noise reduction: what is finer than 1.5 pixels loses so many gray levels of 8 bit",
    )

    @field_validator("contrast")
    @classmethod
    def _contrast(cls, value: Distribution) -> Distribution:
        return between(value, 0.05, 5)

    @field_validator("coring")
    @classmethod
    def _coring(cls, value: Distribution) -> Distribution:
        return between(value, 0, 50)

    @property
    def altered(self) -> bool:
        """Whether the crop's gray levels are changed."""
        return self.contrast.bounds() != (1, 1) or self.coring.bounds()[1] > 0

    @field_validator("scale")
    @classmethod
    def _range(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0.5 <= value[0] <= value[1] <= 2:
            raise ValueError(f"must be two numbers in [0.5, 2], the smaller first, got {list(value)}")
        return value


class Gate(Part):
    """The quality gate in place of the paper's removal by hand. Levels are fractions of the full range."""

    min_deviation: float = Field(
        default=0.004, ge=0, description="deviation of the whole crop: flatter ones go"
    )
    max_saturated: float = Field(
        default=0.25, ge=0, le=1, description="share of the crop's pixels at the top"
    )
    max_blank: float = Field(default=0.4, ge=0, le=1, description="share of the crop's pixels at 0")
    min_step: float = Field(default=0.008, ge=0, description="brightest added step of a target")
    tries: int = Field(
        default=8, ge=1, le=100, description="crops tried before the last one is taken and marked"
    )


class Preset(Part):
    """A preset in full."""

    name: str
    description: str = ""
    scene_mix: dict[Scene, Finite] | None = Field(
        default=None, description="shares of the scenes; none: as the backgrounds come"
    )
    scenes: dict[Literal["all", "city", "cloud", "field", "sea", "highlight"], SceneTable]
    kinds: tuple[KindRule, ...]
    contrast: Contrast = Contrast()
    mask: MaskPolicy = MaskPolicy()
    blur: Distribution = Field(
        default=Distribution(values=(0.2, 0.5, 1.0)),
        description="sigma of the 5x5 Gaussian blur of the patch",
    )
    point: Point = Point()
    spot: Spot = Spot()
    extended: Extended = Extended()
    optics: Optics = Optics()
    placement: Placement = Placement()
    background: Background = Background()
    gate: Gate = Gate()
    sensor: Sensor = Sensor()
    negatives: Negatives = Negatives()
    copies: Copies = Copies()

    @field_validator("scenes")
    @classmethod
    def _all(cls, value: dict[str, SceneTable]) -> dict[str, SceneTable]:
        if "all" not in value:
            raise ValueError("the table 'all' is missing (it is used where the scene is not known)")
        return value

    @field_validator("kinds")
    @classmethod
    def _rules(cls, value: tuple[KindRule, ...]) -> tuple[KindRule, ...]:
        if not value:
            raise ValueError("needs at least one rule")
        limits = [r.up_to for r in value]
        if limits[-1] is not None or any(limit is None for limit in limits[:-1]):
            raise ValueError("only the last rule has no up_to")
        known = [limit for limit in limits if limit is not None]
        if known != sorted(known):
            raise ValueError("rules must go from small to large up_to")
        return value

    @field_validator("blur")
    @classmethod
    def _blur(cls, value: Distribution) -> Distribution:
        low, high = value.bounds()
        if low <= 0 or high > 10:
            raise ValueError(f"sigma must lie in (0, 10] pixels, runs from {low} to {high}")
        return value

    @field_validator("scene_mix")
    @classmethod
    def _mix(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        if value is not None and (not value or min(value.values()) < 0 or sum(value.values()) <= 0):
            raise ValueError("weights must be at least 0 and not all 0")
        return value

    def table(self, scene: str | None) -> SceneTable:
        """The table of a scene, that of ``all`` where it has none."""
        return self.scenes.get(scene or "all", self.scenes["all"])  # type: ignore[call-overload]

    def as_dict(self) -> dict[str, Any]:
        """The preset in full, as plain values for YAML and JSON; negatives and copies only where they are on."""
        off = {key for key in ("negatives", "copies") if getattr(self, key) == type(getattr(self, key))()}
        return _plain(self.model_dump(mode="json", exclude_none=True, exclude=off))


P = TypeVar("P", bound=Preset)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def preset_names() -> list[str]:
    """The presets that come with irstkit."""
    return sorted(f.stem for f in FOLDER.glob("*.yaml"))


def load_preset(
    name: str | Path,
    overrides: tuple[str, ...] | list[str] = (),
    *,
    kind: type[P] = Preset,  # type: ignore[assignment]
    folders: tuple[Path, ...] = (FOLDER,),
) -> P:
    """A preset by its name (looked for in ``folders``) or file, with ``key.sub=value`` overrides applied.

    Raises
    ------
    IrstkitError
        For an unknown name (listing the ones there are), a file that is not YAML, an unknown key, a wrong
        type or an illegal value, each by its dotted name.
    """
    known = [f for folder in folders for f in sorted(folder.glob("*.yaml"), key=lambda f: f.stem)]
    path = next((f for f in known if f.stem == str(name)), Path(name))
    if not path.is_file():
        raise IrstkitError(
            f"no preset {str(name)!r}",
            hint=f"there are: {', '.join(f.stem for f in known)}; or give a YAML file",
        )
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise IrstkitError(
            f"not a YAML file that can be read: {' '.join(str(error).split())}", path=path
        ) from error
    if not isinstance(values, dict):
        raise IrstkitError("a preset is a mapping of keys to values", path=path)
    for text in overrides:
        _override(values, text)
    return make_preset(values, path.name, kind=kind)


def make_preset(
    values: dict[str, Any],
    where: str = "preset",
    *,
    kind: type[P] = Preset,  # type: ignore[assignment]
) -> P:
    """A preset from plain values; errors name the key."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        told = []
        for item in error.errors():
            key = ".".join(str(k) for k in item["loc"])
            message = item["msg"].removeprefix("Value error, ")
            if item["type"] == "extra_forbidden":
                message = "no such key"
            elif item.get("ctx", {}).get("class_name") == "Distribution":
                message = "a distribution was expected: {value: 3}, {uniform: [0, 1]}, {quantiles: [...]}, {values: [...]}"
            told.append(f"{key}: {message}" if key else message)
        more = f" (and {len(told) - 3} more)" if len(told) > 3 else ""
        raise IrstkitError("; ".join(told[:3]) + more, path=where) from error


def _override(values: dict[str, Any], text: str) -> None:
    key, equals, raw = text.partition("=")
    if not equals or not key.strip():
        raise IrstkitError(f"--set takes key=value, got {text!r}", hint="for example contrast.ring=5")
    try:
        value = yaml.safe_load(raw)
    except yaml.YAMLError as error:
        raise IrstkitError(f"--set {key}: the value {raw!r} is not YAML") from error
    parts = key.strip().split(".")
    place = values
    for part in parts[:-1]:
        inner = place.setdefault(part, {})
        if not isinstance(inner, dict):
            raise IrstkitError(f"--set {key}: {part!r} has no keys of its own")
        place = inner
    place[parts[-1]] = value
