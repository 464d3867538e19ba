"""canvas.py for few filters (N <= 8) over an image that is one tile, as in the paper's MNIST and CIFAR models.

One program an image channel, one warp where the image is up to 32x32: no barrier, no shared memory. few_filters.py has the
form. The launcher is canvas.py's, which takes this kernel where the table says so.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .activations import sigmoid
from .dependent import after_the_last_kernel
from .few_filters import all_filters, filter_row, over_columns, over_rows, patch_column, stacked, weighted
from .rows import window


@triton.jit
def small_canvas_kernel(
    p_head, p_before, p_canvas, p_x, p_r,
    CHANNELS: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, WRITE_SIZE: tl.constexpr, READ_SIZE: tl.constexpr,
    HEAD_ROW: tl.constexpr, R_ROW: tl.constexpr, WRITES: tl.constexpr, READS: tl.constexpr,
    LANES_H: tl.constexpr, LANES_W: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr,
    DEPENDENT: tl.constexpr,
):  # fmt: skip
    i_bc = tl.program_id(0).to(tl.int64)
    i_b, i_c = i_bc // CHANNELS, i_bc % CHANNELS
    WRITE_PART: tl.constexpr = WRITE_SIZE * WRITE_SIZE
    READ_PART: tl.constexpr = READ_SIZE * READ_SIZE
    o_h, o_w = tl.arange(0, BLOCK_H), tl.arange(0, BLOCK_W)
    o_tile = i_bc * (HEIGHT * WIDTH) + (o_h[:, None] * WIDTH + o_w[None, :])
    m_tile = (o_h < HEIGHT)[:, None] & (o_w < WIDTH)[None, :]
    p_own_head = p_head + i_b * HEAD_ROW
    after_the_last_kernel(DEPENDENT)
    b_canvas = tl.load(p_before + o_tile, mask=m_tile, other=0.0)
    if READS:
        b_x = tl.load(p_x + o_tile, mask=m_tile, other=0.0)
        r_y, r_x, r_delta, r_inverse, r_gamma = window(p_own_head + (HEAD_ROW - 5), 0, HEIGHT, WIDTH, READ_SIZE, tl.float32)
    if WRITES:
        p_params = p_own_head + CHANNELS * WRITE_PART
        w_y, w_x, w_delta, w_inverse, w_gamma = window(p_params, 0, HEIGHT, WIDTH, WRITE_SIZE, tl.float32)
        gamma = tl.exp(-w_gamma)
        b_f_y = all_filters(w_y, w_delta, WRITE_SIZE, o_h, HEIGHT, w_inverse)
        for j in tl.static_range(WRITE_SIZE):
            b_f_x = filter_row(w_x, w_delta, j, WRITE_SIZE, o_w, WIDTH, w_inverse) * gamma
            b_v = weighted(patch_column(p_own_head + i_c * WRITE_PART, j, WRITE_SIZE), b_f_y, WRITE_SIZE)
            b_canvas += b_v[:, None] * b_f_x[None, :]
        tl.store(p_canvas + o_tile, b_canvas, mask=m_tile)
    if READS:
        # Past the image's end this is no zero; the filters are.
        b_error = b_x - sigmoid(b_canvas)
        b_f_y = all_filters(r_y, r_delta, READ_SIZE, o_h, HEIGHT, r_inverse)
        b_read, b_read_error = (), ()
        for j in tl.static_range(READ_SIZE):
            b_f_x = filter_row(r_x, r_delta, j, READ_SIZE, o_w, WIDTH, r_inverse)[None, :]
            b_t, b_t_error = over_columns(b_x * b_f_x, LANES_W), over_columns(b_error * b_f_x, LANES_W)
            for i in tl.static_range(READ_SIZE):
                b_read += (over_rows(b_f_y[i][:, None] * b_t, LANES_H),)  # type: ignore[assignment]
                b_read_error += (over_rows(b_f_y[i][:, None] * b_t_error, LANES_H),)  # type: ignore[assignment]
        ALL: tl.constexpr = triton.next_power_of_2(2 * READ_PART)
        b_r = stacked(b_read + b_read_error, 2 * READ_PART, ALL) * tl.exp(r_gamma)
        # Column by column, as they were made: those of x, then those of x^.
        o_k = tl.arange(0, ALL)
        o_in_patch = o_k % READ_PART
        o_r = i_c * READ_PART + o_in_patch % READ_SIZE * READ_SIZE + o_in_patch // READ_SIZE
        o_r += tl.where(o_k < READ_PART, 0, CHANNELS * READ_PART)
        tl.store(p_r + i_b * R_ROW + o_r, b_r.to(p_r.dtype.element_ty), mask=o_k < 2 * READ_PART)
