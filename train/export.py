"""Networks as ONNX files, compared with PyTorch before they are kept.

An export that runs is not yet an export that is right: functions with a backward of their own are traced into
something else without a word. So every file is run by onnxruntime on several inputs against the network, and
is written only where the numbers agree.

What a file gives: ``logits`` or ``probabilities`` (B, 1, H, W) of networks of masks; of networks of boxes
``boxes`` (B, A, 4), half-open xyxy in pixels of the input, and ``scores`` (B, A) in 0..1, **before** suppression
of doubles (IoU 0.65 in irstkit), or the raw maps. Networks of clips take (B, T, C, H, W), frames in time order.

Deformable convolution is ONNX's DeformConv (opset 19). Runtimes that lack it get ``portable`` files, in which it
is expressed by GridSample and a 1x1 convolution.
"""

from __future__ import annotations

import copy
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
from .models.deform import DeformConv
from .sequence import folded

OPSET, DEFORM_OPSET = 17, 19


class _Maps(nn.Module):
    """The last map of a network, through the sigmoid where asked for."""

    def __init__(self, network: nn.Module, probabilities: bool) -> None:
        super().__init__()
        self.network, self.probabilities = network, probabilities
        self.names = ["probabilities" if probabilities else "logits"]

    def forward(self, images: Tensor) -> list[Tensor]:
        logits = final(self.network(images))
        return [torch.sigmoid(logits) if self.probabilities else logits]


class _Boxes(nn.Module):
    """Decoded boxes and scores of a network of boxes, or its raw maps."""

    def __init__(self, network: nn.Module, raw: bool, example: Tensor) -> None:
        super().__init__()
        self.network, self.raw = network, raw
        self.names = ["boxes", "scores"]
        if raw:
            with torch.no_grad():
                maps = self(example)
            self.names = ["raw"] if len(maps) == 1 else [f"raw_{k}" for k in range(len(maps))]

    def forward(self, images: Tensor) -> list[Tensor]:
        net: Any = self.network
        output = net(images)
        if not self.raw:
            return list(net.decode(output))
        return [output] if isinstance(output, Tensor) else list(output)


def export_onnx(
    network: nn.Module,
    path: str | Path,
    size: int | tuple[int, int] = 256,
    *,
    batch: int = 1,
    probabilities: bool = False,
    raw: bool = False,
    portable: bool = False,
    tolerance: float = 1e-4,
    trials: int = 3,
    about: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Write ``network`` as an ONNX file of one input size, after checking it against PyTorch.

    Parameters
    ----------
    network
        Of this package's interface (see :mod:`.models`); exported in evaluation mode, on the CPU, with
        normalisation folded into convolutions.
    size
        Height and width of the input (one number: a square), multiples of the network's ``stride``. The size
        is fixed in the file: global sums and norms over the map become constants.
    probabilities
        Networks of masks: put the sigmoid into the file.
    raw
        Networks of boxes: give the raw maps instead of decoded boxes and scores.
    portable
        No DeformConv operator in the file.
    tolerance
        Largest difference that passes, relative to each output's largest absolute value (at least 1).
    trials
        Inputs compared: noise, smooth ramps, a single bright pixel, ... with a fixed seed.
    about
        Written into the file's metadata.

    Returns
    -------
    dict
        ``path``, ``bytes``, ``input`` (shape; of networks that look at clips with the frames on axis 1),
        ``outputs`` ({name: shape}), ``output`` (the first's name), ``largest_difference`` (absolute),
        ``largest_output``, ``trials``, ``opset``, ``deformable`` (``DeformConv``, ``GridSample`` or None).

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
    boxes = getattr(network, "task", "mask") == "boxes"
    if boxes and probabilities:
        raise IrstkitError(
            "a network of boxes has no map of probabilities", hint="its scores are probabilities already"
        )
    if raw and not boxes:
        raise IrstkitError("raw maps are of networks of boxes, this one gives masks", hint="leave --raw out")
    frames = (network.window,) if hasattr(network, "window") else ()
    shape = (batch, *frames, int(getattr(network, "in_channels", 1)), height, width)
    original = copy.deepcopy(network).eval()
    exported = folded(network)
    deformable = [m for m in exported.modules() if isinstance(m, DeformConv)]
    if deformable:
        require("torchvision.ops", "train")  # before tracing: its first import calls operators
    for module in deformable:
        module.sampled = portable
    opset = DEFORM_OPSET if deformable and not portable else OPSET
    example = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    try:
        wrapped, truth = (
            _Boxes(net, raw, example).eval() if boxes else _Maps(net, probabilities).eval()
            for net in (exported, original)
        )
        data = _export(wrapped, example, wrapped.names, opset, about or {})
    except ValueError as error:  # the networks' own checks of shapes
        raise IrstkitError(f"the network does not take this input: {error}") from error
    found = _compare(truth, wrapped.names, data, shape, runtime, trials)
    for name, (worst, largest, _) in found.items():
        if not worst <= tolerance * max(largest, 1.0):
            raise IrstkitError(
                f"the exported network's {name} differs from PyTorch's by {worst:.3g} "
                f"(up to {largest:.3g}, allowed {tolerance:g}): not written",
                path=path,
            )
    write_atomic(path, data)
    most = max(found.values(), key=lambda v: v[0] / max(v[1], 1.0))
    return {
        "path": str(path),
        "bytes": len(data),
        "input": list(shape),
        "output": wrapped.names[0],
        "outputs": {name: list(v[2]) for name, v in found.items()},
        "largest_difference": most[0],
        "largest_output": most[1],
        "trials": trials,
        "opset": opset,
        "deformable": ("GridSample" if portable else "DeformConv") if deformable else None,
    }


def _export(
    network: nn.Module, example: Tensor, names: list[str], opset: int, about: dict[str, str]
) -> bytes:
    import onnx

    if opset >= DEFORM_OPSET:
        torch.onnx.register_custom_op_symbolic("torchvision::deform_conv2d", _deform_symbolic, DEFORM_OPSET)
    buffer = io.BytesIO()
    try:
        with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tracing: shapes become constants, as documented
            # The tracing exporter: the other one takes minutes for networks of many small steps.
            torch.onnx.export(
                network,
                (example,),
                buffer,  # type: ignore[arg-type]
                dynamo=False,
                opset_version=opset,
                input_names=["images"],
                output_names=names,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise IrstkitError(f"this network cannot be written as ONNX: {str(error).splitlines()[0]}") from error
    model = onnx.load_model_from_string(buffer.getvalue())
    onnx.checker.check_model(model)
    for key in sorted(about):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, str(about[key])
    return model.SerializeToString(deterministic=True)


def _deform_symbolic(g: Any, x: Any, weight: Any, offset: Any, mask: Any, bias: Any, *rest: Any) -> Any:
    """torchvision's operator as ONNX's: offsets and masks are laid out alike."""
    from torch.onnx.symbolic_helper import _maybe_get_const

    stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, groups, offset_groups, _ = (
        _maybe_get_const(v, "i") for v in rest
    )
    return g.op(
        "DeformConv",
        x,
        weight,
        offset,
        bias,
        mask,
        strides_i=[stride_h, stride_w],
        pads_i=[pad_h, pad_w, pad_h, pad_w],
        dilations_i=[dilation_h, dilation_w],
        group_i=groups,
        offset_group_i=offset_groups,
    )


def _compare(
    network: nn.Module, names: list[str], data: bytes, shape: tuple[int, ...], runtime: Any, trials: int
) -> dict[str, tuple[float, float, tuple[int, ...]]]:
    """Largest absolute difference, largest absolute value and shape of each output over several inputs."""
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own types, a class a cause
        first = str(error).splitlines()[0]
        hint = "--portable writes files without DeformConv" if "DeformConv" in str(error) else None
        raise IrstkitError(f"onnxruntime does not load the exported network: {first}", hint=hint) from error
    rng = np.random.default_rng(0)
    found: dict[str, tuple[float, float, tuple[int, ...]]] = {}
    for k in range(trials):
        images = rng.random(shape, np.float32)
        if k % 3 == 1:  # smooth, dark, with one bright pixel
            images = np.broadcast_to(np.linspace(0.1, 0.4, shape[-1], dtype=np.float32), shape).copy()
            images[..., shape[-2] // 2, shape[-1] // 3] = 1
        elif k % 3 == 2:
            images = (0.3 + 0.05 * images).astype(np.float32)
        with torch.no_grad():
            expected = [v.numpy() for v in network(torch.from_numpy(images))]
        for name, right, got in zip(names, expected, session.run(None, {"images": images}), strict=True):
            if got.shape != right.shape:
                raise IrstkitError(f"the exported network gives {name} {got.shape}, PyTorch {right.shape}")
            worst, largest, _ = found.get(name, (0.0, 0.0, ()))
            apart = float(np.abs(got - right).max())
            worst = apart if np.isnan(apart) else max(worst, apart)  # not-a-number stays, and fails the check
            found[name] = (worst, max(largest, float(np.abs(right).max())), right.shape)
    return found


def _up(side: int, stride: int) -> int:
    return max(1, -(-side // stride)) * stride
