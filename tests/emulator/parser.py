"""PTX text as a kernel: parameters, registers, instructions. Whatever it cannot read is Unknown."""

from __future__ import annotations

import re
from typing import NamedTuple

from .faults import Unknown
from .formats import TYPES

#: Directives that say nothing about what is computed.
_SILENT = (".loc", ".file", ".section", ".pragma", ".b8", ".b32", ".b64")


class Instruction(NamedTuple):
    """guard: (negated, register) or None; where: file and line of the Python source."""

    guard: tuple[bool, int] | None
    opcode: str
    operands: tuple[str, ...]
    text: str
    where: str


def split_operands(text: str) -> tuple[str, ...]:
    """At commas outside of braces and brackets."""
    parts, depth, begin = [], 0, 0
    for i, character in enumerate(text):
        depth += (character in "{[(") - (character in "}])")
        if character == "," and depth == 0:
            parts.append(text[begin:i].strip())
            begin = i + 1
    last = text[begin:].strip()
    return (*parts, last) if last else tuple(parts)


class Kernel:
    """The one kernel of a PTX module.

    name, target ("sm_90a"), threads (of a program, or None), max_registers (or None), parameters [(name, bytes)],
    registers {name: index}, widths (bytes by index, 0 for predicates), instructions, labels {name: index of an instruction},
    shared: the symbol of its shared memory.
    """

    def __init__(self, ptx: str | bytes) -> None:
        text = ptx.decode() if isinstance(ptx, bytes) else ptx
        entries = re.findall(r"\.entry\s+(\w+)", text)
        if len(entries) != 1 or ".func" in text:
            raise Unknown(f"a module of other than one kernel: {entries}")
        self.name = entries[0]
        self.target = self._found(r"\.target\s+(\w+)", text)
        head, body = text[: text.index(".entry")], text[text.index("\n{", text.index(".entry")) + 2 :]
        self.shared = self._module(head)
        signature = text[text.index(".entry") : text.index("\n{", text.index(".entry"))]
        self.parameters = self._parameters(signature)
        self.threads = int(self._found(r"\.reqntid\s+(\d+)", signature, "0")) or None
        self.max_registers = int(self._found(r"\.maxnreg\s+(\d+)", signature, "0")) or None
        self.registers: dict[str, int] = {}
        self.widths: list[int] = []
        self.instructions: list[Instruction] = []
        self.labels: dict[str, int] = {}
        self._files = dict(re.findall(r'\.file\s+(\d+)\s+"([^"]+)"', text))
        self._where = ""
        self._body(body[: body.index("\n}")])
        self.waits = any(one.opcode == "griddepcontrol.wait" for one in self.instructions)

    @staticmethod
    def _found(pattern: str, text: str, default: str | None = None) -> str:
        match = re.search(pattern, text)
        if match is None and default is None:
            raise Unknown(f"a module without {pattern}")
        return match[1] if match is not None else str(default)

    @staticmethod
    def _module(head: str) -> str:
        symbol = "global_smem"
        for line in re.sub(r"//.*", "", head).splitlines():
            if not line.strip() or line.split()[0] in (".version", ".target", ".address_size", ".visible", ".file"):
                continue
            # What libdevice asks the compiler by; nothing may use its address, which is no operand here.
            if re.fullmatch(r"\s*\.global\s+\.align\s+1\s+\.b8\s+[\w$]+\[\d+\] = \{[\d, ]+\};", line):
                continue
            match = re.fullmatch(r"\s*\.extern\s+\.shared\s+\.align\s+\d+\s+\.b8\s+(\w+)\[\];", line)
            if match is None:
                raise Unknown(f"directive {line.strip()}")
            symbol = match[1]
        return symbol

    @staticmethod
    def _parameters(signature: str) -> list[tuple[str, int]]:
        found = []
        for one in split_operands(signature[signature.index("(") + 1 : signature.rindex(")")]):
            match = re.fullmatch(r"\.param\s+\.(\w+)\s+(?:\.ptr\s+\.global\s+\.align\s+\d+\s+)?(\w+)", one)
            if match is None or match[1] not in TYPES:
                raise Unknown(f"parameter {one}")
            found.append((match[2], TYPES[match[1]].itemsize))
        rest = re.sub(r"//.*|\.(reqntid|maxntid|maxnreg|minnctapersm)\s+[\d, ]+", "", signature[signature.rindex(")") + 1 :])
        if rest.strip():
            raise Unknown(f"directive {rest.strip()}")
        return found

    def _body(self, text: str) -> None:
        # Statements end in semicolons, and inline assembly has braces around some; a line may hold several, or part of one.
        pending = ""
        for raw in text.splitlines():
            line = raw.split("//", 1)[0].strip()
            if line.startswith(".loc"):
                _, file, number = line.split()[:3]
                self._where = f"{self._files.get(file, '?').rsplit('/', 1)[-1]}:{number}"
            if not line or line.split()[0] in _SILENT:
                continue
            pending = f"{pending} {line}".strip()
            *whole, pending = re.split(r";", pending)
            for statement in whole:
                self._statement(statement)
            pending = self._labels(pending.strip().lstrip("{}").strip())
        if pending:
            raise Unknown(f"directive {pending}")

    def _labels(self, text: str) -> str:
        while match := re.match(r"([$\w]+):(?!:)\s*", text):
            self.labels[match[1]] = len(self.instructions)
            text = text[match.end() :].lstrip("{}").strip()
        return text

    def _statement(self, text: str) -> None:
        text = self._labels(text.strip().lstrip("{}").strip())
        if not text:
            return
        if text.startswith(".reg"):
            self._declare(text)
            return
        match = re.fullmatch(r"(?:@(!?)([%\w$]+)\s+)?([a-z][\w.:]*)\s*(.*)", text, re.DOTALL)
        if match is None:
            raise Unknown(f"{self.name}: {text}")
        guard = (match[1] == "!", self.registers[match[2]]) if match[2] else None
        text = re.sub(r"\s+", " ", text)
        self.instructions.append(Instruction(guard, match[3], split_operands(match[4]), text, self._where))

    def _declare(self, text: str) -> None:
        match = re.fullmatch(r"\.reg\s*\.(\w+)\s+(.*)", text)
        if match is None or match[1] not in TYPES:
            raise Unknown(f"directive {text}")
        width = 0 if match[1] == "pred" else TYPES[match[1]].itemsize
        for name in split_operands(match[2]):
            several = re.fullmatch(r"(%?[\w$]+)<(\d+)>", name)
            names = [f"{several[1]}{i}" for i in range(int(several[2]))] if several else [name]
            for one in names:
                if self.registers.setdefault(one, len(self.widths)) == len(self.widths):
                    self.widths.append(width)
                elif self.widths[self.registers[one]] != width:
                    raise Unknown(f"register {one} of two widths")
