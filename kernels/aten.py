"""The kernels in plain ATen with gradients by hand: any device, any dtype, and no compiler.

Read and write share one bilinear form, L = gamma^power sum_c <P_c, F_Y I_c F_X^T>, with power +1 for the read and -1 for the
write: the read is dL/dP, the write is dL/dI, and the gradient to the window is the same function of (P, I) for both.
Arithmetic is wide: float64 where the image (or patch, or for the filterbank params) is, and float32 otherwise. Several windows
of an image are gone through one by one, and images of any strides are made contiguous. On the CPU only what windows see of a
narrower image is widened, where that is less than the image. fastdraw/ops/contract.py says what goes
in and out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from fastdraw.ops.contract import patch_dtype, wide_dtype
from fastdraw.reference import EXPONENT_LIMIT, param_limits, stride_unit


class Rows(NamedTuple):
    """One axis of the filterbank, and what its gradient needs; all [B, N, length] but offset [N] and the window's [B, 1]."""

    f: Tensor
    step: Tensor
    exponent: Tensor
    offset: Tensor
    delta: Tensor
    inverse_sigma2: Tensor
    unit: float  # Pixels that a unit of g~ moves the centre by.


class Bank(NamedTuple):
    y: Rows
    x: Rows
    gamma: Tensor


def unavailable() -> str | None:
    return None


def _rows(centre: Tensor, delta: Tensor, inverse_sigma2: Tensor, size: int, length: int) -> Rows:
    offset = torch.arange(size, dtype=centre.dtype, device=centre.device) - (size - 1) / 2
    mu = (centre + offset * delta)[..., None]
    nearest = mu.round().clamp_(0, length - 1)
    step = torch.arange(length, dtype=centre.dtype, device=centre.device) - nearest
    exponent = (step + 2 * (nearest - mu)).mul_(step).mul_(0.5 * inverse_sigma2[..., None]).clamp_(max=EXPONENT_LIMIT)
    f = exponent.neg().exp_()
    return Rows(f.div_(f.sum(-1, keepdim=True)), step, exponent, offset, delta, inverse_sigma2, (length + 1) / 2)


def _bank(params: Tensor, dtype: torch.dtype, size: Sequence[int], height: int, width: int) -> Bank:
    # Limits go in as numbers: a tensor of them would be copied to the device at every call.
    columns = zip(params.to(dtype).split(1, 1), param_limits(params.shape[1]), strict=True)
    g_x, g_y, *shapes, log_gamma = (column.clamp(-limit, limit) for column, limit in columns)
    # Of x first and of y last; one for both where there are five numbers.
    log_sigma2, log_delta = shapes[: len(shapes) // 2], shapes[len(shapes) // 2 :]
    unit = stride_unit(size, (height, width))
    # One filter stands at the centre: its stride is put to zero, since zero times NaN is not.
    delta_x, delta_y = (
        log.exp() * unit if n > 1 else torch.zeros_like(log) for log, n in ((log_delta[0], size[1]), (log_delta[-1], size[0]))
    )
    inverses = [log.neg().exp_() for log in log_sigma2]
    y = _rows((height + 1) / 2 * (g_y + 1) - 1, delta_y, inverses[-1], size[0], height)
    x = _rows((width + 1) / 2 * (g_x + 1) - 1, delta_x, inverses[0], size[1], width)
    return Bank(y, x, log_gamma.exp()[:, 0])


def _rows_backward(grad_f: Tensor, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients [B] to the centre, to log delta and to log sigma^2."""
    weighted = grad_f * rows.f
    # sum F G (d - dbar) is written as sum F (G - Gbar) d: one mean serves both sums.
    weighted -= rows.f * weighted.sum(-1, keepdim=True)
    grad_mu = (weighted * rows.step).sum(-1) * rows.inverse_sigma2
    grad_log_delta = (grad_mu * rows.offset).sum(-1) * rows.delta[:, 0]
    return grad_mu.sum(-1), grad_log_delta, (weighted * rows.exponent).sum((-1, -2))


def _params_backward(grad_y: Tensor, grad_x: Tensor, grad_log_gamma: Tensor, bank: Bank, params: Tensor) -> Tensor:
    """grad_y [B, N, H], grad_x [B, N, W], grad_log_gamma [B] -> grad_params [B, 5 or 7], zero beyond the limits of params."""
    centre_y, log_delta_y, log_sigma2_y = _rows_backward(grad_y, bank.y)
    centre_x, log_delta_x, log_sigma2_x = _rows_backward(grad_x, bank.x)
    if params.shape[1] == 5:
        shapes = [log_sigma2_x + log_sigma2_y, log_delta_x + log_delta_y]
    else:
        shapes = [log_sigma2_x, log_sigma2_y, log_delta_x, log_delta_y]
    centres = [centre_x * bank.x.unit, centre_y * bank.y.unit]
    grads = [*centres, *shapes, grad_log_gamma]
    limits = param_limits(params.shape[1])
    outside = torch.cat([c.abs() > limit for c, limit in zip(params.split(1, 1), limits, strict=True)], 1)
    return torch.stack(grads, 1).masked_fill_(outside, 0.0).to(params.dtype)


def _read(image: Tensor, bank: Bank, power: int) -> Tensor:
    return (bank.y.f[:, None] @ image @ bank.x.f[:, None].mT).mul_(bank.gamma.pow(power)[:, None, None, None])


def _write(patch: Tensor, bank: Bank, power: int) -> Tensor:
    return (bank.y.f[:, None].mT @ patch @ bank.x.f[:, None]).mul_(bank.gamma.pow(power)[:, None, None, None])


def _window_backward(patch: Tensor, image: Tensor, bank: Bank, params: Tensor, power: int) -> Tensor:
    """The gradient of L to params, from patch [B, C, N_y, N_x] and image [B, C, H, W]."""
    batch, channels, rows, size = patch.shape
    height, width = image.shape[2:]
    scaled = patch * bank.gamma.pow(power)[:, None, None, None]
    # Channels join the summed dimension of both products: F is one for all channels.
    columns = (bank.x.f[:, None] @ image.mT).view(batch, channels * size, height)
    grad_y = scaled.transpose(1, 2).reshape(batch, rows, channels * size) @ columns
    spread = (scaled.mT @ bank.y.f[:, None]).transpose(1, 2).reshape(batch, size, channels * height)
    grad_x = spread @ image.view(batch, channels * height, width)
    # dL/d log gamma = power L, and L = <dL/dF_Y, F_Y>.
    return _params_backward(grad_y, grad_x, power * (grad_y * bank.y.f).sum((1, 2)), bank, params)


def filterbank(params: Tensor, size: Sequence[int], height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    bank = _bank(params, wide_dtype(params.dtype), size, height, width)
    return bank.y.f, bank.x.f, bank.gamma


def filterbank_backward(
    grad_y: Tensor, grad_x: Tensor, grad_gamma: Tensor, params: Tensor, size: Sequence[int], height: int, width: int
) -> Tensor:
    dtype = wide_dtype(params.dtype)
    bank = _bank(params, dtype, size, height, width)
    return _params_backward(grad_y.to(dtype), grad_x.to(dtype), grad_gamma.to(dtype) * bank.gamma, bank, params)


def _each(tensor: Tensor, params: Tensor) -> list[Tensor]:
    """One window's part at a time, contiguous, of params or of a patch."""
    return [tensor] if params.dim() == 2 else [part.contiguous() for part in tensor.unbind(1)]


def _all(parts: list[Tensor], params: Tensor) -> Tensor:
    return parts[0] if params.dim() == 2 else torch.stack(parts, 1)


def _banks(params: Tensor, dtype: torch.dtype, size: Sequence[int], height: int, width: int) -> list[Bank]:
    return [_bank(one, dtype, size, height, width) for one in _each(params, params)]


def _written(patches: list[Tensor], banks: list[Bank], power: int, dtype: torch.dtype, form: torch.memory_format) -> Tensor:
    """Summed in the windows' order, and rounded once."""
    image, *others = (_write(patch, bank, power) for patch, bank in zip(patches, banks, strict=True))
    for other in others:
        image.add_(other)
    return image.to(dtype).contiguous(memory_format=form)


def _seen(rows: Rows) -> tuple[int, int]:
    """The first pixel that any filter has a weight for, and the one behind the last; NaN is one."""
    pixels = rows.f.ne(0).flatten(0, 1).any(0).nonzero()
    return int(pixels[0]), int(pixels[-1]) + 1


def _narrowed(rows: Rows, begin: int, end: int) -> Rows:
    f, step, exponent = (t[..., begin:end] for t in (rows.f, rows.step, rows.exponent))
    return rows._replace(f=f, step=step, exponent=exponent)


def _views(image: Tensor, banks: list[Bank], dtype: torch.dtype) -> list[tuple[Tensor, Bank]]:
    """What each window reads, contiguous and wide, and its filters over that."""
    # Elsewhere asking what they see would wait for the device.
    if image.is_cpu and image.dtype != dtype:
        seen = [(_seen(bank.y), _seen(bank.x)) for bank in banks]
        if sum((bottom - top) * (right - left) for (top, bottom), (left, right) in seen) < image.shape[2] * image.shape[3]:
            return [
                (
                    image[:, :, slice(*y), slice(*x)].to(dtype, memory_format=torch.contiguous_format),
                    Bank(_narrowed(bank.y, *y), _narrowed(bank.x, *x), bank.gamma),
                )
                for (y, x), bank in zip(seen, banks, strict=True)
            ]
    pixels = image.contiguous().to(dtype)
    return [(pixels, bank) for bank in banks]


def _params_gradient(patches: list[Tensor], views: list[tuple[Tensor, Bank]], params: Tensor, power: int) -> Tensor:
    windows = zip(patches, views, _each(params, params), strict=True)
    return _all([_window_backward(patch, *view, one, power) for patch, view, one in windows], params)


def keeps(image: Tensor, params: Tensor, size: Sequence[int]) -> None:
    return None


def read(image: Tensor, params: Tensor, size: Sequence[int], power: int, kept: Tensor | None = None) -> Tensor:
    dtype = wide_dtype(image.dtype)
    views = _views(image, _banks(params, dtype, size, *image.shape[2:]), dtype)
    return _all([_read(*view, power) for view in views], params).to(patch_dtype(image.dtype))


def read_backward(
    grad_patch: Tensor,
    image: Tensor,
    params: Tensor,
    power: int,
    need_image: bool,
    form: torch.memory_format = torch.contiguous_format,
    kept: Tensor | None = None,
) -> tuple[Tensor | None, Tensor]:
    dtype = wide_dtype(image.dtype)
    patches = _each(grad_patch.to(dtype), params)
    banks = _banks(params, dtype, grad_patch.shape[-2:], *image.shape[2:])
    grad_image = _written(patches, banks, power, image.dtype, form) if need_image else None
    return grad_image, _params_gradient(patches, _views(image, banks, dtype), params, power)


def write(
    patch: Tensor,
    params: Tensor,
    height: int,
    width: int,
    power: int,
    form: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    dtype = wide_dtype(patch.dtype)
    banks = _banks(params, dtype, patch.shape[-2:], height, width)
    return _written(_each(patch.to(dtype), params), banks, power, patch.dtype, form)


def write_backward(
    grad_image: Tensor, patch: Tensor, params: Tensor, power: int, need_patch: bool = True
) -> tuple[Tensor | None, Tensor]:
    dtype = wide_dtype(patch.dtype)
    views = _views(grad_image, _banks(params, dtype, patch.shape[-2:], *grad_image.shape[2:]), dtype)
    grad_patch = _all([_read(*view, power) for view in views], params).to(patch.dtype) if need_patch else None
    return grad_patch, _params_gradient(_each(patch.to(dtype), params), views, params, power)


def lstm_step(
    x: Tensor, h: Tensor, c: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor, bias_hh: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    # The sum of both products is taken in c's dtype, so that half precision rounds each product once and no sum.
    gates = linear(x, weight_ih, bias_ih).to(c.dtype) + linear(h, weight_hh, bias_hh).to(c.dtype)
    i, f, g, o = gates.chunk(4, 1)
    i.sigmoid_(), f.sigmoid_(), g.tanh_(), o.sigmoid_()
    c_new = torch.addcmul(f * c, i, g)
    return (o * c_new.tanh()).to(x.dtype), c_new, gates


def lstm_step_backward(
    grad_h: Tensor | None,
    grad_c: Tensor | None,
    gates: Tensor,
    c: Tensor,
    c_new: Tensor,
    x: Tensor,
    h: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    i, f, g, o = gates.chunk(4, 1)
    tanh_c = c_new.tanh()
    dh = torch.zeros_like(c) if grad_h is None else grad_h.to(c.dtype)
    dc = dh * o * (1 - tanh_c * tanh_c)
    if grad_c is not None:
        dc += grad_c
    grad_gates = torch.cat([dc * g * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - g * g), dh * tanh_c * o * (1 - o)], 1)
    grad_bias, grad = grad_gates.sum(0).to(x.dtype), grad_gates.to(x.dtype)
    return grad @ weight_ih, grad @ weight_hh, dc * f, grad.mT @ x, grad.mT @ h, grad_bias
