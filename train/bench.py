"""What a network costs on this device: parameters, operations, time, memory."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..annotate.errors import IrstkitError
from .captured import WARM, Captured
from .losses import final, soft_iou, supervised
from .models import build, count_parameters
from .optimise import optimiser_of
from .predictor import choose_device
from .runtime import deterministic, memory_kept
from .settings import Settings

COUNTED = (
    "torch.utils.flop_counter / 2: convolutions, deformable ones through their matrix products, and matrix "
    "products; not counted: normalisation, activation, pooling, interpolation and other element-wise sums"
)


def bench(
    name: str,
    size: int | tuple[int, int] = 256,
    *,
    options: dict[str, Any] | None = None,
    batch: int = 1,
    device: str = "auto",
    rounds: int = 10,
    training: bool = True,
) -> dict[str, Any]:
    """Time and count the network ``name`` on random images of ``size``.

    Returns
    -------
    ``parameters``; ``macs`` an image (``macs_counted`` says how); ``forward_seconds`` and
    ``step_seconds`` (forward, Soft-IoU, backward, Adam) of a batch, medians of ``rounds`` after a warm-up; the step is as ``fit``
    takes it: on a GPU deterministic, of networks of masks replayed as one CUDA graph, on the CPU with memory kept;
    ``step_batch``, 2 where a network cannot train on one; ``latency_seconds`` of one image; ``images_per_second`` (forward); ``memory_mib``, the peak of a step
    (the device's allocator; on the CPU the growth of the process' largest resident size on Linux, 0 where an
    earlier peak was higher).

    Raises
    ------
    IrstkitError
        For an unknown model, a size that the network does not take, or too little memory.
    """
    if batch < 1 or rounds < 1:
        raise IrstkitError(f"batch and rounds are at least 1, got {batch} and {rounds}")
    height, width = (size, size) if isinstance(size, int) else size
    target = choose_device(device)
    torch.manual_seed(0)
    net = build(name, **(options or {})).to(target)
    stride = int(getattr(net, "stride", 1))
    if height < 1 or width < 1 or height % stride or width % stride:
        raise IrstkitError(
            f"size is {height}x{width}, {name} takes multiples of {stride}",
            hint=f"for example {max(stride, round(height / stride) * stride)}",
        )
    channels = int(getattr(net, "in_channels", 1))
    checked: Any = net
    boxes = getattr(net, "task", "mask") == "boxes"
    frames = (checked.window,) if hasattr(net, "window") else ()
    images = torch.rand(batch, *frames, channels, height, width, device=target)
    masks = torch.zeros(batch, 1, height, width, device=target)
    masks[..., height // 2 : height // 2 + 3, width // 2 : width // 2 + 3] = 1
    result: dict[str, Any] = {
        "model": name,
        "options": options or {},
        "parameters": count_parameters(net),
        "size": [height, width],
        "batch": batch,
        "device": str(target),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "rounds": rounds,
    }
    try:
        net.eval()
        with torch.inference_mode():
            with FlopCounterMode(display=False, custom_mapping=_deformable()) as counter:
                output = net(images[:1])
            if not boxes and (final(output).shape[:2] != (1, 1) or final(output).dim() != 4):
                raise IrstkitError(f"{name} gives neither boxes nor (B, 1, H, W) logits")
            result |= {"macs": counter.get_total_flops() // 2, "macs_counted": COUNTED}
            forward = _time(lambda: net(images), target, rounds)
            latency = forward if batch == 1 else _time(lambda: net(images[:1]), target, rounds)
        result |= {
            "forward_seconds": forward,
            "images_per_second": batch / forward,
            "latency_seconds": latency,
        }
        if training:
            try:
                step, memory = _step(net, images, masks, target, rounds)
            except ValueError:
                if batch > 1:
                    raise
                # batch normalisation of one value a channel: training needs two images
                images, masks, batch = torch.cat((images, images)), torch.cat((masks, masks)), 2
                step, memory = _step(net, images, masks, target, rounds)
            result |= {"step_seconds": step, "step_batch": batch, "memory_mib": memory}
    except ValueError as error:
        raise IrstkitError(f"{name} does not run at {height}x{width}, batch {batch}: {error}") from error
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error).lower():
            raise
        raise IrstkitError(
            f"out of memory on {target}: {name}, batch {batch} of {height}x{width}",
            hint="a smaller --batch or --size",
        ) from error
    return result


def _step(
    net: nn.Module, images: Tensor, masks: Tensor, device: torch.device, rounds: int
) -> tuple[float, float | None]:
    """Median seconds of a training step as ``fit`` takes it, and its peak memory in MiB."""
    net.train()
    cuda = device.type == "cuda"
    optimiser = optimiser_of(Settings(lr=1e-4), net, fused=cuda)
    checked: Any = net
    boxes = getattr(net, "task", "mask") == "boxes"
    middle = [masks.shape[-1] // 2, masks.shape[-2] // 2]
    targets = [torch.tensor([[*middle, *(m + 3 for m in middle)]], dtype=torch.float32, device=device)] * len(
        masks
    )

    def compute(images: Tensor, masks: Tensor) -> Tensor:
        output = net(images)
        loss = checked.losses(output, targets)["total"] if boxes else supervised(soft_iou, output, masks)
        loss.backward()
        return loss.detach()

    step = Captured(compute, net) if cuda and not boxes else compute

    def once() -> None:
        step(images, masks)
        optimiser.step()
        optimiser.zero_grad()

    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
        with deterministic():
            seconds = _time(once, device, rounds, warm=WARM + 1)
        return seconds, round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    before = _resident_mib("VmRSS")
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text(
            "5", encoding="ascii"
        )  # resets the largest size, where allowed
    with memory_kept():
        seconds = _time(once, device, rounds)
    after = _resident_mib("VmHWM")
    return seconds, None if before is None or after is None else round(max(0.0, after - before), 1)


def _deformable() -> dict[Any, Any]:
    """How many operations torchvision's deformable convolution takes, which PyTorch's counter does not know."""
    from torchvision.ops import deform_conv  # noqa: F401 - registers the operator

    def count(x: Any, weight: Any, *rest: Any, out_shape: Any = None, **named: Any) -> int:
        out, channels, height, width = weight
        return 2 * out_shape[0] * out_shape[2] * out_shape[3] * out * channels * height * width

    return {torch.ops.torchvision.deform_conv2d: count}


def _resident_mib(key: str) -> float | None:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return int(next(x for x in lines if x.startswith(key)).split()[1]) / 1024
    except (OSError, StopIteration, ValueError):
        return None


def _time(call: Callable[[], Any], device: torch.device, rounds: int, warm: int = 1) -> float:
    """Median seconds of a call after ``warm`` to warm up."""
    for _ in range(warm):
        call()
    seconds = []
    for _ in range(rounds):
        _wait(device)
        start = time.perf_counter()
        call()
        _wait(device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def table(rows: list[dict[str, Any]]) -> str:
    """Several results as a table for people."""
    lines = [
        f"{'model':<14}{'parameters':>12}{'GMACs':>9}{'images/s':>10}{'latency':>11}{'step':>11}{'memory':>11}"
    ]
    for row in rows:
        step = f"{row['step_seconds'] * 1e3:8.1f} ms" if "step_seconds" in row else "-"
        memory = f"{row['memory_mib']:.0f} MiB" if row.get("memory_mib") is not None else "-"
        lines.append(
            f"{row['model']:<14}{row['parameters']:>12,}{row['macs'] / 1e9:>9.3f}"
            f"{row['images_per_second']:>10.2f}"
            f"{row['latency_seconds'] * 1e3:>8.1f} ms{step:>11}{memory:>11}"
        )
    first = rows[0]
    lines += [
        "",
        f"{first['size'][0]}x{first['size'][1]}, batch {first['batch']}, {first['device']}, "
        f"{first['threads']} threads, "
        f"medians of {first['rounds']}; step = forward, Soft-IoU, backward, Adam",
        *[
            f"the step of {r['model']} is of batch {r['step_batch']}: it does not train on {r['batch']}"
            for r in rows
            if r.get("step_batch", r["batch"]) != r["batch"]
        ],
        f"MACs an image by {first['macs_counted']}",
    ]
    return "\n".join(lines)
