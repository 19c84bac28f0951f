"""Files in and out: atomic writes, and images and masks read strictly.

"Gray decided once": an image whose colour channels are equal is that channel; any other colour image is
converted with the BT.601 weights (0.299 R + 0.587 G + 0.114 B, rounded), alpha is dropped. Everything in
irstkit that opens an image comes through :func:`read_image` or :func:`read_mask`.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .decode import Decoded, GrayImage, Header, decode_bytes, read_header
from .errors import IrstkitError
from .tars import read_member

__all__ = [
    "IMAGE_SUFFIXES",
    "Below",
    "Decoded",
    "GrayImage",
    "Header",
    "atomic_folder",
    "atomic_path",
    "binarise",
    "decode_image",
    "encode_png",
    "inside",
    "list_images",
    "natural_key",
    "pixel_hash",
    "read_bytes",
    "read_header",
    "read_image",
    "read_json",
    "read_mask",
    "read_mask_values",
    "refuse_existing",
    "write_atomic",
    "write_json",
    "write_png",
]

IMAGE_SUFFIXES = (".png", ".bmp", ".jpg", ".jpeg", ".tif", ".tiff", ".pgm")

_DIGITS = re.compile(r"[0-9]+")

_UMASK = os.umask(0)  # can only be read by setting it: once, before there are threads
os.umask(_UMASK)


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
        temporary.chmod(0o666 & ~_UMASK)  # mkstemp makes private files
        temporary.replace(path)
    except OSError as error:
        raise IrstkitError(f"cannot write: {error.strerror or error}", path=path) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def refuse_existing(out: str | Path, *, overwrite: bool, folder: bool) -> None:
    """Refuse an output of the wrong kind, or a non-empty one unless ``overwrite``."""
    out = Path(out)
    if not out.exists():
        return
    if folder != out.is_dir():
        kind = "folder, a file" if out.is_dir() else "file, a folder"
        raise IrstkitError(f"the output is a {kind} was expected", path=out)
    full = any(out.iterdir()) if folder else out.stat().st_size > 0
    if full and not overwrite:
        raise IrstkitError("the output exists already", path=out, hint="--overwrite replaces it")


@contextmanager
def atomic_folder(out: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside ``out``; on success its files come to lie in ``out``, on error it goes.

    With ``overwrite``, files of the same names are replaced; a folder with other files is refused, since
    old and new labels side by side cannot be told apart.
    """
    out = Path(out)
    refuse_existing(out, overwrite=overwrite, folder=True)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise IrstkitError(f"cannot write here: {error.strerror or error}", path=out) from error
    try:
        yield temporary
        old = {f.relative_to(out) for f in out.rglob("*") if not f.is_dir()} if out.exists() else set()
        new = [f.relative_to(temporary) for f in sorted(temporary.rglob("*")) if not f.is_dir()]
        if strange := sorted(old.difference(new)):
            raise IrstkitError(
                f"the folder holds {len(strange)} files that are not of this run, for example {strange[0]}",
                path=out,
                hint="choose another folder or empty this one",
            )
        if old:
            for name in new:
                (out / name).parent.mkdir(parents=True, exist_ok=True)
                (temporary / name).replace(out / name)
        else:
            temporary.chmod(0o777 & ~_UMASK)
            if out.exists():
                out.rmdir()
            temporary.replace(out)
    except OSError as error:
        raise IrstkitError(f"cannot write: {error.strerror or error}", path=out) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def occupied(folder: str | Path) -> Iterator[None]:
    """Hold an existing folder for this process while it is written.

    The lock is the system's and ends with the process, however that ends. File systems without locks go without.

    Raises
    ------
    IrstkitError
        When another process holds it.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise IrstkitError(
                "another process is writing here", path=folder, hint="wait for it, or choose another --out"
            ) from None
        except OSError:  # no locks on this file system
            pass
        yield
    finally:
        os.close(handle)


def write_atomic(path: str | Path, data: bytes | str) -> None:
    """Write bytes, or text as UTF-8 with ``\\n`` line ends, so that readers see all of it or none."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)


def write_json(path: str | Path, value: Any, *, indent: int | None = None) -> None:
    """Write JSON atomically; not-a-number and infinity are refused, as JSON has neither."""
    try:
        data = (json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise IrstkitError(f"cannot be written as JSON: {error}", path=path) from error
    write_atomic(path, data)


def write_png(path: str | Path, image: NDArray, *, compression: int = 3) -> None:
    """Write a (H, W) uint8 or uint16 array as a gray PNG (or (H, W, 3) RGB uint8), atomically."""
    write_atomic(path, encode_png(image, compression=compression))


def encode_png(image: NDArray, *, compression: int = 3) -> bytes:
    """PNG bytes of a (H, W) uint8/uint16 gray or (H, W, 3) uint8 RGB array."""
    if image.dtype not in (np.uint8, np.uint16) or image.ndim not in (2, 3):
        raise TypeError(
            f"expected a (H, W) or (H, W, 3) uint8 or uint16 array, got {image.dtype} {image.shape}"
        )
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
        raise IrstkitError(
            f"not valid JSON: {error.msg}", path=path, where=f"line {error.lineno}, column {error.colno}"
        ) from error
    except RecursionError as error:
        raise IrstkitError("not valid JSON: nested too deeply", path=path) from error
    except ValueError as error:  # Python refuses whole numbers of thousands of digits
        raise IrstkitError("not valid JSON: a number of thousands of digits", path=path) from error


def read_bytes(path: str | Path) -> bytes:
    """All bytes of a file, or of a member of a tar file (``SHARD.tar/NAME``), or one clear error."""
    try:
        return Path(path).read_bytes()
    except NotADirectoryError as error:
        data = read_member(Path(path))
        if data is None:
            raise IrstkitError("no such file", path=path) from error
        return data
    except FileNotFoundError as error:
        raise IrstkitError("no such file", path=path) from error
    except IsADirectoryError as error:
        raise IrstkitError("is a folder, a file was expected", path=path) from error
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        raise IrstkitError(
            f"cannot be read: {getattr(error, 'strerror', None) or error}", path=path
        ) from error


def decode_image(path: str | Path) -> Decoded:
    """Decode an image file to gray, refusing what is truncated, damaged or not an image.

    Raises
    ------
    IrstkitError
        Naming the file: missing, empty, truncated, a bad checksum, not an image, neither 8 nor 16 bit.
    """
    return decode_bytes(read_bytes(path), path)


def read_image(path: str | Path) -> GrayImage:
    """The image as a (H, W) gray array in its native depth, uint8 or uint16 (see :func:`decode_image`)."""
    return decode_image(path).gray


def read_mask_values(path: str | Path) -> NDArray[np.uint8]:
    """The stored values of a mask file as (H, W) uint8, before any threshold.

    Three-channel masks must have equal channels. 16-bit masks are scaled to 8 bit.
    """
    decoded = decode_image(path)
    if not decoded.gray_equal:
        raise IrstkitError(
            "a mask in colour: its channels differ", path=path, hint="expected one channel, 0 or 255"
        )
    values: NDArray = decoded.gray
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
        f
        for f in folder.iterdir()
        if f.suffix.lower() in IMAGE_SUFFIXES and not f.name.startswith(".") and f.is_file()
    ]
    if not files:
        raise IrstkitError(
            "no image in this folder", path=folder, hint="looked for " + " ".join(IMAGE_SUFFIXES)
        )
    return sorted(files, key=lambda f: natural_key(f.name))


def natural_key(text: str) -> tuple[str, str]:
    """Sort key under which ``10.bmp`` comes after ``2.bmp`` (numbers before words, the shorter number first)."""
    return _DIGITS.sub(_numeric, text), text


def _numeric(match: re.Match[str]) -> str:
    digits = match.group().lstrip("0")
    return f"\x01{chr(min(len(digits), 0xD7FF))}{digits}"  # numbers of one length compare as text


def inside(root: str | Path, relative: str) -> Path:
    """``root / relative``, refusing absolute paths and any that leave ``root`` (after links are followed)."""
    root = Path(root)
    try:
        path = root / relative
        if not Path(relative).is_absolute() and path.resolve().is_relative_to(root.resolve()):
            return path
    except (OSError, ValueError, RuntimeError) as error:  # a name too long, a null character, a loop of links
        raise IrstkitError(f"the path {relative!r} cannot be followed", path=root) from error
    raise IrstkitError(f"the path {relative!r} leaves the data set's folder", path=root)


class Below:
    """Many paths below one root, each as :func:`inside` gives it; folders are followed once, not once a file.

    What is remembered of folders is for one reading of a data set, not for a process.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._folders: dict[str, Path] = {}

    def __call__(self, relative: str) -> Path:
        """``root / relative``; the same refusals as :func:`inside`."""
        folder, slash, name = relative.rpartition("/")
        if (slash and not folder) or name in ("", ".") or ".." in relative or "\0" in name:
            return inside(self.root, relative)
        known = self._folders.get(folder)
        if known is None:
            try:
                known = self._folders[folder] = inside(self.root, folder or ".")
            except IrstkitError:
                return inside(self.root, relative)  # which names the whole path
        path = known / name
        # in a folder inside the root only a link can lead out of it
        return inside(self.root, relative) if os.path.islink(path) else path  # noqa: PTH114


def pixel_hash(image: NDArray) -> str:
    """sha256 of decoded pixels: shape, little-endian dtype and C-order values (not of the file's bytes)."""
    import hashlib

    array = np.ascontiguousarray(image)
    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    digest = hashlib.sha256(f"{array.shape}{array.dtype.str}".encode())
    digest.update(array.tobytes())
    return digest.hexdigest()
