"""cp.async: copies from global to shared memory that arrive by the time they are waited for, and not before in the late order.

Until then shared memory holds NaN there. Their writes are the copying thread's at the wait: others see them after a barrier.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np

from .faults import Misaligned, Unknown
from .formats import U32, Array
from .movement import picked, touch_global
from .operands import Operands
from .registry import Step, instruction

_OPEN = -1


class Copy(NamedTuple):
    """Of lanes: where to, what, and which of the lane's groups it belongs to."""

    lanes: Array
    offset: Array
    words: Array
    group: Array
    done: Array


@instruction(r"cp\.async\.(ca|cg)\.shared\.global(?:\.L2::(?:64|128|256)B)?")
def copy(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    to, origin, size = o.address(ops[0]), o.address(ops[1]), int(ops[2], 0)
    if size not in ((16,) if match[1] == "cg" else (4, 8, 16)) or len(ops) > 4:
        raise ValueError(f"{size} bytes")
    # Bytes that are read; the others are zero.
    used = o.reader(ops[3], U32) if len(ops) > 3 else None

    def run(unit: Any, mask: Any) -> None:
        lanes = np.arange(unit.lanes) if mask is None else np.flatnonzero(mask)
        offset = unit.shared.offsets(to(unit)[lanes], size, unit.program[lanes])
        addresses, codes = origin(unit)[lanes], unit.codes[lanes]
        take = np.full(len(lanes), size) if used is None else picked(unit, used(unit), mask).astype(np.int64)
        if not np.isin(take, (0, size)).all():
            raise Unknown(f"a copy of a part of {size} bytes")
        words = np.zeros((len(lanes), size // 4), U32)
        on = take > 0
        if on.any():
            touch_global(unit, mask)
            if (addresses[on] & np.uint64(size - 1)).any():
                raise Misaligned(f"a copy of {size} bytes")
            for start in range(0, size, 4):
                words[on, start // 4] = unit.memory.load(addresses[on] + np.uint64(start), 4, 1, codes[on])[0]
        one = Copy(lanes, offset, words, np.full(len(lanes), _OPEN), np.zeros(len(lanes), bool))
        unit.shared.arrive(offset, words, codes, now=not unit.order.late)
        unit.copies.append(one)

    return run


@instruction(r"cp\.async\.commit_group")
def close_group(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    def run(unit: Any, mask: Any) -> None:
        here = np.ones(unit.lanes, bool) if mask is None else mask
        for one in unit.copies:
            closing = (one.group == _OPEN) & here[one.lanes]
            one.group[closing] = unit.copy_groups[one.lanes[closing]]
        unit.copy_groups = unit.copy_groups + here

    return run


@instruction(r"cp\.async\.(wait_group|wait_all)")
def wait(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    everything, left = match[1] == "wait_all", int(ops[0]) if ops else 0
    if everything == bool(ops):
        raise ValueError(f"{len(ops)} operands")

    def run(unit: Any, mask: Any) -> None:
        here = np.ones(unit.lanes, bool) if mask is None else mask
        for one in unit.copies:
            due = ~one.done & here[one.lanes]
            if not everything:
                due &= (one.group != _OPEN) & (one.group < unit.copy_groups[one.lanes] - left)
            if not due.any():
                continue
            # Where they were at once they count as written only now.
            unit.shared.arrive(one.offset[due], one.words[due], unit.codes[one.lanes[due]], now=True)
            one.done[due] = True
        unit.copies = [one for one in unit.copies if not one.done.all()]

    return run
