"""Filterbanks as matrices, for people who want them; read and write make their own and never store them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastdraw import checks, dispatch, reference
from fastdraw.ops import gate, registry
from fastdraw.ops.contract import wide_dtype
from fastdraw.outputs import FilterBank


def filterbank(params: Tensor, size: int | tuple[int, int], image_size: tuple[int, int]) -> FilterBank:
    """Gaussian filters of a window, equations 19 to 26 of the paper.

    params      [B, 5]: raw outputs (g~x, g~y, log sigma^2, log delta~, log gamma) of a linear layer, any finite values.
                g~ = 0, log delta~ = 0 centres the window and lets it span the image. Or [B, 7], as `fastdraw.read` takes them.
    size        N >= 1, filters along each side, or (N_y, N_x).
    image_size  (H, W) in pixels.

    Gives FilterBank(y [B, N, H], x [B, N, W], gamma [B]): every row sums to one. float16 and bfloat16 params give float32
    results. Differentiable once in params.

    Raises TypeError or ValueError, naming the argument, for integers, other shapes, or N, H, W below 1.
    """
    height, width = checks.check_pair("image_size", image_size)
    rows, columns = checks.check_sides("size", size)
    _check(params, rows, columns, height, width)
    if dispatch.current() == "reference":
        return reference.filterbank(params, (rows, columns), (height, width))
    return FilterBank(*_filterbank(params, rows, columns, height, width, dispatch.current()))


def _check(params: Tensor, rows: int, columns: int, height: int, width: int, *_: Any) -> None:
    checks.check_params(params, "B")
    checks.check_pair("image_size", (height, width))
    checks.check_pair("size", (rows, columns))


def _forward(params: Tensor, rows: int, columns: int, height: int, width: int, backend: str) -> tuple[Tensor, Tensor, Tensor]:
    checks.check_memory("params", params)
    if params.numel() == 0:
        return _fake(params, rows, columns, height, width, backend)
    return dispatch.kernels(backend, params.device.type).filterbank(params.contiguous(), (rows, columns), height, width)


def _fake(params: Tensor, rows: int, columns: int, height: int, width: int, backend: str) -> tuple[Tensor, Tensor, Tensor]:
    batch, dtype = params.shape[0], wide_dtype(params.dtype)
    y, x = (
        params.new_empty(batch, n, length, dtype=dtype) for n, length in zip((rows, columns), (height, width), strict=True)
    )
    return y, x, params.new_empty(batch, dtype=dtype)


def _gradient(grad_y: Tensor, grad_x: Tensor, grad_gamma: Tensor, params: Tensor, backend: str) -> Tensor:
    # What autograd kept comes back through hooks, which may give something else.
    checks.check_params(params, "B")
    gate.check("params", params, params, tuple(params.shape))
    if grad_y.dim() != 3 or grad_x.dim() != 3 or 0 in (*grad_y.shape[1:], *grad_x.shape[1:]):
        raise checks.expected("grad_x", "shape [B, N_x, W] beside grad_y [B, N_y, H], with sides of at least 1", grad_x)
    size, height, width = (grad_y.shape[1], grad_x.shape[1]), grad_y.shape[2], grad_x.shape[2]
    for name, grad, shape in (("y", grad_y, (size[0], height)), ("x", grad_x, (size[1], width)), ("gamma", grad_gamma, ())):
        gate.check(f"grad_{name}", grad, params, (params.shape[0], *shape))
    if params.numel() == 0:
        return torch.empty_like(params)
    kernels = dispatch.kernels(backend, params.device.type)
    grad_y, grad_x, grad_gamma = grad_y.contiguous(), grad_x.contiguous(), grad_gamma.contiguous()
    return kernels.filterbank_backward(grad_y, grad_x, grad_gamma, params.contiguous(), size, height, width)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(inputs[0])
    ctx.backend = inputs[5]


def _backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    (params,) = ctx.saved_tensors
    return _filterbank_backward(*grads, params, ctx.backend), None, None, None, None, None


_filterbank_backward = registry.register(
    "filterbank_backward(Tensor grad_y, Tensor grad_x, Tensor grad_gamma, Tensor params, str backend) -> Tensor",
    _gradient,
    lambda grad_y, grad_x, grad_gamma, params, backend: params.new_empty(params.shape),
    backward=registry.refuse_double_backward("filterbank"),
    folds=((0, 0, 0, 0), (0,)),
)
_filterbank = registry.register(
    "filterbank(Tensor params, SymInt rows, SymInt columns, SymInt height, SymInt width, str backend)"
    " -> (Tensor, Tensor, Tensor)",
    _forward,
    _fake,
    setup_context=_setup,
    backward=_backward,
    autocast=registry.to_float32,
    check=_check,
    folds=((0,), (0, 0, 0)),
)
