"""Seeded damage to files of every format: no traceback, no hang, no box that is not in the file.

``IRSTKIT_MUTATIONS=2000 pytest tests/annotate/test_mutations.py`` runs the full number a format.
"""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io

from irstkit.annotate.convert import check
from irstkit.annotate.errors import IrstkitError
from irstkit.annotate.files import encode_png, read_mask
from irstkit.annotate.formats.sequences import read_mat
from irstkit.annotate.formats.voc_files import STYLES
from irstkit.annotate.labels import Label, LabelledImage, LabelSet, ReadOptions, WriteOptions, get_format
from irstkit.annotate.masks import mask_to_instances

COUNT = int(os.environ.get("IRSTKIT_MUTATIONS", "60"))
SLOWEST = 20.0  # seconds for one damaged file: a hang, on any machine
SIZE = (24, 32)
READ = ReadOptions(size=SIZE)
MASK = np.zeros(SIZE, bool)
MASK[3:6, 4:8] = MASK[4, 5:9] = MASK[15, 20] = MASK[20:24, 28:32] = True
LABELS = [Label(tuple(map(float, i.box)), instance=i) for i in mask_to_instances(MASK)]
IMAGES = [LabelledImage(f"s/{k}.png", SIZE, LABELS if k != 1 else []) for k in range(3)]
STRINGS = [b"NaN", b"Infinity", b"-1", b"0", b"1e309", b"null", b'"1"', b"[]", b"{}", b"9" * 25, b"0.5", b",", b" ",
           b"\n", b"\x00", b"\xff\xfe", b"true", b"<object>", b"</bndbox>", b"&lt;", b"]]", b"-", b"../", b"1,2,3,4,0"]  # fmt: skip


def damage(data: bytes, rng: np.random.Generator) -> bytes:
    """One to three of: a byte changed, a stretch removed, doubled, moved or cut off, a strange word put in."""
    for _ in range(int(rng.integers(1, 4))):
        if not data:
            return data
        at, kind = int(rng.integers(len(data))), int(rng.integers(7))
        stop = min(len(data), at + int(rng.integers(1, 30)))
        word = STRINGS[int(rng.integers(len(STRINGS)))]
        if kind == 0:
            data = data[:at] + bytes([int(rng.integers(256))]) + data[at + 1 :]
        elif kind == 1:
            data = data[:at] + data[stop:]
        elif kind == 2:
            data = data[:stop] + data[at:]
        elif kind == 3:
            data = data[:at] if rng.random() < 0.3 else data
        elif kind == 4:
            data = data[:at] + word + data[at:]
        elif kind == 5:
            data = data[:at] + word + data[stop:]
        else:  # a number replaced by another word
            numbers = list(re.finditer(rb"\d+\.?\d*", data))
            if numbers:
                found = numbers[int(rng.integers(len(numbers)))]
                data = data[: found.start()] + word + data[found.end() :]
    return data


def damage_json(data: bytes, rng: np.random.Generator) -> bytes:
    """Every other time a value deep in the document is replaced, so that the file stays JSON."""
    if rng.random() < 0.5:
        return damage(data, rng)
    document = json.loads(data)
    values = [
        None,
        True,
        -1,
        0,
        1.5,
        10**20,
        "1",
        "",
        [],
        {},
        [[]],
        [1, 2, 3, 4],
        float("nan"),
        float("inf"),
        -7.25,
    ]
    places: list[tuple] = []

    def walk(value):
        for key in value if isinstance(value, dict) else range(len(value)):
            places.append((value, key))
            if isinstance(value[key], (dict, list)):
                walk(value[key])

    walk(document)
    for _ in range(int(rng.integers(1, 4))):
        holder, key = places[int(rng.integers(len(places)))]
        if rng.random() < 0.2 and isinstance(holder, dict):
            holder.pop(key, None)
        elif isinstance(holder, dict) or key < len(holder):
            holder[key] = values[int(rng.integers(len(values)))]
    return json.dumps(document).encode()


def tokens(data: bytes) -> set[float]:
    """Every number that stands in the text."""
    out = set()
    for word in re.split(r"[^0-9eE+\-.]+", data.decode("utf-8", "replace")):
        try:
            out.add(float(word))
        except ValueError:
            continue
    return out


def coco_boxes(data: bytes) -> set[tuple]:
    out = set()
    for entry in json.loads(data.decode("utf-8-sig"))["annotations"]:
        if isinstance(entry, dict) and isinstance(entry.get("bbox"), list) and len(entry["bbox"]) == 4:
            x, y, w, h = entry["bbox"]
            if all(type(v) in (int, float) for v in entry["bbox"]):
                out.add((float(x), float(y), float(x + w), float(y + h)))
    return out


def yolo_boxes(data: bytes) -> set[tuple]:
    out = set()
    for line in data.decode().splitlines():
        fields = line.split()
        if len(fields) == 5:
            try:
                cx, cy, w, h = (float(v) for v in fields[1:])
            except ValueError:
                continue
            x, y, w, h = cx * SIZE[1], cy * SIZE[0], w * SIZE[1], h * SIZE[0]
            out.add((x - w / 2, y - h / 2, x + w / 2, y + h / 2))
    return out


def files(kind: str, folder: Path) -> Path:
    """Good files of a format; the path that is read."""
    writer = get_format(kind).write
    out = folder / {"coco": "a.json", "sstnet": "a.txt"}.get(kind, kind)
    if kind == "irdst":
        (folder / "masks").mkdir()
        for k in (1, 2):
            (folder / "masks" / f"41({k}).png").write_bytes(encode_png(MASK.astype(np.uint8) * 255))
        out = folder / "test.txt"
        out.write_text("41(1)\n/41(2)\n")
    elif kind == "centres":
        out = folder / "data5.txt"
        out.write_text("".join(f"{k} {10 + k} {5.5 + k}\n" for k in range(5)))
    elif kind == "video":
        out = folder / "video"
        out.mkdir()
        video = cv2.VideoWriter(str(out / "a.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, SIZE[::-1])
        for k in range(4):
            video.write(np.full((*SIZE, 3), 60 + k, np.uint8))
        video.release()
        (out / "boxes.json").write_text(json.dumps({"a": [[1, 2, 3, 4], None, [2.5, 3, 4, 4], [9, 9, 5, 5]]}))
    elif kind == "mirsdt":
        out = folder / "mirsdt"
        for name in ("Sequence1", "Sequence2"):
            for part in ("images", "masks", "Mix"):
                (out / name / part).mkdir(parents=True)
            for k in (1, 2):
                png = encode_png(MASK.astype(np.uint8) * 255)
                (out / name / "images" / f"{k:05d}.png").write_bytes(png)
                (out / name / "masks" / f"{k:05d}.png").write_bytes(png)
                scipy.io.savemat(out / name / "Mix" / f"{k:05d}.mat", {"Mix": np.ones((*SIZE, 2)) * k})
    else:
        assert writer is not None
        writer(LabelSet(IMAGES, 3, ("target",)), out, WriteOptions())
    return out


ALL = ("coco", "polygons", "yolo", "voc", "sirst-v2", "sstnet", "irdst", "centres", "masks", "instances", "mirsdt", "video")  # fmt: skip


def true_boxes(kind: str, data: bytes, box: tuple) -> bool:
    """Whether a box that was read stands in the damaged file, by an independent and simpler reading."""

    def near(a: float, values) -> bool:
        return any(abs(a - v) <= 1e-6 * max(1.0, abs(v)) for v in values)

    if kind == "coco":
        return box in coco_boxes(data)
    if kind == "yolo":
        return any(np.allclose(box, other, atol=1e-6) for other in yolo_boxes(data))
    if kind in STYLES:
        return all(near(v - shift, tokens(data)) for v, shift in zip(box, STYLES[kind], strict=True))
    if kind == "sstnet":
        return all(near(v, tokens(data)) for v in box)
    if kind == "centres":
        found = tokens(data)  # a box that is clipped at the border has another centre
        x = near((box[0] + box[2]) / 2, found) or box[0] == 0 or box[2] == SIZE[1]
        return x and (near((box[1] + box[3]) / 2, found) or box[1] == 0 or box[3] == SIZE[0])
    if kind == "video":
        found = tokens(data)
        sides = near(box[2] - box[0], found) and near(box[3] - box[1], found)
        return sides and near(box[0] + 1, found) and near(box[1] + 1, found)
    return box in {label.box for label in LABELS}  # masks: a damaged PNG never gives another picture


@pytest.mark.parametrize("name", ALL)
def test_damaged_files(name, tmp_path, capfd):
    kind = "coco" if name == "polygons" else name
    path = files(kind, tmp_path)
    if name == "polygons":
        form = get_format("coco")
        assert form.read is not None and form.write is not None
        form.write(form.read(path, READ), path, WriteOptions(overwrite=True, polygons=True))
    every = sorted(f for f in (path.rglob("*") if path.is_dir() else [path]) if f.is_file())
    originals = {f: f.read_bytes() for f in every}
    form = get_format(kind)
    rng = np.random.default_rng([len(name), *name.encode()])
    good = bad = slowest = 0
    for _ in range(COUNT):
        file = every[int(rng.integers(len(every)))]
        how = damage_json if file.suffix == ".json" else damage
        data = how(originals[file], rng)
        file.write_bytes(data)
        start = time.perf_counter()
        refused = errors = False
        try:
            _, findings = check(path, source_format=kind, read=READ)
            errors = bool(findings.errors)
        except IrstkitError:
            errors = True
        try:
            assert form.read is not None
            read = form.read(path, READ)
            boxes = [
                (file_of(image, file, kind), label.box) for image in read.images for label in image.labels
            ]
        except IrstkitError:
            refused, boxes = True, []
        slowest = max(slowest, time.perf_counter() - start)
        assert slowest < SLOWEST
        assert errors or not refused or kind in ("irdst", "video"), "what cannot be read has an error"
        for mine, box in boxes:
            holders = [data] if mine and file.suffix not in (".mp4", ".mat") else list(originals.values())
            assert any(true_boxes(kind, holder, box) for holder in holders), (data, box)
        bad, good = bad + refused, good + (not refused)
        file.write_bytes(originals[file])
    assert bad > 0, "the damage was damage"
    assert good > 0, "some of it can be read"
    printed = capfd.readouterr()
    assert printed == ("", "")
    if COUNT >= 1000:
        with capfd.disabled():
            print(f"{name}: {COUNT} damaged files, {bad} refused, {good} read, slowest {slowest:.3f} s")


def file_of(image: LabelledImage, file: Path, kind: str) -> bool:
    """Whether the image's labels came from the damaged file (folders hold others that are whole)."""
    if kind in ("coco", "sstnet", "irdst", "centres", "video"):
        return True
    return Path(image.name).stem == file.stem


def test_damaged_stacks(tmp_path):
    """A damaged .mat gives an array or one error."""
    path = tmp_path / "a.mat"
    rng = np.random.default_rng(1)
    for compressed in (False, True):
        scipy.io.savemat(path, {"Mix": np.arange(96.0).reshape(4, 6, 4)}, do_compression=compressed)
        data = path.read_bytes()
        assert read_mat(path).shape == (4, 4, 6)
        for _ in range(COUNT):
            path.write_bytes(damage(data, rng))
            try:
                assert np.isfinite(read_mat(path)).all()
            except IrstkitError:
                continue


def test_damaged_masks_never_change(tmp_path):
    path = tmp_path / "a.png"
    data = encode_png(MASK.astype(np.uint8) * 255)
    rng = np.random.default_rng(2)
    refused = 0
    for _ in range(COUNT):
        path.write_bytes(damage(data, rng))
        try:
            np.testing.assert_array_equal(read_mask(path), MASK)
        except IrstkitError:
            refused += 1
    assert refused > COUNT / 2
