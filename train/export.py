"""Networks as ONNX files, compared with PyTorch before they are kept.

An export that runs is not yet an export that is right: functions with a backward of their own are traced into
something else without a word. So every file is run by onnxruntime on several inputs against the network, and
is written only where the numbers agree.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..annotate.errors import IrstkitError, require
from ..annotate.files import write_atomic
from .losses import final

OPSET = 17


class _Probabilities(nn.Module):
    """The last map of a network, through the sigmoid where asked for."""

    def __init__(self, network: nn.Module, probabilities: bool) -> None:
        super().__init__()
        self.network, self.probabilities = network, probabilities

    def forward(self, images: Tensor) -> Tensor:
        logits = final(self.network(images))
        return torch.sigmoid(logits) if self.probabilities else logits


def export_onnx(
    network: nn.Module,
    path: str | Path,
    size: int | tuple[int, int] = 256,
    *,
    batch: int = 1,
    probabilities: bool = False,
    tolerance: float = 1e-4,
    trials: int = 3,
    about: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Write ``network`` as an ONNX file of one input size, after checking it against PyTorch.

    Parameters
    ----------
    network
        Of this package's interface (see :mod:`.models`); exported in evaluation mode, on the CPU.
    size
        Height and width of the input (one number: a square), multiples of the network's ``stride``. The size
        is fixed in the file: global sums and norms over the map become constants.
    probabilities
        Put the sigmoid into the file; the output is then named ``probabilities``, else ``logits``.
    tolerance
        Largest difference that passes, relative to the largest absolute output (at least 1).
    trials
        Inputs compared: noise, smooth ramps, a single bright pixel, ... with a fixed seed.
    about
        Written into the file's metadata.

    Returns
    -------
    dict
        ``path``, ``bytes``, ``input`` (shape; of networks that look at clips with the frames on axis 1), ``output`` (name), ``largest_difference`` (absolute),
        ``largest_output``, ``trials``, ``opset``.

    Raises
    ------
    IrstkitError
        For a size the network does not take, an operator that ONNX does not have, or results that differ:
        no file is written then.
    """
    require("onnx", "train")
    runtime = require("onnxruntime", "train")
    height, width = (size, size) if isinstance(size, int) else size
    stride = int(getattr(network, "stride", 1))
    if height < 1 or width < 1 or height % stride or width % stride:
        raise IrstkitError(
            f"this network takes sides that are multiples of {stride}, got {height}x{width} (height, width)",
            hint=f"for example {_up(height, stride)}x{_up(width, stride)}",
        )
    if batch < 1 or trials < 1:
        raise IrstkitError(f"batch and trials are at least 1, got {batch} and {trials}")
    if getattr(network, "task", "mask") != "mask":
        raise IrstkitError(
            "this network gives boxes, only networks that give masks are written as ONNX",
            hint="its deformable convolutions have no counterpart in the runtime's operators",
        )
    frames = (network.window,) if hasattr(network, "window") else ()
    shape = (batch, *frames, int(getattr(network, "in_channels", 1)), height, width)
    output = "probabilities" if probabilities else "logits"
    before = network.training
    wrapped = _Probabilities(network, probabilities).eval()
    try:
        data = _export(wrapped, shape, output, about or {})
        worst, largest = _compare(wrapped, data, shape, runtime, trials)
    finally:
        network.train(before)
    if not worst <= tolerance * max(largest, 1.0):
        raise IrstkitError(
            f"the exported network differs from PyTorch's by {worst:.3g} "
            f"(outputs up to {largest:.3g}, allowed {tolerance:g}): not written",
            path=path,
        )
    write_atomic(path, data)
    return {
        "path": str(path),
        "bytes": len(data),
        "input": list(shape),
        "output": output,
        "largest_difference": worst,
        "largest_output": largest,
        "trials": trials,
        "opset": OPSET,
    }


def _export(network: nn.Module, shape: tuple[int, ...], output: str, about: dict[str, str]) -> bytes:
    import onnx

    buffer = io.BytesIO()
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    try:
        with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tracing: shapes become constants, as documented
            # The tracing exporter: the other one takes minutes for networks of many small steps.
            torch.onnx.export(
                network,
                (images,),
                buffer,  # type: ignore[arg-type]
                dynamo=False,
                opset_version=OPSET,
                input_names=["images"],
                output_names=[output],
            )
    except ValueError as error:  # the networks' own checks of shapes
        raise IrstkitError(f"the network does not take this input: {error}") from error
    except torch.onnx.errors.OnnxExporterError as error:
        raise IrstkitError(f"this network cannot be written as ONNX: {str(error).splitlines()[0]}") from error
    model = onnx.load_model_from_string(buffer.getvalue())
    onnx.checker.check_model(model)
    for key in sorted(about):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, str(about[key])
    return model.SerializeToString(deterministic=True)


def _compare(network: nn.Module, data: bytes, shape, runtime, trials: int) -> tuple[float, float]:
    """Largest absolute difference and largest absolute output over several inputs."""
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    worst = largest = 0.0
    for k in range(trials):
        images = rng.random(shape, np.float32)
        if k % 3 == 1:  # smooth, dark, with one bright pixel
            images = np.broadcast_to(np.linspace(0.1, 0.4, shape[-1], dtype=np.float32), shape).copy()
            images[..., shape[-2] // 2, shape[-1] // 3] = 1
        elif k % 3 == 2:
            images = (0.3 + 0.05 * images).astype(np.float32)
        with torch.no_grad():
            expected = network(torch.from_numpy(images)).numpy()
        got = session.run(None, {"images": images})[0]
        if got.shape != expected.shape:
            raise IrstkitError(f"the exported network gives {got.shape}, PyTorch {expected.shape}")
        worst = max(worst, float(np.abs(got - expected).max()))  # not-a-number stays, and fails the check
        largest = max(largest, float(np.abs(expected).max()))
    return worst, largest


def _up(side: int, stride: int) -> int:
    return max(1, -(-side // stride)) * stride
