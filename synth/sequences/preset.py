"""What a sequence needs besides an image's preset: tracks, the camera's motion, clouds and sea, change over time."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from ..dist import Distribution, Finite
from ..preset import FOLDER, Part, Preset, load_preset

SEQUENCE_FOLDER = Path(__file__).resolve().parent / "presets"
MODELS = ("constant", "manoeuvre", "hover", "crossing", "leaving", "entering")

Model = Literal["constant", "manoeuvre", "hover", "crossing", "leaving", "entering"]


def _at_least(value: Distribution, low: float, high: float = 1e6) -> Distribution:
    a, b = value.bounds()
    if a < low or b > high:
        raise ValueError(f"must lie in [{low:g}, {high:g}], runs from {a:g} to {b:g}")
    return value


class BoxSize(Part):
    """Targets by their box: a blurred blob whose mask is the ellipse that touches all four sides."""

    width: Distribution = Distribution(value=8)
    height: Distribution = Distribution(value=8)
    fill: Distribution = Field(
        default=Distribution(uniform=(0.5, 0.75)),
        description="blob's sigma over half the box, times sqrt(2)",
    )

    @field_validator("width", "height")
    @classmethod
    def _side(cls, value: Distribution) -> Distribution:
        return _at_least(value, 1, 64)

    @field_validator("fill")
    @classmethod
    def _fill(cls, value: Distribution) -> Distribution:
        return _at_least(value, 0.1, 2)


class Platform(Part):
    """The camera's own motion, in pixels of the image. Drift and pan are smooth, jitter is not."""

    drift: Distribution = Field(
        default=Distribution(uniform=(0, 6)), description="amplitude of the slow wander"
    )
    period: Distribution = Field(default=Distribution(uniform=(60, 200)), description="its period in frames")
    pan: Distribution = Field(default=Distribution(value=0), description="steady sweep, pixels a frame")
    extent: float = Field(default=120, ge=0, le=4000, description="a pan turns round after so many pixels")
    jitter: Distribution = Field(
        default=Distribution(uniform=(0, 0.3)), description="deviation from frame to frame"
    )
    follow: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="1: drift and pan follow the target and only move the background; 0: they move both",
    )

    @field_validator("drift", "pan", "jitter")
    @classmethod
    def _size(cls, value: Distribution) -> Distribution:
        return _at_least(value, 0, 500)

    @field_validator("period")
    @classmethod
    def _period(cls, value: Distribution) -> Distribution:
        return _at_least(value, 4)


class Clouds(Part):
    """A veil of cloud that drifts before the sky."""

    chance: float = Field(
        default=0.5, ge=0, le=1, description="share of the sequences with sky that have one"
    )
    opacity: Distribution = Distribution(uniform=(0.1, 0.3))
    speed: Distribution = Field(default=Distribution(uniform=(0.05, 0.4)), description="pixels a frame")

    @field_validator("opacity")
    @classmethod
    def _opacity(cls, value: Distribution) -> Distribution:
        return _at_least(value, 0, 1)


class Sea(Part):
    """Waves and glints on the water of sea scenes. Levels are gray levels of 8 bit."""

    waves: Distribution = Field(
        default=Distribution(uniform=(0.5, 2.0)), description="deviation of the waves"
    )
    glints: Distribution = Field(default=Distribution(uniform=(0, 10)), description="typical brightness")
    speed: Distribution = Field(
        default=Distribution(uniform=(0.2, 1.0)), description="pixels a frame, nearby"
    )

    @field_validator("waves", "glints", "speed")
    @classmethod
    def _size(cls, value: Distribution) -> Distribution:
        return _at_least(value, 0, 100)


class Motion(Part):
    """The section ``sequence`` of a preset."""

    size: tuple[int, int] = Field(default=(256, 256), description="width and height where none is asked for")
    trajectories: dict[Model, Finite] = Field(
        default={"constant": 4, "manoeuvre": 3, "hover": 1, "crossing": 1, "leaving": 1, "entering": 1},
        validate_default=True,
        description="weights of the kinds of track",
    )
    speed: Distribution = Field(default=Distribution(uniform=(0.2, 2.0)), description="pixels a frame")
    turn: Distribution = Field(
        default=Distribution(uniform=(1, 6)), description="manoeuvre: deviation of the turn, degrees a frame"
    )
    radius: Distribution = Field(
        default=Distribution(uniform=(0.5, 4)), description="hover: deviation from the place, pixels"
    )
    scr_change: Distribution = Field(
        default=Distribution(uniform=(0, 0.25)), description="amplitude of the slow change of log SCR"
    )
    size_change: Distribution = Field(
        default=Distribution(uniform=(0, 0.3)), description="the same of the log of the target's area"
    )
    exposure: Distribution = Field(
        default=Distribution(uniform=(0, 0.5)), description="share of a frame's time; decides the motion blur"
    )
    box: BoxSize | None = Field(default=None, description="targets by their box in place of the area")
    platform: Platform = Platform()
    clouds: Clouds = Clouds()
    sea: Sea = Sea()
    soften: float = Field(
        default=0.7, ge=0, le=3, description="sigma of the blur of the background, pixels (see canvas.py)"
    )

    @field_validator("size")
    @classmethod
    def _frame(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not all(48 <= side <= 8192 for side in value):
            raise ValueError(f"sides go from 48 to 8192 pixels, got {list(value)}")
        return value

    @field_validator("trajectories")
    @classmethod
    def _weights(cls, value: dict[Model, float]) -> dict[Model, float]:
        if not value or min(value.values()) < 0 or sum(value.values()) <= 0:
            raise ValueError("weights must be at least 0 and not all 0")
        return value

    @field_validator("speed", "turn", "radius", "scr_change", "size_change")
    @classmethod
    def _size(cls, value: Distribution) -> Distribution:
        return _at_least(value, 0, 1000)

    @field_validator("exposure")
    @classmethod
    def _exposure(cls, value: Distribution) -> Distribution:
        return _at_least(value, 0, 1)


class SequencePreset(Preset):
    """An image's preset with the section ``sequence``; one without it gets the section's defaults."""

    sequence: Motion = Motion()

    @model_validator(mode="after")
    def _single(self) -> SequencePreset:
        if self.negatives.active or self.copies.count > 1:
            raise ValueError("negatives and copies are for single images (irstkit synth images)")
        return self


def load_sequence_preset(name: str | Path, overrides: tuple[str, ...] | list[str] = ()) -> SequencePreset:
    """A preset for sequences by its name (those for images serve too) or file; see :func:`load_preset`."""
    return load_preset(name, overrides, kind=SequencePreset, folders=(SEQUENCE_FOLDER, FOLDER))


def sequence_preset_names() -> list[str]:
    """The sequence presets that come with irstkit."""
    return sorted(f.stem for f in SEQUENCE_FOLDER.glob("*.yaml"))
