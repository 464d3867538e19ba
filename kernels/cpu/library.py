"""The C++ library: found, opened, and its functions by name.

It is a plain C interface built beside this file at install time, so it fits every torch version. It runs on the threads of the
OpenMP runtime that torch has loaded, torch.get_num_threads() of them; results are the same bits for any number of threads. A
child made by fork cannot use that runtime's threads and runs on one.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fastdraw import env

from .sizes import (
    CanvasSizes,
    CellBackwardSizes,
    CellSizes,
    ElementwiseSizes,
    FilterbankSizes,
    InputBackwardSizes,
    LatentSizes,
    LinearSizes,
    LstmSizes,
    PackSizes,
    PeakSizes,
    SeenSizes,
    WeightGradientSizes,
    WholeSizes,
    WindowsSizes,
)
from .sources import digest

FOLDER = Path(__file__).parent
Function = Callable[..., int]


def takes(sizes: type[ctypes.Structure], pointers: int) -> Any:
    """The type of a function of sizes, and of so many pointers; 0 for a pointer left out."""
    return ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(sizes), *[ctypes.c_void_p] * pointers)


class Kernels(NamedTuple):
    """The operators' functions of one instruction set for one dtype, in the order of kernels.cpp: by default their types."""

    whole: Function = takes(WholeSizes, 6)
    filterbank: Function = takes(FilterbankSizes, 4)
    filterbank_backward: Function = takes(FilterbankSizes, 5)
    lstm_forward: Function = takes(LstmSizes, 7)
    lstm_backward: Function = takes(LstmSizes, 8)
    elementwise: Function = takes(ElementwiseSizes, 2)
    windows: Function = takes(WindowsSizes, 7)
    seen_pixels: Function = takes(SeenSizes, 2)


class PieceFunctions(NamedTuple):
    """Those of the recurrence's pieces, in the order of pieces.h."""

    pack: Function = takes(PackSizes, 3)
    linear: Function = takes(LinearSizes, 4)
    cell: Function = takes(CellSizes, 9)
    cell_backward: Function = takes(CellBackwardSizes, 9)
    latent: Function = takes(LatentSizes, 7)
    input_backward: Function = takes(InputBackwardSizes, 8)
    weight_gradient: Function = takes(WeightGradientSizes, 5)
    canvas: Function = takes(CanvasSizes, 5)
    canvas_backward: Function = takes(CanvasSizes, 7)
    peak: Function = takes(PeakSizes, 1)


#: The kinds of operands for which there are pieces, in their order. float16 goes to the plain ones.
_OPERANDS = (torch.float32, torch.float64, torch.bfloat16)


#: Of a checkout that nothing has installed, or of a copy without the library.
_NOT_BUILT = "the C++ kernels are not built here; pip install -e . in the checkout builds them"


#: After a pull or a change of branch. Its functions may take other arguments than they are called with.
_OF_OTHER_SOURCES = (
    "the C++ kernels were built of other sources than are here; pip install -e . in the checkout builds them anew"
)


#: Any machine, AVX2 and AVX-512; of another kind than x86-64, only the first.
LEVELS = (0, 1, 2)


def _built_of(library: ctypes.CDLL) -> str | None:
    try:
        function = library.fastdraw_sources
    except AttributeError:
        # Older than the question.
        return None
    function.restype = ctypes.c_char_p
    return str(function().decode())


@cache
def load() -> tuple[ctypes.CDLL | None, str | None]:
    """The library, or a sentence that says why there is none."""
    path = Path(env.library() or FOLDER / "libfastdraw_cpu.so")
    if not path.exists():
        reason = FOLDER / "not_built.txt"
        return None, reason.read_text().strip() if reason.exists() else _NOT_BUILT
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        return None, f"the C++ kernels do not load: {error}"
    if (sources := digest(FOLDER)) is not None and _built_of(library) != sources:
        return None, _OF_OTHER_SOURCES
    library.fastdraw_kernels.restype = ctypes.POINTER(ctypes.c_void_p)
    library.fastdraw_set_parallel_region.argtypes = [ctypes.c_void_p]
    library.fastdraw_set_parallel_region.restype = None
    # Looked up among what the process has loaded, which is torch's own OpenMP runtime. Without one, one thread does all.
    region = getattr(ctypes.CDLL(None), "GOMP_parallel", None)
    library.fastdraw_set_parallel_region(ctypes.cast(region, ctypes.c_void_p) if region is not None else None)
    os.register_at_fork(after_in_child=lambda: library.fastdraw_set_parallel_region(None))
    return library, None


def unavailable() -> str | None:
    return load()[1]


@cache
def table(level: int | None = None) -> Any:
    """The addresses of all functions. level: 0 for any machine, 1 AVX2, 2 AVX-512; None takes the one that FASTDRAW_LEVEL
    names, or the highest that runs here.

    Raises RuntimeError where the library, or that level on this machine, is missing.
    """
    library, reason = load()
    if library is None:
        raise RuntimeError(reason)
    level = env.level() if level is None else level
    for candidate in reversed(LEVELS) if level is None else (level,):
        if addresses := library.fastdraw_kernels(candidate):
            return addresses
    raise RuntimeError(f"this machine cannot run level {level} of the C++ kernels")


def _at(kind: Any, level: int | None, first: int, step: int) -> Any:
    """Functions whose addresses stand in the table from `first`, every `step`."""
    addresses = table(level)
    return kind._make(make(addresses[first + step * i]) for i, make in enumerate(kind._field_defaults.values()))


@cache
def kernels(dtype: torch.dtype, level: int | None = None) -> Kernels:
    """float32's or float64's functions, which stand side by side."""
    return _at(Kernels, level, int(dtype == torch.float64), 2)


@cache
def functions(dtype: torch.dtype, level: int | None = None) -> PieceFunctions | None:
    """The pieces' functions for operands of this dtype, None where there are none."""
    if dtype not in _OPERANDS:
        return None
    before = 2 * len(Kernels._fields)
    return _at(PieceFunctions, level, before + len(PieceFunctions._fields) * _OPERANDS.index(dtype), 1)


def check(status: int) -> None:
    """What a function gives back, as an exception where it is one."""
    if status == 2:
        raise ValueError("kept: expected what a read left for these windows, got less")
    if status:
        raise MemoryError("the C++ kernels found no memory for their scratch")
