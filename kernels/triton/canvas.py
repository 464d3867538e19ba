"""The recurrence around the canvas: write_t and the read that follows it, one launch, one program an image channel.

    canvas = before + write (8);  x^ = x - sigmoid(canvas) (3);  r = [read of x, read of x^] (4)

The canvas is read once and written once. x^ and the rows of all four filterbanks live in registers. Larger images are walked
over in tiles; what a tile has of the read is summed up as in read.py. Sizes are 0 where there is no attention: then the write
is the patch itself, or r is x^ itself.

Where the design stops: every pixel is written and read, also where the windows are small; few images leave SMs idle.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from fastdraw.ops.contract import Shape

from .activations import sigmoid
from .canvas_window import centres, load_patch, patch_at
from .dependent import after_the_last_kernel
from .launch import Launch
from .piece_tables import canvas_blocks
from .rows import column_sums, filters, product, row_sums
from .small_canvas import small_canvas_kernel
from .tiles import alignment


@triton.jit
def open_write(
    p_params, p_patch, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, SIZE: tl.constexpr, END_H: tl.constexpr, END_W: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    """(mu_y, mu_x, 1 / 2 sigma^2, the patch at p_patch times what it is written with) of the window at p_params."""
    b_mu_y, b_mu_x, inverse, log_gamma, _, _ = centres(p_params, HEIGHT, WIDTH, SIZE, BLOCK_N)
    b_z_y = column_sums(b_mu_y, HEIGHT, inverse, END_H, BLOCK_N, BLOCK_H, tl.float32)
    b_z_x = row_sums(b_mu_x, WIDTH, inverse, END_W, BLOCK_N, BLOCK_W, tl.float32)
    b_patch = load_patch(p_patch, SIZE, BLOCK_N) * (tl.exp(-log_gamma) / (b_z_y[:, None] * b_z_x[None, :]))
    return b_mu_y, b_mu_x, inverse, b_patch


@triton.jit
def store_read(p_r, b_read, b_read_error, b_scale, CHANNELS: tl.constexpr, SIZE: tl.constexpr, BLOCK_N: tl.constexpr):
    """What was read of x, and of x^, of the channel whose patch of x is at p_r."""
    p_own, m_patch = patch_at(p_r, SIZE, BLOCK_N)
    tl.store(p_own, (b_read * b_scale).to(p_r.dtype.element_ty), mask=m_patch)
    tl.store(p_own + CHANNELS * (SIZE * SIZE), (b_read_error * b_scale).to(p_r.dtype.element_ty), mask=m_patch)


@triton.jit
def canvas_kernel(
    p_head, p_before, p_canvas, p_x, p_r,
    CHANNELS: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, WRITE_SIZE: tl.constexpr, READ_SIZE: tl.constexpr,
    HEAD_ROW: tl.constexpr, R_ROW: tl.constexpr, WRITES: tl.constexpr, READS: tl.constexpr,
    PRECISION: tl.constexpr, SINGLE: tl.constexpr, BLOCK_WRITE: tl.constexpr, BLOCK_READ: tl.constexpr,
    BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    after_the_last_kernel(DEPENDENT)
    i_bc = tl.program_id(0).to(tl.int64)
    i_b, i_c = i_bc // CHANNELS, i_bc % CHANNELS
    END_H: tl.constexpr = BLOCK_H if SINGLE else HEIGHT
    END_W: tl.constexpr = BLOCK_W if SINGLE else WIDTH
    PIXELS: tl.constexpr = HEIGHT * WIDTH
    WRITE_PART: tl.constexpr = WRITE_SIZE * WRITE_SIZE
    READ_PART: tl.constexpr = READ_SIZE * READ_SIZE
    p_own_head = p_head + i_b * HEAD_ROW
    p_own_before, p_own_canvas, p_own_x = p_before + i_bc * PIXELS, p_canvas + i_bc * PIXELS, p_x + i_bc * PIXELS
    if WRITES and WRITE_SIZE > 0:
        b_w_y, b_w_x, w_inverse, b_patch = open_write(
            p_own_head + CHANNELS * WRITE_PART, p_own_head + i_c * WRITE_PART,
            HEIGHT, WIDTH, WRITE_SIZE, END_H, END_W, BLOCK_WRITE, BLOCK_H, BLOCK_W,
        )  # fmt: skip
    if READS and READ_SIZE > 0:
        b_r_y, b_r_x, r_inverse, r_gamma, _, _ = centres(p_own_head + (HEAD_ROW - 5), HEIGHT, WIDTH, READ_SIZE, BLOCK_READ)
        b_r_z_y = row_sums(b_r_y, HEIGHT, r_inverse, END_H, BLOCK_READ, BLOCK_H, tl.float32)
        b_r_z_x = column_sums(b_r_x, WIDTH, r_inverse, END_W, BLOCK_READ, BLOCK_W, tl.float32)
        b_read = tl.zeros([BLOCK_READ, BLOCK_READ], tl.float32)
        b_read_error = tl.zeros([BLOCK_READ, BLOCK_READ], tl.float32)
    for i_h in range(0, END_H, BLOCK_H):
        o_h = i_h + tl.arange(0, BLOCK_H)
        if WRITES and WRITE_SIZE > 0:
            b_f_y = filters(b_w_y[None, :], o_h[:, None], HEIGHT, w_inverse, tl.float32)
            b_v = product(b_f_y, b_patch, tl.zeros([BLOCK_H, BLOCK_WRITE], tl.float32), True, PRECISION)
        if READS and READ_SIZE > 0:
            b_t = tl.zeros([BLOCK_H, BLOCK_READ], tl.float32)
            b_t_error = tl.zeros([BLOCK_H, BLOCK_READ], tl.float32)
        for i_w in range(0, END_W, BLOCK_W):
            o_w = i_w + tl.arange(0, BLOCK_W)
            o_tile = o_h[:, None] * WIDTH + o_w[None, :]
            m_tile = (o_h < HEIGHT)[:, None] & (o_w < WIDTH)[None, :]
            b_canvas = tl.load(p_own_before + o_tile, mask=m_tile, other=0.0)
            if WRITES:
                if WRITE_SIZE > 0:
                    b_f_x = filters(b_w_x[:, None], o_w[None, :], WIDTH, w_inverse, tl.float32)
                    b_canvas = product(b_v, b_f_x, b_canvas, True, PRECISION)
                else:
                    b_canvas += tl.load(p_own_head + i_c * PIXELS + o_tile, mask=m_tile, other=0.0)
                tl.store(p_own_canvas + o_tile, b_canvas, mask=m_tile)
            if READS:
                b_x = tl.load(p_own_x + o_tile, mask=m_tile, other=0.0)
                # Past the image's end this is no zero; the filters are.
                b_error = b_x - sigmoid(b_canvas)
                if READ_SIZE > 0:
                    b_f_x = filters(b_r_x[None, :], o_w[:, None], WIDTH, r_inverse, tl.float32)
                    b_t = product(b_x, b_f_x, b_t, True, PRECISION)
                    b_t_error = product(b_error, b_f_x, b_t_error, True, PRECISION)
                else:
                    p_own_r = p_r + i_b * R_ROW + i_c * PIXELS + o_tile
                    tl.store(p_own_r, b_error.to(p_r.dtype.element_ty), mask=m_tile)
        if READS and READ_SIZE > 0:
            b_f_y = filters(b_r_y[:, None], o_h[None, :], HEIGHT, r_inverse, tl.float32)
            b_read = product(b_f_y, b_t, b_read, True, PRECISION)
            b_read_error = product(b_f_y, b_t_error, b_read_error, True, PRECISION)
    if READS and READ_SIZE > 0:
        b_scale = tl.exp(r_gamma) / (b_r_z_y[:, None] * b_r_z_x[None, :])
        store_read(p_r + i_b * R_ROW + i_c * READ_PART, b_read, b_read_error, b_scale, CHANNELS, READ_SIZE, BLOCK_READ)


def image_constants(s: Shape, head: Tensor, r: Tensor | None) -> dict[str, Any]:
    """What both kernels around the canvas take of the sizes. r, or its gradient: its rows may be strided."""
    return {
        "CHANNELS": s.channels,
        "HEIGHT": s.height,
        "WIDTH": s.width,
        "WRITE_SIZE": s.write_size,
        "READ_SIZE": s.read_size,
        "HEAD_ROW": head.stride(0),
        "R_ROW": 0 if r is None else r.stride(0),
    }


def one_sum_each(num_warps: int, s: Shape, *images: Tensor) -> bool:
    """Whether lanes have no copies of one sum before they add up theirs, and may contract what it is made of (Launch.fma): in
    one warp, where a lane loads four pixels of a row at once, so that few_filters' LANES are the lanes that there are."""
    return num_warps == 1 and s.width % 4 == 0 and all(alignment(image) == 16 for image in images)


def canvas_launch(
    head: Tensor, before: Tensor, canvas: Tensor, x: Tensor | None, r: Tensor | None, s: Shape, writes: bool, kind: str
) -> Launch:
    """kind: tiles.canvas_kind() on the machine that this is for."""
    sizes = (None if x is None else s.read_size, s.write_size if writes else None)
    blocks = canvas_blocks("canvas", *sizes, s, kind)
    arguments = {
        "p_head": head,
        # Without a write there is nothing before.
        "p_before": before if writes else canvas,
        "p_canvas": canvas,
        # Where nothing is read another tensor stands in.
        "p_x": canvas if x is None else x,
        "p_r": canvas if r is None else r,
        **image_constants(s, head, r),
        "WRITES": writes,
        "READS": x is not None,
        **blocks.constants,
    }
    kernel = small_canvas_kernel
    if not blocks.small:
        kernel, arguments["PRECISION"] = canvas_kernel, "tf32" if kind == "tf32" else "ieee"
    grid = (s.batch * s.channels,)
    fma = one_sum_each(blocks.num_warps, s, *(arguments[name] for name in ("p_before", "p_canvas", "p_x")))
    return Launch(kernel, grid, arguments, blocks.num_warps, blocks.num_stages, max_registers=255, fma=fma)
