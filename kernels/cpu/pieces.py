"""The recurrence's pieces in C++, matrix products and all; fastdraw/ops/contract.py says what each must do."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fastdraw.ops.contract import Shape

from .. import aten_pieces
from ..aten_pieces import chunk_rows as chunk_rows
from ..aten_pieces import latent_parts as latent_parts
from . import pages
from .library import Function, PieceFunctions, check, functions
from .sizes import (
    CanvasSizes,
    CellBackwardSizes,
    CellSizes,
    InputBackwardSizes,
    LatentSizes,
    LinearSizes,
    PackSizes,
    Sizes,
    WeightGradientSizes,
    named,
)


def _addresses(*tensors: Tensor | None) -> list[int]:
    """Where tensors' numbers begin. What they are the operator has looked at, once for all glimpses; that they are somewhere
    costs nothing to see."""
    addresses = [0 if t is None else t.data_ptr() for t in tensors]
    if 0 in addresses and any(t is not None and t.data_ptr() == 0 and t.numel() for t in tensors):
        raise ValueError("expected tensors in memory, got one whose memory was released")
    return addresses


def _call(function: Function, sizes: ctypes.Structure, *tensors: Tensor | None) -> None:
    check(function(sizes, *_addresses(*tensors)))


class Packed(NamedTuple):
    """A weight [M, K] as the C++ products take it: of rows times weight^T, or with `backward` of rows times weight; and the
    functions for its dtype."""

    data: Tensor
    outputs: int
    functions: PieceFunctions


class Order(NamedTuple):
    """Which outputs stand beside each other in a packed weight: pack.h's number for it, and the outputs of one unit."""

    number: int
    parts: int


_ORDERS = {"linear": Order(0, 1), "cell": Order(1, 4), "latent": Order(2, 2)}
#: Outputs of a packed weight are filled up to whole panels, of 64 of float32 at most, and its depth to whole pairs.
_PANEL = 64


def prepared(parts: Sequence[Tensor], role: str, backward: bool) -> Packed | Tensor:
    # Columns of a wider matrix stay where they are.
    first = parts[0] if parts[0].stride(1) == 1 else parts[0].contiguous()
    second = parts[1].contiguous() if len(parts) > 1 else None
    f = functions(first.dtype)
    if f is None:
        return aten_pieces.prepared(parts, role, backward)
    order = _ORDERS["linear" if backward else role]
    rows, columns = len(first), sum(part.shape[1] for part in parts)
    outputs, depth = (columns, rows) if backward else (rows, columns)
    numbers = order.parts * -(-(outputs // order.parts) // _PANEL) * _PANEL * (depth + 1)
    data = torch.empty(numbers, dtype=torch.promote_types(first.dtype, torch.float32))
    sizes = named(
        PackSizes,
        order=order.number,
        outputs=outputs,
        depth=depth,
        backward=int(backward),
        split=first.shape[1],
        first_row=first.stride(0),
        threads=torch.get_num_threads(),
    )
    _call(f.pack, sizes, first, second, data)
    return Packed(data, outputs, f)


def new_buffers(like: Tensor, wanted: Sequence[tuple[tuple[int, ...], torch.dtype]]) -> list[Tensor]:
    return pages.new_buffers(wanted)


def _product(kind: type[Sizes], a: Tensor, weight: Packed, *more: int) -> Sizes:
    """The sizes of a product of a's rows with a weight, and of what follows it. In their order: it is asked for some 500 times
    a step, and names take two microseconds, a twentieth of a step of one image."""
    batch, depth = a.shape
    return named(kind, batch, weight.outputs, depth, a.stride(0), torch.get_num_threads(), *more)


def _row(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.stride(0)


def cell(
    inputs: Tensor, weight: Packed | Tensor, bias: Tensor, c: Tensor, gates: Tensor, c_new: Tensor, h_outs: list[Tensor]
) -> None:
    if isinstance(weight, Tensor):
        return aten_pieces.cell(inputs, weight, bias, c, gates, c_new, h_outs)
    h, h_2 = h_outs if len(h_outs) == 2 else (h_outs[0], None)
    sizes = _product(CellSizes, inputs, weight, h.stride(0), _row(h_2))
    shared, own = None if bias.dim() == 2 else bias, bias if bias.dim() == 2 else None
    return _call(weight.functions.cell, sizes, inputs, weight.data, shared, own, c, gates, c_new, h, h_2)


def latent(h: Tensor, weight: Packed | Tensor, bias: Tensor, noise: Tensor, out: Tensor, z: Tensor, kl: Tensor) -> None:
    if isinstance(weight, Tensor):
        return aten_pieces.latent(h, weight, bias, noise, out, z, kl)
    sizes = _product(LatentSizes, h, weight, z.stride(0))
    return _call(weight.functions.latent, sizes, h, weight.data, bias, noise, out, z, kl)


def linear(h: Tensor, weight: Packed | Tensor, bias: Tensor, out: Tensor) -> None:
    if isinstance(weight, Tensor):
        return aten_pieces.linear(h, weight, bias, out)
    sizes = _product(LinearSizes, h, weight, out.stride(0))
    return _call(weight.functions.linear, sizes, h, weight.data, bias, out)


def _canvas_sizes(s: Shape, head: Tensor, read_size: int, r: Tensor | None, writes: bool, rebuild: bool) -> CanvasSizes:
    batch, channels, height, width = s.image
    return named(
        CanvasSizes,
        batch=batch,
        channels=channels,
        height=height,
        width=width,
        read_size=read_size,
        write_size=s.write_size,
        head_row=head.shape[1],
        r_row=_row(r),
        writes=int(writes),
        rebuild=int(rebuild),
        threads=torch.get_num_threads(),
    )


def canvas(
    head: Tensor | None, before: Tensor, canvas: Tensor, x: Tensor | None, r: Tensor | None, s: Shape, writes: bool
) -> None:
    if head is None or not (writes or x is not None):
        return None
    f = functions(head.dtype if r is None else r.dtype)
    if f is None:
        return aten_pieces.canvas(head, before, canvas, x, r, s, writes)
    sizes = _canvas_sizes(s, head, s.read_size, r, writes, rebuild=False)
    return _call(f.canvas, sizes, head, before, canvas, x, r)


def cell_backward(
    grad_out: Tensor, weight: Packed | Tensor, others: list[Tensor], gates: Tensor, c: Tensor, c_new: Tensor, grad_c: Tensor,
    grad_gates: Tensor,
) -> None:  # fmt: skip
    if isinstance(weight, Tensor):
        return aten_pieces.cell_backward(grad_out, weight, others, gates, c, c_new, grad_c, grad_gates)
    other, other_2 = (*others, None, None)[:2]
    sizes = _product(CellBackwardSizes, grad_out, weight, _row(other), _row(other_2))
    tensors = (other, other_2, gates, c, c_new, grad_c, grad_gates)
    return _call(weight.functions.cell_backward, sizes, grad_out, weight.data, *tensors)


def latent_backward(
    grad_gates: Tensor, weight: Packed | Tensor, latent: Tensor, noise: Tensor, grad_kl: Tensor, grad_inputs: Tensor,
    grad_latent: Tensor, grad_noise: Tensor | None,
) -> None:  # fmt: skip
    if isinstance(weight, Tensor):
        return aten_pieces.latent_backward(grad_gates, weight, latent, noise, grad_kl, grad_inputs, grad_latent, grad_noise)
    tensors = (grad_inputs, latent, noise, grad_kl.contiguous(), grad_latent, grad_noise)
    sizes = _product(InputBackwardSizes, grad_gates, weight, noise.shape[1])
    return _call(weight.functions.input_backward, sizes, grad_gates, weight.data, *tensors)


def input_backward(grad_out: Tensor, weight: Packed | Tensor, grad_inputs: Tensor) -> None:
    if isinstance(weight, Tensor):
        return aten_pieces.input_backward(grad_out, weight, grad_inputs)
    sizes = _product(InputBackwardSizes, grad_out, weight, 0)
    return _call(weight.functions.input_backward, sizes, grad_out, weight.data, grad_inputs, None, None, None, None, None)


def canvas_backward(
    head: Tensor, canvas: Tensor, x: Tensor | None, grad_r: Tensor | None, grad_canvas: Tensor, grad_head: Tensor,
    grad_x: Tensor | None, s: Shape, writes: bool, rebuild: bool,
) -> None:  # fmt: skip
    f = functions(grad_head.dtype)
    if f is None:
        return aten_pieces.canvas_backward(head, canvas, x, grad_r, grad_canvas, grad_head, grad_x, s, writes, rebuild)
    # A head without the read's params, when sampling, has no read behind it.
    read_size = s.read_size if grad_r is not None else 0
    sizes = _canvas_sizes(s, head, read_size, grad_r, writes, rebuild)
    return _call(f.canvas_backward, sizes, head, canvas, x, grad_r, grad_canvas, grad_head, grad_x)


def weight_gradient(grad_out: Tensor, inputs: Tensor, weights: Sequence[Tensor], bias: Tensor) -> None:
    f = functions(grad_out.dtype)
    if f is None:
        return aten_pieces.weight_gradient(grad_out, inputs, weights, bias)
    first, second = weights[0], weights[1] if len(weights) > 1 else None
    sizes = named(
        WeightGradientSizes,
        rows=grad_out.shape[0],
        outputs=grad_out.shape[1],
        inputs=inputs.shape[1],
        grad_row=grad_out.stride(0),
        input_row=inputs.stride(0),
        split=first.shape[1],
        first_row=first.stride(0),
        threads=torch.get_num_threads(),
    )
    return _call(f.weight_gradient, sizes, grad_out, inputs, first, second, bias)
