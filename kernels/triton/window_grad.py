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
    axes,
    offsets,
    place,
    product,
    reaches,
    row_means,
    rows,
    seen,
    share_tiles,
    store_axes_grad,
    store_params_grad,
)

if TYPE_CHECKING:
    from torch import Tensor

from fastdraw.ops.contract import wide_dtype

from .launch import Launch, image_strides, tl_dtype
from .tables import patch_tiles, window_blocks


@triton.jit(do_not_specialize=["windows", "channels", "parts"])
def window_grad_kernel(
    p_patch,
    p_image,
    p_params,
    p_grad_params,
    p_grad_patch,
    windows,
    channels,
    parts,
    height,
    width,
    stride_image,
    stride_channel,
    stride_row,
    stride_pixel,
    size_y,
    size_x,
    PARAMS: tl.constexpr,
    POWER: tl.constexpr,
    PATCH_GRAD: tl.constexpr,
    DTYPE: tl.constexpr,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
    SINGLE: tl.constexpr,
    SPLIT: tl.constexpr,
    TILED: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    tiles = tl.cdiv(tl.maximum(size_y, size_x), BLOCK_N) if TILED else 1
    i_own, i_y, i_x = place(tl.program_id(0), tiles)
    # Of image b and window k; of channel c.
    i_bk = i_own // channels if SPLIT else i_own
    first_c = (i_own % channels).to(tl.int32) if SPLIT else 0
    end_c = first_c + 1 if SPLIT else channels
    centre_y, centre_x, delta_y, delta_x, inverse_y, inverse_x, log_gamma = axes(
        p_params, i_bk, height, width, size_y, size_x, PARAMS, DTYPE
    )
    o_y, o_x = i_y * BLOCK_N + tl.arange(0, BLOCK_N), i_x * BLOCK_N + tl.arange(0, BLOCK_N)
    b_offset_y, b_offset_x = offsets(o_y, size_y, DTYPE), offsets(o_x, size_x, DTYPE)
    b_mu_y, b_mu_x = centre_y + b_offset_y * delta_y, centre_x + b_offset_x * delta_x
    if SINGLE:
        begin_h, begin_w, end_h, end_w = 0, 0, BLOCK_H, BLOCK_W
    else:
        reach_y, reach_x = reaches(centre_y, centre_x, delta_y, delta_x, inverse_y, inverse_x, log_gamma, DTYPE)
        begin_h, end_h = seen(b_mu_y, height, reach_y, BLOCK_H, DTYPE)
        begin_w, end_w = seen(b_mu_x, width, reach_x, BLOCK_W, DTYPE)
    b_z_y, b_mean_d_y, b_mean_e_y = row_means(b_mu_y, height, inverse_y, end_h, BLOCK_N, BLOCK_H, DTYPE, begin_h)
    b_z_x, b_mean_d_x, b_mean_e_x = row_means(b_mu_x, width, inverse_x, end_w, BLOCK_N, BLOCK_W, DTYPE, begin_w)
    if SPLIT:
        begin_h, end_h, begin_w, end_w = share_tiles(begin_h, end_h, begin_w, end_w, parts, BLOCK_H, BLOCK_W)
    b_scale = tl.exp(POWER * log_gamma) / (b_z_y[:, None] * b_z_x[None, :])

    long_row = tl.cast(stride_row, tl.int64)
    o_patch = o_y[:, None] * size_x + o_x[None, :]
    m_patch = (o_y < size_y)[:, None] & (o_x < size_x)[None, :]
    b_l = tl.zeros([BLOCK_N], DTYPE)
    b_dmu_y = tl.zeros([BLOCK_N], DTYPE)
    b_dmu_x = tl.zeros([BLOCK_N], DTYPE)
    # Of y, and of x too where both have one sigma.
    b_de = tl.zeros([BLOCK_N], DTYPE)
    b_de_x = tl.zeros([BLOCK_N], DTYPE)
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
            b_t = tl.zeros([BLOCK_N, BLOCK_H], DTYPE)
            for i_w in range(begin_w, end_w, BLOCK_W):
                o_w = i_w + tl.arange(0, BLOCK_W)
                m_image = (o_h < height)[:, None] & (o_w < width)[None, :]
                # The first row's offset is 64 bits wide, the offset from there 32 (launch.near).
                p_tile = p_own + i_h * long_row + (o_row[:, None] * stride_row + o_w[None, :] * stride_pixel)
                b_image = tl.load(p_tile, mask=m_image, other=0.0).to(DTYPE)
                b_f_x, b_d_x, b_e_x = rows(b_mu_x[:, None], o_w[None, :], width, inverse_x, DTYPE)
                b_t = product(b_f_x, tl.trans(b_image), b_t, DOT, PRECISION)
                b_g_x = b_f_x * product(b_v, b_image, tl.zeros([BLOCK_N, BLOCK_W], DTYPE), DOT, PRECISION)
                b_dmu_x += tl.sum(b_g_x * (b_d_x - b_mean_d_x[:, None]), axis=1)
                if PARAMS == 5:
                    b_de += tl.sum(b_g_x * (b_e_x - b_mean_e_x[:, None]), axis=1)
                else:
                    b_de_x += tl.sum(b_g_x * (b_e_x - b_mean_e_x[:, None]), axis=1)
            b_g_y = b_f_y * product(b_p, b_t, tl.zeros([BLOCK_N, BLOCK_H], DTYPE), DOT, PRECISION)
            b_l += tl.sum(b_g_y, axis=1)
            b_dmu_y += tl.sum(b_g_y * (b_d_y - b_mean_d_y[:, None]), axis=1)
            b_de += tl.sum(b_g_y * (b_e_y - b_mean_e_y[:, None]), axis=1)
            if PATCH_GRAD:
                b_patch = product(b_f_y, tl.trans(b_t), b_patch, DOT, PRECISION)
        if PATCH_GRAD:
            b_out = (b_patch * b_scale).to(p_grad_patch.dtype.element_ty)
            i_out = i_bkc
            if SPLIT:
                i_out += tl.program_id(1).to(tl.int64) * (tl.num_programs(0) // (tiles * tiles))
            tl.store(p_grad_patch + i_out * size_y * size_x + o_patch, b_out, mask=m_patch)
    dmu_y, dmu_x, de = tl.sum(b_dmu_y, axis=0), tl.sum(b_dmu_x, axis=0), tl.sum(b_de, axis=0)
    dlog_gamma = POWER * tl.sum(b_l, axis=0)
    i_program = tl.program_id(0).to(tl.int64)
    if SPLIT:
        i_program += tl.program_id(1).to(tl.int64) * tl.num_programs(0)
    p_grad_params += (i_program - i_bk) * PARAMS
    if PARAMS == 5:
        dmu_offset = tl.sum(b_dmu_y * b_offset_y + b_dmu_x * b_offset_x, axis=0)
        store_params_grad(
            p_params, p_grad_params, i_bk, height, width, dmu_y, dmu_x, dmu_offset, de, dlog_gamma, delta_y, inverse_y, DTYPE
        )
    else:
        sums_y = dmu_y, tl.sum(b_dmu_y * b_offset_y, axis=0), de
        sums_x = dmu_x, tl.sum(b_dmu_x * b_offset_x, axis=0), tl.sum(b_de_x, axis=0)
        store_axes_grad(
            p_params, p_grad_params, i_bk, height, width, sums_y, sums_x, dlog_gamma, delta_y, delta_x, inverse_y, inverse_x,
            PARAMS, DTYPE,
        )  # fmt: skip


def window_grad_launch(
    patch: "Tensor",
    image: "Tensor",
    params: "Tensor",
    grad_params: "Tensor",
    grad_patch: "Tensor | None",
    power: int,
    precision: str,
    parts: int = 1,
) -> Launch:
    """Shapes as in read.py; with parts > 1 grad_patch [parts, ...]. grad_params: [grid[1], grid[0], P], windows outermost."""
    channels, height, width = image.shape[1:]
    windows = params.shape[:-1].numel() // image.shape[0]
    sides = patch.shape[-2:]
    size = max(sides)
    dtype = wide_dtype(image.dtype)
    kernel = "window_grad" if grad_patch is None else "write_grad"
    blocks = window_blocks(kernel, size, height, width, dtype, precision)
    arguments = {
        "p_patch": patch,
        "p_image": image,
        "p_params": params,
        "p_grad_params": grad_params,
        "p_grad_patch": patch if grad_patch is None else grad_patch,
        "windows": windows,
        "channels": channels,
        "parts": parts,
        "height": height,
        "width": width,
        **image_strides(image),
        "size_y": sides[0],
        "size_x": sides[1],
        "PARAMS": params.shape[-1],
        "POWER": power,
        "PATCH_GRAD": grad_patch is not None,
        "DTYPE": tl_dtype(dtype),
        "PRECISION": precision,
        "SPLIT": parts > 1,
    }
    arguments.update(blocks.constants)
    programs = (channels if parts > 1 else 1) * patch_tiles(kernel, size, dtype, precision)
    grid = (image.shape[0] * windows * programs, parts)
    return Launch(window_grad_kernel, grid, arguments, blocks.num_warps, blocks.num_stages, max_registers=255, fma=False)
