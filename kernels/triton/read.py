"""read: patch = gamma^power F_Y image F_X^T (equation 27), one launch, one program a channel of a window.

A program walks over the tiles of the image that the window sees, makes both filterbanks' part of each tile in registers, and
sums f_Y (tile f_X^T); the rows' sums, made in a loop before, are divided out at the end. With SINGLE the image is one tile,
the loops fall away and each filter is computed once.

With TILED there are more filters than a program holds: one has BLOCK_N rows and BLOCK_N columns of the patch, and loads what
those see.

With SPLIT the tiles of few large images are shared out to `parts` programs each, which sum patches [parts, ...] of their own;
the caller sums those. How many tiles there are only the device knows: columns are cut as often as rows leave programs over.

Where the design stops: what lies between filters that stand far apart is read; with TILED what the filters of two programs see
is read by both.
"""

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from .rows import axes, column_sums, filters, offsets, place, product, row_sums, seen_tiles, share_tiles

if TYPE_CHECKING:
    from torch import Tensor

from fastdraw.ops.contract import wide_dtype

from .launch import Launch, window_launch
from .tables import patch_tiles, window_blocks


@triton.jit(do_not_specialize=["windows", "channels", "parts"])
def read_kernel(
    p_image, p_params, p_patch, windows, channels, parts,
    height, width, stride_image, stride_channel, stride_row, stride_pixel, size_y, size_x,
    PARAMS: tl.constexpr, POWER: tl.constexpr, DTYPE: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
    SINGLE: tl.constexpr, SPLIT: tl.constexpr, TILED: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    tiles = tl.cdiv(tl.maximum(size_y, size_x), BLOCK_N) if TILED else 1
    # Of image b, window k and channel c; of tiles of filters.
    i_bkc, i_y, i_x = place(tl.program_id(0), tiles)
    i_bk = i_bkc // channels
    own = axes(p_params, i_bk, height, width, size_y, size_x, PARAMS, DTYPE)
    centre_y, centre_x, delta_y, delta_x, inverse_y, inverse_x, log_gamma = own
    o_y, o_x = i_y * BLOCK_N + tl.arange(0, BLOCK_N), i_x * BLOCK_N + tl.arange(0, BLOCK_N)
    b_mu_y, b_mu_x = centre_y + offsets(o_y, size_y, DTYPE) * delta_y, centre_x + offsets(o_x, size_x, DTYPE) * delta_x
    begin_h, end_h, begin_w, end_w = seen_tiles(own, b_mu_y, b_mu_x, height, width, SINGLE, BLOCK_H, BLOCK_W, DTYPE)
    b_z_y = row_sums(b_mu_y, height, inverse_y, end_h, BLOCK_N, BLOCK_H, DTYPE, begin_h)
    b_z_x = column_sums(b_mu_x, width, inverse_x, end_w, BLOCK_N, BLOCK_W, DTYPE, begin_w)
    if SPLIT:
        begin_h, end_h, begin_w, end_w = share_tiles(begin_h, end_h, begin_w, end_w, parts, BLOCK_H, BLOCK_W)

    long_row = tl.cast(stride_row, tl.int64)
    p_own = p_image + i_bk // windows * stride_image + i_bkc % channels * stride_channel
    b_patch = tl.zeros([BLOCK_N, BLOCK_N], DTYPE)
    for i_h in range(begin_h, end_h, BLOCK_H):
        o_row = tl.arange(0, BLOCK_H)
        o_h = i_h + o_row
        b_t = tl.zeros([BLOCK_H, BLOCK_N], DTYPE)
        for i_w in range(begin_w, end_w, BLOCK_W):
            o_w = i_w + tl.arange(0, BLOCK_W)
            m_image = (o_h < height)[:, None] & (o_w < width)[None, :]
            # The first row's offset is 64 bits wide, the offset from there 32 (launch.near).
            p_tile = p_own + i_h * long_row + (o_row[:, None] * stride_row + o_w[None, :] * stride_pixel)
            b_image = tl.load(p_tile, mask=m_image, other=0.0).to(DTYPE)
            b_f_x = filters(b_mu_x[None, :], o_w[:, None], width, inverse_x, DTYPE)
            b_t = product(b_image, b_f_x, b_t, DOT, PRECISION)
        b_f_y = filters(b_mu_y[:, None], o_h[None, :], height, inverse_y, DTYPE)
        b_patch = product(b_f_y, b_t, b_patch, DOT, PRECISION)
    b_patch = b_patch * (tl.exp(POWER * log_gamma) / (b_z_y[:, None] * b_z_x[None, :]))
    if SPLIT:
        i_bkc += tl.program_id(1).to(tl.int64) * (tl.num_programs(0) // (tiles * tiles))
    p_out = p_patch + i_bkc * size_y * size_x + (o_y[:, None] * size_x + o_x[None, :])
    m_patch = (o_y < size_y)[:, None] & (o_x < size_x)[None, :]
    tl.store(p_out, b_patch.to(p_patch.dtype.element_ty), mask=m_patch)


def read_launch(image: "Tensor", params: "Tensor", patch: "Tensor", power: int, precision: str, parts: int = 1) -> Launch:
    """image of any strides, params [B, P] or [B, K, P], patch [B, C, N_y, N_x] or [B, K, C, N_y, N_x]; with parts > 1 before
    these."""
    size, dtype = max(patch.shape[-2:]), wide_dtype(image.dtype)
    blocks = window_blocks("read", size, image.shape[2], image.shape[3], dtype, precision)
    grid = (params.shape[:-1].numel() * image.shape[1] * patch_tiles("read", size, dtype, precision), parts)
    own = {"p_image": image, "p_params": params, "p_patch": patch, "parts": parts, "SPLIT": parts > 1}
    return window_launch(read_kernel, grid, blocks, own, image, params, patch, power, precision)
