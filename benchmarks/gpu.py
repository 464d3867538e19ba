"""`make gpu`: one command for a machine with a GPU, under nine minutes, with no network and nothing installed.

    python3 -m benchmarks.gpu [--out results] [--minutes 8.5] [--only NAME ...]

The chip's limits, tests, benchmarks and sanitizers run one after another, the most valuable first, each in a process of its
own with a limit on its time; none stops the others, and what no time is left for says so. Into the output folder go report.md,
report.json and log.txt, written anew after every step; a second run into the same folder, with --only, keeps the first one's
figures where it has none of its own.
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
from benchmarks.probe import CANNOT_RUN

#: Where the tools of CUDA lie when they are not on PATH.
_CUDA_BIN = Path("/usr/local/cuda/bin")
#: What compute-sanitizer says where it cannot run at all, on some virtual machines: no verdict on the kernels.
_CANNOT_RUN = ("Device not supported", "Unable to find", "not supported on this system")
#: What runs in Triton's interpreter elsewhere, here on the device.
TRITON_TESTS = sorted(
    f"tests/{path.name}" for path in (ROOT / "tests").glob("test_triton_*.py") if path.stem != "test_triton_aot"
)
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
    options = ["-q", "-p", "no:cacheprovider", "--tb=short", "-rfEs", "-o", "faulthandler_timeout=100"]
    test_alone = [*python, "pytest", *options]
    test = [*test_alone, *spread]
    times = [*python, "pytest", "--benchmark", "--benchmark-max-time=0.3", "-q", "-p", "no:cacheprovider", "--tb=short"]
    times.append(f"--benchmark-log={folder / 'benchmarks.jsonl'}")
    memcheck, racecheck = (
        ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", *options, *python, "benchmarks.sanitize"]
        for tool, options in (("memcheck", ["--report-api-errors", "no"]), ("racecheck", []))
    )
    pytest, suite, bench = ("pytest",), ("pytest", "hypothesis"), ("pytest", "pytest_benchmark")

    def tests(name: str, *paths: str, limit: float, only: str | None = None, needs: tuple[str, ...] = pytest) -> Step:
        return Step(name, [*test, *(["-k", only] if only else []), *paths], limit, needs)

    def timed(name: str, *files: str, limit: float, only: str | None = None) -> Step:
        paths = [f"benchmarks/test_{file}.py" for file in files]
        return Step(name, [*times, *(["-k", only] if only else []), *paths], limit, bench)

    def module(name: str, kind: str, limit: float, *options: str) -> Step:
        return Step(name, [*python, f"benchmarks.{kind}", *options, str(folder / f"{name.split()[0]}.json")], limit)

    return [
        module("environment", "environment", 60),
        module("probe", "probe", 120),
        module("ceilings", "ceilings", 60),
        tests(
            "tests of models and training",
            "tests/test_gpu_models.py",
            "tests/test_gpu_training.py",
            limit=150,
            only="not memory_does_not_grow",
        ),
        tests("tests of operators", "tests/test_gpu_operators.py", limit=120),
        # What the tests above have not compiled already.
        Step("warm", [*python, "benchmarks.warm"], 100),
        tests("other tests for the GPU", "-m", "gpu", *marked(), limit=90),
        timed("benchmarks of steps", "steps", limit=200, only="not slow"),
        timed("benchmarks of memory", "memory", limit=60),
        timed("benchmarks of wide operators", "wide", limit=150),
        module("kernels of a step", "kernels", 60),
        Step("memory over 10,000 steps", [*test_alone, "-k", "memory", "tests/test_gpu_training.py"], 90, pytest),
        Step("memcheck", memcheck, 70, program="compute-sanitizer"),
        Step("racecheck", racecheck, 60, program="compute-sanitizer"),
        tests(
            "suite of operators",
            "tests/test_operators.py",
            "tests/test_large_images.py",
            limit=120,
            only="triton",
            needs=suite,
        ),
        tests("suite of Triton kernels", *TRITON_TESTS, limit=120, needs=suite),
        timed("benchmarks of DRAW and the classifier", "model", "classifier", limit=200),
        timed("benchmarks of operators", "operators", "large", limit=170),
        module("choices of the pieces", "choices", 150),
        timed("slow compilers", "steps", limit=280, only="slow"),
        module("counters of ncu", "kernels", 120, "--ncu"),
    ]


def marked() -> list[str]:
    """Files that have tests for the GPU among others."""
    paths = sorted((ROOT / "tests").glob("test_*.py"))
    own = ("test_gpu_", "test_make_gpu")
    return [f"tests/{p.name}" for p in paths if not p.name.startswith(own) and "pytest.mark.gpu" in p.read_text()]


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
    if code == CANNOT_RUN:
        return {**done, "status": "left out", "reason": (text.strip().splitlines() or ["it cannot run here"])[-1][:160]}
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
    parser.add_argument("--commit", help="what is measured, where git cannot be asked")
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
    earlier = report.earlier(out) if options.only else report.Report()
    log.write_text(log.read_text() if options.only and log.exists() else "")
    done: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        planned = steps(folder, workers=max(1, min(14, (os.cpu_count() or 1) - 2)))
        if options.only:
            wanted = [step for step in planned if any(part in step.name for part in options.only)]
            if not wanted:
                names = ", ".join(step.name for step in planned)
                print(f"--only: expected words of {names}, got {' '.join(options.only)}", file=sys.stderr)
                return 2
            # Which commit and machine it is, is always asked: figures of two are not to be mixed.
            planned = [step for step in planned if step in wanted or step.name == "environment"]
        for step in planned:
            print(f"{step.name} ...", flush=True)
            done.append(run(step, log, end - time.monotonic() - _RESERVE))
            print(f"  {report.step_line(done[-1])}", flush=True)
            # After every step, so that a run which is cut off leaves what it has.
            names = report.PARTS
            parts = {name: _json(folder / f"{name}.json") for name in names}
            if options.commit and parts["environment"]:
                parts["environment"]["commit"] = parts["environment"].get("commit") or options.commit
            found = report.joined(earlier, report.Report(done, results=_lines(folder), **parts))
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
