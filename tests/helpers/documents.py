"""README and docs/: their blocks of Python, and the commands that they tell a reader to type."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCE = re.compile(r"(?ms)^(?:<!-- not run: (?P<reason>[^\n]+) -->\n+)?```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^```$")
#: A line that begins with one of these, or has it in backquotes, is a command; environment variables may stand before it.
_COMMAND = re.compile(r"^(?:\w+=\S+ )*(?:fastdraw [a-z]|python3? |torchrun |pytest |make [a-z]|srun )")


class Block(NamedTuple):
    line: int
    text: str
    #: Why it cannot be run here, as a comment above it says; None: it is run.
    reason: str | None


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def python_blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(text.count("\n", 0, found.start("text")) + 1, found["text"], found["reason"])
        for found in _FENCE.finditer(text)
        if found["language"] == "python"
    ]


def commands(page: Path) -> list[list[str]]:
    """The words of each command: of fences that are no Python, of indented blocks, and in backquotes."""
    text = _FENCE.sub(lambda found: "" if found["language"] == "python" else found["text"], page.read_text(encoding="utf-8"))
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    lines += [re.sub(r"\s+", " ", inline) for inline in re.findall(r"`([^`]+)`", text)]
    found = []
    for line in lines:
        if not _COMMAND.match(line.strip()):
            continue
        try:
            found.append(shlex.split(line, comments=True))
        except ValueError:
            # The first of several lines of a script in quotes.
            continue
    return found
