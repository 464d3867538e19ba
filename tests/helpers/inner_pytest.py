"""pytest, run by a test."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.checkout import ROOT
from benchmarks.gpu.processes import environment


def run_pytest(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    # It must not take itself for a worker of the pytest that runs this test.
    own = {name: value for name, value in environment().items() if not name.startswith("PYTEST_")}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=own)
