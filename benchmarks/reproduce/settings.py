"""Options of `fastdraw train` written as NAME=VALUE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastdraw.checks import expected


def options_of(texts: Sequence[str]) -> dict[str, Any]:
    """Each value as its option wants it. Raises ValueError for what is no option, or no value of one."""
    # Not at the top: help needs none of it.
    from fastdraw.train.options import DEFAULTS, TrainOptions

    found: dict[str, Any] = {}
    for text in texts:
        name, given, value = text.partition("=")
        if name not in DEFAULTS or not given:
            raise expected("set", "an option of `fastdraw train` as NAME=VALUE", text)
        kind = TrainOptions.__annotations__[name]
        try:
            found[name] = value if "str" in kind else _number(value, kind)
        except ValueError:
            raise expected(name, kind.replace(" | None", ""), value) from None
    return found


def _number(value: str, kind: str) -> float | int | bool:
    if kind == "bool":
        return ("false", "true").index(value) == 1
    return float(value) if "float" in kind else int(value)
