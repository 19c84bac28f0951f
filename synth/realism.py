"""How far a data set is from another one: distributions, spectra, a two-sample test, and what to change."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from ..annotate.errors import IrstkitError
from ..annotate.files import read_bytes
from ..annotate.masks import instances_to_mask
from ..datasets.readers import open_dataset
from ..datasets.records import Dataset, Record, split_hash
from ..datasets.targets import targets_of
from .backgrounds import Source
from .distances import PERCENTILES, Distance, compare, too_few
from .measures import Item, Sample, measure_sample
from .preset import make_preset
from .twosample import TwoSample, two_sample
from .verdict import Change, changes, remarks, summary


@dataclass
class Realism:
    """The report's numbers (``facts``, for JSON) and what its page is drawn from."""

    facts: dict[str, Any]
    reference: Sample
    made: Sample
    distances: dict[str, Distance]
    tests: dict[str, TwoSample]
    changes: list[Change]


def realism(
    made: str | Path, reference: str | Path, *, seed: int = 0, images: int = 1000, patches: int = 600,
    resamples: int = 200, test: bool = True, folds: int = 5, seeds: int = 3,
) -> Realism:  # fmt: skip
    """Compare two data sets, each ``PATH`` or ``PATH:SCHEME/PART``; deterministic for a seed.

    Parameters
    ----------
    images, patches
        Of each set at most so many images are measured, and at most so many patches go into the
        two-sample test: time and memory are bounded whatever the sets' size. Drawn by the seed.
    resamples
        Of the bootstrap and the permutations, for every distribution.
    test
        Whether to train the networks of the two-sample test; without torch it is left out and said.

    Raises
    ------
    IrstkitError
        For a data set that cannot be read, or without a pixel mask.
    """
    two, one = measured(made, images, seed, "made"), measured(reference, images, seed, "reference")
    distances = compare(one.sample, two.sample, resamples=resamples, seed=seed)
    tests: dict[str, TwoSample] = {}
    told: dict[str, dict[str, Any]] = {}
    for name in ("targets", "backgrounds"):
        reason = _cannot(test)
        if reason is None:
            try:
                tests[name] = _test(one.sample, two.sample, name, patches, seed, folds, seeds)
            except IrstkitError as error:
                reason = str(error)
        told[name] = {"left_out": reason} if reason else tests[name].as_dict()
    preset, ring = _preset_of(two.data.root)
    wanted = changes(distances, preset, ring)
    lacking = too_few(one.sample, two.sample)
    depths = _depths(one.records, two.records)
    facts = {
        "made": two.facts(), "reference": one.facts(),
        "settings": {"seed": seed, "images": images, "patches": patches, "resamples": resamples, "folds": folds,
                     "seeds": seeds},
        "distances": {key: d.as_dict() for key, d in distances.items()},
        "not_compared": {key: {"reference": n[0], "made": n[1]} for key, n in lacking.items()},
        "spectrum": _spectra(one.sample, two.sample),
        "two_sample": told,
        "verdict": {
            "summary": summary(distances, told["targets"], told["backgrounds"], lacking),
            "changes": [c.as_dict() for c in wanted],
            "remarks": [*depths, *remarks(distances, wanted)],
        },
    }  # fmt: skip
    return Realism(facts, one.sample, two.sample, distances, tests, wanted)


@dataclass
class Measured:
    """A data set, those of its records that were measured, and what came out."""

    data: Dataset
    split: str | None
    records: list[Record]
    all_images: int
    sample: Sample

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        s = self.sample
        return {
            "name": s.name, "images": s.images, "of": self.all_images, "targets": s.targets,
            "bit_depths": sorted({r.bit_depth for r in self.records}),
            "split_hash": split_hash(r.id for r in self.records), "psf_fits": s.fits,
            "patches": {"targets": len(s.patches), "too near the edge": s.outside, "backgrounds": len(s.grounds)},
        }  # fmt: skip


def measured(where: str | Path, images: int, seed: int, role: str, *, fits: bool = True) -> Measured:
    """Open ``PATH[:SCHEME/PART]`` and measure at most ``images`` of its images, drawn by the seed."""
    source = Source.parse(where)
    data = open_dataset(source.path)
    records = list(data.part(source.split or "all"))
    total = len(records)
    if total > images:
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(13,))))
        records = [records[k] for k in sorted(rng.permutation(total)[:images].tolist())]
    name = data.root.resolve().name + (f" {source.split}" if source.split else "")
    sample = measure_sample(name, items_of(records), seed=seed, total=len(records), fits=fits)
    if sample.targets == 0:
        raise IrstkitError(
            f"the {role} set has no target in {sample.images} images", path=source.path,
            hint="a set with masks is needed on both sides",
        )  # fmt: skip
    return Measured(data, source.split, records, total, sample)


def items_of(records: Sequence[Record]) -> Any:
    """(group, image, mask) of each record, read one at a time; the group is a synthetic image's background."""
    for record in records:
        group = str(record.attributes.get("background_id") or record.id)
        yield group, record.read_image(), _mask(record)


def _mask(record: Record) -> NDArray[np.bool_]:
    if record.mask is not None:
        return record.read_mask()
    instances = []
    for target in targets_of(record) or ():
        if target.instance is None:
            raise IrstkitError(
                "the target is a box without pixels, the report measures pixels", path=record.image,
                hint="name a set with masks (or RLE); boxes painted whole would not have the targets' area and SCR",
            )  # fmt: skip
        instances.append(target.instance)
    return instances_to_mask(instances, record.size)


def _depths(reference: Sequence[Record], made: Sequence[Record]) -> list[str]:
    """A remark where 8-bit images are compared with 16-bit ones."""
    one, two = ({r.bit_depth for r in side} for side in (reference, made))
    if one == two:
        return []
    told = [" and ".join(map(str, sorted(side))) for side in (two, one)]
    return [
        f"bit depths differ ({told[0]} against {told[1]}): gray levels are those of 8 bit, of 16-bit images divided by 257; "
        "of a camera that uses a part of its 16 bits only SCR and what is told over contrast can be compared"
    ]


def _cannot(test: bool) -> str | None:
    if not test:
        return "it was not asked for"
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed (pip install 'irstkit[train]')"
    return None


def _test(one: Sample, two: Sample, name: str, patches: int, seed: int, folds: int, seeds: int) -> TwoSample:
    pools, indices = [], []
    for turn, sample in enumerate((one, two)):
        x, groups = (
            (sample.patches, sample.patch_groups)
            if name == "targets"
            else (sample.grounds, sample.ground_groups)
        )
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(14, turn))))
        kept = np.sort(rng.permutation(len(x))[:patches])
        x, groups = x[kept], [groups[k] for k in kept.tolist()]
        indices.append(kept)
        pools.append((x, groups))
    (a, ga), (b, gb) = pools
    found = two_sample(a, b, ga, gb, folds=folds, seeds=seeds, seed=seed, title=f"Two-sample test, {name}")
    return replace(found, indices=(indices[0], indices[1]))


def _spectra(one: Sample, two: Sample) -> dict[str, Any]:
    """Mean log10 power of target-free patches by frequency (cycles a pixel)."""
    if not len(one.spectra) or not len(two.spectra):
        return {}
    bands = one.spectra.shape[1]
    return {
        "frequency": [round(0.5 * (k + 0.5) / bands, 4) for k in range(bands)],
        "reference": [round(float(v), 3) for v in one.spectra.mean(axis=0) / np.log(10)],
        "made": [round(float(v), 3) for v in two.spectra.mean(axis=0) / np.log(10)],
    }


def _preset_of(root: Path) -> tuple[dict[str, Any] | None, int]:
    """The preset that a synthetic set was made with (its synth.yaml) in plain values, and its SCR ring."""
    path = root / "synth.yaml"
    if not path.is_file():
        return None, 10
    try:
        values = yaml.safe_load(read_bytes(path).decode("utf-8"))["preset"]
        preset: dict[str, Any] = make_preset(values, str(path)).as_dict()
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, IrstkitError):
        return None, 10  # made by another version: the keys are not told with their values
    return preset, int(preset["contrast"]["ring"])


__all__ = ["PERCENTILES", "Item", "Measured", "Realism", "items_of", "measured", "realism"]
