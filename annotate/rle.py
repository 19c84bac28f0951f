"""COCO run-length encoding: column-major runs that begin with background, as text or as a list.

A target's runs are worked out from its own few pixels and never from a frame, so that the cost does not
depend on the frame's size; pycocotools packs them. Text is unpacked here, because pycocotools trusts it:
damaged counts could make it write outside its buffers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from .masks import Instance
from .png import MAX_PIXELS


def instance_runs(instance: Instance, size: tuple[int, int]) -> list[int]:
    """Uncompressed runs of one instance in an image of (height, width); it must lie inside.

    Raises
    ------
    ValueError
        When the instance's box leaves the image.
    """
    height, width = size
    x1, y1, x2, y2 = instance.box
    if not (0 <= x1 <= x2 <= width and 0 <= y1 <= y2 <= height):
        raise ValueError(f"the instance {instance.box} leaves the image of {width}x{height}")
    rows, columns = instance.mask.shape
    padded = np.zeros((columns, rows + 2), dtype=bool)  # a background pixel before and after each column
    padded[:, 1:-1] = instance.mask.T
    flat = padded.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    if len(edges) == 0:
        return [height * width]
    column, row = np.divmod(edges, rows + 2)
    position = (column + x1) * height + row + y1
    if rows == height:  # runs that reach the bottom go on at the top of the next column
        inner = np.flatnonzero(position[1:-1:2] == position[2::2]) * 2 + 1
        position = np.delete(position, np.concatenate([inner, inner + 1]))
    runs = [int(position[0]), *(position[1:] - position[:-1]).tolist()]
    rest = height * width - int(position[-1])
    return [*runs, rest] if rest else runs


def encode_instance(instance: Instance, size: tuple[int, int]) -> dict[str, Any]:
    """Compressed RLE of one instance in an image of (height, width)."""
    return compress(instance_runs(instance, size), size)


def encode_mask(mask: NDArray) -> dict[str, Any]:
    """Compressed RLE of a (H, W) boolean mask: ``{"size": [H, W], "counts": text}``."""
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(s) for s in rle["size"]], "counts": rle["counts"].decode("ascii")}


def compress(runs: list[int], size: tuple[int, int]) -> dict[str, Any]:
    """Runs as COCO's text form."""
    rle = coco_mask.frPyObjects({"size": list(size), "counts": runs}, *size)
    return {"size": [int(size[0]), int(size[1])], "counts": rle["counts"].decode("ascii")}


def unpack(counts: str | bytes) -> list[int]:
    """The runs of COCO's text form: 5 bits a character, low bits first, from the fourth on as differences.

    Raises
    ------
    ValueError
        When a character is not of the code or the text ends inside a number.
    """
    text = counts.encode("ascii") if isinstance(counts, str) else counts
    runs: list[int] = []
    value = shift = 0
    for byte in text:
        code = byte - 48
        if not 0 <= code < 64 or shift > 60:
            raise ValueError(f"the character {chr(byte)!r} cannot stand here in RLE counts")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("RLE counts end inside a number")
    return runs


def rle_runs(rle: dict[str, Any]) -> tuple[list[int], tuple[int, int]]:
    """Runs and (height, width) of an RLE in either form.

    Raises
    ------
    ValueError
        When it is not an RLE, or its runs are negative or do not add up to height times width.
    """
    size = rle.get("size") if isinstance(rle, dict) else None
    if (
        not isinstance(size, (list, tuple))
        or len(size) != 2
        or not all(type(s) is int and s > 0 for s in size)
    ):
        raise ValueError(f"an RLE's size is [height, width], found {str(size)[:60]}")
    if size[0] * size[1] > MAX_PIXELS:
        raise ValueError(f"an RLE of {size[1]}x{size[0]}, more than the {MAX_PIXELS} pixels accepted")
    counts = rle.get("counts")
    if isinstance(counts, (str, bytes)):
        runs = unpack(counts)
    elif isinstance(counts, list) and all(type(c) is int for c in counts):
        runs = counts
    else:
        raise ValueError("an RLE's counts are text or a list of whole numbers")
    if any(run < 0 for run in runs):
        raise ValueError("an RLE with a negative run")
    if sum(runs) != size[0] * size[1]:
        raise ValueError(f"the runs add up to {sum(runs)}, not {size[0]} x {size[1]}")
    return runs, (size[0], size[1])


def decode_rle(rle: dict[str, Any]) -> NDArray[np.bool_]:
    """The (H, W) boolean mask of a compressed (text or bytes) or uncompressed (list of runs) RLE.

    Raises
    ------
    ValueError
        When the runs do not add up to height times width.
    """
    runs, (height, width) = rle_runs(rle)
    values = np.arange(len(runs)) % 2 == 1
    return np.ascontiguousarray(np.repeat(values, runs).reshape(width, height).T)


def rle_to_instance(rle: dict[str, Any]) -> Instance | None:
    """The decoded RLE cut to its tight box; None when it has no pixel.

    Raises
    ------
    ValueError
        As :func:`decode_rle`.
    """
    runs, (height, _) = rle_runs(rle)
    ends = np.cumsum(np.asarray(runs, dtype=np.int64))
    starts, stops = ends[0::2], ends[1::2]
    starts = starts[: len(stops)]
    keep = stops > starts
    starts, stops = starts[keep], stops[keep]
    if len(starts) == 0:
        return None
    x1, x2 = int(starts[0]) // height, (int(stops[-1]) - 1) // height + 1
    columns = np.zeros((x2 - x1) * height, dtype=bool)
    for start, stop in zip((starts - x1 * height).tolist(), (stops - x1 * height).tolist(), strict=True):
        columns[start:stop] = True
    patch = columns.reshape(x2 - x1, height).T
    rows = np.flatnonzero(patch.any(axis=1))
    y1, y2 = int(rows[0]), int(rows[-1]) + 1
    return Instance((x1, y1, x2, y2), np.ascontiguousarray(patch[y1:y2]))
