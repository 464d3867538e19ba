"""Floating point: float32, float64, float16, bfloat16 and pairs of the last two."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from .formats import (
    F32,
    F64,
    NAN32,
    TYPES,
    U16,
    Array,
    approximate,
    flushed,
    from_bf16,
    from_f16,
    fused,
    fused_double,
)  # fmt: skip
from .operands import Operands
from .registry import Step, instruction

_BINARY: dict[str, Callable[..., Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "min": np.fmin,
    "max": np.fmax,
    "min.NaN": np.minimum,
    "max.NaN": np.maximum,
}
_UNARY: dict[str, Callable[..., Array]] = {"neg": np.negative, "abs": np.abs, "sqrt": np.sqrt, "rcp": np.reciprocal}


def one_nan(values: Array) -> Array:
    """float32 results that are NaN have these bits, whatever the operands' were."""
    if values.dtype == F32:
        invalid = values != values
        if invalid.any():
            return np.where(invalid, NAN32.view(F32), values)
    return values


def _pointwise(o: Operands, kind: str, ops: tuple[str, ...], function: Callable[..., Array], flush: bool) -> Step:
    write, readers = o.writer(ops[0]), [o.reader(one, kind) for one in ops[1:]]

    def run(unit: Any, mask: Any) -> None:
        values = [read(unit) for read in readers]
        if flush:
            values = [flushed(np.asarray(value)) for value in values]
        result = function(*values)
        write(unit, one_nan(flushed(result) if flush else result), mask)

    return run


@instruction(
    r"(add|sub|mul)(?:\.rn)?(\.ftz)?\.(f32|f64)", r"(min|max)(\.ftz)?(\.NaN)?\.(f32|f64)", r"(div)\.rn(\.ftz)?\.(f32|f64)"
)
def two(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    name = match[1] + (".NaN" if ".NaN" in match[0] else "")
    _expect(ops, 3)
    return _pointwise(o, match[0].rsplit(".", 1)[1], ops, _BINARY[name], ".ftz" in match[0])


@instruction(r"(neg|abs)(\.ftz)?\.(f32|f64)", r"(sqrt|rcp)\.rn(\.ftz)?\.(f32|f64)")
def one(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    _expect(ops, 2)
    return _pointwise(o, match[3], ops, _UNARY[match[1]], bool(match[2]))


@instruction(r"fma\.rn(\.ftz)?\.(f32|f64)")
def multiply_add(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    _expect(ops, 4)
    return _pointwise(o, match[2], ops, fused if match[2] == "f32" else fused_double, bool(match[1]))


#: Largest errors by PTX's manual, as bits: ex2 and lg2 2^-22, div.full 2 ulp, rcp and sqrt 1 ulp, tanh 2^-11.
_APPROXIMATE: dict[str, tuple[Callable[..., Array], float]] = {
    "ex2": (np.exp2, 22),
    "lg2": (np.log2, 22),
    "sqrt": (np.sqrt, 23),
    "rcp": (np.reciprocal, 23),
    "rsqrt": (lambda a: 1.0 / np.sqrt(a), 22.4),
    "tanh": (np.tanh, 11),
}


@instruction(r"(ex2|lg2|sqrt|rcp|rsqrt)\.approx(\.ftz)?\.f32", r"(tanh)\.approx()\.f32")
def approximated(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    function, bits = _APPROXIMATE[match[1]]
    _expect(ops, 2)

    def near(a: Array) -> Array:
        a = np.asarray(a)
        return approximate(a, function(a.astype(F64)), bits)

    return _pointwise(o, "f32", ops, near, bool(match[2]))


@instruction(r"div\.(full|approx)(\.ftz)?\.f32")
def divide(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    _expect(ops, 3)

    def near(a: Array, b: Array) -> Array:
        exact = np.divide(a, b, dtype=F64)
        return approximate(np.add(a, b), exact, 22)

    return _pointwise(o, "f32", ops, near, bool(match[2]))


_COMPARE: dict[str, Callable[..., Array]] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}


@instruction(r"setp\.((?:eq|ne|lt|le|gt|ge)u?|num|nan)(?:\.(and|or|xor))?(\.ftz)?\.(f32|f64|f16|bf16)")
def compare(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    name, combine, flush, kind = match.groups()
    held = U16 if kind in ("f16", "bf16") else TYPES[kind]
    a, b = o.reader(ops[1], held), o.reader(ops[2], held)
    finish = finish_compare(o, ops, combine)

    def run(unit: Any, mask: Any) -> None:
        x, y = np.asarray(a(unit)), np.asarray(b(unit))
        if held == U16:
            x, y = (from_bf16(v) if kind == "bf16" else from_f16(v) for v in (x, y))
        if flush:
            x, y = flushed(x), flushed(y)
        unordered = np.isnan(x) | np.isnan(y)
        if name in ("num", "nan"):
            result = unordered if name == "nan" else ~unordered
        else:
            result = _COMPARE[name[:2]](x, y)
            result = result | unordered if name.endswith("u") else result & ~unordered
        finish(unit, result, mask)

    return run


def finish_compare(o: Operands, ops: tuple[str, ...], combine: str | None) -> Any:
    """Writes a comparison's result and, where a second destination is named, its opposite; each combined with a predicate."""
    writers = [o.writer(one.strip()) for one in ops[0].split("|")]
    _expect(ops, 4 if combine else 3)
    other = o.predicate(ops[3]) if combine else None
    function = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor, None: None}[combine]

    def finish(unit: Any, result: Array, mask: Any) -> None:
        for write, value in zip(writers, (result, ~result), strict=False):
            write(unit, value if function is None or other is None else function(value, other(unit)), mask)

    return finish


def _expect(ops: tuple[str, ...], count: int) -> None:
    if len(ops) != count:
        raise ValueError(f"{len(ops)} operands, expected {count}")
