"""Where Triton's interpreter differs from every device, and is set right. Nothing of this concerns compiled kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl


def accept_new_numpy() -> None:
    """numpy 2.4 and later no longer turn an array of one element into an integer. The interpreter keeps scalars as such arrays
    and asks for an integer at every loop's bounds; Triton 3.7 asks rightly. Goes away with the support of 3.6."""
    if not triton.__version__.startswith("3.6."):
        return
    from triton.runtime import interpreter

    original = interpreter._patch_lang_tensor

    def patch_lang_tensor(tensor: Any, scope: Any) -> None:
        original(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patch_lang_tensor


def round_bfloat16() -> None:
    """float32 is rounded to the nearest bfloat16, where the interpreter (3.6, 3.7) cuts the lower bits off."""
    from triton.runtime import interpreter

    builder = interpreter.InterpreterBuilder
    original = builder.cast_impl

    def cast_impl(self: Any, source: Any, dtype: Any) -> Any:
        if source.dtype.scalar != tl.float32 or dtype.scalar != tl.bfloat16:
            return original(self, source, dtype)
        rounded = torch.from_numpy(np.ascontiguousarray(source.data)).to(torch.bfloat16)
        # The interpreter keeps bfloat16 as its bits.
        return interpreter.TensorHandle(rounded.view(torch.int16).numpy().view(np.uint16), dtype.scalar)

    builder.cast_impl = cast_impl
