"""How an operator is made known to PyTorch: a schema, one implementation for every device, shapes for tracing, a gradient.

An operator takes the name of its backend as its last argument, so that its backward pass runs where its forward pass ran.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from fastdraw import checks
from fastdraw.ops import gate, transforms
from fastdraw.ops.direct import shortcut, transformed

#: What torch's dispatcher calls, by operator. It hangs on torch, which registers an operator once in a process, and outlives
#: this module: a second import puts its own functions in the place of the first one's.
_registered: dict[str, dict[str, Any]] = vars(torch.ops.fastdraw).setdefault("_registered", {})
_library = vars(torch.ops.fastdraw).get("_library") or torch.library.Library("fastdraw", "DEF")
vars(torch.ops.fastdraw)["_library"] = _library


def register(
    schema: str,
    implementation: Callable[..., Any],
    fake: Callable[..., Any],
    *,
    backward: Callable[..., Any],
    setup_context: Callable[..., None] | None = None,
    autocast: Callable[..., tuple[Any, ...]] | None = None,
    forward: Callable[..., Any] | None = None,
    check: Callable[..., Any] | None = None,
    folds: transforms.Folds | None = None,
) -> Any:
    """Define `fastdraw::schema` and give back what calls it. `autocast(dtype, *args)` gives the arguments that it runs with
    under torch.autocast; left out, it runs there as it does elsewhere. `forward`: see direct.shortcut. `check(*args)` refuses
    what the public function refuses before it calls the operator, which torch.ops has too. `folds`: see transforms."""
    name = schema.split("(")[0]

    def checked(*args: Any) -> Any:
        transforms.refuse_forward_mode(name)
        for i, argument in needed:
            if args[i] is None:
                raise checks.expected(argument, "a tensor", None, TypeError)
        if check is not None:
            check(*args)
        return implementation(*args)

    # Inside an operator autocast has no say: its kernels choose their dtypes themselves.
    rule = autocast or (lambda dtype, *args: args)
    functions = {"run": checked, "fake": _on_one_device(fake), "autocast": rule, "backward": backward, "setup": setup_context}
    known = _registered.setdefault(name, {"schema": schema})
    if known["schema"] != schema:
        raise ImportError(f"another version of fastdraw was imported before, whose {name} differs: start a new process")
    known.update(functions)
    if "defined" not in known:
        _define(name, known)

    def ruled(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        dtype = autocast_dtype(next(arg for arg in arguments if isinstance(arg, torch.Tensor)).device.type)
        return arguments if dtype is None else rule(dtype, *arguments)

    operator = getattr(torch.ops.fastdraw, name).default
    # torch takes None for any tensor, and hands it on.
    needed = [(i, one.name) for i, one in enumerate(operator._schema.arguments) if isinstance(one.type, torch.TensorType)]
    call = shortcut(operator, implementation, setup_context, backward, forward, ruled, folds)
    known["vmap"] = transforms.batching_rule(operator, folds)
    return call


def _define(name: str, known: dict[str, Any]) -> None:
    """The operator itself, whose every function looks up what is known of it when it is called."""

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        if known["setup"] is not None:
            known["setup"](ctx, inputs, output)

    own = f"fastdraw::{name}"
    _library.define(known["schema"], tags=(torch.Tag.pt2_compliant_tag,))
    _library.impl(name, lambda *args: known["run"](*args), "CompositeExplicitAutograd")
    torch.library.register_fake(own, lambda *args: known["fake"](*args), lib=_library)
    torch.library.register_autograd(own, lambda ctx, *grads: known["backward"](ctx, *grads), setup_context=setup, lib=_library)
    torch.library.register_vmap(own, lambda info, in_dims, *args: known["vmap"](info, in_dims, *args), lib=_library)
    operator = getattr(torch.ops.fastdraw, name).default
    for device_type, key in (("cpu", "AutocastCPU"), ("cuda", "AutocastCUDA")):
        _library.impl(name, _under_autocast(operator, known, device_type, key), key)
    known["defined"] = True


def _on_one_device(fake: Callable[..., Any]) -> Callable[..., Any]:
    """One tensor on the meta device takes a call to its shapes alone, whose memory would pass for a result of the others."""

    def checked(*args: Any) -> Any:
        devices = {arg.device for arg in args if isinstance(arg, torch.Tensor)}
        if len(devices) > 1:
            raise ValueError(f"expected tensors on one device, got {', '.join(sorted(map(str, devices)))}")
        return fake(*args)

    return checked


def _under_autocast(operator: Any, known: dict[str, Any], device_type: str, key: str) -> Callable[..., Any]:
    keys = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key))

    def run(*args: Any) -> Any:
        dtype = torch.get_autocast_dtype(device_type)
        with torch._C._ExcludeDispatchKeyGuard(keys):
            return operator(*known["autocast"](dtype, *args))

    return run


def autocast_dtype(device_type: str) -> torch.dtype | None:
    """That of products under torch.autocast; None where it is off, or unknown, as on the meta device."""
    if not torch.amp.is_autocast_available(device_type) or not torch.is_autocast_enabled(device_type):
        return None
    return torch.get_autocast_dtype(device_type)


def backward_may_follow(tensors: Iterable[torch.Tensor | None]) -> bool:
    """Whether a call has to keep what its backward pass needs. What is traced once runs with gradients and without, and of a
    tensor inside vmap one does not see whether a transform around it will want its gradient."""
    if torch.jit.is_tracing():
        return True
    return torch.is_grad_enabled() and (transformed() or any(t is not None and t.requires_grad for t in tensors))


def refuse_double_backward(name: str) -> Callable[..., Any]:
    """The gradient of a gradient: a sentence and no number."""

    def backward(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError(
            f"fastdraw.{name} cannot be differentiated twice: its gradient is written by hand. "
            'The plain form can: with fastdraw.backend("reference"): ...'
        )

    return backward


def to_float32(dtype: torch.dtype, *args: Any) -> tuple[Any, ...]:
    """Autocast rule of the operators whose geometry needs float32: every lower-precision tensor is widened."""

    def widen(place: int, argument: Any) -> Any:
        half = isinstance(argument, torch.Tensor) and argument.dtype in (torch.float16, torch.bfloat16)
        return gate.converted(f"argument {place}", argument, torch.float32) if half else argument

    return tuple(widen(*one) for one in enumerate(args, 1))
