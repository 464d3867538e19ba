"""The first call: is it right, and how fast is it? Tests, whole steps beside every peer, each kernel's time.

Every step has a limit of its own and stands alone; the most valuable come first, and what no time is left for says so.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.checkout import ROOT
from benchmarks.gpu import report
from benchmarks.gpu.processes import append, call, python
from benchmarks.gpu.race import DRY_TURNS, race
from benchmarks.gpu.rows import ROWS

#: Steps that begin with fewer seconds left than this are left out.
_LEAST = 8.0
#: So many times a step's limit is what --tiny has for it: a dozen processes begin at once, on a CPU's few cores.
_SLOWER = 3
_MODELS = "(mnist or attention or small or batches) and not memory and not inductor"
_PYTEST = ["-q", "-p", "no:cacheprovider", "--tb=short", "-rfEs", "-o", "faulthandler_timeout=60"]


@dataclass
class Step:
    """work(limit) gives a word on how it went, and whether it is green."""

    name: str
    limit: float
    work: Callable[[float], tuple[str, bool]]


class Figures:
    """out: the folder that everything goes to. tiny: sizes that a CPU carries, to try all of it there."""

    def __init__(self, out: Path, commit: str | None, tiny: bool) -> None:
        self.out, self.commit, self.tiny = out, commit, tiny
        self.done: list[dict[str, Any]] = []
        self.environment: dict[str, Any] = {}
        self.workers = max(1, min(14, (os.cpu_count() or 2) - 2)) if not tiny else 2

    def steps(self) -> list[Step]:
        small = "small" if self.tiny else ""
        models = self._tests(small or _MODELS, "gpu/test_gpu_models.py", "gpu/test_gpu_training.py")
        return [
            Step("environment", 40, self._environment),
            Step("tests of models and training", 75, models),
            Step("steps and forward passes", 75, self._race("step", "forward")),
            Step("kernels", 40, self._kernels),
            Step("large batch", 55, self._race("large")),
            Step("peers", 130, self._race("peers")),
            Step("tests of operators", 90, self._tests("lstm_step" if self.tiny else "", "gpu/test_gpu_operators.py")),
            Step("tests of Triton", 90, self._tests(small, *(f"kernels/{p.name}" for p in triton_tests()))),
        ]

    def __call__(self, seconds: float, only: list[str] | None = None) -> int:
        end = time.monotonic() + seconds
        self.out.mkdir(parents=True, exist_ok=True)
        for step in self.steps():
            if only and step.name != "environment" and not any(word in step.name for word in only):
                continue
            left, began = end - time.monotonic() - 3, time.monotonic()
            word, green = "no time was left", None
            if left >= _LEAST:
                try:
                    word, green = step.work(min(step.limit * (_SLOWER if self.tiny else 1), left))
                except Exception as error:
                    word, green = f"{type(error).__name__}: {error}", False
                if not green and left < step.limit:
                    word += f" (it had {left:.0f} s)"
            status = "left out" if green is None else "passed" if green else "failed"
            took = round(time.monotonic() - began, 1)
            self.done.append({"name": step.name, "status": status, "seconds": took, "word": word})
            print(f"{status:<8} {took:6.1f} s  {step.name}: {word}", flush=True)
            # After every step, so that a call which is cut off leaves what it has.
            report.write(self.out, self.environment, self.done)
        print(report.summary(self.out, self.done))
        return 1 if any(step["status"] == "failed" for step in self.done) else 0

    def log(self, text: str) -> None:
        append(self.out / "log.txt", text)

    def write(self, record: dict[str, Any]) -> None:
        append(self.out / report.FIGURES, json.dumps(record) + "\n")

    def _environment(self, limit: float) -> tuple[str, bool]:
        path = self.out / ".environment.json"
        code, text = call(python("benchmarks.environment", str(path)), limit)
        self.log(text)
        if code == 0:
            self.environment = json.loads(path.read_text())
            path.unlink()
        self.environment["commit"] = self.commit or self.environment.get("commit")
        return self.environment.get("device") or text[-200:], code == 0

    def _tests(self, only: str, *files: str) -> Callable[[float], tuple[str, bool]]:
        def work(limit: float) -> tuple[str, bool]:
            spread = ["-n", str(self.workers)] if self.workers > 1 else []
            paths = [f"tests/{file}" for file in files]
            command = python("pytest", *_PYTEST, *spread, *(["-k", only] if only else []), *paths)
            # Elsewhere than on a GPU Triton's kernels run in its interpreter alone.
            code, text = call(command, limit, **({"TRITON_INTERPRET": "1"} if self.tiny else {}))
            self.log(f"\n===== {' '.join(command)}\n{text}\n===== exit {code}\n")
            last = next((line for line in reversed(text.splitlines()) if line.strip()), "nothing was printed").strip("= ")
            return last if code is not None else f"out of time after {limit:.0f} s; {last[:80]}", code == 0

        return work

    def _race(self, *cases: str) -> Callable[[float], tuple[str, bool]]:
        def work(limit: float) -> tuple[str, bool]:
            rows = [(case, row) for case in cases for row in ROWS[case]]
            options = ["--tiny"] if self.tiny else []
            red = race(rows, limit, self.write, self.log, *options, turns_each=DRY_TURNS if self.tiny else None)
            return f"{len(rows) - red} of {len(rows)} rows measured and right", red == 0

        return work

    def _kernels(self, limit: float) -> tuple[str, bool]:
        options = [str(self.out / report.FIGURES), *(["--tiny"] if self.tiny else [])]
        code, text = call(python("benchmarks.gpu.kernels", *options), limit)
        self.log(f"\n===== kernels\n{text}\n")
        return (text.strip().splitlines() or ["nothing was printed"])[-1][:200], code == 0


def triton_tests() -> list[Path]:
    """What runs in Triton's interpreter elsewhere, here on the device."""
    return sorted(path for path in (ROOT / "tests" / "kernels").glob("test_triton_*.py") if "aot" not in path.stem)
