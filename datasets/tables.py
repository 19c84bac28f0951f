"""Tables on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

MARKS = {"error": ("✗", "bold red"), "warning": ("!", "yellow"), "info": ("i", "cyan")}
SHOWN = 12


def console() -> Console:
    """Standard output; at least 100 columns where it is not a terminal, so that lines stay whole."""
    out = Console(highlight=False)
    return out if out.is_terminal else Console(highlight=False, width=160)


def print_info(facts: dict[str, Any], *, everything: bool = False) -> None:
    """The facts of ``irstkit data info`` for people."""
    out = console()
    out.print(f"[bold]{escape(facts['path'])}[/]  {facts['layout']} [dim]({escape(facts['why'])})[/]")
    rows = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    rows.add_column(style="cyan")
    rows.add_column()
    for name, text in _lines(facts):
        if text:
            rows.add_row(name, text)
    out.print(rows)
    if facts["splits"]:
        out.print(_splits(facts))
    else:
        out.print("[dim]no split lists[/]")
    print_findings(out, facts["findings"], everything=everything)


def _lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    sizes = facts["sizes"]
    if not sizes:
        size = ""
    elif len(sizes) == 1:
        size = f"{sizes[0]['width']} x {sizes[0]['height']}"
    else:
        size = (
            f"{len(sizes)} sizes: width {_span(facts['width'])}, height {_span(facts['height'])};"
            f" most often {sizes[0]['width']} x {sizes[0]['height']} ({sizes[0]['images']})"
        )
    depth = ", ".join(f"{bits}-bit {n}" for bits, n in facts["bit_depths"].items())
    names = {"1": "one channel", "3": "three channels", "4": "four channels"}
    channels = ", ".join(f"{names.get(c, c + ' channels')} {n}" for c, n in facts["channels"].items())
    if facts["colour_not_gray_equal"]:
        channels += f"; channels differ in {len(facts['colour_not_gray_equal'])}"
    per_image = ", ".join(f"{n} with {k}" for k, n in facts["targets_per_image"].items())
    targets = "" if facts["targets"] is None else f"{facts['targets']}, from {facts['boxes_from']}"
    return [
        (
            "images",
            f"{facts['images']}" + (f", {facts['masks']} with masks" if facts["masks"] else ", no masks"),
        ),
        ("targets", targets + (f" [dim](images: {per_image})[/]" if per_image else "")),
        ("target area", _spread(facts["area"], "px")),
        (
            "target size",
            f"width {_spread(facts['target_width'], 'px')}; height {_spread(facts['target_height'], 'px')}"
            if facts["target_width"]
            else "",
        ),
        ("image size", size),
        ("pixels", ", ".join(part for part in (depth, channels) if part)),
        ("gray masks", f"{len(facts['gray_masks'])}" if facts["gray_masks"] else ""),
        ("sequences", f"{facts['sequences'] or ''}"),
        ("source", ", ".join(f"{name} {n}" for name, n in facts["sources"].items())),
        ("scenes", ", ".join(f"{name} {n}" for name, n in facts["scenes"].items())),
    ]


def _spread(values: dict[str, float] | None, unit: str) -> str:
    if values is None:
        return ""
    return f"{values['min']:g} to {values['max']:g} {unit} (median {values['median']:g})"


def _span(values: dict[str, float]) -> str:
    return f"{values['min']:g} to {values['max']:g}"


def _splits(facts: dict[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("split", style="cyan")
    table.add_column("images", justify="right")
    table.add_column("split hash")
    table.add_column("")
    for row in facts["splits"]:
        scheme = row["split"].rpartition("/")[0]
        text = "= " + " + ".join(row["joins"]) if "joins" in row else ""
        if scheme == facts["default_scheme"] and not text:
            text = "default scheme"
        table.add_row(row["split"], str(row["images"]), row["hash"], f"[dim]{text}[/]")
    return table


def print_findings(out: Console, findings: list[dict[str, Any]], *, everything: bool = False) -> None:
    """Findings, errors first; the first dozen unless ``everything``."""
    if not findings:
        out.print("[green]nothing wrong found[/]")
        return
    order = list(MARKS)
    ranked = sorted(findings, key=lambda f: order.index(f["severity"]))
    shown = ranked if everything else ranked[:SHOWN]
    for finding in shown:
        mark, style = MARKS[finding["severity"]]
        place = ": ".join(str(finding[key]) for key in ("path", "where") if key in finding)
        line = Text(f"{mark} {finding['severity']:7s} ", style=style)
        line.append(f"{place}: " if place else "", style="bold").append(finding["message"], style="default")
        out.print(line)
    if len(shown) < len(ranked):
        out.print(f"[dim]... and {len(ranked) - len(shown)} more (--all lists them, --json for scripts)[/]")


def print_audit(facts: dict[str, Any]) -> None:
    """The facts of ``irstkit data audit`` for people."""
    out = console()
    for one in facts["sets"]:
        info = one["info"]
        out.print(f"[bold]{escape(one['name'])}[/]  {info['layout']}, {info['images']} images")
        rows = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for column in ("", "p5", "p25", "p50", "p75", "p95"):
            rows.add_column(
                column, justify="left" if not column else "right", style=None if column else "cyan"
            )
        values = one["statistics"]["all"]
        for name, key in (("area, px", "area"), ("width, px", "width"), ("height, px", "height")):
            if values[key]:
                rows.add_row(name, *(f"{v:g}" for v in values[key].values()))
        for ring, found in values["scr"].items():
            if found:
                rows.add_row(f"SCR, ring {ring} px", *(f"{v:.2f}" for v in found.values()))
        out.print(rows)
        for row in one["leaks"]:
            hit = len(row["twins"]) or len(row["exact"])
            style = "bold red" if hit else "green"
            out.print(
                f"[{style}]{'✗' if hit else '✓'}[/] {row['scheme']}: of {row['of']},"
                f" {len(row['exact'])} images are in {row['in']} exactly, {len(row['twins'])} as twins"
            )
        for why, count in one["suspicious"].items():
            out.print(f"[yellow]![/] {count} targets: {why}")
        for found in one["wrong_pairs"][:SHOWN]:
            ids = ", ".join(found["ids"][:6])
            out.print(Text(f"! {found['message']}" + (f": {ids}" if ids else ""), style="yellow"))
        print_findings(out, info["findings"])
    repeated, pairs = facts["exact_repetitions"], facts["twin_pairs"]
    out.print(
        f"{len(repeated)} images repeated exactly; {len(pairs)} twin pairs in {len(facts['twin_groups'])} groups,"
        f" {facts['twin_pairs_across_sets']} of them across sets"
    )
    if len(facts["sets"]) > 1:
        crossing = [p for p in pairs if p["a"]["set"] != p["b"]["set"]]
        for pair in crossing[:SHOWN]:
            a, b = pair["a"], pair["b"]
            out.print(Text(f"  {a['set']} {a['id']} ~ {b['set']} {b['id']} ({pair['correlation']:.4f})"))
