"""PNG files taken apart: checksums, header, one inflation with its own checksum, row filters.

libpng prints what it does not like to the terminal, so it only gets what has been found whole.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import IrstkitError

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_PIXELS = 1 << 28
"""Larger images are refused: a header of 33 bytes can promise more than any memory holds."""

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def chunk(kind: bytes, body: bytes | bytearray) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))


def read_parts(data: bytes, path: str | Path) -> tuple[bytes, bytes | None, bytes]:
    """Header, palette and compressed stream of a PNG whose checksums are right and whose end is there."""
    position = len(PNG_SIGNATURE)
    view = memoryview(data)
    header: bytes | None = None
    palette: bytes | None = None
    stream: list[memoryview] = []
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        end = position + 12 + length
        if end > len(data):
            break
        kind = data[position + 4 : position + 8]
        (checksum,) = struct.unpack_from(">I", data, end - 4)
        if zlib.crc32(view[position + 4 : end - 4]) != checksum:
            name = kind.decode("latin-1") if kind.isalpha() else "unreadable"
            raise IrstkitError(
                f"damaged PNG: wrong checksum in its {name} part at byte {position}", path=path
            )
        body = view[position + 8 : end - 4]
        if kind == b"IHDR" and header is None:
            header = bytes(body)
        elif header is None:
            raise IrstkitError("damaged PNG: it does not begin with its header", path=path)
        elif kind == b"PLTE":
            palette = bytes(body)
        elif kind == b"IDAT":
            stream.append(body)
        elif kind == b"IEND":
            _check_png_header(header, palette, path)
            return header, palette, b"".join(stream)
        elif kind[:1].isupper():
            raise IrstkitError("damaged PNG: it needs an unknown extension to be read", path=path)
        position = end
    raise IrstkitError(f"truncated PNG: it ends at byte {len(data)} before its end mark", path=path)


def _check_png_header(header: bytes, palette: bytes | None, path: str | Path) -> None:
    if len(header) != 13:
        raise IrstkitError("damaged PNG: its header is not 13 bytes", path=path)
    width, height, depth, colour, compression, filtering, interlace = struct.unpack(">IIBBBBB", header)
    if depth not in _DEPTHS.get(colour, ()) or compression or filtering or interlace > 1:
        raise IrstkitError("damaged PNG: its header has values that the format does not know", path=path)
    check_size(width, height, path)
    if colour == 3 and (palette is None or not 3 <= len(palette) <= 768 or len(palette) % 3):
        raise IrstkitError("damaged PNG: its palette is missing or of a wrong size", path=path)


def check_size(width: int, height: int, path: str | Path) -> None:
    if width < 1 or height < 1:
        raise IrstkitError(f"an image without pixels ({width}x{height})", path=path)
    if width * height > MAX_PIXELS:
        raise IrstkitError(f"{width}x{height} is more than the {MAX_PIXELS} pixels accepted", path=path)


def inflate(stream: bytes, header: bytes, path: str | Path) -> bytes:
    """The filtered rows; the length and every row's filter code (0 to 4) are right."""
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", header)
    bits = depth * CHANNELS[colour]
    passes = [(width, height)]
    if interlace:
        passes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in _ADAM7]
        passes = [(w, h) for w, h in passes if w > 0 and h > 0]
    lines = [(h, 1 + (w * bits + 7) // 8) for w, h in passes]
    expected = sum(h * line for h, line in lines)
    inflater = zlib.decompressobj()
    try:
        raw = inflater.decompress(stream, expected + 1)
    except zlib.error as error:
        raise IrstkitError("damaged PNG: its pixel data cannot be inflated", path=path) from error
    if len(raw) != expected or not inflater.eof:
        problem = "more" if len(raw) > expected else "less"
        raise IrstkitError(f"damaged PNG: {problem} pixel data than {width}x{height} needs", path=path)
    start = 0
    for count, line in lines:
        if np.frombuffer(raw, np.uint8, count * line, start)[::line].max() > 4:
            raise IrstkitError("damaged PNG: a row with an unknown filter", path=path)
        start += count * line
    return raw


def undo_filter(rows: NDArray[np.uint8], code: int) -> NDArray[np.uint8]:
    """PNG filter 0 (none) or 1 (difference to the left neighbour, modulo 256), the same for every row."""
    if code == 0:
        return np.ascontiguousarray(rows)
    out = np.zeros_like(rows, order="C")
    filled = np.flatnonzero(rows.any(axis=1))  # the other rows of a mask are zero
    out[filled] = np.cumsum(rows[filled], axis=1, dtype=np.uint8)
    return out
