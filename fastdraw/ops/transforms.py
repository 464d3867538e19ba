"""What torch.func's transforms (grad, vjp, jacrev, vmap and their nests) make of an operator.

Each sees an autograd.Function of the kind that torch has for them: a forward pass without a context, a context set up
afterwards, the gradient that the operator has anyway, and a rule for vmap. Where the rule can it makes one call of all
images of all calls; otherwise, as where weights differ, it calls once for each.

Forward mode (torch.func.jvp, jacfwd, torch.autograd.forward_ad) never comes here: `dispatch.current` gives it the reference.
What reaches an operator all the same, by torch.ops or from a gradient made outside, is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fastdraw import dispatch

#: For each of an operator's first arguments, and for each result: the dimension that counts images. No more need be said of
#: an operator whose images do not know of each other; its other tensors, which all images share, are not among them.
Folds = tuple[Sequence[int], Sequence[int]]


def refuse_forward_mode(name: str) -> None:
    if dispatch.forward_mode():
        raise RuntimeError(
            f"fastdraw::{name} has no forward-mode derivative: its gradient is written by hand. "
            'The plain form has: with fastdraw.backend("reference"): ...'
        )


def function(
    name: str,
    implementation: Callable[..., Any],
    setup_context: Callable[..., None] | None,
    backward: Callable[..., Any],
    vmap: Callable[..., Any],
) -> Any:
    def nothing(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    methods = {"forward": implementation, "setup_context": setup_context or nothing, "backward": backward, "vmap": vmap}
    return type(name, (torch.autograd.Function,), {key: staticmethod(method) for key, method in methods.items()})


def batching_rule(call: Callable[..., Any], folds: Folds | None) -> Callable[..., Any]:
    """vmap's rule for `call`, as autograd.Function and torch.library take it."""

    def rule(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[Any, Any]:
        count = info.batch_size
        if folds is not None and all(dim is None for dim in in_dims[len(folds[0]) :]):
            return _at_once(call, folds, count, in_dims, arguments)
        calls = [
            call(*(a if dim is None else a.select(dim, i) for a, dim in zip(arguments, in_dims, strict=True)))
            for i in range(count)
        ]
        if isinstance(calls[0], Tensor):
            return torch.stack(calls), 0
        return tuple(torch.stack(results) for results in zip(*calls, strict=True)), (0,) * len(calls[0])

    return rule


def _at_once(
    call: Callable[..., Any], folds: Folds, count: int, in_dims: tuple[int | None, ...], arguments: tuple[Any, ...]
) -> tuple[Any, Any]:
    """All images of all calls as those of one."""
    together = list(arguments)
    for i, images in enumerate(folds[0]):
        if arguments[i] is not None:
            dim, tensor = in_dims[i], arguments[i]
            own = tensor.unsqueeze(images).expand(*tensor.shape[:images], count, *tensor.shape[images:])
            together[i] = (own if dim is None else tensor.movedim(dim, images)).flatten(images, images + 1)
    output = call(*together)
    single = isinstance(output, Tensor)
    results = [
        # A gradient that nobody wants is empty.
        result.unflatten(images, (count, result.shape[images] // count))
        for result, images in zip([output] if single else output, folds[1], strict=True)
    ]
    return (results[0], folds[1][0]) if single else (tuple(results), tuple(folds[1]))
