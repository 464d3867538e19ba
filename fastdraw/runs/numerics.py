"""torch's own switches for precision and determinism, set for a run and put back after it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from fastdraw.products import float32_products


@contextmanager
def numerics(precision: str, deterministic: bool) -> Iterator[None]:
    """precision: fp32, tf32 or bf16 (whose products are autocast's business). deterministic: only such algorithms."""
    # Any: mypy does not see the properties of this module.
    memory: Any = torch.utils.deterministic
    cudnn = torch.backends.cudnn
    flags = cudnn.deterministic, cudnn.benchmark, memory.fill_uninitialized_memory
    before, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        if deterministic:
            # cuBLAS wants this before it is first used.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True)
            # All memory is written before it is read: filling it first costs time and changes nothing.
            memory.fill_uninitialized_memory = False
            cudnn.deterministic, cudnn.benchmark = True, False
        with float32_products("high" if precision == "tf32" else "highest"):
            yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warns)
        cudnn.deterministic, cudnn.benchmark, memory.fill_uninitialized_memory = flags
