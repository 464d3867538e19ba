"""What ends an emulated launch. Every message names the kernel, the line it was written on and the instruction."""

from __future__ import annotations


class Fault(Exception):
    """A launch did what a device forbids, leaves open, or answers with anything at all."""


class Unknown(Fault):
    """The emulator does not know this instruction, modifier, state space or directive. It never passes over one."""


class OutOfBounds(Fault):
    """An access outside of the elements that a launch was given, or of its shared memory."""


class Misaligned(Fault):
    """An address that is no multiple of what is moved."""


class Race(Fault):
    """Two accesses to one place, one of them a store, that nothing puts in order."""


class Diverged(Fault):
    """Threads of one warp, or of one program at a barrier, are in different places where the hardware wants them together."""


class TooEarly(Fault):
    """A result is used, or an operand changed, before what was started has been waited for."""
