"""The case of an LSTM over a whole sequence, which DRAW's feedback forbids: what one costs where nothing is between its steps.

nn.LSTM, cuDNN's on a CUDA device, is the yardstick of a fused sequence; lstm_step and nn.LSTMCell take step after step.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

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


class Sequence:
    """Random inputs, weights and gradients, and what they give. States start at zero."""

    def __init__(self, batch: int, inputs: int, hidden: int, steps: int) -> None:
        torch.manual_seed(0)
        made: dict[str, Any] = {"device": DEVICE, "dtype": torch.float64}
        shapes = [(4 * hidden, inputs), (4 * hidden, hidden), (4 * hidden,), (4 * hidden,)]
        self.x = torch.randn(steps, batch, inputs, **made)
        self.weights = [torch.empty(shape, **made).uniform_(-(hidden**-0.5), hidden**-0.5) for shape in shapes]
        self.grad = torch.randn(steps, batch, hidden, **made)

    def run(self, forward: Callable[..., Tensor], leaves: list[Tensor]) -> list[Tensor]:
        outputs = forward(*leaves)
        return [outputs.detach(), *torch.autograd.grad(outputs, leaves, self.grad.to(outputs.dtype))]

    def leaves(self, dtype: torch.dtype, rounding: float = 0.0) -> list[Tensor]:
        """Inputs and weights, each number moved by that share of itself."""
        moved = [t * (1 + rounding * torch.randn_like(t).sign()) if rounding else t for t in (self.x, *self.weights)]
        return [tensor.to(dtype, copy=True).requires_grad_() for tensor in moved]

    def of_module(self, dtype: torch.dtype) -> tuple[Callable[..., Tensor], list[Tensor]]:
        """nn.LSTM and its leaves: cuDNN wants all weights in one piece of memory, which the module makes."""
        module = nn.LSTM(self.x.shape[2], self.grad.shape[2], device=DEVICE, dtype=dtype)
        with torch.no_grad():
            for parameter, value in zip(module.parameters(), self.weights, strict=True):
                parameter.copy_(value)
        return partial(_outputs, module), [self.leaves(dtype)[0], *module.parameters()]

    def rivals(self, dtype: torch.dtype) -> list[list[Tensor]]:
        if dtype == torch.float32:
            return []
        loop, eps = partial(in_steps, reference.lstm_step), torch.finfo(dtype).eps / 2
        moved = [self.run(loop, self.leaves(torch.float64, eps)) for _ in range(3)]
        return [*moved, self.run(loop, self.leaves(dtype))]


def in_steps(step: Step, x: Tensor, *weights: Tensor) -> Tensor:
    h, c = (x.new_zeros(x.shape[1], weights[1].shape[1]) for _ in range(2))
    if step is not torch.lstm_cell:
        c = c.to(torch.promote_types(c.dtype, torch.float32))
    found = []
    for t in range(len(x)):
        h, c = step(x[t], (h, c), *weights)
        # In half precision the reference gives a float32 h.
        h = h.to(x.dtype)
        found.append(h)
    return torch.stack(found)


def sequence_case(batch: int, inputs: int, hidden: int, steps: int) -> Case:
    """Every h, and the gradients to x and all weights."""
    sequence = Sequence(batch, inputs, hidden, steps)

    def variant(name: str, step: Step | None, precision: str, backend: str | None = None) -> Variant:
        dtype, setting = PRECISIONS[precision][0] or torch.float32, partial(float32_products, PRECISIONS[precision][1])
        forward, given = sequence.of_module(dtype) if step is None else (partial(in_steps, step), sequence.leaves(dtype))
        full = name if name == "reference" else f"{name}, {precision}"
        return Variant(full, lambda _: sequence.run(forward, given), backend, setting, dtype=PRECISIONS[precision][2])

    own, half = fastdraw_backends()[0], ("bfloat16", "float16")
    precisions = ("float32", "tf32", *half) if DEVICE == "cuda" else ("float32", "bfloat16")
    variants = [
        *(variant(f"lstm_step, {own}", fastdraw.lstm_step, p, own) for p in precisions),
        variant("reference", reference.lstm_step, "float32"),
        *(variant("nn.LSTMCell", torch.lstm_cell, p) for p in precisions),
        *(variant("nn.LSTM", None, p) for p in precisions),
    ]
    numel = 4 * hidden * (inputs + hidden)
    moved = 4 * (3 * numel + batch * steps * (3 * inputs + 3 * hidden + 8 * hidden))
    return Case(
        f"{steps} LSTM steps {batch}, {inputs}->{hidden}",
        "forward and backward over a sequence that is known beforehand, gradients to x and all weights",
        "float32",
        DEVICE,
        Cost(moved, "e(3 weights + BT(3I + 11h))", 6 * batch * steps * numel, "6BT weights", 2 * steps),
        variants,
        lambda: sequence.run(partial(in_steps, reference.lstm_step), sequence.leaves(torch.float64)),
        input_bytes=sequence.x.nbytes // 2,
        rivals=sequence.rivals,
        batch=batch,
        glimpses=steps,
    )


def _outputs(module: nn.LSTM, x: Tensor, *_: Tensor) -> Tensor:
    return module(x)[0]
