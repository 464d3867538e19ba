"""The gradient to params of L = gamma^power sum_c <P_c, F_Y I_c F_X^T>, for read and write alike; one program an image.

With p = gamma^power P / (sums of rows), per tile of I_c:
    T = I f_X^T  [H, N]        G_Y = p T^T  [N, H]        G_X = (f_Y^T p)^T I  [N, W]
and each G only lives until it is summed against its row: sum f G (d - dbar) and sum f G (e - ebar), [N] each (rows.py). With
PATCH_GRAD the same T gives gamma^power F_Y T as well, the write's gradient to its patch, so that its backward is one launch.

Where the design stops: one program walks over all channels of one image, whatever its size.
"""

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from .rows import offsets, product, row_means, rows, store_params_grad, window

if TYPE_CHECKING:
    from torch import Tensor

from .launch import Launch, compute_dtype, tl_dtype
from .tables import window_blocks


@triton.jit(do_not_specialize=["channels"])
def window_grad_kernel(
    p_patch,
    p_image,
    p_params,
    p_grad_params,
    p_grad_patch,
    channels,
    height,
    width,
    size,
    POWER: tl.constexpr,
    PATCH_GRAD: tl.constexpr,
    DTYPE: tl.constexpr,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
    SINGLE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    i_b = tl.program_id(0).to(tl.int64)
    centre_y, centre_x, delta, inverse, log_gamma = window(p_params, i_b, height, width, size, DTYPE)
    end_h = BLOCK_H if SINGLE else height
    end_w = BLOCK_W if SINGLE else width
    o_n = tl.arange(0, BLOCK_N)
    b_offset = offsets(o_n, size, DTYPE)
    b_mu_y, b_mu_x = centre_y + b_offset * delta, centre_x + b_offset * delta
    b_z_y, b_mean_d_y, b_mean_e_y = row_means(b_mu_y, height, inverse, end_h, BLOCK_N, BLOCK_H, DTYPE)
    b_z_x, b_mean_d_x, b_mean_e_x = row_means(b_mu_x, width, inverse, end_w, BLOCK_N, BLOCK_W, DTYPE)
    b_scale = tl.exp(POWER * log_gamma) / (b_z_y[:, None] * b_z_x[None, :])

    long_width = tl.cast(width, tl.int64)
    o_patch = o_n[:, None] * size + o_n[None, :]
    m_patch = (o_n < size)[:, None] & (o_n < size)[None, :]
    b_l = tl.zeros([BLOCK_N], DTYPE)
    b_dmu_y = tl.zeros([BLOCK_N], DTYPE)
    b_dmu_x = tl.zeros([BLOCK_N], DTYPE)
    b_de = tl.zeros([BLOCK_N], DTYPE)
    for i_c in range(0, channels):
        i_bc = i_b * channels + i_c
        p_own = p_image + i_bc * height * long_width
        b_p = tl.load(p_patch + i_bc * size * size + o_patch, mask=m_patch, other=0.0).to(DTYPE) * b_scale
        b_p_t = tl.trans(b_p)
        b_patch = tl.zeros([BLOCK_N, BLOCK_N], DTYPE)
        for i_h in range(0, end_h, BLOCK_H):
            o_row = tl.arange(0, BLOCK_H)
            o_h = i_h + o_row
            b_f_y, b_d_y, b_e_y = rows(b_mu_y[:, None], o_h[None, :], height, inverse, DTYPE)
            b_v = product(b_p_t, b_f_y, tl.zeros([BLOCK_N, BLOCK_H], DTYPE), DOT, PRECISION)
            b_t = tl.zeros([BLOCK_N, BLOCK_H], DTYPE)
            for i_w in range(0, end_w, BLOCK_W):
                o_w = i_w + tl.arange(0, BLOCK_W)
                m_image = (o_h < height)[:, None] & (o_w < width)[None, :]
                p_tile = p_own + i_h * long_width + (o_row[:, None] * width + o_w[None, :])
                b_image = tl.load(p_tile, mask=m_image, other=0.0).to(DTYPE)
                b_f_x, b_d_x, b_e_x = rows(b_mu_x[:, None], o_w[None, :], width, inverse, DTYPE)
                b_t = product(b_f_x, tl.trans(b_image), b_t, DOT, PRECISION)
                b_g_x = b_f_x * product(b_v, b_image, tl.zeros([BLOCK_N, BLOCK_W], DTYPE), DOT, PRECISION)
                b_dmu_x += tl.sum(b_g_x * (b_d_x - b_mean_d_x[:, None]), axis=1)
                b_de += tl.sum(b_g_x * (b_e_x - b_mean_e_x[:, None]), axis=1)
            b_g_y = b_f_y * product(b_p, b_t, tl.zeros([BLOCK_N, BLOCK_H], DTYPE), DOT, PRECISION)
            b_l += tl.sum(b_g_y, axis=1)
            b_dmu_y += tl.sum(b_g_y * (b_d_y - b_mean_d_y[:, None]), axis=1)
            b_de += tl.sum(b_g_y * (b_e_y - b_mean_e_y[:, None]), axis=1)
            if PATCH_GRAD:
                b_patch = product(b_f_y, tl.trans(b_t), b_patch, DOT, PRECISION)
        if PATCH_GRAD:
            b_out = (b_patch * b_scale).to(p_grad_patch.dtype.element_ty)
            tl.store(p_grad_patch + i_bc * size * size + o_patch, b_out, mask=m_patch)
    dmu_y, dmu_x, de = tl.sum(b_dmu_y, axis=0), tl.sum(b_dmu_x, axis=0), tl.sum(b_de, axis=0)
    dmu_offset = tl.sum((b_dmu_y + b_dmu_x) * b_offset, axis=0)
    dlog_gamma = POWER * tl.sum(b_l, axis=0)
    store_params_grad(
        p_params, p_grad_params, i_b, height, width, dmu_y, dmu_x, dmu_offset, de, dlog_gamma, delta, inverse, DTYPE
    )


def window_grad_launch(
    patch: "Tensor",
    image: "Tensor",
    params: "Tensor",
    grad_params: "Tensor",
    grad_patch: "Tensor | None",
    power: int,
    precision: str,
) -> Launch:
    batch, channels, height, width = image.shape
    size = patch.shape[2]
    dtype = compute_dtype(image)
    blocks = window_blocks("window_grad" if grad_patch is None else "write_grad", size, height, width, dtype, precision)
    arguments = {
        "p_patch": patch,
        "p_image": image,
        "p_params": params,
        "p_grad_params": grad_params,
        "p_grad_patch": patch if grad_patch is None else grad_patch,
        "channels": channels,
        "height": height,
        "width": width,
        "size": size,
        "POWER": power,
        "PATCH_GRAD": grad_patch is not None,
        "DTYPE": tl_dtype(dtype),
        "PRECISION": precision,
    }
    arguments.update(blocks.constants)
    return Launch(window_grad_kernel, (batch,), arguments, blocks.num_warps, blocks.num_stages, max_registers=255)
