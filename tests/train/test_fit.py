"""The loop: what it writes, that it learns, that it resumes to the bit, and what it refuses."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from irstkit.annotate.errors import IrstkitError
from irstkit.annotate.files import occupied
from irstkit.train import loop
from irstkit.train.checkpoint import load_checkpoint, load_matching, save_checkpoint, weights_hash
from irstkit.train.losses import LOSSES
from irstkit.train.material import compose
from irstkit.train.models import MODELS, build
from irstkit.train.settings import RECIPES, Settings, learning_rate, load_recipe, recipe_names, settings_from
from irstkit.train.tasks import check_output

SMALL = ("--option", "base=3", "--crop", 32, "--batch", 2, "--threads", 1, "--device", "cpu")


def small(**changes):
    values = {"options": {"base": 3}, "crop": 32, "batch": 2, "steps": 6, **changes}
    return settings_from(values)


def hash_of(path):
    return weights_hash(load_checkpoint(path)["model"]["state"])


def test_a_run_leaves_what_it_should(irstkit, split_pairs, tmp_path):
    root, out = split_pairs(8, 3), tmp_path / "run"
    result = irstkit("train", "fit", "sd2net", "--real", root, "--steps", 10, "--out", out, "--json", *SMALL)
    assert result.exit_code == 0, result.output
    assert sorted(f.name for f in out.iterdir()) == [
        "best.pt",
        "last.pt",
        "log.csv",
        "run.json",
        "tensorboard",
    ]
    run = json.loads((out / "run.json").read_text())
    assert run == json.loads(result.stdout)
    assert run["status"] == "finished" and run["step"] == 10
    assert run["data"]["real"]["split"] == "own/train" and run["data"]["validation"]["images"] == 1
    assert run["data"]["images"] == 7 and run["parameters"] > 0
    last, best = load_checkpoint(out / "last.pt"), load_checkpoint(out / "best.pt")
    assert last["weights"] == run["weights"] == weights_hash(last["model"]["state"])
    assert best["step"] == run["best"]["step"] and "training" not in best
    assert last["data"]["real"]["split_hash"] == run["data"]["real"]["split_hash"]
    with (out / "log.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [int(r["step"]) for r in rows] == [4, 8, 10], "an epoch is 4 steps, and the end is logged"
    assert all(r["loss"] and r["lr"] and r["val_iou"] for r in rows)
    assert list((out / "tensorboard").iterdir())


def test_test_images_are_never_opened(irstkit, split_pairs, tmp_path):
    root = split_pairs(6, 3)
    for name in ("000006", "000007", "000008"):
        (root / "images" / f"{name}.png").write_bytes((root / "images" / f"{name}.png").read_bytes()[:60])
    result = irstkit("train", "fit", "sd2net", "--real", root, "--steps", 2, "--out", tmp_path / "r", *SMALL)
    assert result.exit_code == 0, result.output


def test_same_seed_same_bytes_other_seed_others(split_pairs, tmp_path):
    material = compose(split_pairs(6, 2), None)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        loop.fit(small(seed=seed, steps=4), material, tmp_path / name, device="cpu")
    files = [(tmp_path / name / "best.pt").read_bytes() for name in "abc"]
    assert files[0] == files[1] and files[0] != files[2]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ema": 0.9, "accumulate": 2, "clip": 0.5, "schedule": "cosine", "warmup": 3, "optimiser": "adamw"},
        {"optimiser": "sgd", "lr": 0.01, "schedule": "poly"},
        {"optimiser": "adagrad", "precision": "bf16-mixed"},
        {"curriculum": 0.8},
    ],
    ids=["paper", "everything", "sgd", "adagrad-bf16", "curriculum"],
)
@pytest.mark.parametrize("stop", [1, 5], ids=["in the first epoch", "after an epoch"])
def test_stopped_and_resumed_is_uninterrupted(changes, stop, split_pairs, tmp_path):
    material = compose(split_pairs(7, 2), None)
    settings = small(steps=8, **changes)
    loop.fit(settings, material, tmp_path / "whole", device="cpu")
    report = loop.fit(settings, material, tmp_path / "parts", device="cpu", max_steps=stop)
    assert report["status"] == "stopped" and report["step"] == stop
    torch.rand(3)  # whatever happens between
    report = loop.fit(settings, material, tmp_path / "parts", device="cpu", resume=True)
    assert report["status"] == "finished"
    for name in ("last.pt", "best.pt"):
        assert hash_of(tmp_path / "parts" / name) == hash_of(tmp_path / "whole" / name)
    logs = [
        [{k: v for k, v in row.items() if k not in ("seconds", "data_share")} for row in csv.DictReader(text)]
        for text in ((tmp_path / n / "log.csv").read_text().splitlines() for n in ("whole", "parts"))
    ]
    assert logs[0] == logs[1]


def test_a_killed_run_goes_on_where_it_was_last_saved(split_pairs, tmp_path, monkeypatch):
    """Between validations too: epochs can be hours long."""
    material = compose(split_pairs(7, 2), None)
    settings = small(steps=8, validate_every=100)
    loop.fit(settings, material, tmp_path / "whole", device="cpu")
    rate = loop.learning_rate

    def killed(s, step, steps):
        if step == 5:
            raise KeyboardInterrupt
        return rate(s, step, steps)

    monkeypatch.setattr(loop, "learning_rate", killed)
    for minutes, saved in ((60, False), (0, True)):
        with pytest.raises(KeyboardInterrupt):
            loop.fit(
                settings, material, tmp_path / "parts", device="cpu", overwrite=saved, save_minutes=minutes
            )
        assert (tmp_path / "parts" / "last.pt").exists() == saved
    assert load_checkpoint(tmp_path / "parts" / "last.pt")["step"] == 5
    monkeypatch.setattr(loop, "learning_rate", rate)
    loop.fit(settings, material, tmp_path / "parts", device="cpu", resume=True)
    for name in ("last.pt", "best.pt"):
        assert hash_of(tmp_path / "parts" / name) == hash_of(tmp_path / "whole" / name)


def test_a_curriculum_changes_what_is_seen_first_and_is_recorded(irstkit, split_pairs, tmp_path):
    root, out = split_pairs(8, 2), tmp_path / "run"
    arguments = ("--real", root, "--steps", 10, "--schedule", "constant", *SMALL)
    result = irstkit("train", "fit", "sd2net", "--out", out, "--curriculum", 0.6, *arguments)
    assert result.exit_code == 0, result.output
    assert "curriculum: SCR" in result.stderr and "after 6 of 10 batches" in result.stderr
    assert json.loads((out / "run.json").read_text())["settings"]["curriculum"] == 0.6
    irstkit("train", "fit", "sd2net", "--out", tmp_path / "plain", *arguments)
    assert hash_of(out / "last.pt") != hash_of(tmp_path / "plain" / "last.pt")
    result = irstkit(
        "train", "fit", "sd2net", "--resume", "--out", out, "--steps", 20
    )  # 6 batches were 0.6 of 10
    assert result.exit_code == 1 and "the run has steps 10" in result.stderr
    result = irstkit("train", "fit", "sd2net", "--out", tmp_path / "bad", "--curriculum", 1.5, *arguments)
    assert result.exit_code == 1 and "curriculum is 1.5, expected a share" in result.stderr


def test_a_real_share_is_recorded_kept_and_never_changed(irstkit, split_pairs, tmp_path):
    real, synthetic = split_pairs(6, 2), split_pairs(8, 0, folder="synthetic", seed=4)
    arguments = ("--real", real, "--synthetic", synthetic, "--steps", 10, *SMALL)
    whole, parts, plain = tmp_path / "whole", tmp_path / "parts", tmp_path / "plain"
    result = irstkit("train", "fit", "sd2net", "--out", whole, "--real-share", 0.5, *arguments)
    assert result.exit_code == 0, result.output
    assert "5 real + 8 synthetic (real: 50% of the samples)" in result.stderr
    assert json.loads((whole / "run.json").read_text())["settings"]["real_share"] == 0.5
    irstkit("train", "fit", "sd2net", "--out", plain, *arguments)
    assert "real_share" not in json.loads((plain / "run.json").read_text())["settings"]
    assert hash_of(whole / "last.pt") != hash_of(plain / "last.pt")
    irstkit("train", "fit", "sd2net", "--out", parts, "--real-share", 0.5, "--max-steps", 3, *arguments)
    for share in (0.25, 0.9):
        changed = irstkit("train", "fit", "sd2net", "--resume", "--out", whole, "--real-share", share)
        assert changed.exit_code == 1 and "the run has real_share 0.5" in changed.stderr, changed.output
    added = irstkit("train", "fit", "sd2net", "--resume", "--out", plain, "--real-share", 0.5)
    assert added.exit_code == 1 and "the run has real_share None, 0.5 is asked for" in added.stderr
    irstkit("train", "fit", "sd2net", "--resume", "--out", parts, "--threads", 1)
    assert hash_of(parts / "last.pt") == hash_of(whole / "last.pt")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--real", "{root}"), "needs images of both sources: 5 real, 0 synthetic"),
        (("--synthetic", "{root}"), "0 real, 5 synthetic"),
        (("--real", "{root}", "--synthetic", "{other}", "--real-fraction", "real"), "5 real, 0 synthetic"),
        (
            ("--real", "{root}", "--synthetic", "{other}", "--curriculum", 0.5),
            "a curriculum orders all images",
        ),
        (("--real", "{root}", "--synthetic", "{other}", "--real-share", 1.0), "a share between 0 and 1"),
        (
            ("--real", "{root}", "--synthetic", "{s}", "--stream", "--real-fraction", 0.25),
            "with --stream, --real-fraction is the share",
        ),
    ],
)
def test_real_shares_that_cannot_be(irstkit, split_pairs, tmp_path, arguments, told):
    root, other = split_pairs(6, 2), split_pairs(6, 0, folder="other", seed=4)
    irstkit("data", "export", other, "--to", "webdataset", "--out", tmp_path / "s")
    filled = [
        a.format(root=root, other=other, s=tmp_path / "s") if isinstance(a, str) else a for a in arguments
    ]
    share = () if "--real-share" in filled else ("--real-share", 0.5)
    result = irstkit(
        "train", "fit", "sd2net", "--steps", 2, "--out", tmp_path / "run", *SMALL, *share, *filled
    )
    assert result.exit_code == 1 and told in result.stderr, result.output


def test_shards_train_as_the_folder_does(irstkit, split_pairs, tmp_path):
    root = split_pairs(8, 2)
    assert (
        irstkit(
            "data", "export", root, "--to", "webdataset", "--shard-size", 3, "--out", tmp_path / "s"
        ).exit_code
        == 0
    )
    for name, source in (("a", root), ("b", tmp_path / "s")):
        result = irstkit(
            "train", "fit", "sd2net", "--synthetic", source, "--steps", 6, "--out", tmp_path / name, *SMALL
        )
        assert result.exit_code == 0, result.output
    assert hash_of(tmp_path / "a" / "best.pt") == hash_of(tmp_path / "b" / "best.pt")
    run = json.loads((tmp_path / "b" / "run.json").read_text())
    assert (
        run["data"]["synthetic"]["layout"] == "webdataset"
        and run["data"]["synthetic"]["split"] == "own/train"
    )


def test_a_stream_of_shards_resumes_to_the_bit(irstkit, split_pairs, tmp_path):
    root, real = split_pairs(10, 2), split_pairs(8, 2, folder="real", seed=4)
    irstkit("data", "export", root, "--to", "webdataset", "--shard-size", 3, "--out", tmp_path / "s")
    arguments = ("--synthetic", tmp_path / "s", "--stream", "--steps", 12, *SMALL)
    for name, more in (("alone", ()), ("mixed", ("--real", real, "--real-fraction", 0.25))):
        whole, parts = tmp_path / f"{name}-whole", tmp_path / f"{name}-parts"
        result = irstkit("train", "fit", "sd2net", "--out", whole, *arguments, *more)
        assert result.exit_code == 0, result.output
        assert (
            irstkit("train", "fit", "sd2net", "--out", parts, "--max-steps", 7, *arguments, *more).exit_code
            == 0
        )
        result = irstkit("train", "fit", "sd2net", "--resume", "--out", parts, "--threads", 1)
        assert result.exit_code == 0, result.output
        assert hash_of(parts / "last.pt") == hash_of(whole / "last.pt")
        run = json.loads((parts / "run.json").read_text())
        assert run["data"]["stream"] and run["data"]["synthetic"]["used"] == 10
    assert run["data"]["validation"]["of"] == "real" and run["data"]["real"]["used"] == 7


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda shard: shard.write_bytes(shard.read_bytes()[:5000]), "5000 bytes, index.json says"),
        (lambda shard: shard.unlink(), "no such shard"),
    ],
    ids=["truncated", "missing"],
)
def test_a_damaged_shard_is_told_before_the_first_step(irstkit, split_pairs, tmp_path, damage, told):
    """Its turn may come hours later: the first window need not hold it."""
    irstkit(
        "data", "export", split_pairs(10, 2), "--to", "webdataset", "--shard-size", 1, "--out", tmp_path / "s"
    )
    for number in range(10):  # whichever the first window is
        damage(tmp_path / "s" / f"train-{number:06d}.tar")
        result = irstkit(
            "train", "fit", "sd2net", "--steps", 1, "--out", tmp_path / "run", *SMALL, "--synthetic", tmp_path / "s",
            "--stream",
        )  # fmt: skip
        assert result.exit_code == 1 and told in result.stderr and "train-000000.tar" in result.stderr
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--synthetic", "{root}", "--stream"), "no folder with an index.json"),
        (("--real", "{root}", "--stream"), "--stream reads shards"),
        (("--synthetic", "{s}", "--stream", "--total", 4), "a stream has no total"),
        (("--synthetic", "{s}", "--stream", "--real", "{root}"), "go together"),
        (("--synthetic", "{s}", "--stream", "--real-fraction", 0.5), "go together"),
        (("--synthetic", "{s}", "--stream", "--synthetic-split", "own/val"), "no split 'own/val' here"),
        (("--synthetic", "{s}", "--stream", "--synthetic-split", "own/test"), "never trained on"),
        (("--synthetic", "{s}", "--stream", "--curriculum", 0.5), "needs the whole set"),
    ],
)
def test_streams_that_cannot_be(irstkit, split_pairs, tmp_path, arguments, told):
    root = split_pairs(6, 2)
    irstkit("data", "export", root, "--to", "webdataset", "--out", tmp_path / "s")
    filled = [a.format(root=root, s=tmp_path / "s") if isinstance(a, str) else a for a in arguments]
    result = irstkit("train", "fit", "sd2net", "--steps", 2, "--out", tmp_path / "run", *SMALL, *filled)
    assert result.exit_code == 1 and told in result.stderr, result.output


def start(root, out, steps, *more):
    command = [sys.executable, "-m", "irstkit", "train", "fit", "sd2net", "--real", root, "--out", out]
    command += ["--steps", steps, *SMALL, *more]
    return subprocess.Popen([str(c) for c in command], stderr=subprocess.PIPE, text=True)


def wait_for(path, process):
    while not path.exists() and process.poll() is None:
        time.sleep(0.01)


def test_fine_tuning_starts_from_the_weights_of_a_run(irstkit, split_pairs, tmp_path):
    first, then, told = split_pairs(6, 2), tmp_path / "then", ("--steps", 2, "--lr", 1e-9, *SMALL)
    from_run = tmp_path / "first"
    assert irstkit("train", "fit", "sd2net", "--real", first, "--out", from_run, *told).exit_code == 0
    second = first.rename(tmp_path / "second")
    result = irstkit(
        "train", "fit", "sd2net", "--real", second, "--init", from_run, "--out", then, *told, "--json"
    )
    assert result.exit_code == 0, result.output
    run, trained = json.loads(result.stdout), load_checkpoint(from_run / "best.pt")
    assert run["init"]["weights"] == trained["weights"] and run["init"]["taken"] == run["init"]["of"]
    now = load_checkpoint(then / "last.pt")
    for name, value in trained["model"]["state"].items():
        if "running" not in name and value.is_floating_point():
            assert torch.allclose(now["model"]["state"][name], value, atol=1e-6), name
    assert set(now["seen"]) == {first.name, "second"}, "what it started from has seen its images too"
    shutil.rmtree(from_run)  # resuming does not need it
    longer = irstkit("train", "fit", "sd2net", "--resume", "--out", then, "--max-steps", 1)
    assert longer.exit_code == 0, longer.output
    content = load_checkpoint(then / "last.pt")
    assert set(content["seen"]) == {first.name, "second"}
    assert content["init"]["weights"] == trained["weights"] and str(tmp_path) not in repr(
        {k: v for k, v in content.items() if k not in ("model", "training")}
    ), "checkpoints hold no path"
    wrong = irstkit("train", "fit", "sd2net", "--resume", "--init", then, "--out", then)
    assert wrong.exit_code == 2 and "has started" in wrong.stderr


def test_what_cannot_be_started_from_is_refused(split_pairs, tmp_path):
    material = compose(split_pairs(6, 2), None)
    with pytest.raises(IrstkitError, match="missing"):
        loop.fit(small(init=str(tmp_path / "missing")), material, tmp_path / "x", device="cpu")
    assert not (tmp_path / "x").exists()
    with pytest.raises(IrstkitError, match="none of its"):
        load_matching(build("sd2net", base=3), build("dfar", width=0.125).state_dict())


def test_parts_that_fit_are_taken_and_the_rest_is_new():
    torch.manual_seed(0)
    trained = build("dfar", width=0.25, agdf=False, radius=1).state_dict()
    net = build("dfar", width=0.25, init="identity", radius=1)
    own = load_matching(net, trained)
    assert own and all(name.startswith("refine.") for name in own)
    assert all(torch.equal(net.state_dict()[k], v) for k, v in trained.items())


def test_killed_at_any_moment_and_resumed_is_uninterrupted(irstkit, split_pairs, tmp_path):
    """kill -9 at a moment drawn at random: in a step, in validation, while saving."""
    seed = int.from_bytes(os.urandom(4), "little")
    print(f"seed {seed}")  # pytest shows it where the test fails
    root, killed = split_pairs(7, 2), tmp_path / "killed"
    arguments = ("--real", root, "--steps", 60, *SMALL)
    begin = time.monotonic()
    assert irstkit("train", "fit", "sd2net", "--out", tmp_path / "whole", *arguments).exit_code == 0
    lasted = time.monotonic() - begin
    process = start(root, killed, 60)
    wait_for(killed / "run.json", process)  # training begins
    time.sleep(random.Random(seed).uniform(0, 0.8 * lasted))
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    saved = (killed / "last.pt").exists()
    step = load_checkpoint(killed / "last.pt")["step"] if saved else 0
    print(f"ended with {process.returncode}, last.pt is of step {step}")
    more = ("--resume",) if saved else ("--overwrite",)
    result = irstkit("train", "fit", "sd2net", "--out", killed, *arguments, *more)
    assert result.exit_code == 0, result.output
    for name in ("last.pt", "best.pt"):
        assert hash_of(killed / name) == hash_of(tmp_path / "whole" / name), f"seed {seed}, step {step}"
    assert sorted(f.name for f in killed.iterdir()) == sorted(f.name for f in (tmp_path / "whole").iterdir())


@pytest.mark.parametrize("more", ["--resume", "--overwrite"])
def test_what_a_kill_left_half_written_is_in_nobodys_way(more, irstkit, split_pairs, tmp_path):
    root, out = split_pairs(5, 2), tmp_path / "run"
    arguments = ("train", "fit", "sd2net", "--real", root, "--steps", 2, "--out", out, *SMALL)
    assert irstkit(*arguments).exit_code == 0
    for name in (".last-abcd1234.pt", ".best-x_yz0123.pt", ".log-abcdefgh.csv", ".run-abcdefgh.json"):
        (out / name).write_bytes(b"half")  # as a process that was killed while writing leaves them
    result = irstkit(*arguments, more)
    assert result.exit_code == 0, result.output
    assert not [f for f in out.iterdir() if f.name.startswith(".")]


def test_sigterm_saves_and_ends_cleanly(split_pairs, tmp_path):
    process = start(split_pairs(7, 2), tmp_path / "run", 100000)
    wait_for(tmp_path / "run" / "last.pt", process)
    os.kill(process.pid, signal.SIGTERM)
    _, errors = process.communicate()
    assert process.returncode == 0 and "SIGTERM" in errors and "--resume" in errors
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["status"] == "stopped" and run["step"] == load_checkpoint(tmp_path / "run" / "last.pt")["step"]


def test_early_stopping_ends_the_run(split_pairs, tmp_path):
    report = loop.fit(
        small(steps=400, lr=1e-12, patience=2), compose(split_pairs(4, 2), None), tmp_path / "r", device="cpu"
    )
    assert report["status"] == "finished" and report["step"] < 400 and "no better" in report["reason"]


def test_it_learns(split_pairs, tmp_path):
    settings = small(options={"base": 4, "head_bias": -4.0}, steps=60, lr=1e-2, batch=4, augment=False,
                     schedule="constant", validate_every=100)  # fmt: skip
    material = compose(split_pairs(9, 1, size=(32, 32)), None)
    loop.fit(settings, material, tmp_path / "r", device="cpu")
    history = load_checkpoint(tmp_path / "r" / "last.pt")["training"]["history"]
    assert history[-1]["loss"] < 0.5


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (("--real", "{none}"), 1, "no such folder"),
        ((), 1, "nothing to train on"),
        (("--real", "{root}", "--real-split", "own/trian"), 1, "own/train, own/test"),
        (("--real", "{root}", "--real-split", "own/test"), 1, "never trained on"),
        (("--real", "{root}", "--real-split", "all"), 1, "never trained on"),
        (("--real", "{root}", "--real-fraction", "1", "--total", "50"), 1, "needs 50 real images, there are 7"),
        (("--real", "{root}", "--real-fraction", "0.5"), 1, "--total"),
        (("--real", "{root}", "--real-fraction", "1.5", "--total", "4"), 2, "1.5"),
        (("--synthetic", "{root}", "--real-fraction", "real"), 1, "there is none"),
        (("--real", "{root}", "--crop", "40"), 1, "multiple of 16"),
        (("--real", "{root}", "--option", "padding=reflect", "--crop", "16"), 1, "reflect"),
        (("--real", "{root}", "--loss", "jaccard"), 1, "soft_iou"),
        (("--real", "{root}", "--schedule", "step"), 1, "multistep"),
        (("--real", "{root}", "--lr", "-1"), 1, "above 0"),
        (("--real", "{root}", "--recipe", "nope"), 1, "paper"),
        (("--real", "{root}", "--option", "base"), 2, "KEY=VALUE"),
        (("--real", "{root}", "--option", "width=3"), 1, "width"),
        (("--real", "{root}", "--device", "tpu"), 1, "tpu"),
        (("--real", "{root}", "--resume"), 1, "last.pt"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, tuple) else "",
)  # fmt: skip
def test_wrong_input_is_one_error_and_leaves_nothing(arguments, status, text, irstkit, split_pairs, tmp_path):
    root, out = split_pairs(8, 3), tmp_path / "run"
    arguments = [str(a).format(root=root, none=tmp_path / "none") for a in arguments]
    base = ("--option", "base=3", "--batch", 2, "--crop", 32, "--steps", 2, "--threads", 1)
    result = irstkit("train", "fit", "sd2net", "--out", out, *base, *arguments)
    assert result.exit_code == status and text in result.output, result.output
    assert not out.exists()


@pytest.mark.parametrize("more", [("--mosaic", 0.5), ("--scale", 0.5, 2)], ids=str)
def test_augmentation_of_boxes_is_refused_for_masks(more, irstkit, split_pairs, tmp_path):
    told = ("--steps", 1, "--out", tmp_path / "r", *SMALL, *more)
    result = irstkit("train", "fit", "sd2net", "--real", split_pairs(6, 2), *told)
    assert result.exit_code == 1 and "networks of boxes" in result.stderr and not (tmp_path / "r").exists()


def test_networks_that_give_neither_masks_nor_boxes_are_refused(split_pairs, tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "flat", "torch.nn:Flatten")
    with pytest.raises(IrstkitError, match="neither boxes nor a mask"):
        loop.fit(
            settings_from({"model": "flat", "crop": 32, "steps": 1}),
            compose(split_pairs(5, 1), None),
            tmp_path / "r",
        )
    assert not (tmp_path / "r").exists()


def test_networks_whose_boxes_have_another_shape_are_refused():
    class Odd(torch.nn.Module):
        task = "boxes"

        def forward(self, images):
            return images

        def decode(self, output):
            return torch.zeros(1, 3, 4), torch.zeros(1, 2)

    with pytest.raises(IrstkitError, match=r"boxes of shape \(1, 3, 4\) and scores of \(1, 2\)"):
        check_output(Odd(), settings_from({"model": "odd", "crop": 32}))


def test_a_folder_in_use_is_kept(irstkit, split_pairs, tmp_path):
    root, out = split_pairs(5, 2), tmp_path / "run"
    arguments = ("train", "fit", "sd2net", "--real", root, "--steps", 2, "--out", out, *SMALL)
    assert irstkit(*arguments).exit_code == 0
    before = (out / "last.pt").read_bytes()
    refused = irstkit(*arguments)
    assert refused.exit_code == 1 and "--overwrite" in refused.output
    assert (out / "last.pt").read_bytes() == before
    assert irstkit(*arguments, "--overwrite", "--seed", 1).exit_code == 0
    assert (out / "last.pt").read_bytes() != before
    (out / "thesis.tex").write_text("years of work")
    refused = irstkit(*arguments, "--overwrite")
    assert refused.exit_code == 1 and "thesis.tex" in refused.output and (out / "thesis.tex").exists()


@pytest.mark.parametrize(
    "change", [("--lr", "0.1"), ("--batch", "3"), ("--steps", "99"), ("--seed", "3")], ids=str
)
def test_resuming_with_other_settings_is_refused(change, irstkit, split_pairs, tmp_path):
    root, out = split_pairs(5, 2), tmp_path / "run"
    assert (
        irstkit("train", "fit", "sd2net", "--real", root, "--steps", 2, "--out", out, *SMALL).exit_code == 0
    )
    before = (out / "last.pt").read_bytes()
    result = irstkit("train", "fit", "sd2net", "--resume", "--out", out, *change)
    assert result.exit_code == 1 and change[0].strip("-") in result.output, result.output
    assert (out / "last.pt").read_bytes() == before


def test_resuming_on_other_images_is_refused(irstkit, split_pairs, tmp_path):
    out = tmp_path / "run"
    root = split_pairs(5, 2)
    assert (
        irstkit("train", "fit", "sd2net", "--real", root, "--steps", 2, "--out", out, *SMALL).exit_code == 0
    )
    other = split_pairs(6, 2, folder="other")
    result = irstkit("train", "fit", "sd2net", "--resume", "--out", out, "--real", other)
    assert result.exit_code == 1 and "other images" in result.output


def test_a_loss_that_is_not_finite_stops_the_run(split_pairs, tmp_path, monkeypatch):
    monkeypatch.setitem(LOSSES, "nan", lambda x, y: (x * float("nan")).mean())
    with pytest.raises(IrstkitError, match="nan at step 1"):
        loop.fit(small(loss="nan"), compose(split_pairs(5, 2), None), tmp_path / "r", device="cpu")


def test_out_of_memory_names_the_size(split_pairs, tmp_path, monkeypatch):
    def full(logits, masks):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setitem(LOSSES, "full", full)
    with pytest.raises(IrstkitError, match=r"batch 2 of 32x32.*--batch 1 --accumulate 2"):
        loop.fit(small(loss="full"), compose(split_pairs(5, 2), None), tmp_path / "r", device="cpu")


def test_mixing_counts_and_validation_are_of_the_real_set(split_pairs):
    real, synthetic = split_pairs(10, 2), split_pairs(20, 0, folder="synthetic", seed=1)
    whole = compose(real, synthetic)
    assert whole.about["images"] == 9 + 20 and whole.about["validation"]["of"] == "real"
    mixed = compose(real, synthetic, fraction=0.25, total=12)
    assert (mixed.about["real"]["used"], mixed.about["synthetic"]["used"]) == (3, 9)
    none = compose(real, synthetic, fraction=0.0, total=12)
    assert none.about["real"]["used"] == 0
    hashes = {m.about["validation"]["split_hash"] for m in (whole, mixed, none)}
    assert len(hashes) == 1, "all rows of a comparison are judged by the same images"
    seen = {r.image for r in mixed.train} & {r.image for r in mixed.validation}
    assert not seen
    assert compose(real, synthetic, fraction="real").about["images"] == 9


@pytest.mark.parametrize(
    ("changes", "step", "expected", "why"),
    [
        ({}, 0, 5e-4, "constant first part"),
        ({}, 500, 5e-5, "first milestone at half"),
        ({}, 999, 5e-6, "second at three quarters"),
        ({"schedule": "cosine"}, 500, 2.5e-4, "half way"),
        ({"schedule": "cosine", "final": 0.1}, 1000, 5e-5, "down to final"),
        ({"schedule": "poly"}, 0, 5e-4, "start"),
        ({"warmup": 10}, 0, 5e-5, "first of ten"),
        ({"warmup": 10}, 9, 5e-4, "last of ten"),
        ({"schedule": "constant"}, 999, 5e-4, ""),
    ],
)
def test_learning_rates(changes, step, expected, why):
    assert learning_rate(settings_from(changes), step, 1000) == pytest.approx(expected), why


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_recipes_are_valid(path):
    model, _, name = path.stem.partition("-")
    assert name in recipe_names(model)
    settings = settings_from(load_recipe(name, model), base=Settings())
    assert settings.model == model
    if model in MODELS:
        assert settings.crop % build(model, **settings.options).stride == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lerning_rate: 1", "no setting 'lerning_rate'"),
        ("lr: fast", "lr is 'fast', expected a finite number"),
        ("batch: 2.5", "batch is 2.5, expected a whole number"),
        ("model: unet", "'unet'"),
        ("- 1", "mapping"),
        ("lr: [", "line"),
    ],
)
def test_wrong_recipes_are_named(text, expected, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(IrstkitError, match=expected) as caught:
        load_recipe(str(path), "sd2net")
    assert str(path) in str(caught.value)


def test_recipe_then_command_line(irstkit, split_pairs, tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("lr: 0.002\nbatch: 3\ncrop: 32\noptions: {base: 3}\nsteps: 2\n")
    result = irstkit("train", "fit", "sd2net", "--real", split_pairs(5, 1), "--out", tmp_path / "r", "--recipe", recipe,
                     "--batch", 2, "--json")  # fmt: skip
    settings = json.loads(result.stdout)["settings"]
    assert (settings["lr"], settings["batch"], settings["options"]) == (0.002, 2, {"base": 3})


def test_equal_checkpoints_have_equal_bytes(tmp_path):
    for name in ("one.pt", "another.pt"):
        save_checkpoint(
            tmp_path / name, {"model": {"name": "x", "options": {}, "state": {"a": torch.ones(3)}}}
        )
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "another.pt").read_bytes()


def test_a_batch_that_the_network_cannot_be_trained_on_is_one_clear_error(irstkit, split_pairs, tmp_path):
    root = split_pairs(7, 2)
    result = irstkit(
        *("train", "fit", "acm", "--real", root, "--steps", 2, "--batch", 1, "--crop", 32, "--threads", 1),
        *("--option", "blocks=1", "--device", "cpu", "--out", tmp_path / "run"),
    )
    assert result.exit_code == 1
    assert "two images or more" in result.stderr and "--batch" in result.stderr


def test_half_precision_is_not_replaced_by_another_on_the_cpu(irstkit, split_pairs, tmp_path):
    root = split_pairs(4, 1)
    arguments = ("--real", root, "--steps", 1, "--device", "cpu", *SMALL)
    result = irstkit("train", "fit", "sd2net", "--precision", "16-mixed", "--out", tmp_path / "r", *arguments)
    assert result.exit_code == 1 and "16-mixed needs a GPU" in result.stderr
    assert not (tmp_path / "r").exists()


def test_an_unknown_option_names_the_networks_own(irstkit, split_pairs, tmp_path):
    root = split_pairs(4, 1)
    result = irstkit(
        "train",
        "fit",
        "dnanet",
        "--real",
        root,
        "--steps",
        1,
        "--option",
        "channels=3",
        "--out",
        tmp_path / "r",
    )
    assert result.exit_code == 1
    assert "no option channels" in result.stderr and "in_channels=1" in result.stderr


def test_two_processes_do_not_train_into_one_folder(irstkit, split_pairs, tmp_path):
    root, out = split_pairs(4, 1), tmp_path / "run"
    arguments = ("train", "fit", "sd2net", "--real", root, "--steps", 2, "--out", out, *SMALL)
    out.mkdir()
    with occupied(out):  # as another process would
        result = irstkit(*arguments)
    assert result.exit_code == 1 and "another process is writing here" in result.stderr
    assert not list(out.iterdir())
    assert irstkit(*arguments).exit_code == 0
    weights = hash_of(out / "last.pt")
    with occupied(out):
        assert irstkit(*arguments, "--overwrite").exit_code == 1
    assert hash_of(out / "last.pt") == weights
