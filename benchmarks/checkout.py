"""Where this checkout is, and folders as command lines name them."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def folder(text: str) -> Path:
    """A path of the command line; shells leave the ~ of --out=~/results alone."""
    return Path(text).expanduser()
