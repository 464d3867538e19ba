"""write: image = gamma^power F_Y^T patch F_X (equation 29), one launch, one program a stripe of an image channel.

gamma^power and the rows' sums go into the patch, which stays in registers; f_Y^T patch is made once a stripe, and each tile of
the stripe is one product with f_X and one store. This kernel is also the read's gradient to its image.

Where the design stops: every pixel is computed and stored, also where a small window leaves zeros; every stripe sums all rows.
"""

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from .rows import column_sums, filters, offsets, product, row_sums, window

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
    BLOCK_N: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    i_program = tl.program_id(0).to(tl.int64)
    i_bc = i_program // stripes
    i_h = (i_program % stripes).to(tl.int32) * BLOCK_H
    centre_y, centre_x, delta, inverse, log_gamma = window(p_params, i_bc // channels, height, width, size, DTYPE)
    end_h = BLOCK_H if SINGLE else height
    end_w = BLOCK_W if SINGLE else width
    o_n = tl.arange(0, BLOCK_N)
    b_offset = offsets(o_n, size, DTYPE) * delta
    b_mu_y, b_mu_x = centre_y + b_offset, centre_x + b_offset
    b_z_y = column_sums(b_mu_y, height, inverse, end_h, BLOCK_N, BLOCK_H, DTYPE)
    b_z_x = row_sums(b_mu_x, width, inverse, end_w, BLOCK_N, BLOCK_W, DTYPE)

    m_patch = (o_n < size)[:, None] & (o_n < size)[None, :]
    p_own = p_patch + i_bc * size * size + (o_n[:, None] * size + o_n[None, :])
    b_patch = tl.load(p_own, mask=m_patch, other=0.0).to(DTYPE)
    b_patch = b_patch * (tl.exp(POWER * log_gamma) / (b_z_y[:, None] * b_z_x[None, :]))

    o_row = tl.arange(0, BLOCK_H)
    o_h = i_h + o_row
    b_f_y = filters(b_mu_y[None, :], o_h[:, None], height, inverse, DTYPE)
    b_v = product(b_f_y, b_patch, tl.zeros([BLOCK_H, BLOCK_N], DTYPE), DOT, PRECISION)
    long_width = tl.cast(width, tl.int64)
    p_stripe = p_image + (i_bc * height + i_h) * long_width
    for i_w in range(0, end_w, BLOCK_W):
        o_w = i_w + tl.arange(0, BLOCK_W)
        b_f_x = filters(b_mu_x[:, None], o_w[None, :], width, inverse, DTYPE)
        b_image = product(b_v, b_f_x, tl.zeros([BLOCK_H, BLOCK_W], DTYPE), DOT, PRECISION)
        m_image = (o_h < height)[:, None] & (o_w < width)[None, :]
        p_tile = p_stripe + (o_row[:, None] * width + o_w[None, :])
        tl.store(p_tile, b_image.to(p_image.dtype.element_ty), mask=m_image)


def write_launch(patch: "Tensor", params: "Tensor", image: "Tensor", power: int, precision: str) -> Launch:
    batch, channels, height, width = image.shape
    size = patch.shape[2]
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
    }
    grid = (batch * channels * stripes,)
    return Launch(write_kernel, grid, {**arguments, **blocks.constants}, blocks.num_warps, blocks.num_stages)
