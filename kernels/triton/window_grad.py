"""The gradient to params of L = gamma^power sum_c <P_c, F_Y I_c F_X^T>, for read and write alike; one program a window.

With p = gamma^power P / (sums of rows), per tile of I_c:
    T = I f_X^T  [H, N]        G_Y = p T^T  [N, H]        G_X = (f_Y^T p)^T I  [N, W]
and each G only lives until it is summed against its row: sum f G (d - dbar) and sum f G (e - ebar), [N] each (rows.py). With
PATCH_GRAD the same T gives gamma^power F_Y T as well, the write's gradient to its patch, so that its backward is one launch.

With TILED there are more filters than a program holds, and a program has a tile of the patch as in read.py.

Only tiles that the window sees are loaded. With SPLIT one program has one channel and one part of the tiles of a window, as in
read.py. Everything is linear in the tiles: the caller sums the programs' grad_params, and the patch's gradients of all parts.

Where the design stops: what lies between filters that stand far apart is read.
"""

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from .rows import (
    add_rows,
    axes,
    offsets,
    place,
    product,
    row_means,
    rows,
    seen_tiles,
    share_tiles,
    store_axes_grad,
    store_params_grad,
)

if TYPE_CHECKING:
    from torch import Tensor

from fastdraw.ops.contract import wide_dtype

from .launch import Launch, window_launch
from .tables import patch_tiles, window_blocks


@triton.jit
def along_columns(
    p_rows, o_row, o_h, b_v, b_mu, means, inverse, b_dmu, b_de, begin, end, height, width, stride_row, stride_pixel,
    DTYPE: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    """(T, dmu, de): I f_X^T of the image's rows o_h, which begin at p_rows, and the sums of x with what these rows give; b_v:
    f_Y^T p of them."""
    b_t = tl.zeros([BLOCK_N, BLOCK_H], DTYPE)
    for i_w in range(begin, end, BLOCK_W):
        o_w = i_w + tl.arange(0, BLOCK_W)
        m_image = (o_h < height)[:, None] & (o_w < width)[None, :]
        p_tile = p_rows + (o_row[:, None] * stride_row + o_w[None, :] * stride_pixel)
        b_image = tl.load(p_tile, mask=m_image, other=0.0).to(DTYPE)
        b_f, b_d, b_e = rows(b_mu[:, None], o_w[None, :], width, inverse, DTYPE)
        b_t = product(b_f, tl.trans(b_image), b_t, DOT, PRECISION)
        b_g = product(b_v, b_image, tl.zeros([BLOCK_N, BLOCK_W], DTYPE), DOT, PRECISION)
        b_dmu, b_de = add_rows((b_dmu, b_de), b_f, b_d, b_e, means, b_g)
    return b_t, b_dmu, b_de


@triton.jit
def store_sums(
    p_params, p_grad, i_bk, own, b_dmu_y, b_dmu_x, b_de, b_de_x, b_l, b_offset_y, b_offset_x, height, width,
    PARAMS: tl.constexpr, POWER: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """The gradient to the params of window i_bk, from its sums of each filter, [N]; own: the window, as `axes` gives it."""
    _, _, delta_y, delta_x, inverse_y, inverse_x, _ = own
    dmu_y, dmu_x, de = tl.sum(b_dmu_y, axis=0), tl.sum(b_dmu_x, axis=0), tl.sum(b_de, axis=0)
    dlog_gamma = POWER * tl.sum(b_l, axis=0)
    if PARAMS == 5:
        dmu_offset = tl.sum(b_dmu_y * b_offset_y + b_dmu_x * b_offset_x, axis=0)
        store_params_grad(
            p_params, p_grad, i_bk, height, width, dmu_y, dmu_x, dmu_offset, de, dlog_gamma, delta_y, inverse_y, DTYPE
        )
    else:
        sums_y = dmu_y, tl.sum(b_dmu_y * b_offset_y, axis=0), de
        sums_x = dmu_x, tl.sum(b_dmu_x * b_offset_x, axis=0), tl.sum(b_de_x, axis=0)
        store_axes_grad(
            p_params, p_grad, i_bk, height, width, sums_y, sums_x, dlog_gamma, delta_y, delta_x, inverse_y, inverse_x,
            PARAMS, DTYPE,
        )  # fmt: skip


@triton.jit(do_not_specialize=["windows", "channels", "parts"])
def window_grad_kernel(
    p_patch, p_image, p_params, p_grad_params, p_grad_patch, windows, channels, parts,
    height, width, stride_image, stride_channel, stride_row, stride_pixel, size_y, size_x,
    PARAMS: tl.constexpr, POWER: tl.constexpr, PATCH_GRAD: tl.constexpr,
    DTYPE: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
    SINGLE: tl.constexpr, SPLIT: tl.constexpr, TILED: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    tiles = tl.cdiv(tl.maximum(size_y, size_x), BLOCK_N) if TILED else 1
    i_own, i_y, i_x = place(tl.program_id(0), tiles)
    # Of image b and window k; of channel c.
    i_bk = i_own // channels if SPLIT else i_own
    first_c = (i_own % channels).to(tl.int32) if SPLIT else 0
    end_c = first_c + 1 if SPLIT else channels
    own = axes(p_params, i_bk, height, width, size_y, size_x, PARAMS, DTYPE)
    centre_y, centre_x, delta_y, delta_x, inverse_y, inverse_x, log_gamma = own
    o_y, o_x = i_y * BLOCK_N + tl.arange(0, BLOCK_N), i_x * BLOCK_N + tl.arange(0, BLOCK_N)
    b_offset_y, b_offset_x = offsets(o_y, size_y, DTYPE), offsets(o_x, size_x, DTYPE)
    b_mu_y, b_mu_x = centre_y + b_offset_y * delta_y, centre_x + b_offset_x * delta_x
    begin_h, end_h, begin_w, end_w = seen_tiles(own, b_mu_y, b_mu_x, height, width, SINGLE, BLOCK_H, BLOCK_W, DTYPE)
    means_y = row_means(b_mu_y, height, inverse_y, end_h, BLOCK_N, BLOCK_H, DTYPE, begin_h)
    means_x = row_means(b_mu_x, width, inverse_x, end_w, BLOCK_N, BLOCK_W, DTYPE, begin_w)
    if SPLIT:
        begin_h, end_h, begin_w, end_w = share_tiles(begin_h, end_h, begin_w, end_w, parts, BLOCK_H, BLOCK_W)
    b_scale = tl.exp(POWER * log_gamma) / (means_y[0][:, None] * means_x[0][None, :])

    long_row = tl.cast(stride_row, tl.int64)
    o_patch = o_y[:, None] * size_x + o_x[None, :]
    m_patch = (o_y < size_y)[:, None] & (o_x < size_x)[None, :]
    b_n = tl.zeros([BLOCK_N], DTYPE)
    # b_de: of y, and of x too where both have one sigma.
    b_l, b_dmu_y, b_dmu_x, b_de, b_de_x = b_n, b_n, b_n, b_n, b_n
    for i_c in range(first_c, end_c):
        i_bkc = i_bk * channels + i_c
        p_own = p_image + i_bk // windows * stride_image + tl.cast(i_c, tl.int64) * stride_channel
        b_p = tl.load(p_patch + i_bkc * size_y * size_x + o_patch, mask=m_patch, other=0.0).to(DTYPE) * b_scale
        b_p_t = tl.trans(b_p)
        b_patch = tl.zeros([BLOCK_N, BLOCK_N], DTYPE)
        for i_h in range(begin_h, end_h, BLOCK_H):
            o_row = tl.arange(0, BLOCK_H)
            o_h = i_h + o_row
            b_f_y, b_d_y, b_e_y = rows(b_mu_y[:, None], o_h[None, :], height, inverse_y, DTYPE)
            b_v = product(b_p_t, b_f_y, tl.zeros([BLOCK_N, BLOCK_H], DTYPE), DOT, PRECISION)
            # The first row's offset is 64 bits wide, the offset from there 32 (launch.near).
            b_t, b_dmu_x, b_de_any = along_columns(
                p_own + i_h * long_row, o_row, o_h, b_v, b_mu_x, means_x, inverse_x, b_dmu_x, b_de if PARAMS == 5 else b_de_x,
                begin_w, end_w, height, width, stride_row, stride_pixel, DTYPE, DOT, PRECISION, BLOCK_N, BLOCK_H, BLOCK_W,
            )  # fmt: skip
            if PARAMS == 5:
                b_de = b_de_any
            else:
                b_de_x = b_de_any
            b_g_y = product(b_p, b_t, tl.zeros([BLOCK_N, BLOCK_H], DTYPE), DOT, PRECISION)
            b_l += tl.sum(b_f_y * b_g_y, axis=1)
            b_dmu_y, b_de = add_rows((b_dmu_y, b_de), b_f_y, b_d_y, b_e_y, means_y, b_g_y)
            if PATCH_GRAD:
                b_patch = product(b_f_y, tl.trans(b_t), b_patch, DOT, PRECISION)
        if PATCH_GRAD:
            b_out = (b_patch * b_scale).to(p_grad_patch.dtype.element_ty)
            i_out = i_bkc
            if SPLIT:
                i_out += tl.program_id(1).to(tl.int64) * (tl.num_programs(0) // (tiles * tiles))
            tl.store(p_grad_patch + i_out * size_y * size_x + o_patch, b_out, mask=m_patch)
    i_program = tl.program_id(0).to(tl.int64)
    if SPLIT:
        i_program += tl.program_id(1).to(tl.int64) * tl.num_programs(0)
    p_grad_params += (i_program - i_bk) * PARAMS
    store_sums(
        p_params, p_grad_params, i_bk, own, b_dmu_y, b_dmu_x, b_de, b_de_x, b_l, b_offset_y, b_offset_x, height, width,
        PARAMS, POWER, DTYPE,
    )  # fmt: skip


def window_grad_launch(
    patch: "Tensor", image: "Tensor", params: "Tensor", grad_params: "Tensor", grad_patch: "Tensor | None",
    power: int, precision: str, parts: int = 1,
) -> Launch:  # fmt: skip
    """Shapes as in read.py; with parts > 1 grad_patch [parts, ...]. grad_params: [grid[1], grid[0], P], windows outermost."""
    size, dtype = max(patch.shape[-2:]), wide_dtype(image.dtype)
    kernel = "window_grad" if grad_patch is None else "write_grad"
    blocks = window_blocks(kernel, size, image.shape[2], image.shape[3], dtype, precision)
    own = {
        "p_patch": patch,
        "p_image": image,
        "p_params": params,
        "p_grad_params": grad_params,
        "p_grad_patch": patch if grad_patch is None else grad_patch,
        "parts": parts,
        "PATCH_GRAD": grad_patch is not None,
        "SPLIT": parts > 1,
    }
    programs = (image.shape[1] if parts > 1 else 1) * patch_tiles(kernel, size, dtype, precision)
    grid = (params.shape[:-1].numel() * programs, parts)
    return window_launch(window_grad_kernel, grid, blocks, own, image, params, patch, power, precision)
