"""What values of single options must be. Each raises ValueError or TypeError naming option, expectation and what came."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from fastdraw.runs.options import LARGEST_SIDE
from fastdraw.scalars import check_size, expected

#: What a rate is multiplied by when a share of the steps (0 to 1, warm-up left out) is done.
SHAPES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
    "step": lambda done: 1.0 if done < 0.5 else 0.1 if done < 0.75 else 0.01,
}


def check_filters(name: str, value: Any) -> str | None:
    if value is None or value == "none":
        return value
    try:
        size = check_size(name, int(value) if isinstance(value, str) else value)
    except (ValueError, TypeError) as error:
        raise expected(name, "a number of at least 1, or none", value, type(error)) from None
    if size > LARGEST_SIDE:
        raise expected(name, f"at most {LARGEST_SIDE:,}, or none", value)
    return str(size)


def check_canvas(value: Any) -> None:
    if value in ("mean", "zero"):
        return
    try:
        finite = math.isfinite(float(value))
    except (ValueError, TypeError, OverflowError):
        finite = False
    if not finite:
        raise expected("initial_canvas", "mean, zero or a finite number", value)


def check_resume(value: Any) -> bool | str:
    """True, False or "auto"; a command line's yes and no are the first two."""
    said = {"yes": True, "no": False}.get(value, value) if isinstance(value, str) else value
    if isinstance(said, bool) or said == "auto":
        return said
    raise expected("resume", "yes, no or auto", value, ValueError if isinstance(value, str) else TypeError)
