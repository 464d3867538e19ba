"""`make gpu`: one command for a machine with a GPU, under nine minutes, with no network and nothing installed.

    python3 -m benchmarks.gpu [--out results] [--minutes 8.5] [--only NAME ...]

The chip's ceilings, tests, benchmarks and sanitizers run one after another, each in a process of its own with a limit on its
time; none stops the others. Into the output folder go report.md, report.json and log.txt, written anew after every step.
Exit code: 0 where no step failed, 1 where one did, 2 where there is no GPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.checkout import ROOT

#: Where the tools of CUDA lie when they are not on PATH.
_CUDA_BIN = Path("/usr/local/cuda/bin")
#: What compute-sanitizer says where it cannot run at all, on some virtual machines: no verdict on the kernels.
_CANNOT_RUN = ("Device not supported", "Unable to find", "not supported on this system")
#: What runs in Triton's interpreter elsewhere, here on the device.
TRITON_TESTS = [f"tests/test_triton_{name}.py" for name in ("kernels", "pieces", "recurrence", "classifier")]
#: Seconds kept back for the report.
_RESERVE = 10.0


@dataclass
class Step:
    """needs: Python packages; program: one of CUDA's tools that has to be there. Without them the step is left out."""

    name: str
    command: list[str]
    limit: float
    needs: tuple[str, ...] = ()
    program: str | None = None


def steps(folder: Path, workers: int) -> list[Step]:
    """What is run, in this order. Files that steps write for the report go into `folder`."""
    python = [sys.executable, "-m"]
    spread = ["-n", str(workers)] if workers > 1 and _installed("xdist") else []
    test = [
        *python,
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--tb=short",
        "-rfEs",
        "-o",
        "faulthandler_timeout=100",
        *spread,
    ]
    benchmark = [*python, "pytest", "--benchmark", "--benchmark-max-time=0.3", "-q", "-p", "no:cacheprovider", "--tb=short"]
    log = f"--benchmark-log={folder / 'benchmarks.jsonl'}"
    memcheck, racecheck = (
        ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", *options, *python, "benchmarks.sanitize"]
        for tool, options in (("memcheck", ["--report-api-errors", "no"]), ("racecheck", []))
    )
    pytest, suite = ("pytest",), ("pytest", "hypothesis")
    return [
        Step("environment", [*python, "benchmarks.environment", str(folder / "environment.json")], 60),
        Step("ceilings", [*python, "benchmarks.ceilings", str(folder / "ceilings.json")], 60),
        Step("tests for the GPU", [*test, "-m", "gpu", "tests/test_gpu.py", "tests/test_graphed.py"], 150, pytest),
        Step("operators' tests", [*test, "-k", "triton", "tests/test_operators.py"], 90, suite),
        Step("Triton kernels' tests", [*test, *TRITON_TESTS], 120, suite),
        Step(
            "benchmarks of operators", [*benchmark, log, "benchmarks/test_operators.py"], 170, ("pytest", "pytest_benchmark")
        ),
        Step(
            "benchmarks of DRAW",
            [*benchmark, log, *(f"benchmarks/test_{name}.py" for name in ("model", "classifier", "memory"))],
            170,
            ("pytest", "pytest_benchmark"),
        ),
        Step("memcheck", memcheck, 70, program="compute-sanitizer"),
        Step("racecheck", racecheck, 60, program="compute-sanitizer"),
    ]


def run(step: Step, log: Path, seconds_left: float) -> dict[str, Any]:
    """How the step went: passed, failed or left out, and the reason where it did not pass."""
    done: dict[str, Any] = {"name": step.name, "command": " ".join(step.command), "seconds": 0.0, "exit": None, "tail": []}
    missing = [package for package in step.needs if not _installed(package)]
    if missing:
        return {**done, "status": "left out", "reason": f"{', '.join(missing)} is not installed"}
    command = step.command
    if step.program is not None:
        found = shutil.which(step.program) or shutil.which(step.program, path=str(_CUDA_BIN))
        if found is None:
            return {**done, "status": "left out", "reason": f"{step.program} is not there"}
        command = [found, *command[1:]]
    limit = min(step.limit, seconds_left)
    if limit < 5:
        return {**done, "status": "left out", "reason": "no time was left"}
    start = time.monotonic()
    code, text = call(command, limit)
    done |= {"seconds": round(time.monotonic() - start, 1), "exit": code, "tail": text.splitlines()[-40:]}
    with log.open("a") as file:
        file.write(f"\n===== {step.name}: {done['command']}\n{text[-200_000:]}\n===== exit {code} after {done['seconds']} s\n")
    if code is None and limit < step.limit:
        return {**done, "status": "left out", "reason": f"stopped after {limit:.0f} s: no time was left for all of it"}
    if code is None:
        return {**done, "status": "failed", "reason": f"out of time after {limit:.0f} s"}
    if step.program is not None and code != 0 and any(sentence in text for sentence in _CANNOT_RUN):
        return {**done, "status": "left out", "reason": f"{step.program} cannot run on this machine"}
    # pytest's 5: no test was collected. That proves nothing, and must not pass for a success.
    return {**done, "status": "passed" if code == 0 else "failed", "reason": "" if code == 0 else f"exit status {code}"}


def call(command: Sequence[str], limit: float) -> tuple[int | None, str]:
    """Exit status, None where the limit was reached, and all output. Whatever the command started ends with it."""
    # To a file: a pipe would stay open in a grandchild that outlives the command.
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment(), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        code: int | None = None
        try:
            code = process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            pass
        finally:
            _kill_group(process.pid)
            process.wait()
        output.seek(0)
        return code, output.read().decode(errors="replace")


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def environment() -> dict[str, str]:
    """What steps run under: this checkout first, nothing that would change which kernels run."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("TRITON_INTERPRET", "FASTDRAW_BACKEND", "PYTEST_ADDOPTS")
    }
    path = os.pathsep.join(filter(None, [str(ROOT), kept.get("PYTHONPATH", "")]))
    # cuBLAS needs the workspace setting to give the same bits twice, which tests ask for.
    return {**kept, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def gpu() -> str | None:
    """Why no GPU can be used, or None. Asked in another process, so that this one holds no device."""
    if not _installed("torch"):
        return "torch is not installed"
    question = "import sys, torch; sys.exit(0 if torch.cuda.is_available() else 3)"
    code, text = call([sys.executable, "-c", question], 120)
    if code == 0:
        return None
    return (
        "torch sees no GPU here" if code == 3 else f"torch cannot be asked: {(text.strip().splitlines() or ['no answer'])[-1]}"
    )


def main(arguments: Sequence[str] | None = None, no_gpu: Callable[[], str | None] = gpu) -> int:
    parser = argparse.ArgumentParser(
        prog="python3 -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", default="", help="folder for the report; default: results")
    parser.add_argument("--minutes", type=float, default=8.5, help="time for everything; default: 8.5")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="run only the steps whose names contain one of these")
    options = parser.parse_args(arguments)
    reason = no_gpu()
    if reason is not None:
        print(f"make gpu needs a machine with a GPU: {reason}", file=sys.stderr)
        return 2
    # It imports torch, which may have been missing up to here.
    from benchmarks import report

    end = time.monotonic() + 60 * options.minutes
    out = Path(options.out or "results").resolve()
    out.mkdir(parents=True, exist_ok=True)
    log = out / "log.txt"
    log.write_text("")
    done: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for step in steps(folder, workers=min(6, os.cpu_count() or 1)):
            if options.only and not any(part in step.name for part in options.only):
                continue
            print(f"{step.name} ...", flush=True)
            done.append(run(step, log, end - time.monotonic() - _RESERVE))
            print(f"  {report.step_line(done[-1])}", flush=True)
            # After every step, so that a run which is cut off leaves what it has.
            found = report.Report(done, _json(folder / "environment.json"), _json(folder / "ceilings.json"), _lines(folder))
            report.write(out, found)
    print(report.summary(found))
    return 1 if any(step["status"] == "failed" for step in done) else 0


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def _lines(folder: Path) -> list[dict[str, Any]]:
    path = folder / "benchmarks.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    # A line without its end was being written when its process was stopped.
    return [json.loads(line) for line in lines if line.endswith("\n")]


if __name__ == "__main__":
    sys.exit(main())
