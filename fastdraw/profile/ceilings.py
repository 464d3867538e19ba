"""What this machine can do at best, measured: the rates that turn bytes and operations into the floor of a time."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch

from fastdraw.products import float32_products
from fastdraw.profile.cost import Cost
from fastdraw.profile.timing import captured

#: Side of the square products; large enough for the full rate, small enough for a few milliseconds on two cores.
CPU_SIDE, CUDA_SIDE = 1024, 8192
#: Rounds of a measurement of the peak: a millisecond or two, beside which threads start quickly.
PEAK_ROUNDS = 1 << 19
#: Bytes of a copy that no cache of a GPU holds.
LARGE = 1 << 30


def copy_rate(device: str, nbytes: int) -> float:
    """Bytes per second, read and written, of a copy. Its buffers have `nbytes` together: caches help as they would."""
    # A power of two, so that cases of about one size share a measurement.
    return _copy_rate(device, 1 << max(16, (nbytes - 1).bit_length()))


@cache
def _copy_rate(device: str, nbytes: int) -> float:
    source = torch.ones(nbytes // 8, device=device)
    target = torch.zeros_like(source)
    return nbytes / _best(device, lambda: target.copy_(source))


@cache
def product_rate(device: str, precision: str) -> float:
    """Operations per second of torch's best square matrix product in "float32", "tf32" or "bfloat16"."""
    side = CUDA_SIDE if device == "cuda" else CPU_SIDE
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    products: list[Callable[[], Any]] = [lambda: torch.mm(a, b)]
    if device == "cpu" and torch.backends.mkldnn.is_available():
        # torch.mm goes to MKL in float32, which on some chips is the slower of the two libraries.
        products.append(lambda: torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], ""))
    with float32_products("high" if precision == "tf32" else "highest"), torch.no_grad():
        return 2 * side**3 / min(_best(device, product) for product in products)


@cache
def peak_rate(precision: str, threads: int) -> float | None:
    """Operations per second of this CPU's multiply-adds in registers, with nothing to load: the best of the instruction sets
    that the C++ library has and this machine runs. None without the library.

    bfloat16 is multiplied in pairs where the CPU has AVX-512's instruction for it, and widened to float32 otherwise; every
    other precision is float32.
    """
    from fastdraw.kernels.cpu import library, unavailable
    from fastdraw.kernels.cpu.sizes import PeakSizes, named

    if unavailable() is not None:
        return None
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    sizes, operations = named(PeakSizes, rounds=PEAK_ROUNDS, threads=threads), ctypes.c_int64()
    # Where other programs take the cores, one thread does more than all that wait for each other.
    best = peak_rate(precision, 1) or 0.0 if threads > 1 else 0.0
    for level in library.LEVELS:
        try:
            functions = library.functions(dtype, level)
        except RuntimeError:
            # This machine has no such instructions.
            continue
        assert functions is not None
        peak = partial(functions.peak, sizes, ctypes.addressof(operations))
        seconds = _best("cpu", peak, 0.1)
        best = max(best, operations.value / seconds)
    return best


def compute_rate(device: str, precision: str) -> float:
    """What operations are held against: on a GPU torch's best product, and on a CPU the peak of all threads, unless torch's
    product is quicker: it may have instructions that the C++ library has not (AMX, bfloat16 on ARM)."""
    product = product_rate(device, precision)
    return max(product, (peak_rate(precision, torch.get_num_threads()) or 0.0) if device == "cpu" else 0.0)


@cache
def kernel_seconds(device: str) -> float:
    """Seconds that the smallest kernel takes in a captured graph; nothing on a CPU."""
    if device != "cuda":
        return 0.0
    tiny = torch.zeros(1, device=device)
    return _captured(lambda: [tiny.add_(1.0) for _ in range(1000)]) / 1000


def launch_seconds() -> float:
    """Seconds that Python takes to launch one small kernel of torch's."""
    tiny = torch.zeros(1, device="cuda")
    return _host(lambda: [tiny.add_(1.0) for _ in range(1000)]) / 1000


def floor(cost: Cost, device: str, precision: str) -> tuple[float, str]:
    """The least time in seconds that the measured ceilings allow, and what sets it."""
    # On a GPU, inputs rotate so that none is found in L2: memory's rate counts. On a CPU, caches help small cases.
    moved = cost.bytes if device == "cpu" else LARGE
    candidates = [
        (cost.bytes / copy_rate(device, moved), "bytes"),
        (cost.operations / compute_rate(device, precision), "operations"),
        (cost.launches * kernel_seconds(device), "launches"),
    ]
    return max(candidates)


def describe(device: str) -> dict[str, float]:
    """Every ceiling by a name with its unit."""
    mebibytes = (1, 16, 1024) if device == "cuda" else (1, 64)
    found = {f"copy of {size} MiB, GB/s": copy_rate(device, size << 20) * 1e-9 for size in mebibytes}
    for precision in ("float32", "tf32", "bfloat16") if device == "cuda" else ("float32",):
        found[f"product in {precision}, GFLOP/s"] = product_rate(device, precision) * 1e-9
    for precision in ("float32", "bfloat16") if device == "cpu" else ():
        if peak := peak_rate(precision, torch.get_num_threads()):
            found[f"multiply-adds in {precision}, GFLOP/s"] = peak * 1e-9
    if device == "cuda":
        found["kernel in a graph, us"] = kernel_seconds(device) * 1e6
        found["launch from Python, us"] = launch_seconds() * 1e6
    return found


def _best(device: str, function: Callable[[], Any], most: float = 0.33) -> float:
    """Seconds of the quickest of a few dozen calls, or of calls for `most` seconds: a ceiling is a best."""
    if device == "cuda":
        return _captured(lambda: [function() for _ in range(10)]) / 10
    function()
    best, end = float("inf"), time.perf_counter() + most
    for _ in range(2000):
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
        if time.perf_counter() > end:
            break
    return best


def _captured(function: Callable[[], Any]) -> float:
    """Seconds of the quickest of ten replays of what `function` launches."""
    replayed = captured(function)
    return min(replayed(1) for _ in range(10))


def _host(function: Callable[[], Any]) -> float:
    best = float("inf")
    for _ in range(5):
        torch.cuda.synchronize()
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    torch.cuda.synchronize()
    return best
