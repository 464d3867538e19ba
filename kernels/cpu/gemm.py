"""Matrix products for the LSTM by the fastest library that torch carries on this machine: MKL (or OpenBLAS), or oneDNN.

torch.mm sends float32 to the first. On some machines the second is up to twice as fast, reached through the operator that
torch's own compiler uses; on others it is slower. One short measurement per process decides; FASTDRAW_GEMM=mkl or onednn
decides without measuring, for results that must be the same bits on every run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from fastdraw import env

#: oneDNN is taken where torch.mm takes this many times as long. Machines were seen where it takes 1.1 to 1.2 times and where
#: it takes twice as long: the margin lies below both, and above what noise does to the best of many trials.
_MARGIN = 1.05
#: Multiplications below which a product is torch.mm's in any case: calling oneDNN costs some 20 microseconds more.
_SMALL = 1 << 22


def product(a: Tensor, b: Tensor) -> Tensor:
    """a [M, K] times b [K, N], both of one dtype; either may be a transposed view. Not differentiable."""
    # A transposed `a` (weight gradients) would be copied by oneDNN, which costs what it wins.
    large = a.dtype == torch.float32 and a.stride(1) == 1 and a.shape[0] * b.numel() >= _SMALL
    # Whether oneDNN is switched on is asked at each call, since a program may switch it off at any time.
    return _onednn(a, b) if large and chosen() == "onednn" and torch.backends.mkldnn.enabled else torch.mm(a, b)


@cache
def chosen() -> str:
    """ "mkl" or "onednn": what float32 products go to in this process."""
    choice = env.gemm()
    if choice == "mkl" or not _has_onednn():
        return "mkl"
    return _measured() if choice == "auto" else choice


def _onednn(a: Tensor, b: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise.default(a, b.t(), None, "none", [], "")


def _has_onednn() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _measured() -> str:
    """Some 50 milliseconds: the best of many trials of each, taken in turn, so that other programs count for little."""
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        # An encoder's step. Constants, so that no random numbers are drawn from the user's generator.
        a, b = torch.full((128, 512), 0.5), torch.full((1024, 512), 0.5).t()
        functions: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (torch.mm, _onednn)
        best = [float("inf")] * 2
        for trial in range(30):
            for i, function in enumerate(functions):
                start = time.perf_counter()
                function(a, b)
                # The first trial is for starting threads and choosing code.
                best[i] = min(best[i], time.perf_counter() - start) if trial else best[i]
    return "onednn" if best[0] > _MARGIN * best[1] else "mkl"
