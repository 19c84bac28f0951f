"""COCO run-length encoding as JSON text, through pycocotools."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from .masks import Instance


def encode_mask(mask: NDArray) -> dict[str, Any]:
    """Compressed RLE of a (H, W) boolean mask: ``{"size": [H, W], "counts": text}``."""
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(s) for s in rle["size"]], "counts": rle["counts"].decode("ascii")}


def encode_instance(instance: Instance, size: tuple[int, int]) -> dict[str, Any]:
    """Compressed RLE of one instance in an image of (height, width)."""
    full = np.zeros(size, dtype=np.uint8, order="F")
    x1, y1, x2, y2 = instance.box
    full[y1:y2, x1:x2] = instance.mask
    return encode_mask(full)


def decode_rle(rle: dict[str, Any]) -> NDArray[np.bool_]:
    """The (H, W) boolean mask of a compressed (text or bytes) or uncompressed (list of runs) RLE.

    Raises
    ------
    ValueError
        When the runs do not add up to height times width.
    """
    height, width = (int(s) for s in rle["size"])
    counts = rle["counts"]
    if isinstance(counts, list):
        runs = np.asarray(counts, dtype=np.int64)
        if (runs < 0).any() or int(runs.sum()) != height * width:
            raise ValueError(f"the runs add up to {int(runs.sum())}, not {height} x {width}")
        values = np.arange(len(runs)) % 2 == 1
        return np.repeat(values, runs).reshape(width, height).T
    return coco_mask.decode({"size": [height, width], "counts": counts}).astype(bool)


def rle_to_instance(rle: dict[str, Any]) -> Instance | None:
    """The decoded RLE cut to its tight box; None when it has no pixel."""
    mask = decode_rle(rle)
    ys, xs = np.nonzero(mask)
    if len(ys) == 0:
        return None
    x1, x2, y1, y2 = int(xs.min()), int(xs.max()) + 1, int(ys.min()), int(ys.max()) + 1
    return Instance((x1, y1, x2, y2), np.ascontiguousarray(mask[y1:y2, x1:x2]))
