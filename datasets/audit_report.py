"""The audit as a self-contained HTML page: what was found with pictures, distributions as plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..annotate.draw import GREEN, YELLOW, crop_around, enlarge, outline_boxes, outline_mask, stretch
from ..annotate.errors import IrstkitError
from ..annotate.html import Page
from .audit import PERCENTILES, Audit
from .records import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAIRS_SHOWN = 40
ODD_SHOWN = 48
FINDINGS_SHOWN = 60
SIDE = 256
COLOURS = ("#1f6f8b", "#d1603d", "#5b8e55", "#8a5a9e", "#b08b2e", "#555555")


def write_report(result: Audit, path: str | Path) -> None:
    """Write the page: atomically, with every picture inside."""
    from matplotlib import use

    use("agg")
    facts = result.facts
    names = [s["name"] for s in facts["sets"]]
    page = Page("Audit: " + ", ".join(names), "irstkit data audit; images are stretched for the eye")
    _overview(page, facts)
    _repetitions(page, result)
    for one in facts["sets"]:
        _findings(page, one)
    _plots(page, result)
    _odd(page, result)
    page.write(path)


def _overview(page: Page, facts: dict[str, Any]) -> None:
    infos = [s["info"] for s in facts["sets"]]
    page.numbers(
        [
            (f"{sum(i['images'] for i in infos):,}", "images"),
            (f"{sum(i['targets'] or 0 for i in infos):,}", "targets"),
            (f"{len(facts['exact_repetitions'])}", "images repeated exactly"),
            (f"{len(facts['twin_pairs'])}", "twin pairs"),
            (f"{facts['errors']}", "errors"),
            (f"{facts['warnings']}", "warnings"),
        ]
    )
    header = ("set", "layout", "images", "targets", "sizes", "bits", "gray masks", "colour", "errors")
    page.table(
        header,
        [
            (
                s["name"],
                s["info"]["layout"],
                s["info"]["images"],
                "-" if s["info"]["targets"] is None else s["info"]["targets"],
                len(s["info"]["sizes"]),
                ", ".join(s["info"]["bit_depths"]),
                len(s["info"]["gray_masks"]),
                len(s["info"]["colour_not_gray_equal"]),
                s["info"]["errors"],
            )
            for s in facts["sets"]
        ],
    )
    rows = [
        (f"{s['name']} {row['split']}", row["images"], row["hash"])
        for s in facts["sets"]
        for row in s["info"]["splits"]
    ]
    if rows:
        page.heading("Splits")
        page.table(("split", "images", "split hash"), rows)


def _repetitions(page: Page, result: Audit) -> None:
    facts = result.facts
    page.heading("Repetitions and twins")
    page.text(f"Twins: {facts['criteria']['twins']}.", soft=True)
    rows = [
        (s["name"], row["scheme"], f"{row['of']} in {row['in']}", len(row["exact"]), len(row["twins"]))
        for s in facts["sets"]
        for row in s["leaks"]
    ]
    if rows:
        page.table(("set", "scheme", "images of one part repeated in another", "exact", "twins"), rows)
    if len(facts["sets"]) > 1:
        page.text(f"{facts['twin_pairs_across_sets']} twin pairs lie across sets.")
    if not result.pairs and not result.exact:
        page.text("None found.")
        return
    pairs = sorted(result.pairs, key=lambda p: (not _crosses(result, p), -p[2], p[0], p[1]))
    pairs = [*((m[0], m[1], 1.0) for m in result.exact if not _twin_listed(m, pairs)), *pairs]
    shown = pairs[:PAIRS_SHOWN]
    page.text(
        f"{len(shown)} of {len(pairs)} pairs, those across parts or sets first; targets outlined in green.",
        soft=True,
    )
    page.pictures(
        (_side_by_side(result, i, j), f"{_label(result, i)} | {_label(result, j)}, {c:.4f}")
        for i, j, c in shown
    )


def _twin_listed(members: Sequence[int], pairs: Sequence[tuple[int, int, float]]) -> bool:
    return any((i, j) == (members[0], members[1]) for i, j, _ in pairs)


def _crosses(result: Audit, pair: tuple[int, int, float]) -> bool:
    (a, first), (b, second) = result.rows[pair[0]], result.rows[pair[1]]
    if a != b:
        return True
    return any(second.splits.get(scheme, part) != part for scheme, part in first.splits.items())


def _label(result: Audit, k: int) -> str:
    number, record = result.rows[k]
    name = result.facts["sets"][number]["name"]
    scheme = result.datasets[number].default_scheme
    part = record.splits.get(scheme or "", "")
    return f"{name}: {record.id}" + (f" ({part})" if part else "")


def _side_by_side(result: Audit, i: int, j: int) -> NDArray[np.uint8]:
    pictures = [_picture(result.rows[k][1]) for k in (i, j)]
    height = max(p.shape[0] for p in pictures)
    padded = [np.pad(p, ((0, height - p.shape[0]), (0, 0), (0, 0))) for p in pictures]
    gap = np.full((height, 6, 3), 255, np.uint8)
    return np.hstack([padded[0], gap, padded[1]])


def _picture(record: Record) -> NDArray[np.uint8]:
    """The whole image, at most ``SIDE`` pixels wide or high, its targets outlined; gray where it cannot be read."""
    try:
        picture = enlarge(stretch(record.read_image()), 1)
        if record.mask is not None:
            outline_mask(picture, record.read_mask(), GREEN, scale=1, width=2)
        elif record.boxes is not None:
            outline_boxes(picture, record.boxes, YELLOW, scale=1)
    except IrstkitError:
        return np.full((SIDE, SIDE, 3), 128, np.uint8)
    scale = SIDE / max(picture.shape[:2])
    if scale < 1:
        size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    return picture


def _findings(page: Page, one: dict[str, Any]) -> None:
    listed = [
        ": ".join(str(f[key]) for key in ("severity", "path", "where", "message") if key in f)
        for f in sorted(
            one["info"]["findings"], key=lambda f: ("error", "warning", "info").index(f["severity"])
        )
    ]
    listed += [f"{w['kind']}: {w['message']} ({', '.join(w['ids'][:6])})" for w in one["wrong_pairs"]]
    if not listed:
        return
    page.heading(f"Findings: {one['name']}")
    page.bullets(listed[:FINDINGS_SHOWN])
    if len(listed) > FINDINGS_SHOWN:
        page.text(f"... and {len(listed) - FINDINGS_SHOWN} more (--json lists them all)", soft=True)


def _odd(page: Page, result: Audit) -> None:
    targets = [t for facts in result.images for t in facts.targets if t.odd]
    if not targets:
        return
    page.heading("Suspicious targets")
    criteria = result.facts["criteria"]
    page.text(
        f"large: {criteria['large']}; invisible: {criteria['invisible']}; border: touches it.", soft=True
    )
    counts = [(s["name"], *s["suspicious"].items()) for s in result.facts["sets"]]
    page.table(("set", "why", "targets"), [(name, why, n) for name, *rows in counts for why, n in rows])
    order = ("invisible", "SCR undefined", "large", "border", "one pixel")
    ranked = sorted(targets, key=lambda t: (min(order.index(why) for why in t.odd), t.record))
    kinds: dict[str, list] = {}
    for target in ranked:  # a fair share of each kind
        kinds.setdefault(target.odd[0], []).append(target)
    share = max(1, ODD_SHOWN // len(kinds))
    shown = [t for found in kinds.values() for t in found[:share]]
    page.pictures(
        (
            _crop(result.rows[t.record][1], t.box),
            f"{', '.join(t.odd)}: {_label(result, t.record)}, {t.area:g} px",
        )
        for t in shown
    )


def _crop(record: Record, box: tuple[float, float, float, float]) -> NDArray[np.uint8]:
    side = int(max(48, 1.6 * max(box[2] - box[0], box[3] - box[1])))
    try:
        image = stretch(record.read_image())
        window = crop_around(image.shape[:2], ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), side)
        scale = max(1, 192 // side)
        picture = enlarge(image[window], scale)
        if record.mask is not None:
            outline_mask(picture, record.read_mask()[window], GREEN, scale=scale)
        else:
            shift = np.array([window[1].start, window[0].start] * 2, float)
            outline_boxes(picture, np.array([box]) - shift, YELLOW, scale=scale)
    except IrstkitError:
        return np.full((192, 192, 3), 128, np.uint8)
    return picture


# ------------------------------------------------------------------------------------------------ plots


def _plots(page: Page, result: Audit) -> None:
    if not any(facts.targets for facts in result.images):
        return
    page.heading("Statistics")
    page.figure(_targets_figure(result), "Targets an image, their area, size and brightness rank.")
    rings = result.facts["criteria"]["rings"]
    if any(t.scr for facts in result.images for t in facts.targets):
        page.figure(
            _scr_figure(result),
            "SCR by ring (box: quartiles; whiskers: 5 to 95 %): SCR depends on the window it is measured in.",
        )
    page.figure(_position_figure(result), "Where targets lie: centres relative to the image.")
    header = ("", *(f"p{p}" for p in PERCENTILES))
    for one in result.facts["sets"]:
        for scene, values in one["statistics"].items():
            rows = [
                (name, *(f"{v:g}" for v in values[key].values()))
                for name, key in (("area, px", "area"), ("width, px", "width"), ("height, px", "height"),
                                  ("contrast, gray levels", "contrast"), ("centre height", "centre_y"))
                if values[key]
            ]  # fmt: skip
            rows += [
                (f"SCR, ring {ring} px", *(f"{v:.2f}" for v in values["scr"][str(ring)].values()))
                for ring in rings
                if values["scr"][str(ring)]
            ]
            if rows:
                title = one["name"] if scene == "all" else f"{one['name']}, {scene}"
                told = [f"{values['images']} images", f"{values['targets']} targets"]
                for key, text in (("outside_brightest_10_percent", "outside the brightest 10 % of their image"),
                                  ("saturated", "saturated"), ("dark", "darker than their ring")):  # fmt: skip
                    if key in values:
                        told.append(f"{values[key]:.1%} {text}")
                page.text(f"{title}: {', '.join(told)}.")
                page.table(header, rows)


def _by_set(result: Audit) -> list[tuple[str, str, list]]:
    out = []
    for number, one in enumerate(result.facts["sets"]):
        found = [f for (d, _), f in zip(result.rows, result.images, strict=True) if d == number]
        out.append((one["name"], COLOURS[number % len(COLOURS)], found))
    return out


def _figure(columns: int, height: float = 3.0) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4 * columns, height), layout="constrained")
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def _targets_figure(result: Audit) -> Figure:
    figure, axes = _figure(4)
    sets = _by_set(result)
    for n, (name, colour, images) in enumerate(sets):
        counts = [len(f.targets) for f in images if f.look.boxes is not None]
        if counts:
            share = np.bincount(counts) / len(counts)
            axes[0].bar(
                np.arange(len(share)) + 0.8 * (n - (len(sets) - 1) / 2) / len(sets), share, 0.8 / len(sets),
                color=colour, label=name,
            )  # fmt: skip
        targets = [t for f in images for t in f.targets]
        areas = [t.area for t in targets]
        if areas:
            bins = np.geomspace(0.7, max(2000.0, max(areas) * 1.1), 36)
            weights = np.full(len(areas), 1 / len(areas))
            axes[1].hist(areas, bins, weights=weights, histtype="step", color=colour, label=name)
            axes[2].plot(
                [t.box[2] - t.box[0] for t in targets], [t.box[3] - t.box[1] for t in targets], ".",
                ms=3, alpha=0.3, color=colour, rasterized=True,
            )  # fmt: skip
        ranks = np.sort([t.brighter for t in targets if t.brighter is not None])
        if len(ranks):
            axes[3].plot(100 * ranks, np.linspace(0, 1, len(ranks)), color=colour, label=name)
    axes[0].set(xlabel="targets in an image", ylabel="share of images")
    axes[1].set(xlabel="area, px", ylabel="share of targets", xscale="log")
    axes[2].set(xlabel="width, px", ylabel="height, px", xscale="log", yscale="log")
    axes[3].set(xlabel="pixels of the image brighter, %", ylabel="share of targets")
    axes[3].axvline(10, color="0.7", lw=0.8)
    axes[0].legend(fontsize=8)
    return figure


def _scr_figure(result: Audit) -> Figure:
    rings = result.facts["criteria"]["rings"]
    sets = _by_set(result)
    figure, axes = _figure(2, 3.2)
    for n, (name, colour, images) in enumerate(sets):
        targets = [t for f in images for t in f.targets]
        stats, places = [], []
        for k, ring in enumerate(rings):
            values = [abs(s) for t in targets if (s := t.scr.get(ring)) is not None]
            if not values:
                continue
            low, q1, median, q3, high = np.percentile(values, PERCENTILES)
            stats.append({"med": median, "q1": q1, "q3": q3, "whislo": low, "whishi": high, "fliers": []})
            places.append(k + 0.8 * (n - (len(sets) - 1) / 2) / len(sets))
            if ring == 10:
                bins = np.linspace(0, 30, 46)
                weights = np.full(len(values), 1 / len(values))
                axes[1].hist(values, bins, weights=weights, histtype="step", color=colour, label=name)
        if stats:
            style = {"color": colour}
            axes[0].bxp(
                stats, positions=places, widths=0.6 / len(sets), showfliers=False,
                boxprops=style, medianprops=style, whiskerprops=style, capprops=style,
            )  # fmt: skip
    axes[0].set_xticks(range(len(rings)), [f"{ring} px" for ring in rings])
    axes[0].set(xlabel="ring", ylabel="SCR")
    axes[1].set(xlabel="SCR, ring 10 px", ylabel="share of targets")
    axes[1].legend(fontsize=8)
    return figure


def _position_figure(result: Audit) -> Figure:
    sets = _by_set(result)
    figure, axes = _figure(len(sets), 3.2)
    for axis, (name, _, images) in zip(axes, sets, strict=True):
        points = [
            ((t.box[0] + t.box[2]) / 2 / record.size[1], (t.box[1] + t.box[3]) / 2 / record.size[0])
            for f in images
            for t in f.targets
            if (record := result.rows[t.record][1]).size[0] and record.size[1]
        ]
        if points:
            x, y = np.array(points).T
            axis.hist2d(x, y, bins=16, range=((0, 1), (0, 1)), cmap="magma")
        axis.set(title=name, xlabel="x / width", ylabel="y / height")
        axis.set_ylim(1, 0)
    return figure
