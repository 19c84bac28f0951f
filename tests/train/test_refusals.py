"""What a new user gets wrong, and what a machine does: one clear error, nothing half-written, no wrong number."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import torch

from irstkit.annotate.errors import IrstkitError
from irstkit.train import loop
from irstkit.train.box_predictor import suppress
from irstkit.train.checkpoint import load_checkpoint, save_checkpoint
from irstkit.train.compare import compare
from irstkit.train.material import compose
from irstkit.train.settings import settings_from

SMALL = ("--option", "base=3", "--crop", 32, "--batch", 2, "--threads", 1, "--device", "cpu")


def refused(result, *told, code=1):
    assert result.exit_code == code, result.output
    assert result.stdout == "" and "Traceback" not in result.stderr
    for words in told:
        assert words in result.stderr, result.stderr


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (("fit", "sd2net", "--real", "{root}", "--steps", 1, "--out", "{new}"), "--save-minutes"),
        (("fit", "sd2net", "--real", "{root}", "--steps", 1, "--out", "{new}"), "--max-minutes"),
        (("sweep", "sd2net", "--real", "{root}", "--synthetic", "{root}", "--total", 2, "--out", "{new}"), "--max-minutes"),
        (("evaluate", "{net}", "--data", "{root}"), "--threshold"),
        (("evaluate", "{net}", "--data", "{root}"), "--distance"),
        (("evaluate", "{net}", "--data", "{root}", "--boxes"), "--nms"),
        (("predict", "{net}", "{root}", "--out", "{new}"), "--threshold"),
        (("export", "{net}", "--out", "{new}.onnx"), "--tolerance"),
        (("fit", "sd2net", "--real", "{root}", "--total", 2, "--steps", 1, "--out", "{new}"), "--real-fraction"),
    ],
    ids=lambda v: v if isinstance(v, str) else v[0],
)  # fmt: skip
def test_not_a_number_is_no_number(irstkit, split_pairs, checkpoint, tmp_path, command, option):
    names = {"root": split_pairs(3, 1), "net": checkpoint(), "new": tmp_path / "new"}
    words = [w.format(**names) if isinstance(w, str) else w for w in command]
    refused(irstkit("train", *words, option, "nan"), option, "nan", code=2)
    assert not list(tmp_path.glob("*new*"))


@pytest.mark.parametrize("seed", [2**64, -1])
def test_a_seed_that_no_generator_takes(irstkit, split_pairs, tmp_path, seed):
    result = irstkit("train", "fit", "sd2net", "--real", split_pairs(3, 1), "--steps", 1, "--seed", seed,
                     "--out", tmp_path / "run", *SMALL)  # fmt: skip
    refused(result, f"seed is {seed}, expected a whole number from 0")


def test_resuming_another_model_or_with_a_set_more(irstkit, split_pairs, tmp_path):
    root, other, out = split_pairs(5, 1), split_pairs(5, 0, folder="other", seed=4), tmp_path / "run"
    assert (
        irstkit("train", "fit", "sd2net", "--real", root, "--steps", 2, "--out", out, *SMALL).exit_code == 0
    )
    refused(
        irstkit("train", "fit", "dnanet", "--resume", "--out", out),
        f"{out}",
        "a run of 'sd2net', not of 'dnanet'",
    )
    result = irstkit("train", "fit", "sd2net", "--resume", "--out", out, "--synthetic", other)
    refused(result, "the run was on other images (different: images, synthetic)")


def test_one_set_is_not_two(irstkit, split_pairs, tmp_path):
    """The validation images of the real set would be trained on as synthetic ones."""
    root = split_pairs(6, 2)
    (tmp_path / "link").symlink_to(root)
    for other in (root, tmp_path / "link"):
        result = irstkit("train", "fit", "sd2net", "--real", root, "--synthetic", other, "--steps", 1,
                         "--out", tmp_path / "run", *SMALL)  # fmt: skip
        refused(result, "--real and --synthetic are the same data set, and 6 images are in both lists")


@pytest.fixture
def nowhere(tmp_path):
    """A place where no folder can be made, for root neither."""
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "new"


def test_places_that_cannot_be_written_are_told_before_work_is_done(
    irstkit, split_pairs, checkpoint, nowhere, monkeypatch
):
    root, net = split_pairs(4, 2), checkpoint()
    refused(
        irstkit("train", "fit", "sd2net", "--real", root, "--steps", 1, "--out", nowhere, *SMALL),
        f"{nowhere}: cannot write here",
    )

    def never(*_, **__):
        raise AssertionError("scored before the place was looked at")

    monkeypatch.setattr("irstkit.train.evaluate.score", never)
    monkeypatch.setattr("irstkit.train.compare.score", never)
    monkeypatch.setattr("irstkit.train.evaluate_boxes.measure", never)
    refused(
        irstkit("train", "compare", net, "--data", root, "--out", nowhere), f"{nowhere}: cannot write here"
    )
    refused(
        irstkit("train", "evaluate", net, "--boxes", "--data", root, "--out", nowhere),
        f"{nowhere}: cannot write here",
    )
    refused(
        irstkit(
            "train", "export", net, "--size", 32, 32, "--tolerance", 1, "--out", nowhere.with_suffix(".onnx")
        ),
        "cannot write here",
    )


def test_a_comparison_that_fails_leaves_nothing(split_pairs, checkpoint, tmp_path, monkeypatch):
    root, net = split_pairs(4, 2), checkpoint()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("irstkit.train.compare._plot", full)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(IrstkitError, match="cannot write: No space left"):
        compare([net], root, tmp_path / "out", device="cpu")
    assert sorted(tmp_path.iterdir()) == before


def test_an_export_replaces_nothing(irstkit, checkpoint, tmp_path):
    net = checkpoint()
    before = net.read_bytes()
    refused(
        irstkit("train", "export", net, "--size", 32, 32, "--out", net), "expected a name ending in .onnx"
    )
    assert net.read_bytes() == before
    (tmp_path / "net.onnx").write_text("mine")
    result = irstkit("train", "export", net, "--size", 32, 32, "--out", tmp_path / "net.onnx")
    refused(result, "net.onnx: exists: not overwritten")
    assert (tmp_path / "net.onnx").read_text() == "mine"


def test_networks_of_clips_are_not_embedded(irstkit, sequences, tmp_path):
    run = tmp_path / "run"
    options = ("--option", "window=3", "--option", "base=4", "--option", "features=4")
    result = irstkit("train", "fit", "std2net", "--real", sequences, "--steps", 1, "--crop", 32, "--out", run,
                     "--batch", 2, "--threads", 1, "--device", "cpu", *options)  # fmt: skip
    assert result.exit_code == 0, result.output
    result = irstkit("train", "embed", run, sequences, "--out", tmp_path / "e.npz")
    refused(result, "std2net sees clips, embed takes networks of single images")


def spoilt(net):
    content = load_checkpoint(net)
    for name in ("head.weight", "head.bias"):
        content["model"]["state"][name] *= float("nan")
    save_checkpoint(net, content)
    return net


@pytest.mark.parametrize("command", ["predict", "evaluate", "boxes", "compare"])
def test_a_network_that_has_diverged_gives_no_empty_masks(
    irstkit, split_pairs, checkpoint, tmp_path, command
):
    root, net, out = split_pairs(3, 2), spoilt(checkpoint()), tmp_path / "out"
    result = {
        "predict": lambda: irstkit("train", "predict", net, root, "--out", out),
        "evaluate": lambda: irstkit("train", "evaluate", net, "--data", root),
        "boxes": lambda: irstkit("train", "evaluate", net, "--data", root, "--boxes"),
        "compare": lambda: irstkit("train", "compare", net, "--data", root, "--out", out),
    }[command]()
    refused(result, "of the network's answer are not numbers")
    assert not out.exists()


def test_scores_that_are_not_numbers_are_no_missing_boxes():
    boxes, scores = torch.tensor([[0.0, 0, 4, 4], [1, 1, 5, 5]]), torch.tensor([0.5, float("nan")])
    with pytest.raises(IrstkitError, match="1 of 2 scores of the network are not numbers"):
        suppress(boxes, scores, (8, 8), floor=0.001, nms=0.65, limit=10)
    far = torch.tensor([[0.0, 0, 4, 4], [1, 1, float("inf"), 5]])
    assert len(suppress(far, torch.tensor([0.5, 0.5]), (8, 8), floor=0.001, nms=0.65, limit=10)[0]) == 1


def test_weights_that_are_not_numbers_never_replace_those_that_are(split_pairs, tmp_path, monkeypatch):
    """The loss of a step is that of the weights before it: last.pt could be one step behind the news."""
    settings = settings_from(
        {"options": {"base": 3}, "crop": 32, "batch": 2, "steps": 6, "validate_every": 100}
    )
    save, out = loop._Run._save_last, tmp_path / "run"

    def spoil(run):
        if run.step == 3:
            with torch.no_grad():
                run.net.head.bias.fill_(float("nan"))
        save(run)

    monkeypatch.setattr(loop._Run, "_save_last", spoil)
    with pytest.raises(IrstkitError, match=r"head\.bias.* not numbers after step 3"):
        loop.fit(settings, compose(split_pairs(6, 2), None), out, device="cpu", save_minutes=0)
    kept = load_checkpoint(out / "last.pt")
    assert kept["step"] == 2 and torch.isfinite(kept["model"]["state"]["head.bias"]).all()


@pytest.mark.parametrize("key", ["model", "normalisation", "step", "data", "seen"])
def test_a_checkpoint_that_lacks_something(irstkit, split_pairs, checkpoint, key):
    net = checkpoint()
    content = load_checkpoint(net)
    del content[key]
    save_checkpoint(net, content)
    refused(
        irstkit("train", "evaluate", net, "--data", split_pairs(3, 1)), f"{net}: a checkpoint without {key!r}"
    )


def test_a_model_that_is_not_known_here_is_told_with_its_file(irstkit, split_pairs, checkpoint):
    net = checkpoint(model={"name": "theirs", "options": {}, "state": {}})
    refused(irstkit("train", "evaluate", net, "--data", split_pairs(3, 1)), f"{net}: no model 'theirs'")


def test_a_sweep_says_at_once_that_a_row_has_no_real_image(irstkit, split_pairs, tmp_path):
    root, other, out = split_pairs(8, 2), split_pairs(8, 0, folder="other", seed=4), tmp_path / "sweep"
    result = irstkit("train", "sweep", "sd2net", "--real", root, "--synthetic", other, "--total", 6, "--fractions",
                     "0,0.05,0.5", "--real-share", 0.5, "--seeds", 1, "--steps", 1, "--out", out, *SMALL)  # fmt: skip
    refused(
        result, "real fraction 0.05, seed 0: a real share needs images of both sources: 0 real, 6 synthetic"
    )
    assert not out.exists()


def test_a_sweep_does_not_start_from_weights_that_saw_its_test_list(irstkit, split_pairs, tmp_path):
    root, other, out = split_pairs(8, 2), split_pairs(8, 0, folder="other", seed=4), tmp_path / "sweep"
    (root / "splits" / "own" / "test.txt").rename(tmp_path / "kept")
    (root / "splits" / "own" / "train.txt").write_text("".join(f"{k:06d}\n" for k in range(10)))
    assert (
        irstkit(
            "train", "fit", "sd2net", "--real", root, "--steps", 1, "--out", tmp_path / "run", *SMALL
        ).exit_code
        == 0
    )
    shutil.copy(tmp_path / "kept", root / "splits" / "own" / "test.txt")
    (root / "splits" / "own" / "train.txt").write_text("".join(f"{k:06d}\n" for k in range(8)))
    result = irstkit("train", "sweep", "sd2net", "--real", root, "--synthetic", other, "--total", 6, "--fractions", "0",
                     "--seeds", 1, "--steps", 1, "--out", out, "--init", tmp_path / "run", *SMALL)  # fmt: skip
    refused(result, "run: was trained or selected on 2 images of own/test")
    assert not out.exists()


@pytest.mark.parametrize("command", ["predict", "compare"])
def test_a_command_that_is_told_to_end_leaves_nothing(split_pairs, checkpoint, tmp_path, command):
    """SIGTERM, as queues of computers send it."""
    root, net = split_pairs(3, 40), checkpoint()
    words = {"predict": [root], "compare": ["--data", root]}[command]
    process = subprocess.Popen(
        [sys.executable, "-m", "irstkit", "train", command, net, *words, "--out", tmp_path / "out", "--device", "cpu"],
        stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    limit = time.monotonic() + 120
    while not list(tmp_path.glob(".out-*")) and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, said
    assert "Traceback" not in said and not list(tmp_path.glob("*out*"))


def test_results_say_which_share_was_real(irstkit, split_pairs, tmp_path):
    root, other, out = split_pairs(8, 2), split_pairs(8, 0, folder="other", seed=4), tmp_path / "sweep"
    result = irstkit("train", "sweep", "sd2net", "--real", root, "--synthetic", other, "--total", 6, "--fractions",
                     "0,0.5", "--real-share", 0.75, "--seeds", 1, "--steps", 1, "--out", out, *SMALL)  # fmt: skip
    assert result.exit_code == 0, result.output
    told = "75 % of the samples are real in rows of both"
    assert told in (out / "sweep.md").read_text() and told in result.stdout


def test_json_stays_alone_on_standard_output(irstkit, split_pairs, tmp_path):
    """Notes and bars go to standard error."""
    root = split_pairs(5, 2)
    result = irstkit(
        "train", "fit", "sd2net", "--real", root, "--steps", 1, "--out", tmp_path / "run", "--json", *SMALL
    )
    json.loads(result.stdout)
    for words in (
        ("evaluate", tmp_path / "run", "--data", root, "--unseen"),
        ("embed", tmp_path / "run", root, "--out", tmp_path / "e.npz"),
    ):
        json.loads(irstkit("train", *words, "--json").stdout)


def test_told_to_end_before_the_first_step_it_is_saved(split_pairs, tmp_path, monkeypatch):
    """A writer of TensorBoard takes a second to begin: SIGTERM in it is as SIGTERM in a step."""
    begin = loop.board_writer

    def slowly(out, step):
        os.kill(os.getpid(), signal.SIGTERM)
        return begin(out, step)

    monkeypatch.setattr(loop, "board_writer", slowly)
    settings = settings_from({"options": {"base": 3}, "crop": 32, "batch": 2, "steps": 6})
    report = loop.fit(settings, compose(split_pairs(6, 2), None), tmp_path / "run", device="cpu")
    assert report["status"] == "stopped" and report["reason"] == "SIGTERM received"
    assert load_checkpoint(tmp_path / "run" / "last.pt")["step"] == report["step"] == 1


def test_two_runs_begun_at_once_do_not_replace_each_other(split_pairs, tmp_path):
    """Both found the folder empty; the second comes to write when the first is done."""
    settings = settings_from({"options": {"base": 3}, "crop": 32, "batch": 2, "steps": 1})
    material, out = compose(split_pairs(6, 2), None), tmp_path / "run"
    second = loop._Run(settings, material, out, "cpu", False, False, True)
    loop.fit(settings, material, out, device="cpu")
    before = (out / "run.json").read_bytes()
    with pytest.raises(IrstkitError, match="the folder is not empty"):
        second.train(None, None, 10)
    assert (out / "run.json").read_bytes() == before


@pytest.fixture
def run(irstkit, split_pairs, tmp_path):
    """A run of the paper's recipe that was stopped; the command that made it."""
    command = ("train", "fit", "sd2net", "--real", split_pairs(6, 2), "--recipe", "paper", "--steps", 4, "--out",
               tmp_path / "run", *SMALL)  # fmt: skip
    assert irstkit(*command, "--max-steps", 2).exit_code == 0
    return tmp_path / "run", command


@pytest.mark.parametrize("text", ["{}", '{"settings": {"model": "sd2net"}}', '{"settings": ', "[]"])
def test_a_run_without_its_run_json(irstkit, run, text):
    out, _ = run
    (out / "run.json").write_text(text)
    refused(irstkit("train", "fit", "sd2net", "--resume", "--out", out), f"{out / 'run.json'}: ")


def test_a_best_checkpoint_is_not_resumed(irstkit, run):
    out, command = run
    irstkit(*command, "--resume")
    shutil.copy(out / "best.pt", out / "last.pt")
    refused(
        irstkit("train", "fit", "sd2net", "--resume", "--out", out), "last.pt: a best.pt under another name"
    )


def test_a_recipe_of_a_resumed_run_must_be_its_own(irstkit, run):
    """It was passed over without a word."""
    out, command = run
    other = irstkit("train", "fit", "sd2net", "--resume", "--out", out, "--recipe", "best")
    refused(other, "last.pt: the run has options", "is asked for")
    own = irstkit("train", "fit", "sd2net", "--resume", "--out", out, "--recipe", "paper", "--max-steps", 1)
    refused(own, "{'base': 3, 'padding': 'zeros'}, {'base': 8, 'padding': 'zeros'} is asked for")
    for more in (("--max-steps", 1), ()):
        assert irstkit(*command, "--resume", *more).exit_code == 0, "the whole command again"
    assert load_checkpoint(out / "last.pt")["step"] == 4


@pytest.mark.parametrize("alarms", [False, True], ids=["none", "false alarms"])
def test_without_a_target_to_validate_by_the_last_weights_are_kept(split_pairs, tmp_path, capsys, alarms):
    """IoU is undefined where nothing is found, and 0 where something is: neither says which weights are better."""
    root = split_pairs(6, 2)
    for mask in (root / "masks").iterdir():
        cv2.imwrite(str(mask), np.zeros((48, 64), np.uint8))
    bias = 4.0 if alarms else -4.0
    settings = settings_from(
        {"options": {"base": 3, "head_bias": bias}, "crop": 32, "batch": 2, "steps": 6, "lr": 1e-6}
    )
    report = loop.fit(settings, compose(root, None), tmp_path / "run", device="cpu")
    assert report["last"]["val_iou"] == (0 if alarms else None)
    assert report["best"]["step"] == load_checkpoint(tmp_path / "run")["step"] == 6
    assert report["selection"] == "last (no target in the validation part)"
    assert capsys.readouterr().err.count("no target in the validation part") == 1
