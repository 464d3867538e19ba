"""What the figures were measured on. `python -m benchmarks.environment PATH` writes it as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import torch

from benchmarks import checkout
from fastdraw import dispatch
from fastdraw.profile import machine
from fastdraw.profile.machine import output_of


def describe() -> dict[str, Any]:
    """Names and versions, and which commit was measured; what cannot be found out is None."""
    commit = output_of("git", "-C", str(checkout.ROOT), "rev-parse", "--short=12", "HEAD")
    changed = output_of("git", "-C", str(checkout.ROOT), "status", "--short", "--untracked-files=no")
    return machine.describe() | {"commit": commit, "changed files": changed}


def line(found: dict[str, Any]) -> str:
    """One line for the head of a table."""
    return f"{machine.line(found)} ({found['commit'] or 'commit unknown'})"


def warn() -> None:
    """Says on stderr, before anything is measured, that the fast kernels are missing."""
    slower = dispatch.slower("cuda" if torch.cuda.is_available() else "cpu")
    if slower is not None:
        print(f"benchmarks: {slower}", file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.environment", description="What figures are measured on.")
    parser.add_argument("path", nargs="?", type=checkout.folder, help="a file for it, as JSON; default: stdout")
    path, text = parser.parse_args().path, json.dumps(describe(), indent=1)
    path.write_text(text) if path is not None else print(text)
