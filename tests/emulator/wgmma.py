"""wgmma: products of a warpgroup, asynchronous, of operands in shared memory.

Four warps make 64 rows, 16 each. In the late order operands are read, and results written, when the product is waited for; in
the other at once. Until then its result's registers may not be touched, nor those of an operand in registers changed, nor what
it reads of shared memory written. wgmma.fence stands between ordinary writes of those registers and the product.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from .faults import Race, TooEarly, Unknown
from .formats import F32, F64, U32, U64, Array, widened
from .matrices import GROUP, PLACE, gather, left
from .memory import SHARED_BASE
from .operands import Operands, listed
from .registry import Step, instruction

_OPEN = -1
#: Bytes of a row that the layout swizzles within, by the descriptor's mode.
_SWIZZLE = {0: 16, 1: 128, 2: 64, 3: 32}


def check_in_flight(unit: Any, step: Any) -> None:
    """Before an ordinary instruction: it touches no register of a product in flight. And which it writes."""
    if step.source.opcode.startswith("wgmma"):
        return
    if not unit.in_flight.isdisjoint(step.touched):
        raise TooEarly("a result of wgmma is used before it was waited for")
    if not unit.held.isdisjoint(step.wrote):
        raise TooEarly("an operand of wgmma is changed before it was waited for")
    unit.unfenced |= step.wrote


def addresses(descriptor: int, rows: Array, columns: Array, size: int, depth_first: bool) -> Array:
    """Bytes of shared memory of elements [rows, columns], columns along the product's depth, by a matrix descriptor.

    depth_first: elements next to each other in memory follow one another along the depth ("K-major").
    """
    start, leading, stride = (((descriptor >> shift) & 0x3FFF) << 4 for shift in (0, 16, 32))
    mode = (descriptor >> 62) & 3
    if (descriptor >> 49) & 7:
        raise Unknown("a wgmma descriptor with a base offset")
    width = _SWIZZLE[mode]
    row, column = rows[:, None], columns[None, :]
    if depth_first:
        along = column * size
        place = row % 8 * width + row // 8 * stride
        place = place + along if mode else place + along // 16 * leading + along % 16
    else:
        along = row * size
        place = along % width + column % 8 * width
        far, near = (leading, stride) if mode else (stride, leading)
        place = place + along // width * far + column // 8 * near
    whole = start + place
    # Bits 4 to 6 are mixed with bits 7 to 9.
    return whole ^ (((whole >> 7) & (width // 16 - 1)) << 4)


class Product:
    """One wgmma of the warps of a mask."""

    def __init__(self, rows: Array, finish: Any, touched: tuple[frozenset[int], frozenset[int]]) -> None:
        self.rows, self.finish = rows, finish
        self.result, self.held = touched
        self.group = np.full(len(rows), _OPEN)
        self.done = np.zeros(len(rows), bool)


def _refresh(unit: Any) -> None:
    unit.in_flight = frozenset().union(*(one.result for one in unit.products))
    unit.held = frozenset().union(*(one.held for one in unit.products))


@instruction(r"wgmma\.fence\.sync\.aligned")
def fence(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    def run(unit: Any, mask: Any) -> None:
        unit.whole_warps(mask)
        unit.unfenced = set()

    return run


@instruction(r"wgmma\.commit_group\.sync\.aligned")
def close_group(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    def run(unit: Any, mask: Any) -> None:
        here = np.zeros(unit.lanes // 32, bool)
        here[unit.whole_warps(mask)] = True
        groups = unit.product_groups.reshape(-1, 32)[:, 0]
        for one in unit.products:
            closing = (one.group == _OPEN) & here[one.rows]
            one.group[closing] = groups[one.rows[closing]]
        unit.product_groups = unit.product_groups + np.repeat(here, 32)

    return run


@instruction(r"wgmma\.wait_group\.sync\.aligned")
def wait(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    keep = int(ops[0])

    def run(unit: Any, mask: Any) -> None:
        here = np.zeros(unit.lanes // 32, bool)
        here[unit.whole_warps(mask)] = True
        groups = unit.product_groups.reshape(-1, 32)[:, 0]
        for one in unit.products:
            due = ~one.done & here[one.rows] & (one.group != _OPEN) & (one.group < groups[one.rows] - keep)
            if due.any():
                one.finish(unit, one.rows[due])
                one.done[due] = True
        unit.products = [one for one in unit.products if not one.done.all()]
        _refresh(unit)

    return run


@instruction(r"wgmma\.mma_async\.sync\.aligned\.m64n(\d+)k(8|16)\.f32\.(bf16|f16|tf32)\.\3")
def multiply(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    n, k, kind = int(match[1]), int(match[2]), match[3]
    size = 4 if kind == "tf32" else 2
    if k * size != 32 or n % 8 or n > 256:
        raise ValueError("no shape of wgmma")
    names = listed(ops[0])
    if len(names) != n // 2:
        raise ValueError(f"{len(names)} registers of a result of {n} columns")
    in_registers = ops[1].startswith("{")
    # scale-d, and then signs of both operands; halves may lie along either axis.
    flags = [int(one) for one in ops[4:]]
    expected = 2 + ((0 if kind == "tf32" else 1) if in_registers else (0 if kind == "tf32" else 2))
    if flags[:2] != [1, 1] or len(flags) != expected:
        raise Unknown(f"signs or layouts of operands: {flags}")
    turned_a = bool(flags[2]) if expected == 4 else False
    turned_b = bool(flags[-1]) if expected > 2 else False
    results = frozenset(o.kernel.registers[one] for one in names)
    writers, sums = [o.writer(one) for one in names], [o.reader(one, F32) for one in names]
    left_registers = frozenset(o.kernel.registers[one] for one in listed(ops[1])) if in_registers else frozenset()
    a_parts = [o.reader(one, U32 if in_registers else U64) for one in listed(ops[1])]
    b_part, scale = o.reader(ops[2], U64), o.predicate(ops[3])

    def operands(unit: Any, held: list[Array], b: Array, row: int) -> list[_InShared]:
        """What a warp reads of shared memory: b, and a where that is there too."""
        program = int(unit.row_program[row])
        found = [_InShared(unit, b[row], program, np.arange(n), np.arange(k), kind, not turned_b)]
        if not in_registers:
            own = 16 * (int(unit.row_warp[row]) % 4) + np.arange(16)
            found.append(_InShared(unit, held[0][row], program, own, np.arange(k), kind, not turned_a))
        return found

    def begin(unit: Any, mask: Any) -> None:
        rows = unit.whole_warps(mask)
        if (results - unit.in_flight | left_registers) & unit.unfenced:
            raise TooEarly("registers of wgmma were written after the last wgmma.fence")
        held = [unit.rows(read(unit)).copy() for read in a_parts]
        held_b, held_scale = unit.rows(b_part(unit)).copy(), unit.rows(scale(unit)).copy()
        in_shared = {int(row): operands(unit, held, held_b, int(row)) for row in rows}

        def compute(unit: Any, due: Array) -> None:
            total = np.full((unit.lanes // 32, 16, n), np.nan)
            if in_registers:
                own = gather(unit, [one.ravel() for one in held], left(kind, k), kind, (16, k), 1)
            for row in due:
                values = [one.values() for one in in_shared[int(row)]]
                total[row] = (own[row] if in_registers else values[1]) @ values[0].T
            chosen = np.zeros(unit.lanes // 32, bool)
            chosen[due] = True
            lanes = None if chosen.all() else np.repeat(chosen, 32)
            for i, (write, old) in enumerate(zip(writers, sums, strict=True)):
                part = total[:, GROUP + 8 * (i % 4 // 2), 8 * (i // 4) + 2 * PLACE + i % 2]
                before = np.where(held_scale, unit.rows(old(unit)).astype(F64), 0.0)
                write(unit, (part + before).astype(F32).ravel(), lanes)

        def finish(unit: Any, due: Array) -> None:
            for row in due:
                for one in in_shared[int(row)]:
                    one.check(unit, int(row))
            if unit.order.late:
                compute(unit, due)

        if not unit.order.late:
            compute(unit, rows)
        unit.products.append(Product(rows, finish, (results, left_registers)))
        _refresh(unit)

    return begin


class _InShared:
    """An operand in shared memory, from where a product is started to where it is waited for."""

    def __init__(
        self, unit: Any, descriptors: Array, program: int, rows: Array, columns: Array, kind: str, depth_first: bool
    ) -> None:
        if (descriptors != descriptors[0]).any():
            raise Unknown("a wgmma descriptor that differs between lanes")
        size = 4 if kind == "tf32" else 2
        local = addresses(int(descriptors[0]), rows, columns, size, depth_first) - SHARED_BASE
        self.shared, self.kind, self.size = unit.shared, kind, size
        self.shared.check(local.ravel(), size)
        self.offset = local + program * self.shared.stride
        self.places = np.unique(self.offset // self.shared.grain)
        if self.shared.unfenced[self.places].any():
            raise Race("wgmma reads what an ordinary store wrote, without fence.proxy.async in between")
        self.wrote = self.shared.shadow.wrote[self.places].copy()

    def check(self, unit: Any, row: int) -> None:
        """It may have been read at any time until now, as late as now."""
        if (self.shared.shadow.wrote[self.places] != self.wrote).any():
            raise Race("an operand of wgmma is overwritten while the product is in flight")
        own = np.full(self.places.shape, unit.rows(unit.codes)[row, 0])
        self.shared.note_read(self.places * self.shared.grain, self.shared.grain, own)

    def values(self) -> Array:
        return widened(self.shared.views[self.size][self.offset // self.size], self.kind).astype(F64)
