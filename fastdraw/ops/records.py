"""An operator's arguments as a named tuple. torch's schemas are flat lists of tensors and numbers; what they stand for is a
tuple with names, some of whose fields are such tuples themselves, and whose fields in their order are that list.

Modules with records have annotations that are types and no strings (no `from __future__ import annotations`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor

#: A NamedTuple of tensors, options, and tuples of those.
Record = TypeVar("Record", bound=tuple[Any, ...])

_TYPES = {Tensor: "Tensor", Tensor | None: "Tensor?", int: "int", bool: "bool", str: "str", torch.dtype: "ScalarType"}


@cache
def _layout(kind: Any) -> tuple[int, list[tuple[int | slice, Callable[[Any], Any] | None]]]:
    """How many arguments there are; for each field where it stands among them, and what makes it of several."""
    places: list[tuple[int | slice, Callable[[Any], Any] | None]] = []
    count = 0
    for hint in kind.__annotations__.values():
        first, count = count, count + len(getattr(hint, "_fields", "1"))
        places.append((first, None) if hint in _TYPES else (slice(first, count), hint._make))
    return count, places


def named(kind: type[Record], arguments: Sequence[Any]) -> Record:
    """The record whose fields these are, in their order. Raises TypeError where there are more or fewer."""
    count, places = _layout(kind)
    if len(arguments) != count:
        raise TypeError(f"{kind.__name__}: expected {count} arguments, got {len(arguments)}")
    made: Any = kind
    return made._make([arguments[place] if make is None else make(arguments[place]) for place, make in places])


def flat(record: tuple[Any, ...]) -> tuple[Any, ...]:
    """All fields in their order; the reverse of `named`."""
    found: list[Any] = []
    for value in record:
        if isinstance(value, tuple):
            found += value
        else:
            found.append(value)
    return tuple(found)


@cache
def nothing(kind: type[Record]) -> Any:
    """None in every place: no gradient."""
    return named(kind, [None] * _layout(kind)[0])


def schema(kind: type[Record], prefix: str = "", **prefixes: str) -> str:
    """A record's fields as torch's schemas name them. prefix: before their names; prefixes: the same for records inside."""
    hints: Any = kind.__annotations__
    return ", ".join(
        f"{_TYPES[hint]} {prefix}{name}" if hint in _TYPES else schema(hint, prefixes.get(name, ""))
        for name, hint in hints.items()
    )


def tensors(kind: type[Record]) -> str:
    """A record of tensors as torch's schemas have results, without names."""
    return ", ".join(["Tensor"] * _layout(kind)[0])
