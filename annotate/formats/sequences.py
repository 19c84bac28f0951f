"""Sequences: NUDT-MIRSDT's folders with their ``.mat`` stacks, and videos with a box a frame."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import IrstkitError
from ..files import IMAGE_SUFFIXES, inside, list_images, natural_key, read_bytes, read_json, write_png
from ..findings import Findings, refuse_errors
from ..labels import Format, Label, LabelledImage, LabelSet, ReadOptions
from ..scan import scan_mask
from ..video import VIDEO_SUFFIXES, read_video

# ------------------------------------------------------------------------------------------------ MIRSDT


def read_mat(path: str | Path, key: str = "Mix") -> NDArray[np.float64]:
    """The (T, H, W) frames of a MATLAB file (version 5; NUDT-MIRSDT's ``Mix/00001.mat``, key ``Mix``).

    The file holds them as (H, W, T) or (H, W). Values must be finite.

    Raises
    ------
    IrstkitError
        Missing, damaged, version 7.3, no such key, not numbers.
    """
    from io import BytesIO

    from scipy.io import loadmat

    data = read_bytes(path)
    if data[:10] == b"\x89HDF\r\n\x1a\n"[:10] or b"MATLAB 7.3" in data[:128]:
        raise IrstkitError("a MATLAB 7.3 file", path=path, hint="save it with -v7")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = loadmat(BytesIO(data), variable_names=[key])
    except Exception as error:  # the parser raises many kinds on damaged files
        raise IrstkitError(f"not a MATLAB file that can be read: {str(error)[:80]}", path=path) from error
    if key not in content:
        raise IrstkitError(f"no variable {key!r} in the file", path=path)
    stack = np.asarray(content[key])
    if stack.dtype.kind not in "uif" or stack.ndim not in (2, 3) or stack.size == 0:
        raise IrstkitError(f"{key!r} is {stack.dtype} of shape {stack.shape}, expected (H, W, T)", path=path)
    frames = np.moveaxis(stack[:, :, None] if stack.ndim == 2 else stack, 2, 0).astype(np.float64)
    if not np.isfinite(frames).all():
        raise IrstkitError(f"{key!r} has values that are not finite", path=path)
    return np.ascontiguousarray(frames)


def _mirsdt_masks(path: Path) -> list[Path]:
    return sorted(path.glob("*/masks"), key=lambda p: natural_key(p.parent.name))


def read_mirsdt(path: Path, options: ReadOptions) -> LabelSet:
    """Read ``SequenceN/masks`` of a folder: names are those of ``SequenceN/images``, with sequence and frame."""
    folders = _mirsdt_masks(path)
    if not folders:
        raise IrstkitError("no SequenceN/masks in this folder", path=path)
    jobs = [(folder.parent, mask) for folder in folders for mask in list_images(folder)]

    def images() -> Iterator[LabelledImage]:
        for folder, mask in jobs:
            name = f"{folder.name}/images/{mask.name}"
            image = scan_mask(mask, name, options.rule)
            image.extra = {"sequence": folder.name} | (
                {"frame": int(mask.stem)} if mask.stem.isdigit() else {}
            )
            yield image

    return LabelSet(images(), len(jobs), info={"masks": options.rule.as_dict()})


def check_mirsdt(path: Path, options: ReadOptions) -> Findings:
    """Per sequence: damaged masks and stacks, frames without image, mask or stack, sizes that differ."""
    from .mask_folders import check_masks

    findings = Findings(path)
    for folder in _mirsdt_masks(path):
        images = folder.parent / "images"
        inner = ReadOptions(rule=options.rule, images=images if images.is_dir() else None)
        findings.extend(check_masks(folder, inner))
        for mat in sorted((folder.parent / "Mix").glob("*.mat"), key=lambda p: natural_key(p.name)):
            try:
                read_mat(mat)
            except IrstkitError as error:
                findings.note("unreadable", error.message, path=mat)
            if not any((folder / f"{mat.stem}{s}").exists() for s in IMAGE_SUFFIXES):
                findings.note("label-without-image", "a stack without mask", path=mat)
    if not _mirsdt_masks(path):
        findings.note("no-images", "no SequenceN/masks in this folder")
    return findings


def _is_mirsdt(path: Path) -> bool:
    return path.is_dir() and any((p.parent / "Mix").is_dir() for p in _mirsdt_masks(path)[:3])


# ------------------------------------------------------------------------------------------------- video


def parse_video_boxes(path: str | Path) -> tuple[dict[str, list[list[float] | None]], Findings]:
    """``{video name: [[x, y, w, h] or null a frame]}`` as written; every entry that is neither is a finding
    (and read as null)."""
    findings = Findings(path)
    document = read_json(path)
    if not isinstance(document, dict):
        raise IrstkitError("expected an object of videos, each with a list of boxes", path=path, where="$")
    out: dict[str, list[list[float] | None]] = {}
    for name, frames in document.items():
        if not isinstance(frames, list):
            findings.note("wrong-type", "expected a list of boxes", name)
            continue
        rows: list[list[float] | None] = []
        for index, box in enumerate(frames):
            where = f"{name}[{index}]"
            row: list[float] | None = None
            if box is None:
                pass
            elif not isinstance(box, list) or len(box) != 4 or any(type(v) not in (int, float) for v in box):
                findings.note("wrong-type", f"expected [x, y, w, h] or null, found {str(box)[:60]}", where)
            elif not all(math.isfinite(v) and abs(v) <= 1e7 for v in box):
                findings.note("not-finite", f"not a box: {box}", where)
            elif box[2] < 0 or box[3] < 0:
                findings.note("box-negative", f"a negative side: {box}", where)
            elif box[2] == 0 or box[3] == 0:
                findings.note("box-empty", f"a box without area: {box}", where)
            else:
                row = [float(v) for v in box]
            rows.append(row)
        out[name] = rows
    return out, findings


def _boxes_file(path: Path) -> tuple[Path, Path]:
    """The JSON of boxes and the folder of the videos, given either of them."""
    if path.is_file():
        return path, path.parent
    files = sorted(path.glob("*.json"))
    if len(files) != 1:
        raise IrstkitError(f"expected one JSON file of boxes in the folder, found {len(files)}", path=path)
    return files[0], path


def _video_file(folder: Path, name: str) -> Path | None:
    for suffix in ("", *VIDEO_SUFFIXES):
        try:
            file = inside(folder, name + suffix)
        except IrstkitError:
            return None
        if file.is_file():
            return file
    return None


def read_videos(path: Path, options: ReadOptions) -> LabelSet:
    """Read videos with a JSON of ``[x, y, w, h]`` or null a frame.

    The numbers are MATLAB's, from 1: the half-open box is (x - 1, y - 1, x - 1 + w, y - 1 + h). Frames are
    named ``VIDEO/000000.png`` and written to ``options.frames`` where that is given. Labels beyond the last
    frame are findings; frames beyond the last label are unlabelled and raise.
    """
    file, folder = _boxes_file(path)
    boxes, findings = parse_video_boxes(file)
    refuse_errors(findings, file)
    missing = [n for n in boxes if _video_file(folder, n) is None]
    if missing:
        raise IrstkitError(
            f"no video {missing[0]!r} in {folder} ({len(missing)} of {len(boxes)} missing)", path=file
        )

    def images() -> Iterator[LabelledImage]:
        for video, rows in boxes.items():
            found = _video_file(folder, video)
            assert found is not None
            count = 0
            for count, frame in enumerate(read_video(found), start=1):
                if count > len(rows):
                    raise IrstkitError(f"more frames than the {len(rows)} labels of {video!r}", path=found)
                name = f"{video}/{count - 1:06d}.png"
                if options.frames is not None:
                    write_png(options.frames / name, frame)
                row = rows[count - 1]
                labels = []
                if row is not None:
                    x, y, w, h = row
                    labels.append(Label((x - 1, y - 1, x - 1 + w, y - 1 + h)))
                size = (int(frame.shape[0]), int(frame.shape[1]))
                yield LabelledImage(name, size, labels, {"sequence": video, "frame": count - 1})
            if len(rows) > count:
                findings.note("extra-label", f"{len(rows)} labels, {count} frames", video)

    info: dict[str, Any] = {"boxes": {"from": "video labels, numbered from 1"}}
    return LabelSet(images(), sum(map(len, boxes.values())), info=info, findings=findings)


def check_videos(path: Path, options: ReadOptions) -> Findings:
    """Every bad box, missing and damaged videos, numbers of labels and frames, boxes that leave the frame."""
    from .list_files import note_leaving

    file, folder = _boxes_file(path)
    boxes, findings = parse_video_boxes(file)
    for video, rows in boxes.items():
        found = _video_file(folder, video)
        if found is None:
            findings.note("image-missing", f"no video {video!r} in {folder}", video)
            continue
        count = 0
        try:
            for frame in read_video(found):
                row = rows[count] if count < len(rows) else None
                if row is not None:
                    x, y, w, h = row
                    box = np.array([[x - 1, y - 1, x - 1 + w, y - 1 + h]])
                    size = (int(frame.shape[0]), int(frame.shape[1]))
                    note_leaving(box, size, f"{video}[{count}]", findings)
                count += 1
        except IrstkitError as error:
            findings.note("image-damaged", error.message, path=found)
        if len(rows) > count:
            findings.note("extra-label", f"{len(rows)} labels, {count} frames", video)
        elif len(rows) < count:
            findings.note("missing-label", f"{len(rows)} labels, {count} frames", video)
    return findings


def _is_videos(path: Path) -> bool:
    try:
        file, folder = _boxes_file(path)
        with file.open("rb") as stream:
            head = stream.read(400)
    except (IrstkitError, OSError):
        return False
    if file.suffix.lower() != ".json" or b'"images"' in head:
        return False
    if not any(f.suffix.lower() in VIDEO_SUFFIXES for f in folder.iterdir()):
        return False
    try:
        return isinstance(json.loads(read_bytes(file)), dict)
    except (ValueError, RecursionError, IrstkitError):
        return False


MIRSDT = Format(
    "mirsdt",
    "NUDT-MIRSDT: SequenceN/{images,masks,Mix}",
    read_mirsdt,
    None,
    check_mirsdt,
    _is_mirsdt,
)
VIDEO = Format(
    "video",
    "videos with a JSON of [x, y, w, h] a frame, numbered from 1 (Drone Detection Dataset)",
    read_videos,
    None,
    check_videos,
    _is_videos,
)
