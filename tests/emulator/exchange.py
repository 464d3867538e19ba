"""What the lanes of a warp do together in registers: shuffles and reductions."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from .faults import Diverged, Unknown
from .formats import TYPES, U32
from .operands import Operands
from .registry import Step, instruction


def everybody(o: Operands, token: str) -> Callable[[Any], None]:
    """Checks that an instruction is for all lanes of its warp."""
    members = o.reader(token, U32)

    def check(unit: Any) -> None:
        if (np.asarray(members(unit)) != np.uint32(0xFFFFFFFF)).any():
            raise Unknown("lanes of a part of a warp")

    return check


@instruction(r"shfl\.sync\.(bfly|idx|up|down)\.b32")
def shuffle(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    places = [one.strip() for one in ops[0].split("|")]
    write, valid = o.writer(places[0]), o.writer(places[1]) if len(places) > 1 else None
    value, source, clamp = (o.reader(one, U32) for one in ops[1:4])
    check = everybody(o, ops[4])
    mode = match[1]

    def run(unit: Any, mask: Any) -> None:
        check(unit)
        lane = unit.lane
        step = np.asarray(source(unit)).astype(np.int64) & 31
        limits = np.asarray(clamp(unit)).astype(np.int64)
        segment, limit = (limits >> 8) & 31, limits & 31
        last, first = (lane & segment) | (limit & ~segment & 31), lane & segment
        if mode == "bfly":
            origin = lane ^ step
        elif mode == "idx":
            origin = first | (step & ~segment)
        else:
            origin = lane - step if mode == "up" else lane + step
        ok = origin >= last if mode == "up" else origin <= last
        place = np.arange(unit.lanes) - lane + np.where(ok, origin, lane)
        if mask is not None and not mask[place[mask]].all():
            raise Diverged("a shuffle from a lane that is elsewhere")
        write(unit, np.broadcast_to(value(unit), (unit.lanes,))[place], mask)
        if valid is not None:
            valid(unit, ok, mask)

    return run


@instruction(r"redux\.sync\.(min|max|add)\.([us]32)", r"redux\.sync\.(and|or|xor)\.(b32)")
def reduce(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    functions = {
        **{
            "min": np.min,
            "max": np.max,
            "and": np.bitwise_and.reduce,
            "or": np.bitwise_or.reduce,
            "xor": np.bitwise_xor.reduce,
        },
        "add": lambda rows, axis: rows.sum(axis, dtype=rows.dtype),
    }
    value, write = o.reader(ops[1], match[2]), o.writer(ops[0])
    check = everybody(o, ops[2])

    def run(unit: Any, mask: Any) -> None:
        check(unit)
        unit.whole_warps(mask)
        write(unit, np.repeat(functions[match[1]](unit.rows(value(unit)), axis=1), 32).astype(TYPES[match[2]]), mask)

    return run
