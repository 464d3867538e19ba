"""Every variant of a case is proven before it is timed."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from fastdraw.profile.cases import Case
from fastdraw.profile.timing import Variant
from fastdraw.testing import check


def prove(case: Case) -> dict[str, Exception]:
    """Values and gradients of every variant against float64, by the rule of fastdraw/testing.py, as in tests.

    Gives those that exceed it or cannot run by their names, each with the reason.
    """
    case = case.twin or case
    exact = case.exact()
    own = _values(next(variant for variant in case.variants if variant.name == "reference"))
    further: dict[torch.dtype, list[list[torch.Tensor]]] = {}
    failures: dict[str, Exception] = {}

    def rivals(dtype: torch.dtype) -> Iterator[list[torch.Tensor]]:
        yield own
        if dtype not in further:
            further[dtype] = case.rivals(dtype)
        yield from further[dtype]

    for variant in case.variants:
        if variant.products or not variant.proven:
            # Chooses the way to each product, which must not fall into a turn.
            variant.step(0)
            continue
        if variant.approximate:
            continue
        # tf32 keeps as many bits of a product's operands as float16 does.
        dtype = variant.dtype or (torch.float16 if case.precision == "tf32" else case.dtype)
        try:
            check(_values(variant), exact, rivals(dtype), dtype, variant.name)
        except Exception as reason:
            failures[variant.name] = reason
    return failures


def _values(variant: Variant) -> list[torch.Tensor]:
    """On a device, and in torch's hands: JAX's arrays are handed over here, where no clock runs."""
    with variant.in_force():
        return [value if isinstance(value, torch.Tensor) else torch.from_dlpack(value) for value in variant.step(0)]
