"""Files in and out: atomic writes, and images and masks read strictly.

"Gray decided once": an image whose colour channels are equal is that channel; any other colour image is
converted with the BT.601 weights (0.299 R + 0.587 G + 0.114 B, rounded), alpha is dropped. Everything in
irstkit that opens an image comes through :func:`read_image` or :func:`read_mask`.
"""

from __future__ import annotations

import json
import os
import re
import struct
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .errors import IrstkitError

IMAGE_SUFFIXES = (".png", ".bmp", ".jpg", ".jpeg", ".tif", ".tiff", ".pgm")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

GrayImage = NDArray[np.uint8] | NDArray[np.uint16]


# ---------------------------------------------------------------------------------------------- writing


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it replaces ``path``, on any error it is removed.

    The suffix is kept, so that encoders which go by the name work. Missing parent folders are made.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise IrstkitError(f"cannot write here: {error.strerror or error}", path=path) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes private files
        os.replace(temporary, path)
    except OSError as error:
        raise IrstkitError(f"cannot write: {error.strerror or error}", path=path) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


def write_atomic(path: str | Path, data: bytes | str) -> None:
    """Write bytes, or text as UTF-8 with ``\\n`` line ends, so that readers see all of it or none."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)


def write_json(path: str | Path, value: Any, *, indent: int | None = None) -> None:
    """Write JSON atomically; not-a-number and infinity are refused, as JSON has neither."""
    try:
        text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise IrstkitError(f"cannot be written as JSON: {error}", path=path) from error
    write_atomic(path, text + "\n")


def write_png(path: str | Path, image: NDArray, *, compression: int = 3) -> None:
    """Write a (H, W) uint8 or uint16 array as a gray PNG (or (H, W, 3) RGB uint8), atomically."""
    write_atomic(path, encode_png(image, compression=compression))


def encode_png(image: NDArray, *, compression: int = 3) -> bytes:
    """PNG bytes of a (H, W) uint8/uint16 gray or (H, W, 3) uint8 RGB array."""
    if image.dtype not in (np.uint8, np.uint16) or image.ndim not in (2, 3):
        raise TypeError(f"expected a (H, W) or (H, W, 3) uint8 or uint16 array, got {image.dtype} {image.shape}")
    pixels = np.ascontiguousarray(image if image.ndim == 2 else image[..., ::-1])
    done, data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, compression])
    if not done:
        raise IrstkitError(f"cannot encode an image of shape {image.shape} as PNG")
    return data.tobytes()


# ---------------------------------------------------------------------------------------------- reading


def read_json(path: str | Path) -> Any:
    """Read a JSON file; an error names the file and the line and column that are wrong."""
    data = read_bytes(path)
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise IrstkitError(f"not UTF-8 text (byte {error.start})", path=path) from error
    except json.JSONDecodeError as error:
        raise IrstkitError(f"not valid JSON: {error.msg}", path=path, where=f"line {error.lineno}, column {error.colno}") from error
    except RecursionError as error:
        raise IrstkitError("not valid JSON: nested too deeply", path=path) from error


def read_bytes(path: str | Path) -> bytes:
    """All bytes of a file, or one clear error."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise IrstkitError("no such file", path=path) from error
    except IsADirectoryError as error:
        raise IrstkitError("is a folder, a file was expected", path=path) from error
    except OSError as error:
        raise IrstkitError(f"cannot be read: {error.strerror or error}", path=path) from error


@dataclass(frozen=True)
class Decoded:
    """A decoded image: ``gray`` (H, W) uint8 or uint16, and what it was before.

    ``channels`` is 1, 3 or 4 as stored; ``gray_equal`` is False for a colour image whose channels differ.
    """

    gray: GrayImage
    channels: int
    gray_equal: bool


def decode_image(path: str | Path) -> Decoded:
    """Decode an image file to gray, refusing what is truncated, damaged or not an image.

    Raises
    ------
    IrstkitError
        Naming the file: missing, empty, truncated, a bad checksum, not an image, neither 8 nor 16 bit.
    """
    data = read_bytes(path)
    check_whole(data, path)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise IrstkitError("cannot be decoded as an image", path=path)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise IrstkitError(f"pixels are {pixels.dtype}, expected 8- or 16-bit unsigned integers", path=path)
    if pixels.ndim == 2:
        return Decoded(pixels, 1, True)
    channels = pixels.shape[2]
    if channels == 1:
        return Decoded(pixels[..., 0], 1, True)
    blue, green, red = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    if np.array_equal(blue, green) and np.array_equal(green, red):
        return Decoded(np.ascontiguousarray(blue), channels, True)
    return Decoded(cv2.cvtColor(np.ascontiguousarray(pixels[..., :3]), cv2.COLOR_BGR2GRAY), channels, False)


def read_image(path: str | Path) -> GrayImage:
    """The image as a (H, W) gray array in its native depth, uint8 or uint16 (see :func:`decode_image`)."""
    return decode_image(path).gray


def read_mask_values(path: str | Path) -> NDArray[np.uint8]:
    """The stored values of a mask file as (H, W) uint8, before any threshold.

    Three-channel masks must have equal channels. 16-bit masks are scaled to 8 bit.
    """
    decoded = decode_image(path)
    if not decoded.gray_equal:
        raise IrstkitError("a mask in colour: its channels differ", path=path, hint="expected one channel, 0 or 255")
    values = decoded.gray
    if values.dtype == np.uint16:
        top = int(values.max(initial=0))
        return values.astype(np.uint8) if top <= 255 else (values >> 8).astype(np.uint8)
    return values


def read_mask(path: str | Path, *, threshold: int = 127) -> NDArray[np.bool_]:
    """The mask as a (H, W) boolean array: value > ``threshold``, or value == 1 where 1 is the largest.

    Gray mask values (85 masks of IRSTD-1k have them) are therefore decided at one place; the audit counts
    the files for which the threshold matters.
    """
    return binarise(read_mask_values(path), threshold=threshold)


def binarise(values: NDArray[np.uint8], *, threshold: int = 127) -> NDArray[np.bool_]:
    """The rule of :func:`read_mask` on an array."""
    if int(values.max(initial=0)) == 1:
        return values == 1
    return values > threshold


def check_whole(data: bytes, path: str | Path) -> None:
    """Refuse image bytes that are empty, of no known format, truncated or (PNG) fail their checksums.

    Decoders differ in what they make of a truncated file (OpenCV returns the part it has), so this is
    decided before decoding.
    """
    if not data:
        raise IrstkitError("the file is empty", path=path)
    if data.startswith(PNG_SIGNATURE):
        _check_png(data, path)
    elif data.startswith(b"BM"):
        declared = struct.unpack_from("<I", data, 2)[0] if len(data) >= 6 else 0
        if len(data) < 54 or len(data) < declared:
            raise IrstkitError(f"truncated BMP: {len(data)} of {declared} bytes", path=path)
    elif data.startswith(b"\xff\xd8"):
        if b"\xff\xd9" not in data[-1024:]:
            raise IrstkitError("truncated JPEG: its end marker is missing", path=path)
    elif not data.startswith((b"II*\0", b"MM\0*", b"P5", b"P2")):
        raise IrstkitError("not an image (its first bytes are of no known format)", path=path)


def _check_png(data: bytes, path: str | Path) -> None:
    position = len(PNG_SIGNATURE)
    view = memoryview(data)
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        end = position + 12 + length
        if end > len(data):
            break
        (checksum,) = struct.unpack_from(">I", data, end - 4)
        if zlib.crc32(view[position + 4 : end - 4]) != checksum:
            kind = data[position + 4 : position + 8].decode("latin-1")
            raise IrstkitError(f"damaged PNG: wrong checksum in its {kind} part at byte {position}", path=path)
        if data[position + 4 : position + 8] == b"IEND":
            return
        position = end
    raise IrstkitError(f"truncated PNG: it ends at byte {len(data)} before its end mark", path=path)


@dataclass(frozen=True)
class Header:
    """Size, depth and channels of an image file, read without decoding its pixels."""

    height: int
    width: int
    bit_depth: int
    channels: int


def read_header(path: str | Path) -> Header:
    """Size and depth from the first bytes of an image file (PNG: 33 bytes; others through Pillow)."""
    try:
        with Path(path).open("rb") as stream:
            start = stream.read(33)
    except FileNotFoundError as error:
        raise IrstkitError("no such file", path=path) from error
    except OSError as error:
        raise IrstkitError(f"cannot be read: {error.strerror or error}", path=path) from error
    if start.startswith(PNG_SIGNATURE) and len(start) == 33 and start[12:16] == b"IHDR":
        width, height, depth, colour = struct.unpack_from(">IIBB", start, 16)
        return Header(height, width, 16 if depth == 16 else 8, {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}.get(colour, 1))
    if not start:
        raise IrstkitError("the file is empty", path=path)
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            width, height = image.size
            depth = 16 if image.mode.startswith("I") else 8
            return Header(height, width, depth, len(image.getbands()))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise IrstkitError("not an image that can be read", path=path) from error


def list_images(folder: str | Path) -> list[Path]:
    """The image files directly in ``folder`` in natural order, without hidden and ``._`` files.

    Raises
    ------
    IrstkitError
        When the folder is missing, is a file, or holds no image.
    """
    folder = Path(folder)
    if not folder.exists():
        raise IrstkitError("no such folder", path=folder)
    if not folder.is_dir():
        raise IrstkitError("is a file, a folder was expected", path=folder)
    files = [
        f for f in folder.iterdir()
        if f.suffix.lower() in IMAGE_SUFFIXES and not f.name.startswith(".") and f.is_file()
    ]
    if not files:
        raise IrstkitError("no image in this folder", path=folder, hint="looked for " + " ".join(IMAGE_SUFFIXES))
    return sorted(files, key=lambda f: natural_key(f.name))


def natural_key(text: str) -> tuple:
    """Sort key under which ``10.bmp`` comes after ``2.bmp``."""
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"([0-9]+)", text)), text


def inside(root: str | Path, relative: str) -> Path:
    """``root / relative``, refusing absolute paths and any that leave ``root`` (after links are followed)."""
    root = Path(root)
    path = root / relative
    if Path(relative).is_absolute() or not path.resolve().is_relative_to(root.resolve()):
        raise IrstkitError(f"the path {relative!r} leaves the data set's folder", path=root)
    return path


def pixel_hash(image: NDArray) -> str:
    """sha256 of decoded pixels: shape, little-endian dtype and C-order values (not of the file's bytes)."""
    import hashlib

    array = np.ascontiguousarray(image)
    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    digest = hashlib.sha256(f"{array.shape}{array.dtype.str}".encode())
    digest.update(array.tobytes())
    return digest.hexdigest()
