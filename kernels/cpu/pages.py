"""Large pages for large buffers: a training step's tape is fresh memory at every step, and what costs is not to use it but
that the kernel hands it out, and zeroes it, 4 KiB at a time (64 MiB: 32 ms in small pages, 8 ms in large ones)."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

from torch import Tensor

#: Of a large page on x86-64 and on most of ARM; where it is another size the advice is taken for fewer bytes, or for none.
_PAGE = 2 << 20
_MADV_HUGEPAGE = 14


def prefer_large(*tensors: Tensor) -> None:
    """Asks for large pages under whole 2 MiB blocks of these new CPU tensors. Advice only: it never fails."""
    advise = _advise()
    for tensor in tensors:
        first = -(-tensor.data_ptr() // _PAGE) * _PAGE
        count = (tensor.data_ptr() + tensor.nbytes - first) // _PAGE
        if advise is not None and count > 1:
            advise(first, count * _PAGE, _MADV_HUGEPAGE)


@cache
def _advise() -> ctypes._NamedFuncPointer | None:
    if not sys.platform.startswith("linux"):
        return None
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return advise
