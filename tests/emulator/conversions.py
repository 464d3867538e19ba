"""cvt: between all types, with the roundings that are used."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from .formats import (
    F32,
    F64,
    TYPES,
    U16,
    U32,
    Array,
    double_to_bf16,
    flushed,
    from_bf16,
    from_f16,
    joined,
    to_bf16,
    to_f16,
    to_tf32,
)  # fmt: skip
from .operands import Operands
from .registry import Step, instruction

_TO_INTEGRAL: dict[str, Callable[..., Array]] = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}
_FLOAT = "f16|bf16|f32|f64"
_WIDTH = {"f16": 1, "bf16": 1, "f32": 2, "f64": 3}


def _one(o: Operands, ops: tuple[str, ...], kind: Any, function: Callable[[Array], Array]) -> Step:
    read, write = o.reader(ops[1], kind), o.writer(ops[0])
    if len(ops) != 2:
        raise ValueError(f"{len(ops)} operands")
    return lambda unit, mask: write(unit, function(np.broadcast_to(read(unit), (unit.lanes,))), mask)


def _read(kind: str) -> Callable[[Array], Array]:
    return {"f16": from_f16, "bf16": from_bf16}.get(kind, lambda value: value)


def _round(values: Array, kind: str) -> Array:
    """To the nearest."""
    if kind == "bf16":
        return double_to_bf16(values) if values.dtype == F64 else to_bf16(values)
    return to_f16(values) if kind == "f16" else values.astype(TYPES[kind])


def _bits(kind: str) -> Any:
    return U16 if kind in ("f16", "bf16") else TYPES[kind]


@instruction(rf"cvt(?:\.(rn|rni|rzi|rmi|rpi))?(\.ftz)?\.({_FLOAT})\.({_FLOAT})")
def float_to_float(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    rounding, flush, to, origin = match.groups()
    integral = _TO_INTEGRAL.get(rounding)
    if (rounding is None and _WIDTH[to] <= _WIDTH[origin]) or (rounding == "rn" and _WIDTH[to] >= _WIDTH[origin]):
        raise ValueError(f"rounding {rounding} from {origin} to {to}")
    if integral is not None and to != origin:
        raise ValueError("an integral value of another type")
    read = _read(origin)

    def convert(bits: Array) -> Array:
        value = read(bits)
        value = flushed(value) if flush else value
        result = _round(value if integral is None else integral(value), to)
        return flushed(result) if flush else result

    return _one(o, ops, _bits(origin), convert)


@instruction(rf"cvt\.(rni|rzi|rmi|rpi)(\.ftz)?\.([us](?:8|16|32|64))\.({_FLOAT})")
def float_to_integer(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    """Beyond the range its end; NaN is 0, of 64 bits the sign's bit."""
    rounding, flush, to, origin = match.groups()
    kind, read = TYPES[to], _read(origin)
    limits = np.iinfo(kind)

    def convert(bits: Array) -> Array:
        value = read(bits)
        value = _TO_INTEGRAL[rounding]((flushed(value) if flush else value).astype(F64))
        inside = (value >= float(limits.min)) & (value < float(limits.max) + (0 if limits.bits == 64 else 1))
        result = np.where(inside, value, 0.0).astype(kind)
        result = np.where(inside, result, np.where(value > 0, limits.max, limits.min).astype(kind))
        invalid = 0 if limits.bits < 64 else np.array(1 << 63, np.uint64).view(kind)
        return np.where(np.isnan(value), np.array(invalid, kind), result)

    return _one(o, ops, _bits(origin), convert)


@instruction(rf"cvt\.rn\.({_FLOAT})\.([us](?:8|16|32|64))")
def integer_to_float(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    to, origin = match.groups()
    if to in ("f16", "bf16") and TYPES[origin].itemsize == 8:
        raise ValueError("two roundings")
    return _one(o, ops, origin, lambda value: _round(value.astype(F64 if to in ("f16", "bf16") else TYPES[to]), to))


@instruction(r"cvt\.([us](?:8|16|32|64))\.([us](?:8|16|32|64))")
def integer_to_integer(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    return _one(o, ops, match[2], lambda value: value.astype(TYPES[match[1]]))


@instruction(r"cvt\.rn\.(bf16|f16)x2\.f32")
def pair(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    """The first operand is the upper half."""
    upper, lower, write = o.reader(ops[1], F32), o.reader(ops[2], F32), o.writer(ops[0])

    def run(unit: Any, mask: Any) -> None:
        parts = [_round(np.broadcast_to(read(unit), (unit.lanes,)), match[1]) for read in (lower, upper)]
        write(unit, joined(*parts), mask)

    return run


@instruction(r"cvt\.(rna|rn)\.tf32\.f32")
def tf32(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    return _one(o, ops, F32, lambda value: to_tf32(value, match[1] == "rna").view(U32))
