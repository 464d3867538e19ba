"""Tiles of matrix products for the recurrence's pieces, and what a launcher has to know of their operands.

Sizes and row strides are constexprs: one model has one set of each, and loops and masks become simpler for it. Views are
strided in their rows; ALIGN says how many bytes their rows' first elements are aligned by, which Triton cannot see where a
view begins in the middle of a row.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastdraw import env

from .launch import Launch, tf32_allowed, tl_dtype
from .piece_tables import POINTWISE
from .rows import to_tf32
from .tables import Blocks


@triton.jit
def own_tile(batch, COLUMNS: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr):
    """(rows, columns, which of the rows there are, which of the columns) of this program's tile of [batch, COLUMNS]."""
    o_b = tl.program_id(0).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    o_n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    return o_b, o_n, o_b < batch, o_n < COLUMNS


@triton.jit
def rows_times(
    b_sum, p_a, p_w, o_b, m_b, m_w, STRIDE_W: tl.constexpr,
    K: tl.constexpr, A_ROW: tl.constexpr, ALIGN: tl.constexpr, OPERANDS: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_K: tl.constexpr,
):  # fmt: skip
    """b_sum + a w, for the rows o_b of a [B, K]; p_w [1, n] points at w's first row, whose rows are STRIDE_W apart."""
    p_a_rows = p_a + o_b[:, None] * A_ROW
    for i_k in range(0, K, BLOCK_K):
        o_k = i_k + tl.arange(0, BLOCK_K)
        m_k = o_k < K
        p_a_tile = tl.multiple_of(p_a_rows + o_k[None, :], (1, ALIGN))
        b_a = tl.load(p_a_tile, mask=m_b[:, None] & m_k[None, :], other=0.0).to(OPERANDS)
        p_w_tile = p_w + o_k.to(tl.int64)[:, None] * STRIDE_W
        b_w = tl.load(p_w_tile, mask=m_k[:, None] & m_w[None, :], other=0.0).to(OPERANDS)
        if PRECISION == "tf32":
            b_a = to_tf32(b_a)
            b_w = to_tf32(b_w)
        b_sum = tl.dot(b_a, b_w, b_sum, input_precision=PRECISION)
    return b_sum


def tiled_launch(kernel: Any, blocks: Blocks | None, batch: int, columns: int, arguments: dict[str, Any]) -> Launch:
    """One program a tile of [batch, columns]; without blocks torch has multiplied, and what remains is pointwise."""
    blocks = blocks or POINTWISE
    grid = (triton.cdiv(batch, blocks.constants["BLOCK_B"]), triton.cdiv(columns, blocks.constants["BLOCK_N"]))
    return Launch(kernel, grid, {**arguments, **blocks.constants}, blocks.num_warps, blocks.num_stages, max_registers=255)


def alignment(view: Tensor) -> int:
    """Bytes, 16 at most, that the first elements of all rows of `view` [B, K] are aligned by."""
    # A tensor on the meta device has no address; every allocation is aligned by more than 16.
    start = view.storage_offset() * view.element_size() if view.is_meta else view.data_ptr()
    return math.gcd(16, start, view.stride(0) * view.element_size())


def kind(dtype: torch.dtype) -> str:
    """The column of the tables: "half", or for float32 "tf32" or "ieee"."""
    if dtype != torch.float32:
        return "half"
    return "tf32" if tf32_allowed() else "ieee"


def canvas_kind() -> str:
    """The column of the tables for the kernels around the canvas: as `kind`, but "hip" on AMD, and "ieee, sm_100" where tiles
    of ieee products take more registers than on other devices."""
    if torch.version.hip is not None:
        return "hip"
    found = kind(torch.float32)
    if found == "ieee" and torch.cuda.is_available() and _major(torch.cuda.current_device()) >= 10:
        return "ieee, sm_100"
    return found


@cache
def _major(device: int) -> int:
    return torch.cuda.get_device_capability(device)[0]


def product_constants(operand: Tensor, kind: str) -> dict[str, Any]:
    """What every kernel with a product takes: the operand [B, K] whose rows may be strided, and how to multiply."""
    # Triton's interpreter multiplies the bits of bfloat16 as integers; widened operands have the same products.
    operands = torch.float32 if env.triton_interpreted() else operand.dtype
    return {
        "K": operand.shape[1],
        "A_ROW": operand.stride(0),
        "ALIGN": alignment(operand),
        "OPERANDS": tl_dtype(operands),
        # Half precision goes to the tensor cores as it is.
        "PRECISION": "tf32" if kind == "tf32" else "ieee",
    }


def wide_product(a: Tensor, b: Tensor) -> Tensor:
    """a b by torch, in float32 whatever the operands' dtype; float64 stays."""
    if a.dtype in (torch.float32, torch.float64):
        return torch.mm(a, b)
    if a.is_cuda and torch.version.hip is None:
        return torch.mm(a, b, out_dtype=torch.float32)
    return a.float() @ b.float()
