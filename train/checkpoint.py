"""Checkpoints: dictionaries of tensors and plain types, read with ``weights_only=True``.

Keys: ``kind`` and ``format``; ``model`` {name, options, state}; ``normalisation`` {mean, std} of images in
0..1; ``step``, ``epoch``; ``metrics`` on the validation part; ``data`` (names, counts, split hashes);
``seen`` (ids of the images trained or selected on, by data set, also by what it started from: ``init``);
``streamed`` (names of the sets of which no ids are remembered); ``settings``; ``weights`` (hash); and, in
``last.pt``, ``training``: all that resuming to the bit needs.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..annotate.console import note
from ..annotate.errors import IrstkitError
from ..annotate.files import read_bytes, write_atomic
from .models import build

if TYPE_CHECKING:
    from torch import nn

KIND = "irstkit checkpoint"
FORMAT = 1
NEEDED = ("model", "normalisation", "step", "data", "seen")


def save_checkpoint(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically; equal contents give equal bytes."""
    buffer = io.BytesIO()  # a file's name would enter the archive
    torch.save({"kind": KIND, "format": FORMAT, **content}, buffer)
    write_atomic(path, buffer.getvalue())


def load_checkpoint(path: str | Path, *, model: str | None = None) -> dict[str, Any]:
    """Read a checkpoint (of a run's folder: its ``best.pt``) onto the CPU.

    Parameters
    ----------
    model
        The model that it must be of, where one is asked for.

    Raises
    ------
    IrstkitError
        Missing, not a checkpoint, truncated, of a newer format, or of another model.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / "best.pt").exists():
            raise IrstkitError(
                "no best.pt in this folder", path=path, hint="name a checkpoint file or a run's folder"
            )
        path = path / "best.pt"
    data = read_bytes(path)
    if not data.startswith(b"PK"):
        raise IrstkitError(
            "not a checkpoint of irstkit (its first bytes are of no PyTorch archive)", path=path
        )
    try:
        damaged = zipfile.ZipFile(io.BytesIO(data)).testzip()
        if damaged:
            raise IrstkitError(f"damaged checkpoint: wrong checksum of {damaged}", path=path)
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise IrstkitError("holds more than tensors and plain types: not loaded", path=path) from error
    except (zipfile.BadZipFile, RuntimeError, EOFError, KeyError, ValueError, OSError) as error:
        raise IrstkitError(f"truncated or damaged checkpoint of {len(data)} bytes", path=path) from error
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise IrstkitError("a PyTorch file, but not a checkpoint of irstkit", path=path)
    if content.get("format") != FORMAT:
        raise IrstkitError(
            f"checkpoint format {content.get('format')!r}, this irstkit reads {FORMAT}", path=path
        )
    for key in NEEDED:
        if key not in content:
            raise IrstkitError(f"a checkpoint without {key!r}: written by another program?", path=path)
    if model is not None and content["model"]["name"] != model:
        raise IrstkitError(
            f"a checkpoint of the model {content['model']['name']!r}, not of {model!r}", path=path
        )
    return content


def about_checkpoint(content: Mapping[str, Any], path: str | Path) -> dict[str, Any]:
    """What results say about the weights that they come from."""
    return {
        "checkpoint": str(path),
        "model": content["model"]["name"],
        "options": dict(content["model"]["options"]),
        "step": content["step"],
        "weights": weights_hash(content["model"]["state"]),
        "trained_on": content["data"],
    }


def build_from(content: Mapping[str, Any], path: str | Path | None = None) -> nn.Module:
    """The network of a loaded checkpoint with its weights.

    Raises
    ------
    IrstkitError
        When the network is unknown here or the weights do not fit it (naming the first that does not).
    """
    described = content["model"]
    try:
        network = build(described["name"], **described["options"])
    except IrstkitError as error:
        raise IrstkitError(error.message, path=path, hint=error.hint) from error
    load_weights(network, described["state"], path)
    return network


def load_weights(network: nn.Module, state: Mapping[str, Tensor], path: str | Path | None = None) -> None:
    """Load a state dict exactly: same names, same shapes."""
    own = network.state_dict()
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [k for k in own.keys() & state.keys() if own[k].shape != state[k].shape]
    if missing or unknown or shapes:
        parts = [
            f"{len(v)} {word} (first {v[0]})" for v, word in ((missing, "missing"), (unknown, "unknown")) if v
        ]
        if shapes:
            k = min(shapes)
            parts.append(
                f"{len(shapes)} of another shape "
                f"({k}: {tuple(state[k].shape)}, expected {tuple(own[k].shape)})"
            )
        raise IrstkitError(f"the weights are of another network: {', '.join(parts)}", path=path)
    network.load_state_dict(dict(state))


def load_matching(
    network: nn.Module, state: Mapping[str, Tensor], path: str | Path | None = None
) -> list[str]:
    """Load what fits of a state dict, by name and shape: where training starts. Names that keep their own values.

    Raises
    ------
    IrstkitError
        Where nothing learned fits.
    """
    own = network.state_dict()
    taken = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
    if not any(k in taken for k, p in network.named_parameters() if p.dim() > 1):
        raise IrstkitError(
            f"none of its {len(state)} tensors is a weight of this network (by name and shape)",
            path=path,
            hint="another model, or other options: see its run.json",
        )
    network.load_state_dict({**own, **taken})
    return sorted(own.keys() - taken.keys())


def start_from(network: nn.Module, path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Take the weights of a checkpoint; what they are, and all that it holds."""
    content = load_checkpoint(path)
    own, total = load_matching(network, content["model"]["state"], path), len(network.state_dict())
    parts = sorted({name.partition(".")[0] for name in own})
    note(
        f"start: {total - len(own)} of {total} tensors are those of {path}"
        + (f"; new: {len(own)} in {', '.join(parts)}" if own else "")
    )
    about = about_checkpoint(content, path)
    del about["checkpoint"]  # a path
    return {**about, "taken": total - len(own), "of": total}, content


def streamed_sets(content: Mapping[str, Any]) -> set[str]:
    """Names of the sets that a checkpoint saw as a stream, itself or what it started from."""
    if "streamed" in content:
        return set(content["streamed"])
    runs = (
        content["data"],
        (content.get("init") or {}).get("trained_on") or {},
    )  # before this was remembered
    return {about["synthetic"]["name"] for about in runs if about.get("stream")}


def merged_ids(*sets: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Ids of images by data set, of several runs together."""
    names = sorted({name for s in sets for name in s})
    return {name: sorted({k for s in sets for k in s.get(name, ())}) for name in names}


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """sha256 of all weights and buffers by name: equal for runs that are equal to the bit."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
