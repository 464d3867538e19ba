"""The way that the first thread of a program takes through a kernel: which instructions, in which order, how often.

Integers and predicates are followed as far as they hang on constants, sizes and block numbers, which is all that loops over
tiles need; everything else is unknown. At a jump whose predicate is unknown (a bound that was loaded) a loop is taken
`unknown_trips` times and other jumps not at all.
"""

from __future__ import annotations

from typing import NamedTuple

from .integers import PREDICATE, Words
from .machine_code import Instruction

#: Longer than any kernel of ours runs: a loop was misread.
_LONGEST = 5_000_000


class Step(NamedTuple):
    """which: the instruction's index. moves: whether a load or store is carried out (a masked cp.async moves no bytes)."""

    which: int
    moves: bool


class Path(NamedTuple):
    """guessed: how many loops' bounds were unknown."""

    steps: list[Step]
    guessed: int


def path(code: list[Instruction], arguments: dict[int, int], second: int = 0, unknown_trips: int = 4) -> Path:
    """arguments: 32-bit words of the constant bank by their offset, as far as they are known. second: the program's number
    along the grid's second axis; it is the first along the others."""
    return _Walk(code, arguments, second, unknown_trips).run()


class _Walk:
    def __init__(self, code: list[Instruction], arguments: dict[int, int], second: int, unknown_trips: int) -> None:
        self.code, self.words, self.unknown_trips = code, Words(arguments, second), unknown_trips
        self.left: dict[int, int] = {}

    def run(self) -> Path:
        steps: list[Step] = []
        guessed: set[int] = set()
        returns: list[int] = []
        i = 0
        while i < len(self.code):
            instruction = self.code[i]
            holds = self.words.predicate(instruction.predicate) if instruction.predicate else True
            steps.append(Step(i, self.moves(instruction, holds)))
            if len(steps) > _LONGEST:
                raise RuntimeError(f"no way out of the loop at instruction {i}: {instruction}")
            op, target = instruction.op, instruction.target
            if op == "EXIT" and holds:
                break
            if op == "CALL" and target is not None and holds:
                returns.append(i + 1)
                i = target
                continue
            if op == "RET" and holds is not False and returns:
                i = returns.pop()
                continue
            if op == "BRA" and target is not None:
                if holds is None:
                    holds = self.guess(i, target)
                    guessed |= {i} if holds is not None else set()
                if holds:
                    i = target
                    continue
            elif holds is not False:
                self.words.execute(instruction, holds is True)
            i += 1
        return Path(steps, len(guessed))

    def guess(self, i: int, target: int) -> bool | None:
        """Whether a jump whose predicate is unknown is taken: None where it neither ends nor repeats a loop, and is not."""
        repeats = target <= i
        if not repeats and not any(self._repeats_around(i, j) for j in range(i, target)):
            return None
        self.left[i] = self.left.get(i, self.unknown_trips) - 1
        over = self.left[i] == 0
        if over:
            del self.left[i]
        return over != repeats

    def _repeats_around(self, i: int, j: int) -> bool:
        """Whether the jump at j goes back to before i, so that the one at i leaves a loop."""
        jump = self.code[j]
        return jump.op == "BRA" and jump.target is not None and jump.target <= i

    def moves(self, instruction: Instruction, holds: bool | None) -> bool:
        if instruction.op == "LDGSTS" and PREDICATE.fullmatch(instruction.operands[-1].lstrip("!")):
            return self.words.predicate(instruction.operands[-1]) is not False
        return holds is not False
