"""A Dask cluster gives the bytes that one process gives: files shared or not, whole parts or pieces, workers killed."""

import hashlib
import logging
import os
import signal
import sys

import pytest

from irstkit.annotate.errors import IrstkitError
from irstkit.synth import cluster as module
from irstkit.synth import generate as generating
from irstkit.synth import writer
from irstkit.synth.cluster import Cluster, connect
from irstkit.synth.generate import generate
from irstkit.synth.sequences.generate import generate as sequences

distributed = pytest.importorskip("distributed")
ARGUMENTS = {"preset": "nudt", "size": 64, "splits": {"train": 0.7, "val": 0.3}}


def contents(root):
    return {
        p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in root.rglob("*")
        if p.is_file()
    }


@pytest.fixture(scope="module")
def running():
    """A cluster of two workers, as `dask scheduler` and `dask worker` would make one."""
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0",
        worker_dashboard_address="127.0.0.1:0", silence_logs=50, memory_limit=0,
    )  # fmt: skip
    with cluster:
        yield cluster.scheduler_address


@pytest.fixture
def small_parts(monkeypatch):
    for place in (writer, generating):
        monkeypatch.setattr(place, "PART", 6)
    monkeypatch.setattr(generating, "CHUNK", 3)


@pytest.fixture
def backgrounds(make_pairs):
    return make_pairs(count=5, size=(70, 80))


def kill_after(monkeypatch, after):
    """SIGKILL one worker process once ``after`` results have come."""
    honest, killed = Cluster.results, []

    def results(self, job, spans, token):
        for k, result in enumerate(honest(self, job, spans, token)):
            if k == after:
                pid = min(self.client.run(os.getpid).values())
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
            yield result

    monkeypatch.setattr(Cluster, "results", results)
    return killed


@pytest.mark.parametrize(
    ("count", "shared", "said"),
    [
        (24, True, "tasks of 6 images"),  # four parts or more for two workers: a task is a part
        (9, True, "tasks of 3 images"),
        (9, False, "backgrounds were sent to them, the images come back"),
    ],
)
def test_same_bytes_as_one_process(
    running, small_parts, backgrounds, tmp_path, monkeypatch, capfd, count, shared, said
):
    generate(tmp_path / "one", count, 3, backgrounds, workers=1, **ARGUMENTS)
    if not shared:
        honest = Cluster.shares
        monkeypatch.setattr(Cluster, "shares", lambda *a: honest(*a) and False)
    monkeypatch.chdir(tmp_path)  # the workers run in another folder
    generate("many", count, 3, backgrounds, dask=running, **ARGUMENTS)
    assert contents(tmp_path / "many") == contents(tmp_path / "one")
    assert said in capfd.readouterr().err


def test_sequences_too(running, backgrounds, tmp_path, monkeypatch):
    options = {"preset": "daub", "size": (96, 80)}
    sequences(tmp_path / "one", 3, 4, 1, backgrounds, workers=1, **options)
    monkeypatch.chdir(tmp_path)
    sequences("many", 3, 4, 1, backgrounds, dask=running, **options)
    assert contents(tmp_path / "many") == contents(tmp_path / "one")
    honest = Cluster.shares
    monkeypatch.setattr(Cluster, "shares", lambda *a: honest(*a) and False)
    with pytest.raises(IrstkitError, match="do not see this folder"):
        sequences("apart", 3, 4, 1, backgrounds, dask=running, **options)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_worker_changes_nothing(small_parts, backgrounds, tmp_path, monkeypatch, capfd, workers):
    generate(tmp_path / "one", 30, 3, backgrounds, workers=1, **ARGUMENTS)
    killed = kill_after(monkeypatch, 1)
    monkeypatch.setattr(module, "AHEAD", 1)  # so that there is work left to lose
    generate(tmp_path / "many", 30, 3, backgrounds, dask=f"local:{workers}", **ARGUMENTS)
    assert len(killed) == 1
    assert contents(tmp_path / "many") == contents(tmp_path / "one")
    assert "1 of the cluster's workers were lost" in capfd.readouterr().err


def test_an_interrupted_run_goes_on_elsewhere(running, small_parts, tmp_path, monkeypatch):
    generate(tmp_path / "one", 24, 3, workers=1, **ARGUMENTS)
    honest = generating.write_part
    monkeypatch.setattr(
        generating,
        "write_part",
        lambda root, part, rows: (
            (_ for _ in ()).throw(KeyboardInterrupt) if part == 2 else honest(root, part, rows)
        ),
    )
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "many", 24, 3, workers=1, **ARGUMENTS)
    monkeypatch.undo()
    for place in (writer, generating):
        monkeypatch.setattr(place, "PART", 6)
    assert (tmp_path / "many/parts/00001.json").exists() and not (tmp_path / "many/manifest.jsonl").exists()
    generate(tmp_path / "many", 24, 3, dask=running, **ARGUMENTS)
    assert contents(tmp_path / "many") == contents(tmp_path / "one")


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("local:0", "no Dask address: 'local:0'"),
        ("local", "no Dask address"),
        ("127.0.0.1:9", "no Dask scheduler answers at '127.0.0.1:9'"),
        ("localhost:9", "no Dask scheduler answers at 'localhost:9'"),  # a host, not a misspelt local:N
        ("no-such-host.invalid:8786", "the host 'no-such-host.invalid' is not known"),
        ("nothing such", "no Dask scheduler answers at 'nothing such'"),
    ],
)
def test_addresses_that_do_not_answer(irstkit, tmp_path, monkeypatch, address, told):
    monkeypatch.setattr(module, "WAIT", 0.3)
    result = irstkit("synth", "images", "--out", tmp_path / "set", "--count", 2, "--dask", address)
    assert result.exit_code == 1 and told in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "set").exists()


def test_a_cluster_without_workers(running, monkeypatch):
    def none(self, n_workers, timeout):
        raise TimeoutError("Only 0/1 workers arrived")

    monkeypatch.setattr(distributed.Client, "wait_for_workers", none)
    with pytest.raises(IrstkitError, match="has no workers"), connect(running):
        pass


def test_a_lost_scheduler_is_one_line_and_no_traceback_of_dasks(running, tmp_path, monkeypatch, capfd):
    def lost(self, waiting):
        logging.getLogger("distributed.client").error("Traceback (most recent call last)")
        raise distributed.CancelledError(
            "irstkit-0 cancelled for reason: lost.\nPlease check your connection."
        )

    monkeypatch.setattr(Cluster, "_result", lost)
    with pytest.raises(IrstkitError, match="was lost") as told:
        generate(tmp_path / "set", 4, 1, dask=running, **ARGUMENTS)
    assert "\n" not in str(told.value) and "reason" not in str(told.value)
    assert "Traceback" not in capfd.readouterr().err
    assert logging.getLogger("distributed.client").level < logging.CRITICAL  # as it was


def test_the_extra_is_named_where_it_is_missing(irstkit, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    result = irstkit("synth", "images", "--out", tmp_path / "set", "--dask", "local:2")
    assert result.exit_code == 1 and "irstkit[distributed]" in result.stderr
    result = irstkit("synth", "images", "--out", tmp_path / "set", "--dask", "local:2", "--workers", 2)
    assert result.exit_code == 2 and "exclude each other" in result.stderr


def test_a_worker_that_would_give_other_bytes_says_so(tmp_path):
    (tmp_path / "seen").write_text("")
    for key, token, wanted, told in (
        ("a", None, {**module.versions(), "numpy": "1.0"}, "numpy .*, not 1.0"),
        ("b", str(tmp_path / "gone"), module.versions(), "does not see the output folder"),
    ):
        module.receive(key, lambda a, b: a, token, wanted, "tcp://x:1")
        with pytest.raises(IrstkitError, match=told):
            module._do(key, 0, 1)
    module.receive("c", lambda a, b: a + b, str(tmp_path / "seen"), module.versions(), "tcp://x:1")
    assert module._do("c", 2, 3) == 5
    with pytest.raises(IrstkitError, match="has not received its job"):
        module._do("unknown", 2, 3)
    module._jobs.clear()
