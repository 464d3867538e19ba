"""Integers, bits and predicates."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from .arithmetic import _COMPARE, finish_compare
from .formats import I64, TYPES, U32, U64, UNSIGNED, Array
from .operands import Operands
from .registry import Step, instruction

_INT = r"([us](?:16|32|64))"


def _divide(a: Array, b: Array) -> Array:
    """Towards zero. What a division by zero gives is left open: all bits set, as on the hardware."""
    zero = b == 0
    safe = np.where(zero, np.ones_like(b), b)
    if a.dtype.kind == "u":
        return np.where(zero, ~np.zeros_like(a), a // safe).astype(a.dtype)
    # numpy's is towards minus infinity.
    quotient = a // safe + ((a % safe != 0) & ((a < 0) != (safe < 0)))
    return np.where(zero, ~np.zeros_like(a), quotient).astype(a.dtype)


def _remainder(a: Array, b: Array) -> Array:
    return (a - _divide(a, b) * b).astype(a.dtype)


_TWO: dict[str, Callable[..., Array]] = {
    **{"add": np.add, "sub": np.subtract, "mul.lo": np.multiply, "min": np.minimum, "max": np.maximum},
    **{"div": _divide, "rem": _remainder},
}


def _apply(o: Operands, kinds: list[Any], ops: tuple[str, ...], function: Callable[..., Array]) -> Step:
    if len(ops) != len(kinds) + 1:
        raise ValueError(f"{len(ops)} operands")
    write, readers = o.writer(ops[0]), [o.reader(one, kind) for one, kind in zip(ops[1:], kinds, strict=True)]

    def run(unit: Any, mask: Any) -> None:
        write(unit, function(*(np.broadcast_to(read(unit), (unit.lanes,)) for read in readers)), mask)

    return run


@instruction(rf"(add|sub|min|max|div|rem|mul\.lo)\.{_INT}")
def two(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    return _apply(o, [match[2]] * 2, ops, _TWO[match[1]])


@instruction(rf"mad\.lo\.{_INT}")
def multiply_add(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    return _apply(o, [match[1]] * 3, ops, lambda a, b, c: a * b + c)


@instruction(r"(mul|mad)\.(wide|hi)\.([us])(16|32)")
def multiply_wide(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    name, part, sign, bits = match[1], match[2], match[3], int(match[4])
    kind, wide = f"{sign}{bits}", TYPES[f"{sign}{2 * bits}"]

    def product(a: Array, b: Array, *c: Array) -> Array:
        result = a.astype(wide) * b.astype(wide)
        if part == "hi":
            result = (result >> wide.type(bits)).astype(TYPES[kind])
        return result + c[0] if c else result

    last = [wide if part == "wide" else kind] if name == "mad" else []
    return _apply(o, [kind, kind, *last], ops, product)


@instruction(r"(and|or|xor)\.b(16|32|64)", r"(not)\.b(16|32|64)")
def bits(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    functions = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "not": np.invert}
    return _apply(o, [f"b{match[2]}"] * (len(ops) - 1), ops, functions[match[1]])


@instruction(r"(and|or|xor|not)\.pred")
def logic(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    functions = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor, "not": np.logical_not}
    return _apply(o, ["pred"] * (len(ops) - 1), ops, functions[match[1]])


@instruction(r"(neg|abs)\.(s(?:16|32|64))")
def sign(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    return _apply(o, [match[2]], ops, np.negative if match[1] == "neg" else np.abs)


@instruction(r"(shl)\.b(16|32|64)", r"(shr)\.([bus])(16|32|64)")
def shift(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    left, signed = match[1] == "shl", match[0].startswith("shr.s")
    width = int(match[match.lastindex or 0])
    kind = TYPES[f"{'s' if signed else 'u'}{width}"]

    def shifted(value: Array, count: Array) -> Array:
        step = np.minimum(count, width - 1).astype(kind)
        result = value << step if left else value >> step
        return result if signed else np.where(count >= width, kind.type(0), result)

    return _apply(o, [kind, U32], ops, shifted)


@instruction(r"bfe\.([us])(32|64)")
def extract(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    width = int(match[2])
    kind = TYPES[f"{match[1]}{width}"]

    def extracted(value: Array, first: Array, count: Array) -> Array:
        first, count = first & np.uint32(255), count & np.uint32(255)
        # Bits past the end are those of the sign, or zeros; so is the result's upper part.
        low = value >> np.minimum(first, width - 1).astype(kind)
        low = low if match[1] == "s" else np.where(first >= width, kind.type(0), low)
        spare = np.clip(width - count.astype(I64), 0, width - 1).astype(kind)
        return np.where(count == 0, kind.type(0), (low << spare) >> spare)

    return _apply(o, [kind, U32, U32], ops, extracted)


@instruction(r"prmt\.b32")
def permute(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    def permuted(a: Array, b: Array, selector: Array) -> Array:
        both = a.astype(U64) | (b.astype(U64) << np.uint64(32))
        result = np.zeros(a.shape, U32)
        for i in range(4):
            pick = (selector >> np.uint32(4 * i)) & np.uint32(15)
            byte = ((both >> ((pick & np.uint32(7)) * np.uint32(8)).astype(U64)) & np.uint64(255)).astype(U32)
            spread = np.where(byte & np.uint32(128), np.uint32(255), np.uint32(0))
            result |= np.where(pick & np.uint32(8), spread, byte) << np.uint32(8 * i)
        return result

    return _apply(o, [U32] * 3, ops, permuted)


@instruction(
    r"setp\.(eq|ne|lt|le|gt|ge)(?:\.(and|or|xor))?\.([bus](?:16|32|64))",
    r"setp\.(lo|ls|hi|hs)(?:\.(and|or|xor))?\.(u(?:16|32|64))",
)
def compare(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    function = _COMPARE[{"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}.get(match[1], match[1])]
    a, b, finish = o.reader(ops[1], match[3]), o.reader(ops[2], match[3]), finish_compare(o, ops, match[2])
    return lambda unit, mask: finish(unit, np.asarray(function(a(unit), b(unit))), mask)


@instruction(r"selp\.([bus](?:16|32|64)|f32|f64)")
def select(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    kind = UNSIGNED[TYPES[match[1]].itemsize]
    a, b, choose, write = o.reader(ops[1], kind), o.reader(ops[2], kind), o.predicate(ops[3]), o.writer(ops[0])
    return lambda unit, mask: write(unit, np.where(choose(unit), a(unit), b(unit)), mask)
