"""Loads, stores and moves; waiting for the kernel before, and fences."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from .exchange import everybody
from .faults import TooEarly
from .formats import TYPES, UNSIGNED, Array
from .operands import Operands, listed
from .registry import Step, instruction


def touch_global(unit: Any, mask: Any) -> None:
    if not unit.all_may_touch and not (unit.may_touch if mask is None else unit.may_touch[mask]).all():
        raise TooEarly("global memory is accessed before griddepcontrol.wait: the kernel before may still be writing it")


def scattered(unit: Any, value: Array, mask: Any) -> Array:
    """Values of the lanes of a mask, as a vector of all lanes."""
    if mask is None:
        return value
    whole = np.zeros(unit.lanes, value.dtype)
    whole[mask] = value
    return whole


def picked(unit: Any, value: Array, mask: Any) -> Array:
    whole = np.broadcast_to(value, (unit.lanes,))
    return whole if mask is None else whole[mask]


@instruction(r"ld\.param\.([bus](?:32|64)|f32|f64)")
def load_parameter(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    write, name = o.writer(ops[0]), ops[1].strip("[] ")
    size = dict(o.kernel.parameters)[name]
    if size != TYPES[match[1]].itemsize:
        raise ValueError(f"a parameter of {size} bytes")
    return lambda unit, mask: write(unit, np.full(unit.lanes, unit.machine.parameters[name]), mask)


@instruction(r"ld\.(global|shared)(?:\.v([24]))?\.([bus](?:8|16|32|64)|f32|f64)")
def load(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    space, count, kind = match[1], int(match[2] or 1), TYPES[match[3]]
    writers, address, size = [o.writer(one) for one in listed(ops[0])], o.address(ops[1]), kind.itemsize
    if len(writers) != count:
        raise ValueError(f"{len(writers)} destinations")

    def run(unit: Any, mask: Any) -> None:
        addresses, codes = picked(unit, address(unit), mask), picked(unit, unit.codes, mask)
        if space == "global":
            touch_global(unit, mask)
            values = unit.memory.load(addresses, size, count, codes)
        else:
            offset = unit.shared.offsets(addresses, size * count, picked(unit, unit.program, mask))
            values = unit.shared.load(offset, size, count, codes)
        for write, value in zip(writers, values, strict=True):
            write(unit, scattered(unit, value.view(kind), mask), mask)

    return run


@instruction(r"st\.(global|shared)(?:\.v([24]))?\.([bus](?:8|16|32|64)|f32|f64)")
def store(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    space, count, size = match[1], int(match[2] or 1), TYPES[match[3]].itemsize
    address, readers = o.address(ops[0]), [o.reader(one, UNSIGNED[size]) for one in listed(ops[1])]
    if len(readers) != count:
        raise ValueError(f"{len(readers)} values")

    def run(unit: Any, mask: Any) -> None:
        addresses, codes = picked(unit, address(unit), mask), picked(unit, unit.codes, mask)
        values = [picked(unit, read(unit), mask) for read in readers]
        if space == "global":
            touch_global(unit, mask)
            unit.memory.store(addresses, size, values, codes)
        else:
            offset = unit.shared.offsets(addresses, size * count, picked(unit, unit.program, mask))
            unit.shared.store(offset, size, values, codes)

    return run


@instruction(r"mov\.([bus](?:16|32|64)|f32|f64|pred)")
def move(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    kind = TYPES[match[1]]
    if ops[0].startswith("{"):
        return _unpack(o, kind.itemsize, ops)
    if ops[1].startswith("{"):
        return _pack(o, kind.itemsize, ops)
    read, write = o.reader(ops[1], kind if kind == np.bool_ else UNSIGNED[kind.itemsize]), o.writer(ops[0])
    return lambda unit, mask: write(unit, read(unit), mask)


def _unpack(o: Operands, size: int, ops: tuple[str, ...]) -> Step:
    read, writers = o.reader(ops[1], UNSIGNED[size]), [o.writer(one) for one in listed(ops[0])]
    part, kind = size // len(writers), UNSIGNED[size].type

    def run(unit: Any, mask: Any) -> None:
        value = np.broadcast_to(read(unit), (unit.lanes,))
        for i, write in enumerate(writers):
            write(unit, (value >> kind(8 * part * i)).astype(UNSIGNED[part]), mask)

    return run


def _pack(o: Operands, size: int, ops: tuple[str, ...]) -> Step:
    parts = listed(ops[1])
    readers, write = [o.reader(one, UNSIGNED[size // len(parts)]) for one in parts], o.writer(ops[0])
    part, kind = size // len(parts), UNSIGNED[size].type

    def run(unit: Any, mask: Any) -> None:
        whole = np.zeros(unit.lanes, kind)
        for i, read in enumerate(readers):
            whole = whole | (read(unit).astype(kind) << kind(8 * part * i))
        write(unit, whole, mask)

    return run


@instruction(r"cvta(?:\.to)?\.global\.u64")
def to_global(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    # Global addresses are generic ones.
    read, write = o.reader(ops[1], "u64"), o.writer(ops[0])
    return lambda unit, mask: write(unit, read(unit), mask)


@instruction(r"griddepcontrol\.wait")
def wait_for_the_kernel_before(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    def run(unit: Any, mask: Any) -> None:
        unit.may_touch = np.ones(unit.lanes, bool) if mask is None else unit.may_touch | mask
        unit.all_may_touch = bool(unit.may_touch.all())

    return run


@instruction(r"griddepcontrol\.launch_dependents")
def let_the_next_kernel_begin(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    return lambda unit, mask: None


@instruction(r"fence\.proxy\.async(?:\.shared::cta)?")
def fence_the_asynchronous_proxy(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    return lambda unit, mask: unit.shared.fence(picked(unit, unit.codes, mask))


@instruction(r"bar\.warp\.sync")
def meet(o: Operands, match: re.Match[str], ops: tuple[str, ...]) -> Step:
    check = everybody(o, ops[0])

    def run(unit: Any, mask: Any) -> None:
        check(unit)
        unit.whole_warps(mask)
        unit.warps_met(mask)

    return run
