"""The realism report as one self-contained HTML page: verdict, sample sheets, distributions, spectra, the test."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..annotate.draw import enlarge
from ..annotate.html import Page
from .distances import Distance
from .measures import MEASURES, Sample
from .realism import Realism

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REFERENCE, MADE = "#1f6f8b", "#d1603d"
SHEET = 48
SUREST = 24
COLUMNS = 4


def write_page(found: Realism, path: str | Path) -> None:
    """Write the page: atomically, with every picture inside."""
    from matplotlib import use

    use("agg")
    facts = found.facts
    page = Page(
        f"{facts['made']['name']} against {facts['reference']['name']}",
        "irstkit synth report; patches are stretched one by one for the eye",
    )
    _head(page, facts)
    _sheets(page, found)
    page.heading("Distributions")
    page.text(
        "Blue: reference; orange: made. Medians are dashed. KS with its 95 % bootstrap interval; whole images are drawn "
        "(which adds noise: the interval of a small distance may lie above it).",
        soft=True,
    )
    if found.distances:
        page.figure(distributions_figure(found))
        _table(page, found.distances)
    else:
        page.text("None: both sets need at least 8 values of a measure.")
    if facts["spectrum"]:
        page.heading("Backgrounds: spectrum and gradients")
        page.figure(
            backgrounds_figure(found),
            "Target-free patches of 32x32: mean log power with its quartiles; gradients.",
        )
    if found.tests:
        page.heading("Two-sample test")
        _tests(page, found)
    page.write(path)


def _head(page: Page, facts: dict[str, Any]) -> None:
    numbers = []
    for name in ("targets", "backgrounds"):
        one = facts["two_sample"][name]
        numbers.append((f"{one['auc']:.2f}" if "auc" in one else "-", f"AUC, {name}"))
    differing = sum(d["differs"] for d in facts["distances"].values())
    numbers.append((f"{differing} of {len(facts['distances'])}", "distributions differ"))
    for side in ("made", "reference"):
        numbers.append((f"{facts[side]['targets']}", f"targets, {side}"))
    page.numbers(numbers)
    page.heading("Verdict")
    for line in facts["verdict"]["summary"]:
        page.text(line)
    if facts["verdict"]["changes"]:
        page.text("What to change in the preset, the most telling first:")
        page.bullets(c["text"] for c in facts["verdict"]["changes"])
        page.text(
            "First steps, not a solution: change, make a set anew, report again; or irstkit synth tune.",
            soft=True,
        )
    if facts["verdict"]["remarks"]:
        page.bullets(facts["verdict"]["remarks"])
    page.heading("The two sets")
    page.table(
        ("", "images", "of", "targets", "bits", "split hash", "PSF fits"),
        [
            (
                f"{side}: {facts[side]['name']}", facts[side]["images"], facts[side]["of"], facts[side]["targets"],
                ", ".join(map(str, facts[side]["bit_depths"])), facts[side]["split_hash"],
                facts[side]["psf_fits"].get("fitted", 0),
            )
            for side in ("reference", "made")
        ],
    )  # fmt: skip
    failed = {
        side: ", ".join(f"{k} {v}" for k, v in facts[side]["psf_fits"].items() if k != "fitted") or "none"
        for side in ("reference", "made")
    }
    page.text(f"PSF fits that failed: reference: {failed['reference']}; made: {failed['made']}.", soft=True)


def sheet(patches: NDArray, number: int = SHEET, columns: int = 8, scale: int = 3) -> NDArray[np.uint8]:
    """Patches side by side, each stretched from its minimum to its maximum, as one RGB picture."""
    tiles = []
    for patch in patches[:number]:
        low, high = float(patch.min()), float(patch.max())
        gray = np.rint((patch - low) * (255.0 / max(high - low, 1e-6))).astype(np.uint8)
        tiles.append(np.pad(enlarge(gray, scale), ((1, 1), (1, 1), (0, 0)), constant_values=255))
    if not tiles:
        return np.full((32, 32, 3), 255, np.uint8)
    while len(tiles) % columns:
        tiles.append(np.full_like(tiles[0], 255))
    return np.vstack([np.hstack(tiles[k : k + columns]) for k in range(0, len(tiles), columns)])


def _spread(patches: NDArray, number: int) -> NDArray:
    """``number`` patches at even steps through the set."""
    if len(patches) <= number:
        return patches
    return patches[np.linspace(0, len(patches) - 1, number).astype(int)]


def _sheets(page: Page, found: Realism) -> None:
    page.heading("Samples")
    for title, key in (("Targets", "patches"), ("Backgrounds", "grounds")):
        pair = [
            sheet(_spread(getattr(sample, key), SHEET), columns=5) for sample in (found.reference, found.made)
        ]
        page.picture(_beside(pair), f"{title}: {found.reference.name} left, {found.made.name} right")


def _beside(pair: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    height = max(p.shape[0] for p in pair)
    padded = [np.pad(p, ((0, height - p.shape[0]), (0, 0), (0, 0)), constant_values=255) for p in pair]
    return np.hstack([padded[0], np.full((height, 24, 3), 255, np.uint8), padded[1]])


def _axis_values(measure_key: str, sample: Sample) -> NDArray[np.float64]:
    values = sample.values[measure_key]
    return np.log10(np.maximum(values, 1e-3)) if MEASURES[measure_key].ratio else values


def distributions_figure(found: Realism) -> Figure:
    """A small histogram for every measure, both sets in it."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    keys = list(found.distances)
    rows = -(-len(keys) // COLUMNS)
    figure = Figure(figsize=(3.1 * COLUMNS, 2.0 * rows), layout="constrained")
    axes = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axis, key in zip(axes, keys, strict=False):
        measure, distance = MEASURES[key], found.distances[key]
        pair = [_axis_values(key, s) for s in (found.reference, found.made)]
        both = np.concatenate(pair)
        low, high = np.percentile(both, (0.5, 99.5))
        if high <= low:
            low, high = low - 0.5, high + 0.5
        if key == "count":
            low, high = min(both.min(), 1) - 0.5, max(high, 1) + 0.5
            bins = np.arange(low, high + 1)
        else:
            bins = np.linspace(low, high, 26)
        for values, colour in zip(pair, (REFERENCE, MADE), strict=True):
            weights = np.full(len(values), 1 / len(values))
            axis.hist(
                np.clip(values, low, high), bins, weights=weights, histtype="step", color=colour, lw=1.4
            )
            axis.axvline(float(np.median(values)), color=colour, lw=0.8, ls="--")
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=key == "count"))
        if measure.ratio:
            axis.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{float(f'{10**v:.3g}'):g}"))
        mark = "  *" if distance.differs else ""
        axis.set_title(f"{measure.title}\nKS {distance.ks:.2f}{mark}", fontsize=7.5)
        axis.tick_params(labelsize=6.5)
        axis.set_yticks([])
    for axis in axes[len(keys) :]:
        axis.set_axis_off()
    return figure


def backgrounds_figure(found: Realism) -> Figure:
    """Power spectra and gradient histograms of target-free patches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    frequency = found.facts["spectrum"]["frequency"]
    for sample, colour in ((found.reference, REFERENCE), (found.made, MADE)):
        power = sample.spectra / np.log(10)
        low, high = np.percentile(power, (25, 75), axis=0)
        left.plot(frequency, power.mean(axis=0), color=colour, label=sample.name)
        left.fill_between(frequency, low, high, color=colour, alpha=0.15, lw=0)
        steps = np.abs(np.diff(sample.grounds, axis=2)).ravel()
        right.hist(
            np.clip(steps, 0, 30), np.concatenate([[0, 0.5], np.geomspace(1, 30, 24)]), histtype="step",
            weights=np.full(len(steps), 1 / max(len(steps), 1)), color=colour,
        )  # fmt: skip
    left.set(xlabel="cycles a pixel", ylabel="log10 power")
    left.legend(fontsize=8)
    right.set(xlabel="difference of neighbours, gray levels", ylabel="share", yscale="log")
    return figure


def _table(page: Page, distances: dict[str, Distance]) -> None:
    rows = []
    for key, d in distances.items():
        measure = MEASURES[key]
        title = measure.title + (f", {measure.unit}" if measure.unit in ("px", "gray levels") else "")
        rows.append(
            (
                title, " / ".join(f"{v:.3g}" for v in (d.reference[0], d.reference[2], d.reference[4])),
                " / ".join(f"{v:.3g}" for v in (d.made[0], d.made[2], d.made[4])),
                f"{d.ks:.2f} ({d.ks_interval[0]:.2f} to {d.ks_interval[1]:.2f})",
                f"{d.wasserstein:.3g} ({d.wasserstein_interval[0]:.2g} to {d.wasserstein_interval[1]:.2g})",
                f"{d.p:.3f}" + (" *" if d.differs else ""),
            )
        )  # fmt: skip
    page.table(
        ("", "reference p5 / 50 / 95", "made p5 / 50 / 95", "KS", "Wasserstein", "p (*: differs)"), rows
    )


def _tests(page: Page, found: Realism) -> None:
    page.text(
        "A small network learns on 4 of 5 folds which set a 32x32 patch is of (mean and deviation normalised, mirrored "
        "at random) and is asked about the fifth; no image or background is in two folds. 0.5: chance.",
        soft=True,
    )
    page.table(
        ("", "AUC", "95 % interval", "by seed", "patches, reference", "patches, made"),
        [
            (
                name, f"{t.auc:.3f}", f"{t.interval[0]:.2f} to {t.interval[1]:.2f}",
                ", ".join(f"{v:.2f}" for v in t.by_seed), t.patches[0], t.patches[1],
            )
            for name, t in found.tests.items()
        ],
    )  # fmt: skip
    for name, test in found.tests.items():
        pools = (found.reference, found.made)
        patches = [p.patches if name == "targets" else p.grounds for p in pools]
        indices = test.indices
        orders = [np.argsort(test.scores_a), np.argsort(-test.scores_b)]
        pair = [
            sheet(patches[k][indices[k]][_known(orders[k], (test.scores_a, test.scores_b)[k])], SUREST, 5)
            for k in (0, 1)
        ]
        page.picture(
            _beside(pair),
            f"What gives the set away, {name}: the patches that the network was surest of, {found.reference.name} left, "
            f"{found.made.name} right",
        )


def _known(order: NDArray[np.intp], scores: NDArray[np.float64]) -> NDArray[np.intp]:
    return order[np.isfinite(scores[order])]
