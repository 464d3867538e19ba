"""read: patch = gamma^power F_Y image F_X^T (equation 27), one launch, one program an image channel.

A program walks over the image in tiles, makes both filterbanks' part of each tile in registers, and sums f_Y (tile f_X^T); the
rows' sums, made in a loop before, are divided out at the end. With SINGLE the image is one tile, the loops fall away and each
filter is computed once.

Where the design stops: one program reads one whole image channel, whatever its size, so few huge images leave most of the
device idle; and every pixel is read, also where a small window cannot see it. N is bounded by the table in tables.py.
"""

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from .rows import column_sums, filters, offsets, product, row_sums, window

if TYPE_CHECKING:
    from torch import Tensor

from .launch import Launch, compute_dtype, tl_dtype
from .tables import window_blocks


@triton.jit(do_not_specialize=["channels"])
def read_kernel(
    p_image,
    p_params,
    p_patch,
    channels,
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
    i_bc = tl.program_id(0).to(tl.int64)
    centre_y, centre_x, delta, inverse, log_gamma = window(p_params, i_bc // channels, height, width, size, DTYPE)
    end_h = BLOCK_H if SINGLE else height
    end_w = BLOCK_W if SINGLE else width
    o_n = tl.arange(0, BLOCK_N)
    b_offset = offsets(o_n, size, DTYPE) * delta
    b_mu_y, b_mu_x = centre_y + b_offset, centre_x + b_offset
    b_z_y = row_sums(b_mu_y, height, inverse, end_h, BLOCK_N, BLOCK_H, DTYPE)
    b_z_x = column_sums(b_mu_x, width, inverse, end_w, BLOCK_N, BLOCK_W, DTYPE)

    long_width = tl.cast(width, tl.int64)
    p_own = p_image + i_bc * height * long_width
    b_patch = tl.zeros([BLOCK_N, BLOCK_N], DTYPE)
    for i_h in range(0, end_h, BLOCK_H):
        o_row = tl.arange(0, BLOCK_H)
        o_h = i_h + o_row
        b_t = tl.zeros([BLOCK_H, BLOCK_N], DTYPE)
        for i_w in range(0, end_w, BLOCK_W):
            o_w = i_w + tl.arange(0, BLOCK_W)
            m_image = (o_h < height)[:, None] & (o_w < width)[None, :]
            # The row's offset is 64 bits wide, the offset in the tile 32.
            p_tile = p_own + i_h * long_width + (o_row[:, None] * width + o_w[None, :])
            b_image = tl.load(p_tile, mask=m_image, other=0.0).to(DTYPE)
            b_f_x = filters(b_mu_x[None, :], o_w[:, None], width, inverse, DTYPE)
            b_t = product(b_image, b_f_x, b_t, DOT, PRECISION)
        b_f_y = filters(b_mu_y[:, None], o_h[None, :], height, inverse, DTYPE)
        b_patch = product(b_f_y, b_t, b_patch, DOT, PRECISION)
    b_patch = b_patch * (tl.exp(POWER * log_gamma) / (b_z_y[:, None] * b_z_x[None, :]))
    p_out = p_patch + i_bc * size * size + (o_n[:, None] * size + o_n[None, :])
    m_patch = (o_n < size)[:, None] & (o_n < size)[None, :]
    tl.store(p_out, b_patch.to(p_patch.dtype.element_ty), mask=m_patch)


def read_launch(image: "Tensor", params: "Tensor", patch: "Tensor", power: int, precision: str) -> Launch:
    batch, channels, height, width = image.shape
    size = patch.shape[2]
    dtype = compute_dtype(image)
    blocks = window_blocks("read", size, height, width, dtype, precision)
    arguments = {
        "p_image": image,
        "p_params": params,
        "p_patch": patch,
        "channels": channels,
        "height": height,
        "width": width,
        "size": size,
        "POWER": power,
        "DTYPE": tl_dtype(dtype),
        "PRECISION": precision,
    }
    arguments.update(blocks.constants)
    return Launch(read_kernel, (batch * channels,), arguments, blocks.num_warps, blocks.num_stages, max_registers=255)
