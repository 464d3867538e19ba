"""The warps that run as one vector: their registers, what they wait for, and what they have started."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .faults import Diverged
from .formats import U32, UNSIGNED, Array
from .shadows import thread_codes

if TYPE_CHECKING:
    from .machine import Machine

#: What a register holds before anything wrote it: NaN in every float type, far outside of everything as an address.
POISON = {0: False, 1: 0xBA, 2: 0x7FDE, 4: 0x7FC0DEAD, 8: 0x7FFFDEADDEADDEAD}


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
