"""Programmatic dependent launch: a kernel begins while the one before it still runs, and waits where it needs its results.

On devices of compute capability 9 and later. Without it a launch begins when the last program of the one before has ended,
which costs a microsecond or so a kernel, as much as the recurrence's smallest kernels take.
"""

from __future__ import annotations

from functools import cache

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from fastdraw import env


@triton.jit
def after_the_last_kernel(DEPENDENT: tl.constexpr):
    """Stands before a kernel's first load and store: all that earlier kernels wrote is there after it. The next kernel may
    begin from here on; it has the same wait in front of its own loads and stores."""
    if DEPENDENT:
        gdc_wait()
        gdc_launch_dependents()


def dependent() -> bool:
    """Whether kernels on the current device are launched so: the value of their DEPENDENT."""
    return torch.cuda.is_available() and not env.triton_interpreted() and _able(torch.cuda.current_device())


@cache
def _able(device: int) -> bool:
    return torch.version.hip is None and torch.cuda.get_device_capability(device)[0] >= 9
