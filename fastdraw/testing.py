"""The rule by which results are proven, of kernels as of the peers that benchmarks time, and what it takes to apply it.

The rule: against float64, an error is at most the reference's error in the same dtype plus a tolerance. Beside the reference
stand other rivals, whose results no arithmetic of the dtype can be told from: the exact function at inputs moved by a few
roundings. Where sigma is far below a pixel the nearest pixel, and with it everything, hangs on the last bit of mu; and where a
sum all but vanishes beside its terms, its error is that of the terms. The reference's own error is one draw of that, which may
be next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Function = Callable[..., Any]
Inputs = tuple[Tensor, ...]
#: Of one computation, by name or by place.
Results = Mapping[str, Tensor] | Sequence[Tensor]

#: float64 has no wider yardstick: its tolerance allows for cancellation in sums, and still shows a float32 in between.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 1e-2}


def error(actual: Tensor, exact: Tensor) -> float:
    """The largest difference, relative to the largest magnitude of the exact result."""
    assert actual.shape == exact.shape, f"shape {tuple(actual.shape)}, expected {tuple(exact.shape)}"
    if exact.numel() == 0:
        return 0.0
    # Where the result is: images of many megapixels are compared on a device in no time.
    exact = exact.detach().double().to(actual.device)
    return float((actual.detach().double() - exact).abs().max() / exact.abs().max().clamp(min=1e-30))


def budget(naive: float, dtype: torch.dtype) -> float:
    """The tolerance is relative to the larger of the exact result and the naive error, which is the naive result's own size
    where rounding decides everything."""
    return naive + TOLERANCE[dtype] * max(1.0, naive)


def check(
    actual: Results, exact: Results, rivals: Iterable[Results], dtype: torch.dtype | Sequence[torch.dtype], what: str = ""
) -> None:
    """Every result is within the budget of the worst rival, or AssertionError says which is not.

    rivals: the first is the reference's; further ones are computed only where the budget of those before is exceeded. dtype:
    whose tolerance holds, for all results or for each.
    """
    names = list(actual) if isinstance(actual, Mapping) else [f"result {i}" for i in range(len(actual))]
    assert len(names) == len(exact), f"{len(names)} results, expected {len(exact)}"
    wanted = _listed(exact, names)
    errors = [error(a, e) for a, e in zip(_listed(actual, names), wanted, strict=True)]
    dtypes = [dtype] * len(names) if isinstance(dtype, torch.dtype) else dtype
    naive: list[float] = []
    over = ""
    for rival in rivals:
        new = [error(r, e) for r, e in zip(_listed(rival, names), wanted, strict=True)]
        naive = [max(pair) for pair in zip(naive, new, strict=True)] if naive else new
        over = ""
        for name, got, worst, own in zip(names, errors, naive, dtypes, strict=True):
            # Written so that a NaN fails.
            if not got <= budget(worst, own):
                over = f"{what}{', ' * bool(what)}{name}: error {got:.3g} exceeds the budget {budget(worst, own):.3g} ({own})"
                break
        if not over:
            return
    raise AssertionError(over or "there is no rival to be held to")


def _listed(results: Results, names: list[str]) -> list[Tensor]:
    return [results[name] for name in names] if isinstance(results, Mapping) else list(results)


def nudged(inputs: Sequence[Tensor], dtype: torch.dtype, params: int | None = None, draws: int = 4) -> Iterator[Inputs]:
    """float64 inputs moved by four roundings of the arithmetic's dtype, the least that it can be asked to bear, in random
    directions. params: which of them places windows; these are moved beside 1, since a window is g~ + 1 and exponentials."""
    step = 4 * torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps
    for _ in range(draws):
        yield tuple(
            t.detach() + step * (t.detach().abs() + (i == params)) * torch.randn_like(t).sign() for i, t in enumerate(inputs)
        )


def prove(
    function: Function,
    specification: Function,
    inputs: Sequence[Tensor],
    dtype: torch.dtype,
    params: int | None = None,
    wide: Collection[int] = (),
    device: str | None = None,
    tolerance: torch.dtype | None = None,
    same_dtypes: bool = True,
) -> None:
    """Values of `function` and gradients to all inputs, by the rule, and that their dtypes are the specification's.

    inputs: given to both in `dtype`, those numbered in `wide` no narrower than float32. params: which of them places windows,
    if any. device: of the function; the specification computes where the inputs are. tolerance: whose holds, where that is not
    dtype's. same_dtypes: False where the function may give another one.
    """
    float32_or_wider = torch.promote_types(dtype, torch.float32)
    dtypes = [float32_or_wider if i in wide else dtype for i in range(len(inputs))]
    given = leaves(inputs, dtypes)
    moved = leaves([tensor.to(device or tensor.device) for tensor in given], dtypes)
    outputs = as_list(function(*moved))
    weights = [torch.randn_like(output) for output in outputs]
    actual = [*outputs, *torch.autograd.grad(outputs, moved, weights)]
    weights = [weight.to(given[0].device) for weight in weights]
    naive = differentiate(specification, given, weights)
    came, expected = ([tensor.dtype for tensor in results] for results in (actual, naive))
    assert came == expected or not same_dtypes, f"dtypes {came}, expected {expected}"
    exact_inputs, exact_weights = [tensor.detach().double() for tensor in given], [weight.double() for weight in weights]
    # A gradient is as much a function of those that come in: where it all but vanishes beside its terms, these are theirs.
    given_exactly = [*exact_inputs, *exact_weights]

    def exact(at: Sequence[Tensor]) -> list[Tensor]:
        moved_inputs, moved_weights = at[: len(exact_inputs)], at[len(exact_inputs) :]
        return differentiate(specification, [tensor.requires_grad_() for tensor in moved_inputs], moved_weights)

    def rivals() -> Iterator[list[Tensor]]:
        yield naive
        if params is not None:
            yield from map(exact, nudged(given_exactly, dtype, params))

    check(actual, exact(given_exactly), rivals(), tolerance or dtype)


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
    return tuple(t.detach().to(dtype, copy=True).requires_grad_(i not in constants) for i, (t, dtype) in pairs)
