"""The pieces of one glimpse in plain ATen, written for reading: what each piece of every backend must do.

Outputs are given as tensors to fill. Operands of products share a dtype (float64, float32, bfloat16 or float16); states,
canvases, latents and the head's outputs are float64 where operands are and float32 otherwise. Views handed over may be
strided in their rows; columns are contiguous. See fastdraw/ops/glimpses.py for the loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fastdraw.kernels import aten
from fastdraw.ops.glimpses import Shape
from fastdraw.ops.glimpses import plain_buffers as new_buffers  # noqa: F401


def prepared(parts: Sequence[Tensor], role: str, backward: bool) -> Any:
    """A weight as the pieces take it, made once for all glimpses. parts: one matrix, or an LSTM's two, for its inputs and for
    its state; role: what follows the product forward, "cell", "latent" or "linear"; backward: for pieces that take gradients.
    """
    return torch.cat(list(parts), 1) if len(parts) > 1 else parts[0].contiguous()


#: Rows (glimpses times images) of gate gradients that are kept before they go into the weights' gradients, at most, and how
#: many numbers they may be for each LSTM: with more the products are no faster, and memory grows.
CHUNK_ROWS = 1024
CHUNK_GATES = 1 << 19


def chunk_rows(s: Shape, dtype: torch.dtype) -> int:
    """How many rows of gradients go into the weights' gradients at once."""
    return min(CHUNK_ROWS, CHUNK_GATES // (4 * s.hidden))


def latent_parts(s: Shape, dtype: torch.dtype) -> int:
    """In how many parts `latent` gives each image's KL where it is handed kl [parts, B], which the loop sums up at its end."""
    return 1


def cell(inputs: Tensor, weight: Tensor, bias: Tensor, c: Tensor, gates: Tensor, c_new: Tensor, h_outs: list[Tensor]) -> None:
    """gates [B, 4h] = activated inputs [B, K] weight^T + bias; c_new [B, h]; h [B, h] into every one of h_outs."""
    i, f, g, o = functional.linear(inputs, weight, bias).to(c.dtype).chunk(4, 1)
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    gates.copy_(torch.cat([i, f, g, o], 1))
    torch.addcmul(f * c, i, g, out=c_new)
    h = o * c_new.tanh()
    for out in h_outs:
        out.copy_(h)


def latent(h: Tensor, weight: Tensor, bias: Tensor, noise: Tensor, out: Tensor, z: Tensor, kl: Tensor) -> None:
    """out [B, 2Z] = mu, log sigma = h weight^T + bias;  z = mu + sigma noise;  kl [B], nats (equations 1, 2, 6, 11)."""
    out.copy_(functional.linear(h, weight, bias))
    mu, log_sigma = out.chunk(2, 1)
    sigma = log_sigma.exp()
    z.copy_(torch.addcmul(mu, sigma, noise))
    torch.sum(0.5 * (mu * mu + sigma * sigma - 1) - log_sigma, 1, out=kl)


def linear(h: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> None:
    """out [B, P] = h weight^T + bias: the patch, params of the write, params of the next read."""
    out.copy_(functional.linear(h, weight, bias))


def _split(head: Tensor, s: Shape) -> tuple[Tensor, Tensor, Tensor]:
    sides = (s.write_size, s.write_size) if s.write_size else (s.height, s.width)
    patch, windows = head[:, : s.patch_numel].reshape(s.batch, s.channels, *sides), head[:, s.patch_numel :]
    first = 5 if s.write_size else 0
    return patch, windows[:, :first], windows[:, first:]


def _written(patch: Tensor, params: Tensor, s: Shape) -> Tensor:
    return aten.write(patch, params.contiguous(), s.height, s.width, -1) if s.write_size else patch


def canvas(
    head: Tensor | None, before: Tensor, canvas: Tensor, x: Tensor | None, r: Tensor | None, s: Shape, writes: bool
) -> None:
    """canvas = before + write (8), where `writes`;  r [B, 2R] = read of x and x^ = x - sigmoid(canvas) (3, 4), where there
    is an x. `before` and `canvas` may be the same tensor. Without `writes` before is canvas."""
    if writes:
        assert head is not None
        patch, params, _ = _split(head, s)
        torch.add(before, _written(patch, params, s), out=canvas)
    if x is None:
        return
    assert head is not None
    assert r is not None
    images = torch.cat([x, x - canvas.sigmoid()], 1)
    if s.read_size:
        images = aten.read(images, _split(head, s)[2].contiguous(), s.read_size, 1)
    r.copy_(images.flatten(1))


def cell_backward(
    grad_out: Tensor, weight: Tensor, others: list[Tensor], gates: Tensor, c: Tensor, c_new: Tensor, grad_c: Tensor,
    grad_gates: Tensor,
) -> None:  # fmt: skip
    """grad_gates [B, 4h], before activation, from grad_h = grad_out weight + the sum of others; grad_c is that of c_new,
    and becomes that of c."""
    grad_h = (grad_out @ weight).to(c.dtype)
    for other in others:
        grad_h = grad_h + other
    i, f, g, o = gates.to(c.dtype).chunk(4, 1)
    tanh_c = c_new.tanh()
    dc = grad_c + grad_h * o * (1 - tanh_c * tanh_c)
    parts = [dc * g * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - g * g), grad_h * tanh_c * o * (1 - o)]
    grad_gates.copy_(torch.cat(parts, 1))
    torch.mul(dc, f, out=grad_c)


def latent_backward(
    grad_gates: Tensor, weight: Tensor, latent: Tensor, noise: Tensor, grad_kl: Tensor, grad_inputs: Tensor,
    grad_latent: Tensor, grad_noise: Tensor | None,
) -> None:  # fmt: skip
    """grad_inputs [B, Z + h] = grad_gates weight; its first Z columns go on to grad_latent [B, 2Z] and grad_noise."""
    torch.mm(grad_gates, weight, out=grad_inputs)
    mu, log_sigma = latent.chunk(2, 1)
    sigma = log_sigma.exp()
    grad_z, grad_kl = grad_inputs[:, : mu.shape[1]].to(latent.dtype), grad_kl[:, None]
    # In this order: sigma^2 may be infinite where sigma is not, and a KL that nobody asked about has a gradient of zero.
    parts = [grad_z + grad_kl * mu, grad_z * sigma * noise + (grad_kl * sigma * sigma - grad_kl)]
    grad_latent.copy_(torch.cat(parts, 1))
    if grad_noise is not None:
        torch.mul(grad_z, sigma, out=grad_noise)


def input_backward(grad_out: Tensor, weight: Tensor, grad_inputs: Tensor) -> None:
    """grad_inputs [B, K] = grad_out weight."""
    torch.mm(grad_out, weight, out=grad_inputs)


def canvas_backward(
    head: Tensor, canvas: Tensor, x: Tensor, grad_r: Tensor | None, grad_canvas: Tensor, grad_head: Tensor,
    grad_x: Tensor | None, s: Shape, writes: bool, rebuild: bool,
) -> None:  # fmt: skip
    """The reverse of `canvas`: grad_canvas [B, C, H, W] takes up the read's part in place (where there was a read, and so a
    grad_r [B, 2R]), grad_head [B, P] is filled, grad_x is added to. With `rebuild` the canvas becomes the one before."""
    patch, write_params, read_params = _split(head, s)
    grad_read_params = torch.zeros_like(read_params)
    if grad_r is not None:
        sigmoid = canvas.sigmoid()
        grad_images = grad_r.to(canvas.dtype)
        if s.read_size:
            images = torch.cat([x, x - sigmoid], 1)
            grad_patch = grad_images.reshape(s.batch, 2 * s.channels, s.read_size, s.read_size)
            grad_images, grad_read_params = aten.read_backward(grad_patch, images, read_params.contiguous(), 1, True)
        grad_images = grad_images.reshape(s.batch, 2 * s.channels, s.height, s.width)
        grad_images_x, grad_x_hat = grad_images.chunk(2, 1)
        grad_canvas.sub_(grad_x_hat * sigmoid * (1 - sigmoid))
        if grad_x is not None:
            grad_x.add_(grad_images_x).add_(grad_x_hat)
    grad_patch, grad_write_params = grad_canvas, torch.zeros_like(write_params)
    if not writes:
        grad_patch = torch.zeros_like(patch)
    elif s.write_size:
        grad_patch, grad_write_params = aten.write_backward(grad_canvas, patch, write_params.contiguous(), -1)
    grad_head.copy_(torch.cat([grad_patch.flatten(1), grad_write_params, grad_read_params], 1))
    if rebuild:
        canvas.sub_(_written(patch, write_params, s))


def weight_gradient(grad_out: Tensor, inputs: Tensor, weights: Sequence[Tensor], bias: Tensor) -> None:
    """weight [M, K] += grad_out^T inputs and bias [M] += the sum of grad_out's rows, both in float32 (float64). weights: the
    weight's parts as in `prepared`, which share out its columns between them."""
    for weight, columns in zip(weights, inputs.split([weight.shape[1] for weight in weights], 1), strict=True):
        weight.add_(grad_out.mT @ columns)
    bias.add_(grad_out.sum(0, dtype=bias.dtype))
