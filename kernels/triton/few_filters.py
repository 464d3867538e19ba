"""Windows of few filters over an image that is one tile: a filter is a vector over its axis, and nothing is a matrix product.

A patch of N x N is then N^2 sums over vectors, a write N sums of outer products. One warp has the whole image, so that no
sum waits at a barrier; sums over filters are unrolled, and lists of filters are tuples.

With F a row of the filterbank, d and e as in rows.py, dbar = sum F d and ebar = sum F e:
    D = F (d - dbar)     E = F (e - ebar)     d mu = sum D G / sigma^2     d log sigma^2 = sum E G
"""

from __future__ import annotations

import triton
import triton.language as tl

from .rows import rows, store_params_grad


@triton.jit
def filter_row(centre, delta, i, SIZE: tl.constexpr, o_a, LENGTH: tl.constexpr, inverse):
    """F of filter i, [A]."""
    b_f, _, _ = rows(centre + (i - (SIZE - 1) * 0.5) * delta, o_a, LENGTH, inverse, tl.float32)
    return b_f * (1.0 / tl.sum(b_f, axis=0))


@triton.jit
def filter_rows(centre, delta, i, SIZE: tl.constexpr, o_a, LENGTH: tl.constexpr, inverse, FIRST: tl.constexpr = 0):
    """(F, D, E) of filter i, [A] each. FIRST: the number of the first pixel in o_a; any gives the same bits."""
    b_f, b_d, b_e = rows(centre + (i - (SIZE - 1) * 0.5) * delta, o_a, LENGTH, inverse, tl.float32, FIRST)
    b_f = b_f * (1.0 / tl.sum(b_f, axis=0))
    return b_f, b_f * (b_d - tl.sum(b_f * b_d, axis=0)), b_f * (b_e - tl.sum(b_f * b_e, axis=0))


@triton.jit
def all_filters(centre, delta, SIZE: tl.constexpr, o_a, LENGTH: tl.constexpr, inverse):
    """F of every filter of an axis."""
    b_rows = ()
    for i in tl.static_range(SIZE):
        b_rows += (filter_row(centre, delta, i, SIZE, o_a, LENGTH, inverse),)  # type: ignore[assignment]
    return b_rows


@triton.jit
def patch_column(p_patch, j, SIZE: tl.constexpr):
    """The column j of the patch at p_patch, N scalars."""
    values = ()
    for i in tl.static_range(SIZE):
        values += (tl.load(p_patch + (i * SIZE + j)).to(tl.float32),)  # type: ignore[assignment]
    return values


@triton.jit
def weighted(values, b_f, SIZE: tl.constexpr):
    """sum_i values[i] f[i], [A]."""
    b_v = values[0] * b_f[0]
    for i in tl.static_range(1, SIZE):
        b_v += values[i] * b_f[i]
    return b_v


@triton.jit
def add_weighted(b_q, values, b_t, SIZE: tl.constexpr):
    """values[i] t added to q[i], for all i."""
    b_new = ()
    for i in tl.static_range(SIZE):
        b_new += (b_q[i] + values[i] * b_t,)  # type: ignore[assignment]
    return b_new


@triton.jit
def many(b, SIZE: tl.constexpr):
    """`b` for each filter."""
    b_new = ()
    for _ in tl.static_range(SIZE):
        b_new += (b,)  # type: ignore[assignment]
    return b_new


@triton.jit
def add_rows(sums, b_q, centre, delta, SIZE: tl.constexpr, BLOCK: tl.constexpr, LENGTH: tl.constexpr, inverse):
    """`sums` with the parts of all filters of an axis added, whose gradients G[i] are b_q.

    Pixels count from 1 here: compilers would otherwise keep d and e of all filters, which they have from `all_filters`, in
    registers that there are not enough of. Made again they cost less.
    """
    o_a = tl.arange(1, BLOCK + 1)
    for i in tl.static_range(SIZE):
        _, b_d, b_e = filter_rows(centre, delta, i, SIZE, o_a, LENGTH, inverse, 1)
        sums = add_row(sums, b_d, b_e, b_q[i], i, SIZE)
    return sums


@triton.jit
def add_row(sums, b_d, b_e, b_g, i, SIZE: tl.constexpr):
    """(dmu, dmu_offset, de) with one filter's part of a gradient added; vectors, so that they are summed up once."""
    b_s = b_d * b_g
    return sums[0] + b_s, sums[1] + b_s * (i - (SIZE - 1) * 0.5), sums[2] + b_e * b_g


@triton.jit
def close_window(
    p_params,
    p_grad,
    sums_y,
    sums_x,
    b_l,
    scale,
    delta,
    inverse,
    POWER: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """The gradient to the five params at p_params; sums: (dmu, dmu_offset, de) of an axis; b_l sums up to L itself.
    All of them are still to be multiplied with `scale`, gamma to the power."""
    dmu_y, dmu_x = tl.sum(sums_y[0], axis=0) * scale, tl.sum(sums_x[0], axis=0) * scale
    dmu_offset = (tl.sum(sums_y[1], axis=0) + tl.sum(sums_x[1], axis=0)) * scale
    de = (tl.sum(sums_y[2], axis=0) + tl.sum(sums_x[2], axis=0)) * scale
    dlog_gamma = POWER * tl.sum(b_l, axis=0) * scale
    store_params_grad(p_params, p_grad, 0, HEIGHT, WIDTH, dmu_y, dmu_x, dmu_offset, de, dlog_gamma, delta, inverse, tl.float32)
