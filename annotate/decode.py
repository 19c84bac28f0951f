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
from .png import CHANNELS, PNG_SIGNATURE, check_size, chunk, inflate, read_parts, undo_filter

GrayImage = NDArray[np.uint8] | NDArray[np.uint16]


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


def check_bytes(data: bytes, path: str | Path) -> None:
    """Refuse what :func:`decode_bytes` would, before a file is copied as it is; of a PNG only checksums and end are read.

    Raises
    ------
    IrstkitError
        Empty, truncated, damaged, not an image.
    """
    if data.startswith(PNG_SIGNATURE):
        read_parts(data, path)
    else:
        decode_bytes(data, path)


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


def _decode_png(data: bytes, path: str | Path) -> Decoded:
    header, palette, stream = read_parts(data, path)
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", header)
    raw = inflate(stream, header, path)
    if colour == 0 and depth == 8 and not interlace:  # most masks: undone here at a third of OpenCV's time
        rows = np.frombuffer(raw, np.uint8).reshape(height, width + 1)
        code = rows[0, 0]
        if code <= 1 and (rows[:, 0] == code).all():
            return Decoded(undo_filter(rows[:, 1:], int(code)), 1, True)
    chunks = [PNG_SIGNATURE, chunk(b"IHDR", header)]
    if palette is not None:
        chunks.append(chunk(b"PLTE", palette))
    chunks += [chunk(b"IDAT", zlib.compress(raw, 0)), chunk(b"IEND", b"")]
    stored = 3 if colour == 3 else CHANNELS[colour]
    return _to_gray(_imdecode(b"".join(chunks), path), path, stored)


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
    check_size(width, abs(height), path)
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
                check_size(*image.size, path)
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
    check_size(width, height, path)
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
    check_size(*size, path)
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
    header, _, stream = read_parts(data, path)
    raw = inflate(stream, header, path)
    gray = header[:9] + b"\x00" + header[10:]  # the same rows, read as gray values
    depth = header[8]
    chunks = [chunk(b"IHDR", gray), chunk(b"IDAT", zlib.compress(raw, 0)), chunk(b"IEND", b"")]
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
        check_size(width, height, path)
        return Header(height, width, 16 if depth == 16 else 8, 3 if colour == 3 else CHANNELS.get(colour, 1))
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
    check_size(width, height, path)
    return header
