"""Processes with a limit on their time, whose end takes along everything that they started."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.checkout import ROOT

#: Bytes that are kept of what one process printed.
KEPT = 200_000


def environment() -> dict[str, str]:
    """What processes run under: this checkout first, and nothing that would change which kernels run."""
    unwanted = ("TRITON_INTERPRET", "FASTDRAW_BACKEND", "FASTDRAW_EMULATE", "PYTEST_ADDOPTS")
    kept = {name: value for name, value in os.environ.items() if name not in unwanted}
    path = os.pathsep.join(filter(None, [str(ROOT), kept.get("PYTHONPATH", "")]))
    # cuBLAS needs the workspace setting to give the same bits twice, which tests ask for. JAX would take most of the device's
    # memory when it starts, which other processes need.
    switches = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    return {**kept, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **switches}


def end(process: subprocess.Popen[Any]) -> None:
    """Kills a process that was started in a session of its own, with all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def call(command: Sequence[str], limit: float, **variables: str) -> tuple[int | None, str]:
    """Exit status, None where the limit was reached, and the end of what it printed. variables: of its environment,
    beside what `environment` says."""
    # To a file: a pipe would stay open in a grandchild that outlives the command.
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**environment(), **variables},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        code: int | None = None
        try:
            code = process.wait(timeout=max(0.0, limit))
        except subprocess.TimeoutExpired:
            pass
        finally:
            end(process)
        return code, tail(output)


def tail(file: Any) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - KEPT))
    return file.read().decode(errors="replace")


class Partner:
    """A process that answers: each line that it prints on its standard output is JSON; what else it says goes to a file."""

    def __init__(self, command: Sequence[str]) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - open for as long as the process runs
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            start_new_session=True,
            text=True,
        )
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(json.loads(line))
        self._answers.put(None)

    def answer(self, limit: float) -> dict[str, Any] | None:
        """The next line; {"failed": why} where the process ended; None where no line came in time."""
        try:
            answer = self._answers.get(timeout=limit)
        except queue.Empty:
            return None
        if answer is not None:
            return answer
        self._process.wait()
        last = [line for line in tail(self._said).splitlines() if line.strip()]
        return {"failed": f"exit status {self._process.returncode}: {last[-1][:200] if last else 'no reason given'}"}

    def ask(self, limit: float) -> dict[str, Any] | None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        except OSError:
            pass
        return self.answer(limit)

    def close(self) -> str:
        """Ends it; what it said beside its answers."""
        end(self._process)
        said = tail(self._said)
        self._said.close()
        return said


def answers() -> Any:
    """In such a process: prints an answer. From here on other prints of the process go to its standard error."""
    stream = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**values: Any) -> None:
        print(json.dumps(values), file=stream, flush=True)

    return answer


def python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def gpu() -> str | None:
    """Why no GPU can be used, or None. Asked in another process, so that this one holds no device."""
    question = "import sys, torch; sys.exit(0 if torch.cuda.is_available() else 3)"
    code, text = call([sys.executable, "-c", question], 120)
    if code in (0, 3):
        return None if code == 0 else "torch sees no GPU here"
    return f"torch cannot be asked: {(text.strip().splitlines() or ['no answer'])[-1]}"


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)
