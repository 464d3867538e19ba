"""How an operator is made known to PyTorch: a schema, one implementation for every device, shapes for tracing, a gradient.

An operator takes the name of its backend as its last argument, so that its backward pass runs where its forward pass ran.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fastdraw import checks
from fastdraw.ops.direct import shortcut

_library = torch.library.Library("fastdraw", "DEF")


def register(
    schema: str,
    implementation: Callable[..., Any],
    fake: Callable[..., Any],
    *,
    backward: Callable[..., Any],
    setup_context: Callable[..., None] | None = None,
    autocast: Callable[..., Any] | None = None,
    forward: Callable[..., Any] | None = None,
    check: Callable[..., Any] | None = None,
) -> Any:
    """Define `fastdraw::schema` and give back what calls it. `autocast(dtype, *args)` runs it under torch.autocast;
    left out, it runs there as it does elsewhere. `forward`: see direct.shortcut. `check(*args)` refuses what the public
    function refuses before it calls the operator, which torch.ops has too."""
    name = schema.split("(")[0]
    _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    operator = getattr(torch.ops.fastdraw, name).default
    # torch takes None for any tensor, and hands it on.
    needed = [(i, one.name) for i, one in enumerate(operator._schema.arguments) if isinstance(one.type, torch.TensorType)]

    def checked(*args: Any) -> Any:
        for i, argument in needed:
            if args[i] is None:
                raise checks.expected(argument, "a tensor", None, TypeError)
        if check is not None:
            check(*args)
        return implementation(*args)

    _library.impl(name, checked, "CompositeExplicitAutograd")
    torch.library.register_fake(f"fastdraw::{name}", _on_one_device(fake), lib=_library)
    torch.library.register_autograd(f"fastdraw::{name}", backward, setup_context=setup_context, lib=_library)
    # Inside an operator autocast has no say: its kernels choose their dtypes themselves.
    rule = autocast or (lambda dtype, *args: operator(*args))
    for device_type, key in (("cpu", "AutocastCPU"), ("cuda", "AutocastCUDA")):
        _library.impl(name, _under_autocast(rule, device_type, key), key)
    return shortcut(operator, implementation, setup_context, backward, forward)


def _on_one_device(fake: Callable[..., Any]) -> Callable[..., Any]:
    """One tensor on the meta device takes a call to its shapes alone, whose memory would pass for a result of the others."""

    def checked(*args: Any) -> Any:
        devices = {arg.device for arg in args if isinstance(arg, torch.Tensor)}
        if len(devices) > 1:
            raise ValueError(f"expected tensors on one device, got {', '.join(sorted(map(str, devices)))}")
        return fake(*args)

    return checked


def _under_autocast(function: Callable[..., Any], device_type: str, key: str) -> Callable[..., Any]:
    keys = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key))

    def run(*args: Any) -> Any:
        dtype = torch.get_autocast_dtype(device_type)
        with torch._C._ExcludeDispatchKeyGuard(keys):
            return function(dtype, *args)

    return run


def refuse_double_backward(name: str) -> Callable[..., Any]:
    """The gradient of a gradient: a sentence and no number."""

    def backward(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError(
            f"fastdraw.{name} cannot be differentiated twice: its gradient is written by hand. "
            'The plain form can: with fastdraw.backend("reference"): ...'
        )

    return backward


def geometry_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of windows, filters, sums and states: float64 stays, everything else is float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def to_float32(name: str) -> Callable[..., Any]:
    """Autocast rule of the operators whose geometry needs float32: every lower-precision tensor is widened."""

    def widen(argument: Any) -> Any:
        half = isinstance(argument, torch.Tensor) and argument.dtype in (torch.float16, torch.bfloat16)
        return argument.float() if half else argument

    return lambda dtype, *args: getattr(torch.ops.fastdraw, name).default(*map(widen, args))
