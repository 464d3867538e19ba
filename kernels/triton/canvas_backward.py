"""The reverse of canvas.py: one launch, two programs an image, which walk over its channels and tiles.

One has the gradient of the read's window. The other has that of canvas_t through x^ = x - sigmoid(canvas), that of x, and from
the gradient of canvas_t that is then complete those of the patch and of the write's window. With REBUILD the canvas becomes
the one before; then one program does both in turn, since the first needs the canvas that the second replaces. x^ and the
filterbanks are made again, and window_grad.py has the maths of a window's gradient:

    T = I f_X^T      G_Y = sum p T^T      G_X = sum (f_Y^T p)^T I      dL/dI = (f_Y^T p) f_X

which the read sums over two images, x and x^, under the same filters.

Where the design stops: two programs walk over all channels of one image, whatever its size.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from fastdraw.ops.contract import Shape

from .activations import sigmoid
from .canvas import image_constants, one_sum_each
from .canvas_window import centres, close_window, load_patch, opened, patch_at, read_window_grad
from .dependent import after_the_last_kernel
from .launch import Launch
from .piece_tables import canvas_blocks
from .rows import add_rows, filters, product, row_sums, rows
from .small_canvas_backward import small_canvas_backward_kernel, store_zeros


@triton.jit
def through_read(
    p_canvas, p_grad_r, p_grad_canvas, p_grad_x, o_own, b_mu_y, b_mu_x, inverse, b_scale,
    CHANNELS: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, SIZE: tl.constexpr, GRAD_X: tl.constexpr,
    PRECISION: tl.constexpr,
    END_H: tl.constexpr, END_W: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    """Adds to the gradient of canvas_t, and of x, what the read asks of them: of the channel that begins at o_own, whose
    gradient of r is at p_grad_r. Gives the last tile of the former. GRAD_X: with a window alone."""
    if SIZE > 0:
        b_p_error = load_patch(p_grad_r + CHANNELS * (SIZE * SIZE), SIZE, BLOCK_N) * b_scale
        if GRAD_X:
            b_p = load_patch(p_grad_r, SIZE, BLOCK_N) * b_scale
    b_grad = tl.zeros([BLOCK_H, BLOCK_W], tl.float32)
    for i_h in range(0, END_H, BLOCK_H):
        o_h = i_h + tl.arange(0, BLOCK_H)
        if SIZE > 0:
            b_zeros_v = tl.zeros([BLOCK_N, BLOCK_H], tl.float32)
            b_f_y = filters(b_mu_y[:, None], o_h[None, :], HEIGHT, inverse, tl.float32)
            b_v_error = product(tl.trans(b_p_error), b_f_y, b_zeros_v, True, PRECISION)
            if GRAD_X:
                b_v = product(tl.trans(b_p), b_f_y, b_zeros_v, True, PRECISION)
        for i_w in range(0, END_W, BLOCK_W):
            o_w = i_w + tl.arange(0, BLOCK_W)
            o_in_image = o_h[:, None] * WIDTH + o_w[None, :]
            o_tile = o_own + o_in_image
            m_tile = (o_h < HEIGHT)[:, None] & (o_w < WIDTH)[None, :]
            b_grad = tl.load(p_grad_canvas + o_tile, mask=m_tile, other=0.0)
            b_sigmoid = sigmoid(tl.load(p_canvas + o_tile, mask=m_tile, other=0.0))
            if SIZE > 0:
                b_f_x = filters(b_mu_x[:, None], o_w[None, :], WIDTH, inverse, tl.float32)
                b_zeros = tl.zeros([BLOCK_H, BLOCK_W], tl.float32)
                b_grad_error = product(tl.trans(b_v_error), b_f_x, b_zeros, True, PRECISION)
                if GRAD_X:
                    b_grad_x = product(tl.trans(b_v), b_f_x, b_grad_error, True, PRECISION)
            else:
                b_grad_error = tl.load(p_grad_r + o_in_image, mask=m_tile, other=0.0).to(tl.float32)
            b_grad -= b_grad_error * b_sigmoid * (1.0 - b_sigmoid)
            tl.store(p_grad_canvas + o_tile, b_grad, mask=m_tile)
            if GRAD_X:
                b_grad_x += tl.load(p_grad_x + o_tile, mask=m_tile, other=0.0)
                tl.store(p_grad_x + o_tile, b_grad_x, mask=m_tile)
    return b_grad


@triton.jit
def through_write(
    p_patch, p_canvas, p_grad_canvas, p_grad_patch, o_own, b_grad, own, sums_y, sums_x, b_l,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, SIZE: tl.constexpr, HAS_TILE: tl.constexpr, REBUILD: tl.constexpr,
    PRECISION: tl.constexpr,
    END_H: tl.constexpr, END_W: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    """Stores the gradient of the patch at p_patch, and with REBUILD the canvas before it: of the channel that begins at o_own,
    whose gradient is b_grad with HAS_TILE. Gives the sums of the window `own` with this channel's part."""
    if SIZE > 0:
        filters_y, filters_x, b_scale, _, _, inverse = own
        b_p = load_patch(p_patch, SIZE, BLOCK_N) * b_scale
        b_zeros_h = tl.zeros([BLOCK_N, BLOCK_H], tl.float32)
        b_grad_patch = tl.zeros([BLOCK_N, BLOCK_N], tl.float32)
    for i_h in range(0, END_H, BLOCK_H):
        o_h = i_h + tl.arange(0, BLOCK_H)
        if SIZE > 0:
            b_f_y, b_d_y, b_e_y = rows(filters_y[0][:, None], o_h[None, :], HEIGHT, inverse, tl.float32)
            b_v = product(tl.trans(b_p), b_f_y, b_zeros_h, True, PRECISION)
            b_t = b_zeros_h
        for i_w in range(0, END_W, BLOCK_W):
            o_w = i_w + tl.arange(0, BLOCK_W)
            o_in_image = o_h[:, None] * WIDTH + o_w[None, :]
            o_tile = o_own + o_in_image
            m_tile = (o_h < HEIGHT)[:, None] & (o_w < WIDTH)[None, :]
            if not HAS_TILE:
                b_grad = tl.load(p_grad_canvas + o_tile, mask=m_tile, other=0.0)
            if REBUILD:
                b_canvas = tl.load(p_canvas + o_tile, mask=m_tile, other=0.0)
            if SIZE > 0:
                b_f_x, b_d_x, b_e_x = rows(filters_x[0][:, None], o_w[None, :], WIDTH, inverse, tl.float32)
                b_t = product(b_f_x, tl.trans(b_grad), b_t, True, PRECISION)
                b_g = product(b_v, b_grad, tl.zeros([BLOCK_N, BLOCK_W], tl.float32), True, PRECISION)
                sums_x = add_rows(sums_x, b_f_x, b_d_x, b_e_x, filters_x, b_g)
                if REBUILD:
                    b_canvas = product(tl.trans(-b_v), b_f_x, b_canvas, True, PRECISION)
            else:
                tl.store(p_grad_patch + o_in_image, b_grad.to(p_grad_patch.dtype.element_ty), mask=m_tile)
                if REBUILD:
                    b_canvas -= tl.load(p_patch + o_in_image, mask=m_tile, other=0.0)
            if REBUILD:
                tl.store(p_canvas + o_tile, b_canvas, mask=m_tile)
        if SIZE > 0:
            b_g = product(b_p, b_t, b_zeros_h, True, PRECISION)
            sums_y = add_rows(sums_y, b_f_y, b_d_y, b_e_y, filters_y, b_g)
            b_l += tl.sum(b_f_y * b_g, axis=1)
            b_grad_patch = product(b_f_y, tl.trans(b_t), b_grad_patch, True, PRECISION)
    if SIZE > 0:
        p_own, m_patch = patch_at(p_grad_patch, SIZE, BLOCK_N)
        tl.store(p_own, (b_grad_patch * b_scale).to(p_grad_patch.dtype.element_ty), mask=m_patch)
    return sums_y, sums_x, b_l


@triton.jit
def canvas_backward_kernel(
    p_head, p_canvas, p_x, p_grad_r, p_grad_canvas, p_grad_head, p_grad_x,
    CHANNELS: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, WRITE_SIZE: tl.constexpr, READ_SIZE: tl.constexpr,
    HEAD_ROW: tl.constexpr, R_ROW: tl.constexpr, WRITES: tl.constexpr, READS: tl.constexpr,
    READ_PARAMS: tl.constexpr, GRAD_X: tl.constexpr, REBUILD: tl.constexpr,
    PRECISION: tl.constexpr, SINGLE: tl.constexpr, BLOCK_WRITE: tl.constexpr, BLOCK_READ: tl.constexpr,
    BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    """READ_PARAMS: the head ends in a read's params. What nothing READS or WRITES gets a gradient of zero."""
    after_the_last_kernel(DEPENDENT)
    i_b, i_part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    END_H: tl.constexpr = BLOCK_H if SINGLE else HEIGHT
    END_W: tl.constexpr = BLOCK_W if SINGLE else WIDTH
    PIXELS: tl.constexpr = HEIGHT * WIDTH
    WRITE_PART: tl.constexpr = WRITE_SIZE * WRITE_SIZE if WRITE_SIZE > 0 else PIXELS
    READ_PART: tl.constexpr = READ_SIZE * READ_SIZE if READ_SIZE > 0 else PIXELS
    READ_WINDOW: tl.constexpr = READS and READ_SIZE > 0
    WRITE_WINDOW: tl.constexpr = WRITES and WRITE_SIZE > 0
    p_own_head, p_own_grad_head = p_head + i_b * HEAD_ROW, p_grad_head + i_b * HEAD_ROW
    p_params, p_grad = p_own_head + (HEAD_ROW - 5), p_own_grad_head + (HEAD_ROW - 5)
    if READ_WINDOW:
        if i_part == 0:
            o_image = i_b * (CHANNELS * PIXELS)
            read_window_grad(
                p_params, p_canvas + o_image, p_x + o_image, p_grad_r + i_b * R_ROW, p_grad,
                CHANNELS, HEIGHT, WIDTH, READ_SIZE, PRECISION, END_H, END_W, BLOCK_READ, BLOCK_H, BLOCK_W,
            )  # fmt: skip
    elif READ_PARAMS:
        store_zeros(p_grad, 5, 8)
    if i_part == tl.num_programs(1) - 1:
        if not WRITES:
            store_zeros(p_own_grad_head, HEAD_ROW - 5 if READ_PARAMS else HEAD_ROW, 256)
        # What there is no window for stays zero, and nobody looks at it.
        b_mu_y, b_mu_x, inverse, b_scale, own, sums_y, sums_x, b_l = 0, 0, 0, 0, 0, 0, 0, 0
        if READ_WINDOW:
            b_mu_y, b_mu_x, inverse, log_gamma, _, _ = centres(p_params, HEIGHT, WIDTH, READ_SIZE, BLOCK_READ)
            b_z_y = row_sums(b_mu_y, HEIGHT, inverse, END_H, BLOCK_READ, BLOCK_H, tl.float32)
            b_z_x = row_sums(b_mu_x, WIDTH, inverse, END_W, BLOCK_READ, BLOCK_W, tl.float32)
            b_scale = tl.exp(log_gamma) / (b_z_y[:, None] * b_z_x[None, :])
        p_write, p_grad_write = p_own_head + CHANNELS * WRITE_PART, p_own_grad_head + CHANNELS * WRITE_PART
        if WRITE_WINDOW:
            own = opened(p_write, -1, HEIGHT, WIDTH, WRITE_SIZE, END_H, END_W, BLOCK_WRITE, BLOCK_H, BLOCK_W)
            b_n = tl.zeros([BLOCK_WRITE], tl.float32)
            sums_y, sums_x, b_l = (b_n, b_n), (b_n, b_n), b_n  # type: ignore[assignment]
        for i_c in range(0, CHANNELS):
            o_own = (i_b * CHANNELS + i_c) * PIXELS
            b_grad = tl.zeros([BLOCK_H, BLOCK_W], tl.float32)
            if READS:
                b_grad = through_read(
                    p_canvas, p_grad_r + i_b * R_ROW + i_c * READ_PART, p_grad_canvas, p_grad_x, o_own,
                    b_mu_y, b_mu_x, inverse, b_scale,
                    CHANNELS, HEIGHT, WIDTH, READ_SIZE, GRAD_X, PRECISION, END_H, END_W, BLOCK_READ, BLOCK_H, BLOCK_W,
                )  # fmt: skip
                if WRITES:
                    # Below, a thread may read what another thread of this program stored here, or store what another reads.
                    tl.debug_barrier()
            if WRITES:
                sums_y, sums_x, b_l = through_write(
                    p_own_head + i_c * WRITE_PART, p_canvas, p_grad_canvas, p_own_grad_head + i_c * WRITE_PART, o_own, b_grad,
                    own, sums_y, sums_x, b_l, HEIGHT, WIDTH, WRITE_SIZE, READS and SINGLE, REBUILD, PRECISION,
                    END_H, END_W, BLOCK_WRITE, BLOCK_H, BLOCK_W,
                )  # fmt: skip
        if WRITE_WINDOW:
            close_window(p_write, p_grad_write, own, sums_y, sums_x, b_l, -1, HEIGHT, WIDTH)


def canvas_backward_launch(
    head: Tensor, canvas: Tensor, x: Tensor | None, grad_r: Tensor | None, grad_canvas: Tensor, grad_head: Tensor,
    grad_x: Tensor | None, s: Shape, writes: bool, rebuild: bool, kind: str,
) -> Launch:  # fmt: skip
    """kind: tiles.canvas_kind() on the machine that this is for."""
    reads = grad_r is not None
    sizes = (s.read_size if reads else None, s.write_size if writes else None)
    blocks = canvas_blocks("canvas_backward", *sizes, s, kind, rebuild, reads and grad_x is not None)
    arguments = {
        "p_head": head,
        "p_canvas": canvas,
        # Where there is none another tensor stands in.
        "p_x": canvas if x is None else x,
        "p_grad_r": canvas if grad_r is None else grad_r,
        "p_grad_canvas": grad_canvas,
        "p_grad_head": grad_head,
        "p_grad_x": grad_canvas if grad_x is None else grad_x,
        **image_constants(s, head, grad_r),
        "WRITES": writes,
        "READS": reads,
        "READ_PARAMS": head.shape[1] > s.patch_numel + (5 if s.write_size else 0),
        "GRAD_X": reads and grad_x is not None,
        "REBUILD": rebuild,
        **blocks.constants,
    }
    kernel, parts = small_canvas_backward_kernel, 2 if reads and s.read_size and not rebuild else 1
    if not blocks.small:
        kernel, arguments["PRECISION"] = canvas_backward_kernel, "tf32" if kind == "tf32" else "ieee"
    fma = one_sum_each(blocks.num_warps, s, *(arguments[name] for name in ("p_canvas", "p_x", "p_grad_canvas", "p_grad_x")))
    grid = (s.batch, parts)
    return Launch(kernel, grid, arguments, blocks.num_warps, blocks.num_stages, max_registers=255, fma=fma)
