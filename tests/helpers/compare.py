"""Operators, with the gradients that autograd makes of them, against the specification by error budget."""

from __future__ import annotations

import torch
from torch import Tensor

from budget import assert_errors_within_budget, error


def run(function, inputs: tuple[Tensor, ...], weight_seed: int = 1) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs, and gradients to every input of a random weighting of all outputs (the same one for every dtype)."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    outputs = function(*leaves)
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    generator = torch.Generator().manual_seed(weight_seed)
    weights = [torch.randn(output.shape, generator=generator, dtype=torch.float64) for output in outputs]
    loss = sum((output * weight.to(output)).sum() for output, weight in zip(outputs, weights, strict=True))
    return outputs, list(torch.autograd.grad(loss, leaves))


def errors(operator, specification, inputs: tuple[Tensor, ...], dtype: torch.dtype, device: str) -> list[tuple[float, float]]:
    """For every output and gradient: the error of `operator` on a backend, and what its budget is made from.

    That is the larger of two errors: that of the specification in the same dtype, and that of the exact function at inputs
    nudged by a few roundings, beyond which no arithmetic can be expected to go. Where sigma is far below a pixel the nearest
    pixel, and with it everything, hangs on the last bit of mu; and where a sum all but vanishes beside its terms, its error is
    that of the terms. The specification's own error is one draw of it, which may be next to nothing.
    """
    low = tuple(tensor.to(dtype) for tensor in inputs)
    wide = tuple(tensor.double() for tensor in low)
    actual = flatten(run(operator, tuple(tensor.to(device) for tensor in low)))
    exact = flatten(run(specification, wide))
    rivals = [flatten(run(specification, low))]
    assert [a.dtype for a in actual] == [n.dtype for n in rivals[0]]
    if wide[-1].shape[-1] == 5:
        rivals += [flatten(run(specification, nudged)) for nudged in nudge(wide, dtype)]
    worst = [max(error(n, e) for n in candidates) for e, *candidates in zip(exact, *rivals, strict=True)]
    return [(error(a, e), budget) for a, e, budget in zip(actual, exact, worst, strict=True)]


def compare(operator, specification, inputs: tuple[Tensor, ...], dtype: torch.dtype, device: str) -> None:
    for index, (got, budget) in enumerate(errors(operator, specification, inputs, dtype, device)):
        assert_errors_within_budget(f"result {index}", got, budget, dtype)


def flatten(results: tuple[list[Tensor], list[Tensor]]) -> list[Tensor]:
    outputs, gradients = results
    return [*outputs, *gradients]


def nudge(inputs: tuple[Tensor, ...], dtype: torch.dtype) -> list[tuple[Tensor, ...]]:
    """Inputs, of which the last are params, moved by four roundings of the arithmetic's dtype, in four random directions."""
    step = 4 * torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps
    # A window is its params beside 1: g~ + 1 and exponentials.
    sizes = [*(tensor.abs() for tensor in inputs[:-1]), 1 + inputs[-1].abs()]
    return [
        tuple(t + step * size * torch.randn_like(t).sign() for t, size in zip(inputs, sizes, strict=True)) for _ in range(4)
    ]
