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
from .formats import U32, UNSIGNED, Array
from .memory import Argument, Memory, Shared
from .operands import Operands
from .parser import Instruction, Kernel
from .shadows import thread_codes

#: Lanes of one vector, at most; and instructions that a launch may take before it counts as endless.
VECTOR = 8192
ENDLESS = 20_000_000
#: What a register holds before anything wrote it: NaN in every float type, far outside of everything as an address.
POISON = {0: False, 1: 0xBA, 2: 0x7FDE, 4: 0x7FC0DEAD, 8: 0x7FFFDEADDEADDEAD}


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


class Registers(dict):
    """Values by index; poison until the first write."""

    def __init__(self, widths: list[int], lanes: int) -> None:
        super().__init__()
        self.widths, self.lanes = widths, lanes

    def __missing__(self, index: int) -> Array:
        width = self.widths[index]
        value = np.full(self.lanes, POISON[width], UNSIGNED.get(width, np.bool_))
        self[index] = value
        return value


class Unit:
    """Warps that run as one vector: rows of 32 lanes, of one or more programs."""

    def __init__(self, machine: Machine, programs: Array, warps: Array) -> None:
        """programs: index of each row's in the machine's chunk; warps: its number in its program."""
        self.machine, self.memory, self.shared = machine, machine.memory, machine.shared
        self.order, self.uses_wgmma = machine.order, machine.program.uses_wgmma
        self.row_program, self.row_warp = programs, warps
        self.lanes = 32 * len(programs)
        self.lane = np.tile(np.arange(32), len(programs))
        self.program, self.warp = np.repeat(programs, 32), np.repeat(warps, 32)
        self.registers = Registers(machine.program.kernel.widths, self.lanes)
        self.special = self._special(machine)
        self.groups: dict[int, Array] = {0: np.ones(self.lanes, bool)}
        #: Lanes at a barrier, and lanes that wait for the rest of their warp, by instruction.
        self.waiting: dict[int, Array] = {}
        self.parked: dict[int, Array] = {}
        self.met = np.zeros(self.lanes, np.int64)
        self._codes: Array | None = None
        #: Whether griddepcontrol.wait has been passed, by lane.
        self.may_touch = np.full(self.lanes, not machine.program.kernel.waits)
        self.all_may_touch = bool(self.may_touch.all())
        #: Of cp.async and wgmma: started, in order, and how many groups each lane has closed.
        self.copies: list[Any] = []
        self.copy_groups = np.zeros(self.lanes, np.int64)
        self.products: list[Any] = []
        self.product_groups = np.zeros(self.lanes, np.int64)
        #: Registers of products in flight, and those written since the last wgmma.fence.
        self.in_flight: frozenset[int] = frozenset()
        self.held: frozenset[int] = frozenset()
        self.unfenced: set[int] = set()

    def _special(self, machine: Machine) -> dict[str, Array]:
        number = machine.numbers[self.program]
        gx, gy, gz = machine.grid
        values: dict[str, Any] = {
            **{"%tid.x": self.lane + 32 * self.warp, "%tid.y": 0, "%tid.z": 0, "%laneid": self.lane, "%warpid": self.warp},
            **{"%ntid.x": 32 * machine.warps, "%ntid.y": 1, "%ntid.z": 1, "%nctaid.x": gx, "%nctaid.y": gy, "%nctaid.z": gz},
            **{"%ctaid.x": number % gx, "%ctaid.y": number // gx % gy, "%ctaid.z": number // (gx * gy)},
        }
        return {name: np.broadcast_to(np.asarray(value, U32), (self.lanes,)) for name, value in values.items()}

    @property
    def codes(self) -> Array:
        """Of the threads, for the shadows."""
        if self._codes is None:
            epoch, numbers = self.machine.epoch[self.program], self.machine.numbers[self.program]
            self._codes = thread_codes(numbers, epoch, self.warp, self.met, self.lane)
        return self._codes

    def passed_barrier(self) -> None:
        self.met[:] = 0
        self._codes = None

    def warps_met(self, mask: Any) -> None:
        self.met = self.met + (1 if mask is None else mask)
        self._codes = None

    def whole_warps(self, mask: Any) -> Array:
        """Rows that run an instruction which takes whole warps."""
        if mask is None:
            return np.arange(self.lanes // 32)
        rows = mask.reshape(-1, 32)
        if (rows.any(1) != rows.all(1)).any():
            raise Diverged("some lanes of a warp are elsewhere")
        return np.flatnonzero(rows.all(1))

    def park(self, place: int, mask: Array) -> Array:
        """Of lanes at an instruction that takes whole warps, those whose warp is there; the others wait for it."""
        rows = mask.reshape(-1, 32)
        if (rows.any(1) == rows.all(1)).all():
            return mask
        there = mask | self.parked.pop(place, np.zeros(self.lanes, bool))
        whole = np.repeat(there.reshape(-1, 32).all(1), 32)
        if (there & ~whole).any():
            self.parked[place] = there & ~whole
        return there & whole

    def rows(self, values: Array) -> Array:
        """Lanes' values by warp."""
        return np.broadcast_to(values, (self.lanes,)).reshape(-1, 32)


class Machine:
    """One launch: runs when made. instructions_run, ties: what it came to."""

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
        self.instructions_run = self.ties = 0
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
