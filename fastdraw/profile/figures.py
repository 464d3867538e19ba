"""A variant's figures, and numbers as people read them."""

from __future__ import annotations

import statistics
from typing import Any

#: One variant's figures: what `row` makes.
Row = dict[str, Any]


def row(name: str, seconds: list[float], eager: float | None = None, note: str = "") -> Row:
    """One variant's figures; `seconds` holds a figure for each turn, and is empty for what could not be measured."""
    low, middle, high = (None, None, None)
    if seconds:
        low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else seconds * 3
    return {"name": name, "median": middle, "low": low, "high": high, "turns": len(seconds), "eager": eager, "note": note}


def time_text(seconds: float) -> str:
    """Three digits and a unit: 1.23 ms."""
    unit, size = next(((u, s) for u, s in (("s", 1.0), ("ms", 1e-3)) if seconds >= s), ("us", 1e-6))
    return f"{digits(seconds / size)} {unit}"


def count_text(number: float, unit: str) -> str:
    """Three digits and a prefix: 1.23 MB."""
    prefixes = (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))
    prefix, size = next(((p, s) for p, s in prefixes if number >= s), ("", 1.0))
    return f"{digits(number / size)} {prefix}{unit}"


def digits(number: float) -> str:
    return f"{number:.0f}" if number >= 99.95 else f"{number:.1f}" if number >= 9.995 else f"{number:.2f}"


def mebibytes_text(number: float) -> str:
    return f"{digits(number / 2**20)} MiB"
