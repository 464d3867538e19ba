"""An LSTM's four gates: i, f, g, o of h units lie [h] behind each other in a row of [B, 4h]."""

import triton
import triton.language as tl


@triton.jit
def load_gates(p_gates, o, hidden, mask):
    """Of the units whose first gates are `o` behind p_gates."""
    b_i = tl.load(p_gates + o, mask=mask, other=0.0)
    b_f = tl.load(p_gates + o + hidden, mask=mask, other=0.0)
    b_g = tl.load(p_gates + o + 2 * hidden, mask=mask, other=0.0)
    b_o = tl.load(p_gates + o + 3 * hidden, mask=mask, other=0.0)
    return b_i, b_f, b_g, b_o


@triton.jit
def store_gates(p_gates, o, hidden, mask, b_i, b_f, b_g, b_o):
    """Into the units whose first gates are `o` behind p_gates."""
    out = p_gates.dtype.element_ty
    tl.store(p_gates + o, b_i.to(out), mask=mask)
    tl.store(p_gates + o + hidden, b_f.to(out), mask=mask)
    tl.store(p_gates + o + 2 * hidden, b_g.to(out), mask=mask)
    tl.store(p_gates + o + 3 * hidden, b_o.to(out), mask=mask)


@triton.jit
def gates_apart(b):
    """[B, 4 n], whose columns are the four gates of one unit, then of the next, as four [B, n]."""
    b_ig, b_fo = tl.split(tl.reshape(b, [b.shape[0], b.shape[1] // 4, 2, 2]))
    b_i, b_g = tl.split(b_ig)
    b_f, b_o = tl.split(b_fo)
    return b_i, b_f, b_g, b_o
