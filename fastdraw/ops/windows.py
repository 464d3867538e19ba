"""Where read and write meet a backend: one window of an image or several, images of any strides, gradients nobody wants.

A backend whose module says `SEVERAL_WINDOWS = True` takes params [B, K, 5] beside [B, 5], images of any strides, and the
memory format of the image that it makes. For the others images are made contiguous, and windows are gone through one by one.
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from fastdraw.ops import registry


def memory_format(image: Tensor) -> torch.memory_format:
    """That of an image's gradient: channels last where the image is, otherwise contiguous."""
    if image.is_contiguous() or not image.is_contiguous(memory_format=torch.channels_last):
        return torch.contiguous_format
    return torch.channels_last


def empty_image(like: Tensor, shape: tuple[int, ...], form: torch.memory_format) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=form)


def _several(kernels: ModuleType) -> bool:
    return getattr(kernels, "SEVERAL_WINDOWS", False)


def _one_by_one(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    return [tuple(t.contiguous() for t in window) for window in zip(*(t.unbind(1) for t in tensors), strict=True)]


def keeps(kernels: ModuleType, image: Tensor, params: Tensor, size: int) -> Tensor | None:
    """Memory in which a read may leave what makes its gradient to params cheap, of a backend that has a use for it."""
    return kernels.keeps(image, params, size) if hasattr(kernels, "keeps") else None


def read(kernels: ModuleType, image: Tensor, params: Tensor, size: int, power: int, kept: Tensor | None = None) -> Tensor:
    if kept is not None:
        return kernels.read(image, params.contiguous(), size, power, kept)
    if _several(kernels):
        return kernels.read(image, params.contiguous(), size, power)
    image = image.contiguous()
    if params.dim() == 2:
        return kernels.read(image, params.contiguous(), size, power)
    return torch.stack([kernels.read(image, window, size, power) for (window,) in _one_by_one(params)], 1)


def write(
    kernels: ModuleType,
    patch: Tensor,
    params: Tensor,
    image_size: tuple[int, int],
    power: int,
    form: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    if _several(kernels):
        return kernels.write(patch.contiguous(), params.contiguous(), *image_size, power, form)
    if params.dim() == 2:
        image = kernels.write(patch.contiguous(), params.contiguous(), *image_size, power)
        return image.contiguous(memory_format=form)
    # Summed in the windows' order and in a wide dtype, rounded once.
    total = None
    for part, window in _one_by_one(patch.to(registry.geometry_dtype(patch.dtype)), params):
        image = kernels.write(part, window, *image_size, power)
        total = image if total is None else total.add_(image)
    assert total is not None
    return total.to(patch.dtype, memory_format=form)


def read_backward(
    kernels: ModuleType,
    grad: Tensor,
    image: Tensor,
    params: Tensor,
    power: int,
    need_image: bool,
    need_params: bool,
    kept: Tensor | None = None,
) -> tuple[Tensor | None, Tensor | None]:
    form = memory_format(image) if need_image else torch.contiguous_format
    if kept is not None and need_params:
        return kernels.read_backward(grad.contiguous(), image, params.contiguous(), power, need_image, form, kept)
    grad_params = None
    if need_params:
        if _several(kernels):
            return kernels.read_backward(grad.contiguous(), image, params.contiguous(), power, need_image, form)
        image = image.contiguous()
        if params.dim() == 2:
            tensors = (grad.contiguous(), image, params.contiguous())
            grad_image, grad_params = kernels.read_backward(*tensors, power, need_image)
            return None if grad_image is None else grad_image.contiguous(memory_format=form), grad_params
        pairs = _one_by_one(grad, params)
        grad_params = torch.stack([kernels.read_backward(part, image, one, power, False)[1] for part, one in pairs], 1)
    grad_image = write(kernels, grad, params, (image.shape[2], image.shape[3]), power, form) if need_image else None
    return grad_image, grad_params


def write_backward(
    kernels: ModuleType, grad: Tensor, patch: Tensor, params: Tensor, power: int, need_patch: bool, need_params: bool
) -> tuple[Tensor | None, Tensor | None]:
    if not need_params:
        return (read(kernels, grad, params, patch.shape[-1], power) if need_patch else None), None
    if _several(kernels):
        return kernels.write_backward(grad, patch.contiguous(), params.contiguous(), power, need_patch)
    grad = grad.contiguous()
    if params.dim() == 2:
        return kernels.write_backward(grad, patch.contiguous(), params.contiguous(), power)
    pairs = [kernels.write_backward(grad, part, window, power) for part, window in _one_by_one(patch, params)]
    grad_patch, grad_params = (torch.stack(grads, 1) for grads in zip(*pairs, strict=True))
    return grad_patch, grad_params
