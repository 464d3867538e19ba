"""Forward and backward of any function of tensors, which is what is timed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor

Inputs = tuple[Tensor, ...]
Function = Callable[..., Any]


def as_list(outputs: Any) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def differentiate(function: Function, inputs: Sequence[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
    """Outputs, and the gradients of their sum weighted by `weights`, to the inputs that want one."""
    outputs = as_list(function(*inputs))
    # In half precision the reference's LSTM gives a float32 h, and the operator one of x's dtype.
    weights = [weight.to(output.dtype) for output, weight in zip(outputs, weights, strict=True)]
    wanted = [tensor for tensor in inputs if tensor.requires_grad]
    return [*(output.detach() for output in outputs), *torch.autograd.grad(outputs, wanted, weights)]


def leaves(tensors: Sequence[Tensor], dtypes: Sequence[torch.dtype], constants: Collection[int] = ()) -> Inputs:
    """Copies that want gradients, but for those numbered in `constants`."""
    pairs = enumerate(zip(tensors, dtypes, strict=True))
    return tuple(t.to(dtype, copy=True).requires_grad_(i not in constants) for i, (t, dtype) in pairs)
