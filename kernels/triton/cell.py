"""The recurrence's LSTMs: a product with the cell behind it, and a gradient's product with the cell's reverse behind it.

    forward    a = inputs W^T + b;  i, f, o = sigmoid(a), g = tanh(a);  c' = f c + i g;  h = o tanh(c'), to one or two places
    backward   dh = grad_out W_next + what else arrives at h;  dc += dh o (1 - tanh^2 c');  gradients of a;  dc becomes dc f

One launch each where the table says so, otherwise torch's product and the same kernel without its own (FUSED). A program is a
tile [BLOCK_B, BLOCK_N] of hidden units; forward it has their four columns of the product, in registers.

Where the design stops: every program reads its rows of the inputs and its columns of the weight itself, so a product is read
again as many times as there are tiles beside it; L2 has to hold it.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from .activations import sigmoid, tanh_for
from .dependent import after_the_last_kernel
from .gates import gates_apart, load_gates, store_gates
from .launch import Launch
from .piece_tables import product_blocks
from .tiles import kind, own_tile, product_constants, rows_times, tiled_launch, wide_product


@triton.jit(do_not_specialize=["batch"])
def cell_kernel(
    p_inputs, p_weight, p_bias, p_c, p_gates, p_c_new, p_h, p_h_2, batch,
    HIDDEN: tl.constexpr, H_ROW: tl.constexpr, H_2_ROW: tl.constexpr, OWN_BIAS: tl.constexpr, FUSED: tl.constexpr,
    K: tl.constexpr, A_ROW: tl.constexpr, ALIGN: tl.constexpr, OPERANDS: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    """Without FUSED p_inputs is the product [B, 4h] in float32. H_2_ROW is 0 where h goes to one place alone. OWN_BIAS: the
    bias is [B, 4h]."""
    o_b, o_h, m_b, m_h = own_tile(batch, HIDDEN, BLOCK_B, BLOCK_N)
    mask = m_b[:, None] & m_h[None, :]
    o_state = o_b[:, None] * HIDDEN + o_h[None, :]
    o_gates = o_b[:, None] * (4 * HIDDEN) + o_h[None, :]
    after_the_last_kernel(DEPENDENT)
    # Asked for first, so that they arrive while the product is made; converted after it, so that no load waits for another.
    b_c_old = tl.load(p_c + o_state, mask=mask, other=0.0)
    if OWN_BIAS:
        b_bias_i, b_bias_f, b_bias_g, b_bias_o = load_gates(p_bias, o_gates, HIDDEN, mask)
    else:
        b_bias_i, b_bias_f, b_bias_g, b_bias_o = load_gates(p_bias, o_h, HIDDEN, m_h)
        b_bias_i, b_bias_f, b_bias_g, b_bias_o = b_bias_i[None, :], b_bias_f[None, :], b_bias_g[None, :], b_bias_o[None, :]
    if FUSED:
        # Rows of W in the order i, f, g, o of one unit, then of the next: one product makes all four gates of BLOCK_N units.
        o_own = tl.arange(0, 4 * BLOCK_N)
        o_unit = tl.program_id(1) * BLOCK_N + o_own // 4
        o_row = ((o_own % 4) * HIDDEN + o_unit).to(tl.int64)
        b_sum = tl.zeros([BLOCK_B, 4 * BLOCK_N], tl.float32)
        b_sum = rows_times(
            b_sum, p_inputs, p_weight + o_row[None, :] * K, o_b, m_b, o_unit < HIDDEN, 1,
            K, A_ROW, ALIGN, OPERANDS, PRECISION, BLOCK_K,
        )  # fmt: skip
        b_i, b_f, b_g, b_o = gates_apart(b_sum)
    else:
        b_i, b_f, b_g, b_o = load_gates(p_inputs, o_gates, HIDDEN, mask)
    b_i = sigmoid(b_i + b_bias_i.to(tl.float32))
    b_f = sigmoid(b_f + b_bias_f.to(tl.float32))
    b_g = tanh_for(b_g + b_bias_g.to(tl.float32), OPERANDS)
    b_o = sigmoid(b_o + b_bias_o.to(tl.float32))
    b_c = b_f * b_c_old + b_i * b_g
    store_gates(p_gates, o_gates, HIDDEN, mask, b_i, b_f, b_g, b_o)
    tl.store(p_c_new + o_state, b_c, mask=mask)
    b_h = (b_o * tanh_for(b_c, OPERANDS)).to(p_gates.dtype.element_ty)
    tl.store(p_h + o_b[:, None] * H_ROW + o_h[None, :], b_h, mask=mask)
    if H_2_ROW > 0:
        tl.store(p_h_2 + o_b[:, None] * H_2_ROW + o_h[None, :], b_h, mask=mask)


@triton.jit(do_not_specialize=["batch"])
def cell_backward_kernel(
    p_grad_out, p_weight, p_other, p_other_2, p_gates, p_c, p_c_new, p_grad_c, p_grad_gates, batch,
    HIDDEN: tl.constexpr, OTHER_ROW: tl.constexpr, OTHER_2_ROW: tl.constexpr, FUSED: tl.constexpr,
    K: tl.constexpr, A_ROW: tl.constexpr, ALIGN: tl.constexpr, OPERANDS: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    """Without FUSED p_grad_out is the product [B, h] in float32. Rows of 0 mean that there is no such other gradient."""
    o_b, o_h, m_b, m_h = own_tile(batch, HIDDEN, BLOCK_B, BLOCK_N)
    mask = m_b[:, None] & m_h[None, :]
    o_state = o_b[:, None] * HIDDEN + o_h[None, :]
    o_gates = o_b[:, None] * (4 * HIDDEN) + o_h[None, :]
    after_the_last_kernel(DEPENDENT)
    # Asked for first, so that they arrive while the product is made; converted after it, so that no load waits for another.
    b_i, b_f, b_g, b_o = load_gates(p_gates, o_gates, HIDDEN, mask)
    b_c = tl.load(p_c + o_state, mask=mask, other=0.0)
    b_c_new = tl.load(p_c_new + o_state, mask=mask, other=0.0)
    b_dc = tl.load(p_grad_c + o_state, mask=mask, other=0.0)
    if OTHER_ROW > 0:
        b_other = tl.load(p_other + o_b[:, None] * OTHER_ROW + o_h[None, :], mask=mask, other=0.0)
    if OTHER_2_ROW > 0:
        b_other_2 = tl.load(p_other_2 + o_b[:, None] * OTHER_2_ROW + o_h[None, :], mask=mask, other=0.0)
    if FUSED:
        b_dh = tl.zeros([BLOCK_B, BLOCK_N], tl.float32)
        b_dh = rows_times(
            b_dh, p_grad_out, p_weight + o_h[None, :], o_b, m_b, m_h, HIDDEN,
            K, A_ROW, ALIGN, OPERANDS, PRECISION, BLOCK_K,
        )  # fmt: skip
    else:
        b_dh = tl.load(p_grad_out + o_state, mask=mask, other=0.0)
    if OTHER_ROW > 0:
        b_dh += b_other.to(tl.float32)
    if OTHER_2_ROW > 0:
        b_dh += b_other_2.to(tl.float32)
    b_i, b_f, b_g, b_o = b_i.to(tl.float32), b_f.to(tl.float32), b_g.to(tl.float32), b_o.to(tl.float32)
    b_tanh = tanh_for(b_c_new, OPERANDS)
    b_dc += b_dh * b_o * (1.0 - b_tanh * b_tanh)
    b_di, b_df, b_do = b_dc * b_g * b_i * (1.0 - b_i), b_dc * b_c * b_f * (1.0 - b_f), b_dh * b_tanh * b_o * (1.0 - b_o)
    store_gates(p_grad_gates, o_gates, HIDDEN, mask, b_di, b_df, b_dc * b_i * (1.0 - b_g * b_g), b_do)
    tl.store(p_grad_c + o_state, b_dc * b_f, mask=mask)


def cell_launch(
    inputs: Tensor, weight: Tensor, bias: Tensor, c: Tensor, gates: Tensor, c_new: Tensor, h_outs: list[Tensor]
) -> Launch:
    (batch, hidden), depth, kinds = c.shape, inputs.shape[1], kind(inputs.dtype)
    blocks = product_blocks("cell", kinds, batch, hidden, 4 * hidden, depth)
    first, second = (*h_outs, None)[:2]
    arguments = {
        "p_inputs": inputs if blocks else wide_product(inputs, weight.t()),
        "p_weight": weight,
        "p_bias": bias,
        "p_c": c,
        "p_gates": gates,
        "p_c_new": c_new,
        "p_h": first,
        # Where there is no second place another tensor stands in, and is not written.
        "p_h_2": first if second is None else second,
        "batch": batch,
        "HIDDEN": hidden,
        "H_ROW": h_outs[0].stride(0),
        "H_2_ROW": 0 if second is None else second.stride(0),
        "OWN_BIAS": bias.dim() == 2,
        "FUSED": blocks is not None,
        **product_constants(inputs, kinds),
    }
    return tiled_launch(cell_kernel, blocks, batch, hidden, arguments)


def cell_backward_launch(
    grad_out: Tensor, weight: Tensor, others: list[Tensor], gates: Tensor, c: Tensor, c_new: Tensor, grad_c: Tensor,
    grad_gates: Tensor,
) -> Launch:  # fmt: skip
    (batch, hidden), depth, kinds = c.shape, grad_out.shape[1], kind(grad_out.dtype)
    blocks = product_blocks("cell_backward", kinds, batch, hidden, hidden, depth)
    other, other_2 = (*others, None, None)[:2]
    arguments = {
        "p_grad_out": grad_out if blocks else wide_product(grad_out, weight),
        "p_weight": weight,
        # Where there is none another tensor stands in, and is not read.
        "p_other": gates if other is None else other,
        "p_other_2": gates if other_2 is None else other_2,
        "p_gates": gates,
        "p_c": c,
        "p_c_new": c_new,
        "p_grad_c": grad_c,
        "p_grad_gates": grad_gates,
        "batch": batch,
        "HIDDEN": hidden,
        "OTHER_ROW": 0 if other is None else other.stride(0),
        "OTHER_2_ROW": 0 if other_2 is None else other_2.stride(0),
        "FUSED": blocks is not None,
        **product_constants(grad_out, kinds),
    }
    return tiled_launch(cell_backward_kernel, blocks, batch, hidden, arguments)
