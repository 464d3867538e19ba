"""The write: one Gaussian patch laid onto each image, as one operator."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fastdraw import checks, dispatch, reference
from fastdraw.ops import gate, registry


def write(patch: Tensor, params: Tensor, image_size: tuple[int, int]) -> Tensor:
    """An N x N patch written onto an empty image, equation 29 of the paper: 1/gamma F_Y^T patch F_X.

    patch       [B, C, N, N], or [B, K, C, N, N] for K patches that are summed in one image; N >= 1, float32, float64, float16
                or bfloat16; all channels go through the same window. Sides may differ: [..., N_y, N_x].
    params      [B, 5], or [B, K, 5]: raw outputs (g~x, g~y, log sigma^2, log delta~, log gamma) of a linear layer, any finite
                values, any floating dtype. g~ = 0, log delta~ = 0 centres the window and lets it span the image. Or 7
                numbers, as `fastdraw.read` takes them.
    image_size  (H, W) in pixels.

    Gives the image [B, C, H, W] in the patch's dtype, summed in float32 (float64 for float64), windows in their order, so that
    two calls give the same bits. Differentiable once in patch and params. Under torch.autocast it runs in float32.

    On the CPU what the windows cannot reach is zero and costs no more than that.

    Raises TypeError or ValueError, naming the argument, for integers, other shapes, two devices, or H, W below 1.
    """
    _check_patch(patch, params)
    height, width = checks.check_pair("image_size", image_size)
    if dispatch.current() == "reference":
        return reference.write(patch, params, (height, width))
    return _write(patch, params, height, width, dispatch.current())


def _check_patch(patch: Tensor, params: Tensor) -> None:
    several = isinstance(patch, Tensor) and patch.dim() == 5
    checks.check_tensor("patch", patch, *(("B", "K", "C", "N_y", "N_x") if several else ("B", "C", "N_y", "N_x")))
    if 0 in patch.shape[-2:]:
        raise checks.expected("patch", "shape [B, C, N_y, N_x] or [B, K, C, N_y, N_x] with sides of at least 1", patch)
    checks.check_params(params, *patch.shape[:-3])
    checks.check_same("device", "patch", patch, "params", params)


def _check(patch: Tensor, params: Tensor, height: int, width: int, backend: str) -> None:
    _check_patch(patch, params)
    checks.check_pair("image_size", (height, width))


def _shape(patch: Tensor, height: int, width: int) -> tuple[int, ...]:
    return patch.shape[0], patch.shape[-3], height, width


def _forward(patch: Tensor, params: Tensor, height: int, width: int, backend: str) -> Tensor:
    checks.check_memory("patch", patch)
    checks.check_memory("params", params)
    if patch.numel() == 0:
        return patch.new_zeros(_shape(patch, height, width))
    return dispatch.kernels(backend, patch.device.type).write(patch.contiguous(), params.contiguous(), height, width, -1)


def _gradient(
    grad: Tensor, patch: Tensor, params: Tensor, need_patch: bool, need_params: bool, backend: str
) -> tuple[Tensor, Tensor]:
    # What autograd kept comes back through hooks, which may give something else.
    _check_patch(patch, params)
    if grad.dim() != 4:
        raise checks.expected("grad", "shape [B, C, H, W]", grad)
    gate.check("grad", grad, patch, (*_shape(patch, 1, 1)[:2], *grad.shape[2:]))
    checks.check_memory("patch", patch)
    checks.check_memory("params", params)
    if patch.numel() == 0:
        first, second = _gradient_fake(grad, patch, params, need_patch, need_params, backend)
        return first.zero_(), second.zero_()
    kernels = dispatch.kernels(backend, patch.device.type)
    if need_params:
        grad_patch, grad_params = kernels.write_backward(grad, patch.contiguous(), params.contiguous(), -1, need_patch)
        return patch.new_empty(0) if grad_patch is None else grad_patch, grad_params
    # The gradient to the patch alone is a read.
    wanted = kernels.read(grad, params.contiguous(), patch.shape[-2:], -1) if need_patch else patch.new_empty(0)
    return wanted, params.new_empty(0)


def _gradient_fake(
    grad: Tensor, patch: Tensor, params: Tensor, need_patch: bool, need_params: bool, backend: str
) -> tuple[Tensor, Tensor]:
    return patch.new_empty(patch.shape if need_patch else 0), params.new_empty(params.shape if need_params else 0)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    patch, params, _, _, ctx.backend = inputs
    ctx.save_for_backward(patch, params)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    patch, params = ctx.saved_tensors
    need_patch, need_params = ctx.needs_input_grad[:2]
    grad_patch, grad_params = _write_backward(grad, patch, params, need_patch, need_params, ctx.backend)
    return grad_patch if need_patch else None, grad_params if need_params else None, None, None, None


_write_backward = registry.register(
    "write_backward(Tensor grad, Tensor patch, Tensor params, bool need_patch, bool need_params, str backend)"
    " -> (Tensor, Tensor)",
    _gradient,
    _gradient_fake,
    backward=registry.refuse_double_backward("write"),
    folds=((0, 0, 0), (0, 0)),
)
_write = registry.register(
    "write(Tensor patch, Tensor params, SymInt height, SymInt width, str backend) -> Tensor",
    _forward,
    lambda patch, params, height, width, backend: patch.new_empty(_shape(patch, height, width)),
    setup_context=_setup,
    backward=_backward,
    autocast=registry.to_float32,
    check=_check,
    folds=((0, 0), (0,)),
)
