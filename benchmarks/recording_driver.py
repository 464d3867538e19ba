"""Triton's own way to a launch (binder, compiler, cache of compiled kernels) for tensors on a CPU, with a driver that stands
for a device of compute capability 9 and runs nothing: it notes what it is told to launch.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from fastdraw import dispatch
from fastdraw.kernels import triton as kernels
from fastdraw.kernels.triton import handles, launch, pieces

DEVICE, STREAM = 0, 77


class Noted(NamedTuple):
    """function: what load_binary gave for the kernel. arguments: pointers as addresses."""

    kernel: str
    function: int
    grid: tuple[int, int, int]
    stream: int
    dependent: bool
    metadata: Any
    arguments: tuple[Any, ...]


class _Utils:
    def __init__(self) -> None:
        self.loaded = 0

    def load_binary(self, name: str, kernel: bytes, shared: int, device: int) -> tuple[int, int, int, int, int]:
        self.loaded += 1
        return 1, self.loaded, 64, 0, 1024

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": 232448, "multiprocessor_count": 132, "warpSize": 32}


class Driver:
    def __init__(self, noted: list[Noted] | None) -> None:
        self.utils = _Utils()
        self.device, self.stream = DEVICE, STREAM
        self.launcher_cls = lambda source, metadata: _launcher(source, metadata, noted)

    def get_current_device(self) -> int:
        return self.device

    def get_current_stream(self, device: int) -> int:
        return self.stream

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_device_capability(self, device: int = 0) -> tuple[int, int]:
        return 9, 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")


def _launcher(source: Any, metadata: Any, noted: list[Noted] | None) -> Any:
    name, pdl = source.fn.fn.__name__, bool(metadata.launch_pdl)

    def start(*all_arguments: Any) -> None:
        x, y, z, stream, function, packed, about, enter, leave, *given = all_arguments
        if noted is not None:
            addresses = tuple(value.data_ptr() if isinstance(value, Tensor) else value for value in given)
            noted.append(Noted(name, function, (x, y, z), stream, pdl, packed, addresses))
        for hook in (enter, leave):
            if hook is not None:
                hook(about)

    return start


@contextmanager
def recording(noted: list[Noted] | None) -> Iterator[Driver]:
    """Tensors on the CPU are taken for tensors on the driver's device, by fastdraw too. noted None: nothing is kept."""
    ours = [module for name, module in sys.modules.items() if name.startswith(kernels.__name__)]
    jitted = {id(value): value for module in ours for value in vars(module).values() if hasattr(value, "device_caches")}
    active = Driver(noted)
    with ExitStack() as stack:
        for owner, name, value in (
            (dispatch, "pieces", lambda name, device_type: pieces),
            (dispatch, "kernels", lambda name, device_type: kernels),
            (handles, "device_of", lambda tensor: DEVICE),
            (launch, "dependent", lambda: True),
            (driver, "_active", active),
        ):
            stack.enter_context(mock.patch.object(owner, name, value))
        handles.forget()
        # Kernels compiled for one driver are no kernels of another.
        for kernel in jitted.values():
            kernel.device_caches.clear()
        try:
            yield active
        finally:
            handles.forget()
            for kernel in jitted.values():
                kernel.device_caches.clear()
