"""What values of single options must be. Each raises ValueError or TypeError naming option, expectation and what came."""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from numbers import Real
from typing import Any

from fastdraw.checks import check_size, expected


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


def check_image_size(value: Any) -> str:
    """A number for height and width, or both, as text: "48x64"."""
    texts = value.split("x") if isinstance(value, str) else [value]
    try:
        sizes = [check_size("image_size", int(text) if isinstance(text, str) else text) for text in texts]
    except (ValueError, TypeError) as error:
        raise expected("image_size", "a number of at least 1, or two, as in 48x64", value, type(error)) from None
    if len(sizes) > 2 or max(sizes) > LARGEST_SIDE:
        raise expected("image_size", f"one number or two, as in 48x64, each at most {LARGEST_SIDE:,}", value)
    return f"{sizes[0]}x{sizes[-1]}"


#: Pixels, or filters, along a side.
LARGEST_SIDE = 1 << 16


def image_size(text: str | None) -> tuple[int, int] | None:
    """(height, width) of what `check_image_size` gives."""
    if text is None:
        return None
    height, width = text.split("x")
    return int(height), int(width)


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


def check_choice(name: str, value: Any, choices: Collection[str]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise expected(name, f"one of {', '.join(choices)}", value)


def check_kind(name: str, value: Any, kind: type) -> Any:
    """`value` as `kind`: text (str, where a path is that too), yes or no (bool), a number (float)."""
    if kind is float and isinstance(value, Real) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise expected(name, "a finite number", value) from None
    if kind is str and isinstance(value, os.PathLike):
        value = os.fspath(value)
    if kind is float or not isinstance(value, kind):
        raise expected(name, {str: "text", bool: "True or False", float: "a number"}[kind], value, TypeError)
    return value
