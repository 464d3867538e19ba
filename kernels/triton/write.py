"""write: image = gamma^power F_Y^T patch F_X (equation 29), one launch, one program a stripe of an image channel.

gamma^power and the rows' sums go into the patch, which stays in registers; f_Y^T patch is made once a stripe, and each tile of
the stripe that the window sees is one product with f_X and one store. The others are stored as zeros, without arithmetic.
This kernel is also the read's gradient to its image. With ADD the image is there already, and only what the window sees of it
is loaded, added to and stored: so several windows of one image are summed, a launch each, in their order.

Where the design stops: every stripe that the window sees sums all rows; what lies between filters far apart is computed.
"""

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from .rows import column_sums, filters, offsets, product, reach_of, row_sums, seen, window

if TYPE_CHECKING:
    from torch import Tensor

from .launch import Launch, compute_dtype, tl_dtype
from .tables import window_blocks


@triton.jit(do_not_specialize=["channels", "stripes"])
def write_kernel(
    p_patch,
    p_params,
    p_image,
    channels,
    stripes,
    height,
    width,
    size,
    POWER: tl.constexpr,
    DTYPE: tl.constexpr,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
    SINGLE: tl.constexpr,
    ADD: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    i_program = tl.program_id(0).to(tl.int64)
    i_bc = i_program // stripes
    i_h = (i_program % stripes).to(tl.int32) * BLOCK_H
    centre_y, centre_x, delta, inverse, log_gamma = window(p_params, i_bc // channels, height, width, size, DTYPE)
    o_n = tl.arange(0, BLOCK_N)
    # Behind the last filter the last filter again, which sees no pixels of its own.
    b_offset = offsets(tl.minimum(o_n, size - 1), size, DTYPE) * delta
    b_mu_y, b_mu_x = centre_y + b_offset, centre_x + b_offset
    if SINGLE:
        begin_h, begin_w, end_h, end_w = 0, 0, BLOCK_H, BLOCK_W
    else:
        reach = reach_of(centre_y, centre_x, delta, inverse, log_gamma, DTYPE)
        begin_h, end_h = seen(b_mu_y, height, reach, BLOCK_H, DTYPE)
        begin_w, end_w = seen(b_mu_x, width, reach, BLOCK_W, DTYPE)

    o_row = tl.arange(0, BLOCK_H)
    o_h = i_h + o_row
    long_width = tl.cast(width, tl.int64)
    p_stripe = p_image + (i_bc * height + i_h) * long_width
    if not SINGLE:
        b_zero = tl.zeros([BLOCK_H, BLOCK_W], p_image.dtype.element_ty)
        # A stripe beside the window is all behind its end.
        outside = (i_h < begin_h) | (i_h >= end_h)
        begin_w = tl.where(outside, 0, begin_w)
        end_w = tl.where(outside, 0, end_w)
        for i_w in range(0, 0 if ADD else begin_w, BLOCK_W):
            o_w = i_w + tl.arange(0, BLOCK_W)
            m_image = (o_h < height)[:, None] & (o_w < width)[None, :]
            tl.store(p_stripe + (o_row[:, None] * width + o_w[None, :]), b_zero, mask=m_image)
        for i_w in range(end_w, end_w if ADD else width, BLOCK_W):
            o_w = i_w + tl.arange(0, BLOCK_W)
            m_image = (o_h < height)[:, None] & (o_w < width)[None, :]
            tl.store(p_stripe + (o_row[:, None] * width + o_w[None, :]), b_zero, mask=m_image)
    if begin_w < end_w:
        b_z_y = column_sums(b_mu_y, height, inverse, end_h, BLOCK_N, BLOCK_H, DTYPE, begin_h)
        b_z_x = row_sums(b_mu_x, width, inverse, end_w, BLOCK_N, BLOCK_W, DTYPE, begin_w)
        m_patch = (o_n < size)[:, None] & (o_n < size)[None, :]
        p_own = p_patch + i_bc * size * size + (o_n[:, None] * size + o_n[None, :])
        b_patch = tl.load(p_own, mask=m_patch, other=0.0).to(DTYPE)
        b_patch = b_patch * (tl.exp(POWER * log_gamma) / (b_z_y[:, None] * b_z_x[None, :]))

        b_f_y = filters(b_mu_y[None, :], o_h[:, None], height, inverse, DTYPE)
        b_v = product(b_f_y, b_patch, tl.zeros([BLOCK_H, BLOCK_N], DTYPE), DOT, PRECISION)
        for i_w in range(begin_w, end_w, BLOCK_W):
            o_w = i_w + tl.arange(0, BLOCK_W)
            b_f_x = filters(b_mu_x[:, None], o_w[None, :], width, inverse, DTYPE)
            m_image = (o_h < height)[:, None] & (o_w < width)[None, :]
            p_tile = p_stripe + (o_row[:, None] * width + o_w[None, :])
            b_image = tl.zeros([BLOCK_H, BLOCK_W], DTYPE)
            if ADD:
                b_image = tl.load(p_tile, mask=m_image, other=0.0).to(DTYPE)
            b_image = product(b_v, b_f_x, b_image, DOT, PRECISION)
            tl.store(p_tile, b_image.to(p_image.dtype.element_ty), mask=m_image)


def write_launch(patch: "Tensor", params: "Tensor", image: "Tensor", power: int, precision: str, add: bool = False) -> Launch:
    batch, channels, height, width = image.shape
    size = patch.shape[-1]
    dtype = compute_dtype(patch)
    blocks = window_blocks("write", size, height, width, dtype, precision)
    stripes = triton.cdiv(height, blocks.constants["BLOCK_H"])
    arguments = {
        "p_patch": patch,
        "p_params": params,
        "p_image": image,
        "channels": channels,
        "stripes": stripes,
        "height": height,
        "width": width,
        "size": size,
        "POWER": power,
        "DTYPE": tl_dtype(dtype),
        "PRECISION": precision,
        "ADD": add,
    }
    grid = (batch * channels * stripes,)
    return Launch(write_kernel, grid, {**arguments, **blocks.constants}, blocks.num_warps, blocks.num_stages)
