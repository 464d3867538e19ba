"""The recurrence's pieces in C++ around torch's matrix products; fastdraw/kernels/aten_pieces.py says what each must do."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from fastdraw.kernels import aten_pieces, cpu
from fastdraw.kernels.cpu.gemm import product
from fastdraw.ops.glimpses import Shape

#: Pointers that follow the sizes, for each function in the order of pieces.h.
_POINTERS = {
    "cell_forward": 7,
    "cell_backward": 8,
    "latent_forward": 6,
    "latent_backward": 6,
    "canvas_step": 5,
    "canvas_step_backward": 7,
}
#: The kinds of operands for which the functions exist, in their order. float16 goes to the plain pieces.
_OPERANDS = (torch.float32, torch.float64, torch.bfloat16)


class Functions(NamedTuple):
    cell_forward: Callable[..., int]
    cell_backward: Callable[..., int]
    latent_forward: Callable[..., int]
    latent_backward: Callable[..., int]
    canvas_step: Callable[..., int]
    canvas_step_backward: Callable[..., int]


@cache
def functions(dtype: torch.dtype, level: int | None = None) -> Functions | None:
    """The functions for operands of this dtype, None where there are none. level: as in `cpu.kernels`."""
    if dtype not in _OPERANDS:
        return None
    table = cpu.table(level)
    first = 2 * len(cpu._POINTERS) + len(_POINTERS) * _OPERANDS.index(dtype)
    prototypes = (ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * (n + 1)) for n in _POINTERS.values())
    return Functions(*(prototype(table[first + i]) for i, prototype in enumerate(prototypes)))


def _call(function: Callable[..., int], sizes: tuple[int, ...], *tensors: Tensor | None) -> None:
    threads = torch.get_num_threads()
    cpu._check(function(cpu._sizes(*sizes, threads), *[0 if t is None else t.data_ptr() for t in tensors]))


def lstm(inputs: Tensor, weight: Tensor, bias: Tensor, c: Tensor, gates: Tensor, c_new: Tensor, h_outs: list[Tensor]) -> None:
    f = functions(inputs.dtype)
    if f is None:
        return aten_pieces.lstm(inputs, weight, bias, c, gates, c_new, h_outs)
    h, h_2 = h_outs if len(h_outs) == 2 else (h_outs[0], None)
    sizes = (*c.shape, h.stride(0), 0 if h_2 is None else h_2.stride(0))
    return _call(f.cell_forward, sizes, product(inputs, weight.t()), bias, c, gates, c_new, h, h_2)


def latent(h: Tensor, weight: Tensor, bias: Tensor, noise: Tensor, out: Tensor, z: Tensor, kl: Tensor) -> None:
    f = functions(h.dtype)
    if f is None:
        return aten_pieces.latent(h, weight, bias, noise, out, z, kl)
    return _call(f.latent_forward, (*noise.shape, z.stride(0)), product(h, weight.t()), bias, noise, out, z, kl)


def head(h: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> None:
    torch.add(product(h, weight.t()), bias, out=out)


def glimpse(
    head: Tensor | None, before: Tensor, canvas: Tensor, x: Tensor | None, r: Tensor | None, s: Shape, writes: bool
) -> None:
    if head is None or not (writes or x is not None):
        return None
    f = functions(head.dtype if r is None else r.dtype)
    if f is None:
        return aten_pieces.glimpse(head, before, canvas, x, r, s, writes)
    row = 0 if r is None else r.stride(0)
    sizes = (*s.image, s.read_size, s.write_size, head.shape[1], row, int(writes), 0)
    return _call(f.canvas_step, sizes, head, before, canvas, x, r)


def lstm_backward(
    grad_out: Tensor, weight: Tensor, others: list[Tensor], gates: Tensor, c: Tensor, c_new: Tensor, grad_c: Tensor,
    grad_gates: Tensor,
) -> None:  # fmt: skip
    f = functions(gates.dtype)
    if f is None:
        return aten_pieces.lstm_backward(grad_out, weight, others, gates, c, c_new, grad_c, grad_gates)
    other, other_2 = (*others, None, None)[:2]
    rows = [0 if tensor is None else tensor.stride(0) for tensor in (other, other_2)]
    grad_h = product(grad_out, weight)
    return _call(f.cell_backward, (*c.shape, *rows), grad_h, other, other_2, gates, c, c_new, grad_c, grad_gates)


def latent_backward(
    grad_gates: Tensor, weight: Tensor, latent: Tensor, noise: Tensor, grad_kl: Tensor, grad_inputs: Tensor,
    grad_latent: Tensor, grad_noise: Tensor | None,
) -> None:  # fmt: skip
    f = functions(grad_gates.dtype)
    if f is None:
        return aten_pieces.latent_backward(grad_gates, weight, latent, noise, grad_kl, grad_inputs, grad_latent, grad_noise)
    input_backward(grad_gates, weight, grad_inputs)
    sizes = (*noise.shape, grad_inputs.stride(0))
    return _call(f.latent_backward, sizes, grad_inputs, latent, noise, grad_kl.contiguous(), grad_latent, grad_noise)


def input_backward(grad_out: Tensor, weight: Tensor, grad_inputs: Tensor) -> None:
    grad_inputs.copy_(product(grad_out, weight))


def glimpse_backward(
    head: Tensor, canvas: Tensor, x: Tensor | None, grad_r: Tensor | None, grad_canvas: Tensor, grad_head: Tensor,
    grad_x: Tensor | None, s: Shape, writes: bool, rebuild: bool,
) -> None:  # fmt: skip
    f = functions(grad_head.dtype)
    if f is None:
        return aten_pieces.glimpse_backward(head, canvas, x, grad_r, grad_canvas, grad_head, grad_x, s, writes, rebuild)
    row = 0 if grad_r is None else grad_r.stride(0)
    # A head without the read's params, when sampling, has no read behind it.
    read_size = s.read_size if grad_r is not None else 0
    sizes = (*s.image, read_size, s.write_size, head.shape[1], row, int(writes), int(rebuild))
    return _call(f.canvas_step_backward, sizes, head, canvas, x, grad_r, grad_canvas, grad_head, grad_x)


def weight_gradient(grad_out: Tensor, inputs: Tensor, weight: Tensor, bias: Tensor) -> None:
    weight.add_(product(grad_out.t(), inputs))
    bias.add_(grad_out.sum(0, dtype=bias.dtype))
