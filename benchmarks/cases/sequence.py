"""The case of an LSTM over a whole sequence, which DRAW's feedback forbids: what one costs where nothing is between its steps.

nn.LSTM, cuDNN's on a CUDA device, is the yardstick of a fused sequence; lstm_step and nn.LSTMCell take step after step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

import fastdraw
from benchmarks.cases import DEVICE, fastdraw_backends
from benchmarks.cases.steps import PRECISIONS
from fastdraw import reference
from fastdraw.products import float32_products
from fastdraw.profile.cases import Case
from fastdraw.profile.cost import Cost
from fastdraw.profile.timing import Variant

#: (h, c) from (x, (h, c), weights).
Step = Callable[..., tuple[Tensor, Tensor]]


def sequence_case(batch: int, inputs: int, hidden: int, steps: int) -> Case:
    """Every h, and the gradients to x and all weights. States start at zero."""
    torch.manual_seed(0)
    bound = hidden**-0.5
    x = torch.randn(steps, batch, inputs, device=DEVICE, dtype=torch.float64)
    shapes = [(4 * hidden, inputs), (4 * hidden, hidden), (4 * hidden,), (4 * hidden,)]
    weights = [torch.empty(shape, device=DEVICE, dtype=torch.float64).uniform_(-bound, bound) for shape in shapes]
    grad = torch.randn(steps, batch, hidden, device=DEVICE, dtype=torch.float64)

    def run(forward: Callable[..., Tensor], leaves: Sequence[Tensor]) -> list[Tensor]:
        outputs = forward(*leaves)
        return [outputs.detach(), *torch.autograd.grad(outputs, leaves, grad.to(outputs.dtype))]

    def leaves(dtype: torch.dtype, rounding: float = 0.0) -> list[Tensor]:
        moved = [t * (1 + rounding * torch.randn_like(t).sign()) if rounding else t for t in (x, *weights)]
        return [tensor.to(dtype, copy=True).requires_grad_() for tensor in moved]

    def in_steps(step: Step, x: Tensor, *weights: Tensor) -> Tensor:
        h, c = (x.new_zeros(batch, hidden) for _ in range(2))
        if step is not torch.lstm_cell:
            c = c.to(torch.promote_types(c.dtype, torch.float32))
        found = []
        for t in range(steps):
            h, c = step(x[t], (h, c), *weights)
            # In half precision the reference gives a float32 h.
            h = h.to(x.dtype)
            found.append(h)
        return torch.stack(found)

    def variant(name: str, forward: Callable[..., Tensor], precision: str, backend: str | None = None) -> Variant:
        dtype, setting = PRECISIONS[precision][0] or torch.float32, partial(float32_products, PRECISIONS[precision][1])
        given = leaves(dtype)
        if name == "nn.LSTM":
            # cuDNN wants all weights in one piece of memory, which the module makes.
            module = nn.LSTM(inputs, hidden, device=DEVICE, dtype=dtype)
            with torch.no_grad():
                for parameter, value in zip(module.parameters(), weights, strict=True):
                    parameter.copy_(value)
            given = [given[0], *module.parameters()]
            forward = partial(_outputs, module)
        full = name if name == "reference" else f"{name}, {precision}"
        return Variant(full, lambda _: run(forward, given), backend, setting, dtype=PRECISIONS[precision][2])

    own, half = fastdraw_backends()[0], ("bfloat16", "float16")
    precisions = ("float32", "tf32", *half) if DEVICE == "cuda" else ("float32", "bfloat16")
    variants = [
        *(variant(f"lstm_step, {own}", partial(in_steps, fastdraw.lstm_step), p, own) for p in precisions),
        variant("reference", partial(in_steps, reference.lstm_step), "float32"),
        *(variant("nn.LSTMCell", partial(in_steps, torch.lstm_cell), p) for p in precisions),
        *(variant("nn.LSTM", in_steps, p) for p in precisions),
    ]

    def rivals(dtype: torch.dtype) -> list[list[Tensor]]:
        if dtype == torch.float32:
            return []
        eps = torch.finfo(dtype).eps / 2
        loop = partial(in_steps, reference.lstm_step)
        moved = [run(loop, leaves(torch.float64, eps)) for _ in range(3)]
        return [*moved, run(loop, leaves(dtype))]

    numel = 4 * hidden * (inputs + hidden)
    moved = 4 * (3 * numel + batch * steps * (3 * inputs + 3 * hidden + 8 * hidden))
    return Case(
        f"{steps} LSTM steps {batch}, {inputs}->{hidden}",
        "forward and backward over a sequence that is known beforehand, gradients to x and all weights",
        "float32",
        DEVICE,
        Cost(moved, "e(3 weights + BT(3I + 11h))", 6 * batch * steps * numel, "6BT weights", 2 * steps),
        variants,
        lambda: run(partial(in_steps, reference.lstm_step), leaves(torch.float64)),
        input_bytes=x.nbytes // 2,
        rivals=rivals,
        batch=batch,
        glimpses=steps,
    )


def _outputs(module: nn.LSTM, x: Tensor, *_: Tensor) -> Tensor:
    return module(x)[0]
