"""A launch's machine code, read: what ptxas wrote into each instruction, and what a program takes of a multiprocessor.

Since Volta ptxas schedules: each instruction says how many cycles its warp waits after it (stall), which of six counters it
raises while its result (writes) or its operands (reads) are on their way, and which counters it waits for (waits).
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import triton

from fastdraw.kernels.triton import aot
from fastdraw.kernels.triton.launch import Launch, dependence

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
#: Value of `writes` and `reads` where there is no counter.
NO_COUNTER = 7


class Instruction(NamedTuple):
    """predicate: "P0", "!UP1", "" where there is none. operands: as they stand, apart. target: of a jump, an index."""

    predicate: str
    op: str
    modifiers: tuple[str, ...]
    operands: tuple[str, ...]
    stall: int
    writes: int
    reads: int
    waits: int
    target: int | None = None


class Program(NamedTuple):
    """registers per thread, shared and spilled bytes (shared of a block, spilled of a thread)."""

    code: list[Instruction]
    registers: int
    shared: int
    spilled: int


def compiled(launch: Launch, target: str) -> Program:
    """`launch` (tensors may be on the meta device) compiled for a CUDA target of aot.TARGETS."""
    extra = dependence(launch, target in ("sm_90", "sm_100"))
    launch = launch._replace(arguments={**launch.arguments, **{n: extra[n] for n in extra if n.isupper()}})
    options = {**launch.options(nvidia=True), **{n: extra[n] for n in extra if not n.isupper()}}
    kernel: Any = triton.compile(aot._source(launch), target=aot.TARGETS[target], options=options)
    registers, spilled = aot._cuda_usage(kernel.asm["cubin"])
    return Program(parsed(disassembled(kernel.asm["cubin"])), registers, kernel.metadata.shared, spilled)


def disassembled(cubin: bytes) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(TOOLS / "nvdisasm"), "-c", "-hex", file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


_LABEL = re.compile(r"\s*(\.L_x_\d+):")
_FIRST = re.compile(
    r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@(!?U?P\w+)\s+)?([A-Z][A-Z0-9_]*)((?:\.\w+)*)\s*(.*?)\s*;\s+/\* 0x[0-9a-f]+ \*/"
)
_SECOND = re.compile(r"\s*/\* (0x[0-9a-f]+) \*/")


def parsed(text: str) -> list[Instruction]:
    """What nvdisasm -hex prints: 128 bits an instruction in two lines, whose scheduling stands in the second's upper bits."""
    labels: dict[str, int] = {}
    code: list[Instruction] = []
    first: re.Match[str] | None = None
    for line in text.splitlines():
        if label := _LABEL.match(line):
            labels[label[1]] = len(code)
        elif found := _FIRST.match(line):
            first = found
        elif first is not None and (second := _SECOND.match(line)):
            bits = int(second[1], 16) >> 41
            predicate, op, modifiers, operands = first.groups()
            parts = tuple(part.strip() for part in operands.split(",")) if operands else ()
            scheduling = (bits & 15, bits >> 5 & 7, bits >> 8 & 7, bits >> 11 & 63)
            code.append(Instruction(predicate or "", op, tuple(modifiers.split(".")[1:]), parts, *scheduling))
            first = None
    if not code:
        raise ValueError("text: expected what `nvdisasm -c -hex` prints of a kernel, found no instruction in it")
    return [_aimed(instruction, labels) for instruction in code]


def _aimed(instruction: Instruction, labels: dict[str, int]) -> Instruction:
    for operand in instruction.operands:
        label = re.search(r"\.L_x_\d+", operand)
        if label and instruction.op in ("BRA", "CALL"):
            return instruction._replace(target=labels[label[0]])
    return instruction
