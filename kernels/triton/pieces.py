"""The recurrence's pieces in Triton, one launch each where the tables say so; fastdraw/ops/contract.py says what each must
do.

Operands of products may be float32, bfloat16 or float16; states are float32. float64 goes to the plain pieces, and so do
windows with more filters than one program's registers hold.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastdraw.ops.contract import Shape

from .. import aten_pieces
from ..aten_pieces import new_buffers as new_buffers
from ..aten_pieces import prepared as prepared
from .canvas import canvas_launch
from .canvas_backward import canvas_backward_launch
from .cell import cell_backward_launch, cell_launch
from .handles import launched
from .latent import input_backward_launch, latent_backward_launch, latent_launch
from .linear import linear_launch
from .piece_tables import CHUNK_BYTES, MAX_CANVAS_SIZE, kl_parts
from .tiles import canvas_kind, kind, wide_product


def cell(inputs: Tensor, weight: Tensor, bias: Tensor, c: Tensor, gates: Tensor, c_new: Tensor, h_outs: list[Tensor]) -> None:
    if c.dtype == torch.float64:
        return aten_pieces.cell(inputs, weight, bias, c, gates, c_new, h_outs)
    launched(cell_launch, inputs, weight, bias, c, gates, c_new, h_outs)
    return None


def latent_parts(s: Shape, dtype: torch.dtype) -> int:
    return 1 if dtype == torch.float64 else kl_parts(s.batch, s.latent, s.hidden, kind(dtype))


def latent(h: Tensor, weight: Tensor, bias: Tensor, noise: Tensor, out: Tensor, z: Tensor, kl: Tensor) -> None:
    if out.dtype == torch.float64:
        return aten_pieces.latent(h, weight, bias, noise, out, z, kl)
    (batch, latents), depth = noise.shape, h.shape[1]
    parts = kl_parts(batch, latents, depth, kind(h.dtype))
    own = kl if kl.dim() == 2 or parts == 1 else kl.new_empty(parts, batch)
    launched(latent_launch, h, weight, bias, noise, out, z, own)
    if own is not kl:
        torch.sum(own, 0, out=kl)
    return None


def linear(h: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> None:
    if out.dtype != torch.float64 and launched(linear_launch, h, weight, bias, out):
        return
    if h.dtype == out.dtype:
        torch.addmm(bias, h, weight.t(), out=out)
    else:
        torch.add(wide_product(h, weight.t()), bias, out=out)
    return


def _plain(s: Shape, canvas: Tensor) -> bool:
    return canvas.dtype == torch.float64 or max(s.read_size, s.write_size) > MAX_CANVAS_SIZE


def canvas(
    head: Tensor | None, before: Tensor, canvas: Tensor, x: Tensor | None, r: Tensor | None, s: Shape, writes: bool
) -> None:
    if head is None or not (writes or x is not None):
        return None
    if _plain(s, canvas):
        return aten_pieces.canvas(head, before, canvas, x, r, s, writes)
    launched(canvas_launch, head, before, canvas, x, r, s, writes, canvas_kind())
    return None


def cell_backward(
    grad_out: Tensor, weight: Tensor, others: list[Tensor], gates: Tensor, c: Tensor, c_new: Tensor, grad_c: Tensor,
    grad_gates: Tensor,
) -> None:  # fmt: skip
    if c.dtype == torch.float64:
        return aten_pieces.cell_backward(grad_out, weight, others, gates, c, c_new, grad_c, grad_gates)
    launched(cell_backward_launch, grad_out, weight, others, gates, c, c_new, grad_c, grad_gates)
    return None


def latent_backward(
    grad_gates: Tensor, weight: Tensor, latent: Tensor, noise: Tensor, grad_kl: Tensor, grad_inputs: Tensor,
    grad_latent: Tensor, grad_noise: Tensor | None,
) -> None:  # fmt: skip
    if latent.dtype == torch.float64:
        return aten_pieces.latent_backward(grad_gates, weight, latent, noise, grad_kl, grad_inputs, grad_latent, grad_noise)
    latents = (latent, noise, grad_kl, grad_latent)
    if not launched(input_backward_launch, grad_gates, weight, grad_inputs, latents, grad_noise):
        torch.mm(grad_gates, weight, out=grad_inputs)
        launched(latent_backward_launch, grad_gates, weight, grad_inputs, latents, grad_noise)
    return None


def input_backward(grad_out: Tensor, weight: Tensor, grad_inputs: Tensor) -> None:
    if grad_out.dtype == torch.float64 or not launched(input_backward_launch, grad_out, weight, grad_inputs):
        torch.mm(grad_out, weight, out=grad_inputs)


def canvas_backward(
    head: Tensor, canvas: Tensor, x: Tensor | None, grad_r: Tensor | None, grad_canvas: Tensor, grad_head: Tensor,
    grad_x: Tensor | None, s: Shape, writes: bool, rebuild: bool,
) -> None:  # fmt: skip
    if _plain(s, canvas):
        return aten_pieces.canvas_backward(head, canvas, x, grad_r, grad_canvas, grad_head, grad_x, s, writes, rebuild)
    arguments = (head, canvas, x, grad_r, grad_canvas, grad_head, grad_x, s, writes, rebuild, canvas_kind())
    launched(canvas_backward_launch, *arguments)
    return None


def chunk_rows(s: Shape, dtype: torch.dtype) -> int:
    """Torch's products over many rows at once share them out to all of the device, and every chunk costs twenty launches. Four
    chunks are a quarter of what the tape has of gates, however large the batch."""
    return max(CHUNK_BYTES[dtype.itemsize] // (4 * s.hidden * dtype.itemsize), s.glimpses // 4 * s.batch)


def weight_gradient(grad_out: Tensor, inputs: Tensor, weights: Sequence[Tensor], bias: Tensor) -> None:
    for weight, columns in zip(weights, inputs.split([weight.shape[1] for weight in weights], 1), strict=True):
        if grad_out.dtype == weight.dtype:
            weight.addmm_(grad_out.t(), columns)
        else:
            weight.add_(wide_product(grad_out.t(), columns))
    bias.add_(grad_out.sum(0, dtype=bias.dtype))
