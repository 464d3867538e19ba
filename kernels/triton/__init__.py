"""The kernels in Triton: for CUDA tensors, and for CPU tensors where TRITON_INTERPRET=1 runs them one program at a time.

fastdraw/ops/contract.py says what goes in and out; see kernels/aten.py for the formulas.
Importing this needs triton.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fastdraw import env
from fastdraw.ops.contract import patch_dtype, wide_dtype

from . import interpreter
from .filterbank import filterbank_grad_launch, filterbank_launch
from .handles import launched
from .launch import dot_precision, near
from .lstm import lstm_step, lstm_step_backward
from .read import read_launch
from .tables import WRITE_GRAD_SIZE, patch_tiles, window_parts
from .window_grad import window_grad_launch
from .write import write_launch

__all__ = [
    "filterbank",
    "filterbank_backward",
    "keeps",
    "lstm_step",
    "lstm_step_backward",
    "read",
    "read_backward",
    "unavailable",
    "write",
    "write_backward",
]

if env.triton_interpreted():
    interpreter.accept_new_numpy()
    interpreter.round_bfloat16()


def unavailable() -> str | None:
    if torch.cuda.is_available() or env.triton_interpreted():
        return None
    return "no CUDA device was found, and TRITON_INTERPRET=1 is not set."


def filterbank(params: Tensor, size: Sequence[int], height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    batch, dtype = params.shape[0], wide_dtype(params.dtype)
    y = params.new_empty((batch, size[0], height), dtype=dtype)
    x = params.new_empty((batch, size[1], width), dtype=dtype)
    gamma = params.new_empty((batch,), dtype=dtype)
    launched(filterbank_launch, params, y, x, gamma)
    return y, x, gamma


def filterbank_backward(
    grad_y: Tensor, grad_x: Tensor, grad_gamma: Tensor, params: Tensor, size: Sequence[int], height: int, width: int
) -> Tensor:
    grad_params = torch.empty_like(params)
    launched(filterbank_grad_launch, grad_y, grad_x, grad_gamma, params, grad_params)
    return grad_params


def keeps(image: Tensor, params: Tensor, size: Sequence[int]) -> None:
    return None


def read(image: Tensor, params: Tensor, size: Sequence[int], power: int, kept: Tensor | None = None) -> Tensor:
    dtype, image = wide_dtype(image.dtype), near(image)
    shape = (*params.shape[:-1], image.shape[1], *size)
    precision = dot_precision(image.dtype)
    tiles = math.prod(shape[:-2]) * patch_tiles("read", max(size), dtype, precision)
    parts = window_parts(tiles, image.shape[2] * image.shape[3])
    own = patch_dtype(image.dtype)
    patch = image.new_empty(shape if parts == 1 else (parts, *shape), dtype=own if parts == 1 else dtype)
    launched(read_launch, image, params, patch, power, precision, parts)
    return patch if parts == 1 else patch.sum(0).to(own)


def write(
    patch: Tensor,
    params: Tensor,
    height: int,
    width: int,
    power: int,
    form: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """After the first window each costs what it sees."""
    precision, dtype = dot_precision(patch.dtype), wide_dtype(patch.dtype)
    summed = params.shape[:-1].numel() > patch.shape[0] or patch_tiles("write", max(patch.shape[-2:]), dtype, precision) > 1
    shape = (patch.shape[0], patch.shape[-3], height, width)
    kind = dtype if summed else patch.dtype
    image = torch.empty(shape, dtype=kind, device=patch.device, memory_format=form)
    launched(write_launch, patch, params, image, power, precision)
    return image.to(patch.dtype)


def _window_grad(patch: Tensor, image: Tensor, params: Tensor, power: int, need_patch: bool) -> tuple[Tensor | None, Tensor]:
    """(gamma^power F_Y image F_X^T where it is wanted, the gradient to params of its product with `patch`)."""
    dtype, image = wide_dtype(image.dtype), near(image)
    precision = dot_precision(image.dtype)
    tiles = patch_tiles("write_grad" if need_patch else "window_grad", max(patch.shape[-2:]), dtype, precision)
    parts = window_parts(math.prod(patch.shape[:-2]) * tiles, image.shape[2] * image.shape[3])
    programs = tiles * (1 if parts == 1 else image.shape[1])
    grad_patch = None
    if need_patch:
        grad_patch = torch.empty_like(patch) if parts == 1 else patch.new_empty((parts, *patch.shape), dtype=dtype)
    summed = parts * programs > 1
    grad_params = params.new_empty(
        (parts, *params.shape[:-1], programs, params.shape[-1]), dtype=dtype if summed else params.dtype
    )
    launched(window_grad_launch, patch, image, params, grad_params, grad_patch, power, precision, parts)
    grad_params = grad_params.sum((0, -2)).to(params.dtype) if summed else grad_params.view_as(params)
    return grad_patch if grad_patch is None or parts == 1 else grad_patch.sum(0).to(patch.dtype), grad_params


def read_backward(
    grad_patch: Tensor,
    image: Tensor,
    params: Tensor,
    power: int,
    need_image: bool,
    form: torch.memory_format = torch.contiguous_format,
    kept: Tensor | None = None,
) -> tuple[Tensor | None, Tensor]:
    """Two launches for one window, one without the image's gradient."""
    grad_image = write(grad_patch, params, image.shape[2], image.shape[3], power, form) if need_image else None
    return grad_image, _window_grad(grad_patch, image, params, power, False)[1]


def write_backward(
    grad_image: Tensor, patch: Tensor, params: Tensor, power: int, need_patch: bool = True
) -> tuple[Tensor | None, Tensor]:
    """One launch, two for large N (tables.WRITE_GRAD_SIZE)."""
    size = patch.shape[-2:]
    if need_patch and max(size) <= WRITE_GRAD_SIZE[wide_dtype(patch.dtype)]:
        return _window_grad(patch, grad_image, params, power, True)
    grad_patch = read(grad_image, params, size, power) if need_patch else None
    return grad_patch, read_backward(patch, grad_image, params, power, False)[1]
