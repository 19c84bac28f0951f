"""The data set: exact, documented, the same from any number of workers and after any interruption."""

import hashlib
import json
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
import yaml

from irstkit.annotate.errors import IrstkitError
from irstkit.annotate.files import occupied, read_image, read_mask, write_png
from irstkit.annotate.masks import mask_to_instances
from irstkit.annotate.rle import rle_to_instance
from irstkit.annotate.scr import measure_contrast
from irstkit.datasets.readers import open_dataset
from irstkit.synth import generate as module
from irstkit.synth import writer
from irstkit.synth.generate import generate


def contents(root):
    return {
        p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in root.rglob("*")
        if p.is_file()
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("synth") / "set"
    totals = generate(root, 24, 3, preset="nudt", size=128, splits={"train": 0.6, "test": 0.4}, workers=1)
    return root, totals


@pytest.fixture
def folder(tmp_path):
    """Eight 150 px backgrounds with a little texture."""
    root = tmp_path / "backgrounds"
    rng = np.random.default_rng(0)
    for k in range(8):
        image = cv2.GaussianBlur(rng.normal(90, 40, (150, 170)), (0, 0), 5) + rng.normal(0, 3, (150, 170))
        write_png(root / f"{k}.png", np.clip(image, 0, 255).astype(np.uint8))
    return root


def test_scr_on_the_written_image_is_what_the_attributes_say(made):
    root, _ = made
    coco = json.loads((root / "annotations.json").read_text())
    by_image = {}
    for annotation in coco["annotations"]:
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    checked = 0
    for entry in coco["images"]:
        annotations = by_image.get(entry["id"], [])
        instances = [rle_to_instance(a["segmentation"]) for a in annotations]
        image, mask = (
            read_image(root / entry["file_name"]),
            read_mask(root / entry["file_name"].replace("images", "masks")),
        )
        assert len(mask_to_instances(mask)) == len(instances)  # never 8-adjacent
        for a, instance, found in zip(
            annotations, instances, measure_contrast(image, instances, mask=mask), strict=True
        ):
            known = a["attributes"]
            assert known["scr_achieved"] == pytest.approx(abs(found.scr), abs=1e-6)
            x1, y1, x2, y2 = instance.box
            assert (a["bbox"], a["area"]) == ([x1, y1, x2 - x1, y2 - y1], instance.area)
            if known["scr_status"] == "ok":
                assert abs(known["scr_achieved"] / known["scr_requested"] - 1) <= 0.05
            assert x1 - 1 < known["x"] < x2 and y1 - 1 < known["y"] < y2
            checked += 1
    assert checked >= 24


def test_targets_keep_out_of_each_others_rings(made):
    for line in (made[0] / "manifest.jsonl").read_text().splitlines():
        boxes = [t["bbox"] for t in json.loads(line)["targets"]]
        for k, (x, y, w, h) in enumerate(boxes):
            for ox, oy, ow, oh in boxes[:k]:
                assert ox + ow <= x - 10 or ox >= x + w + 10 or oy + oh <= y - 10 or oy >= y + h + 10


def test_it_is_read_back_as_a_data_set(made):
    root, totals = made
    data = open_dataset(root)
    assert len(data) == totals["images"] == 24
    assert not [f for f in data.findings if f.severity == "error"]
    assert {k: len(data.part(k)) for k in totals["splits"]} == totals["splits"]
    assert sum(totals["splits"].values()) == 24
    assert str(root) not in (root / "synth.yaml").read_text()


def test_same_bytes_from_workers_interruption_and_continuation(made, tmp_path, monkeypatch):
    root, _ = made
    expected = contents(root)
    again = tmp_path / "two"
    monkeypatch.setattr(module, "CHUNK", 5)
    arguments = {"preset": "nudt", "size": 128, "splits": {"train": 0.6, "test": 0.4}}
    generate(again, 24, 3, workers=2, **arguments)
    assert contents(again) == expected
    generate(again, 24, 3, workers=1, **arguments)  # a second run has nothing to do
    assert contents(again) == expected
    (again / "images/000003.png").unlink()  # a lost image comes back
    generate(again, 24, 3, workers=1, **arguments)
    assert contents(again) == expected

    killed = tmp_path / "killed"
    monkeypatch.setattr(writer, "PART", 8)
    monkeypatch.setattr(module, "PART", 8)
    monkeypatch.setattr(module, "CHUNK", 4)
    calls = {"n": 0}
    honest = module.write_image

    def failing(*args):
        calls["n"] += 1
        if calls["n"] in (11, 17):
            raise KeyboardInterrupt
        return honest(*args)

    monkeypatch.setattr(module, "write_image", failing)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            generate(killed, 24, 3, workers=1, **arguments)
    generate(killed, 24, 3, workers=1, **arguments)
    assert calls["n"] < 11 + 17 + 24  # whole parts were trusted
    assert contents(killed) == expected


def test_a_larger_count_continues_and_anything_else_is_refused(folder, tmp_path):
    out = tmp_path / "set"
    generate(out, 4, 1, folder, size=96, workers=1)
    first = contents(out)
    generate(out, 7, 1, folder, size=96, workers=1)
    assert {k: v for k, v in contents(out).items() if k in first and k.endswith(".png")} == {
        k: v for k, v in first.items() if k.endswith(".png")
    }
    before = contents(out)
    for change, told in (
        ({"seed": 2}, "seed differ"),
        ({"count": 5}, "7 images, 5 were asked for"),
        ({"preset": "nudt", "overrides": ["contrast.ring=5"]}, "preset differ"),
        ({"size": 100}, "size differ"),
    ):
        with pytest.raises(IrstkitError, match=told):
            generate(
                **{
                    "out": out,
                    "count": 7,
                    "seed": 1,
                    "backgrounds": folder,
                    "size": 96,
                    "workers": 1,
                    **change,
                }
            )
        assert contents(out) == before
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("x")
    with pytest.raises(IrstkitError, match="not empty"):
        generate(other, 4, 1, folder, size=96, workers=1)
    assert sorted(p.name for p in other.iterdir()) == ["mine.txt"]


def test_backgrounds_keep_their_split_and_are_not_shared(folder, tmp_path):
    parts = {}
    for count, seed_dir in ((30, "a"), (60, "b")):
        out = tmp_path / seed_dir
        generate(out, count, 5, folder, size=96, splits={"train": 0.5, "val": 0.5}, workers=1)
        for line in (out / "manifest.jsonl").read_text().splitlines():
            row = json.loads(line)
            assert parts.setdefault(row["background_id"], row["split"]) == row["split"]
        (folder / "7.png").unlink(missing_ok=True)  # fewer backgrounds move none
    assert len(set(parts.values())) == 2


def test_targets_of_a_data_set_are_removed_and_its_test_images_left_out(make_pairs, tmp_path):
    root = make_pairs(count=8, size=(100, 120))
    (root / "mine").mkdir()
    (root / "mine/train.txt").write_text("".join(f"{k:06d}\n" for k in range(5)))
    (root / "mine/test.txt").write_text("".join(f"{k:06d}\n" for k in range(5, 8)))
    shutil.copy(root / "images/000006.png", tmp_path / "copy.png")
    extra = tmp_path / "extra"
    extra.mkdir()
    image = read_image(root / "images/000006.png").astype(int)
    write_png(extra / "twin.png", np.clip(image + 3, 0, 255).astype(np.uint8))  # brighter by 3: still a twin
    out = tmp_path / "set"
    generate(out, 6, 1, [root, extra], size=96, workers=1)
    document = yaml.safe_load((out / "synth.yaml").read_text())
    assert document["left_out"] == {"test image": 3, "twin of a test image": 1}
    assert [b["removed"] >= 1 and b["used"] != b["id"] for b in document["backgrounds"]] == [True] * 5
    with_test = tmp_path / "with_test"
    generate(with_test, 2, 1, [root], size=96, workers=1, include_test=True)
    document = yaml.safe_load((with_test / "synth.yaml").read_text())
    assert document["include_test"] and len(document["backgrounds"]) == 8
    only = tmp_path / "only"
    with pytest.raises(IrstkitError, match="no background is left of 5 images: 5 test image"):
        generate(only, 2, 1, [f"{root}:mine/train"], size=96, workers=1, exclude=[f"{root}:mine/train"])
    assert not only.exists()


def test_sixteen_bit_backgrounds_give_sixteen_bit_images_within_one_percent(tmp_path):
    rng = np.random.default_rng(4)
    for k in range(3):
        image = cv2.GaussianBlur(rng.normal(20000, 9000, (140, 140)), (0, 0), 6) + rng.normal(
            0, 300, (140, 140)
        )
        write_png(tmp_path / "b" / f"{k}.png", np.clip(image, 0, 65535).astype(np.uint16))
    generate(tmp_path / "set", 6, 1, tmp_path / "b", size=128, workers=1)
    data = open_dataset(tmp_path / "set")
    assert {r.bit_depth for r in data} == {16}
    targets = [t for r in data for t in r.attributes["targets"]]
    assert targets
    for t in targets:
        assert t["scr_status"] != "ok" or abs(t["scr_achieved"] / t["scr_requested"] - 1) <= 0.01


@pytest.mark.parametrize(
    ("prepare", "told"),
    [
        (lambda f: shutil.rmtree(f), "no such folder"),
        (lambda f: [p.unlink() for p in f.iterdir()], "empty"),
        (lambda f: (f / "3.png").write_bytes((f / "3.png").read_bytes()[:900]), "truncated PNG"),
        (lambda f: (f / "3.png").write_text("hello"), "not an image"),
        (lambda f: [write_png(p, np.zeros((30, 30), np.uint8)) for p in f.iterdir()], "8 smaller than 48 px"),
    ],
)
def test_bad_backgrounds_are_one_clear_error_and_leave_nothing(folder, tmp_path, irstkit, prepare, told):
    prepare(folder)
    result = irstkit(
        "synth", "images", "--out", tmp_path / "set", "--count", 3, "--size", 96, "--backgrounds", folder
    )
    assert result.exit_code == 1
    assert told in result.stderr and result.stderr.count("\n") <= 2
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--preset", "nothing"], 1, "there are: "),
        (["--set", "contrast.rang=5"], 1, "contrast.rang: no such key"),
        (["--set", "contrast.ring=wide"], 1, "contrast.ring"),
        (["--splits", "train=0.5,val"], 2, "expected NAME=SHARE"),
        (["--count", "0"], 2, "--count"),
        (["--size", "20"], 2, "--size"),
        (["--dask", ""], 2, "HOST:PORT or local:N"),
        (["--set", "blur=2"], 1, "blur: a distribution was expected: {value: 3}"),
    ],
)
def test_bad_options(tmp_path, irstkit, arguments, code, told):
    result = irstkit("synth", "images", "--out", tmp_path / "set", *arguments)
    assert result.exit_code == code
    assert told in result.stderr
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("out", ["{f}/made", "{f}", "{f}/sheet.png"])
def test_an_output_within_the_backgrounds_is_refused(folder, irstkit, out):
    """The next run would take what this one writes for backgrounds."""
    look = ("--preview", 2) if out.endswith("png") else ()
    result = irstkit(
        "synth",
        "images",
        "--out",
        out.format(f=folder),
        "--count",
        2,
        "--size",
        96,
        "--backgrounds",
        folder,
        *look,
    )
    assert result.exit_code == 1
    assert "inside the backgrounds' folder" in result.stderr or "is not empty" in result.stderr
    assert len(list(folder.iterdir())) == 8
    moving = irstkit(
        "synth",
        "sequences",
        "--out",
        folder / "made",
        "--sequences",
        1,
        "--frames",
        2,
        "--backgrounds",
        folder,
    )
    assert moving.exit_code == 1 and "inside the backgrounds' folder" in moving.stderr


def test_what_would_go_wrong_quietly_is_said(tmp_path, irstkit):
    """Colour, flat backgrounds, targets that find no place, options without a meaning here."""

    def told(folder, *more):
        result = irstkit(
            "synth", "images", "--out", tmp_path / f"of-{folder}", "--count", 3, "--size", 64, "--workers", 1,
            *(("--backgrounds", tmp_path / folder) if (tmp_path / folder).is_dir() else ()), *more,
        )  # fmt: skip
        assert result.exit_code == 0, result.stderr
        return result.stderr

    rng = np.random.default_rng(0)
    gray = cv2.GaussianBlur(rng.normal(90, 40, (90, 90)), (0, 0), 4).clip(0, 255).astype(np.uint8)
    for name, image in (
        ("colour", cv2.applyColorMap(gray, cv2.COLORMAP_JET)), ("flat", np.full((90, 90), 90, np.uint8)),
        ("low", gray.astype(np.uint16)), ("good", gray),
    ):  # fmt: skip
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "b.png"), image)
    assert "1 of 1 backgrounds are in colour, their channels differ: gray is 0.299 R" in told("colour")
    flat = told("flat")
    assert (
        "3 of 3 targets were dropped" in flat and "the backgrounds are flat" in flat and "--depth" not in flat
    )
    assert "--depth 8 stretches" in told("low")
    moving = irstkit(
        "synth", "sequences", "--out", tmp_path / "seq", "--sequences", 1, "--frames", 1, "--size", "64x64", "--workers", 1,
        "--backgrounds", tmp_path / "flat",
    )  # fmt: skip
    assert "the backgrounds are flat" in moving.stderr
    assert "colour" not in (good := told("good")) and "dropped" not in good and "flat" not in good
    assert "--exclude and --scenes do nothing here" in told("procedural", "--scenes", "predict")


@pytest.mark.parametrize(
    ("table", "code", "told"),
    [
        ("file,scene\n0.png,city\n1.png,sea\n", 0, "scenes: known of 2 of 8 backgrounds"),
        ("".join(["file,scene\n", *(f"{k}.png,city\n" for k in range(8))]), 0, ""),
        ("file,scene\nnosuch.png,city\n", 1, "no label in it is of a background"),
        ("", 1, "line 1: the columns 'file' and 'scene' are needed"),
        ("file;scene\n0.png;city\n", 1, "line 1: the columns 'file' and 'scene' are needed"),
        ("file,scene\n0.png,forest\n", 1, "line 2: no scene 'forest'"),
        ("file,scene\n0.png,city\n0.png,sea\n", 1, "line 3: '0.png' is sea here, city before"),
    ],
)
def test_scene_tables_that_say_less_than_they_seem_to(folder, tmp_path, irstkit, table, code, told):
    (tmp_path / "s.csv").write_text(table)
    result = irstkit(
        "synth", "images", "--out", tmp_path / "set", "--count", 2, "--size", 96, "--workers", 1, "--backgrounds", folder,
        "--scenes", tmp_path / "s.csv",
    )  # fmt: skip
    assert (result.exit_code, told in result.stderr) == (code, True), result.stderr
    assert ("scenes: known" in result.stderr) == ("known" in told)
    assert (tmp_path / "set").exists() == (code == 0)


def test_no_room_for_the_backgrounds_is_told_with_the_file(folder, tmp_path):
    """In a process of its own: the limit on the size of files stays with it."""
    command = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000)); from irstkit.cli import main; "
        f"sys.argv[1:] = ['synth', 'images', '--out', {str(tmp_path / 'set')!r}, '--count', '2', '--size', '96', "
        f"'--workers', '1', '--backgrounds', {str(folder)!r}]; main()"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "backgrounds.raw: cannot write: File too large" in done.stderr
    assert not (tmp_path / "set").exists()


def test_preview_writes_the_sheet_and_nothing_else(tmp_path, irstkit):
    result = irstkit("synth", "images", "--out", tmp_path / "look.png", "--preview", 3, "--size", 64)
    assert result.exit_code == 0, result.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["look.png"]
    assert cv2.imread(str(tmp_path / "look.png")).shape == (66, 198, 3)


def test_what_the_gate_turned_away_can_be_looked_at(folder, tmp_path, irstkit):
    write_png(folder / "flat.png", np.full((150, 170), 80, np.uint8))
    arguments = ("--preview", 4, "--size", 96, "--backgrounds", folder, "--refused")
    result = irstkit("synth", "images", "--out", tmp_path / "refused.png", *arguments)
    assert result.exit_code == 0, result.stderr
    assert cv2.imread(str(tmp_path / "refused.png")).shape == (98, 4 * 98, 3)
    generate(tmp_path / "set", 30, 0, folder, size=96, workers=1)
    rows = [json.loads(line) for line in (tmp_path / "set/manifest.jsonl").read_text().splitlines()]
    flat = sum(row["gate"].count("background flat") for row in rows)
    assert flat >= 1 and all("flat.png" not in row["background"] for row in rows)
    assert not any(row["background"].endswith("/flat") for row in rows)


def test_an_edited_set_is_not_continued_and_stays_as_it_is(tmp_path):
    out = tmp_path / "set"
    generate(out, 3, 1, size=64, workers=1)
    path = out / "annotations.json"
    whole = path.read_text()
    for changed in (
        json.dumps(json.loads(whole)),  # one line: another program's
        whole.replace('\n{"id": 3, "file_name"', '\n{"id": 4, "file_name"'),
        whole.replace('"file_name"', '"name"'),
        whole.replace('],\n"annotations"', ',\n{"id": 9}],\n"annotations"'),
        "",
    ):
        assert changed != whole
        path.write_text(changed)
        before = contents(out)
        with pytest.raises(IrstkitError, match="not as they were written"):
            generate(out, 5, 1, size=64, workers=1)
        assert contents(out) == before
    path.write_text(whole)
    generate(out, 5, 1, size=64, workers=1)
    generate(tmp_path / "other", 5, 1, size=64, workers=1)
    assert contents(out) == contents(tmp_path / "other")


@pytest.mark.parametrize("command", ["images", "sequences"])
@pytest.mark.parametrize("there", [False, True], ids=["before the first image", "half made"])
def test_two_processes_do_not_write_one_folder(command, there, irstkit, tmp_path):
    out = tmp_path / "synth"
    out.mkdir()
    small = ("--size", 48) if command == "images" else ("--size", "48x48", "--frames", 2)
    count = ("--count", 2) if command == "images" else ("--sequences", 1)
    arguments = ("synth", command, "--out", out, *count, *small, "--workers", 1)
    if there:
        assert irstkit(*arguments).exit_code == 0
    before = sorted(p.name for p in out.rglob("*"))
    with occupied(out):  # as another process would; a lock belongs to whoever opened the folder
        result = irstkit(*arguments)
    assert result.exit_code == 1 and "another process is writing here" in result.stderr
    assert sorted(p.name for p in out.rglob("*")) == before
    assert irstkit(*arguments).exit_code == 0


def test_workers_from_a_script_on_standard_input_are_refused_with_the_reason(tmp_path):
    script = (
        "from irstkit.annotate.errors import IrstkitError\nfrom irstkit.synth.generate import generate\n"
        f"try: generate({str(tmp_path / 'out')!r}, 60, size=48, workers=2)\nexcept IrstkitError as e: print(e)\n"
    )
    done = subprocess.run([sys.executable, "-"], input=script, capture_output=True, text=True, check=False)
    assert "standard input" in done.stdout and "workers=1" in done.stdout, done.stdout + done.stderr
