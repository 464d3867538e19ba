"""The recurrence's latent layer: a product with sampling and KL behind it (equations 1, 2, 6, 11), and its reverse.

    latent            mu, log sigma = h W^T + b;  z = mu + sigma noise;  kl = sum of (mu^2 + sigma^2 - 1)/2 - log sigma
    input_backward    grad_inputs = grad_out W; with latents in its first columns their gradients as well:
                      d mu = dz + dkl mu;  d log sigma = dz sigma noise + dkl sigma sigma - dkl;  d noise = dz sigma

A program of `latent` has a tile of rows and latents and gives its part of their KL: the loop over glimpses sums the parts
once, at its end, in one order and without atomics.

Where the design stops: every tile of rows reads the whole weight.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from .activations import above_tangent
from .dependent import after_the_last_kernel
from .launch import Launch
from .piece_tables import product_blocks
from .tiles import kind, own_tile, product_constants, rows_times, tiled_launch, wide_product


@triton.jit(do_not_specialize=["batch"])
def latent_kernel(
    p_h, p_weight, p_bias, p_noise, p_out, p_z, p_kl, batch, LATENT: tl.constexpr, Z_ROW: tl.constexpr, FUSED: tl.constexpr,
    K: tl.constexpr, A_ROW: tl.constexpr, ALIGN: tl.constexpr, OPERANDS: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    """p_kl: [parts, B], the KL of each tile of latents. Without FUSED p_h is the product [B, 2Z] in float32."""
    i_part = tl.program_id(1)
    o_b, o_z, m_b, m_z = own_tile(batch, LATENT, BLOCK_B, BLOCK_N)
    mask = m_b[:, None] & m_z[None, :]
    o_own = o_b[:, None] * (2 * LATENT) + o_z[None, :]
    after_the_last_kernel(DEPENDENT)
    # Asked for first, so that they arrive while the product is made.
    b_noise = tl.load(p_noise + o_b[:, None] * LATENT + o_z[None, :], mask=mask, other=0.0)
    b_bias_mu = tl.load(p_bias + o_z, mask=m_z, other=0.0)
    b_bias_log_sigma = tl.load(p_bias + LATENT + o_z, mask=m_z, other=0.0)
    if FUSED:
        # mu and log sigma of one latent, then of the next: one product makes both.
        o_column = tl.arange(0, 2 * BLOCK_N)
        o_latent = i_part * BLOCK_N + o_column // 2
        o_row = (o_column % 2 * LATENT + o_latent).to(tl.int64)
        b_sum = tl.zeros([BLOCK_B, 2 * BLOCK_N], tl.float32)
        b_sum = rows_times(
            b_sum, p_h, p_weight + o_row[None, :] * K, o_b, m_b, o_latent < LATENT, 1,
            K, A_ROW, ALIGN, OPERANDS, PRECISION, BLOCK_K,
        )  # fmt: skip
        b_mu, b_log_sigma = tl.split(tl.reshape(b_sum, [BLOCK_B, BLOCK_N, 2]))
    else:
        b_mu = tl.load(p_h + o_own, mask=mask, other=0.0)
        b_log_sigma = tl.load(p_h + o_own + LATENT, mask=mask, other=0.0)
    b_mu += b_bias_mu.to(tl.float32)[None, :]
    b_log_sigma += b_bias_log_sigma.to(tl.float32)[None, :]
    b_sigma = tl.exp(b_log_sigma)
    tl.store(p_out + o_own, b_mu, mask=mask)
    tl.store(p_out + o_own + LATENT, b_log_sigma, mask=mask)
    b_z = b_mu + b_sigma * b_noise
    tl.store(p_z + o_b[:, None] * Z_ROW + o_z[None, :], b_z.to(p_z.dtype.element_ty), mask=mask)
    # Latents beyond the last have mu 0 and sigma 1, which count nothing.
    b_kl = tl.sum(0.5 * (b_mu * b_mu + above_tangent(2.0 * b_log_sigma, b_sigma * b_sigma)), axis=1)
    tl.store(p_kl + i_part * batch + o_b, b_kl, mask=m_b)


@triton.jit
def kl_by_log_sigma(b_grad_kl, b_log_sigma, b_sigma):
    """dkl (sigma^2 - 1). Where it is far from 1 sigma^2 may be infinite, and a KL that nobody asked about still has a gradient
    of zero."""
    b_near = b_grad_kl * (2.0 * b_log_sigma + above_tangent(2.0 * b_log_sigma, b_sigma * b_sigma))
    b_far = b_grad_kl * b_sigma * b_sigma - b_grad_kl
    return tl.where(tl.abs(b_log_sigma) < 0.25, b_near, b_far)


@triton.jit(do_not_specialize=["batch"])
def input_backward_kernel(
    p_grad_out, p_weight, p_grad_inputs, p_latent, p_noise, p_grad_kl, p_grad_latent, p_grad_noise, batch,
    N: tl.constexpr, OUT_ROW: tl.constexpr, LATENT: tl.constexpr, KL_STRIDE: tl.constexpr, GRAD_NOISE: tl.constexpr,
    FUSED: tl.constexpr,
    K: tl.constexpr, A_ROW: tl.constexpr, ALIGN: tl.constexpr, OPERANDS: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    """LATENT: how many of the first columns are z; 0 where none are. Without FUSED grad_inputs [B, N] are there already."""
    o_b, o_n, m_b, m_n = own_tile(batch, N, BLOCK_B, BLOCK_N)
    # Offsets in a tile have 32 bits: a large tile's are many.
    i_b, o_row = tl.program_id(0).to(tl.int64) * BLOCK_B, tl.arange(0, BLOCK_B)[:, None]
    p_own = p_grad_inputs + i_b * OUT_ROW + (o_row * OUT_ROW + o_n[None, :])
    mask = m_b[:, None] & m_n[None, :]
    after_the_last_kernel(DEPENDENT)
    # Tiles without a latent load and store nothing of theirs: their masks are empty.
    m_z = m_b[:, None] & (o_n < LATENT)[None, :]
    o_z, o_mu = o_row * LATENT + o_n[None, :], o_row * (2 * LATENT) + o_n[None, :]
    p_latent, p_noise = p_latent + i_b * (2 * LATENT), p_noise + i_b * LATENT
    p_grad_latent, p_grad_noise = p_grad_latent + i_b * (2 * LATENT), p_grad_noise + i_b * LATENT
    # Asked for before the product is made, where registers hold them as long.
    EARLY: tl.constexpr = BLOCK_B * BLOCK_N <= 1024
    if LATENT > 0 and EARLY:
        b_mu = tl.load(p_latent + o_mu, mask=m_z, other=0.0)
        b_log_sigma = tl.load(p_latent + o_mu + LATENT, mask=m_z, other=0.0)
        b_noise = tl.load(p_noise + o_z, mask=m_z, other=0.0)
    if FUSED:
        b_sum = tl.zeros([BLOCK_B, BLOCK_N], tl.float32)
        b_sum = rows_times(
            b_sum, p_grad_out, p_weight + o_n[None, :], o_b, m_b, m_n, N,
            K, A_ROW, ALIGN, OPERANDS, PRECISION, BLOCK_K,
        )  # fmt: skip
        tl.store(p_own, b_sum.to(p_grad_inputs.dtype.element_ty), mask=mask)
    else:
        b_sum = tl.load(p_own, mask=mask, other=0.0).to(tl.float32)
    if LATENT > 0:
        b_grad_kl = tl.load(p_grad_kl + o_b * KL_STRIDE, mask=m_b, other=0.0)[:, None]
        out = p_grad_latent.dtype.element_ty
        if not EARLY:
            b_mu = tl.load(p_latent + o_mu, mask=m_z, other=0.0)
        tl.store(p_grad_latent + o_mu, (b_sum + b_grad_kl * b_mu).to(out), mask=m_z)
        if not EARLY:
            b_log_sigma = tl.load(p_latent + o_mu + LATENT, mask=m_z, other=0.0)
            b_noise = tl.load(p_noise + o_z, mask=m_z, other=0.0)
        b_sigma = tl.exp(b_log_sigma)
        b_grad_sigma = b_sum * b_sigma * b_noise + kl_by_log_sigma(b_grad_kl, b_log_sigma, b_sigma)
        tl.store(p_grad_latent + o_mu + LATENT, b_grad_sigma.to(out), mask=m_z)
        if GRAD_NOISE:
            tl.store(p_grad_noise + o_z, b_sum * b_sigma, mask=m_z)


def latent_launch(h: Tensor, weight: Tensor, bias: Tensor, noise: Tensor, out: Tensor, z: Tensor, kl: Tensor) -> Launch:
    """kl: [parts, B] where the table has more than one tile of latents."""
    (batch, latents), kinds = noise.shape, kind(h.dtype)
    blocks = product_blocks("latent", kinds, batch, latents, 2 * latents, h.shape[1])
    arguments = {
        "p_h": h if blocks else wide_product(h, weight.t()),
        "p_weight": weight,
        "p_bias": bias,
        "p_noise": noise,
        "p_out": out,
        "p_z": z,
        "p_kl": kl,
        "batch": batch,
        "LATENT": latents,
        "Z_ROW": z.stride(0),
        "FUSED": blocks is not None,
        **product_constants(h, kinds),
    }
    return tiled_launch(latent_kernel, blocks, batch, latents, arguments)


def input_backward_launch(
    grad_out: Tensor, weight: Tensor, grad_inputs: Tensor, latent: tuple[Tensor, ...] = (), grad_noise: Tensor | None = None
) -> Launch | None:
    """latent: (latent [B, 2Z], noise, grad_kl, grad_latent) where the first Z columns are z. None: torch multiplies, and
    `latent_backward_launch` does what remains."""
    (batch, columns), kinds = grad_inputs.shape, kind(grad_out.dtype)
    table = "latent_backward" if latent else "input_backward"
    blocks = product_blocks(table, kinds, batch, columns, columns, grad_out.shape[1])
    if blocks is None:
        return None
    arguments = _input_backward_arguments(grad_out, weight, grad_inputs, latent, grad_noise, True)
    return tiled_launch(input_backward_kernel, blocks, batch, columns, arguments)


def latent_backward_launch(
    grad_out: Tensor, weight: Tensor, grad_inputs: Tensor, latent: tuple[Tensor, ...], grad_noise: Tensor | None
) -> Launch:
    """The latents' gradients from grad_inputs [B, Z + h], which are there already."""
    batch, latents = latent[1].shape
    arguments = _input_backward_arguments(grad_out, weight, grad_inputs, latent, grad_noise, False)
    return tiled_launch(input_backward_kernel, None, batch, latents, arguments)


def _input_backward_arguments(
    grad_out: Tensor, weight: Tensor, grad_inputs: Tensor, latent: tuple[Tensor, ...], grad_noise: Tensor | None, fused: bool
) -> dict[str, Any]:
    # Where there are no latents another tensor stands in, and is not read or written.
    values, noise, grad_kl, grad_latent = latent or (grad_inputs,) * 4
    return {
        "p_grad_out": grad_out,
        "p_weight": weight,
        "p_grad_inputs": grad_inputs,
        "p_latent": values,
        "p_noise": noise,
        "p_grad_kl": grad_kl,
        "p_grad_latent": grad_latent,
        "p_grad_noise": grad_latent if grad_noise is None else grad_noise,
        "batch": grad_inputs.shape[0],
        "N": grad_inputs.shape[1],
        "OUT_ROW": grad_inputs.stride(0),
        "LATENT": noise.shape[1] if latent else 0,
        "KL_STRIDE": grad_kl.stride(0) if latent else 0,
        "GRAD_NOISE": grad_noise is not None,
        "FUSED": fused,
        **product_constants(grad_out, kind(grad_out.dtype)),
    }
