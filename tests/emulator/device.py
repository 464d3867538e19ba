"""A driver that stands for a device of compute capability 8.0 or 9.0: Triton's binder, compiler and launcher see it as one,
and what they launch runs in the emulator, on the memory of CPU tensors.

Of the compiler ptxas alone is left out: what it would be given is what is run. tests/kernels/test_triton_aot.py runs it.
"""

from __future__ import annotations

import importlib
import os
import tempfile
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import CUDABackend
from triton.runtime import driver

from .faults import Fault, TooEarly, Unknown
from .machine import ORDERS, Machine, Program
from .memory import Argument, Storage
from .parser import Kernel

SHARED_LIMIT = {80: 163 * 1024, 90: 227 * 1024}
#: Loaded kernels by the handle that Triton is given.
LOADED: dict[int, tuple[Program, int]] = {}


class Settings:
    """orders: one launch after another of a kernel takes the next of them. every: each launch runs in all of them, and their
    results have to be the same bits."""

    orders: tuple[str, ...] = ("together",)
    every = False


class Counts:
    """What was run: launches, instructions of vectors."""

    launches = instructions = 0

    @classmethod
    def add(cls, launches: int, instructions: int) -> None:
        cls.launches += launches
        cls.instructions += instructions

    @classmethod
    def text(cls) -> str:
        return f"{cls.launches} launches, {cls.instructions} instructions of vectors"


class Utils:
    """What Triton asks of a device."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def load_binary(self, name: str, binary: Any, shared: int, device: int) -> tuple[Any, ...]:
        if shared > SHARED_LIMIT[self.capability]:
            raise Fault(f"{name}: {shared} bytes of shared memory")
        handle = len(LOADED) + 1
        LOADED[handle] = (Program(Kernel(binary)), shared)
        return handle, handle, 0, 0, 1024

    def get_device_properties(self, device: int) -> dict[str, int]:
        limit = SHARED_LIMIT[self.capability]
        return {"max_shared_mem": limit, "multiprocessor_count": 132, "warpSize": 32, "max_num_regs": 65536}


class Launcher:
    """Of one compiled kernel: what Triton calls with the arguments of a launch."""

    def __init__(self, source: Any, metadata: Any) -> None:
        self.names, self.kinds = list(source.signature), list(source.signature.values())
        self.warps = metadata.num_warps
        self.dependent = bool(getattr(metadata, "launch_pdl", False))
        self.max_registers = getattr(metadata, "maxnreg", None)
        self.cluster = (getattr(metadata, "num_ctas", 1), bool(getattr(metadata, "launch_cooperative_grid", False)))
        self.launches = 0

    def __call__(
        self,
        gx: int,
        gy: int,
        gz: int,
        stream: int,
        function: int,
        packed: Any,
        launched: Any,
        enter: Any,
        leave: Any,
        *given: Any,
    ) -> None:
        program, shared = LOADED[function]
        kernel = program.kernel
        if self.cluster != (1, False):
            raise Unknown(f"{kernel.name}: a cluster or cooperative launch")
        if self.dependent != kernel.waits:
            raise TooEarly(f"{kernel.name} is launched as a dependent or waits for the kernel before it, and not both")
        if self.max_registers != kernel.max_registers:
            raise Fault(f"{kernel.name}: {kernel.max_registers} registers, where the launch says {self.max_registers}")
        if len(given) != len(self.kinds):
            raise Unknown(f"{kernel.name}: {len(given)} arguments for {len(self.kinds)} of the signature")
        values, arguments = self._arguments(given)
        names = Settings.orders if Settings.every else (Settings.orders[self.launches % len(Settings.orders)],)
        storages = list({id(one.storage): one.storage for one in arguments}.values())
        before = [one.views[1].copy() for one in storages] if len(names) > 1 else []
        results: list[list[Any]] = []
        for name in names:
            for storage, bits in zip(storages, before, strict=False):
                storage.views[1][...] = bits
            machine = Machine(program, values, arguments, (gx, gy, gz), self.warps, shared, ORDERS[name], self.launches)
            Counts.instructions += machine.instructions_run
            if len(names) > 1:
                results.append([one.views[1].copy() for one in storages])
                if any((a != b).any() for a, b in zip(results[0], results[-1], strict=True)):
                    raise Fault(f"{kernel.name}: {name} and {names[0]} do not give the same bits")
        self.launches += 1
        Counts.launches += 1

    def _arguments(self, given: tuple[Any, ...]) -> tuple[list[int], list[Argument]]:
        values: list[int] = []
        arguments: list[Argument] = []
        storages: dict[int, Storage] = {}
        for name, kind, value in zip(self.names, self.kinds, given, strict=True):
            if kind == "constexpr":
                continue
            if isinstance(value, torch.Tensor):
                untyped = value.untyped_storage()
                storage = storages.setdefault(untyped.data_ptr(), Storage(untyped.data_ptr(), untyped.nbytes()))
                arguments.append(Argument(len(arguments), str(name), value, storage))
                values.append(arguments[-1].address)
            elif value is None or isinstance(value, int):
                values.append(int(value or 0))
            else:
                raise Unknown(f"argument {name}: {type(value)}")
        return values, arguments


class Driver:
    """Triton's view of the device."""

    launcher_cls = Launcher

    def __init__(self, capability: int) -> None:
        self.capability, self.utils = capability, Utils(capability)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_device_capability(self, device: int = 0) -> tuple[int, int]:
        return divmod(self.capability, 10)

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")


def _without_ptxas() -> None:
    add_stages, begin = CUDABackend.add_stages, CUDABackend.__init__

    def add_all_but_the_last(self: Any, stages: dict[str, Any], *arguments: Any, **options: Any) -> None:
        add_stages(self, stages, *arguments, **options)
        stages.pop("cubin", None)

    def of_ptx(self: Any, target: GPUTarget) -> None:
        begin(self, target)
        self.binary_ext = "ptx"

    CUDABackend.add_stages, CUDABackend.__init__ = add_all_but_the_last, of_ptx


def stand_for(target: str) -> None:
    """From here on CPU tensors run on Triton's kernels as on a device of this kind, in this process."""
    if target not in ("sm_80", "sm_90"):
        raise ValueError(f"FASTDRAW_EMULATE: expected sm_80 or sm_90, got {target!r}")
    capability = int(target[3:])
    # What is compiled here has no machine code in it: it must not be found by anybody else.
    os.environ["TRITON_CACHE_DIR"] = os.path.join(tempfile.gettempdir(), f"fastdraw-emulator-{os.getuid()}")
    _without_ptxas()
    driver.set_active(Driver(capability))
    from fastdraw import dispatch

    kernels: Any = importlib.import_module("fastdraw.kernels.triton")
    launch: Any = importlib.import_module("fastdraw.kernels.triton.launch")
    kernels.unavailable = lambda: None
    launch.dependent = lambda: capability >= 90
    usable = dispatch._usable
    dispatch._usable = lambda name, device: name if name == "triton" else usable(name, device)
