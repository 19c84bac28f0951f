"""Shards: deterministic tars that WebDataset reads and irstkit reads back equal; broken ones are one clear error."""

import hashlib
import io
import json
import re
import shutil
import tarfile

import cv2
import numpy as np
import pytest

from irstkit.annotate import tars
from irstkit.annotate.errors import IrstkitError
from irstkit.annotate.files import read_image, write_png
from irstkit.annotate.tars import list_tar, write_tar
from irstkit.datasets import shards as module
from irstkit.datasets.make import import_dataset
from irstkit.datasets.readers import open_dataset
from irstkit.datasets.shards import export_shards


def contents(root):
    return {
        p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in root.rglob("*")
        if p.is_file()
    }


@pytest.fixture
def own(make_pairs, tmp_path):
    """A set as irstkit writes it, with lists and an image without target."""
    root = make_pairs(count=9)
    cv2.imwrite(str(root / "masks/000003.png"), np.zeros((48, 64), np.uint8))
    out = tmp_path / "own"
    import_dataset(open_dataset(root), out)
    lists = out / "splits" / "mine"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("".join(f"images/{k:06d}\n" for k in range(7)))
    (lists / "test.txt").write_text("".join(f"images/{k:06d}\n" for k in range(7, 9)))
    return out


def same(a, b):
    """Two records show and know the same."""
    assert (a.id, a.size, a.bit_depth, a.sequence, a.frame, dict(a.splits), a.source, a.scene, a.track_ids) == (
        b.id, b.size, b.bit_depth, b.sequence, b.frame, dict(b.splits), b.source, b.scene, b.track_ids,
    )  # fmt: skip
    assert np.array_equal(a.read_image(), b.read_image()) and a.read_image().dtype == b.read_image().dtype
    assert (a.mask is None) == (b.mask is None)
    if a.mask is not None:
        assert np.array_equal(a.read_mask(), b.read_mask())
    assert (a.boxes is None) == (b.boxes is None)
    if a.boxes is not None:
        assert np.array_equal(a.boxes, b.boxes)

    def known(record):
        plain = {k: v for k, v in record.attributes.items() if k != "annotations"}
        own = [
            {k: v for k, v in x.items() if k not in ("id", "image_id")}
            for x in record.attributes.get("annotations", ())
        ]
        return json.dumps([plain, own], sort_keys=True)

    assert known(a) == known(b)


def test_an_own_set_comes_back_equal(own, tmp_path):
    done = export_shards(open_dataset(own), tmp_path / "s", size=3)
    assert (done.images, done.shards) == (9, 4) and done.targets > 9
    before, after = open_dataset(own), open_dataset(tmp_path / "s")
    assert after.layout == "webdataset" and after.default_scheme == "mine" and not after.findings
    by_id = {r.id: r for r in after}
    for record in before:
        same(record, by_id[record.id])
    assert {k: [r.id for r in after.part(k)] for k in ("train", "test")} == {
        k: [r.id for r in before.part(k)] for k in ("train", "test")
    }
    import_dataset(after, tmp_path / "back")  # and unpacked again
    again = {r.id: r for r in open_dataset(tmp_path / "back")}
    for record in before:
        same(record, again[record.id])


def test_a_published_layout_16_bit_folders_dots_and_other_formats(tmp_path):
    rng = np.random.default_rng(0)
    root = tmp_path / "pairs"
    for k, (name, kind) in enumerate([("a/one.v2", np.uint16), ("a/two", np.uint8), ("b/one.v2", np.uint8)]):
        image = rng.integers(0, 60000 if kind is np.uint16 else 200, (40, 50)).astype(kind)
        mask = np.zeros((40, 50), np.uint8)
        mask[10 : 12 + k, 20:23] = 255
        suffix = ".bmp" if k == 1 else ".png"
        (root / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "masks" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / "images" / f"{name}{suffix}"), image)
        cv2.imwrite(str(root / "masks" / f"{name}.png"), mask)
    before = open_dataset(root)
    export_shards(before, tmp_path / "s")
    assert list(list_tar(tmp_path / "s/all-000000.tar"))[:3] == [
        "a/one-v2.png", "a/one-v2.mask.png", "a/one-v2.json"
    ]  # fmt: skip
    after = {r.id: r for r in open_dataset(tmp_path / "s")}
    for record in before:
        found = after[record.id]
        assert np.array_equal(record.read_image(), found.read_image())
        assert record.read_image().dtype == found.read_image().dtype
        assert np.array_equal(record.read_mask(), found.read_mask())
        assert np.array_equal(record.read_boxes(), found.read_boxes())
        (target,) = found.attributes["annotations"]
        assert target["area"] == record.read_mask().sum()
    shutil.copy(root / "images/a/two.bmp", root / "images/a/one-v2.bmp")
    shutil.copy(root / "masks/a/two.png", root / "masks/a/one-v2.png")
    with pytest.raises(IrstkitError, match="would have one key, 'a/one-v2'"):
        export_shards(open_dataset(root), tmp_path / "t")


def test_boxes_alone_and_no_labels(make_pairs, tmp_path):
    root = make_pairs(count=2)
    shutil.rmtree(root / "masks")
    export_shards(open_dataset(root), tmp_path / "bare")
    assert all(r.mask is None and r.boxes is None for r in open_dataset(tmp_path / "bare"))
    coco = {
        "images": [{"id": 1, "file_name": "000000.png", "width": 64, "height": 48}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [3, 4, 5, 6.5], "iscrowd": 0}],
        "categories": [{"id": 1, "name": "target"}],
    }
    (root / "images/annotations.json").write_text(json.dumps(coco))
    before = open_dataset(root / "images")
    export_shards(before, tmp_path / "boxes")
    (record,) = open_dataset(tmp_path / "boxes")
    assert record.mask is None and record.boxes.tolist() == [[3, 4, 8, 10.5]]
    same(before[0], record)


def test_as_webdataset_reads_them(own, tmp_path):
    """Its rule: the key is the path up to the first dot of the name; samples are neighbours of one key."""
    export_shards(open_dataset(own), tmp_path / "s", size=4)
    samples = []
    for shard in sorted((tmp_path / "s").glob("train-*.tar")):
        with tarfile.open(shard, "r|") as stream:  # as a stream, front to back
            for member in stream:
                assert (member.mtime, member.uid, member.gid, member.mode) == (0, 0, 0, 0o644)
                assert member.isreg()
                key, suffix = re.match(r"^((?:.*/|)[^.]+)[.]([^/]*)$", member.name).groups()
                if not samples or samples[-1]["__key__"] != key:
                    samples.append({"__key__": key})
                assert suffix not in samples[-1]
                samples[-1][suffix] = stream.extractfile(member).read()
    assert [s["__key__"] for s in samples] == [f"{k:06d}" for k in range(7)]
    for sample in samples:
        assert set(sample) == {"__key__", "png", "mask.png", "json"}
        image = cv2.imdecode(np.frombuffer(sample["png"], np.uint8), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(image, read_image(own / "images" / f"{sample['__key__']}.png"))
        mask = cv2.imdecode(np.frombuffer(sample["mask.png"], np.uint8), cv2.IMREAD_UNCHANGED)
        about = json.loads(sample["json"])
        assert sum(a["area"] for a in about["annotations"]) == (mask == 255).sum() == (mask > 0).sum()


def test_same_bytes_again_and_after_an_interruption(own, tmp_path, monkeypatch):
    export_shards(open_dataset(own), tmp_path / "one", size=2)
    expected = contents(tmp_path / "one")
    assert set(expected) == {"index.json", *(f"train-{k:06d}.tar" for k in range(4)), "test-000000.tar"}
    index = json.loads((tmp_path / "one/index.json").read_text())
    assert all(expected[row["name"]] == row["sha256"] for row in index["shards"])
    shutil.copytree(own, tmp_path / "elsewhere" / "own")  # other times, another place
    export_shards(open_dataset(tmp_path / "elsewhere" / "own"), tmp_path / "two", size=2)
    assert contents(tmp_path / "two") == expected
    honest, calls = module._write, []

    def failing(root, name, *rest):
        calls.append(name)
        if len(calls) == 3:
            (root / ".train-000002-x1y2.tar").write_bytes(b"half")
            raise KeyboardInterrupt
        return honest(root, name, *rest)

    monkeypatch.setattr(module, "_write", failing)
    with pytest.raises(KeyboardInterrupt):
        export_shards(open_dataset(own), tmp_path / "three", size=2)
    assert not (tmp_path / "three/index.json").exists()
    with pytest.raises(IrstkitError, match="the beginning of another export"):
        export_shards(open_dataset(own), tmp_path / "three", size=3)
    export_shards(open_dataset(own), tmp_path / "three", size=2)
    assert calls[3:] == ["train-000002", "train-000003", "test-000000"]  # whole shards were trusted
    assert contents(tmp_path / "three") == expected
    with pytest.raises(IrstkitError, match="exists already"):
        export_shards(open_dataset(own), tmp_path / "three", size=2)
    export_shards(open_dataset(own), tmp_path / "three", size=5, overwrite=True)
    assert set(contents(tmp_path / "three")) == {
        "index.json", "train-000000.tar", "train-000001.tar", "test-000000.tar"
    }  # fmt: skip
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("x")
    with pytest.raises(IrstkitError, match="not empty"):
        export_shards(open_dataset(own), tmp_path / "mine", overwrite=True)


def rewrite(path, change):
    """A tar with its members changed: ``change`` gets and returns a list of (TarInfo, content)."""
    with tarfile.open(path) as tar:
        found = [(m, tar.extractfile(m).read()) for m in tar]
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for info, data in change(found):
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data) if data else None)
    index = json.loads((path.parent / "index.json").read_text())
    for row in index["shards"]:
        if row["name"] == path.name:
            row["bytes"] = path.stat().st_size
    (path.parent / "index.json").write_text(json.dumps(index))


def without(suffix):
    return lambda found: [(i, d) for i, d in found if i.name != f"000001.{suffix}"]


def renamed(name):
    def change(found):
        found[0][0].name = name
        return found

    return change


def linked(found):
    found[0][0].type, found[0][0].linkname = tarfile.SYMTYPE, "/etc/passwd"
    return [(found[0][0], b""), *found[1:]]


def edited(**changes):
    def change(found):
        out = []
        for info, data in found:
            if info.name == "000001.json":
                about = json.loads(data)
                for key, value in changes.items():
                    place = about
                    for part in key.split("__")[:-1]:
                        place = place[part]
                    place[key.split("__")[-1]] = value
                data = json.dumps(about).encode()
            out.append((info, data))
        return out

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (without("png"), "the sample '000001' has no 000001.png"),
        (without("mask.png"), "the sample '000001' has no 000001.mask.png"),
        (without("json"), "the sample '000001' has no 000001.json"),
        (renamed("../000000.png"), "'../000000.png' leaves the folder"),
        (renamed("/000000.png"), "leaves the folder"),
        (renamed("000001.png"), "there twice"),
        (renamed("000000.jpg"), "has no 000000.png"),
        (linked, "is no plain file"),
        (lambda f: f[:-3], "3 samples, index.json says 4"),
        (edited(id="../../x"), "leaves the data set's folder"),
        (edited(id=""), "$.id: expected a text"),
        (edited(id="images/000000"), "is there twice"),
        (edited(bit_depth=12), "$.bit_depth: expected 8 or 16"),
        (edited(splits=["train"]), "$.splits"),
        (edited(image__width="64"), "$.image.width: expected a whole number"),
        (edited(image=None), "$.image: expected an object"),
        (edited(annotations=5), "$.annotations: expected a list"),
        (edited(annotations=[5]), "$.annotations: expected a list of objects"),
        (edited(annotations=[{"bbox": [1, 2, 3]}]), "bbox is not four numbers"),
        (edited(mask="yes"), "$.mask"),
        (
            lambda f: [(i, b"{" if i.name == "000001.json" else d) for i, d in f],
            "000001.json: not valid JSON",
        ),
        (lambda f: [(i, d[:-9] if i.name == "000001.png" else d) for i, d in f], "000001.png: truncated PNG"),
        (edited(image__width=65), "000001.png: the image is 64x48, 65x48 was expected"),
    ],
)
def test_changed_shards_are_one_clear_error(own, tmp_path, irstkit, change, told):
    export_shards(open_dataset(own), tmp_path / "s", size=4)
    rewrite(tmp_path / "s/train-000000.tar", change)
    result = irstkit("data", "import", tmp_path / "s", "--out", tmp_path / "back")
    assert result.exit_code == 1 and told in result.stderr, result.stderr
    assert result.stderr.strip().count("\n") == 0
    assert not (tmp_path / "back").exists()


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 0x55
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda r: cut(r / "train-000000.tar", 0), "truncated tar file"),
        (lambda r: cut(r / "train-000000.tar", 700), "'000000.png' is not whole"),
        (lambda r: cut(r / "train-000000.tar", 4096), "truncated tar file"),
        (lambda r: flip(r / "train-000000.tar", 3), "damaged"),
        (lambda r: flip(r / "train-000000.tar", 130), "damaged"),
        (lambda r: (r / "train-000000.tar").write_bytes(b"hello" * 500), "not a tar file, or damaged"),
        (lambda r: (r / "train-000000.tar").unlink(), "no such file"),
        (
            lambda r: shutil.copy(r / "train-000000.tar", r / "more.tar"),
            "a shard that index.json does not list",
        ),
        (lambda r: (r / "index.json").write_text("{"), "not valid JSON"),
        (lambda r: (r / "index.json").write_text("{}"), "not an index of shards"),
        (
            lambda r: (r / "index.json").write_text(
                (r / "index.json").read_text().replace('"name": "train-000000.tar"', '"name": "../x.tar"')
            ),
            "$.shards[0].name: a file name ending in .tar",
        ),
        (
            lambda r: (r / "index.json").write_text(
                (r / "index.json").read_text().replace('"samples": 4', '"samples": 5')
            ),
            "is not the sum",
        ),
    ],
)
def test_broken_shards_are_one_clear_error(own, tmp_path, irstkit, spoil, told):
    export_shards(open_dataset(own), tmp_path / "s", size=4)
    spoil(tmp_path / "s")
    result = irstkit("data", "import", tmp_path / "s", "--out", tmp_path / "back")
    assert result.exit_code == 1 and told in result.stderr, result.stderr
    assert result.stderr.strip().count("\n") == 0


def test_a_tar_as_pythons_own_reader_sees_it(tmp_path):
    rng = np.random.default_rng(1)
    files = [(f"d{k}/{k}.bin", rng.bytes(int(n))) for k, n in enumerate([0, 1, 511, 512, 513, 70000])]
    files.append((f"{'long' * 30}/name.png", b"x"))  # over 100 characters: the header's prefix
    size = write_tar(tmp_path / "t.tar", files)
    assert size == (tmp_path / "t.tar").stat().st_size
    with tarfile.open(tmp_path / "t.tar") as tar:
        assert [(m.name, tar.extractfile(m).read()) for m in tar] == files
    for name, data in files:
        assert tars.read_member(tmp_path / "t.tar" / name) == data
    with pytest.raises(IrstkitError, match="no such member"):
        tars.read_member(tmp_path / "t.tar" / "none")
    with pytest.raises(IrstkitError, match="too long"):
        write_tar(tmp_path / "u.tar", [("x" * 300, b"")])
    assert tars.read_member(tmp_path / "no" / "tar.png") is None
    with pytest.raises(IrstkitError, match="no such file"):
        read_image(tmp_path / "t.txt.png" / "x.png")
    write_png(tmp_path / "plain.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(IrstkitError, match="no such file"):
        read_image(tmp_path / "plain.png" / "x.png")


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--images", "png"], "not for shards"),
        (["--digits", 8], "not for shards"),
        (["--shard-size", 0], "--shard-size"),
    ],
)
def test_options_that_do_not_go_together(own, tmp_path, irstkit, more, told):
    result = irstkit("data", "export", own, "--to", "webdataset", "--out", tmp_path / "s", *more)
    assert result.exit_code == 2 and told in result.stderr
    result = irstkit("data", "export", own, "--to", "coco", "--shard-size", 5, "--out", tmp_path / "s")
    assert result.exit_code == 2 and "goes with --to webdataset" in result.stderr
    assert not (tmp_path / "s").exists()


def test_curation_says_what_to_do(own, tmp_path):
    from irstkit.datasets.curation.sources import open_sources

    export_shards(open_dataset(own), tmp_path / "s")
    with pytest.raises(IrstkitError, match=r"data import .* unpacks them"):
        open_sources([tmp_path / "s"])
