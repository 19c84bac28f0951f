"""Numbers in text files, read strictly.

``float("1_0")``, ``float("infinity")`` and digits of other scripts are numbers to Python; in a label file
they are damage.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import IrstkitError
from ..files import read_bytes

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)
LIMIT = 1e7
"""No image is larger; a coordinate beyond it is damage (or pixels where fractions were meant)."""


def number(text: str) -> float | None:
    """The number that ``text`` is, None when it is not one or is beyond all images."""
    if len(text) > 40 or not _NUMBER.fullmatch(text):
        return None
    value = float(text)
    return value if abs(value) <= LIMIT else None


def whole(text: str) -> int | None:
    """The whole number that ``text`` is, None when it is not one."""
    value = number(text)
    return int(value) if value is not None and value == int(value) else None


def plain(value: float) -> str:
    """A number as short as it can be read back: ``67`` for 67.0, else Python's shortest form."""
    return str(int(value)) if value == int(value) else repr(float(value))


def read_lines(path: str | Path) -> list[str]:
    """The lines of a UTF-8 text file (a byte-order mark and Windows line ends are accepted).

    Raises
    ------
    IrstkitError
        Missing, a folder, or not text.
    """
    data = read_bytes(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise IrstkitError("not UTF-8 text", path=path, where=f"line {line}") from error
    if "\0" in text:
        raise IrstkitError("not a text file (it has null characters)", path=path)
    lines = text.replace("\r\n", "\n").split("\n")
    if lines and lines[-1] == "":
        lines.pop()
    return lines
