"""The chip's own limits: bandwidths, what a launch and a barrier cost, how far it is from one block to another.

`python -m benchmarks.probe [PATH]` compiles benchmarks/chip by nvcc for the device that is there, runs it, and writes its
figures as JSON, or prints them. Exit code: 0; 1 where a figure could not be taken; 77 where there is no nvcc or no device to
ask, with a sentence that says so. The rates of matrix products are in benchmarks.ceilings, by torch's libraries.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

SOURCE = Path(__file__).parent / "chip" / "main.cu"
#: Exit code of a step that cannot run here, and proves nothing: benchmarks.gpu counts it as left out.
CANNOT_RUN = 77
#: Seconds for the compiler, and for all kernels together, which take about five.
COMPILE_LIMIT, RUN_LIMIT = 120, 60


class Unavailable(Exception):
    """Why the chip cannot be probed here, in one sentence."""


class Limits(NamedTuple):
    """values: by a name with its unit, "hop between two blocks through memory, ns". problems: what went wrong, by name."""

    values: dict[str, float]
    problems: dict[str, str]


def compiler() -> str:
    """nvcc's path. Raises Unavailable."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    found = shutil.which("nvcc") or next(
        filter(None, (shutil.which("nvcc", path=f"{home}/bin") for home in homes if home)), None
    )
    if found is None:
        raise Unavailable("nvcc was not found: neither on PATH, nor in CUDA_HOME/bin, nor in /usr/local/cuda/bin")
    return found


def architecture(major: int, minor: int) -> str:
    """nvcc's name for a device: with its own features from Hopper on, 90a, since clusters and asynchronous stores are some."""
    return f"{major}{minor}{'a' if major >= 9 else ''}"


def build(target: Path, arch: str) -> Path:
    """The program, compiled to machine code for `arch`. Raises Unavailable without nvcc, RuntimeError where that fails."""
    code = f"arch=compute_{arch},code=sm_{arch}"
    command = [compiler(), "-O3", "-std=c++17", "-gencode", code, str(SOURCE), "-o", str(target)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_LIMIT)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"nvcc took more than {COMPILE_LIMIT} s") from None
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        reason = next((line for line in lines if "error" in line.lower()), lines[0] if lines else "no reason given")
        raise RuntimeError(f"nvcc could not compile {SOURCE.name} for sm_{arch}: {reason.strip()}")
    return target


def run(program: Sequence[str]) -> Limits:
    """What the program measures: up to where it stops, if it has to be stopped."""
    with tempfile.TemporaryFile("w+") as output:
        ending = None
        try:
            done = subprocess.run(program, stdout=output, stderr=subprocess.STDOUT, timeout=RUN_LIMIT)
            if done.returncode:
                ending = f"it ended with exit status {done.returncode}"
        except subprocess.TimeoutExpired:
            ending = f"it was stopped after {RUN_LIMIT} s"
        output.seek(0)
        limits = parse(output)
    return limits._replace(problems={**limits.problems, **({"the program": ending} if ending else {})})


def parse(lines: Iterable[str]) -> Limits:
    limits = Limits({}, {})
    for line in lines:
        try:
            found: Any = json.loads(line)
        except json.JSONDecodeError:
            found = None
        if not isinstance(found, dict) or "name" not in found:
            limits.problems["the program"] = f"it printed {line.strip()[:160]!r}"
        elif "value" in found:
            limits.values[f"{found['name']}, {found['unit']}"] = float(found["value"])
        else:
            limits.problems[found["name"]] = str(found.get("error"))
    return limits


def device() -> tuple[int, int]:
    """Compute capability. Raises Unavailable."""
    import torch

    if not torch.cuda.is_available():
        raise Unavailable("torch sees no GPU here")
    if torch.version.hip is not None:
        raise Unavailable("this program is CUDA C++, and the GPU is not NVIDIA's")
    return torch.cuda.get_device_capability(0)


def main(path: str | None = None) -> int:
    try:
        arch = architecture(*device())
        with tempfile.TemporaryDirectory() as folder:
            limits = run([str(build(Path(folder) / "probe", arch))])
    except Unavailable as reason:
        print(reason)
        return CANNOT_RUN
    except RuntimeError as reason:
        print(reason)
        return 1
    if path is not None:
        Path(path).write_text(json.dumps(limits._asdict(), indent=1))
    for name, value in limits.values.items():
        print(f"{name}: {value:.4g}")
    for name, problem in limits.problems.items():
        print(f"{name}: not measured: {problem}")
    return 1 if limits.problems or not limits.values else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
