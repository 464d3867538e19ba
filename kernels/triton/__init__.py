"""The kernels in Triton: for CUDA tensors, and for CPU tensors where TRITON_INTERPRET=1 runs them one program at a time.

Inputs are validated, contiguous but for images that are read, and not empty; see fastdraw.kernels.aten for the formulas.
Importing this needs triton.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastdraw import env

from . import interpreter, wide
from .filterbank import filterbank_grad_launch, filterbank_launch
from .launch import compute_dtype, dot_precision, near, run
from .lstm import lstm_step, lstm_step_backward
from .read import read_launch
from .tables import MAX_SIZE, window_parts
from .window_grad import window_grad_launch
from .write import write_launch

__all__ = [
    "SEVERAL_WINDOWS",
    "filterbank",
    "filterbank_backward",
    "lstm_step",
    "lstm_step_backward",
    "read",
    "read_backward",
    "unavailable",
    "write",
    "write_backward",
]

#: Params [B, K, 5] and images of any strides are taken as they are; see fastdraw.ops.windows.
SEVERAL_WINDOWS = True

if env.triton_interpreted():
    interpreter.accept_new_numpy()
    interpreter.round_bfloat16()


def unavailable() -> str | None:
    """None where these kernels can run, else one sentence saying why not."""
    if torch.cuda.is_available() or env.triton_interpreted():
        return None
    return "no CUDA device was found, and TRITON_INTERPRET=1 is not set."


def filterbank(params: Tensor, size: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """params [B, 5] -> F_Y [B, N, H], F_X [B, N, W], gamma [B], in float64 or float32."""
    batch, dtype = params.shape[0], compute_dtype(params)
    y = params.new_empty((batch, size, height), dtype=dtype)
    x = params.new_empty((batch, size, width), dtype=dtype)
    gamma = params.new_empty((batch,), dtype=dtype)
    run(filterbank_launch(params, y, x, gamma))
    return y, x, gamma


def filterbank_backward(
    grad_y: Tensor, grad_x: Tensor, grad_gamma: Tensor, params: Tensor, size: int, height: int, width: int
) -> Tensor:
    grad_params = torch.empty_like(params)
    run(filterbank_grad_launch(grad_y, grad_x, grad_gamma, params, grad_params))
    return grad_params


def read(image: Tensor, params: Tensor, size: int, power: int) -> Tensor:
    """image [B, C, H, W] of any strides -> patch [B, C, N, N], or [B, K, C, N, N] for params [B, K, 5]."""
    dtype = compute_dtype(image)
    if size > MAX_SIZE["read"][dtype]:
        return wide.read(filterbank, image, params, size, power)
    image = near(image)
    shape = (*params.shape[:-1], image.shape[1], size, size)
    parts = window_parts(math.prod(shape[:-2]), image.shape[2] * image.shape[3])
    precision = dot_precision(image.dtype)
    patch = image.new_empty(shape if parts == 1 else (parts, *shape), dtype=image.dtype if parts == 1 else dtype)
    run(read_launch(image, params, patch, power, precision, parts))
    return patch if parts == 1 else patch.sum(0).to(image.dtype)


def write(
    patch: Tensor,
    params: Tensor,
    height: int,
    width: int,
    power: int,
    form: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """patch [B, C, N, N] -> image [B, C, H, W]: gamma^power F_Y^T patch F_X; the sum of K such for params [B, K, 5].

    Windows are summed in their order and in a wide dtype, and rounded once. After the first each costs what it sees.
    """
    dtype = compute_dtype(patch)
    pairs = [(patch, params)] if params.dim() == 2 else list(zip(patch.unbind(1), params.unbind(1), strict=True))
    kind = patch.dtype if len(pairs) == 1 else dtype
    if patch.shape[-1] > MAX_SIZE["write"][dtype]:
        image = wide.write(filterbank, pairs[0][0].to(kind), pairs[0][1], height, width, power)
        for part, one in pairs[1:]:
            image += wide.write(filterbank, part.to(kind), one, height, width, power)
    else:
        image = patch.new_empty((patch.shape[0], patch.shape[-3], height, width), dtype=kind)
        precision = dot_precision(patch.dtype)
        for k, (part, one) in enumerate(pairs):
            run(write_launch(part.contiguous(), one.contiguous(), image, power, precision, add=k > 0))
    return image.to(patch.dtype, memory_format=form)


def _window_grad(patch: Tensor, image: Tensor, params: Tensor, power: int, need_patch: bool) -> tuple[Tensor | None, Tensor]:
    """(gamma^power F_Y image F_X^T where it is wanted, the gradient to params of its product with `patch`)."""
    dtype, image = compute_dtype(image), near(image)
    parts = window_parts(math.prod(patch.shape[:-2]), image.shape[2] * image.shape[3])
    if parts == 1:
        grad_patch, grad_params = torch.empty_like(patch) if need_patch else None, torch.empty_like(params)
    else:
        grad_patch = patch.new_empty((parts, *patch.shape), dtype=dtype) if need_patch else None
        grad_params = params.new_empty((parts, *patch.shape[:-2], 5), dtype=dtype)
    precision = dot_precision(image.dtype)
    run(window_grad_launch(patch, image, params, grad_params, grad_patch, power, precision, parts))
    if parts == 1:
        return grad_patch, grad_params
    grad_params = grad_params.sum((0, -2)).to(params.dtype)
    return None if grad_patch is None else grad_patch.sum(0).to(patch.dtype), grad_params


def read_backward(
    grad_patch: Tensor,
    image: Tensor,
    params: Tensor,
    power: int,
    need_image: bool,
    form: torch.memory_format = torch.contiguous_format,
) -> tuple[Tensor | None, Tensor]:
    """Two launches for one window, one without the image's gradient."""
    grad_image = write(grad_patch, params, image.shape[2], image.shape[3], power, form) if need_image else None
    if grad_patch.shape[-1] > MAX_SIZE["window_grad"][compute_dtype(image)]:
        return grad_image, wide.window_grad(filterbank, filterbank_backward, grad_patch, image, params, power)
    return grad_image, _window_grad(grad_patch, image, params, power, False)[1]


def write_backward(
    grad_image: Tensor, patch: Tensor, params: Tensor, power: int, need_patch: bool = True
) -> tuple[Tensor | None, Tensor]:
    """One launch, two for large N (tables.MAX_SIZE)."""
    size = patch.shape[-1]
    if need_patch and size <= MAX_SIZE["write_grad"][compute_dtype(patch)]:
        return _window_grad(patch, grad_image, params, power, True)
    grad_patch = read(grad_image, params, size, power) if need_patch else None
    return grad_patch, read_backward(patch, grad_image, params, power, False)[1]
