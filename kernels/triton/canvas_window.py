"""Windows of canvas.py and canvas_backward.py: centres of filters, patches; opened for a gradient, and its sums; and the whole
gradient of the read's, which is a program of its own.

A window is (filters of y, of x, what a patch is multiplied with, i - (N-1)/2, delta, 1 / 2 sigma^2); filters are
(mu, dbar, ebar), [N] each, as in window_grad.py. Its sums are (dmu, de) of y, the same of x, and L, [N] each.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .activations import sigmoid
from .rows import add_rows, offsets, product, row_means, rows, store_params_grad, window


@triton.jit
def centres(p_params, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, SIZE: tl.constexpr, BLOCK_N: tl.constexpr):
    """(mu_y, mu_x, 1 / 2 sigma^2, log gamma, delta, i - (N-1)/2) of the window whose params begin at p_params."""
    centre_y, centre_x, delta, inverse, log_gamma = window(p_params, 0, HEIGHT, WIDTH, SIZE, tl.float32)
    b_offset = offsets(tl.arange(0, BLOCK_N), SIZE, tl.float32)
    return centre_y + b_offset * delta, centre_x + b_offset * delta, inverse, log_gamma, delta, b_offset


@triton.jit
def opened(
    p_params, POWER: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, SIZE: tl.constexpr,
    END_H: tl.constexpr, END_W: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    """The window whose params are at p_params; POWER: of gamma."""
    b_mu_y, b_mu_x, inverse, log_gamma, delta, b_offset = centres(p_params, HEIGHT, WIDTH, SIZE, BLOCK_N)
    b_z_y, b_mean_d_y, b_mean_e_y = row_means(b_mu_y, HEIGHT, inverse, END_H, BLOCK_N, BLOCK_H, tl.float32)
    b_z_x, b_mean_d_x, b_mean_e_x = row_means(b_mu_x, WIDTH, inverse, END_W, BLOCK_N, BLOCK_W, tl.float32)
    b_scale = tl.exp(POWER * log_gamma) / (b_z_y[:, None] * b_z_x[None, :])
    return (b_mu_y, b_mean_d_y, b_mean_e_y), (b_mu_x, b_mean_d_x, b_mean_e_x), b_scale, b_offset, delta, inverse


@triton.jit
def close_window(p_params, p_grad, own, sums_y, sums_x, b_l, POWER: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr):
    """Stores the gradient to the five params at p_params of the window `own` from its sums."""
    _, _, _, b_offset, delta, inverse = own
    dmu_y, dmu_x, de = tl.sum(sums_y[0], axis=0), tl.sum(sums_x[0], axis=0), tl.sum(sums_y[1] + sums_x[1], axis=0)
    dmu_offset = tl.sum((sums_y[0] + sums_x[0]) * b_offset, axis=0)
    dlog_gamma = POWER * tl.sum(b_l, axis=0)
    store_params_grad(p_params, p_grad, 0, HEIGHT, WIDTH, dmu_y, dmu_x, dmu_offset, de, dlog_gamma, delta, inverse, tl.float32)


@triton.jit
def patch_at(p_patch, SIZE: tl.constexpr, BLOCK_N: tl.constexpr):
    """(pointers, mask) of the patch at p_patch."""
    o_n = tl.arange(0, BLOCK_N)
    return p_patch + (o_n[:, None] * SIZE + o_n[None, :]), (o_n < SIZE)[:, None] & (o_n < SIZE)[None, :]


@triton.jit
def load_patch(p_patch, SIZE: tl.constexpr, BLOCK_N: tl.constexpr):
    p_own, m_patch = patch_at(p_patch, SIZE, BLOCK_N)
    return tl.load(p_own, mask=m_patch, other=0.0).to(tl.float32)


@triton.jit
def read_window_grad(
    p_params, p_canvas, p_x, p_grad_r, p_grad,
    CHANNELS: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, SIZE: tl.constexpr, PRECISION: tl.constexpr,
    END_H: tl.constexpr, END_W: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    """The gradient to the read's params, of one image; pointers are to that image's own."""
    own = opened(p_params, 1, HEIGHT, WIDTH, SIZE, END_H, END_W, BLOCK_N, BLOCK_H, BLOCK_W)
    filters_y, filters_x, b_scale, _, _, inverse = own
    b_n, b_zeros_h = tl.zeros([BLOCK_N], tl.float32), tl.zeros([BLOCK_N, BLOCK_H], tl.float32)
    sums_y, sums_x, b_l = (b_n, b_n), (b_n, b_n), b_n
    for i_c in range(0, CHANNELS):
        p_patch = p_grad_r + i_c * (SIZE * SIZE)
        b_p = load_patch(p_patch, SIZE, BLOCK_N) * b_scale
        b_p_error = load_patch(p_patch + CHANNELS * (SIZE * SIZE), SIZE, BLOCK_N) * b_scale
        for i_h in range(0, END_H, BLOCK_H):
            o_h = i_h + tl.arange(0, BLOCK_H)
            b_f_y, b_d_y, b_e_y = rows(filters_y[0][:, None], o_h[None, :], HEIGHT, inverse, tl.float32)
            b_v = product(tl.trans(b_p), b_f_y, b_zeros_h, True, PRECISION)
            b_v_error = product(tl.trans(b_p_error), b_f_y, b_zeros_h, True, PRECISION)
            b_t, b_t_error = b_zeros_h, b_zeros_h
            for i_w in range(0, END_W, BLOCK_W):
                o_w = i_w + tl.arange(0, BLOCK_W)
                o_tile = i_c * (HEIGHT * WIDTH) + o_h[:, None] * WIDTH + o_w[None, :]
                m_tile = (o_h < HEIGHT)[:, None] & (o_w < WIDTH)[None, :]
                b_x = tl.load(p_x + o_tile, mask=m_tile, other=0.0)
                # Past the image's end x^ is no zero; the filters are.
                b_error = b_x - sigmoid(tl.load(p_canvas + o_tile, mask=m_tile, other=0.0))
                b_g = product(b_v, b_x, tl.zeros([BLOCK_N, BLOCK_W], tl.float32), True, PRECISION)
                b_g = product(b_v_error, b_error, b_g, True, PRECISION)
                b_f_x, b_d_x, b_e_x = rows(filters_x[0][:, None], o_w[None, :], WIDTH, inverse, tl.float32)
                sums_x = add_rows(sums_x, b_f_x, b_d_x, b_e_x, filters_x, b_g)
                b_t = product(b_f_x, tl.trans(b_x), b_t, True, PRECISION)
                b_t_error = product(b_f_x, tl.trans(b_error), b_t_error, True, PRECISION)
            b_g = product(b_p, b_t, b_zeros_h, True, PRECISION)
            b_g = product(b_p_error, b_t_error, b_g, True, PRECISION)
            sums_y = add_rows(sums_y, b_f_y, b_d_y, b_e_y, filters_y, b_g)
            b_l += tl.sum(b_f_y * b_g, axis=1)
    close_window(p_params, p_grad, own, sums_y, sums_x, b_l, 1, HEIGHT, WIDTH)
