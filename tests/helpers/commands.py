"""Commands of fastdraw in this process, and Python in one of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fastdraw.cli import main


def mistake(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """The one line that a command with a mistake in it leads to."""
    assert main(list(args)) == 2
    out, errors = capsys.readouterr()
    # Training may have said what it found before.
    assert out == "" or args[0] == "train"
    assert "Traceback" not in out
    assert errors.startswith("fastdraw: error: ")
    assert errors.count("\n") == 1
    assert errors[:-1].isprintable()
    # The user typed flags: Python's names for them are written with _.
    assert not re.match(r"fastdraw: error: [a-z]+_", errors), errors
    return errors


def python(code: str, *args: str, folder: Path | None = None, **environment: str) -> str:
    """What a new Python prints. Without `folder` it runs in an empty one: Python looks where it stands first, and takes any
    folder named fastdraw for a package."""
    with tempfile.TemporaryDirectory() as empty:
        command = [sys.executable, "-W", "ignore", "-c", code, *args]
        own = {**os.environ, **environment}
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=own, cwd=folder or empty)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
