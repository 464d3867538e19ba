"""Which function makes which instruction: patterns of whole opcodes, so that an unknown modifier is an unknown instruction."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from .faults import Fault, Unknown
from .operands import Operands
from .parser import Instruction

#: What runs an instruction for the lanes of a mask, None being all.
Step = Callable[[Any, Any], None]
Builder = Callable[[Operands, "re.Match[str]", tuple[str, ...]], Step]
_BUILDERS: list[tuple[re.Pattern[str], Builder]] = []


def instruction(*patterns: str) -> Callable[[Builder], Builder]:
    def register(builder: Builder) -> Builder:
        _BUILDERS.extend((re.compile(pattern), builder) for pattern in patterns)
        return builder

    return register


def build(operands: Operands, one: Instruction) -> Step:
    for pattern, builder in _BUILDERS:
        match = pattern.fullmatch(one.opcode)
        if match is not None:
            try:
                return builder(operands, match, one.operands)
            except Fault as fault:
                raise type(fault)(f"{one.text} ({one.where}): {fault}") from None
            except (IndexError, ValueError, KeyError) as error:
                raise Unknown(f"{one.text} ({one.where}): {type(error).__name__} {error}") from error
    raise Unknown(f"{one.text} ({one.where})")
