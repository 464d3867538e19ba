"""`python -m benchmarks.warm`: compiles the Triton kernels that benchmarks time, several at once, into Triton's cache.

On a fresh machine they would be compiled one after the other, by the one process that measures. Each task is a process of its
own that runs what a benchmark runs, once and small: so what is compiled is what is used. `python -m benchmarks.warm NAME` is
one task. Exit code: 0; 1 where a task
failed, and not only took too long.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from benchmarks import checkout

checkout.activate()

#: Seconds for all tasks together: what is not compiled by then is compiled by whoever needs it.
LIMIT = 80.0
LATE = "not done after"
#: Images that stand for a large batch: kernels do not know how many there are, but few large ones are shared by programs.
FEW = 96


def _step(batch: int, precision: str, kind: str) -> None:
    from benchmarks import models, steps
    from benchmarks.cases import fastdraw_backends

    problem = models.Problem(models.mnist(2), batch)
    steps.graphed(problem, "", getattr(steps, kind), precision, fastdraw_backends()[0]).step(0)


def _sequence(precision: str) -> None:
    from benchmarks import sequence

    variants = sequence.sequence_case(128, 100, 256, 2).variants
    next(v for v in variants if v.name.startswith("lstm_step") and v.name.endswith(precision)).step(0)


def _wide(name: str) -> None:
    from benchmarks import wide

    operator, shape, dtype, _ = wide.CASES[name]
    variant = wide.wide_case(operator, replace(shape, batch=FEW), dtype).variants[0]
    with variant.in_force():
        variant.step(0)


def tasks() -> dict[str, Callable[[], None]]:
    """By name. The first are the first that are needed."""
    from benchmarks import wide

    settings = [
        (128, "bfloat16", "own"),
        (128, "float32", "own"),
        (128, "tf32", "own"),
        (128, "float16", "own"),
        (128, "bfloat16", "rebuilding"),
        (2048, "bfloat16", "own"),
        (2048, "tf32", "own"),
        (2048, "float32", "own"),
    ]
    found: dict[str, Callable[[], None]] = {
        f"step {batch} {precision} {kind}": partial(_step, batch, precision, kind) for batch, precision, kind in settings
    }
    found |= {name: partial(_wide, name) for name in wide.CASES}
    return found | {f"sequence {precision}": partial(_sequence, precision) for precision in ("float32", "bfloat16")}


def run_all(commands: dict[str, Sequence[str]], workers: int, limit: float = LIMIT) -> dict[str, str]:
    """Runs commands at the same time, `workers` at most; what failed, each with the last line it said."""
    end, waiting, failed = time.monotonic() + limit, list(commands), {}
    running: dict[str, tuple[subprocess.Popen[bytes], tempfile._TemporaryFileWrapper]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                name = waiting.pop(0)
                output = tempfile.TemporaryFile()  # noqa: SIM115 - open for as long as the process runs
                process = subprocess.Popen(commands[name], stdout=output, stderr=subprocess.STDOUT, cwd=checkout.ROOT)
                running[name] = (process, output)
            for name, (process, output) in list(running.items()):
                if process.poll() is None:
                    continue
                if process.returncode:
                    output.seek(0)
                    failed[name] = (output.read().decode(errors="replace").strip().splitlines() or ["no reason given"])[-1]
                output.close()
                del running[name]
            if time.monotonic() > end:
                return failed | dict.fromkeys([*running, *waiting], f"{LATE} {limit:.0f} s")
            time.sleep(0.05)
    finally:
        for process, output in running.values():
            process.kill()
            process.wait()
            output.close()
    return failed


def main(names: Sequence[str]) -> int:
    if names:
        tasks()[names[0]]()
        return 0
    start = time.monotonic()
    commands = {name: [sys.executable, "-m", "benchmarks.warm", name] for name in tasks()}
    failed = run_all(commands, workers=max(1, min(12, (os.cpu_count() or 2) - 2)))
    for name, reason in failed.items():
        print(f"{name}: {reason}")
    print(f"{len(commands) - len(failed)} of {len(commands)} tasks in {time.monotonic() - start:.0f} s")
    # What took too long is compiled by whoever needs it.
    return 1 if any(not reason.startswith(LATE) for reason in failed.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
