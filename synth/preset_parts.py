"""Sections of a preset that come after the targets: camera, hard negatives, copies; and what sections are made of."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from .dist import Distribution, Finite


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def between(value: Distribution, least: float, most: float) -> Distribution:
    """A distribution as it is, refused where it leaves [least, most]."""
    low, high = value.bounds()
    if low < least or high > most:
        raise ValueError(f"must lie in [{least}, {most}], runs from {low} to {high}")
    return value


class Sensor(Part):
    """The camera; everything is off at its default. Levels are gray levels of 8 bit unless said otherwise."""

    motion_blur: Distribution = Field(
        default=Distribution(value=0.0), description="length in pixels, targets only"
    )
    shot: float = Field(
        default=0.0, ge=0, le=10, description="gray levels an electron: noise deviation sqrt(shot * signal)"
    )
    read: float = Field(default=0.0, ge=0, le=50, description="deviation of the read noise")
    fixed_gain: float = Field(default=0.0, ge=0, le=0.5, description="deviation of the pixels' gain (PRNU)")
    fixed_offset: float = Field(
        default=0.0, ge=0, le=50, description="deviation of the pixels' offset (DSNU)"
    )
    fixed_column: float = Field(
        default=0.0, ge=0, le=50, description="deviation of the columns' offset, the same in all images"
    )
    row: float = Field(default=0.0, ge=0, le=50, description="deviation of the rows' offset")
    column: float = Field(default=0.0, ge=0, le=50, description="deviation of the columns' offset")
    dead: float = Field(default=0.0, ge=0, le=0.1, description="share of dead pixels")
    gain: Distribution = Distribution(value=1.0)
    offset: Distribution = Distribution(value=0.0)
    jpeg: Distribution | None = Field(
        default=None, description="quality 1 to 100 of a JPEG step behind the camera (8 bit only); none: off"
    )

    @field_validator("jpeg")
    @classmethod
    def _quality(cls, value: Distribution | None) -> Distribution | None:
        return None if value is None else between(value, 1, 100)

    @property
    def active(self) -> bool:
        """Whether anything but the targets' motion blur and the JPEG step is on."""
        return (
            any(
                (
                    self.shot,
                    self.read,
                    self.fixed_gain,
                    self.fixed_offset,
                    self.fixed_column,
                    self.row,
                    self.column,
                    self.dead,
                )
            )
            or self.gain.bounds() != (1.0, 1.0)
            or self.offset.bounds() != (0.0, 0.0)
        )


class Negatives(Part):
    """Hard negatives (negatives.py): drawn after the targets, out of their rings, without a label. Off at 0."""

    count: Distribution = Field(default=Distribution(value=0.0), description="an image")
    kinds: dict[Literal["clutter", "glint", "hot", "dead", "cluster"], Finite] = Field(
        default={"clutter": 1.0, "glint": 1.0, "hot": 1.0, "dead": 1.0, "cluster": 1.0},
        description="weights of the kinds",
    )
    contrast: Distribution = Field(
        default=Distribution(uniform=(0.08, 0.5)), description="brightest step, a fraction of the full range"
    )
    clutter_area: Distribution = Field(default=Distribution(uniform=(60.0, 400.0)), description="pixels")
    glint_length: Distribution = Field(
        default=Distribution(uniform=(2.0, 8.0)), description="pixels a streak"
    )

    @field_validator("kinds")
    @classmethod
    def _weights(cls, value: dict[str, float]) -> dict[str, float]:
        if not value or min(value.values()) < 0 or sum(value.values()) <= 0:
            raise ValueError("weights must be at least 0 and not all 0")
        return value

    @model_validator(mode="after")
    def _ranges(self) -> Negatives:
        for key, low, high in (
            ("count", 0, 100), ("contrast", 0.001, 1), ("clutter_area", 4, 5000), ("glint_length", 1, 40),
        ):  # fmt: skip
            found = getattr(self, key).bounds()
            if found[0] < low or found[1] > high:
                raise ValueError(f"{key} must lie in [{low}, {high}], runs from {found[0]} to {found[1]}")
        return self

    @property
    def active(self) -> bool:
        """Whether any image can get one."""
        return self.count.bounds()[1] >= 0.5


class Copies(Part):
    """The same scene several times, its targets blended anew (copies.py). Off at 1."""

    count: int = Field(
        default=1, ge=1, le=100, description="images a scene: the original and count - 1 copies"
    )
