"""The pieces of one glimpse in plain ATen, written for reading: fastdraw/ops/contract.py says what goes in and out, and
fastdraw/ops/glimpses.py has the loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fastdraw.ops.contract import Shape
from fastdraw.ops.contract import plain_buffers as new_buffers  # noqa: F401

from . import aten


def prepared(parts: Sequence[Tensor], role: str, backward: bool) -> Any:
    return torch.cat(list(parts), 1) if len(parts) > 1 else parts[0].contiguous()


#: Rows (glimpses times images) of gate gradients that are kept before they go into the weights' gradients, at most, and how
#: many numbers they may be for each LSTM: with more the products are no faster, and memory grows.
CHUNK_ROWS = 1024
CHUNK_GATES = 1 << 19


def chunk_rows(s: Shape, dtype: torch.dtype) -> int:
    return min(CHUNK_ROWS, CHUNK_GATES // (4 * s.hidden))


def latent_parts(s: Shape, dtype: torch.dtype) -> int:
    return 1


def cell(inputs: Tensor, weight: Tensor, bias: Tensor, c: Tensor, gates: Tensor, c_new: Tensor, h_outs: list[Tensor]) -> None:
    own = bias.dim() == 2
    sums = functional.linear(inputs, weight, None if own else bias).to(c.dtype)
    i, f, g, o = (sums + bias if own else sums).chunk(4, 1)
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    gates.copy_(torch.cat([i, f, g, o], 1))
    torch.addcmul(f * c, i, g, out=c_new)
    h = o * c_new.tanh()
    for out in h_outs:
        out.copy_(h)


def latent(h: Tensor, weight: Tensor, bias: Tensor, noise: Tensor, out: Tensor, z: Tensor, kl: Tensor) -> None:
    out.copy_(functional.linear(h, weight, bias))
    mu, log_sigma = out.chunk(2, 1)
    sigma = log_sigma.exp()
    z.copy_(torch.addcmul(mu, sigma, noise))
    torch.sum(0.5 * (mu * mu + sigma * sigma - 1) - log_sigma, 1, out=kl)


def linear(h: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> None:
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
    if writes:
        assert head is not None
        patch, params, _ = _split(head, s)
        torch.add(before, _written(patch, params, s), out=canvas)
    if x is None:
        return
    assert head is not None
    assert r is not None
    images = x - canvas.sigmoid()
    if s.read_size:
        images = aten.read(torch.cat([x, images], 1), _split(head, s)[2].contiguous(), (s.read_size, s.read_size), 1)
    r.copy_(images.flatten(1))


def cell_backward(
    grad_out: Tensor, weight: Tensor, others: list[Tensor], gates: Tensor, c: Tensor, c_new: Tensor, grad_c: Tensor,
    grad_gates: Tensor,
) -> None:  # fmt: skip
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
    torch.mm(grad_out, weight, out=grad_inputs)


def canvas_backward(
    head: Tensor, canvas: Tensor, x: Tensor | None, grad_r: Tensor | None, grad_canvas: Tensor, grad_head: Tensor,
    grad_x: Tensor | None, s: Shape, writes: bool, rebuild: bool,
) -> None:  # fmt: skip
    patch, write_params, read_params = _split(head, s)
    grad_read_params = torch.zeros_like(read_params)
    if grad_r is not None:
        assert x is not None
        sigmoid = canvas.sigmoid()
        grad_x_hat = grad_r.to(canvas.dtype)
        if s.read_size:
            images = torch.cat([x, x - sigmoid], 1)
            grad_patch = grad_x_hat.reshape(s.batch, 2 * s.channels, s.read_size, s.read_size)
            wanted, grad_read_params = aten.read_backward(grad_patch, images, read_params.contiguous(), 1, True)
            assert wanted is not None
            grad_images_x, grad_x_hat = wanted.chunk(2, 1)
            if grad_x is not None:
                grad_x.add_(grad_images_x).add_(grad_x_hat)
        grad_canvas.sub_(grad_x_hat.reshape(canvas.shape) * sigmoid * (1 - sigmoid))
    grad_patch, grad_write_params = grad_canvas, torch.zeros_like(write_params)
    if not writes:
        grad_patch = torch.zeros_like(patch)
    elif s.write_size:
        wanted, grad_write_params = aten.write_backward(grad_canvas, patch, write_params.contiguous(), -1)
        assert wanted is not None
        grad_patch = wanted
    grad_head.copy_(torch.cat([grad_patch.flatten(1), grad_write_params, grad_read_params], 1))
    if rebuild:
        canvas.sub_(_written(patch, write_params, s))


def weight_gradient(grad_out: Tensor, inputs: Tensor, weights: Sequence[Tensor], bias: Tensor) -> None:
    for weight, columns in zip(weights, inputs.split([weight.shape[1] for weight in weights], 1), strict=True):
        weight.add_(grad_out.mT @ columns)
    bias.add_(grad_out.sum(0, dtype=bias.dtype))
