"""What the realism report measures of a data set: of every target, of every image, of target-free patches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..annotate.console import track
from ..annotate.errors import IrstkitError
from ..annotate.masks import Instance, mask_to_instances
from ..annotate.scr import measure_contrast
from .grounds import GROUND_MEASURES, SIDE, ground_measures, spectrum
from .psf import AROUND, LARGEST, PsfFit, fit_gaussian

RINGS = (3, 5, 10, 15, 20)


@dataclass(frozen=True)
class Measure:
    """A quantity: its title and unit, what has it (target, image, ground), and whether its scale is a ratio."""

    title: str
    of: str
    ratio: bool = False
    unit: str = ""


MEASURES: dict[str, Measure] = {
    "count": Measure("targets an image", "image"),
    "area": Measure("area", "target", True, "px"),
    **{f"scr_{ring}": Measure(f"|SCR|, ring {ring} px", "target", True) for ring in RINGS},
    "contrast": Measure("contrast", "target", True, "gray levels"),
    "ring_std": Measure("deviation of the ring, 10 px", "target", True, "gray levels"),
    "rank": Measure("image brighter than the target", "target", False, "share"),
    "saturated": Measure("saturated pixels of the mask", "target", False, "share"),
    "x": Measure("centre over width", "target"),
    "y": Measure("centre over height", "target"),
    "psf_sigma": Measure(f"fitted PSF width (up to {LARGEST} px)", "target", True, "px"),
    "psf_anisotropy": Measure("fitted anisotropy", "target", True),
    "energy_inside": Measure("fitted energy inside the mask", "target", False, "share"),
    "halo": Measure("dark rim, over contrast", "target"),
    "skirt": Measure("skirt 1 to 3 px outside, over contrast", "target"),
    "level": Measure("mean of the image", "image", False, "gray levels"),
    "deviation": Measure("deviation of the image", "image", True, "gray levels"),
    "image_saturated": Measure("saturated pixels of the image", "image", False, "share"),
    **{key: Measure(title, "ground", ratio, unit) for key, (title, ratio, unit) in GROUND_MEASURES.items()},
    "dark": Measure("dark targets", "target", False, "share"),
}
"""Gray levels are those of 8 bit; 16-bit images are divided by 257."""


@dataclass
class Sample:
    """A measured data set.

    ``values`` and ``owners`` hold for each measure its values and the number of the image each came from;
    ``patches`` (N, 32, 32) around targets and ``grounds`` (M, 32, 32) free of targets, float32 gray levels of
    8 bit, with the image (for synthetic sets: the background) they belong to. ``spectra`` (M, 16) log power.
    ``fits`` counts what became of the PSF fits.
    """

    name: str
    images: int
    targets: int
    values: dict[str, NDArray[np.float64]]
    owners: dict[str, NDArray[np.int64]]
    patches: NDArray[np.float32]
    patch_groups: list[str]
    grounds: NDArray[np.float32]
    ground_groups: list[str]
    spectra: NDArray[np.float64]
    fits: dict[str, int] = field(default_factory=dict)
    outside: int = 0


Item = tuple[str, NDArray, NDArray[np.bool_]]
"""Group, image and mask."""


def measure_sample(
    name: str, items: Iterable[Item], *, seed: int = 0, total: int | None = None, grounds: int = 2, fits: bool = True
) -> Sample:  # fmt: skip
    """Measure images with masks, one at a time.

    ``grounds`` target-free patches are drawn in each image; which ones follows from the seed and the image's
    number. Patches around targets are cut where they lie wholly inside the image (``outside`` counts the rest).

    Raises
    ------
    IrstkitError
        When there is no image.
    """
    values: dict[str, list[float]] = {key: [] for key in MEASURES}
    owners: dict[str, list[int]] = {key: [] for key in MEASURES}
    out = Sample(name, 0, 0, {}, {}, *_none(), [], *_none(), [], np.zeros((0, 0)))
    patches: list[NDArray] = []
    free: list[NDArray] = []
    spectra: list[NDArray] = []
    fitted: Counter[str] = Counter()

    def note(key: str, value: float | None) -> None:
        if value is not None and np.isfinite(value):
            values[key].append(float(value))
            owners[key].append(out.images)

    for group, raw, mask in track(items, f"Measuring {name}", total):
        top = 65535 if raw.dtype == np.uint16 else 255
        image = raw.astype(np.float32) * np.float32(255.0 / top)
        instances = mask_to_instances(mask)
        note("count", len(instances))
        note("level", float(image.mean()))
        note("deviation", float(image.std()))
        note("image_saturated", float(np.mean(raw == top)))
        _targets(raw, image, mask, instances, top, note, fitted, fits)
        for instance in instances:
            window = centred(instance, image.shape)
            if window is None:
                out.outside += 1
            else:
                patches.append(image[window])
                out.patch_groups.append(group)
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(12, out.images))))
        for patch in target_free(image, mask, grounds, rng):
            free.append(patch)
            out.ground_groups.append(group)
            spectra.append(spectrum(patch))
            for key, value in ground_measures(patch).items():
                note(key, value)
        out.images += 1
        out.targets += len(instances)
    if out.images == 0:
        raise IrstkitError(f"{name}: no image to measure")
    out.values = {key: np.array(found) for key, found in values.items()}
    out.owners = {key: np.array(found, dtype=np.int64) for key, found in owners.items()}
    out.patches = np.array(patches, np.float32).reshape(-1, SIDE, SIDE)
    out.grounds = np.array(free, np.float32).reshape(-1, SIDE, SIDE)
    out.spectra = (
        np.array(spectra) if spectra else np.zeros((0, 0))
    )  # small images leave no target-free patch
    out.fits = dict(sorted(fitted.items()))
    return out


def _none() -> tuple[Any]:
    return (np.zeros((0, SIDE, SIDE), np.float32),)


def centred(instance: Instance, size: tuple[int, ...]) -> tuple[slice, slice] | None:
    """The 32x32 window about a target's box, None where it does not lie wholly inside the image."""
    x1, y1, x2, y2 = instance.box
    left, top = (x1 + x2) // 2 - SIDE // 2, (y1 + y2) // 2 - SIDE // 2
    if left < 0 or top < 0 or left + SIDE > size[1] or top + SIDE > size[0]:
        return None
    return slice(top, top + SIDE), slice(left, left + SIDE)


def target_free(
    image: NDArray, mask: NDArray[np.bool_], number: int, rng: np.random.Generator
) -> list[NDArray[np.float32]]:
    """Up to ``number`` 32x32 patches without a target's pixel, at places drawn at random."""
    height, width = image.shape
    out: list[NDArray[np.float32]] = []
    if height < SIDE or width < SIDE:
        return out
    for _ in range(20 * number):
        y, x = int(rng.integers(height - SIDE + 1)), int(rng.integers(width - SIDE + 1))
        here = np.s_[y : y + SIDE, x : x + SIDE]
        if not mask[here].any():
            out.append(image[here])
            if len(out) == number:
                break
    return out


def _targets(
    raw: NDArray, image: NDArray[np.float32], mask: NDArray[np.bool_], instances: Sequence[Instance], top: int,
    note: Callable[[str, float | None], None], fitted: Counter, fits: bool,
) -> None:  # fmt: skip
    if not instances:
        return
    height, width = image.shape
    order = np.sort(raw, axis=None)
    by_ring = {ring: measure_contrast(image, instances, ring=ring, mask=mask) for ring in RINGS}
    for k, instance in enumerate(instances):
        x1, y1, x2, y2 = instance.box
        note("area", instance.area)
        for ring in RINGS:
            scr = by_ring[ring][k].scr
            note(f"scr_{ring}", None if scr is None else abs(scr))
        ten = by_ring[10][k]
        difference = ten.target_mean - ten.ring_mean
        note("contrast", abs(difference))
        note("dark", float(difference < 0) if np.isfinite(difference) else None)
        note("ring_std", ten.ring_std)
        inner = raw[y1:y2, x1:x2][instance.mask]
        brightest = inner.max()
        note("rank", float(len(order) - np.searchsorted(order, brightest, side="right")) / len(order))
        note("saturated", float(np.mean(inner == top)))
        note("x", (x1 + x2) / 2 / width)
        note("y", (y1 + y2) / 2 / height)
        polarity = 1 if difference >= 0 else -1
        window, own, usable = _window(image, mask, instance)
        for key, value in _rim(window, own, usable, ten.ring_mean, difference).items():
            note(key, value)
        if not fits:
            continue
        if instance.area > LARGEST:
            fitted["larger than a point"] += 1
            continue
        fit = fit_gaussian(window, own, usable, polarity=polarity)
        if isinstance(fit, PsfFit):
            fitted["fitted"] += 1
            note("psf_sigma", fit.sigma)
            note("psf_anisotropy", fit.anisotropy)
            note("energy_inside", fit.energy_inside)
        else:
            fitted[fit] += 1


def _window(
    image: NDArray[np.float32], mask: NDArray[np.bool_], instance: Instance
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
    """The target's box grown by 4 pixels: gray levels, its own pixels, and those that are no other target's."""
    x1, y1, x2, y2 = instance.box
    a, b = max(x1 - AROUND, 0), max(y1 - AROUND, 0)
    here = np.s_[b : min(y2 + AROUND, image.shape[0]), a : min(x2 + AROUND, image.shape[1])]
    own = np.zeros(image[here].shape, dtype=bool)
    own[y1 - b : y2 - b, x1 - a : x2 - a] = instance.mask
    return image[here], own, own | ~mask[here]


def _rim(
    window: NDArray[np.float32], own: NDArray[np.bool_], usable: NDArray[np.bool_], ring_mean: float, difference: float
) -> dict[str, float]:  # fmt: skip
    """How dark the rim is at its darkest, and how much light it has, against the ring and over the contrast."""
    import cv2

    if abs(difference) < 1e-6 or not np.isfinite(difference):
        return {}
    near = cv2.dilate(own.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    wide = cv2.dilate(own.astype(np.uint8), np.ones((7, 7), np.uint8)).astype(bool) & usable
    over = (window - ring_mean) / difference
    rim, skirt = over[wide & ~own], over[wide & ~near]
    out = {}
    if len(rim):
        out["halo"] = float(min(np.quantile(rim, 0.1), 0.0))
    if len(skirt):
        out["skirt"] = float(skirt.mean())
    return out
