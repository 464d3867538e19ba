"""Matrices that a warp holds: ldmatrix, stmatrix, mma.

Products are summed in float64 and rounded once; tensor cores sum in their own order and round in between, which no manual
describes. Of tf32 operands they see 19 bits.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from .faults import Misaligned
from .formats import F32, F64, I64, TYPES, U16, U32, Array, halves, joined, widened
from .memory import SHARED_BASE
from .operands import Operands, listed
from .registry import Step, instruction

LANE = np.arange(32)
#: Of a lane: its row and its pair of columns in an 8 x 8 matrix.
GROUP, PLACE = LANE // 4, LANE % 4


@instruction(r"(ld|st)matrix\.sync\.aligned\.m8n8\.x([124])(\.trans)?\.shared\.b16")
def matrix(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    count, turned = int(match[2]), bool(match[3])
    if match[1] == "ld":
        return _load(o, ops, count, turned)
    return _store(o, ops, count, turned)


def _rows(unit: Any, addresses: Array, rows: Array, count: int) -> tuple[Array, Array]:
    """Offsets of the matrices' rows [warps, 8 count], each 16 bytes, and the codes of the lanes that hold their addresses."""
    held = unit.rows(addresses)[rows, : 8 * count].astype(I64) - SHARED_BASE
    if (held % 16).any():
        raise Misaligned("a matrix's row of shared memory")
    unit.shared.check(held.ravel(), 16)
    return held + (unit.row_program[rows] * unit.shared.stride)[:, None], unit.rows(unit.codes)[rows]


def _load(o: Operands, ops: tuple[str, ...], count: int, turned: bool) -> Step:
    writers, address = [o.writer(one) for one in listed(ops[0])], o.address(ops[1])
    if len(writers) != count:
        raise ValueError(f"{len(writers)} destinations")

    def run(unit: Any, mask: Any) -> None:
        rows = unit.whole_warps(mask)
        offset, codes = _rows(unit, address(unit), rows, count)
        # Every lane of the warp reads of every row.
        unit.shared.note_read(offset.ravel(), 16, codes[:, : 8 * count].ravel())
        cells = unit.shared.views[2][offset[:, :, None] // 2 + np.arange(8)].reshape(len(rows), count, 8, 8)
        for i, write in enumerate(writers):
            cell = cells[:, i].swapaxes(1, 2) if turned else cells[:, i]
            whole = np.zeros((unit.lanes // 32, 32), U32)
            whole[rows] = joined(cell[:, GROUP, 2 * PLACE], cell[:, GROUP, 2 * PLACE + 1])
            write(unit, whole.ravel(), mask)

    return run


def _store(o: Operands, ops: tuple[str, ...], count: int, turned: bool) -> Step:
    readers, address = [o.reader(one, U32) for one in listed(ops[1])], o.address(ops[0])
    if len(readers) != count:
        raise ValueError(f"{len(readers)} values")

    def run(unit: Any, mask: Any) -> None:
        rows = unit.whole_warps(mask)
        offset, codes = _rows(unit, address(unit), rows, count)
        cells = np.zeros((len(rows), count, 8, 8), U16)
        for i, read in enumerate(readers):
            cell = cells[:, i].swapaxes(1, 2) if turned else cells[:, i]
            cell[:, GROUP, 2 * PLACE], cell[:, GROUP, 2 * PLACE + 1] = halves(unit.rows(read(unit))[rows])
        words = cells.reshape(-1, 8).view(U32)
        held = codes[:, : 8 * count].ravel()
        unit.shared.store(offset.ravel(), 4, list(words.T), held)

    return run


def left(kind: str, k: int) -> list[tuple[Array, Array]]:
    """Row and column, of 16 x k, of the first element in each of the left operand's registers; of halves the next follows."""
    step = 2 if kind in ("bf16", "f16") else 1
    return [(GROUP + 8 * (i % 2), step * PLACE + 4 * step * (i // 2)) for i in range(k // (2 * step))]


def right(kind: str, k: int) -> list[tuple[Array, Array]]:
    """The same of the right operand, k x 8."""
    step = 2 if kind in ("bf16", "f16") else 1
    return [(step * PLACE + 4 * step * i, GROUP) for i in range(k // (4 * step))]


def gather(
    unit: Any, values: list[Array], places: list[tuple[Array, Array]], kind: str, shape: tuple[int, int], along: int
) -> Array:
    """A matrix of each warp in float64. along: the axis on which a register's second half lies."""
    whole = np.full((unit.lanes // 32, *shape), np.nan)
    for value, (row, column) in zip(values, places, strict=True):
        if kind in ("f32", "f64"):
            whole[:, row, column] = unit.rows(value)
        elif kind == "tf32":
            whole[:, row, column] = widened(unit.rows(value), kind)
        else:
            for i, part in enumerate(halves(unit.rows(value))):
                whole[:, row + i * (along == 0), column + i * (along == 1)] = widened(part, kind)
    return whole


_SHAPES = {("bf16", 8), ("bf16", 16), ("f16", 8), ("f16", 16), ("tf32", 4), ("tf32", 8)}


@instruction(r"mma\.sync\.aligned\.m16n8k(4|8|16)\.row\.col\.f32\.(bf16|f16|tf32)\.\2\.f32")
def multiply(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    depth, kind = int(match[1]), match[2]
    if (kind, depth) not in _SHAPES:
        raise ValueError(f"{kind} of depth {depth}")
    return _multiply(o, ops, kind, 16, depth, F32, U32)


@instruction(r"mma\.sync\.aligned\.(m8n8k4|m16n8k4|m16n8k8|m16n8k16)\.row\.col\.f64\.f64\.f64\.f64")
def multiply_double(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    rows, depth = (int(part) for part in re.findall(r"m(\d+)n8k(\d+)", match[1])[0])
    return _multiply(o, ops, "f64", rows, depth, F64, F64)


def _multiply(o: Operands, ops: tuple[str, ...], kind: str, m: int, k: int, wide: np.dtype, held: np.dtype) -> Step:
    # 8 x 4 of float64 is the upper half of 16 x 8 in shape, and no more.
    a_places = [(GROUP, PLACE)] if m == 8 else left(kind, k)
    b_places = right(kind, k)
    c_places = [(GROUP + 8 * (i // 2), 2 * PLACE + i % 2) for i in range(m // 4)]
    writers = [o.writer(one) for one in listed(ops[0])]
    a, b = ([o.reader(one, held) for one in listed(token)] for token in ops[1:3])
    c = [o.reader(one, wide) for one in listed(ops[3])]
    if [len(part) for part in (a, b, c, writers)] != [len(part) for part in (a_places, b_places, c_places, c_places)]:
        raise ValueError("registers do not fit the shape")
    name = next(name for name in ("f64", "f32") if TYPES[name] == wide)

    def run(unit: Any, mask: Any) -> None:
        unit.whole_warps(mask)
        operand_a = gather(unit, [read(unit) for read in a], a_places, kind, (m, k), 1)
        operand_b = gather(unit, [read(unit) for read in b], b_places, kind, (k, 8), 0)
        total = operand_a @ operand_b + gather(unit, [read(unit) for read in c], c_places, name, (m, 8), 1)
        for write, (row, column) in zip(writers, c_places, strict=True):
            write(unit, np.ascontiguousarray(total[:, row, column]).ravel().astype(wide), mask)

    return run
