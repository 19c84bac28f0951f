"""Plain tar files as irstkit writes them: the same members give the same bytes; members are read where they lie.

Members are regular files in POSIX ustar headers with time, owner and group 0, so that nothing but names and contents
decides the bytes. A member is named like a file, ``shards/train-000000.tar/000012.png``, and is read by its place: no
shard is unpacked.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterable, Iterator
from functools import lru_cache
from io import BytesIO
from pathlib import Path, PurePosixPath

from .errors import IrstkitError

BLOCK = 512
LISTINGS = 16  # tables of members that are kept at once, about 0.5 MiB each for 1000 samples


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> int:
    """Write ``members`` (name, content) to ``path``; returns the size of the file in bytes.

    Raises
    ------
    IrstkitError
        For a name that ustar has no room for.
    """
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)  # mode 0644, time, owner and group 0
            info.size = len(data)
            try:
                tar.addfile(info, BytesIO(data))
            except ValueError as error:
                raise IrstkitError(
                    f"the name {name!r} is too long for a tar member", hint="shorter file names"
                ) from error
    return path.stat().st_size


def list_tar(path: Path) -> dict[str, tuple[int, int]]:
    """``{name: (first byte, length)}`` of a tar file's members, in their order.

    Raises
    ------
    IrstkitError
        For a file that is no tar, is truncated or damaged, holds anything but files, names one twice, or has a
        name that would leave the folder it is unpacked in.
    """
    out: dict[str, tuple[int, int]] = {}
    try:
        with path.open("rb") as stream:
            end = os.fstat(stream.fileno()).st_size
            for name, start, length in _members(stream, end, path):
                parts = PurePosixPath(name).parts
                if not parts or parts[0] == "/" or ".." in parts or "\0" in name or "\\" in name:
                    raise IrstkitError(f"the member {name!r} leaves the folder", path=path)
                if name in out:
                    raise IrstkitError(f"the member {name!r} is there twice", path=path)
                out[name] = start, length
    except FileNotFoundError as error:
        raise IrstkitError("no such file", path=path) from error
    except OSError as error:
        raise IrstkitError(f"cannot be read: {error.strerror or error}", path=path) from error
    return out


def _members(stream, end: int, path: Path) -> Iterator[tuple[str, int, int]]:
    """Name, first byte and length of each member: Python's tarfile ends quietly where a header is damaged."""
    place = 0
    while True:
        stream.seek(place)
        header = stream.read(BLOCK)
        if len(header) < BLOCK:
            raise IrstkitError("truncated tar file: it has no end mark", path=path, where=f"byte {place}")
        if not any(header):
            return
        try:
            info = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError) as error:
            raise IrstkitError(
                f"not a tar file, or damaged: {error}", path=path, where=f"byte {place}"
            ) from error
        if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or info.size < 0:
            raise IrstkitError(f"the member {info.name!r} is no plain file", path=path, where=f"byte {place}")
        start = place + BLOCK
        place = start + -(-info.size // BLOCK) * BLOCK
        if place > end:
            raise IrstkitError(f"truncated tar file: {info.name!r} is not whole", path=path)
        yield info.name, start, info.size


@lru_cache(maxsize=LISTINGS)
def _listing(path: Path, changed: int, size: int) -> dict[str, tuple[int, int]]:
    return list_tar(path)


def read_member(path: Path) -> bytes | None:
    """The content of ``SHARD.tar/NAME``; None where no part of ``path`` is a tar file.

    Raises
    ------
    IrstkitError
        When the tar file is damaged or has no such member.
    """
    for tar in path.parents:
        if tar.suffix == ".tar" and tar.is_file():
            break
    else:
        return None
    known = tar.stat()
    found = _listing(tar, known.st_mtime_ns, known.st_size).get(path.relative_to(tar).as_posix())
    if found is None:
        raise IrstkitError("no such member of the tar file", path=path)
    with tar.open("rb") as stream:
        stream.seek(found[0])
        return stream.read(found[1])
