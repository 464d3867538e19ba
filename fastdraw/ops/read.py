"""The read: one Gaussian glimpse of each image, as one operator."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastdraw import checks, dispatch, reference
from fastdraw.ops import registry


def read(image: Tensor, params: Tensor, size: int) -> Tensor:
    """A differentiable N x N glimpse of each image, equation 27 of the paper: gamma F_Y image F_X^T.

    image   [B, C, H, W], float32, float64, float16 or bfloat16; all channels are read through the same window.
    params  [B, 5]: raw outputs (g~x, g~y, log sigma^2, log delta~, log gamma) of a linear layer, any finite values, any
            floating dtype. g~ = 0, log delta~ = 0 centres the window and lets it span the image.
    size    N >= 1, samples along each side.

    Gives the patch [B, C, N, N] in the image's dtype, summed in float32 (float64 for float64). Differentiable once in image
    and params. Under torch.autocast it runs in float32.

    Raises TypeError or ValueError, naming the argument, for integers, other shapes, two devices, or N below 1.
    """
    checks.check_tensor("image", image, "B", "C", "H", "W")
    checks.check_params(params, image.shape[0])
    checks.check_same("device", "image", image, "params", params)
    size = checks.check_size("size", size)
    if dispatch.current() == "reference":
        return reference.read(image, params, size)
    return _read(image, params, size, dispatch.current())


def _forward(image: Tensor, params: Tensor, size: int, backend: str) -> Tensor:
    if image.numel() == 0:
        return image.new_zeros(*image.shape[:2], size, size)
    return dispatch.kernels(backend, image.device.type).read(image.contiguous(), params.contiguous(), size, 1)


def _gradient(grad: Tensor, image: Tensor, params: Tensor, need_image: bool, backend: str) -> tuple[Tensor, Tensor]:
    if image.numel() == 0:
        return torch.zeros_like(image) if need_image else image.new_empty(0), torch.zeros_like(params)
    kernels = dispatch.kernels(backend, image.device.type)
    tensors = (grad.contiguous(), image.contiguous(), params.contiguous())
    grad_image, grad_params = kernels.read_backward(*tensors, 1, need_image)
    return grad_image if need_image else image.new_empty(0), grad_params


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    image, params, _, ctx.backend = inputs
    ctx.save_for_backward(image, params)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    image, params = ctx.saved_tensors
    need_image = ctx.needs_input_grad[0]
    grad_image, grad_params = _read_backward(grad, image, params, need_image, ctx.backend)
    return grad_image if need_image else None, grad_params, None, None


_read_backward = registry.register(
    "read_backward(Tensor grad, Tensor image, Tensor params, bool need_image, str backend) -> (Tensor, Tensor)",
    _gradient,
    lambda grad, image, params, need_image, backend: (
        image.new_empty(image.shape if need_image else 0),
        params.new_empty(params.shape),
    ),
    backward=registry.refuse_double_backward("read"),
)
_read = registry.register(
    "read(Tensor image, Tensor params, SymInt size, str backend) -> Tensor",
    _forward,
    lambda image, params, size, backend: image.new_empty(*image.shape[:2], size, size),
    setup_context=_setup,
    backward=_backward,
    autocast=registry.to_float32("read"),
)
