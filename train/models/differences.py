"""Recombination of difference bases (BDM of SD2M), without storing a basis.

For each image and channel, with the module's input x, the original feature o and the sixteen bases
``b = x - x shifted`` (8 neighbours, dilations 1 and 3), Hu et al. (arXiv 2512.03470) define

    output = sum_k <o, b_k> / max(|b_k|, 1e-12)^2 * b_k            (sums over the plane)

The sum over k of ``a_k b_k`` is a depthwise 3x3 convolution of x a dilation, whose kernel is made from the
coefficients ``a_k``, so only coefficients are kept. Inner products and norms are taken from the explicit
differences, one at a time: expanding them into <o, x> - <o, sx> cancels on smooth channels. Autograd would
store all sixteen differences; the backward below recomputes them.
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...annotate.console import note

DILATIONS = (1, 3)
NEIGHBOURS = ((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0))
"""(row, column) of the -1 in the 3x3 kernels, (1, 1) holding the +1. Kernels k and k + 4 are opposite."""

FLOOR = 1e-24
"""The squared clamp of the norm: max(|b|, 1e-12)^2."""

PIXELS = 2**18
"""Pixels of planes handled at a time: a difference stays in the processor's cache on its way to the sums."""


AT_ONCE = 2**24
"""Pixels of planes handled at a time on a GPU, whose nine differences are stored: 0.6 GiB."""


def pad(x: Tensor, width: int, mode: str) -> Tensor:
    """(P, H, W) padded on all sides by zeros, or by reflection about the border pixel."""
    if mode == "zeros":
        return F.pad(x, (width,) * 4)
    if mode != "reflect":
        raise ValueError(f"padding is 'zeros' or 'reflect', got {mode!r}")
    if min(x.shape[-2:]) <= width:
        raise ValueError(
            f"reflect padding by {width} needs planes above {width} pixels, got {tuple(x.shape[-2:])}"
        )
    return F.pad(x, (width,) * 4, mode="reflect")


def difference_bases(x: Tensor, *, mode: str = "zeros") -> Tensor:
    """The sixteen bases of planes x (P, H, W), stacked: (P, 16, H, W). For tests and benchmarks."""
    bases: list[Tensor] = []
    for d in DILATIONS:
        padded = pad(x, d, mode)
        bases += [x - padded[window] for window in _windows(x.shape, d)]
    return torch.stack(bases, dim=1)


def recombine_stacked(x: Tensor, o: Tensor, *, mode: str = "zeros") -> Tensor:
    """The definition, word by word, on (P, H, W): the bases stacked, then two matrix products."""
    bases = difference_bases(x, mode=mode).flatten(2)
    unit = bases / bases.norm(dim=2, keepdim=True).clamp_min(1e-12)
    coefficients = torch.bmm(unit, o.flatten(1).unsqueeze(2))
    return torch.bmm(coefficients.transpose(1, 2), unit).reshape(o.shape)


def recombine(x: Tensor, o: Tensor, *, mode: str = "zeros") -> Tensor:
    """Recombined differences of x weighted by the original feature o; both and the result (B, C, H, W).

    Computed in float32 (float64 for float64) whatever autocast says: squared norms pass the range of half
    precision. ``mode`` is the padding, ``zeros`` (the published one) or ``reflect``.
    """
    if x.shape != o.shape or x.dim() != 4:
        raise ValueError(
            f"expected two tensors of one shape (B, C, H, W), got {tuple(x.shape)} and {tuple(o.shape)}"
        )
    with torch.autocast(x.device.type, enabled=False):
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        if torch.onnx.is_in_onnx_export():  # tracing knows nothing of a function with its own backward
            return recombine_stacked(x.flatten(0, 1), o.flatten(0, 1), mode=mode).view_as(o)
        planes = _Recombine.apply(x.to(wide).flatten(0, 1), o.to(wide).flatten(0, 1), mode)
    return planes.view_as(o).to(o.dtype)


class _Recombine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, o: Tensor, mode: str) -> Tensor:
        x, o = x.contiguous(), o.contiguous()
        inner, square = _sums(x, o, mode, squares=True)
        floored = square.clamp_min(FLOOR)
        a = inner / floored
        ctx.save_for_backward(x, o, a, floored, square > FLOOR)
        ctx.mode = mode
        return _difference(x, a, mode)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        x, o, a, floored, alive = ctx.saved_tensors
        mode, g = ctx.mode, grads[0].contiguous()
        r = _sums(x, g, mode, squares=False)[0] / floored  # d loss / d <o, b_k>
        grad_o = _difference(x, r, mode)
        # d loss / d b_k = a_k g + r_k o + t_k b_k, with t_k from the norm; 2 (n/q) r, never 2 n / q^2
        t = torch.where(alive, -2 * a * r, torch.zeros_like(a))
        grad_x = _transposed(x, ((g, a), (o, r)), t, mode)
        return grad_x, grad_o, None


def _sums(x: Tensor, o: Tensor, mode: str, *, squares: bool) -> tuple[Tensor, Tensor]:
    """<o, b_k> and |b_k|^2 of each plane, (P, 16) each, from explicit differences."""
    if x.device.type != "cpu":
        return _sums_at_once(x, o, mode, squares=squares)
    planes, height, width = x.shape
    inner = x.new_zeros(planes, 16)
    square = x.new_zeros(planes, 16) if squares else inner
    step = max(1, PIXELS // (height * width))
    # Products into a buffer, then its sum: five times as fast on the CPU as a batch of matrix products of one
    # row with one column, and summed in cascades
    difference, product = torch.empty_like(x[:step]), torch.empty_like(x[:step])
    for first in range(0, planes, step):
        part = slice(first, first + step)
        xs, os = x[part], o[part]
        b, p = difference[: len(xs)], product[: len(xs)]
        for n, d in enumerate(DILATIONS):
            padded = pad(xs, d, mode)
            for k, window in enumerate(_windows(x.shape, d), start=8 * n):
                torch.sub(xs, padded[window], out=b)
                inner[part, k] = torch.mul(b, os, out=p).sum(dim=(1, 2))
                if squares:
                    square[part, k] = b.square_().sum(dim=(1, 2))
    return inner, square


def _sums_at_once(x: Tensor, o: Tensor, mode: str, *, squares: bool) -> tuple[Tensor, Tensor]:
    """:func:`_sums` for a GPU: one kernel where there is Triton; else the nine windows of a dilation as one view."""
    planes, height, width = x.shape
    if (kernels := _kernels(x.device.type)) is not None:
        found, square = kernels.sums(x, o, mode, squares=squares)
        return _in_order(found), _in_order(square) if squares else found
    inner, square_parts = [], []
    step = max(1, AT_ONCE // (height * width))
    for first in range(0, planes, step):
        xs, os = x[first : first + step, None, None], o[first : first + step, None, None]
        for d in DILATIONS:
            windows = pad(x[first : first + step], d, mode).unfold(1, height, d).unfold(2, width, d)
            differences = xs - windows  # (P, 3, 3, H, W)
            inner.append((differences * os).sum(dim=(3, 4)))
            if squares:
                square_parts.append(differences.square_().sum(dim=(3, 4)))

    def gathered(parts: list[Tensor]) -> Tensor:
        whole = [torch.cat(parts[n :: len(DILATIONS)]).flatten(1) for n in range(len(DILATIONS))]
        return _in_order(torch.stack(whole, dim=1))

    found = gathered(inner)
    return found, gathered(square_parts) if squares else found


def _in_order(sums: Tensor) -> Tensor:
    """(P, 2, 9) sums in rows of the neighbourhood to (P, 16) in the order of NEIGHBOURS.

    By slices: indices would have to be brought to the device.
    """
    around = (sums[..., :3], sums[..., 5:6], sums[..., 6:].flip(2), sums[..., 3:4])
    return torch.cat(around, dim=2).flatten(1)


def no_kernels() -> str:
    """Why the GPU's kernel does not run here (Triton needs a C compiler); empty where it does."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    try:
        importlib.import_module(".difference_kernels", __package__).check()
    except Exception as error:  # of Triton, the compiler or the driver; all end in the same way
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    return ""


@lru_cache
def _kernels(device: str) -> Any:
    """The module of kernels for that kind of device, or None."""
    if device != "cuda":
        return None
    if reason := no_kernels():
        note(f"SD2M's sums without their kernel, which takes longer: {reason}")
        return None
    return importlib.import_module(".difference_kernels", __package__)


def _kernel(a: Tensor) -> Tensor:
    """(P, 8) coefficients to the (P, 1, 3, 3) kernel of sum_k a_k b_k."""
    away, middle = -a, a.sum(dim=1, keepdim=True)
    # NEIGHBOURS go round the centre: first row, right, last row backwards, left
    rows = (away[:, :3], away[:, 7:], middle, away[:, 3:4], away[:, 4:7].flip(1))
    return torch.cat(rows, dim=1).view(-1, 1, 3, 3)


def _depthwise(planes: Tensor, kernel: Tensor, dilation: int, padding: int) -> Tensor:
    """Each of the (P, H, W) planes convolved with its own kernel."""
    return F.conv2d(
        planes.unsqueeze(0), kernel, padding=padding, dilation=dilation, groups=len(planes)
    ).squeeze(0)


def _windows(size: torch.Size, d: int) -> list[tuple[slice, slice, slice]]:
    """Where each neighbour lies in planes padded by d."""
    height, width = size[-2:]
    return [
        (slice(None), slice(row * d, row * d + height), slice(column * d, column * d + width))
        for row, column in NEIGHBOURS
    ]


def _difference(x: Tensor, a: Tensor, mode: str) -> Tensor:
    """sum_k a_k b_k.

    With zero padding a depthwise convolution a dilation: the border's differences, as large as x itself, keep
    the coefficients small, so what the convolution cancels is far below them. With reflection they can be as
    small as rounding, and the differences are summed one by one.
    """
    out = torch.zeros_like(x)
    for n, d in enumerate(DILATIONS):
        if mode == "zeros":
            out += _depthwise(x, _kernel(a[:, 8 * n : 8 * n + 8]), d, d)
            continue
        padded = pad(x, d, mode)
        for k, window in enumerate(_windows(x.shape, d), start=8 * n):
            out.addcmul_(x - padded[window], a[:, k, None, None])
    return out


def _transposed(x: Tensor, terms: tuple[tuple[Tensor, Tensor], ...], t: Tensor, mode: str) -> Tensor:
    """sum_k K_k^T (sum of coefficient x plane over the terms + t_k b_k), as x's gradient."""
    grad = torch.zeros_like(x)
    for n, d in enumerate(DILATIONS):
        part = slice(8 * n, 8 * n + 8)
        if mode == "zeros":
            for plane, a in terms:
                grad += _depthwise(plane, _kernel(a[:, part]).flip(2, 3), d, d)
            grad += _norm_term(x, t[:, part], d)
            continue
        padded = pad(x, d, mode)
        whole = torch.zeros_like(padded)
        height, width = x.shape[1:]
        centre = whole[:, d : d + height, d : d + width]
        for k, window in enumerate(_windows(x.shape, d), start=8 * n):
            change = (x - padded[window]).mul_(t[:, k, None, None])
            for plane, a in terms:
                change.addcmul_(plane, a[:, k, None, None])
            centre += change
            whole[window] -= change
        grad += _unpad_reflected(whole, d)
    return grad


def _norm_term(x: Tensor, t: Tensor, d: int) -> Tensor:
    """sum_k t_k K_k^T b_k with zero padding: opposite kernels share a symmetric convolution.

    At a pixel p, K_k^T b_k is b_k(p) minus b_k at the pixel q whose basis takes p away, if q is inside:
    (1 + [q inside]) x(p) - x(p - s) - x(p + s), where x is 0 outside.
    """
    kernel = _kernel(t)
    kernel = kernel + kernel.flip(2, 3)
    kernel[:, :, 1, 1] = 0
    inside = -_kernel(t).flip(2, 3)
    inside[:, :, 1, 1] = t.sum(dim=1, keepdim=True)
    # [q inside] summed with its weights is a convolution of ones: constant but for a border of d pixels
    height, width = x.shape[1:]
    small = (2 * d + 1, 2 * d + 1) if min(height, width) > 2 * d else (height, width)
    weights = _depthwise(torch.ones_like(x[:, : small[0], : small[1]]), inside, d, d)
    out = _depthwise(x, kernel, d, d)
    return _add_framed(out, x, weights, d)


def _add_framed(out: Tensor, x: Tensor, weights: Tensor, d: int) -> Tensor:
    """out += x times ``weights``, (P, H, W) or (2d + 1, 2d + 1): constant but for a border of d pixels."""
    height, width = x.shape[1:]
    middle = weights[:, weights.shape[1] // 2, weights.shape[2] // 2, None, None]
    out.addcmul_(x, middle)
    rest = weights - middle
    rows = [(slice(0, d), slice(0, d)), (slice(height - d, height), slice(-d, None))]
    columns = [(slice(0, d), slice(0, d)), (slice(width - d, width), slice(-d, None))]
    if weights.shape[1:] == x.shape[1:]:  # a plane so small that the borders meet
        return out.addcmul_(x, rest)
    inner = slice(d, height - d)
    for here, there in rows:
        band = rest[:, there]
        out[:, here, d : width - d].addcmul_(x[:, here, d : width - d], band[:, :, d : d + 1])
        for across, from_ in columns:
            out[:, here, across].addcmul_(x[:, here, across], band[:, :, from_])
    for across, from_ in columns:
        out[:, inner, across].addcmul_(x[:, inner, across], rest[:, d : d + 1, from_])
    return out


def _unpad_reflected(whole: Tensor, d: int) -> Tensor:
    """The gradient of reflect padding: what lies outside is added at its mirror."""
    height, width = whole.shape[1] - 2 * d, whole.shape[2] - 2 * d
    rows = whole[:, d : d + height].clone()
    rows[:, 1 : d + 1] += whole[:, :d].flip(1)
    rows[:, height - d - 1 : height - 1] += whole[:, d + height :].flip(1)
    out = rows[:, :, d : d + width].clone()
    out[:, :, 1 : d + 1] += rows[:, :, :d].flip(2)
    out[:, :, width - d - 1 : width - 1] += rows[:, :, d + width :].flip(2)
    return out
