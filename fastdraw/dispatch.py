"""Which kernels the operators run on: chosen by `fastdraw.backend`, told by `fastdraw.backends`."""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd import forward_ad

from fastdraw import env

if TYPE_CHECKING:
    from fastdraw.ops.contract import Backend, Pieces

_MODULES = {"aten": "fastdraw.kernels.aten", "native": "fastdraw.kernels.cpu", "triton": "fastdraw.kernels.triton"}
_PIECES = {
    "aten": "fastdraw.kernels.aten_pieces",
    "native": "fastdraw.kernels.cpu.pieces",
    "triton": "fastdraw.kernels.triton.pieces",
}
_NAMES = ("auto", "reference", *_MODULES)


def _check(name: object, where: str) -> str:
    if name not in _NAMES:
        raise ValueError(f"{where}: expected one of {', '.join(_NAMES)}, got {name!r}")
    return str(name)


# One setting for the process, as torch's own backend flags are: torch.compile guards on it, and the autograd engine's
# threads need not know it, since each operator keeps the choice made in its forward pass.
_current = _check(env.initial_backend(), "FASTDRAW_BACKEND")


def forward_mode() -> bool:
    """Whether a forward-mode derivative is being made: torch.func.jvp, jacfwd, hessian, torch.autograd.forward_ad."""
    # The level is not public, so it may go: then forward mode is not seen, and the tests say so.
    return getattr(forward_ad, "_current_level", -1) >= 0


def current() -> str:
    """The backend of a call that is made now. Forward-mode derivatives are the reference's, which torch knows how to make, and
    so is what torch.compile traces inside a transform of torch.func, where it knows no autograd.Function such as ours."""
    if forward_mode() or (torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()):
        return "reference"
    return _current


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Run the operators called inside on these kernels: `with fastdraw.backend("reference"): ...`.

    "auto"       the fastest at hand: triton for CUDA tensors, native for CPU tensors, otherwise aten
    "reference"  fastdraw.reference: plain PyTorch, differentiable twice
    "aten"       PyTorch's own kernels with this library's hand-written gradients; runs everywhere
    "native"     C++ for CPU tensors, built when fastdraw was installed
    "triton"     Triton for CUDA tensors (and for CPU tensors where TRITON_INTERPRET=1)

    The setting holds for the whole process. A backward pass runs on the backend of its forward pass.
    Raises ValueError for another name, RuntimeError where that backend cannot run here (`backends()` tells why).
    """
    global _current
    _check(name, "name")
    reason = _unavailable(name)
    if reason is not None:
        raise RuntimeError(f"backend {name!r} cannot run here: {reason}")
    before, _current = _current, name
    try:
        yield
    finally:
        _current = before


def backends() -> dict[str, str | None]:
    """Every backend by name, with None where it can be used on this machine and otherwise the reason why not."""
    return {name: _unavailable(name) for name in _NAMES if name != "auto"}


#: Held while a backend is imported, and by fork: a child that is made in the middle of it by another thread would find the
#: module's own lock held, and wait for ever for a thread that it does not have.
_importing = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_importing.acquire, after_in_parent=_importing.release, after_in_child=_importing.release)


def _imported(module: str) -> Any:
    with _importing:
        return importlib.import_module(module)


@cache
def _unavailable(name: str) -> str | None:
    if name not in _MODULES:
        return None
    try:
        module = _imported(_MODULES[name])
    except ImportError as error:
        return f"{error}"
    with _importing:
        return module.unavailable()


@cache
def kernels(name: str, device_type: str) -> Backend:
    """The operators' kernels for tensors on this kind of device."""
    return _imported(_MODULES[_usable(name, device_type)])


@cache
def pieces(name: str, device_type: str) -> Pieces:
    """The recurrence's pieces for tensors on this kind of device."""
    return _imported(_PIECES[_usable(name, device_type)])


def chosen(device_type: str) -> str:
    """The backend of calls with tensors on this kind of device. Raises RuntimeError where it cannot run there."""
    name = current()
    return name if name == "reference" else _usable(name, device_type)


def slower(device_type: str) -> str | None:
    """None where calls on this kind of device run on its fast kernels; otherwise a sentence that says on what, and why."""
    fast = {"cuda": "triton", "cpu": "native"}.get(device_type)
    try:
        name = chosen(device_type)
    except RuntimeError as error:
        return str(error)
    if fast is None or name == fast:
        return None
    why = _unavailable(fast) if _current == "auto" else f"{_current} was chosen"
    return f"slower than need be: the backend {name} computes on {device_type}, not {fast}: {(why or '').rstrip('.')}"


def _usable(name: str, device_type: str) -> str:
    if name not in _MODULES and name != "auto":
        # Of a call of torch.ops.fastdraw; the reference is no registered operator.
        raise ValueError(f"backend: expected one of auto, {', '.join(_MODULES)}, got {name!r}")
    if name == "auto":
        fastest = {"cuda": "triton", "cpu": "native"}.get(device_type, "aten")
        name = fastest if _unavailable(fastest) is None else "aten"
    reason = _unavailable(name)
    if reason is None and name == "native" and device_type != "cpu":
        reason = f"its tensors live on the CPU, these on {device_type}"
    if reason is None and name == "triton" and device_type != "cuda" and not env.triton_interpreted():
        reason = f"its tensors live on a CUDA device, these on {device_type}"
    if reason is not None:
        raise RuntimeError(f"backend {name!r} cannot run here: {reason}")
    return name
