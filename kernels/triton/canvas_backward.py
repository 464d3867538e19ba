"""The reverse of canvas.py: one launch, one program an image, which walks over its channels and tiles.

The read's part: the gradient of canvas_t through x^ = x - sigmoid(canvas), of x, and of the read's window. The write's part,
from the gradient of canvas_t that is then complete: that of the patch and of the write's window; with REBUILD the canvas
becomes the one before. x^ and the filterbanks are made again, and window_grad.py has the maths of a window's gradient:

    T = I f_X^T      G_Y = sum p T^T      G_X = sum (f_Y^T p)^T I      dL/dI = (f_Y^T p) f_X

which the read sums over two images, x and x^, under the same filters.

Where the design stops: one program walks over all channels of one image, whatever its size.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from fastdraw.ops.contract import Shape

from .activations import sigmoid
from .canvas import centres, image_constants
from .dependent import after_the_last_kernel
from .launch import Launch
from .piece_tables import canvas_blocks
from .rows import product, row_means, rows, store_params_grad
from .small_canvas_backward import small_canvas_backward_kernel, store_zeros


@triton.jit
def close_window(
    p_params,
    p_grad,
    b_dmu_y,
    b_dmu_x,
    b_de,
    b_l,
    b_offset,
    delta,
    inverse,
    POWER: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """The gradient to the five params at p_params from the sums over rows, [N] each; b_l sums up to L itself."""
    dmu_y, dmu_x, de = tl.sum(b_dmu_y, axis=0), tl.sum(b_dmu_x, axis=0), tl.sum(b_de, axis=0)
    dmu_offset = tl.sum((b_dmu_y + b_dmu_x) * b_offset, axis=0)
    dlog_gamma = POWER * tl.sum(b_l, axis=0)
    store_params_grad(p_params, p_grad, 0, HEIGHT, WIDTH, dmu_y, dmu_x, dmu_offset, de, dlog_gamma, delta, inverse, tl.float32)


@triton.jit
def canvas_backward_kernel(
    p_head,
    p_canvas,
    p_x,
    p_grad_r,
    p_grad_canvas,
    p_grad_head,
    p_grad_x,
    CHANNELS: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    WRITE_SIZE: tl.constexpr,
    READ_SIZE: tl.constexpr,
    HEAD_ROW: tl.constexpr,
    R_ROW: tl.constexpr,
    WRITES: tl.constexpr,
    READS: tl.constexpr,
    READ_PARAMS: tl.constexpr,
    GRAD_X: tl.constexpr,
    REBUILD: tl.constexpr,
    PRECISION: tl.constexpr,
    SINGLE: tl.constexpr,
    BLOCK_WRITE: tl.constexpr,
    BLOCK_READ: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_W: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """READ_PARAMS: the head ends in a read's params. What nothing READS or WRITES gets a gradient of zero."""
    after_the_last_kernel(DEPENDENT)
    i_b = tl.program_id(0).to(tl.int64)
    END_H: tl.constexpr = BLOCK_H if SINGLE else HEIGHT
    END_W: tl.constexpr = BLOCK_W if SINGLE else WIDTH
    PIXELS: tl.constexpr = HEIGHT * WIDTH
    WRITE_PART: tl.constexpr = WRITE_SIZE * WRITE_SIZE
    READ_PART: tl.constexpr = READ_SIZE * READ_SIZE
    PATCH: tl.constexpr = CHANNELS * (WRITE_PART if WRITE_SIZE > 0 else PIXELS)
    READ_WINDOW: tl.constexpr = READS and READ_SIZE > 0
    WRITE_WINDOW: tl.constexpr = WRITES and WRITE_SIZE > 0
    out = p_grad_head.dtype.element_ty
    p_own_head, p_own_grad_head = p_head + i_b * HEAD_ROW, p_grad_head + i_b * HEAD_ROW
    if not WRITES:
        store_zeros(p_own_grad_head, HEAD_ROW - 5 if READ_PARAMS else HEAD_ROW, 256)
    if READ_PARAMS and not READS:
        store_zeros(p_own_grad_head + (HEAD_ROW - 5), 5, 8)
    if READ_WINDOW:
        p_params = p_own_head + (HEAD_ROW - 5)
        b_mu_y, b_mu_x, inverse, log_gamma, delta, b_offset = centres(p_params, HEIGHT, WIDTH, READ_SIZE, BLOCK_READ)
        b_z_y, b_mean_d_y, b_mean_e_y = row_means(b_mu_y, HEIGHT, inverse, END_H, BLOCK_READ, BLOCK_H, tl.float32)
        b_z_x, b_mean_d_x, b_mean_e_x = row_means(b_mu_x, WIDTH, inverse, END_W, BLOCK_READ, BLOCK_W, tl.float32)
        b_scale = tl.exp(log_gamma) / (b_z_y[:, None] * b_z_x[None, :])
        o_n = tl.arange(0, BLOCK_READ)
        o_patch = o_n[:, None] * READ_SIZE + o_n[None, :]
        m_patch = (o_n < READ_SIZE)[:, None] & (o_n < READ_SIZE)[None, :]
        b_l = tl.zeros([BLOCK_READ], tl.float32)
        b_dmu_y = tl.zeros([BLOCK_READ], tl.float32)
        b_dmu_x = tl.zeros([BLOCK_READ], tl.float32)
        b_de = tl.zeros([BLOCK_READ], tl.float32)
    if WRITE_WINDOW:
        p_w_params = p_own_head + PATCH
        b_w_mu_y, b_w_mu_x, w_inverse, w_gamma, w_delta, b_w_offset = centres(
            p_w_params, HEIGHT, WIDTH, WRITE_SIZE, BLOCK_WRITE
        )
        b_w_z_y, b_w_mean_d_y, b_w_mean_e_y = row_means(b_w_mu_y, HEIGHT, w_inverse, END_H, BLOCK_WRITE, BLOCK_H, tl.float32)
        b_w_z_x, b_w_mean_d_x, b_w_mean_e_x = row_means(b_w_mu_x, WIDTH, w_inverse, END_W, BLOCK_WRITE, BLOCK_W, tl.float32)
        b_w_scale = tl.exp(-w_gamma) / (b_w_z_y[:, None] * b_w_z_x[None, :])
        o_w_n = tl.arange(0, BLOCK_WRITE)
        o_w_patch = o_w_n[:, None] * WRITE_SIZE + o_w_n[None, :]
        m_w_patch = (o_w_n < WRITE_SIZE)[:, None] & (o_w_n < WRITE_SIZE)[None, :]
        b_w_l = tl.zeros([BLOCK_WRITE], tl.float32)
        b_w_dmu_y = tl.zeros([BLOCK_WRITE], tl.float32)
        b_w_dmu_x = tl.zeros([BLOCK_WRITE], tl.float32)
        b_w_de = tl.zeros([BLOCK_WRITE], tl.float32)
    for i_c in range(0, CHANNELS):
        o_own = (i_b * CHANNELS + i_c) * PIXELS
        b_grad = tl.zeros([BLOCK_H, BLOCK_W], tl.float32)
        if READ_WINDOW:
            p_own_grad_r = p_grad_r + i_b * R_ROW + i_c * READ_PART + o_patch
            b_p = tl.load(p_own_grad_r, mask=m_patch, other=0.0).to(tl.float32) * b_scale
            b_p_error = tl.load(p_own_grad_r + CHANNELS * READ_PART, mask=m_patch, other=0.0).to(tl.float32) * b_scale
        if READS:
            for i_h in range(0, END_H, BLOCK_H):
                o_h = i_h + tl.arange(0, BLOCK_H)
                if READ_WINDOW:
                    b_zeros = tl.zeros([BLOCK_READ, BLOCK_H], tl.float32)
                    b_f_y, b_d_y, b_e_y = rows(b_mu_y[:, None], o_h[None, :], HEIGHT, inverse, tl.float32)
                    b_v = product(tl.trans(b_p), b_f_y, b_zeros, True, PRECISION)
                    b_v_error = product(tl.trans(b_p_error), b_f_y, b_zeros, True, PRECISION)
                    b_t = tl.zeros([BLOCK_READ, BLOCK_H], tl.float32)
                    b_t_error = tl.zeros([BLOCK_READ, BLOCK_H], tl.float32)
                for i_w in range(0, END_W, BLOCK_W):
                    o_w = i_w + tl.arange(0, BLOCK_W)
                    o_in_image = o_h[:, None] * WIDTH + o_w[None, :]
                    o_tile = o_own + o_in_image
                    m_tile = (o_h < HEIGHT)[:, None] & (o_w < WIDTH)[None, :]
                    b_grad = tl.load(p_grad_canvas + o_tile, mask=m_tile, other=0.0)
                    b_sigmoid = sigmoid(tl.load(p_canvas + o_tile, mask=m_tile, other=0.0))
                    if READ_WINDOW:
                        b_x = tl.load(p_x + o_tile, mask=m_tile, other=0.0)
                        # Past the image's end x^ is no zero; the filters are.
                        b_error = b_x - b_sigmoid
                        b_f_x, b_d_x, b_e_x = rows(b_mu_x[:, None], o_w[None, :], WIDTH, inverse, tl.float32)
                        b_t = product(b_f_x, tl.trans(b_x), b_t, True, PRECISION)
                        b_t_error = product(b_f_x, tl.trans(b_error), b_t_error, True, PRECISION)
                        b_g = product(b_v, b_x, tl.zeros([BLOCK_READ, BLOCK_W], tl.float32), True, PRECISION)
                        b_g = b_f_x * product(b_v_error, b_error, b_g, True, PRECISION)
                        b_dmu_x += tl.sum(b_g * (b_d_x - b_mean_d_x[:, None]), axis=1)
                        b_de += tl.sum(b_g * (b_e_x - b_mean_e_x[:, None]), axis=1)
                        b_grad_error = tl.zeros([BLOCK_H, BLOCK_W], tl.float32)
                        b_grad_error = product(tl.trans(b_v_error), b_f_x, b_grad_error, True, PRECISION)
                        if GRAD_X:
                            b_grad_x = product(tl.trans(b_v), b_f_x, b_grad_error, True, PRECISION)
                    else:
                        p_own_grad_r = p_grad_r + i_b * R_ROW + i_c * PIXELS + o_in_image
                        b_grad_error = tl.load(p_own_grad_r + CHANNELS * PIXELS, mask=m_tile, other=0.0).to(tl.float32)
                        if GRAD_X:
                            b_grad_x = b_grad_error + tl.load(p_own_grad_r, mask=m_tile, other=0.0).to(tl.float32)
                    b_grad -= b_grad_error * b_sigmoid * (1.0 - b_sigmoid)
                    tl.store(p_grad_canvas + o_tile, b_grad, mask=m_tile)
                    if GRAD_X:
                        b_grad_x += tl.load(p_grad_x + o_tile, mask=m_tile, other=0.0)
                        tl.store(p_grad_x + o_tile, b_grad_x, mask=m_tile)
                if READ_WINDOW:
                    b_g = product(b_p, b_t, tl.zeros([BLOCK_READ, BLOCK_H], tl.float32), True, PRECISION)
                    b_g = b_f_y * product(b_p_error, b_t_error, b_g, True, PRECISION)
                    b_l += tl.sum(b_g, axis=1)
                    b_dmu_y += tl.sum(b_g * (b_d_y - b_mean_d_y[:, None]), axis=1)
                    b_de += tl.sum(b_g * (b_e_y - b_mean_e_y[:, None]), axis=1)
            if WRITES:
                # Below, a thread may read what another thread of this program stored here, or store what another reads here.
                tl.debug_barrier()
        if WRITE_WINDOW:
            b_w_p = tl.load(p_own_head + i_c * WRITE_PART + o_w_patch, mask=m_w_patch, other=0.0) * b_w_scale
            b_grad_patch = tl.zeros([BLOCK_WRITE, BLOCK_WRITE], tl.float32)
        if WRITES:
            for i_h in range(0, END_H, BLOCK_H):
                o_h = i_h + tl.arange(0, BLOCK_H)
                if WRITE_WINDOW:
                    b_zeros = tl.zeros([BLOCK_WRITE, BLOCK_H], tl.float32)
                    b_f_y, b_d_y, b_e_y = rows(b_w_mu_y[:, None], o_h[None, :], HEIGHT, w_inverse, tl.float32)
                    b_v = product(tl.trans(b_w_p), b_f_y, b_zeros, True, PRECISION)
                    b_t = tl.zeros([BLOCK_WRITE, BLOCK_H], tl.float32)
                for i_w in range(0, END_W, BLOCK_W):
                    o_w = i_w + tl.arange(0, BLOCK_W)
                    o_in_image = o_h[:, None] * WIDTH + o_w[None, :]
                    o_tile = o_own + o_in_image
                    m_tile = (o_h < HEIGHT)[:, None] & (o_w < WIDTH)[None, :]
                    if not (READS and SINGLE):
                        b_grad = tl.load(p_grad_canvas + o_tile, mask=m_tile, other=0.0)
                    if REBUILD:
                        b_canvas = tl.load(p_canvas + o_tile, mask=m_tile, other=0.0)
                    if WRITE_WINDOW:
                        b_f_x, b_d_x, b_e_x = rows(b_w_mu_x[:, None], o_w[None, :], WIDTH, w_inverse, tl.float32)
                        b_t = product(b_f_x, tl.trans(b_grad), b_t, True, PRECISION)
                        b_g = product(b_v, b_grad, tl.zeros([BLOCK_WRITE, BLOCK_W], tl.float32), True, PRECISION)
                        b_g = b_f_x * b_g
                        b_w_dmu_x += tl.sum(b_g * (b_d_x - b_w_mean_d_x[:, None]), axis=1)
                        b_w_de += tl.sum(b_g * (b_e_x - b_w_mean_e_x[:, None]), axis=1)
                        if REBUILD:
                            b_canvas = product(tl.trans(-b_v), b_f_x, b_canvas, True, PRECISION)
                    else:
                        tl.store(p_own_grad_head + i_c * PIXELS + o_in_image, b_grad.to(out), mask=m_tile)
                        if REBUILD:
                            b_canvas -= tl.load(p_own_head + i_c * PIXELS + o_in_image, mask=m_tile, other=0.0)
                    if REBUILD:
                        tl.store(p_canvas + o_tile, b_canvas, mask=m_tile)
                if WRITE_WINDOW:
                    b_g = product(b_w_p, b_t, tl.zeros([BLOCK_WRITE, BLOCK_H], tl.float32), True, PRECISION)
                    b_g = b_f_y * b_g
                    b_w_l += tl.sum(b_g, axis=1)
                    b_w_dmu_y += tl.sum(b_g * (b_d_y - b_w_mean_d_y[:, None]), axis=1)
                    b_w_de += tl.sum(b_g * (b_e_y - b_w_mean_e_y[:, None]), axis=1)
                    b_grad_patch = product(b_f_y, tl.trans(b_t), b_grad_patch, True, PRECISION)
        if WRITE_WINDOW:
            b_out = (b_grad_patch * b_w_scale).to(out)
            tl.store(p_own_grad_head + i_c * WRITE_PART + o_w_patch, b_out, mask=m_w_patch)
    if READ_WINDOW:
        p_grad = p_own_grad_head + (HEAD_ROW - 5)
        close_window(p_params, p_grad, b_dmu_y, b_dmu_x, b_de, b_l, b_offset, delta, inverse, 1, HEIGHT, WIDTH)
    if WRITE_WINDOW:
        p_w_grad = p_own_grad_head + PATCH
        close_window(
            p_w_params, p_w_grad, b_w_dmu_y, b_w_dmu_x, b_w_de, b_w_l, b_w_offset, w_delta, w_inverse, -1, HEIGHT, WIDTH
        )


def canvas_backward_launch(
    head: Tensor,
    canvas: Tensor,
    x: Tensor | None,
    grad_r: Tensor | None,
    grad_canvas: Tensor,
    grad_head: Tensor,
    grad_x: Tensor | None,
    s: Shape,
    writes: bool,
    rebuild: bool,
    kind: str,
) -> Launch:
    """kind: tiles.canvas_kind() on the machine that this is for."""
    reads = grad_r is not None
    sizes = (s.read_size if reads else None, s.write_size if writes else None)
    blocks = canvas_blocks("canvas_backward", *sizes, s, kind, rebuild)
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
    kernel, parts = small_canvas_backward_kernel, 2 if reads and not rebuild else 1
    if not blocks.small:
        parts = 1
        kernel, arguments["PRECISION"] = canvas_backward_kernel, "tf32" if kind == "tf32" else "ieee"
    return Launch(
        kernel, (s.batch, parts), arguments, blocks.num_warps, blocks.num_stages, max_registers=255, fma=blocks.num_warps == 1
    )
