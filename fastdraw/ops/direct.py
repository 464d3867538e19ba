"""From an operator's public function straight to its kernels, past torch's dispatcher, where nobody is looking.

A registered operator of Python's goes through the dispatcher twice in each direction, which takes as long as a glimpse of
a small image does. What that is for (tracing, compiling, function transforms, modes, autocast, tensors of other kinds, the
profiler's record) gets the registered operator; a plain call on plain tensors gets the same functions in the same order,
so its results are the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import profiler

from fastdraw.dispatch import forward_mode
from fastdraw.ops import transforms

_PLAIN = (Tensor, torch.nn.Parameter)


def _private(name: str) -> Callable[..., Any]:
    """Not public, so it may go: then every call takes the long way."""
    return getattr(torch._C, name, lambda *_: True)


_modes, _function_modes = _private("_len_torch_dispatch_stack"), _private("_len_torch_function_stack")
_transforms, _tracing = _private("_are_functorch_transforms_active"), _private("_get_tracing_state")
_autocast = _private("_is_any_autocast_enabled")
_wrapped = getattr(torch._C._functorch, "is_functorch_wrapped_tensor", lambda tensor: True)
_included, _BATCHES = _private("_dispatch_tls_is_dispatch_key_included"), _private("_parse_dispatch_key")("VmapMode")


def transformed() -> bool:
    """Whether a transform of torch.func is at work."""
    return _transforms()


def seen(arguments: tuple[Any, ...]) -> bool:
    """Whether anything but the kernels wants to know of this call."""
    # The profiler's is a flag and no function, so it is asked for anew each time.
    if getattr(profiler, "_is_profiler_enabled", True):
        return True
    if _modes() or _function_modes() or _transforms() or _autocast() or _tracing() or forward_mode():
        return True
    # The older vmap, which torch.autograd still runs batches of gradients with.
    if _included(_BATCHES):
        return True
    for tensor in arguments:
        # A tensor may stand for its negative, or for one that a transform of torch.func, now over, has wrapped. The dispatcher
        # resolves both.
        if isinstance(tensor, Tensor) and (
            type(tensor) not in _PLAIN or tensor.is_neg() or _wrapped(tensor) or not (tensor.is_cpu or tensor.is_cuda)
        ):
            return True
    return False


def wrapped(tensor: Tensor) -> bool:
    """Whether a tensor may be something that stands for memory, and has none of its own."""
    plain = type(tensor) in _PLAIN and (tensor.is_cpu or tensor.is_cuda)
    return not plain or bool(_modes() or _function_modes() or _transforms() or _tracing())


def shortcut(
    operator: Any,
    implementation: Callable[..., Any],
    setup_context: Callable[..., None] | None,
    backward: Callable[..., Any],
    forward: Callable[..., Any] | None = None,
    autocast: Callable[..., Any] | None = None,
    folds: transforms.Folds | None = None,
) -> Callable[..., Any]:
    """`operator`, called by the shorter way where that makes no difference. `forward(ctx, *args)` does the work of
    `implementation` and `setup_context` for a call that will be differentiated, where it has a better way.
    `autocast(arguments)`: what the operator's rule under autocast makes of them. `folds`: see transforms."""

    def plain(ctx: Any, *arguments: Any) -> Any:
        output = implementation(*arguments)
        if setup_context is not None:
            setup_context(ctx, arguments, output)
        return output

    def below(*arguments: Any) -> Any:
        """Where all transforms have had their turn."""
        return operator(*arguments) if seen(arguments) else implementation(*arguments)

    def call(*arguments: Any) -> Any:
        # On its own, so that torch.compile sees one way only.
        if torch.compiler.is_compiling():
            return operator(*arguments)
        if seen(arguments):
            if not _transforms():
                return operator(*arguments)
            return transformable.apply(*(arguments if autocast is None else autocast(arguments)))
        if torch.is_grad_enabled() and any(isinstance(t, Tensor) and t.requires_grad for t in arguments):
            return function.apply(*arguments)
        return implementation(*arguments)

    # The engine and its profile name the step backward after the class.
    name = "Fastdraw" + "".join(word.capitalize() for word in operator._opname.split("_"))
    methods = {"forward": staticmethod(forward or plain), "backward": staticmethod(backward)}
    function: Any = type(name, (torch.autograd.Function,), methods)
    transformable = transforms.function(name, below, setup_context, backward, transforms.batching_rule(call, folds))
    return call
