"""Operands of instructions as functions of a Unit (machine.py): readers, writers, addresses."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from .faults import Unknown
from .formats import I64, TYPES, U32, U64, UNSIGNED, Array
from .memory import SHARED_BASE
from .parser import Kernel

Reader = Callable[[Any], Array]
Writer = Callable[[Any, Array, Any], None]
SPECIAL = {f"%{name}.{axis}" for name in ("tid", "ntid", "ctaid", "nctaid") for axis in "xyz"} | {"%laneid", "%warpid"}


def listed(token: str) -> list[str]:
    """The registers of {%r1, %r2}, or of a single one."""
    return [part.strip() for part in token[1:-1].split(",")] if token.startswith("{") else [token]


def immediate(token: str, dtype: np.dtype) -> Any:
    bits = None
    if re.fullmatch(r"0[fF][0-9a-fA-F]{8}", token):
        value = np.uint32(int(token[2:], 16)).view(np.float32)
        return dtype.type(value) if dtype == np.float64 else _of_bits(int(token[2:], 16), dtype)
    if re.fullmatch(r"0[dD][0-9a-fA-F]{16}", token):
        bits = int(token[2:], 16)
    elif re.fullmatch(r"-?(0x[0-9a-fA-F]+|\d+)U?", token):
        bits = int(token.rstrip("U"), 0)
    if bits is None:
        raise Unknown(f"operand {token}")
    return np.bool_(bits != 0) if dtype == np.bool_ else _of_bits(bits, dtype)


def _of_bits(bits: int, dtype: np.dtype) -> Any:
    size = dtype.itemsize
    return np.array(bits % (1 << (8 * size)), UNSIGNED[size]).view(dtype)[()]


class Operands:
    """Of one kernel; collects the registers that the instruction in hand reads and writes."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.reads: set[int] = set()
        self.writes: set[int] = set()

    def begin(self) -> None:
        self.reads, self.writes = set(), set()

    def reader(self, token: str, kind: str | np.dtype) -> Reader:
        dtype = TYPES[kind] if isinstance(kind, str) else kind
        if dtype == np.bool_:
            return self.predicate(token)
        index = self.kernel.registers.get(token)
        if index is not None:
            self.reads.add(index)
            width = self.kernel.widths[index]
            if width == dtype.itemsize:

                def read(unit: Any) -> Array:
                    value = unit.registers[index]
                    return value if value.dtype == dtype else value.view(dtype)

                return read
            if width > dtype.itemsize:
                narrow = UNSIGNED[dtype.itemsize]
                return lambda unit: unit.registers[index].view(UNSIGNED[width]).astype(narrow).view(dtype)
            raise Unknown(f"register {token} narrower than {kind}")
        if token in SPECIAL:
            return lambda unit: unit.special[token].astype(UNSIGNED[dtype.itemsize]).view(dtype)
        if token == self.kernel.shared:
            return lambda unit: np.full(unit.lanes, SHARED_BASE, UNSIGNED[dtype.itemsize]).view(dtype)
        value = immediate(token, dtype)
        return lambda unit: value

    def predicate(self, token: str) -> Reader:
        negated, token = token.startswith("!"), token.lstrip("!")
        index = self.kernel.registers.get(token)
        if index is None:
            value = immediate(token, np.dtype(np.bool_)) ^ negated
            return lambda unit: value
        if self.kernel.widths[index]:
            raise Unknown(f"register {token} is no predicate")
        self.reads.add(index)
        if negated:
            return lambda unit: ~unit.registers[index]
        return lambda unit: unit.registers[index]

    def writer(self, token: str) -> Writer:
        if token == "_":
            return lambda unit, value, mask: None
        index = self.kernel.registers.get(token)
        if index is None:
            raise Unknown(f"destination {token}")
        self.writes.add(index)
        width = self.kernel.widths[index]

        def write(unit: Any, value: Array, mask: Any) -> None:
            if width and value.dtype.itemsize != width:
                if value.dtype.itemsize > width or value.dtype.kind not in "iu":
                    raise Unknown(f"{value.dtype} to a register of {width} bytes")
                value = value.astype(I64 if value.dtype.kind == "i" else U64).astype(UNSIGNED[width])
            if np.ndim(value) == 0:
                value = np.full(unit.lanes, value)
            if mask is not None:
                value = np.where(mask, value, unit.registers[index].view(value.dtype))
            unit.registers[index] = value

        return write

    def address(self, token: str) -> Reader:
        """[%rd1 + 16], as uint64."""
        match = re.fullmatch(r"\[\s*([%\w$]+)\s*(?:([+-])\s*(-?\d+))?\s*\]", token)
        if match is None:
            raise Unknown(f"address {token}")
        step = int(match[3] or 0) * (-1 if match[2] == "-" else 1)
        base, offset = match[1], np.uint64(step % (1 << 64))
        index = self.kernel.registers.get(base)
        if index is None and base != self.kernel.shared:
            raise Unknown(f"address {token}")
        wide = index is not None and self.kernel.widths[index] == 8
        read = self.reader(base, U64 if wide else U32)
        return lambda unit: read(unit).astype(U64) + offset
