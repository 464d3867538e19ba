"""A product and a bias, the recurrence's linear layers: out = h W^T + b, one launch, one program a tile [BLOCK_B, BLOCK_N]."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from .dependent import after_the_last_kernel
from .launch import Launch
from .piece_tables import product_blocks
from .tiles import kind, product_constants, rows_times


@triton.jit(do_not_specialize=["batch"])
def linear_kernel(
    p_h,
    p_weight,
    p_bias,
    p_out,
    batch,
    N: tl.constexpr,
    K: tl.constexpr,
    A_ROW: tl.constexpr,
    ALIGN: tl.constexpr,
    OPERANDS: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    o_b = tl.program_id(0).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    o_n = tl.program_id(1).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    m_b, m_n = o_b < batch, o_n < N
    b_sum = tl.zeros([BLOCK_B, BLOCK_N], tl.float32)
    after_the_last_kernel(DEPENDENT)
    b_bias = tl.load(p_bias + o_n, mask=m_n, other=0.0)
    b_sum = rows_times(
        b_sum, p_h, p_weight + o_n[None, :] * K, o_b, m_b, m_n, 1,
        K, A_ROW, ALIGN, OPERANDS, PRECISION, BLOCK_K,
    )  # fmt: skip
    b_sum += b_bias.to(tl.float32)[None, :]
    tl.store(p_out + o_b[:, None] * N + o_n[None, :], b_sum, mask=m_b[:, None] & m_n[None, :])


def linear_launch(h: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> Launch | None:
    """None where torch multiplies."""
    (batch, columns), kinds = out.shape, kind(h.dtype)
    blocks = product_blocks("linear", kinds, batch, columns, columns, h.shape[1])
    if blocks is None:
        return None
    pointers = {"p_h": h, "p_weight": weight, "p_bias": bias, "p_out": out}
    arguments = {**pointers, "batch": batch, "N": columns, **product_constants(h, kinds)}
    grid = (triton.cdiv(batch, blocks.constants["BLOCK_B"]), triton.cdiv(columns, blocks.constants["BLOCK_N"]))
    return Launch(
        linear_kernel, grid, {**arguments, **blocks.constants}, blocks.num_warps, blocks.num_stages, max_registers=255
    )
