"""FiftyOne's database, started when it is needed and stopped when nobody uses it any more.

``prepare`` makes the choice of :func:`..datasets.database.find_database` work before ``fiftyone`` is imported. A
mongod of ours keeps its data in the user's data folder, listens on 127.0.0.1 only and on a free port, and is shared
by every process of the user: each holds a shared lock on ``clients.lock``; the last one to leave stops it. Locks
go with their process, so a killed one leaves nothing that must be repaired.

``isolate`` is for tests and batch runs: a database, a home and a plugins folder of their own. (FiftyOne's
``FIFTYONE_DATABASE_DIR`` does not isolate: a process attaches to whichever FiftyOne database runs already.)
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from ..annotate.errors import IrstkitError, require
from .database import Database, advice, find_database

START_SECONDS = 30.0
LOST_MILLISECONDS = 5000
_PR_SET_PDEATHSIG = 1
_held: dict[Path, IO[str]] = {}


def data_folder() -> Path:
    """Where our mongod keeps its data: ``$XDG_DATA_HOME/irstkit/fiftyone`` or ``~/.local/share/...``."""
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "irstkit" / "fiftyone"


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def prepare() -> Database:
    """Choose and, where it is ours, start the database; set FiftyOne's environment. Call before importing it.

    Raises
    ------
    IrstkitError
        When there is no database (with the choices there are) or ours does not start.
    """
    database = find_database()
    if database is None:
        raise IrstkitError("FiftyOne has no database here", hint="; or ".join(advice()))
    quieten()
    if database.kind in ("path", "private"):
        use_uri(attach(data_folder(), Path(database.where)))
    return database


def quieten() -> None:
    """No telemetry, no notices, this machine only. What the user has set stays."""
    os.environ["FIFTYONE_DO_NOT_TRACK"] = "true"
    os.environ.setdefault("FIFTYONE_DATABASE_VALIDATION", "false")
    os.environ.setdefault("FIFTYONE_DEFAULT_APP_ADDRESS", "127.0.0.1")


def use_uri(uri: str) -> None:
    """Point FiftyOne at ``uri``, in this process and those it starts."""
    os.environ["FIFTYONE_DATABASE_URI"] = uri
    loaded = sys.modules.get("fiftyone")
    if loaded is not None:
        loaded.config.database_uri = uri


def load() -> Any:
    """The ``fiftyone`` module with its database ready, or one clear error."""
    loaded = sys.modules.get("fiftyone")
    if loaded is None:
        prepare()
        loaded = require("fiftyone", "fiftyone")
        loaded.config.show_progress_bars = False
    return loaded


def isolate(folder: str | Path) -> str:
    """A database, home, plugins and data set folder of its own below ``folder``; returns the URI.

    For tests and batch runs: call before ``fiftyone`` is imported. The database dies with this process, also
    when that is killed.

    Raises
    ------
    IrstkitError
        When FiftyOne is imported already, or there is no mongod that can be started.
    """
    if "fiftyone" in sys.modules:
        raise IrstkitError("FiftyOne is imported already: its database cannot be changed any more")
    for name in [name for name in os.environ if name.startswith("FIFTYONE_")]:
        del os.environ[name]
    database = find_database()
    if database is None:
        raise IrstkitError("FiftyOne has no database here", hint="; or ".join(advice()))
    folder = Path(folder).absolute()
    home, plugins = folder / "home", folder / "plugins"
    for made in (home, plugins):
        made.mkdir(parents=True, exist_ok=True)
    quieten()
    os.environ["HOME"] = str(home)
    os.environ["FIFTYONE_DEFAULT_DATASET_DIR"] = str(folder / "datasets")
    os.environ["FIFTYONE_PLUGINS_DIR"] = str(plugins)
    os.environ["FIFTYONE_SHOW_PROGRESS_BARS"] = "false"
    process, uri = start(folder / "database", Path(database.where), tied=True)
    atexit.register(_stop, process.pid)
    use_uri(uri)
    return uri


# ------------------------------------------------------------------------------------------- our mongod


def attach(folder: Path, mongod: Path) -> str:
    """The URI of the mongod that serves ``folder``, started if none does; detached when this process ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "start.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if folder not in _held:
                client = (folder / "clients.lock").open("a")
                fcntl.flock(client, fcntl.LOCK_SH)
                _held[folder] = client
                # registered before fiftyone is imported, and so run after its own exit hook, which would
                # wait half a minute for a database that is gone
                atexit.register(detach, folder)
            running = _running(folder)
            if running is not None:
                return running
            _, uri = start(folder / "data", mongod, record=folder / "mongod.json")
            return uri
    except OSError as error:
        raise IrstkitError(f"cannot keep a database here: {error.strerror or error}", path=folder) from error


def detach(folder: Path) -> None:
    """Give up the use of ``folder``'s mongod; the last user stops it."""
    client = _held.pop(folder, None)
    if client is None:
        return
    with client, contextlib.suppress(OSError), (folder / "start.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fcntl.flock(client, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: somebody else uses it
        known = _read(folder / "mongod.json")
        if known is not None and _is_mongod(known["pid"]):
            _stop(known["pid"])
        (folder / "mongod.json").unlink(missing_ok=True)


def start(
    dbpath: Path, mongod: Path, *, tied: bool = False, record: Path | None = None
) -> tuple[subprocess.Popen, str]:
    """Start a mongod on a free port of 127.0.0.1 and wait until it answers.

    ``tied``: it is killed with the thread that calls this (Linux). ``record``: a file for its pid and port.

    Raises
    ------
    IrstkitError
        With the last line of its log, when it does not come up.
    """
    dbpath.mkdir(parents=True, exist_ok=True)
    log = dbpath.with_name(f"{dbpath.name}.log")
    for _ in range(3):  # between the choice of a port and its use somebody else may take it
        port = free_port()
        command = [
            str(mongod), "--dbpath", str(dbpath), "--bind_ip", "127.0.0.1", "--port", str(port), "--nounixsocket",
            "--logpath", str(log), "--wiredTigerCacheSizeGB", "0.5",
            "--wiredTigerEngineConfigString", "log=(prealloc=false,file_max=20MB)",
            "--setParameter", "diagnosticDataCollectionEnabled=false",
        ]  # fmt: skip
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=not tied,  # ctrl-c in the terminal is not for it
                preexec_fn=_die_with_parent if tied else None,
            )
        except OSError as error:
            raise IrstkitError(f"mongod does not start: {error.strerror or error}", path=mongod) from error
        if record is not None:
            record.write_text(json.dumps({"pid": process.pid, "port": port}))
        if _wait(lambda port=port: _answers(port), process):  # type: ignore[misc]
            return process, _uri(port)
        if process.poll() is None:
            process.kill()
        process.wait()
        if record is not None:
            record.unlink(missing_ok=True)
    raise IrstkitError(f"the database does not start: {_last_error(log)}", path=log)


def _wait(ready: Callable[[], bool], process: subprocess.Popen) -> bool:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        if ready():
            return True
        time.sleep(0.02)
    return False


def _uri(port: int) -> str:
    """A lost database on this machine is noticed in seconds, not in MongoDB's usual half minute."""
    return f"mongodb://127.0.0.1:{port}/?serverSelectionTimeoutMS={LOST_MILLISECONDS}"


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _running(folder: Path) -> str | None:
    known = _read(folder / "mongod.json")
    if known is None or not _is_mongod(known["pid"]):
        return None
    end = time.monotonic() + START_SECONDS  # it may be recovering from a crash
    while time.monotonic() < end and _is_mongod(known["pid"]):
        if _answers(known["port"]):
            return _uri(known["port"])
        time.sleep(0.05)
    return None


def _read(path: Path) -> dict[str, int] | None:
    try:
        known = json.loads(path.read_text())
        return {"pid": int(known["pid"]), "port": int(known["port"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_mongod(pid: int) -> bool:
    """Whether ``pid`` is a live mongod (numbers are used again after a restart of the machine)."""
    try:
        os.kill(pid, 0)
        line = Path(f"/proc/{pid}/cmdline")
        return not line.parent.parent.exists() or b"mongod" in line.read_bytes().split(b"\0")[0]
    except (OSError, ProcessLookupError):
        return False


def _stop(pid: int) -> None:
    """Ask ``pid`` to end and wait for it, at most ten seconds."""
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + 10
        while time.monotonic() < end:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            os.kill(pid, 0)
            time.sleep(0.02)


def _die_with_parent() -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _last_error(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return "no log"
    for line in reversed(lines):
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if entry.get("s") in ("E", "F"):
                return f"{entry.get('msg')} {json.dumps(entry.get('attr', {}))[:300]}"
    return lines[-1][:300] if lines else "an empty log"
