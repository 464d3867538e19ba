"""The reverse of small_canvas.py: canvas_backward.py for few filters over an image that is one tile.

    T_j = I F_X[j]    v_j = sum_i p_ij F_Y[i]    G_X[j] = sum_h v_j I    G_Y[i] = sum_j p_ij T_j    dL/dI = sum_j v_j F_X[j]

Two programs an image: one has the gradient of the read's window, the other what runs through the canvas, that of x, and the
write's. Where canvases are rebuilt one program does both in turn, since the first needs the canvas that the second replaces.
Images of one channel alone: the filters of several would have no room in registers. few_filters.py has the form.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .activations import sigmoid
from .dependent import after_the_last_kernel
from .few_filters import (
    add_row,
    add_weighted,
    add_y,
    all_filters,
    filter_row,
    filter_rows,
    many,
    no_sums,
    of_params,
    over_columns,
    over_rows,
    params_grad,
    patch_column,
    stacked,
    weighted,
)
from .rows import window


@triton.jit
def store_zeros(p_out, COUNT: tl.constexpr, BLOCK: tl.constexpr):
    for i in range(0, COUNT, BLOCK):
        o = i + tl.arange(0, BLOCK)
        tl.store(p_out + o, tl.zeros([BLOCK], p_out.dtype.element_ty), mask=o < COUNT)


@triton.jit
def read_window_grad(
    p_params, p_canvas, p_x, p_grad_r, p_grad, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, SIZE: tl.constexpr,
    LANES_H: tl.constexpr, LANES_W: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    """The gradient to the read's params, of one image; pointers are to that image's own."""
    o_h, o_w = tl.arange(0, BLOCK_H), tl.arange(0, BLOCK_W)
    o_tile, m_tile = o_h[:, None] * WIDTH + o_w[None, :], (o_h < HEIGHT)[:, None] & (o_w < WIDTH)[None, :]
    centre_y, centre_x, delta, inverse, log_gamma = window(p_params, 0, HEIGHT, WIDTH, SIZE, tl.float32)
    b_f_y = all_filters(centre_y, delta, SIZE, o_h, HEIGHT, inverse)
    sums_y, sums_x, b_l = no_sums(LANES_H, LANES_W, BLOCK_H, BLOCK_W)
    b_x = tl.load(p_x + o_tile, mask=m_tile, other=0.0)
    # Past the image's end x^ is no zero; the filters are.
    b_error = b_x - sigmoid(tl.load(p_canvas + o_tile, mask=m_tile, other=0.0))
    b_q = many(tl.zeros([BLOCK_H, LANES_W], tl.float32), SIZE)
    for j in tl.static_range(SIZE):
        b_f, b_d, b_e = filter_rows(centre_x, delta, j, SIZE, o_w, WIDTH, inverse)
        of_x, of_error = patch_column(p_grad_r, j, SIZE), patch_column(p_grad_r + SIZE * SIZE, j, SIZE)
        b_q = add_weighted(b_q, of_x, over_columns(b_x * b_f[None, :], LANES_W), SIZE)
        b_q = add_weighted(b_q, of_error, over_columns(b_error * b_f[None, :], LANES_W), SIZE)
        b_v, b_v_error = weighted(of_x, b_f_y, SIZE), weighted(of_error, b_f_y, SIZE)
        b_g = over_rows(b_x * b_v[:, None] + b_error * b_v_error[:, None], LANES_H)
        sums_x = add_row(sums_x, b_d[None, :], b_e[None, :], b_g, j, SIZE)
        b_l += b_f[None, :] * b_g
    sums_y = add_y(sums_y, b_q, centre_y, delta, SIZE, BLOCK_H, HEIGHT, inverse)
    b_sums = stacked(of_params(sums_y, sums_x, b_l, LANES_H, LANES_W), 5, 8) * tl.exp(log_gamma)
    o_k = tl.arange(0, 8)
    b_grad = params_grad(p_params, o_k, b_sums, delta, inverse, 1.0, HEIGHT, WIDTH)
    tl.store(p_grad + o_k, b_grad.to(p_grad.dtype.element_ty), mask=o_k < 5)


@triton.jit
def through_read(
    b_grad, b_canvas, p_params, p_grad_r, p_grad_canvas, p_grad_x, o_tile, m_tile,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, SIZE: tl.constexpr, GRAD_X: tl.constexpr,
    BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    """b_grad, the gradient of canvas_t, with what the read asks of it added, as it is stored too; x's as well."""
    o_h, o_w = tl.arange(0, BLOCK_H), tl.arange(0, BLOCK_W)
    centre_y, centre_x, delta, inverse, log_gamma = window(p_params, 0, HEIGHT, WIDTH, SIZE, tl.float32)
    gamma = tl.exp(log_gamma)
    if GRAD_X:
        b_grad_x = tl.load(p_grad_x + o_tile, mask=m_tile, other=0.0)
    b_f_y = all_filters(centre_y, delta, SIZE, o_h, HEIGHT, inverse)
    b_grad_error = tl.zeros([BLOCK_H, BLOCK_W], tl.float32)
    for j in tl.static_range(SIZE):
        b_f_x = filter_row(centre_x, delta, j, SIZE, o_w, WIDTH, inverse) * gamma
        b_v = weighted(patch_column(p_grad_r + SIZE * SIZE, j, SIZE), b_f_y, SIZE)
        b_grad_error += b_v[:, None] * b_f_x[None, :]
        if GRAD_X:
            b_v = weighted(patch_column(p_grad_r, j, SIZE), b_f_y, SIZE)
            b_grad_x += b_v[:, None] * b_f_x[None, :]
    b_sigmoid = sigmoid(b_canvas)
    # The slope of x^ is -1 times that of a sigmoid of the canvas.
    b_grad += b_grad_error * (b_sigmoid * (b_sigmoid - 1.0))
    tl.store(p_grad_canvas + o_tile, b_grad, mask=m_tile)
    if GRAD_X:
        tl.store(p_grad_x + o_tile, b_grad_x + b_grad_error, mask=m_tile)
    return b_grad


@triton.jit
def through_write(
    b_grad, b_canvas, p_head, p_canvas, p_grad_head, o_tile, m_tile,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, SIZE: tl.constexpr, REBUILD: tl.constexpr,
    LANES_H: tl.constexpr, LANES_W: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    """Stores the gradients of the patch and of the write's params, and with REBUILD the canvas before."""
    PART: tl.constexpr = SIZE * SIZE
    COUNT: tl.constexpr = PART + 5
    ALL: tl.constexpr = triton.next_power_of_2(COUNT)
    o_h, o_w = tl.arange(0, BLOCK_H), tl.arange(0, BLOCK_W)
    centre_y, centre_x, delta, inverse, log_gamma = window(p_head + PART, 0, HEIGHT, WIDTH, SIZE, tl.float32)
    scale = tl.exp(-log_gamma)
    sums_y, sums_x, b_l = no_sums(LANES_H, LANES_W, BLOCK_H, BLOCK_W)
    b_f_y = all_filters(centre_y, delta, SIZE, o_h, HEIGHT, inverse)
    b_q = many(tl.zeros([BLOCK_H, LANES_W], tl.float32), SIZE)
    b_patch = ()
    for j in tl.static_range(SIZE):
        b_f_x, b_d_x, b_e_x = filter_rows(centre_x, delta, j, SIZE, o_w, WIDTH, inverse)
        values = patch_column(p_head, j, SIZE)
        b_t = over_columns(b_grad * b_f_x[None, :], LANES_W)
        b_q = add_weighted(b_q, values, b_t, SIZE)
        b_v = weighted(values, b_f_y, SIZE)
        b_g = over_rows(b_grad * b_v[:, None], LANES_H)
        sums_x = add_row(sums_x, b_d_x[None, :], b_e_x[None, :], b_g, j, SIZE)
        b_l += b_f_x[None, :] * b_g
        for i in tl.static_range(SIZE):
            b_patch += (over_rows(b_f_y[i][:, None] * b_t, LANES_H),)  # type: ignore[assignment]
        if REBUILD:
            b_canvas -= b_v[:, None] * (b_f_x * scale)[None, :]
    if REBUILD:
        tl.store(p_canvas + o_tile, b_canvas, mask=m_tile)
    sums_y = add_y(sums_y, b_q, centre_y, delta, SIZE, BLOCK_H, HEIGHT, inverse)
    b_sums = stacked(b_patch + of_params(sums_y, sums_x, b_l, LANES_H, LANES_W), COUNT, ALL) * scale
    # The patch column by column, as it was made, and the params behind it.
    o_k = tl.arange(0, ALL)
    b_sums = params_grad(p_head + PART, o_k - PART, b_sums, delta, inverse, -1.0, HEIGHT, WIDTH)
    o_out = tl.where(o_k < PART, o_k % SIZE * SIZE + o_k // SIZE, o_k)
    tl.store(p_grad_head + o_out, b_sums.to(p_grad_head.dtype.element_ty), mask=o_k < COUNT)


@triton.jit
def small_canvas_backward_kernel(
    p_head, p_canvas, p_x, p_grad_r, p_grad_canvas, p_grad_head, p_grad_x,
    CHANNELS: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, WRITE_SIZE: tl.constexpr, READ_SIZE: tl.constexpr,
    HEAD_ROW: tl.constexpr, R_ROW: tl.constexpr, WRITES: tl.constexpr, READS: tl.constexpr,
    READ_PARAMS: tl.constexpr, GRAD_X: tl.constexpr, REBUILD: tl.constexpr,
    LANES_H: tl.constexpr, LANES_W: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr,
    DEPENDENT: tl.constexpr,
):  # fmt: skip
    """READ_PARAMS: the head ends in a read's params. What nothing READS or WRITES gets a gradient of zero. CHANNELS: one."""
    i_b = tl.program_id(0).to(tl.int64)
    i_part = tl.program_id(1)
    PIXELS: tl.constexpr = HEIGHT * WIDTH
    p_own_head, p_own_grad_head = p_head + i_b * HEAD_ROW, p_grad_head + i_b * HEAD_ROW
    p_params, p_grad = p_own_head + (HEAD_ROW - 5), p_own_grad_head + (HEAD_ROW - 5)
    p_own_grad_r = p_grad_r + i_b * R_ROW
    after_the_last_kernel(DEPENDENT)
    if READS:
        if i_part == 0:
            read_window_grad(
                p_params, p_canvas + i_b * PIXELS, p_x + i_b * PIXELS, p_own_grad_r, p_grad,
                HEIGHT, WIDTH, READ_SIZE, LANES_H, LANES_W, BLOCK_H, BLOCK_W,
            )  # fmt: skip
    elif READ_PARAMS:
        store_zeros(p_grad, 5, 8)
    if i_part == tl.num_programs(1) - 1:
        o_h, o_w = tl.arange(0, BLOCK_H), tl.arange(0, BLOCK_W)
        o_tile = i_b * PIXELS + (o_h[:, None] * WIDTH + o_w[None, :])
        m_tile = (o_h < HEIGHT)[:, None] & (o_w < WIDTH)[None, :]
        b_grad = tl.load(p_grad_canvas + o_tile, mask=m_tile, other=0.0)
        b_canvas = b_grad
        if READS or REBUILD:
            b_canvas = tl.load(p_canvas + o_tile, mask=m_tile, other=0.0)
        if READS:
            b_grad = through_read(
                b_grad, b_canvas, p_params, p_own_grad_r, p_grad_canvas, p_grad_x, o_tile, m_tile,
                HEIGHT, WIDTH, READ_SIZE, GRAD_X, BLOCK_H, BLOCK_W,
            )  # fmt: skip
        if WRITES:
            through_write(
                b_grad, b_canvas, p_own_head, p_canvas, p_own_grad_head, o_tile, m_tile,
                HEIGHT, WIDTH, WRITE_SIZE, REBUILD, LANES_H, LANES_W, BLOCK_H, BLOCK_W,
            )  # fmt: skip
        else:
            store_zeros(p_own_grad_head, HEAD_ROW - 5 if READ_PARAMS else HEAD_ROW, 256)
