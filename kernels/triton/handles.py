"""Launches that have happened before, without what a first one takes: no Launch is built, and Triton binds nothing.

A handle is a compiled kernel with its grid and arguments, kept under all that a launcher decides by: itself, every tensor's
dtype, shape, strides, device and alignment, every other argument, and whether products may be tf32. Two launches of one handle
differ in their tensors' addresses alone. The first launch of each is Triton's own, and so is every one about which anything
is unknown: tensors on a CPU, or on another device than the current one; hooks of Triton's, or of a profiler's, that want to
see it; tensors that a launcher made itself. Tensors of one launch are on one device, as the operators have checked.

Tables of block sizes are taken for constants: whoever changes one calls `forget`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from triton import knobs
from triton.runtime import driver

from fastdraw.ops.contract import Shape

from . import launch as launching
from .launch import Launch, dependence, run, tf32_allowed

#: So many handles are kept; then all are made anew, so that batches of ever new sizes do not fill memory.
MOST = 4096
#: A tensor's device; below 0 where it is on none of Triton's.
device_of = Tensor.get_device


class Handle(NamedTuple):
    """ordered: of a launcher's tensors' addresses those of the kernel's pointers, which stand first among its arguments. rest:
    the other arguments. driver: Triton's when this was made."""

    start: Callable[..., None]
    grid: tuple[int, int, int]
    function: Any
    metadata: Any
    ordered: Callable[[list[int]], tuple[int, ...]]
    rest: tuple[Any, ...]
    driver: Any


#: By what a launcher decides by. None: the launcher gives none, since torch does it. False: Triton launches it each time.
_handles: dict[tuple[Any, ...], Handle | bool | None] = {}
_missing = object()
_TENSORS = {Tensor, torch.nn.Parameter}
_PLAIN = {type(None), bool, int, float, str, torch.dtype, Shape}
_precision = getattr(torch._C, "_get_fp32_precision_getter", None)


def forget() -> None:
    """Handles are made anew, since block sizes are others now."""
    _handles.clear()


def launched(launcher: Callable[..., Launch | None], *arguments: Any) -> bool:
    """Launches what `launcher(*arguments)` describes; False where that is None."""
    parts: list[Any] = [launcher, _products()]
    addresses: list[int] = []
    device = _describe(arguments, parts, addresses)
    # Where there is no device there may be no driver to ask.
    if device < 0 or device != (active := driver.active).get_current_device() or _watched():
        launch = launcher(*arguments)
        if launch is not None:
            run(launch)
        return launch is not None
    key = (device, *parts)
    handle: Any = _handles.get(key, _missing)
    if handle is None:
        return False
    if handle is _missing or handle is False or handle.driver is not active:
        return _first(key, launcher, arguments, keeps=handle is not False)
    start, grid, function, metadata, ordered, rest, _ = handle
    stream = active.get_current_stream(device)
    start(*grid, stream, function, metadata, None, None, None, *ordered(addresses), *rest)
    return True


def _describe(arguments: Any, parts: list[Any], addresses: list[int]) -> int:
    """Adds what a launcher may ask of its arguments, and where their memory begins. Gives the device of the last tensor; below
    0 where there is none, or where an argument is nothing that launchers take."""
    last: Any = None
    for argument in arguments:
        # Asked by its type: isinstance takes longer than all else for what is no tensor.
        its = type(argument)
        if its in _TENSORS:
            last = argument
            address = argument.data_ptr()
            # The model of time describes launches on meta tensors, which are never memory.
            if not address and argument.numel() and not argument.is_meta:
                raise ValueError(f"expected a tensor in memory, got one of shape {tuple(argument.shape)} without any")
            addresses.append(address)
            # Triton and the launchers ask for multiples of 16 at most.
            parts += (argument.dtype, argument.shape, argument.stride(), address & 15)
        elif its in _PLAIN:
            parts.append(argument)
        elif its is tuple or its is list:
            parts.append(len(argument))
            if argument and _describe(argument, parts, addresses) < 0:
                return -1
        else:
            return -1
    return -1 if last is None else device_of(last)


def _products() -> Any:
    """The switch for tf32, as torch keeps it; by its public way where there is no shorter one."""
    return tf32_allowed() if _precision is None else _precision("cuda", "matmul")


def _watched() -> bool:
    """Whether a hook wants to see launches, or a switch of Triton's changes how kernels are compiled."""
    try:
        runtime = knobs.runtime
        return bool(
            runtime.launch_enter_hook.calls
            or runtime.launch_exit_hook.calls
            or runtime.jit_cache_hook
            or runtime.add_stages_inspection_hook
            or runtime.debug
            or knobs.compilation.instrumentation_mode
        )
    except AttributeError:
        # Another Triton than those that this was written for.
        return True


def _first(key: tuple[Any, ...], launcher: Callable[..., Launch | None], arguments: tuple[Any, ...], keeps: bool) -> bool:
    tensors: list[Tensor] = []
    # Tensors of their own, so that one that stands for two arguments is told apart in each.
    launch = launcher(*_apart(arguments, tensors))
    compiled = None if launch is None else run(launch)
    if keeps:
        if len(_handles) >= MOST:
            _handles.clear()
        _handles[key] = None if launch is None else _handle(launch, compiled, tensors) or False
    return launch is not None


def _apart(arguments: Any, tensors: list[Tensor]) -> list[Any]:
    found: list[Any] = []
    for argument in arguments:
        if isinstance(argument, Tensor):
            tensors.append(argument.detach())
            found.append(tensors[-1])
        elif type(argument) in (list, tuple):
            found.append(type(argument)(_apart(argument, tensors)))
        else:
            found.append(argument)
    return found


def _handle(launch: Launch, compiled: Any, tensors: list[Tensor]) -> Handle | None:
    """None where something about the kernel or its arguments is not as expected."""
    kernel = launch.kernel
    places = {id(tensor): i for i, tensor in enumerate(tensors)}
    values = {**launch.arguments, **dependence(launch, launching.dependent())}
    given = [values[name] for name in kernel.arg_names]
    pointers = [value for value in given if isinstance(value, Tensor)]
    rest = given[len(pointers) :]
    known = all(id(pointer) in places for pointer in pointers) and not any(isinstance(value, Tensor) for value in rest)
    start: Any = getattr(compiled, "run", None)
    function, metadata = getattr(compiled, "function", None), getattr(compiled, "packed_metadata", None)
    # Of one alone itemgetter would give no tuple.
    if (
        len(pointers) < 2
        or not known
        or None in (start, function, metadata)
        or kernel.launch_metadata is not None
        or kernel.pre_run_hooks
    ):
        return None
    x, y, z = (*launch.grid, 1, 1)[:3]
    ordered = operator.itemgetter(*(places[id(pointer)] for pointer in pointers))
    return Handle(start, (x, y, z), function, metadata, ordered, tuple(rest), driver.active)
