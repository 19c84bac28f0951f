"""Image bytes to gray pixels, strictly: what is truncated or damaged is refused, nothing is printed.

Decoders differ in what they make of a bad file (OpenCV returns the part it has, libpng and libjpeg write to
the terminal), so every format is checked by its own means before or instead of the decoder's:

* PNG: chunk checksums, the zlib stream with its own checksum, the number of bytes and the filter codes. The
  stream is inflated once; OpenCV gets it stored, without the ancillary chunks that libpng warns about.
* BMP and PGM: the number of bytes that the header promises. JPEG: its end marker, and Pillow's strict reader.
* TIFF: every strip lies inside the file, deflated strips inflate. One image a file.

JPEG, BMP, PGM and uncompressed or LZW TIFF carry no checksum: changed pixel values cannot be noticed there.
"""

from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from .errors import IrstkitError

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_PIXELS = 1 << 28
"""Larger images are refused: a header of 33 bytes can promise more than any memory holds."""

GrayImage = NDArray[np.uint8] | NDArray[np.uint16]

_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


@dataclass(frozen=True)
class Decoded:
    """A decoded image: ``gray`` (H, W) uint8 or uint16, and what it was before.

    ``channels`` is 1, 2 (gray and alpha), 3 or 4 as stored, a palette counting as 3; ``gray_equal`` is False
    for a colour image whose channels differ.
    """

    gray: GrayImage
    channels: int
    gray_equal: bool


@dataclass(frozen=True)
class Header:
    """Size, depth and channels of an image file, read without decoding its pixels."""

    height: int
    width: int
    bit_depth: int
    channels: int


def decode_bytes(data: bytes, path: str | Path) -> Decoded:
    """Decode the bytes of an image file to gray; ``path`` is for the error's text.

    Raises
    ------
    IrstkitError
        Empty, truncated, damaged, not an image, more than one image, neither 8 nor 16 bit unsigned.
    """
    if not data:
        raise IrstkitError("the file is empty", path=path)
    if data.startswith(PNG_SIGNATURE):
        return _decode_png(data, path)
    if data.startswith(b"BM"):
        _check_bmp(data, path)
        return _to_gray(_imdecode(data, path), path)
    if data.startswith(b"\xff\xd8"):
        return _decode_jpeg(data, path)
    if data.startswith((b"P5", b"P2")):
        return Decoded(_decode_pgm(data, path), 1, True)
    if data.startswith((b"II*\0", b"MM\0*")):
        _check_tiff(data, path)
        return _to_gray(_imdecode(data, path), path)
    raise IrstkitError("not an image (its first bytes are of no known format)", path=path)


def _to_gray(pixels: NDArray, path: str | Path, channels: int | None = None) -> Decoded:
    """Gray decided once: equal channels are that channel, other colour is BT.601, alpha is dropped."""
    if pixels.dtype not in (np.uint8, np.uint16):
        raise IrstkitError(f"pixels are {pixels.dtype}, expected 8- or 16-bit unsigned integers", path=path)
    if pixels.ndim == 2:
        return Decoded(pixels, channels or 1, True)
    stored = channels or pixels.shape[2]
    if pixels.shape[2] <= 2:
        return Decoded(np.ascontiguousarray(pixels[..., 0]), stored, True)
    blue, green, red = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    if np.array_equal(blue, green) and np.array_equal(green, red):
        return Decoded(np.ascontiguousarray(blue), stored, True)
    gray = cv2.cvtColor(np.ascontiguousarray(pixels[..., :3]), cv2.COLOR_BGR2GRAY)
    return Decoded(np.asarray(gray, dtype=pixels.dtype), stored, False)


# ------------------------------------------------------------------------------------------------- OpenCV

_quiet_lock = threading.Lock()
_quiet_depth = 0
_level_before = 0


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """No log lines of OpenCV's decoders inside; safe in threads (the level is the whole process's)."""
    global _quiet_depth, _level_before
    with _quiet_lock:
        if _quiet_depth == 0:
            _level_before = cv2.utils.logging.getLogLevel()
            cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        _quiet_depth += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_depth -= 1
            if _quiet_depth == 0:
                cv2.utils.logging.setLogLevel(_level_before)


def _imdecode(data: bytes | bytearray, path: str | Path) -> NDArray:
    with quiet_opencv():
        try:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error as error:
            raise IrstkitError("cannot be decoded as an image", path=path) from error
    if pixels is None or pixels.size == 0:
        raise IrstkitError("cannot be decoded as an image", path=path)
    return pixels


# --------------------------------------------------------------------------------------------------- PNG


def _png_chunk(kind: bytes, body: bytes | bytearray) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))


def _decode_png(data: bytes, path: str | Path) -> Decoded:
    header, palette, stream = _png_parts(data, path)
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", header)
    raw = _png_inflate(stream, header, path)
    if colour == 0 and depth == 8 and not interlace:  # most masks: undone here at a third of OpenCV's time
        rows = np.frombuffer(raw, np.uint8).reshape(height, width + 1)
        code = rows[0, 0]
        if code <= 1 and (rows[:, 0] == code).all():
            return Decoded(_undo_filter(rows[:, 1:], int(code)), 1, True)
    chunks = [PNG_SIGNATURE, _png_chunk(b"IHDR", header)]
    if palette is not None:
        chunks.append(_png_chunk(b"PLTE", palette))
    chunks += [_png_chunk(b"IDAT", zlib.compress(raw, 0)), _png_chunk(b"IEND", b"")]
    stored = 3 if colour == 3 else _PNG_CHANNELS[colour]
    return _to_gray(_imdecode(b"".join(chunks), path), path, stored)


def _undo_filter(rows: NDArray[np.uint8], code: int) -> NDArray[np.uint8]:
    """PNG filter 0 (none) or 1 (difference to the left neighbour, modulo 256), the same for every row."""
    if code == 0:
        return np.ascontiguousarray(rows)
    out = np.zeros_like(rows, order="C")
    filled = np.flatnonzero(rows.any(axis=1))  # the other rows of a mask are zero
    out[filled] = np.cumsum(rows[filled], axis=1, dtype=np.uint8)
    return out


def _png_parts(data: bytes, path: str | Path) -> tuple[bytes, bytes | None, bytes]:
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
    if depth not in _PNG_DEPTHS.get(colour, ()) or compression or filtering or interlace > 1:
        raise IrstkitError("damaged PNG: its header has values that the format does not know", path=path)
    _check_size(width, height, path)
    if colour == 3 and (palette is None or not 3 <= len(palette) <= 768 or len(palette) % 3):
        raise IrstkitError("damaged PNG: its palette is missing or of a wrong size", path=path)


def _check_size(width: int, height: int, path: str | Path) -> None:
    if width < 1 or height < 1:
        raise IrstkitError(f"an image without pixels ({width}x{height})", path=path)
    if width * height > MAX_PIXELS:
        raise IrstkitError(f"{width}x{height} is more than the {MAX_PIXELS} pixels accepted", path=path)


def _png_inflate(stream: bytes, header: bytes, path: str | Path) -> bytes:
    """The filtered rows; the length and every row's filter code (0 to 4) are right."""
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", header)
    bits = depth * _PNG_CHANNELS[colour]
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


# ---------------------------------------------------------------------------------------- other formats


def _check_bmp(data: bytes, path: str | Path) -> None:
    if len(data) < 30:
        raise IrstkitError(f"truncated BMP: {len(data)} bytes", path=path)
    offset, header_size = struct.unpack_from("<II", data, 10)
    if header_size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression, declared = 0, 0
    else:
        if len(data) < 54:
            raise IrstkitError(f"truncated BMP: {len(data)} bytes", path=path)
        width, height, _, bits, compression, declared = struct.unpack_from("<iiHHII", data, 18)
    _check_size(width, abs(height), path)
    # run-length coded (1, 2): only the declared number is known
    needed = declared if compression in (1, 2) else (width * bits + 31) // 32 * 4 * abs(height)
    if len(data) < offset + needed:
        raise IrstkitError(f"truncated BMP: {len(data)} of {offset + needed} bytes", path=path)


def _decode_jpeg(data: bytes, path: str | Path) -> Decoded:
    from PIL import Image

    if b"\xff\xd9" not in data[-1024:]:
        raise IrstkitError("truncated JPEG: its end marker is missing", path=path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
                _check_size(*image.size, path)
                stored = len(image.getbands())
                pixels = np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
    except IrstkitError:
        raise
    except Exception as error:  # Pillow's parser raises many kinds on damaged files
        raise IrstkitError("damaged JPEG: it cannot be decoded", path=path) from error
    return _to_gray(pixels if pixels.ndim == 2 else pixels[..., ::-1], path, stored)


def _decode_pgm(data: bytes, path: str | Path) -> GrayImage:
    """PGM in its native values (decoders rescale them when the largest is neither 255 nor 65535)."""
    numbers: list[int] = []
    position = 2
    while len(numbers) < 3 and position < len(data):
        byte = data[position : position + 1]
        if byte == b"#":
            end = data.find(b"\n", position)
            position = len(data) if end < 0 else end + 1
        elif byte.isspace():
            position += 1
        else:
            end = position
            while end < len(data) and data[end : end + 1].isdigit():
                end += 1
            if end == position or end - position > 9:
                raise IrstkitError("damaged PGM: its header is not made of numbers", path=path)
            numbers.append(int(data[position:end]))
            position = end
    if len(numbers) < 3:
        raise IrstkitError("truncated PGM: its header is cut", path=path)
    width, height, top = numbers
    _check_size(width, height, path)
    if not 1 <= top <= 65535:
        raise IrstkitError(f"damaged PGM: its largest value is {top}", path=path)
    kind: np.dtype = np.dtype(np.uint8) if top <= 255 else np.dtype(np.uint16)
    if data.startswith(b"P2"):
        try:
            values = np.array([int(v) for v in data[position:].split()], dtype=np.int64)
        except (ValueError, OverflowError) as error:
            raise IrstkitError("damaged PGM: a value is not a number", path=path) from error
    else:
        body = data[position + 1 :]
        body = body[: len(body) - len(body) % kind.itemsize]
        values = np.frombuffer(body, kind.newbyteorder(">"))
    if values.size != width * height:
        problem = "truncated" if values.size < width * height else "damaged"
        raise IrstkitError(
            f"{problem} PGM: {values.size} values, {width}x{height} needs {width * height}", path=path
        )
    if int(values.max()) > top or int(values.min()) < 0:
        raise IrstkitError(f"damaged PGM: a value is not in 0..{top}", path=path)
    shaped: GrayImage = values.reshape(height, width).astype(kind)
    return shaped


def _check_tiff(data: bytes, path: str | Path) -> None:
    from PIL import Image, TiffImagePlugin  # noqa: F401  (formats= finds only what is imported)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=["TIFF"]) as image:
                pages = getattr(image, "n_frames", 1)
                size = image.size
                tags = dict(image.tag_v2)  # type: ignore[attr-defined]
    except Exception as error:  # Pillow's parser raises many kinds on damaged files
        raise IrstkitError("truncated or damaged TIFF: its directory cannot be read", path=path) from error
    _check_size(*size, path)
    if pages != 1:
        raise IrstkitError(f"a TIFF of {pages} images", path=path, hint="store one image a file")
    offsets, lengths = (
        (value,) if isinstance(value, int) else tuple(value)
        for value in (tags.get(273) or tags.get(324) or (), tags.get(279) or tags.get(325) or ())
    )
    if not offsets or len(offsets) != len(lengths):
        raise IrstkitError("damaged TIFF: its list of strips is missing or incomplete", path=path)
    for offset, length in zip(offsets, lengths, strict=True):
        if offset + length > len(data):
            raise IrstkitError(f"truncated TIFF: {len(data)} of {offset + length} bytes", path=path)
        if tags.get(259) in (8, 32946):
            try:
                zlib.decompress(data[offset : offset + length])
            except zlib.error as error:
                raise IrstkitError("damaged TIFF: a strip cannot be inflated", path=path) from error


def read_palette_index(path: str | Path) -> NDArray[np.uint8] | None:
    """The (H, W) indices of an 8-bit palette PNG (a label image coloured for the eye), else None.

    Raises
    ------
    IrstkitError
        When the file is missing or damaged.
    """
    from .files import read_bytes

    data = read_bytes(path)
    if not data.startswith(PNG_SIGNATURE) or data[25:26] != b"\x03":
        return None
    header, _, stream = _png_parts(data, path)
    raw = _png_inflate(stream, header, path)
    gray = header[:9] + b"\x00" + header[10:]  # the same rows, read as gray values
    depth = header[8]
    chunks = [_png_chunk(b"IHDR", gray), _png_chunk(b"IDAT", zlib.compress(raw, 0)), _png_chunk(b"IEND", b"")]
    values = _imdecode(PNG_SIGNATURE + b"".join(chunks), path)
    return np.asarray(values // (255 // (2**depth - 1)), dtype=np.uint8)  # 1, 2, 4 bits come scaled to 255


# ------------------------------------------------------------------------------------------------ header


def read_header(path: str | Path) -> Header:
    """Size and depth from the first bytes of an image file (PNG: 33 bytes; others through Pillow)."""
    try:
        with Path(path).open("rb") as stream:
            start = stream.read(33)
    except FileNotFoundError as error:
        raise IrstkitError("no such file", path=path) from error
    except OSError as error:
        raise IrstkitError(f"cannot be read: {error.strerror or error}", path=path) from error
    if not start:
        raise IrstkitError("the file is empty", path=path)
    if start.startswith(PNG_SIGNATURE):
        if (
            len(start) < 33
            or start[12:16] != b"IHDR"
            or zlib.crc32(start[12:29]) != int.from_bytes(start[29:])
        ):
            raise IrstkitError("truncated or damaged PNG: its header is not whole", path=path)
        width, height, depth, colour = struct.unpack_from(">IIBB", start, 16)
        _check_size(width, height, path)
        return Header(
            height, width, 16 if depth == 16 else 8, 3 if colour == 3 else _PNG_CHANNELS.get(colour, 1)
        )
    from PIL import Image, TiffImagePlugin  # noqa: F401  (formats= finds only what is imported)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=["BMP", "JPEG", "TIFF", "PPM"]) as image:
                width, height = image.size
                channels = 3 if image.mode == "P" else len(image.getbands())
                header = Header(height, width, 16 if image.mode.startswith("I") else 8, channels)
    except Exception as error:  # Pillow's parsers raise many kinds on damaged files
        raise IrstkitError("not an image that can be read", path=path) from error
    _check_size(width, height, path)
    return header
