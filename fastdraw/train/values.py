"""What values of single options must be. Each raises ValueError naming the option, what was expected and what came."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from fastdraw.checks import check_size, expected


def check_filters(name: str, value: Any) -> str | None:
    if value is None or value == "none":
        return value
    try:
        return str(check_size(name, int(value)))
    except ValueError:
        raise expected(name, "a number of at least 1, or none", value) from None


def check_canvas(value: str) -> None:
    if value in ("mean", "zero"):
        return
    try:
        finite = math.isfinite(float(value))
    except ValueError:
        finite = False
    if not finite:
        raise expected("initial_canvas", "mean, zero or a finite number", value)


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    if value not in choices:
        raise expected(name, f"one of {', '.join(choices)}", value)
