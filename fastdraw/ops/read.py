"""The read: one Gaussian glimpse of each image, as one operator."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastdraw import checks, dispatch, reference
from fastdraw.ops import direct, gate, registry
from fastdraw.ops.contract import Backend, patch_dtype


def read(image: Tensor, params: Tensor, size: int | tuple[int, int]) -> Tensor:
    """A differentiable N x N glimpse of each image, equation 27 of the paper: gamma F_Y image F_X^T.

    image   [B, C, H, W], float32, float64, float16, bfloat16 or uint8, with any strides; all channels go through the same
            window.
    params  [B, 5], or [B, K, 5] for K windows of each image: raw outputs (g~x, g~y, log sigma^2, log delta~, log gamma) of a
            linear layer, any finite values, any floating dtype. g~ = 0, log delta~ = 0 centres the window and lets it span
            the image. Or 7 numbers instead of 5, with width and stride of their own for either axis: (g~x, g~y,
            log sigma_x^2, log sigma_y^2, log delta~x, log delta~y, log gamma).
    size    N >= 1, samples along each side, or (N_y, N_x). The stride's unit lets the larger of the two span the image.

    Gives the patch [B, C, N, N], or [B, K, C, N, N] ([..., N_y, N_x]), in the image's dtype, summed in float32
    (float64 for float64). Of uint8 it is float32, from 0 to 255 times gamma.
    Differentiable once in image and params; the gradient to the image is made only where it is wanted, and lies in memory as
    the image does. Under torch.autocast it runs in float32.

    On the CPU time follows what the window sees: pixels so many sigma away that they cannot change the result are not
    loaded, and NaN there does not show.

    Raises TypeError or ValueError, naming the argument, for other integers, other shapes, two devices, or N below 1.
    """
    rows, columns = checks.check_sides("size", size)
    _check(image, params, rows, columns)
    backend = dispatch.current()
    if backend == "reference":
        return reference.read(image, params, (rows, columns))
    return _read(image, params, rows, columns, backend)


def _check(image: Tensor, params: Tensor, rows: int, columns: int, *_: Any) -> None:
    checks.check_image(image)
    checks.check_windows(params, image.shape[0])
    checks.check_same("device", "image", image, "params", params)
    checks.check_pair("size", (rows, columns))


def _shape(image: Tensor, params: Tensor, rows: int, columns: int) -> tuple[int, ...]:
    return (*params.shape[:-1], image.shape[1], rows, columns)


def _fake(image: Tensor, params: Tensor, rows: int, columns: int, backend: str) -> Tensor:
    return image.new_empty(_shape(image, params, rows, columns), dtype=patch_dtype(image.dtype))


def _forward(image: Tensor, params: Tensor, rows: int, columns: int, backend: str) -> Tensor:
    checks.check_memory("image", image)
    checks.check_memory("params", params)
    return _computed(image, params, rows, columns, backend)


def _computed(image: Tensor, params: Tensor, rows: int, columns: int, backend: str) -> Tensor:
    if image.numel() == 0 or params.numel() == 0:
        return image.new_zeros(_shape(image, params, rows, columns), dtype=patch_dtype(image.dtype))
    return dispatch.kernels(backend, image.device.type).read(image, params.contiguous(), (rows, columns), 1)


def memory_format(image: Tensor) -> torch.memory_format:
    """That of an image's gradient: channels last where the image is, otherwise contiguous."""
    if image.is_contiguous() or not image.is_contiguous(memory_format=torch.channels_last):
        return torch.contiguous_format
    return torch.channels_last


def _gradients(
    kernels: Backend,
    grad: Tensor,
    image: Tensor,
    params: Tensor,
    need_image: bool,
    need_params: bool,
    kept: Tensor | None = None,
) -> tuple[Tensor | None, Tensor | None]:
    """Those that are wanted. The gradient to the image alone is a write."""
    grad, params, form = grad.contiguous(), params.contiguous(), memory_format(image)
    if need_params:
        return kernels.read_backward(grad, image, params, 1, need_image, form, kept)
    return kernels.write(grad, params, image.shape[2], image.shape[3], 1, form) if need_image else None, None


def _gradient(
    grad: Tensor, image: Tensor, params: Tensor, need_image: bool, need_params: bool, backend: str
) -> tuple[Tensor, Tensor]:
    _check_gradient(grad, image, params)
    if need_image and not image.is_floating_point():
        raise checks.expected("image", "a floating-point tensor, where its gradient is wanted", image, TypeError)
    if image.numel() == 0 or params.numel() == 0:
        first, second = _gradient_fake(grad, image, params, need_image, need_params, backend)
        return first.zero_(), second.zero_()
    kernels = dispatch.kernels(backend, image.device.type)
    grad_image, grad_params = _gradients(kernels, grad, image, params, need_image, need_params)
    return (
        image.new_empty(0) if grad_image is None else grad_image,
        params.new_empty(0) if grad_params is None else grad_params,
    )


def _check_gradient(grad: Tensor, image: Tensor, params: Tensor) -> None:
    """What autograd kept comes back through hooks, which may give something else."""
    _check(image, params, 1, 1)
    if grad.dim() < 2:
        raise checks.expected("grad", "shape [B, C, N_y, N_x] or [B, K, C, N_y, N_x]", grad)
    gate.check("grad", grad, image, _shape(image, params, *grad.shape[-2:]))
    checks.check_memory("image", image)
    checks.check_memory("params", params)


def _gradient_fake(
    grad: Tensor, image: Tensor, params: Tensor, need_image: bool, need_params: bool, backend: str
) -> tuple[Tensor, Tensor]:
    grad_image = torch.empty_like(image, memory_format=memory_format(image)) if need_image else image.new_empty(0)
    return grad_image, params.new_empty(params.shape if need_params else 0)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    image, params, _, _, ctx.backend = inputs
    ctx.save_for_backward(image, params, None)


def _forward_keeping(ctx: Any, image: Tensor, params: Tensor, rows: int, columns: int, backend: str) -> Tensor:
    """_forward and _setup, and beside them what the gradient to params needs of the pixels, where a backend can keep it."""
    ctx.backend = backend
    kernels, kept = dispatch.kernels(backend, image.device.type), None
    checks.check_memory("image", image)
    checks.check_memory("params", params)
    if ctx.needs_input_grad[1] and image.numel() and params.numel():
        kept = kernels.keeps(image, params, (rows, columns))
    ctx.save_for_backward(image, params, kept)
    # What is kept lies as these windows on this image make it.
    ctx.kept_for = None if kept is None else (image.shape, params.detach().clone(), kept.shape, kept.dtype)
    if kept is None:
        return _computed(image, params, rows, columns, backend)
    return kernels.read(image, params.contiguous(), (rows, columns), 1, kept)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    image, params, kept = ctx.saved_tensors
    need_image, need_params = ctx.needs_input_grad[:2]
    # A gradient that is to be differentiated has to be refused, which the operator does.
    if kept is not None and not torch.is_grad_enabled() and not direct.seen((grad, image, params)):
        _check_gradient(grad, image, params)
        if _fits(ctx, image, params, kept):
            kernels = dispatch.kernels(ctx.backend, image.device.type)
            return *_gradients(kernels, grad, image, params, need_image, need_params, kept), None, None, None
    grad_image, grad_params = _read_backward(grad, image, params, need_image, need_params, ctx.backend)
    return grad_image if need_image else None, grad_params if need_params else None, None, None, None


def _fits(ctx: Any, image: Tensor, params: Tensor, kept: Tensor) -> bool:
    """Whether what comes back is what was kept, for windows that are still the same: hooks may store tensors with a loss, and
    `.data` is written behind autograd's back. The gradient is made from the pixels otherwise."""
    image_shape, window, shape, dtype = ctx.kept_for
    return (
        (image.shape, kept.shape, kept.dtype, params.dtype) == (image_shape, shape, dtype, window.dtype)
        and kept.is_contiguous()
        and kept.untyped_storage().nbytes() >= kept.nbytes
        and torch.equal(params, window)
    )


_read_backward = registry.register(
    "read_backward(Tensor grad, Tensor image, Tensor params, bool need_image, bool need_params, str backend)"
    " -> (Tensor, Tensor)",
    _gradient,
    _gradient_fake,
    backward=registry.refuse_double_backward("read"),
    folds=((0, 0, 0), (0, 0)),
)
_read = registry.register(
    "read(Tensor image, Tensor params, SymInt rows, SymInt columns, str backend) -> Tensor",
    _forward,
    _fake,
    setup_context=_setup,
    backward=_backward,
    autocast=registry.to_float32,
    forward=_forward_keeping,
    check=_check,
    folds=((0, 0), (0,)),
)
