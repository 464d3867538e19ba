"""The write: one Gaussian patch laid onto each image, as one operator."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastdraw import checks, dispatch, reference
from fastdraw.ops import registry


def write(patch: Tensor, params: Tensor, image_size: tuple[int, int]) -> Tensor:
    """An N x N patch written onto an empty image, equation 29 of the paper: 1/gamma F_Y^T patch F_X.

    patch       [B, C, N, N], N >= 1, float32, float64, float16 or bfloat16; all channels go through the same window.
    params      [B, 5]: raw outputs (g~x, g~y, log sigma^2, log delta~, log gamma) of a linear layer, any finite values, any
                floating dtype. g~ = 0, log delta~ = 0 centres the window and lets it span the image.
    image_size  (H, W) in pixels.

    Gives the image [B, C, H, W] in the patch's dtype, summed in float32 (float64 for float64). Differentiable once in patch
    and params. Under torch.autocast it runs in float32.

    Raises TypeError or ValueError, naming the argument, for integers, other shapes, two devices, or H, W below 1.
    """
    checks.check_tensor("patch", patch, "B", "C", "N", "N")
    if patch.shape[2] != patch.shape[3] or patch.shape[2] < 1:
        raise checks.expected("patch", "shape [B, C, N, N] with N of at least 1", patch)
    checks.check_params(params, patch.shape[0])
    checks.check_same("device", "patch", patch, "params", params)
    height, width = checks.check_pair("image_size", image_size)
    if dispatch.current() == "reference":
        return reference.write(patch, params, (height, width))
    return _write(patch, params, height, width, dispatch.current())


def _forward(patch: Tensor, params: Tensor, height: int, width: int, backend: str) -> Tensor:
    if patch.numel() == 0:
        return patch.new_zeros(*patch.shape[:2], height, width)
    kernels = dispatch.kernels(backend, patch.device.type)
    return kernels.write(patch.contiguous(), params.contiguous(), height, width, -1)


def _gradient(grad: Tensor, patch: Tensor, params: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    if patch.numel() == 0:
        return torch.zeros_like(patch), torch.zeros_like(params)
    kernels = dispatch.kernels(backend, patch.device.type)
    return kernels.write_backward(grad.contiguous(), patch.contiguous(), params.contiguous(), -1)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    patch, params, _, _, ctx.backend = inputs
    ctx.save_for_backward(patch, params)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    patch, params = ctx.saved_tensors
    return *_write_backward(grad, patch, params, ctx.backend), None, None, None


_write_backward = registry.register(
    "write_backward(Tensor grad, Tensor patch, Tensor params, str backend) -> (Tensor, Tensor)",
    _gradient,
    lambda grad, patch, params, backend: (patch.new_empty(patch.shape), params.new_empty(params.shape)),
    backward=registry.refuse_double_backward("write"),
)
_write = registry.register(
    "write(Tensor patch, Tensor params, SymInt height, SymInt width, str backend) -> Tensor",
    _forward,
    lambda patch, params, height, width, backend: patch.new_empty(*patch.shape[:2], height, width),
    setup_context=_setup,
    backward=_backward,
    autocast=registry.to_float32("write"),
)
