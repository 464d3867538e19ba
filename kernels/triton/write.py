"""write: image = gamma^power F_Y^T patch F_X (equation 29), one launch, one program a stripe of an image channel.

gamma^power and the rows' sums go into the patch, which stays in registers; f_Y^T patch is made once a stripe, and each tile of
the stripe that the window sees is one product with f_X and one store. The others are stored as zeros, without arithmetic.
This kernel is also the read's gradient to its image.

With SEVERAL there are more windows than one, or more filters than a program holds: the program goes through the windows, and
through tiles of BLOCK_N columns of filters, in their order. The first is stored as above; the others are added where they see
the stripe. So sums have one order, and each costs what it sees.

Where the design stops: every stripe that the window sees sums all rows; what lies between filters far apart is computed.
"""

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from .rows import axes, column_sums, filters, offsets, product, reaches, row_sums, seen

if TYPE_CHECKING:
    from torch import Tensor

from fastdraw.ops.contract import wide_dtype

from .launch import Launch, window_launch
from .tables import window_blocks


@triton.jit
def filters_of_stripe(
    centre, delta, reach, i_h, height, size,
    DTYPE: tl.constexpr, END: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    """(first, end): the tiles of filters that see the stripe that begins at i_h; they follow each other. Of none end is 0."""
    first, end = size, 0
    for i_n in range(0, END, BLOCK_N):
        b_mu = centre + offsets(i_n + tl.arange(0, BLOCK_N), size, DTYPE) * delta
        begin_h, end_h = seen(b_mu, height, reach, BLOCK_H, DTYPE)
        sees = (i_h >= begin_h) & (i_h < end_h)
        first = tl.where(sees, tl.minimum(first, i_n), first)
        end = tl.where(sees, i_n + BLOCK_N, end)
    return first, end


@triton.jit
def clear(
    p_stripe, o_row, o_h, begin, end, height, width, stride_row, stride_pixel, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr
):
    """Stores zeros in the columns from `begin` on of a stripe's rows."""
    b_zero = tl.zeros([BLOCK_H, BLOCK_W], p_stripe.dtype.element_ty)
    for i_w in range(begin, end, BLOCK_W):
        o_w = i_w + tl.arange(0, BLOCK_W)
        m_image = (o_h < height)[:, None] & (o_w < width)[None, :]
        tl.store(p_stripe + (o_row[:, None] * stride_row + o_w[None, :] * stride_pixel), b_zero, mask=m_image)


@triton.jit
def rows_of_patch(
    p_patch, o_x, o_h, b_scale, centre_y, delta_y, inverse_y, reach_y, height, size_y, size_x, begin, end,
    DTYPE: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr, SINGLE: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    """F_Y^T (patch b_scale) for the rows o_h and the columns o_x of a patch, over its filters from `begin` to `end`."""
    b_v = tl.zeros([BLOCK_H, BLOCK_N], DTYPE)
    for i_n in range(begin, end, BLOCK_N):
        o_y = i_n + tl.arange(0, BLOCK_N)
        b_mu_y = centre_y + offsets(o_y, size_y, DTYPE) * delta_y
        if SINGLE:
            begin_h, end_h = 0, BLOCK_H
        else:
            begin_h, end_h = seen(b_mu_y, height, reach_y, BLOCK_H, DTYPE)
        b_z_y = column_sums(b_mu_y, height, inverse_y, end_h, BLOCK_N, BLOCK_H, DTYPE, begin_h)
        m_patch = (o_y < size_y)[:, None] & (o_x < size_x)[None, :]
        b_patch = tl.load(p_patch + (o_y[:, None] * size_x + o_x[None, :]), mask=m_patch, other=0.0).to(DTYPE)
        b_patch = b_patch * (b_scale[None, :] / b_z_y[:, None])
        b_f_y = filters(b_mu_y[None, :], o_h[:, None], height, inverse_y, DTYPE)
        b_v = product(b_f_y, b_patch, b_v, DOT, PRECISION)
    return b_v


@triton.jit(do_not_specialize=["windows", "channels", "stripes"])
def write_kernel(
    p_patch, p_params, p_image, windows, channels, stripes,
    height, width, stride_image, stride_channel, stride_row, stride_pixel, size_y, size_x,
    PARAMS: tl.constexpr, POWER: tl.constexpr, DTYPE: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
    SINGLE: tl.constexpr, SEVERAL: tl.constexpr, TILED: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    # Of image b, channel c: channels are the quickest, since channels-last ones share their lines of memory.
    i_program = tl.program_id(0).to(tl.int64)
    i_c = i_program % channels
    i_h = (i_program // channels % stripes).to(tl.int32) * BLOCK_H
    i_b = i_program // channels // stripes
    o_row = tl.arange(0, BLOCK_H)
    o_h = i_h + o_row
    # The first row's offset is 64 bits wide, the offset from there 32 (launch.near).
    p_stripe = p_image + i_b * stride_image + i_c * stride_channel + i_h * tl.cast(stride_row, tl.int64)
    tiles = tl.cdiv(size_x, BLOCK_N) if TILED else 1
    for i_pass in range(0, windows * tiles if SEVERAL else 1):
        i_bk = i_b * windows + i_pass // tiles
        own = axes(p_params, i_bk, height, width, size_y, size_x, PARAMS, DTYPE)
        centre_y, centre_x, delta_y, delta_x, inverse_y, inverse_x, log_gamma = own
        o_x = i_pass % tiles * BLOCK_N + tl.arange(0, BLOCK_N)
        b_mu_x = centre_x + offsets(o_x, size_x, DTYPE) * delta_x
        reach_y, reach_x = reaches(centre_y, centre_x, delta_y, delta_x, inverse_y, inverse_x, log_gamma, DTYPE)
        begin_w, end_w = 0, BLOCK_W
        if not SINGLE:
            begin_w, end_w = seen(b_mu_x, width, reach_x, BLOCK_W, DTYPE)
        first_n, end_n = 0, BLOCK_N
        if not SINGLE or TILED:
            first_n, end_n = filters_of_stripe(
                centre_y, delta_y, reach_y, i_h, height, size_y, DTYPE, size_y if TILED else BLOCK_N, BLOCK_N, BLOCK_H
            )
        if not SINGLE:
            # A stripe beside the window is all behind its end.
            begin_w = tl.where(first_n < end_n, begin_w, 0)
            end_w = tl.where(first_n < end_n, end_w, 0)
            before, behind = tl.where(i_pass > 0, 0, begin_w), tl.where(i_pass > 0, width, end_w)
            clear(p_stripe, o_row, o_h, 0, before, height, width, stride_row, stride_pixel, BLOCK_H, BLOCK_W)
            clear(p_stripe, o_row, o_h, behind, width, height, width, stride_row, stride_pixel, BLOCK_H, BLOCK_W)
        if begin_w < end_w:
            b_z_x = row_sums(b_mu_x, width, inverse_x, end_w, BLOCK_N, BLOCK_W, DTYPE, begin_w)
            b_scale = tl.exp(POWER * log_gamma) / b_z_x
            b_v = rows_of_patch(
                p_patch + (i_bk * channels + i_c) * size_y * size_x, o_x, o_h, b_scale, centre_y, delta_y, inverse_y, reach_y,
                height, size_y, size_x, first_n if TILED else 0, end_n if TILED else BLOCK_N,
                DTYPE, DOT, PRECISION, SINGLE, BLOCK_N, BLOCK_H,
            )  # fmt: skip
            for i_w in range(begin_w, end_w, BLOCK_W):
                o_w = i_w + tl.arange(0, BLOCK_W)
                b_f_x = filters(b_mu_x[:, None], o_w[None, :], width, inverse_x, DTYPE)
                m_image = (o_h < height)[:, None] & (o_w < width)[None, :]
                p_tile = p_stripe + (o_row[:, None] * stride_row + o_w[None, :] * stride_pixel)
                b_image = tl.zeros([BLOCK_H, BLOCK_W], DTYPE)
                if SEVERAL:
                    b_image = tl.load(p_tile, mask=m_image & (i_pass > 0), other=0.0).to(DTYPE)
                b_image = product(b_v, b_f_x, b_image, DOT, PRECISION)
                tl.store(p_tile, b_image.to(p_image.dtype.element_ty), mask=m_image)
        if SEVERAL:
            # The next pass may load in one thread what another stored here.
            tl.debug_barrier()


def write_launch(patch: "Tensor", params: "Tensor", image: "Tensor", power: int, precision: str) -> Launch:
    """Shapes as in read.py; image of any strides. Where windows or tiles are summed up, in the image's own dtype."""
    batch, channels, height, width = image.shape
    blocks = window_blocks("write", max(patch.shape[-2:]), height, width, wide_dtype(patch.dtype), precision)
    stripes = triton.cdiv(height, blocks.constants["BLOCK_H"])
    several = params.shape[:-1].numel() > batch or blocks.constants["TILED"]
    own = {"p_patch": patch, "p_params": params, "p_image": image, "stripes": stripes, "SEVERAL": several}
    return window_launch(write_kernel, (batch * channels * stripes,), blocks, own, image, params, patch, power, precision)
