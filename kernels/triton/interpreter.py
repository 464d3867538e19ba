"""Triton 3.6's interpreter beside numpy 2.4 and later, which no longer turns an array of one element into an integer.

The interpreter keeps scalars as such arrays and asks for an integer at every loop's bounds. Triton 3.7 asks rightly; goes away
with the support of 3.6. Nothing of this concerns compiled kernels.
"""

from __future__ import annotations

from typing import Any

import triton


def accept_new_numpy() -> None:
    if not triton.__version__.startswith("3.6."):
        return
    from triton.runtime import interpreter

    original = interpreter._patch_lang_tensor

    def patch_lang_tensor(tensor: Any, scope: Any) -> None:
        original(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patch_lang_tensor
