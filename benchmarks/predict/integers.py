"""What an instruction makes of integers and predicates, as far as they are known: words of 32 bits, or None.

Only what loops and masks of tiles need is followed; whatever else writes a register makes it unknown.
"""

from __future__ import annotations

import functools
import itertools
import operator
import re
from collections.abc import Callable

from .machine_code import Instruction

Value = int | None
_WORD = 0xFFFFFFFF
PREDICATE = re.compile(r"U?P[T\d]")
#: Their operands are all read.
_NO_RESULT = ("LDGSTS", "STG", "STS", "STL", "STSM", "BAR", "DEPBAR")


def _signed(value: int) -> int:
    return value - (1 << 32) if value & 0x80000000 else value


class Words:
    """The registers and predicates of one thread. arguments: words of the constant bank by their offset; second: the program's
    number along the grid's second axis."""

    def __init__(self, arguments: dict[int, int], second: int = 0) -> None:
        self.arguments, self.second = arguments, second
        self.registers: dict[str, Value] = {}
        self.predicates: dict[str, bool | None] = {}

    def predicate(self, text: str) -> bool | None:
        name = text.lstrip("!")
        value = True if name in ("PT", "UPT") else self.predicates.get(name)
        return value if value is None else value != text.startswith("!")

    def value(self, text: str) -> Value:
        negative, text = text.startswith("-"), text.lstrip("-").removesuffix(".reuse")
        inverted, text = text.startswith("~"), text.lstrip("~")
        found: Value
        if text in ("RZ", "URZ", "SRZ"):
            found = 0
        elif match := re.fullmatch(r"c\[0x0\]\[0x([0-9a-f]+)\]", text):
            found = self.arguments.get(int(match[1], 16))
        elif re.fullmatch(r"0x[0-9a-f]+|\d+", text):
            found = int(text, 0)
        else:
            found = self.registers.get(text)
        if found is None:
            return None
        found = ~found if inverted else found
        return (-found if negative else found) & _WORD

    def execute(self, instruction: Instruction, certain: bool) -> None:
        """Writes what the instruction's destinations hold after it; where it may not be carried out they are unknown."""
        operands, op, modifiers = instruction.operands, instruction.op, instruction.modifiers
        if not operands:
            return
        if op in ("ISETP", "UISETP"):
            held = self.compared(instruction) if certain else None
            self.predicates[operands[0]] = held
            if operands[1] not in ("PT", "UPT"):
                self.predicates[operands[1]] = None
            return
        if op in ("PLOP3", "UPLOP3"):
            self.predicates[operands[0]] = self.joined(operands) if certain else None
            self.predicates[operands[1]] = None
            return
        result, carry = None, None
        if certain and op.lstrip("U") in _RESULTS:
            sources = [operand for i, operand in enumerate(operands[1:]) if not (i < 2 and PREDICATE.fullmatch(operand))]
            result, carry = _RESULTS[op.lstrip("U")](self, modifiers, sources)
        for operand in operands[:3] if op not in _NO_RESULT else ():
            if PREDICATE.fullmatch(operand):
                # The first is the sum's carry; of what else is written nothing is known.
                self.predicates[operand], carry = carry, None
        wide = self.wide_product(instruction) if certain and "WIDE" in modifiers else ()
        self.store(operands[0], result, _width(instruction))
        for i, word in enumerate(wide):
            self.store(_after(operands[0], i), word, 1)
        if certain and op in ("ULDC", "LDC") and modifiers[:1] == ("64",):
            first = re.search(r"\[0x([0-9a-f]+)\]$", operands[1])
            if first:
                self.store(_after(operands[0], 1), self.arguments.get(int(first[1], 16) + 4), 1)

    def joined(self, operands: tuple[str, ...]) -> bool | None:
        """A table of three predicates; the first of two tables makes the first result."""
        table = self.value(operands[5])
        numbers = [None if held is None else -held & _WORD for held in map(self.predicate, operands[2:5])]
        found = None if table is None else _looked_up(numbers, table)
        return None if found is None else found != 0

    def store(self, register: str, value: Value, width: int) -> None:
        if not re.fullmatch(r"U?R\d+", register):
            return
        self.registers[register] = value
        for i in range(1, width):
            self.registers[_after(register, i)] = value if value == 0 else None

    def compared(self, instruction: Instruction) -> bool | None:
        operands, modifiers = instruction.operands, instruction.modifiers
        a, b, other = self.value(operands[2]), self.value(operands[3]), self.predicate(operands[4])
        found: bool | None = None
        if a is not None and b is not None:
            if "U32" not in modifiers:
                a, b = _signed(a), _signed(b)
            # Of words of 64 bits the upper ones decide unless they are the same.
            found = self.predicate(operands[5]) if "EX" in modifiers and a == b else _COMPARISONS[modifiers[0]](a, b)
        decides = "OR" in modifiers
        if decides in (found, other):
            return decides
        return None if found is None or other is None else not decides

    def wide_product(self, instruction: Instruction) -> tuple[Value, Value]:
        """a b + c in 64 bits, c a pair of registers."""
        a, b, low = (self.value(operand) for operand in instruction.operands[1:4])
        third = instruction.operands[3].removesuffix(".reuse")
        high = self.registers.get(_after(third, 1)) if re.fullmatch(r"U?R\d+", third) else 0
        if a is None or b is None or low is None or high is None:
            return None, None
        if "U32" not in instruction.modifiers:
            a, b = _signed(a), _signed(b)
        found = a * b + low + (high << 32)
        return found & _WORD, found >> 32 & _WORD


def _after(register: str, count: int) -> str:
    head = register.rstrip("0123456789")
    return f"{head}{int(register[len(head) :]) + count}"


def _width(instruction: Instruction) -> int:
    """How many registers an instruction may write."""
    modifiers = instruction.modifiers
    if instruction.op == "HGMMA":
        return int(modifiers[0].split("x")[1]) // 2
    if instruction.op in ("HMMA", "LDSM") or "128" in modifiers:
        return 4
    return 2 if "64" in modifiers or "WIDE" in modifiers or instruction.op in ("CS2R", "DADD", "DMUL", "DFMA") else 1


_Result = tuple[Value, bool | None]


def _sum(words: Words, modifiers: tuple[str, ...], sources: list[str]) -> _Result:
    # What is subtracted is added as its complement to 2^32, of which zero has a carry.
    numbers = [_complemented(words, source) for source in sources if not PREDICATE.fullmatch(source.lstrip("!"))]
    carries = (
        [words.predicate(source) for source in sources if PREDICATE.fullmatch(source.lstrip("!"))] if "X" in modifiers else []
    )
    total = 0
    for number in (*numbers, *carries):
        if number is None:
            return None, None
        total += number
    return total & _WORD, total > _WORD


def _complemented(words: Words, source: str) -> Value:
    found = words.value(source.lstrip("-"))
    return found if found is None or not source.startswith("-") else (1 << 32) - found


def _product(words: Words, modifiers: tuple[str, ...], sources: list[str]) -> _Result:
    if "WIDE" in modifiers or "HI" in modifiers:
        return None, None
    a, b = (words.value(source) for source in sources[:2])
    rest = _sum(words, modifiers, sources[2:])[0]
    if rest is None or ((a is None or b is None) and 0 not in (a, b)):
        return None, None
    return ((a or 0) * (b or 0) + rest) & _WORD, None


def _moved(words: Words, modifiers: tuple[str, ...], sources: list[str]) -> _Result:
    return words.value(sources[0]), None


def _shifted_sum(words: Words, modifiers: tuple[str, ...], sources: list[str]) -> _Result:
    if "HI" in modifiers or len(sources) < 3:
        return None, None
    a, b, shift = (words.value(source) for source in sources[:3])
    return (None if a is None or b is None or shift is None else ((a << shift) + b) & _WORD), None


def _shifted(words: Words, modifiers: tuple[str, ...], sources: list[str]) -> _Result:
    low, shift, high = (words.value(source) for source in sources[:3])
    if shift is None:
        return None, None
    if modifiers[0] == "L" and "HI" not in modifiers:
        return (None if low is None else (low << shift) & _WORD), None
    if modifiers[0] == "L" and "U64" in modifiers and low is not None and high is not None:
        return ((high << 32 | low) << shift) >> 32 & _WORD, None
    if modifiers[0] == "R" and "HI" in modifiers and high is not None:
        return (_signed(high) if "S32" in modifiers else high) >> shift & _WORD, None
    return None, None


def _chosen(words: Words, modifiers: tuple[str, ...], sources: list[str]) -> _Result:
    choice = words.predicate(sources[2])
    a, b = words.value(sources[0]), words.value(sources[1])
    return (a if choice or a == b else None if choice is None else b), None


def _logic(words: Words, modifiers: tuple[str, ...], sources: list[str]) -> _Result:
    table = words.value(sources[3])
    if table is None:
        return None, None
    return _looked_up([words.value(source) for source in sources[:3]], table), None


def _looked_up(numbers: list[Value], table: int) -> Value:
    """Bit by bit what the table says of three words. x & 0 is known whatever x is: unknown ones are tried as both."""
    found = set()
    for a, b, c in itertools.product(*((0, _WORD) if number is None else (number,) for number in numbers)):
        minterms = (x & y & z for x in (~a, a) for y in (~b, b) for z in (~c, c))
        found.add(functools.reduce(operator.or_, (m for i, m in enumerate(minterms) if table >> i & 1), 0) & _WORD)
    return found.pop() if len(found) == 1 else None


def _smaller(words: Words, modifiers: tuple[str, ...], sources: list[str]) -> _Result:
    a, b, least = words.value(sources[0]), words.value(sources[1]), words.predicate(sources[-1])
    if a is None or b is None or least is None:
        return None, None
    pair = (a, b) if "U32" in modifiers else (_signed(a), _signed(b))
    return (min(pair) if least else max(pair)) & _WORD, None


def _special(words: Words, modifiers: tuple[str, ...], sources: list[str]) -> _Result:
    """The first thread of the first program."""
    if sources[0] == "SR_CTAID.Y":
        return words.second, None
    return (0 if re.match(r"SR_(TID|CTAID|LANEID|CgaCtaId)", sources[0]) else None), None


_RESULTS: dict[str, Callable[[Words, tuple[str, ...], list[str]], _Result]] = {
    "IADD3": _sum,
    "VIADD": _sum,
    "IADD": _sum,
    "IMAD": _product,
    "MOV": _moved,
    "LDC": _moved,
    "R2UR": _moved,
    "CS2R": _moved,
    "LEA": _shifted_sum,
    "SHF": _shifted,
    "SEL": _chosen,
    "LOP3": _logic,
    "VIMNMX": _smaller,
    "IMNMX": _smaller,
    "S2R": _special,
    "S2UR": _special,
}
_COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "GE": lambda a, b: a >= b,
    "GT": lambda a, b: a > b,
    "LE": lambda a, b: a <= b,
    "LT": lambda a, b: a < b,
    "EQ": lambda a, b: a == b,
    "NE": lambda a, b: a != b,
}
