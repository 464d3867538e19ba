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
    p_params,
    p_canvas,
    p_x,
    p_grad_r,
    p_grad,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    SIZE: tl.constexpr,
    LANES_H: tl.constexpr,
    LANES_W: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
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
def small_canvas_backward_kernel(
    p_head,
    p_canvas,
    p_x,
    p_grad_r,
    p_grad_canvas,
    p_grad_head,
    p_grad_x,
    CHANNELS: tl.constexpr,  # one
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    WRITE_SIZE: tl.constexpr,
    READ_SIZE: tl.constexpr,
    HEAD_ROW: tl.constexpr,
    R_ROW: tl.constexpr,
    WRITES: tl.constexpr,
    READS: tl.constexpr,
    READ_PARAMS: tl.constexpr,
    GRAD_X: tl.constexpr,
    REBUILD: tl.constexpr,
    LANES_H: tl.constexpr,
    LANES_W: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_W: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """READ_PARAMS: the head ends in a read's params. What nothing READS or WRITES gets a gradient of zero."""
    i_b = tl.program_id(0).to(tl.int64)
    i_part = tl.program_id(1)
    PIXELS: tl.constexpr = HEIGHT * WIDTH
    WRITE_PART: tl.constexpr = WRITE_SIZE * WRITE_SIZE
    p_own_head, p_own_grad_head = p_head + i_b * HEAD_ROW, p_grad_head + i_b * HEAD_ROW
    p_params, p_grad = p_own_head + (HEAD_ROW - 5), p_own_grad_head + (HEAD_ROW - 5)
    p_own_grad_r = p_grad_r + i_b * R_ROW
    out = p_grad_head.dtype.element_ty
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
        if READS or REBUILD:
            b_canvas = tl.load(p_canvas + o_tile, mask=m_tile, other=0.0)
        if READS:
            r_y, r_x, r_delta, r_inverse, r_gamma = window(p_params, 0, HEIGHT, WIDTH, READ_SIZE, tl.float32)
            gamma = tl.exp(r_gamma)
            if GRAD_X:
                b_grad_x = tl.load(p_grad_x + o_tile, mask=m_tile, other=0.0)
            b_f_y = all_filters(r_y, r_delta, READ_SIZE, o_h, HEIGHT, r_inverse)
            b_grad_error = tl.zeros([BLOCK_H, BLOCK_W], tl.float32)
            for j in tl.static_range(READ_SIZE):
                b_f_x = filter_row(r_x, r_delta, j, READ_SIZE, o_w, WIDTH, r_inverse) * gamma
                b_v = weighted(patch_column(p_own_grad_r + READ_SIZE * READ_SIZE, j, READ_SIZE), b_f_y, READ_SIZE)
                b_grad_error += b_v[:, None] * b_f_x[None, :]
                if GRAD_X:
                    b_v = weighted(patch_column(p_own_grad_r, j, READ_SIZE), b_f_y, READ_SIZE)
                    b_grad_x += b_v[:, None] * b_f_x[None, :]
            b_sigmoid = sigmoid(b_canvas)
            # The slope of x^ is -1 times that of a sigmoid of the canvas.
            b_grad += b_grad_error * (b_sigmoid * (b_sigmoid - 1.0))
            tl.store(p_grad_canvas + o_tile, b_grad, mask=m_tile)
            if GRAD_X:
                tl.store(p_grad_x + o_tile, b_grad_x + b_grad_error, mask=m_tile)
        if WRITES:
            p_w_params = p_own_head + WRITE_PART
            w_y, w_x, w_delta, w_inverse, w_gamma = window(p_w_params, 0, HEIGHT, WIDTH, WRITE_SIZE, tl.float32)
            scale = tl.exp(-w_gamma)
            sums_y, sums_x, b_l = no_sums(LANES_H, LANES_W, BLOCK_H, BLOCK_W)
            b_f_y = all_filters(w_y, w_delta, WRITE_SIZE, o_h, HEIGHT, w_inverse)
            b_q = many(tl.zeros([BLOCK_H, LANES_W], tl.float32), WRITE_SIZE)
            b_patch = ()
            for j in tl.static_range(WRITE_SIZE):
                b_f_x, b_d_x, b_e_x = filter_rows(w_x, w_delta, j, WRITE_SIZE, o_w, WIDTH, w_inverse)
                values = patch_column(p_own_head, j, WRITE_SIZE)
                b_t = over_columns(b_grad * b_f_x[None, :], LANES_W)
                b_q = add_weighted(b_q, values, b_t, WRITE_SIZE)
                b_v = weighted(values, b_f_y, WRITE_SIZE)
                b_g = over_rows(b_grad * b_v[:, None], LANES_H)
                sums_x = add_row(sums_x, b_d_x[None, :], b_e_x[None, :], b_g, j, WRITE_SIZE)
                b_l += b_f_x[None, :] * b_g
                for i in tl.static_range(WRITE_SIZE):
                    b_patch += (over_rows(b_f_y[i][:, None] * b_t, LANES_H),)  # type: ignore[assignment]
                if REBUILD:
                    b_canvas -= b_v[:, None] * (b_f_x * scale)[None, :]
            if REBUILD:
                tl.store(p_canvas + o_tile, b_canvas, mask=m_tile)
            sums_y = add_y(sums_y, b_q, w_y, w_delta, WRITE_SIZE, BLOCK_H, HEIGHT, w_inverse)
            COUNT: tl.constexpr = WRITE_PART + 5
            ALL: tl.constexpr = triton.next_power_of_2(COUNT)
            b_sums = stacked(b_patch + of_params(sums_y, sums_x, b_l, LANES_H, LANES_W), COUNT, ALL) * scale
            # The patch column by column, as it was made, and the params behind it.
            o_k = tl.arange(0, ALL)
            b_sums = params_grad(p_w_params, o_k - WRITE_PART, b_sums, w_delta, w_inverse, -1.0, HEIGHT, WIDTH)
            o_out = tl.where(o_k < WRITE_PART, o_k % WRITE_SIZE * WRITE_SIZE + o_k // WRITE_SIZE, o_k)
            tl.store(p_own_grad_head + o_out, b_sums.to(out), mask=o_k < COUNT)
        else:
            store_zeros(p_own_grad_head, HEAD_ROW - 5 if READ_PARAMS else HEAD_ROW, 256)
