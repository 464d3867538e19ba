"""What a user's numbers must be, and the sentences said when they are not: the argument, what was expected, what came.

Nothing here imports torch, so that a command's options are there before it is.
"""

from __future__ import annotations

import operator
import sys
from typing import Any


def _is(kind: str, value: Any) -> bool:
    """Whether it is one of torch's; none is where torch was not imported."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, getattr(torch, kind))


def describe(value: Any) -> str:
    """A short name for what came, safe for tensors of any size."""
    if _is("Tensor", value):
        dtype = str(value.dtype).removeprefix("torch.")
        return f"a {dtype} tensor of shape {tuple(value.shape)} on {value.device}"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def expected(name: str, what: str, value: Any, error: type[Exception] = ValueError) -> Exception:
    """The error for argument `name`: raise what this returns."""
    return error(f"{name}: expected {what}, got {describe(value)}")


def check_size(name: str, value: Any, least: int = 1) -> int:
    """A whole number of at least `least`; numpy's integers pass, booleans do not."""
    if isinstance(value, bool):
        raise expected(name, "a whole number", value, TypeError)
    if type(value) is not int and not _is("SymInt", value):
        try:
            value = operator.index(value)
        except TypeError:
            raise expected(name, "a whole number", value, TypeError) from None
    if value < least:
        raise expected(name, f"at least {least}", value)
    return value
