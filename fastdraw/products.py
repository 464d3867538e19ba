"""torch's switches for float32 matrix products, which may run in tf32: read, set, and put back.

There are two interfaces, and what the newer one has set the older one refuses to read: get_float32_matmul_precision() raises
after `torch.backends.cuda.matmul.fp32_precision = "tf32"`. The newer one can always be read, whichever was used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def tf32_allowed() -> bool:
    """Whether torch would run a float32 product on a CUDA device in tf32."""
    return torch.backends.cuda.matmul.fp32_precision == "tf32"


@contextmanager
def float32_products(name: str) -> Iterator[None]:
    """Inside, torch.set_float32_matmul_precision(name): "highest", or "high", which allows tf32. Then all is as it was."""
    # Any: mypy does not see the properties of these modules.
    backends: tuple[Any, ...] = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    try:
        older = torch.get_float32_matmul_precision()
    except RuntimeError:
        # The newer switches are in use, and the older one was never touched.
        older = "highest"
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(older)
        for backend, value in zip(backends, before, strict=True):
            if backend.fp32_precision != value:
                backend.fp32_precision = value
