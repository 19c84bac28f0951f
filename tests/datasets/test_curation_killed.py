"""A database that is lost in the middle: one clear error, nothing half-written, and the next run completes.

Two ways. In this process the connection is cut before the n-th command for many n, so that every place is met. In
processes of their own mongod itself is killed (SIGKILL) at commands drawn at random, and started again on what it
left on disk.
"""

from __future__ import annotations

import gc
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from irstkit.datasets.curation import push as push_module

IMAGES = 5


class Cut:
    """Counts the commands sent to the database, and cuts the connection before the ``after``-th."""

    def __init__(self, monkeypatch) -> None:
        from pymongo.errors import ServerSelectionTimeoutError
        from pymongo.synchronous.mongo_client import MongoClient

        self.count, self.after, self.cut = 0, None, 0
        real = MongoClient._select_server

        def select(client, *args, **kwargs):
            if self.after is not None and self.count >= self.after:
                self.cut += 1
                raise ServerSelectionTimeoutError("127.0.0.1:0: connection refused")
            self.count += 1
            return real(client, *args, **kwargs)

        monkeypatch.setattr(MongoClient, "_select_server", select)

    @contextmanager
    def at(self, after: int | None):
        """Cut before command number ``after`` inside (None: only count)."""
        self.count, self.after, self.cut = 0, after, 0
        try:
            yield self
        finally:
            self.after = None


@pytest.fixture
def cut(fo, monkeypatch):
    monkeypatch.setattr(push_module, "BATCH", 2)
    return Cut(monkeypatch)


def forget(fo) -> None:
    """What a new process would not know: the data sets that FiftyOne keeps in memory."""
    from fiftyone.core.dataset import Dataset

    Dataset._instances.clear()
    gc.collect()


def places(total: int, most: int, seed: int) -> list[int]:
    """``most`` of ``range(total)``, drawn, the first and the last among them; IRSTKIT_CUTS asks for more."""
    most = int(os.environ.get("IRSTKIT_CUTS", most))
    drawn = random.Random(seed).sample(range(1, total - 1), min(most, total) - 2)
    return sorted({0, total - 1, *drawn})


def document(path: Path) -> dict:
    return json.loads(path.read_text())


def lost(result) -> bool:
    """Whether a run ended with the one clear error (True) or whole (False); anything else fails."""
    if result.exit_code == 0:
        return False
    assert result.exit_code == 1, result.stderr
    assert "the database was lost while" in result.stderr, result.stderr
    assert "run the same command again" in result.stderr
    assert len(result.stderr.strip().splitlines()) <= 3, result.stderr
    return True


def test_a_push_cut_before_any_command_is_completed_by_the_next(fo, cut, make_own, irstkit, tmp_path):
    root, out = make_own(IMAGES, sequences=2), tmp_path / "out.json"
    curate = ("data", "curate", root, "--name", "cut", "--no-app")
    with cut.at(None) as whole:
        assert irstkit(*curate).exit_code == 0
    wanted = sorted(fo.load_dataset("cut").list_saved_views())
    fo.delete_dataset("cut")
    ends = []
    for after in places(whole.count * 2 // 3, 6, 1):  # later pushes of a process need fewer
        forget(fo)
        with cut.at(after):
            ends.append(lost(irstkit(*curate)))
            assert ends[-1] == (cut.cut > 0), (after, whole.count, cut.cut)
        forget(fo)
        if "cut" in fo.list_datasets():
            early = irstkit("data", "pull", "cut", "--out", out)
            if early.exit_code == 0:  # the cut came after the push was whole
                assert document(out) == document(root / "annotations.json"), after
                out.unlink()
            else:
                assert "did not finish" in early.stderr or "not pushed by irstkit" in early.stderr, after
                assert not out.exists()
        forget(fo)
        assert irstkit(*curate).exit_code == 0, after
        assert irstkit("data", "pull", "cut", "--out", out).exit_code == 0, after
        assert document(out) == document(root / "annotations.json"), after
        dataset = fo.load_dataset("cut")
        assert len(set(dataset.values("record_id"))) == dataset.count() == IMAGES, after
        assert sorted(dataset.list_saved_views()) == wanted, after
        out.unlink()
        fo.delete_dataset("cut")
    assert sum(ends) > len(ends) / 2


def test_a_second_push_cut_in_the_middle_keeps_edits_and_takes_changes(
    fo, cut, make_pairs, irstkit, tmp_path
):
    root, out = make_pairs(IMAGES), tmp_path / "out.json"
    curate = ("data", "curate", root, "--name", "cut", "--no-app")
    changed, kept = root / "masks" / "000001.png", root / "masks" / "000002.png"
    first, second = changed.read_bytes(), kept.read_bytes()

    def begin() -> None:
        """Pushed; one image edited in FiftyOne; another changed on disk."""
        changed.write_bytes(first)
        assert irstkit(*curate).exit_code == 0
        sample = fo.load_dataset("cut").match({"record_id": "000003"}).first()
        sample["ground_truth"].detections = []
        sample.save()
        changed.write_bytes(second)

    begin()
    with cut.at(None) as whole:
        assert irstkit(*curate).exit_code == 0
    assert irstkit("data", "pull", "cut", "--out", out).exit_code == 0
    wanted = document(out)
    assert not any(a["image_id"] == 4 for a in wanted["annotations"])
    for after in places(whole.count, 5, 2):
        fo.delete_dataset("cut")
        forget(fo)
        begin()
        forget(fo)
        with cut.at(after):
            lost(irstkit(*curate))
        forget(fo)
        assert irstkit(*curate).exit_code == 0, after
        assert irstkit("data", "pull", "cut", "--out", out, "--overwrite").exit_code == 0, after
        assert document(out) == wanted, after
    fo.delete_dataset("cut")


def test_a_pull_cut_before_any_command_writes_nothing_or_all(fo, cut, make_own, irstkit, tmp_path):
    """With --apply: either the files are as before, or the next run makes them what an uncut one gives."""
    spare, out = tmp_path / "spare", tmp_path / "out.json"
    root = make_own(IMAGES)
    shutil.copytree(root, spare)
    curate = ("data", "curate", root, "--name", "cut", "--no-app")
    pull = ("data", "pull", "cut", "--out", out, "--apply", "--overwrite")

    def begin() -> None:
        shutil.rmtree(root)
        shutil.copytree(spare, root)
        if "cut" in fo.list_datasets():
            fo.delete_dataset("cut")
        forget(fo)
        assert irstkit(*curate).exit_code == 0
        sample = fo.load_dataset("cut").match({"record_id": "images/000001"}).first()
        sample["ground_truth"].detections.pop()
        sample.save()
        forget(fo)

    begin()
    with cut.at(None) as whole:
        assert irstkit(*pull).exit_code == 0
    wanted = document(root / "annotations.json")
    assert document(out) == wanted != document(spare / "annotations.json")
    for after in places(whole.count, 6, 3):
        out.unlink()
        begin()
        with cut.at(after):
            failed = lost(irstkit(*pull))
        forget(fo)
        assert document(root / "annotations.json") in (wanted, document(spare / "annotations.json")), after
        if out.exists():
            assert document(out) == wanted, after
        else:
            assert failed
        assert irstkit(*pull).exit_code == 0, after
        assert document(out) == wanted, after
        assert document(root / "annotations.json") == wanted, after
        forget(fo)
        again = irstkit(*curate)
        assert (again.exit_code, "nothing new" in again.stdout or "unchanged" in again.stdout) == (0, True), (
            after
        )
        leftovers = [
            f for f in root.rglob(".*") if f.name != ".irstkit-before" and ".irstkit-before" not in f.parts
        ]
        assert leftovers == [], after
    fo.delete_dataset("cut")


# ---------------------------------------------------------------------------------- mongod itself killed

CHILD = """
import os, signal, sys
from pymongo import monitoring
from irstkit.datasets.curation import push
push.BATCH = 2
class Count(monitoring.CommandListener):
    number = 0
    def started(self, event):
        Count.number += 1
        if Count.number == int(sys.argv[2]):
            os.kill(int(sys.argv[1]), signal.SIGKILL)
    def succeeded(self, event): pass
    def failed(self, event): pass
monitoring.register(Count())
from irstkit.cli import cli
for line in sys.argv[3:]:
    before = Count.number
    try:
        cli(line.split("|"), prog_name="irstkit")
    except SystemExit as end:
        print("commands", Count.number - before, file=sys.stderr)
        if end.code:
            raise
"""


@pytest.mark.parametrize("command", ["curate", "pull"])
def test_mongod_killed_at_a_random_command(fo, tmp_path, make_own, command):
    from irstkit.datasets import service
    from irstkit.datasets.database import Database, find_database

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("FIFTYONE_DATABASE_URI")
        database: Database = find_database()
    root, out = make_own(IMAGES), tmp_path / "out.json"
    seed = int(os.environ.get("IRSTKIT_KILL_SEED", random.SystemRandom().randrange(10**6)))
    print(f"IRSTKIT_KILL_SEED={seed}")  # shown when it fails

    def run(victim: int, after: int, *lines: tuple[str, ...]):
        env = {**os.environ, "FIFTYONE_DATABASE_URI": uri.replace("=5000", "=300")}
        done = subprocess.run(
            [sys.executable, "-c", CHILD, str(victim), str(after), *map("|".join, lines)],
            env=env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return done, int(done.stderr.rpartition("commands ")[2])  # of the last line

    curate = ("data", "curate", str(root), "--no-app")
    pull = ("data", "pull", "own", "--out", str(out), "--overwrite")
    process, uri = service.start(tmp_path / "db", Path(database.where), tied=True)
    try:
        counted = run(0, 0, *([curate] if command == "curate" else [curate, pull]))[1]
        if command == "pull":
            out.unlink()
        else:
            process.kill()
            process.wait()
            shutil.rmtree(tmp_path / "db")
            process, uri = service.start(tmp_path / "db", Path(database.where), tied=True)
        after = random.Random(seed).randrange(1, counted + 1)
        done, _ = run(process.pid, after, curate if command == "curate" else pull)
        process.wait()
        assert process.returncode == -signal.SIGKILL, "the database was not killed: the test is about nothing"
        if done.returncode == 0:  # everything was read from it before it died
            assert command == "pull"
            assert document(out) == document(root / "annotations.json")
        else:
            assert done.returncode == 1
            assert "the database was lost while" in done.stderr, done.stderr
            assert not out.exists()
        process, uri = service.start(tmp_path / "db", Path(database.where), tied=True)
        assert run(0, 0, curate, pull)[0].returncode == 0
        assert document(out) == document(root / "annotations.json")
    finally:
        process.kill()
        process.wait()
