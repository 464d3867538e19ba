"""The filterbank itself: F_Y [B, N, H], F_X [B, N, W] and gamma [B] (equations 19 to 26), and its gradient to params.

Forward: one launch, one program for each image, axis and chunk of filters; it sums its rows' f, then makes them again and
divides.
Backward: one launch, one program an image, which walks over both axes. rows.py has the maths. Any N, H and W.

Where the design stops: read and write never use this; it is for those who want the matrices.
"""

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from .rows import axes, filters, offsets, row_means, row_sums, rows, store_axes_grad

if TYPE_CHECKING:
    from torch import Tensor

from fastdraw.ops.contract import wide_dtype

from .launch import Launch, tl_dtype
from .tables import filterbank_blocks


@triton.jit
def axis_forward(
    p_rows, i_b, o_n, centre, delta, inverse, length, size, DTYPE: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_A: tl.constexpr
):
    b_mu = centre + offsets(o_n, size, DTYPE) * delta
    b_z = row_sums(b_mu, length, inverse, length, BLOCK_N, BLOCK_A, DTYPE)
    p_own = p_rows + (i_b * size + o_n.to(tl.int64))[:, None] * length
    for i_a in range(0, length, BLOCK_A):
        o_a = i_a + tl.arange(0, BLOCK_A)
        b_f = filters(b_mu[:, None], o_a[None, :], length, inverse, DTYPE) / b_z[:, None]
        tl.store(p_own + o_a[None, :], b_f.to(p_rows.dtype.element_ty), mask=(o_n < size)[:, None] & (o_a < length)[None, :])


@triton.jit
def filterbank_kernel(
    p_params,
    p_y,
    p_x,
    p_gamma,
    height,
    width,
    size_y,
    size_x,
    PARAMS: tl.constexpr,
    DTYPE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_A: tl.constexpr,
):
    i_b = tl.program_id(0).to(tl.int64)
    o_n = tl.program_id(2) * BLOCK_N + tl.arange(0, BLOCK_N)
    centre_y, centre_x, delta_y, delta_x, inverse_y, inverse_x, log_gamma = axes(
        p_params, i_b, height, width, size_y, size_x, PARAMS, DTYPE
    )
    if tl.program_id(1) == 0:
        axis_forward(p_y, i_b, o_n, centre_y, delta_y, inverse_y, height, size_y, DTYPE, BLOCK_N, BLOCK_A)
        if tl.program_id(2) == 0:
            tl.store(p_gamma + i_b, tl.exp(log_gamma).to(p_gamma.dtype.element_ty))
    else:
        axis_forward(p_x, i_b, o_n, centre_x, delta_x, inverse_x, width, size_x, DTYPE, BLOCK_N, BLOCK_A)


@triton.jit
def axis_backward(
    p_grad, i_b, centre, delta, inverse, length, size, DTYPE: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_A: tl.constexpr
):
    """(sum S_i, sum S_i (i - (N-1)/2), sum F G (e - ebar)) of one axis, as store_params_grad takes them."""
    b_dmu = tl.zeros([BLOCK_N], DTYPE)
    b_dmu_offset = tl.zeros([BLOCK_N], DTYPE)
    b_de = tl.zeros([BLOCK_N], DTYPE)
    for i_n in range(0, size, BLOCK_N):
        o_n = i_n + tl.arange(0, BLOCK_N)
        b_offset = offsets(o_n, size, DTYPE)
        b_mu = centre + b_offset * delta
        b_z, b_mean_d, b_mean_e = row_means(b_mu, length, inverse, length, BLOCK_N, BLOCK_A, DTYPE)
        p_own = p_grad + (i_b * size + o_n.to(tl.int64))[:, None] * length
        b_s = tl.zeros([BLOCK_N], DTYPE)
        for i_a in range(0, length, BLOCK_A):
            o_a = i_a + tl.arange(0, BLOCK_A)
            b_f, b_d, b_e = rows(b_mu[:, None], o_a[None, :], length, inverse, DTYPE)
            m_grad = (o_n < size)[:, None] & (o_a < length)[None, :]
            b_g = b_f / b_z[:, None] * tl.load(p_own + o_a[None, :], mask=m_grad, other=0.0).to(DTYPE)
            b_s += tl.sum(b_g * (b_d - b_mean_d[:, None]), axis=1)
            b_de += tl.sum(b_g * (b_e - b_mean_e[:, None]), axis=1)
        b_dmu += b_s
        b_dmu_offset += b_s * b_offset
    return tl.sum(b_dmu, axis=0), tl.sum(b_dmu_offset, axis=0), tl.sum(b_de, axis=0)


@triton.jit
def filterbank_grad_kernel(
    p_grad_y,
    p_grad_x,
    p_grad_gamma,
    p_params,
    p_grad_params,
    height,
    width,
    size_y,
    size_x,
    PARAMS: tl.constexpr,
    DTYPE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_A: tl.constexpr,
):
    i_b = tl.program_id(0).to(tl.int64)
    centre_y, centre_x, delta_y, delta_x, inverse_y, inverse_x, log_gamma = axes(
        p_params, i_b, height, width, size_y, size_x, PARAMS, DTYPE
    )
    sums_y = axis_backward(p_grad_y, i_b, centre_y, delta_y, inverse_y, height, size_y, DTYPE, BLOCK_N, BLOCK_A)
    sums_x = axis_backward(p_grad_x, i_b, centre_x, delta_x, inverse_x, width, size_x, DTYPE, BLOCK_N, BLOCK_A)
    dlog_gamma = tl.load(p_grad_gamma + i_b).to(DTYPE) * tl.exp(log_gamma)
    store_axes_grad(
        p_params, p_grad_params, i_b, height, width, sums_y, sums_x, dlog_gamma, delta_y, delta_x, inverse_y, inverse_x,
        PARAMS, DTYPE,
    )  # fmt: skip


def filterbank_launch(params: "Tensor", y: "Tensor", x: "Tensor", gamma: "Tensor") -> Launch:
    batch, size_y, height = y.shape
    size_x, width = x.shape[1:]
    size = max(size_y, size_x)
    dtype = wide_dtype(params.dtype)
    blocks = filterbank_blocks(size, max(height, width), dtype)
    arguments = {
        "p_params": params,
        "p_y": y,
        "p_x": x,
        "p_gamma": gamma,
        "height": height,
        "width": width,
        "size_y": size_y,
        "size_x": size_x,
        "PARAMS": params.shape[-1],
        "DTYPE": tl_dtype(dtype),
    }
    grid = (batch, 2, triton.cdiv(size, blocks.constants["BLOCK_N"]))
    return Launch(filterbank_kernel, grid, {**arguments, **blocks.constants}, blocks.num_warps, blocks.num_stages)


def filterbank_grad_launch(
    grad_y: "Tensor", grad_x: "Tensor", grad_gamma: "Tensor", params: "Tensor", grad_params: "Tensor"
) -> Launch:
    batch, size_y, height = grad_y.shape
    size_x, width = grad_x.shape[1:]
    size = max(size_y, size_x)
    dtype = wide_dtype(params.dtype)
    blocks = filterbank_blocks(size, max(height, width), dtype)
    arguments = {
        "p_grad_y": grad_y,
        "p_grad_x": grad_x,
        "p_grad_gamma": grad_gamma,
        "p_params": params,
        "p_grad_params": grad_params,
        "height": height,
        "width": width,
        "size_y": size_y,
        "size_x": size_x,
        "PARAMS": params.shape[-1],
        "DTYPE": tl_dtype(dtype),
    }
    arguments.update(blocks.constants)
    return Launch(
        filterbank_grad_kernel, (batch,), arguments, blocks.num_warps, blocks.num_stages, max_registers=255, fma=False
    )
