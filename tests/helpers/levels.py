"""The instruction sets of the C++ kernels."""

from __future__ import annotations

import contextlib

from fastdraw.kernels import cpu


def levels() -> list[int]:
    """Those that this machine has; none where the kernels were not built."""
    if cpu.unavailable() is not None:
        return []
    found = []
    for level in range(3):
        with contextlib.suppress(RuntimeError):
            cpu.table(level)
            found.append(level)
    return found
