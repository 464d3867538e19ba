"""Windows of few filters over an image that is one tile: a filter is a vector over its axis, and nothing is a matrix product.

A patch of N x N is then N^2 sums over pixels, a write N sums of outer products; sums over filters are unrolled, and lists of
filters are tuples. All that is asked for is linear in the image, so that every lane goes on with what it has of a sum: it
adds up its own pixels alone (`over_columns`, `over_rows`), and what lanes have is added up once, at the end, of all sums of a
program together (`stacked`). Before that only the filters' own sums may wait at a barrier, and one warp has none.

LANES: rows and columns of a tile's lanes, of which each has several pixels; piece_tables.canvas_blocks says how many. Any are
right. Where the tile is shared out otherwise lanes have copies of sums, and canvas.one_sum_each says so.

With F a row of the filterbank, d and e as in rows.py, dbar = sum F d and ebar = sum F e:
    D = F (d - dbar)     E = F (e - ebar)     d mu = sum D G / sigma^2     d log sigma^2 = sum E G
"""

from __future__ import annotations

import triton
import triton.language as tl

from .rows import DELTA_LIMIT, G_LIMIT, GAMMA_LIMIT, SIGMA_LIMIT, rows


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
def over_columns(b, LANES_W: tl.constexpr):
    """Sums over the columns that one lane has: [H, W] to [H, LANES_W]."""
    return tl.sum(tl.reshape(b, [b.shape[0], LANES_W, b.shape[1] // LANES_W]), axis=2)


@triton.jit
def over_rows(b, LANES_H: tl.constexpr):
    """Sums over the rows that one lane has: [H, A] to [LANES_H, A]."""
    return tl.sum(tl.reshape(b, [b.shape[0] // LANES_H, LANES_H, b.shape[1]]), axis=0)


@triton.jit
def joined(values, HALF: tl.constexpr):
    """Each of the first half with one of the second, along a new last dimension."""
    b_new = ()
    for i in tl.static_range(HALF):
        b_new += (tl.join(values[i], values[i + HALF]),)  # type: ignore[assignment]
    return b_new


@triton.jit
def stacked(values, COUNT: tl.constexpr, ALL: tl.constexpr):
    """The sums of all elements of each of COUNT blocks of one shape [M, N], in a block [ALL]; zeros behind them."""
    b_all = values
    for _ in tl.static_range(ALL - COUNT):
        b_all += (tl.zeros_like(values[0]),)
    for level in tl.static_range(7):
        if (ALL >> (level + 1)) > 0:
            b_all = joined(b_all, ALL >> (level + 1))
    return tl.sum(tl.reshape(b_all[0], [values[0].shape[0] * values[0].shape[1], ALL]), axis=0)


@triton.jit
def no_sums(LANES_H: tl.constexpr, LANES_W: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr):
    """What `add_y` and `add_x` add to: (dmu, dmu_offset, de) of each axis, and L."""
    b_h, b_w = tl.zeros([BLOCK_H, LANES_W], tl.float32), tl.zeros([LANES_H, BLOCK_W], tl.float32)
    return (b_h, b_h, b_h), (b_w, b_w, b_w), b_w


@triton.jit
def add_y(sums, b_q, centre, delta, SIZE: tl.constexpr, BLOCK: tl.constexpr, LENGTH: tl.constexpr, inverse):
    """`sums` with the parts of all filters of y added, whose gradients G[i] are b_q [H, LANES_W].

    Pixels count from 1 here: compilers would otherwise keep d and e of all filters, which they have from `all_filters`, in
    registers that there are not enough of. Made again they cost less.
    """
    o_a = tl.arange(1, BLOCK + 1)
    for i in tl.static_range(SIZE):
        _, b_d, b_e = filter_rows(centre, delta, i, SIZE, o_a, LENGTH, inverse, 1)
        sums = add_row(sums, b_d[:, None], b_e[:, None], b_q[i], i, SIZE)
    return sums


@triton.jit
def add_row(sums, b_d, b_e, b_g, i, SIZE: tl.constexpr):
    """(dmu, dmu_offset, de) with filter i's part of a gradient added."""
    b_s = b_d * b_g
    return sums[0] + b_s, sums[1] + b_s * (i - (SIZE - 1) * 0.5), sums[2] + b_e * b_g


@triton.jit
def of_params(sums_y, sums_x, b_l, LANES_H: tl.constexpr, LANES_W: tl.constexpr):
    """What the gradients of the five params are made of, in their order, as lanes have it: dmu_x, dmu_y, de, dmu_offset, L."""
    y_mu, y_offset, y_e = over_rows(sums_y[0], LANES_H), over_rows(sums_y[1], LANES_H), over_rows(sums_y[2], LANES_H)
    x_mu, x_offset, x_e = over_columns(sums_x[0], LANES_W), over_columns(sums_x[1], LANES_W), over_columns(sums_x[2], LANES_W)
    return x_mu, y_mu, y_e + x_e, y_offset + x_offset, over_columns(b_l, LANES_W)


@triton.jit
def params_grad(p_params, o_k, b_sums, delta, inverse, POWER: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr):
    """The gradients of the params o_k (others beside them are none) from `of_params`; rows.store_params_grad says why."""
    b_limit = tl.where(o_k == 2, SIGMA_LIMIT, tl.where(o_k == 3, DELTA_LIMIT, tl.where(o_k == 4, GAMMA_LIMIT, G_LIMIT)))
    b_raw = tl.load(p_params + o_k, mask=(o_k >= 0) & (o_k < 5), other=0.0).to(tl.float32)
    b_factor = tl.where(o_k == 0, inverse * (WIDTH + 1), tl.where(o_k == 1, inverse * (HEIGHT + 1), 1.0))
    b_factor = tl.where(o_k == 3, 2.0 * inverse * delta, tl.where(o_k == 4, POWER, b_factor))
    return b_sums * b_factor * tl.where((b_raw > b_limit) | (b_raw < -b_limit), 0.0, 1.0)
