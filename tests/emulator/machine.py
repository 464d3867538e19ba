"""Programs, warps and barriers: one launch of a kernel.

The lanes of many warps are one numpy vector. In the order "together" all warps of all programs step side by side, each lane
at the lowest instruction that any is at; in the others the warps of a program run one after another from barrier to barrier,
the last one first, or in slices drawn at random. What is asynchronous arrives as late as it may, or at once, by the order.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from . import instructions
from .faults import Diverged, Fault, Unknown
from .formats import UNSIGNED, Array
from .memory import Argument, Memory, Shared
from .operands import Operands
from .parser import Instruction, Kernel
from .unit import Unit

#: Lanes of one vector, at most; and instructions that a launch may take before it counts as endless.
VECTOR = 8192
ENDLESS = 20_000_000


class Order(NamedTuple):
    """warps: how those of a program take turns; late: whether what is asynchronous arrives only when it is waited for."""

    warps: str
    late: bool


ORDERS = {"together": Order("together", True), "backward": Order("backward", False), "random": Order("random", True)}


class Step(NamedTuple):
    """kind: run, branch (target), exit, barrier. whole: takes all lanes of a warp, which wait there for each other. touched:
    registers read or written; wrote: written."""

    guard: tuple[bool, int] | None
    run: Any
    kind: str
    target: int
    source: Instruction
    whole: bool
    touched: frozenset[int]
    wrote: frozenset[int]


class Program:
    """A kernel ready to run."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        operands = Operands(kernel)
        self.steps = [self._step(operands, one) for one in kernel.instructions]
        self.uses_wgmma = any(one.opcode.startswith("wgmma") for one in kernel.instructions)
        shared = [one.opcode for one in kernel.instructions if ".shared" in one.opcode]
        narrow = {size for size in (8, 16) for op in shared if op.endswith((f"b{size}", f"u{size}", f"s{size}"))}
        self.grain = min([4, *(size // 8 for size in narrow)])

    def _step(self, operands: Operands, one: Instruction) -> Step:
        operands.begin()
        run, kind, target = None, "run", -1
        if one.opcode in ("bra", "bra.uni"):
            kind, target = "branch", self.kernel.labels[one.operands[0]]
        elif one.opcode in ("ret", "exit"):
            kind = "exit"
        elif one.opcode == "bar.sync" and one.operands == ("0",):
            kind = "barrier"
        else:
            run = instructions.build(operands, one)
        touched = operands.reads | operands.writes | ({one.guard[1]} if one.guard else set())
        whole = ".sync" in one.opcode and kind == "run"
        return Step(one.guard, run, kind, target, one, whole, frozenset(touched), frozenset(operands.writes))


class Machine:
    """One launch: runs when made. instructions_run: what it came to."""

    def __init__(
        self,
        program: Program,
        values: list[int],
        arguments: list[Argument],
        grid: tuple[int, int, int],
        warps: int,
        shared: int,
        order: Order,
        seed: int = 0,
    ) -> None:
        self.program, self.grid, self.warps, self.order = program, grid, warps, order
        self.shared_size = shared
        self.random = np.random.default_rng(seed)
        self.memory = Memory(arguments)
        self.memory.forget()
        self.instructions_run = 0
        kernel = program.kernel
        if kernel.threads is not None and kernel.threads != 32 * warps:
            raise Unknown(f"{warps} warps of a kernel for {kernel.threads} threads")
        # Triton adds two pointers to memory that the launcher could make, and that none of these kernels wants.
        if not len(values) <= len(kernel.parameters) <= len(values) + 2:
            raise Unknown(f"{len(values)} arguments for {len(kernel.parameters)} parameters")
        padded = [*values, *[0] * (len(kernel.parameters) - len(values))]
        self.parameters = {
            name: np.array(value % (1 << (8 * size)), UNSIGNED[size])
            for (name, size), value in zip(kernel.parameters, padded, strict=True)
        }
        total = grid[0] * grid[1] * grid[2]
        numbers = np.arange(total)
        if order.warps == "backward":
            numbers = numbers[::-1]
        elif order.warps == "random":
            numbers = self.random.permutation(total)
        side_by_side = max(1, VECTOR // (32 * warps))
        with np.errstate(all="ignore"):
            for first in range(0, total, side_by_side):
                self._run(numbers[first : first + side_by_side])

    def _run(self, numbers: Array) -> None:
        self.numbers = numbers
        self.epoch = np.zeros(len(numbers), np.int64)
        self.shared = Shared(len(numbers), self.shared_size, self.program.grain)
        programs = np.arange(len(numbers))
        if self.order.warps == "together":
            units = [Unit(self, np.repeat(programs, self.warps), np.tile(np.arange(self.warps), len(numbers)))]
        else:
            units = [Unit(self, programs, np.full(len(numbers), warp)) for warp in range(self.warps)]
        if self.order.warps == "backward":
            units.reverse()
        while True:
            runnable = [unit for unit in units if unit.groups]
            if not runnable:
                if not any(unit.waiting for unit in units):
                    break
                self._release(units)
            elif self.order.warps == "random":
                unit = runnable[self.random.integers(len(runnable))]
                self._advance(unit, int(self.random.integers(1, 200)))
            else:
                for unit in runnable:
                    self._advance(unit, ENDLESS)
        for unit in units:
            if unit.in_flight:
                raise Fault(f"{self.program.kernel.name} ends before its last products are waited for")

    def _release(self, units: list[Unit]) -> None:
        """Lets every program whose threads all wait at one barrier go on."""
        waits = np.zeros((len(self.numbers), self.warps), bool)
        places = np.full(len(self.numbers), -1)
        for unit in units:
            for place, mask in unit.waiting.items():
                rows = mask.reshape(-1, 32)
                if (rows.any(1) != rows.all(1)).any():
                    raise Diverged(f"{self._at(place)}: some threads of a warp wait here and others do not")
                here = unit.row_program[rows.all(1)]
                if ((places[here] != -1) & (places[here] != place)).any():
                    raise Diverged(f"{self._at(place)}: other threads of the program wait at another barrier")
                places[here] = place
                waits[here, unit.row_warp[rows.all(1)]] = True
        if (waits.any(1) != waits.all(1)).any():
            raise Diverged(f"{self._at(int(places.max()))}: threads wait for others that have ended")
        for unit in units:
            unit.groups = {place + 1: mask for place, mask in unit.waiting.items()}
            unit.waiting = {}
        self.epoch[waits.all(1)] += 1
        for unit in units:
            unit.passed_barrier()

    def _at(self, place: int) -> str:
        one = self.program.steps[place].source
        return f"{self.program.kernel.name}, {one.where}: {one.text}"

    def _advance(self, unit: Unit, most: int) -> None:
        """Runs a unit until all of its lanes wait or have ended, or for so many instructions."""
        groups, steps = unit.groups, self.program.steps
        count = 0
        while groups:
            place = min(groups)
            mask = groups.pop(place)
            other = min(groups, default=len(steps))
            active = None if mask.all() else mask
            while True:
                if count >= most:
                    groups[place] = groups[place] | mask if place in groups else mask
                    break
                count += 1
                step = steps[place]
                if step.whole and active is not None:
                    mask = active = unit.park(place, mask)
                    if not mask.any():
                        break
                taken = active
                if step.guard is not None:
                    holds = unit.registers[step.guard[1]]
                    taken = ~holds if step.guard[0] else holds
                    taken = taken if active is None else taken & active
                if step.kind == "run":
                    if step.guard is None or taken.any():
                        if step.guard is not None and taken.all():
                            taken = None
                        try:
                            if unit.uses_wgmma:
                                instructions.check_in_flight(unit, step)
                            step.run(unit, taken)
                        except Fault as fault:
                            raise type(fault)(f"{self._at(place)}: {fault}") from None
                        except (ValueError, TypeError, IndexError) as error:
                            raise Unknown(f"{self._at(place)}: {type(error).__name__}: {error}") from error
                    place += 1
                    if place == other:
                        mask = mask | groups.pop(place)
                        active = None if mask.all() else mask
                        other = min(groups, default=len(steps))
                    continue
                went = mask if step.guard is None else taken
                stayed = np.zeros_like(mask) if step.guard is None else mask & ~taken
                if step.kind != "exit" and went.any():
                    where, key = (groups, step.target) if step.kind == "branch" else (unit.waiting, place)
                    where[key] = where[key] | went if key in where else went
                if stayed.any():
                    groups[place + 1] = groups[place + 1] | stayed if place + 1 in groups else stayed
                break
            if count >= most:
                break
        if unit.parked and not groups:
            raise Diverged(f"{self._at(min(unit.parked))}: the other lanes of a warp never come here")
        self.instructions_run += count
        if self.instructions_run > ENDLESS:
            raise Fault(f"{self.program.kernel.name} does not end")
