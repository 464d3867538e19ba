"""A layer's weight and bias gradient over the rows of many glimpses: weight += grad_out^T inputs, bias += grad_out's rows.

One launch where operands go to tensor cores, one program a tile [BLOCK_B, BLOCK_N] of the weight, which walks over all rows
and adds its sums once. The bias has programs of its own: a tile that a product and a sum both used would be loaded into
fewer buffers than wgmma, which reads it late, needs. Torch multiplies float32 without tf32, whose products it is better at.
"""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from .dependent import after_the_last_kernel
from .launch import Launch
from .piece_tables import product_blocks
from .rows import to_tf32
from .tiles import alignment, kind, product_constants


@triton.jit(do_not_specialize=["rows"])
def weight_grad_kernel(
    p_grad_out,
    p_inputs,
    p_weight,
    p_second,
    p_bias,
    rows,
    M: tl.constexpr,
    GRAD_ROW: tl.constexpr,
    GRAD_ALIGN: tl.constexpr,
    K: tl.constexpr,
    SPLIT: tl.constexpr,
    A_ROW: tl.constexpr,
    ALIGN: tl.constexpr,
    OPERANDS: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """grad_out [rows, M], inputs [rows, K], weight [M, K]: BLOCK_B of M, BLOCK_N of K, BLOCK_K rows at a time. The weight's
    first SPLIT columns are one matrix, the others the second."""
    after_the_last_kernel(DEPENDENT)
    o_m = tl.program_id(0).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    m_m = o_m < M
    if tl.program_id(1) == tl.num_programs(1) - 1:
        b_bias = tl.zeros([BLOCK_K, BLOCK_B], tl.float32)
        for i_row in range(0, rows, BLOCK_K):
            o_row = (i_row + tl.arange(0, BLOCK_K)).to(tl.int64)
            p_grad = tl.multiple_of(p_grad_out + o_row[:, None] * GRAD_ROW + o_m[None, :], (1, GRAD_ALIGN))
            b_bias += tl.load(p_grad, mask=(o_row < rows)[:, None] & m_m[None, :], other=0.0).to(tl.float32)
        tl.store(p_bias + o_m, tl.load(p_bias + o_m, mask=m_m, other=0.0) + tl.sum(b_bias, axis=0), mask=m_m)
    else:
        o_n = tl.program_id(1).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
        m_n = o_n < K
        b_sum = tl.zeros([BLOCK_B, BLOCK_N], tl.float32)
        for i_row in range(0, rows, BLOCK_K):
            o_row = (i_row + tl.arange(0, BLOCK_K)).to(tl.int64)
            m_row = o_row < rows
            p_grad = tl.multiple_of(p_grad_out + o_row[None, :] * GRAD_ROW + o_m[:, None], (GRAD_ALIGN, 1))
            b_grad = tl.load(p_grad, mask=m_m[:, None] & m_row[None, :], other=0.0).to(OPERANDS)
            p_own_inputs = tl.multiple_of(p_inputs + o_row[:, None] * A_ROW + o_n[None, :], (1, ALIGN))
            b_inputs = tl.load(p_own_inputs, mask=m_row[:, None] & m_n[None, :], other=0.0).to(OPERANDS)
            if PRECISION == "tf32":
                b_grad = to_tf32(b_grad)
                b_inputs = to_tf32(b_inputs)
            b_sum = tl.dot(b_grad, b_inputs, b_sum, input_precision=PRECISION)
        p_own = p_weight + o_m[:, None] * SPLIT + o_n[None, :]
        if SPLIT < K:
            p_other = p_second + o_m[:, None] * (K - SPLIT) + (o_n[None, :] - SPLIT)
            p_own = tl.where(o_n[None, :] < SPLIT, p_own, p_other)
        mask = m_m[:, None] & m_n[None, :]
        tl.store(p_own, tl.load(p_own, mask=mask, other=0.0) + b_sum, mask=mask)


def weight_grad_launch(grad_out: Tensor, inputs: Tensor, weights: Sequence[Tensor], bias: Tensor) -> Launch | None:
    """None where torch multiplies."""
    (rows, columns), depth, kinds = grad_out.shape, inputs.shape[1], kind(inputs.dtype)
    blocks = product_blocks("weight_grad", kinds, columns, depth, depth, rows)
    if blocks is None:
        return None
    arguments = {
        "p_grad_out": grad_out,
        "p_inputs": inputs,
        "p_weight": weights[0],
        "p_second": weights[-1],
        "p_bias": bias,
        "rows": rows,
        "M": columns,
        "SPLIT": weights[0].shape[1],
        "GRAD_ROW": grad_out.stride(0),
        "GRAD_ALIGN": alignment(grad_out),
        **product_constants(inputs, kinds),
    }
    grid = (triton.cdiv(columns, blocks.constants["BLOCK_B"]), triton.cdiv(depth, blocks.constants["BLOCK_N"]) + 1)
    return Launch(
        weight_grad_kernel, grid, {**arguments, **blocks.constants}, blocks.num_warps, blocks.num_stages, max_registers=255
    )
