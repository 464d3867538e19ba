"""Who last wrote and read each place, so that accesses that nothing orders are seen, in whatever order they are run.

A thread's code has five fields: its program, how often that program has met at a barrier, the warp, how often the warp has
met since then (bar.warp.sync), the lane. Two accesses of one place are in order if one thread made both, if they are of one
program with a barrier in between, or of one warp that has met in between. Nothing orders two programs of one launch.
"""

from __future__ import annotations

import numpy as np

from .faults import Unknown
from .formats import U64, Array

_LANE, _MET, _WARP, _EPOCH, _PROGRAM = (np.uint64(shift) for shift in (0, 6, 18, 24, 40))
#: In a lane's, warp's or program's place: several.
_MANY_LANES = np.uint64(63)
_MANY_WARPS = np.uint64(63 << 18 | 63)
_MANY_PROGRAMS = np.uint64(0xFFFFFF << 40)
_ONE = np.uint64(1)
#: The difference of two codes from here on: another program's; of another warp of the same program and epoch.
_ANOTHER_PROGRAM, _ANOTHER_WARP = _ONE << _PROGRAM, _ONE << _WARP
_WARPS = (_ONE << _EPOCH) - _ANOTHER_WARP
_NONE = np.uint64(0)


def thread_codes(program: Array, epoch: Array, warp: Array, met: Array, lane: Array) -> Array:
    if epoch.size and (epoch.max() >= 1 << 16 or met.max() >= 1 << 12 or program.max() >= (1 << 24) - 2):
        raise Unknown("more programs, or more barriers in one program, than are counted")
    fields = ((program + 1, _PROGRAM), (epoch, _EPOCH), (warp, _WARP), (met, _MET), (lane, _LANE))
    code = np.zeros(program.shape, U64)
    for field, shift in fields:
        code |= field.astype(U64) << shift
    return code


def unordered(before: Array, own: Array) -> Array:
    """Which earlier accesses are another thread's, with nothing in between that puts them in order."""
    x = before ^ own
    programs = (x >= _ANOTHER_PROGRAM) & (before != _NONE)
    warps = (x - _ANOTHER_WARP) < _WARPS
    lanes = (x - _ONE) < _MANY_LANES
    return programs | warps | lanes


class Shadow:
    """Of `size` places."""

    def __init__(self, size: int) -> None:
        self.wrote = np.zeros(size, U64)
        self.reads = np.zeros(size, U64)

    def read(self, places: Array, own: Array) -> bool:
        """Notes the reads; whether one comes with another thread's write, unordered."""
        bad = bool(unordered(self.wrote[places], own).any())
        self._note(places, own)
        return bad

    def _note(self, places: Array, own: Array) -> None:
        before = self.reads[places]
        if before.any():
            # Whoever reads what others have read, unordered, reads together with them.
            x = before ^ own
            own = np.where((x - _ONE) < _MANY_LANES, own | _MANY_LANES, own)
            own = np.where((x - _ANOTHER_WARP) < _WARPS, (own >> _EPOCH << _EPOCH) | _MANY_WARPS, own)
            own = np.where((x >= _ANOTHER_PROGRAM) & (before != _NONE), _MANY_PROGRAMS, own)
        self.reads[places] = own
        # Of several lanes of this very access one is left; the others are noted beside it.
        lost = self.reads[places] != own
        if lost.any():
            self._note(places[lost], own[lost])

    def write(self, places: Array, own: Array) -> tuple[Array, Array]:
        """Which writes come with another thread's read, and which with another thread's write, unordered."""
        after_read = unordered(self.reads[places], own)
        after_write = unordered(self.wrote[places], own)
        self.wrote[places] = own
        return after_read, after_write
