"""Our own embeddings in FiftyOne: similarity search, and a 2-D map."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...annotate.errors import IrstkitError
from ...annotate.files import read_bytes
from . import store
from .predictions import image_names

SIMILARITY, MAP = "similar", "map"


def read_embeddings(path: Path) -> tuple[list[str], NDArray[np.float32]]:
    """(names, (N, D) values) of an .npz file with the arrays ``ids`` (text) and ``embeddings``.

    Raises
    ------
    IrstkitError
        When an array is missing, of a wrong shape, or not finite.
    """
    read_bytes(path)
    try:
        with np.load(path, allow_pickle=False) as data:
            missing = [key for key in ("ids", "embeddings") if key not in data]
            if missing:
                raise IrstkitError(
                    f"the array {missing[0]!r} is missing, there are {sorted(data)}",
                    path=path,
                    hint="ids: N names of images, embeddings: (N, D) numbers",
                )
            ids, values = data["ids"], data["embeddings"]
    except (ValueError, OSError, zipfile.BadZipFile, EOFError) as error:
        raise IrstkitError(f"not an .npz file of arrays: {error}", path=path) from error
    if ids.ndim != 1 or ids.dtype.kind not in "US":
        raise IrstkitError(f"ids are N names, found {ids.dtype} {ids.shape}", path=path)
    if values.ndim != 2 or len(values) != len(ids) or values.dtype.kind != "f":
        raise IrstkitError(
            f"embeddings are ({len(ids)}, D) floats, found {values.dtype} {values.shape}", path=path
        )
    if not np.isfinite(values).all():
        raise IrstkitError("embeddings hold values that are not finite", path=path)
    return [str(i) for i in ids], values.astype(np.float32)


def push_embeddings(dataset: Any, path: Path, *, touched: bool) -> int:
    """Similarity by the embeddings and their principal components as a map; the number of images.

    Raises
    ------
    IrstkitError
        When names are unknown to the data set, or an image has no embedding.
    """
    digest = hashlib.sha256(read_bytes(path)).hexdigest()
    info = dataset.info[store.INFO]
    if not touched and info.get("embeddings") == digest:
        return int(dataset.count())
    names, values = read_embeddings(path)
    with store.database_errors("pushing embeddings"):
        known = image_names(dataset)
        row = {}
        for k, name in enumerate(names):
            if name not in known:
                raise IrstkitError(f"no image {name!r} in the data set", path=path)
            row[known[name][0]] = k
        ids = dataset.values("id")
        without = [i for i in ids if i not in row]
        if without:
            raise IrstkitError(
                f"{len(without)} of {len(ids)} images have no embedding",
                path=path,
                hint="embed the whole set",
            )
        ordered = values[[row[i] for i in ids]]
        import fiftyone.brain as fob

        for key in (SIMILARITY, MAP):
            if key in dataset.list_brain_runs():
                dataset.delete_brain_run(key)
        fob.compute_similarity(dataset, embeddings=ordered, brain_key=SIMILARITY, backend="sklearn")
        if len(ids) > 2 and ordered.shape[1] > 1:
            fob.compute_visualization(dataset, embeddings=ordered, method="pca", brain_key=MAP, num_dims=2)
        dataset.info[store.INFO] = {**info, "embeddings": digest}
        dataset.save()
    return len(ids)
