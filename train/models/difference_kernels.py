"""SD2M's sums on a CUDA GPU in one reading of the planes (Triton); see :mod:`.differences` for what they are.

Written with PyTorch's own operations, each of the sixteen differences is stored and read several times: a
fifth of a training step. Imported only where there is a GPU and Triton, which comes with PyTorch there.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 2048
"""Pixels a program."""


@triton.jit
def _sums_kernel(  # type: ignore[no-untyped-def]
    x, o, out, height, width, blocks, REFLECT: tl.constexpr, SQUARES: tl.constexpr, BLOCK: tl.constexpr
):
    plane, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = block * BLOCK + tl.arange(0, BLOCK)
    inside = at < height * width
    row, column = at // width, at % width
    first = plane * height * width
    here = tl.load(x + first + at, mask=inside, other=0.0)
    other = tl.load(o + first + at, mask=inside, other=0.0)
    sums = out + (plane * blocks + block) * 36
    for n in tl.static_range(2):
        for k in tl.static_range(9):
            if k != 4:
                distance = 1 + 2 * n
                r, c = row + (k // 3 - 1) * distance, column + (k % 3 - 1) * distance
                if REFLECT:
                    r, c = tl.abs(r), tl.abs(c)
                    r = tl.minimum(r, 2 * (height - 1) - r)
                    c = tl.minimum(c, 2 * (width - 1) - c)
                    there = inside
                else:
                    there = inside & (r >= 0) & (r < height) & (c >= 0) & (c < width)
                neighbour = tl.load(x + first + r * width + c, mask=there, other=0.0)
                difference = tl.where(inside, here - neighbour, 0.0)
                tl.store(sums + 9 * n + k, tl.sum(difference * other, axis=0))
                if SQUARES:
                    tl.store(sums + 18 + 9 * n + k, tl.sum(difference * difference, axis=0))


def sums(x: Tensor, o: Tensor, mode: str, *, squares: bool) -> tuple[Tensor, Tensor]:
    """<o, b_k> and |b_k|^2, (P, 2, 9) each in rows of the 3x3 neighbourhood, its middle without meaning.

    ``x`` and ``o`` are contiguous (P, H, W) of one type. Blocks are summed, then their sums: the same bits
    every time.
    """
    planes, height, width = x.shape
    blocks = triton.cdiv(height * width, BLOCK)
    parts = x.new_zeros(planes, blocks, 2, 2, 9)
    grid: Any = (planes, blocks)
    with torch.cuda.device_of(x):  # Triton launches on the current device
        _sums_kernel[grid](x, o, parts, height, width, blocks, mode == "reflect", squares, BLOCK, num_warps=8)
    inner, square = parts.sum(dim=1).unbind(1)
    return inner, square


def check() -> None:
    """Build and run the kernel once on a small plane; raises whatever keeps it from running."""
    x = torch.ones(1, 4, 4, device="cuda")
    inner, _ = sums(x, x, "zeros", squares=True)
    if (
        inner[0, 0, 0].item() != 7
    ):  # with zeros around, seven of the sixteen pixels have no upper left neighbour
        raise RuntimeError("Triton's sums are wrong here")
