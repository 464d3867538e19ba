"""Models that come with fastdraw, each a folder as `save_pretrained` writes them, with its card: README.md.

`python -m benchmarks.pretrained RUN --name NAME` makes one of a finished run. A folder or file of that name where the program
runs comes first, everywhere: a path is always what lies there.
"""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(__file__).parent


def names() -> list[str]:
    return sorted(file.parent.name for file in FOLDER.glob("*/config.json"))


def shipped(name: str | os.PathLike[str]) -> Path | None:
    """The folder of the model of that name; None where there is none, and where something of that name lies here."""
    text = os.fspath(name)
    return FOLDER / text if text in names() and not os.path.lexists(text) else None


def hint(name: str | os.PathLike[str]) -> str:
    """What to say of a folder here that is no model, and stands before one that is; otherwise nothing."""
    text = os.fspath(name)
    if text not in names():
        return ""
    return f"; the model {text} that comes with fastdraw is taken where no folder or file of that name lies: {FOLDER / text}"
