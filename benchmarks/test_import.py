"""What `import fastdraw` adds to `import torch`, in processes of their own."""

from __future__ import annotations

import subprocess
import sys
import time

from benchmarks.checkout import ROOT
from benchmarks.conftest import record, take_turns
from fastdraw.profile import figures


class Process:
    """A turn is one new Python process that imports a module and ends."""

    note = ""

    def __init__(self, name: str, module: str) -> None:
        self.name = name
        self._command = [sys.executable, "-c", f"import {module}"]
        self.turn_seconds = self.turn()

    def turn(self) -> float:
        start = time.perf_counter()
        subprocess.run(self._command, check=True, cwd=ROOT)
        return time.perf_counter() - start

    def eager(self) -> None:
        return None


def test_import(benchmark, pytestconfig):
    runners = [Process("import fastdraw", "fastdraw"), Process("reference", "torch")]
    times = take_turns(benchmark, runners, pytestconfig)
    rows = [figures.row(name, seconds) for name, seconds in times.items()]
    measured = "a process that imports fastdraw; the reference imports torch"
    record({"title": "import", "measured": measured, "floor": None, "rows": rows}, benchmark, pytestconfig)
