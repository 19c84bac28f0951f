"""Self-contained HTML pages: every picture inside the file, no script, no address outside it."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .files import encode_png, write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """
:root { --ink:#1c2430; --soft:#5b6675; --line:#dfe4ea; --paper:#ffffff; --wash:#f5f7f9; --accent:#b4451f; }
@media (prefers-color-scheme: dark) {
  :root { --ink:#e8ebef; --soft:#9aa5b3; --line:#333c48; --paper:#171c22; --wash:#1f262e; --accent:#f08a5d; } }
* { box-sizing: border-box; }
body { margin:0; background:var(--paper); color:var(--ink); font:16px/1.55 system-ui, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 2.5rem 1.5rem 5rem; }
h1 { font-size: 2rem; line-height:1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.3rem; margin: 3rem 0 .6rem; padding-top: 1rem; border-top: 1px solid var(--line); }
p, li { max-width: 75ch; } .soft, figcaption { color: var(--soft); font-size: .92rem; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; display:block; overflow-x:auto; }
th, td { text-align: right; padding: .35rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { color: var(--soft); font-weight: 600; }
table.wide { font-size: .84rem; } table.wide th, table.wide td { padding: .3rem .45rem; }
table.wide td:first-child { white-space: normal; min-width: 9rem; }
figure { margin: 1rem 0; } figure img { max-width: 100%; border-radius: 6px; background:#fff; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(230px, 1fr)); gap: 14px; margin: 1rem 0; }
.grid figure { margin: 0; } .grid img { width: 100%; image-rendering: pixelated; display: block; }
.numbers { display:flex; flex-wrap:wrap; gap:14px; margin:1.2rem 0; }
.number { background:var(--wash); border-radius:8px; padding:.8rem 1.2rem; min-width:8.5rem; }
.number b { display:block; font-size:1.6rem; line-height:1.2; } .number span { color:var(--soft); font-size:.88rem; }
pre { background: var(--wash); padding: .9rem 1.1rem; border-radius: 8px; overflow-x: auto; white-space: pre-wrap; font-size: .88rem; }
.error { color: var(--accent); font-weight: 600; }
"""


@dataclass
class Page:
    """A report that grows part by part and is written once."""

    title: str
    subtitle: str = ""
    parts: list[str] = field(default_factory=list)

    def heading(self, text: str) -> None:
        """Start a new section."""
        self.parts.append(f"<h2>{html.escape(text)}</h2>")

    def text(self, text: str, *, soft: bool = False) -> None:
        """A paragraph of plain text."""
        self.parts.append(f"<p{' class=soft' if soft else ''}>{html.escape(text)}</p>")

    def code(self, lines: Iterable[str]) -> None:
        """Commands or file excerpts."""
        self.parts.append(f"<pre>{html.escape(chr(10).join(lines))}</pre>")

    def bullets(self, items: Iterable[str]) -> None:
        """A list of plain-text points."""
        self.parts.append("<ul>" + "".join(f"<li>{html.escape(i)}</li>" for i in items) + "</ul>")

    def table(self, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """A table; the first column is left-aligned, the rest are numbers; smaller where there are more than five."""
        head = "".join(f"<th>{html.escape(str(c))}</th>" for c in header)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(str(c))}</td>" for c in row) + "</tr>" for row in rows
        )
        wide = " class=wide" if len(header) > 5 else ""
        self.parts.append(f"<table{wide}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")

    def numbers(self, items: Iterable[tuple[str, str]]) -> None:
        """Large figures with a caption: (figure, caption)."""
        cells = "".join(
            f"<div class=number><b>{html.escape(v)}</b><span>{html.escape(c)}</span></div>" for v, c in items
        )
        self.parts.append(f"<div class=numbers>{cells}</div>")

    def figure(self, figure: Figure, caption: str = "") -> None:
        """A matplotlib figure, drawn at 130 dpi and closed."""
        self.parts.append(_figure(figure_uri(figure), caption))

    def picture(self, image: NDArray, caption: str = "") -> None:
        """One (H, W) gray or (H, W, 3) RGB uint8 image as wide as it is, at most as wide as the page."""
        self.parts.append(_figure(image_uri(image), caption))

    def pictures(self, items: Iterable[tuple[NDArray, str]]) -> None:
        """A grid of (H, W) gray or (H, W, 3) RGB uint8 images, each with its caption."""
        cells = "".join(_figure(image_uri(image), caption) for image, caption in items)
        self.parts.append(f"<div class=grid>{cells}</div>")

    def render(self) -> str:
        """The whole page."""
        title = html.escape(self.title)
        subtitle = f"<p class=soft>{html.escape(self.subtitle)}</p>" if self.subtitle else ""
        body = "\n".join(self.parts)
        return (
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>\n'
            f"<body><main><h1>{title}</h1>{subtitle}\n{body}\n</main></body></html>\n"
        )

    def write(self, path: str | Path) -> None:
        """Write the page atomically."""
        write_atomic(path, self.render())


def _figure(uri: str, caption: str) -> str:
    text = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return f'<figure><img src="{uri}" alt="{html.escape(caption, quote=True)}">{text}</figure>'


def image_uri(image: NDArray) -> str:
    """A ``data:`` address of a PNG of the image."""
    return "data:image/png;base64," + base64.b64encode(encode_png(np.asarray(image))).decode("ascii")


def figure_uri(figure: Figure) -> str:
    """A ``data:`` address of a PNG of a matplotlib figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, bbox_inches="tight", metadata={"Software": None})
    figure.clear()
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
