"""A network's view of each image as a vector: for maps of a data set, near-duplicates, and finding outliers."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..annotate.console import track
from ..annotate.errors import IrstkitError
from ..annotate.files import write_atomic
from ..datasets.records import Record, split_hash
from .predictor import Predictor, of_image
from .sequence import is_clip_model


def deepest_layer(predictor: Predictor, image: NDArray) -> str:
    """The submodule to take features from: the network's ``embedding_layer``, else the one whose output has the
    fewest positions and, among those, the most channels (the first of equals)."""
    named = getattr(predictor.network, "embedding_layer", None)
    if named is not None:
        return str(named)
    found: dict[str, tuple[int, int]] = {}
    handles = []

    def watch(name: str) -> Any:
        def hook(module: nn.Module, given: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.dim() == 4 and output.shape[2] * output.shape[3] > 1:
                found.setdefault(name, (output.shape[2] * output.shape[3], -output.shape[1]))

        return hook

    for name, module in predictor.network.named_modules():
        if name:
            handles.append(module.register_forward_hook(watch(name)))
    try:
        predictor.probability(image)
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        raise IrstkitError("no layer of this network gives a (B, C, H, W) map")
    return min(found, key=lambda name: found[name])


def embed(
    predictor: Predictor, records: Sequence[Record], out: str | Path, *, layer: str | None = None
) -> dict[str, Any]:
    """Write ``out``, an ``.npz`` with ``ids`` (N,) and ``embeddings`` (N, 2C) float32: the layer's channels,
    their mean and their largest value over the image, side by side; ``layer``, ``weights`` and ``split_hash``.

    Raises
    ------
    IrstkitError
        For a layer that the network does not have (listing some) or an ``out`` that exists.
    """
    out = Path(out)
    if out.suffix != ".npz":
        raise IrstkitError("expected a name ending in .npz", path=out)
    if out.exists():
        raise IrstkitError("exists: not overwritten", path=out, hint="name another --out")
    if is_clip_model(predictor.network):
        name = predictor.about.get("model", "this network")
        raise IrstkitError(f"{name} sees clips, embed takes networks of single images")
    layer = layer or deepest_layer(predictor, records[0].read_image())
    modules = dict(predictor.network.named_modules())
    if layer not in modules:
        known = ", ".join(name for name in modules if name and name.count(".") < 2)
        raise IrstkitError(f"no layer {layer!r}", hint=f"there are: {known}")
    held: list[Tensor] = []
    handle = modules[layer].register_forward_hook(lambda m, given, output: held.append(output))
    rows = []
    try:
        for record in track(records, "embedding"):
            held.clear()
            image = record.read_image()
            with of_image(record.id):
                predictor.probability(image)
            if not held or not isinstance(held[-1], Tensor) or held[-1].dim() != 4:
                raise IrstkitError(f"the layer {layer!r} gives no (B, C, H, W) map")
            maps = held[-1][0].float().flatten(1)
            rows.append(torch.cat((maps.mean(dim=1), maps.amax(dim=1))).cpu().numpy())
    finally:
        handle.remove()
    embeddings = np.stack(rows).astype(np.float32)
    ids = [r.id for r in records]
    buffer = io.BytesIO()
    np.savez(
        buffer,
        ids=np.array(ids),
        embeddings=embeddings,
        layer=np.array(layer),
        weights=np.array(predictor.about.get("weights", "")),
        split_hash=np.array(split_hash(ids)),
    )
    write_atomic(out, buffer.getvalue())
    return {"out": str(out), "images": len(ids), "dimensions": int(embeddings.shape[1]), "layer": layer}
