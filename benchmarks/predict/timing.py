"""One multiprocessor, cycle by cycle: the warps of its blocks walk the same path (control.py) and wait for each other, for
counters, for units and for bytes; and what they waited for, added up. A launch is as many rounds of that as its grid needs.

What is left out: instruction caches, bank conflicts, hits in L1, contention of banks of L2, divergence inside a warp.
"""

from __future__ import annotations

import heapq
import math
import re
from collections import defaultdict
from typing import NamedTuple

from torch import Tensor

from fastdraw.kernels.triton.launch import Launch

from .assumptions import Chip
from .control import Path, path
from .machine_code import NO_COUNTER, Instruction, Program, compiled

#: Widths of loads and stores by the modifier that says them, bytes a thread.
_WIDTHS = {"128": 16, "64": 8, "U16": 2, "S16": 2, "U8": 1, "S8": 1}
#: Instructions that go through the one queue for shared memory, shuffles and global memory.
_QUEUED = ("LDS", "LDSM", "STS", "STSM", "SHFL", "LDG", "LDGSTS", "STG", "LDL", "STL")
_GLOBAL = ("LDG", "LDGSTS", "STG")


#: Where the constant bank has the grid's sizes.
_GRID_AT = 0xC


class Prediction(NamedTuple):
    """us: of the body, without what a launch costs. resident: blocks that share a multiprocessor; rounds: how often they are
    replaced. waits: shares of the warps' time by what they waited for. guessed: loops whose bounds were unknown."""

    us: float
    programs: int
    resident: int
    rounds: int
    registers: int
    shared: int
    spilled: int
    instructions: int
    megabytes: float
    waits: dict[str, float]
    guessed: int

    @property
    def limit(self) -> str:
        """What warps waited for most, and how much of the chip has a program at all where it is not all of it."""
        first = sorted(self.waits.items(), key=lambda item: -item[1])[:2]
        return ", ".join(f"{name} {100 * share:.0f} %" for name, share in first if share >= 0.1)


class Decoded(NamedTuple):
    """An instruction of a path, with what it costs."""

    op: str
    stall: int
    writes: int
    reads: int
    waits: tuple[int, ...]
    latency: int
    unit: str
    occupied: int
    queued: int
    bytes: int
    keeps: int


def predicted(launch: Launch, chip: Chip) -> Prediction:
    program = compiled(launch, chip.target)
    arguments = arguments_at(launch, chip.parameters_at)
    # Programs along the second axis may have different work. Two kinds are told apart, the longer first; of more the longest
    # is what the others wait for.
    last = launch.grid[1] - 1 if len(launch.grid) > 1 else 0
    paths = sorted((path(program.code, arguments, second) for second in {0, last}), key=lambda found: -len(found.steps))
    steps = paths[0]
    kinds = [_decoded(program, each, chip) for each in (paths if last == 1 else paths[:1])]
    programs = math.prod(launch.grid)
    warps = launch.num_warps
    spread = min(programs, chip.multiprocessors)
    rate = min(chip.l2_bytes_per_cycle_of_one, chip.l2_bytes_per_cycle / spread)
    each = math.ceil(programs / chip.multiprocessors)
    resident = min(resident_blocks(program, warps, chip), each)
    if each == resident:
        total, waits = simulated([kinds[i % len(kinds)] for i in range(each)], warps, rate, chip)
    else:
        # One kind after the other, as programs are numbered, and each in rounds.
        total = 0.0
        for decoded in reversed(kinds):
            own = math.ceil(programs / len(kinds) / chip.multiprocessors)
            for blocks, times in ((min(own, resident), own // min(own, resident)), (own % min(own, resident), 1)):
                if blocks:
                    cycles, waits = simulated([decoded] * blocks, warps, rate, chip)
                    total += cycles * times
    moved = sum(step.bytes for decoded in kinds for step in decoded) * warps * programs // len(kinds)
    us, bytes_ = total / (1000 * chip.clock_ghz), _bytes(launch)
    if bytes_ > chip.l2_bytes and bytes_ / chip.memory_bytes_per_us > us:
        us, waits = bytes_ / chip.memory_bytes_per_us, {"bytes from memory": 1.0}
    return Prediction(
        us, programs, resident, math.ceil(each / resident), program.registers, program.shared, program.spilled, len(kinds[0]),
        moved / 1e6, waits, steps.guessed,
    )  # fmt: skip


def resident_blocks(program: Program, warps: int, chip: Chip) -> int:
    """How many blocks one multiprocessor holds at a time."""
    # Registers are given out to warps, 256 at a time.
    registers = math.ceil(32 * program.registers / 256) * 256 * warps
    shared = math.ceil((program.shared + chip.shared_of_block) / 128) * 128
    return min(chip.registers // registers, chip.shared_bytes // shared, chip.warps // warps, chip.blocks)


def arguments_at(launch: Launch, at: int) -> dict[int, int]:
    """A launch's integers by their place among the kernel's arguments in the constant bank."""
    words = {_GRID_AT + 4 * axis: size for axis, size in enumerate((*launch.grid, 1, 1)[:3])}
    for name in launch.kernel.arg_names:
        value = launch.arguments.get(name)
        if isinstance(value, Tensor):
            at = (at + 7) // 8 * 8 + 8
        elif not (name.isupper() or (value == 1 and name not in _unspecialized(launch))):
            size = 4 if value < 2**31 else 8
            at = (at + size - 1) // size * size
            words[at] = value & 0xFFFFFFFF
            at += size
    return words


def _unspecialized(launch: Launch) -> set[str]:
    names = launch.kernel.arg_names
    return {names[i] if isinstance(i, int) else i for i in launch.kernel.do_not_specialize or ()}


def _bytes(launch: Launch) -> int:
    """Of a launch's tensors, each once."""
    tensors = {id(value): value for value in launch.arguments.values() if isinstance(value, Tensor)}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _kind(instruction: Instruction) -> str:
    """What the simulation treats in a way of its own; otherwise the instruction's name."""
    op, modifiers = instruction.op, instruction.modifiers
    if op == "BAR" and "SYNC" not in modifiers:
        return "ARRIVE"
    if op == "WARPGROUP" and "DEPBAR" in modifiers:
        return "WAIT"
    # The last of the products that are waited for together.
    return "COMMIT" if op == "HGMMA" and "gsb0" in instruction.operands else op


def _decoded(program: Program, steps: Path, chip: Chip) -> list[Decoded]:
    made: dict[tuple[int, bool], Decoded] = {}
    for step in set(steps.steps):
        instruction = program.code[step.which]
        op, modifiers = instruction.op, instruction.modifiers
        width = next((_WIDTHS[m] for m in modifiers if m in _WIDTHS), 4)
        unit, occupied = chip.units.get(op, ("", 1))
        if op == "HGMMA":
            m, n, k = (int(side) for side in modifiers[0].split("x"))
            unit, occupied = "tensor cores", math.ceil(2 * m * n * k / chip.wgmma_per_cycle)
        queued = 0
        if op in _QUEUED:
            count = 16 if op in ("LDSM", "STSM") and "4" in modifiers else width
            queued = 2 if op in _GLOBAL else max(1, math.ceil(32 * count / chip.shared_bytes_per_cycle))
        keeps = re.search(r"0x([0-9a-f]+)", instruction.operands[-1]) if "DEPBAR" in (op, *modifiers) else None
        made[step] = Decoded(
            _kind(instruction),
            max(1, instruction.stall),
            instruction.writes,
            instruction.reads,
            tuple(i for i in range(6) if instruction.waits >> i & 1),
            chip.latencies.get(op, 0),
            unit,
            occupied,
            queued,
            32 * width if op in _GLOBAL and step.moves else 0,
            int(keeps[1], 16) if keeps else 0,
        )
    return [made[step] for step in steps.steps]


_ARITHMETIC, _BARRIERS, _ISSUE = "arithmetic", "barriers", "issue"
_CAUSES = {
    **dict.fromkeys(("LDG", "LDGSTS", "STG", "LDL", "STL"), "latency of L2"),
    **dict.fromkeys(("LDS", "LDSM", "STS", "STSM"), "shared memory"),
    "SHFL": "shuffles",
    **dict.fromkeys(("HMMA", "HGMMA", "COMMIT"), "tensor cores"),
    **dict.fromkeys(("MUFU", "I2F", "F2F", "FRND", "F2I"), "special functions"),
}
#: Of what a counter or a group of copies waits for: until when, and why.
Until = tuple[float, str]


class _Warp:
    def __init__(self, block: int, scheduler: int) -> None:
        self.block, self.scheduler, self.at = block, scheduler, 0
        self.counters: list[Until] = [(0.0, _ARITHMETIC)] * 6
        self.copies: list[Until] = []
        self.groups: list[Until] = []
        self.products: list[Until] = []


def simulated(paths: list[list[Decoded]], warps: int, bytes_per_cycle: float, chip: Chip) -> tuple[float, dict[str, float]]:
    """Cycles until the last of the blocks on one multiprocessor is done, whose warps take these paths, one of each block; and
    the shares of what warps waited for."""
    everyone = [_Warp(i // warps, i % 4) for i in range(warps * len(paths))]
    heap = [(0.0, i) for i in range(len(everyone))]
    issue = [0.0] * 4
    units: dict[tuple[str, int], float] = defaultdict(float)
    arrived: list[list[tuple[float, int]]] = [[] for _ in paths]
    port = queue = end = 0.0
    waited: dict[str, float] = defaultdict(float)
    while heap:
        now, i = heapq.heappop(heap)
        warp = everyone[i]
        decoded = paths[warp.block]
        if warp.at == len(decoded):
            end = max(end, now)
            continue
        d = decoded[warp.at]
        start = now
        for counter in d.waits:
            until, cause = warp.counters[counter]
            if until > start:
                waited[cause] += until - start
                start = until
        if d.op == "BAR":
            arrived[warp.block].append((start, i))
            if len(arrived[warp.block]) == warps:
                released = max(time for time, _ in arrived[warp.block]) + d.latency
                for time, other in arrived[warp.block]:
                    waited[_BARRIERS] += released - time
                    everyone[other].at += 1
                    heapq.heappush(heap, (released, other))
                arrived[warp.block] = []
            continue
        unit = (d.unit, warp.scheduler)
        free = max(issue[warp.scheduler], units[unit] if d.unit else 0.0)
        if free > start:
            waited[d.unit if d.unit and units[unit] > issue[warp.scheduler] else _ISSUE] += free - start
            start = free
        issue[warp.scheduler] = start + 1
        if d.unit:
            units[unit] = start + d.occupied
        next_, done, cause = start + d.stall, start + d.latency, _CAUSES.get(d.op, _ARITHMETIC)
        waited[_ARITHMETIC] += d.stall
        if d.queued:
            queue = max(queue, start) + d.queued
            done = max(done, queue + 0.9 * d.latency)
        if d.bytes:
            port = max(port, start) + d.bytes / bytes_per_cycle
            if port + 200 > done:
                done, cause = port + 200, "bytes from L2"
        if d.op == "LDGSTS":
            warp.copies.append((done, cause))
        elif d.op == "LDGDEPBAR":
            warp.groups.append(max(warp.copies, default=(start, cause)))
            warp.copies = []
        elif d.op == "COMMIT":
            warp.products.append((units[unit] + d.latency, cause))
        elif d.op in ("DEPBAR", "WAIT"):
            pending = warp.groups if d.op == "DEPBAR" else warp.products
            until, cause = max(pending[: len(pending) - d.keeps], default=(0.0, cause))
            if until > next_:
                waited[cause] += until - next_
                next_ = until
        if d.writes != NO_COUNTER:
            warp.counters[d.writes] = max(warp.counters[d.writes], (done, cause))
        if d.reads != NO_COUNTER:
            warp.counters[d.reads] = max(warp.counters[d.reads], (start + 15, cause))
        warp.at += 1
        heapq.heappush(heap, (next_, i))
    whole = sum(waited.values()) or 1.0
    return end, {cause: time / whole for cause, time in waited.items()}
