"""Makes this checkout importable as it stands, without installing it."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def folder(text: str) -> Path:
    """A path of the command line; shells leave the ~ of --out=~/results alone."""
    return Path(text).expanduser()


def activate() -> None:
    """Safe to call twice. A fastdraw that is installed is still found first."""
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
