"""Our mongod: shared by processes, stopped by the last, gone with a killed test run; never the user's."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from irstkit.annotate.errors import IrstkitError
from irstkit.datasets import service
from irstkit.datasets.database import find_database


@pytest.fixture
def mongod(monkeypatch):
    monkeypatch.delenv("FIFTYONE_DATABASE_URI", raising=False)
    found = find_database()
    if found is None or found.kind == "uri":
        pytest.skip("needs a mongod (irstkit doctor --install-database)")
    return Path(found.where)


def child(code: str, **kwargs) -> subprocess.Popen:
    head = "import sys; from pathlib import Path; from irstkit.datasets import service; "
    return subprocess.Popen(
        [sys.executable, "-c", head + code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **kwargs,
    )


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def gone(pid: int) -> bool:
    """True as soon as ``pid`` has ended (the pytest time limit ends the wait)."""
    while alive(pid):
        os.sched_yield()
    return True


def test_processes_share_one_database_and_the_last_one_stops_it(tmp_path, mongod):
    code = (
        f"print(service.attach(Path({str(tmp_path)!r}), Path({str(mongod)!r})), flush=True); sys.stdin.read()"
    )
    first, second = child(code), child(code)
    uris = {first.stdout.readline(), second.stdout.readline()}
    assert len(uris) == 1, "two processes got two databases"
    pid = json.loads((tmp_path / "mongod.json").read_text())["pid"]
    first.communicate("")
    assert alive(pid), "the first to leave stopped the database of the second"
    second.communicate("")
    assert not alive(pid)
    assert not (tmp_path / "mongod.json").exists()


def test_a_killed_user_leaves_a_database_that_the_next_one_takes_over(tmp_path, mongod):
    code = (
        f"print(service.attach(Path({str(tmp_path)!r}), Path({str(mongod)!r})), flush=True); sys.stdin.read()"
    )
    first = child(code)
    uri = first.stdout.readline()
    pid = json.loads((tmp_path / "mongod.json").read_text())["pid"]
    first.kill()
    first.communicate()
    assert alive(pid)
    second = child(code)
    assert second.stdout.readline() == uri
    second.communicate("")
    assert not alive(pid)


def test_a_killed_database_is_started_again(tmp_path, mongod):
    code = (
        f"print(service.attach(Path({str(tmp_path)!r}), Path({str(mongod)!r})), flush=True); sys.stdin.read()"
    )
    first = child(code)
    first.stdout.readline()
    pid = json.loads((tmp_path / "mongod.json").read_text())["pid"]
    os.kill(pid, signal.SIGKILL)
    assert gone(pid)
    second = child(code)
    assert second.stdout.readline().startswith("mongodb://127.0.0.1:")
    assert json.loads((tmp_path / "mongod.json").read_text())["pid"] != pid
    second.communicate("")
    first.communicate("")


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's parent death signal")
def test_an_isolated_database_dies_with_a_killed_process(tmp_path, mongod):
    env = {k: v for k, v in os.environ.items() if not k.startswith("FIFTYONE_")}
    env["XDG_CACHE_HOME"] = str(mongod.parents[5]) if "irstkit" in mongod.parts else ""
    code = f"print(service.isolate({str(tmp_path)!r}), flush=True); sys.stdin.read()"
    process = child(code, env=env)
    assert process.stdout.readline().startswith("mongodb://127.0.0.1:")
    (pid,) = (
        int(p.name)
        for p in Path("/proc").iterdir()
        if p.name.isdigit() and str(tmp_path / "database").encode() in _cmdline(p)
    )
    process.kill()
    process.communicate()
    assert gone(pid)


def _cmdline(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def test_a_database_that_cannot_start_names_its_log(tmp_path):
    with pytest.raises(IrstkitError, match=r"does not start.*no log"):
        service.start(tmp_path / "data", Path("/bin/false"))


def test_no_database_is_an_error_with_the_choices(monkeypatch):
    monkeypatch.setattr(service, "find_database", lambda: None)
    with pytest.raises(IrstkitError, match=r"--install-database.*PATH.*FIFTYONE_DATABASE_URI"):
        service.prepare()


def test_a_stale_record_of_another_process_is_not_believed(tmp_path):
    (tmp_path / "mongod.json").write_text(json.dumps({"pid": os.getpid(), "port": 1}))
    assert service._running(tmp_path) is None


def test_the_tests_database_is_their_own(fo):
    assert fo.config.database_uri.startswith("mongodb://127.0.0.1:")
    assert fo.list_datasets() == []
    assert fo.config.do_not_track


def test_fiftyone_loads_after_importlib_metadata(tmp_path):
    """Dask imports importlib_metadata, whose releases from 8 on make FiftyOne's eta fail with KeyError: 'author'."""
    for name in ("importlib_metadata", "eta"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"needs the package {name} (pip install 'irstkit[fiftyone,distributed]')")
    done = subprocess.run(
        [sys.executable, "-c", "import importlib_metadata, eta.constants"],
        capture_output=True, text=True, check=False, env={**os.environ, "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
