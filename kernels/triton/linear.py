"""A product and a bias, the recurrence's linear layers: out = h W^T + b, one launch, one program a tile [BLOCK_B, BLOCK_N]."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from .dependent import after_the_last_kernel
from .launch import Launch
from .piece_tables import product_blocks
from .tiles import kind, own_tile, product_constants, rows_times, tiled_launch


@triton.jit(do_not_specialize=["batch"])
def linear_kernel(
    p_h, p_weight, p_bias, p_out, batch, N: tl.constexpr,
    K: tl.constexpr, A_ROW: tl.constexpr, ALIGN: tl.constexpr, OPERANDS: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    o_b, o_n, m_b, m_n = own_tile(batch, N, BLOCK_B, BLOCK_N)
    b_sum = tl.zeros([BLOCK_B, BLOCK_N], tl.float32)
    after_the_last_kernel(DEPENDENT)
    b_bias = tl.load(p_bias + o_n, mask=m_n, other=0.0)
    b_sum = rows_times(
        b_sum, p_h, p_weight + o_n.to(tl.int64)[None, :] * K, o_b, m_b, m_n, 1,
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
    return tiled_launch(linear_kernel, blocks, batch, columns, arguments)
