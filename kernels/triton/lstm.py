"""One LSTM step with forget gates, gates in nn.LSTMCell's order i, f, g, o, and its gradient.

    a = x W_ih^T + h W_hh^T + b_ih + b_hh      i, f, o = sigmoid(a)   g = tanh(a)      c' = f c + i g      h' = o tanh(c')

Forward, where the table says that it wins (small products, which wait for launches and not for arithmetic): one launch, a
program a tile [BLOCK_B, BLOCK_H] of h with the four gates' sums in registers. Elsewhere torch's two products and one pointwise
launch, which adds them in the state's dtype. Backward: one pointwise launch gives the gates' gradients [B, 4H]; the rest is
torch's products.

Sums, gates and c are float32 (float64 for float64, which always takes torch's products). Where the design stops: the fused
kernel reads x and h again for each tile of the hidden units, and the weights again for each tile of the batch.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastdraw import env

from .activations import sigmoid, tanh
from .gates import gates_apart, load_gates, store_gates
from .handles import launched
from .launch import Launch, tf32_allowed, tl_dtype
from .rows import to_tf32
from .tables import POINTWISE_BLOCK, lstm_blocks
from .tiles import wide_product


@triton.jit
def store_cell(b_i, b_f, b_g, b_o, p_c, p_h_new, p_c_new, p_gates, o_state, o_gates, hidden, mask):
    """Gates before activation -> gates, c' and h' in memory. o_state and o_gates: where in [B, H], in [B, 4H]."""
    b_i, b_f, b_g, b_o = sigmoid(b_i), sigmoid(b_f), tanh(b_g), sigmoid(b_o)
    b_c = b_f * tl.load(p_c + o_state, mask=mask, other=0.0) + b_i * b_g
    store_gates(p_gates, o_gates, hidden, mask, b_i, b_f, b_g, b_o)
    tl.store(p_c_new + o_state, b_c, mask=mask)
    tl.store(p_h_new + o_state, (b_o * tanh(b_c)).to(p_h_new.dtype.element_ty), mask=mask)


@triton.jit
def add_product(
    b_sum, p_x, p_weight, o_b, o_row, m_b, m_row, inputs,
    OPERANDS: tl.constexpr, PRECISION: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """b_sum [BLOCK_B, rows] + x W^T, for x [B, inputs] and the rows `o_row` of W [4H, inputs]; row numbers are int64."""
    p_x_rows = p_x + o_b[:, None] * inputs
    p_w_rows = p_weight + o_row[None, :] * inputs
    for i_k in range(0, inputs, BLOCK_K):
        o_k = i_k + tl.arange(0, BLOCK_K)
        m_k = o_k < inputs
        b_x = tl.load(p_x_rows + o_k[None, :], mask=m_b[:, None] & m_k[None, :], other=0.0).to(OPERANDS)
        b_w = tl.load(p_w_rows + o_k[:, None], mask=m_k[:, None] & m_row[None, :], other=0.0).to(OPERANDS)
        if PRECISION == "tf32":
            b_x = to_tf32(b_x)
            b_w = to_tf32(b_w)
        b_sum = tl.dot(b_x, b_w, b_sum, input_precision=PRECISION)
    return b_sum


@triton.jit
def add_bias(b, p_bias_ih, p_bias_hh, o_h, m_h):
    b_bias_ih = tl.load(p_bias_ih + o_h, mask=m_h, other=0.0).to(b.dtype)
    return b + (b_bias_ih + tl.load(p_bias_hh + o_h, mask=m_h, other=0.0).to(b.dtype))


@triton.jit(do_not_specialize=["batch"])
def lstm_kernel(
    p_x, p_h, p_c, p_weight_ih, p_weight_hh, p_bias_ih, p_bias_hh, p_h_new, p_c_new, p_gates, batch, inputs, hidden,
    OPERANDS: tl.constexpr, PRECISION: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    o_b = tl.program_id(0).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    m_b = o_b < batch
    # Rows of W in the order i, f, g, o of one unit, then of the next: one product makes all four gates of BLOCK_H units.
    o_own = tl.arange(0, 4 * BLOCK_H)
    o_unit = tl.program_id(1).to(tl.int64) * BLOCK_H + o_own // 4
    o_row = (o_own % 4) * tl.cast(hidden, tl.int64) + o_unit
    m_row = o_unit < hidden
    b_sum = tl.zeros([BLOCK_B, 4 * BLOCK_H], tl.float32)
    b_sum = add_product(b_sum, p_x, p_weight_ih, o_b, o_row, m_b, m_row, inputs, OPERANDS, PRECISION, BLOCK_K)
    b_sum = add_product(b_sum, p_h, p_weight_hh, o_b, o_row, m_b, m_row, hidden, OPERANDS, PRECISION, BLOCK_K)
    b_sum = add_bias(b_sum, p_bias_ih, p_bias_hh, o_row[None, :], m_row[None, :])
    b_i, b_f, b_g, b_o = gates_apart(b_sum)
    o_h = tl.program_id(1).to(tl.int64) * BLOCK_H + tl.arange(0, BLOCK_H)
    m_h = o_h < hidden
    o_state = o_b[:, None] * hidden + o_h[None, :]
    o_gates = o_b[:, None] * (4 * hidden) + o_h[None, :]
    mask = m_b[:, None] & m_h[None, :]
    store_cell(b_i, b_f, b_g, b_o, p_c, p_h_new, p_c_new, p_gates, o_state, o_gates, hidden, mask)


@triton.jit
def cell_sum(p_from_x, p_from_h, p_bias_ih, p_bias_hh, o_gates, o_h, mask, DTYPE: tl.constexpr):
    b_from_x = tl.load(p_from_x + o_gates, mask=mask, other=0.0).to(DTYPE)
    b_from_h = tl.load(p_from_h + o_gates, mask=mask, other=0.0).to(DTYPE)
    return add_bias(b_from_x + b_from_h, p_bias_ih, p_bias_hh, o_h, mask)


@triton.jit(do_not_specialize=["batch"])
def lstm_pointwise_kernel(
    p_from_x, p_from_h, p_c, p_bias_ih, p_bias_hh, p_h_new, p_c_new, p_gates, batch, hidden,
    DTYPE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The pointwise part alone: p_from_x and p_from_h are x W_ih^T and h W_hh^T, [B, 4H]."""
    o_state = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    o_h = o_state % hidden
    o_gates = (o_state // hidden) * (4 * hidden) + o_h
    mask = o_state < tl.cast(batch, tl.int64) * hidden
    b_i = cell_sum(p_from_x, p_from_h, p_bias_ih, p_bias_hh, o_gates, o_h, mask, DTYPE)
    b_f = cell_sum(p_from_x, p_from_h, p_bias_ih, p_bias_hh, o_gates + hidden, o_h + hidden, mask, DTYPE)
    b_g = cell_sum(p_from_x, p_from_h, p_bias_ih, p_bias_hh, o_gates + 2 * hidden, o_h + 2 * hidden, mask, DTYPE)
    b_o = cell_sum(p_from_x, p_from_h, p_bias_ih, p_bias_hh, o_gates + 3 * hidden, o_h + 3 * hidden, mask, DTYPE)
    store_cell(b_i, b_f, b_g, b_o, p_c, p_h_new, p_c_new, p_gates, o_state, o_gates, hidden, mask)


@triton.jit(do_not_specialize=["batch"])
def lstm_backward_kernel(
    p_grad_h, p_grad_c, p_gates, p_c, p_c_new, p_grad_gates, p_grad_c_old, batch, hidden,
    HAS_GRAD_H: tl.constexpr, HAS_GRAD_C: tl.constexpr, DTYPE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients of the gates before activation [B, 4H], and of c."""
    o_state = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    o_gates = (o_state // hidden) * (4 * hidden) + o_state % hidden
    mask = o_state < tl.cast(batch, tl.int64) * hidden
    b_i, b_f, b_g, b_o = load_gates(p_gates, o_gates, hidden, mask)
    b_dc = tl.zeros([BLOCK], DTYPE)
    b_do = tl.zeros([BLOCK], DTYPE)
    if HAS_GRAD_C:
        b_dc += tl.load(p_grad_c + o_state, mask=mask, other=0.0).to(DTYPE)
    if HAS_GRAD_H:
        b_dh = tl.load(p_grad_h + o_state, mask=mask, other=0.0).to(DTYPE)
        b_tanh = tanh(tl.load(p_c_new + o_state, mask=mask, other=0.0))
        b_do += b_dh * b_tanh * b_o * (1.0 - b_o)
        b_dc += b_dh * b_o * (1.0 - b_tanh * b_tanh)
    b_c = tl.load(p_c + o_state, mask=mask, other=0.0)
    b_di, b_df, b_dg = b_dc * b_g * b_i * (1.0 - b_i), b_dc * b_c * b_f * (1.0 - b_f), b_dc * b_i * (1.0 - b_g * b_g)
    store_gates(p_grad_gates, o_gates, hidden, mask, b_di, b_df, b_dg, b_do)
    tl.store(p_grad_c_old + o_state, b_dc * b_f, mask=mask)


def lstm_launch(
    x: Tensor,
    h: Tensor,
    c: Tensor,
    weights: tuple[Tensor, Tensor, Tensor, Tensor],
    out: tuple[Tensor, Tensor, Tensor],
    precision: str,
) -> Launch | None:
    """The fused step; weights: (weight_ih, weight_hh, bias_ih, bias_hh), out: (h', c', gates). None where torch wins."""
    (batch, inputs), hidden = x.shape, h.shape[1]
    blocks = lstm_blocks(batch, inputs, hidden, x.dtype, precision)
    if blocks is None:
        return None
    names = ("p_x", "p_h", "p_c", "p_weight_ih", "p_weight_hh", "p_bias_ih", "p_bias_hh", "p_h_new", "p_c_new", "p_gates")
    arguments = dict(zip(names, (x, h, c, *weights, *out), strict=True))
    # Triton's interpreter multiplies the bits of bfloat16 as integers; widened operands have the same products.
    operands = torch.float32 if env.triton_interpreted() else x.dtype
    sizes = {"batch": batch, "inputs": inputs, "hidden": hidden, "OPERANDS": tl_dtype(operands), "PRECISION": precision}
    grid = (triton.cdiv(batch, blocks.constants["BLOCK_B"]), triton.cdiv(hidden, blocks.constants["BLOCK_H"]))
    arguments.update(sizes, **blocks.constants)
    return Launch(lstm_kernel, grid, arguments, blocks.num_warps, blocks.num_stages, max_registers=255)


def lstm_pointwise_launch(
    from_x: Tensor, from_h: Tensor, c: Tensor, biases: tuple[Tensor, Tensor], out: tuple[Tensor, Tensor, Tensor]
) -> Launch:
    names = ("p_from_x", "p_from_h", "p_c", "p_bias_ih", "p_bias_hh", "p_h_new", "p_c_new", "p_gates")
    arguments = dict(zip(names, (from_x, from_h, c, *biases, *out), strict=True))
    return _pointwise(lstm_pointwise_kernel, arguments, c)


def lstm_backward_launch(
    grad_h: Tensor | None, grad_c: Tensor | None, gates: Tensor, c: Tensor, c_new: Tensor, grad_gates: Tensor,
    grad_c_old: Tensor,
) -> Launch:  # fmt: skip
    arguments = {
        # Where there is no gradient another tensor stands in, and is not read.
        "p_grad_h": c if grad_h is None else grad_h,
        "p_grad_c": c if grad_c is None else grad_c,
        "p_gates": gates,
        "p_c": c,
        "p_c_new": c_new,
        "p_grad_gates": grad_gates,
        "p_grad_c_old": grad_c_old,
        "HAS_GRAD_H": grad_h is not None,
        "HAS_GRAD_C": grad_c is not None,
    }
    return _pointwise(lstm_backward_kernel, arguments, c)


def _pointwise(kernel: triton.JITFunction, arguments: dict[str, Any], c: Tensor) -> Launch:
    batch, hidden = c.shape
    sizes = {"batch": batch, "hidden": hidden, "DTYPE": tl_dtype(c.dtype), "BLOCK": POINTWISE_BLOCK}
    return Launch(kernel, (triton.cdiv(batch * hidden, POINTWISE_BLOCK),), {**arguments, **sizes}, 4, 1)


def lstm_step(
    x: Tensor, h: Tensor, c: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor, bias_hh: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    batch, hidden = h.shape
    out = (torch.empty_like(h), torch.empty_like(c), c.new_empty((batch, 4 * hidden)))
    # Half precision goes to the tensor cores as it is.
    precision = "tf32" if x.dtype == torch.float32 and tf32_allowed() else "ieee"
    if not launched(lstm_launch, x, h, c, (weight_ih, weight_hh, bias_ih, bias_hh), out, precision):
        # In the state's dtype: a gate's sum of two roundings to float16 would be worse than nn.LSTMCell's.
        from_x, from_h = wide_product(x, weight_ih.t()), wide_product(h, weight_hh.t())
        launched(lstm_pointwise_launch, from_x, from_h, c, (bias_ih, bias_hh), out)
    return out


def lstm_step_backward(
    grad_h: Tensor | None, grad_c: Tensor | None, gates: Tensor, c: Tensor, c_new: Tensor, x: Tensor, h: Tensor,
    weight_ih: Tensor, weight_hh: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    grad_gates = torch.empty_like(gates, dtype=x.dtype)
    grad_c_old = torch.empty_like(c)
    launched(lstm_backward_launch, grad_h, grad_c, gates, c, c_new, grad_gates, grad_c_old)
    grad_bias = grad_gates.sum(0, dtype=c.dtype).to(weight_ih.dtype)
    rows = grad_gates.T
    return grad_gates @ weight_ih, grad_gates @ weight_hh, grad_c_old, rows @ x, rows @ h, grad_bias
