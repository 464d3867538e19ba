"""Processes that start at once: one process imports everything, and each further one is a fork of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

#: Reads a JSON line, forks, answers with the fork's number, or waits for one and answers with its exit code.
SERVER = """
import json, os, runpy, signal, sys
import fastdraw.train, torch._dynamo, torch.utils.tensorboard
from fastdraw.cli import main
import sklearn.datasets
for line in sys.stdin:
    wish = json.loads(line)
    if "wait" in wish:
        print(os.waitstatus_to_exitcode(os.waitpid(wish["wait"], 0)[1]), flush=True)
        continue
    pid = os.fork()
    if pid:
        print(pid, flush=True)
        continue
    os.environ.update(wish["env"])
    null, log = os.open(os.devnull, os.O_RDONLY), os.open(wish["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for handle, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(handle, target)
    code = 1
    try:
        if wish["script"]:
            sys.argv = wish["args"]
            runpy.run_path(wish["args"][0], run_name="__main__")
            code = 0
        else:
            code = main(wish["args"])
    except BaseException:
        import traceback
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(code)
"""


class Forge:
    """Forks run `fastdraw ARGS`, or a script with `script=True`; both output streams go to a file."""

    def __init__(self) -> None:
        self._running: set[int] = set()
        # One library for matrix products: measuring which is the faster takes longer than the runs do.
        environment = {**os.environ, "FASTDRAW_GEMM": "mkl", "OMP_NUM_THREADS": "1"}
        # In an empty folder: Python looks where it stands first, and takes any folder named fastdraw for a package.
        self._folder = tempfile.TemporaryDirectory()
        command = [sys.executable, "-c", SERVER]
        self._server = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=self._folder.name
        )

    def start(self, args: list[str], log: Path, script: bool = False, **env: str) -> int:
        """The number of the new process."""
        pid = self._ask(args=args, log=str(log), script=script, env=env)
        self._running.add(pid)
        return pid

    def together(self, args: list[str], log: Path, count: int = 2, script: bool = False) -> list[int]:
        """As many processes as torchrun would start; their output goes to LOG.0, LOG.1, and so on."""
        return self.different([args] * count, log, script)

    def different(self, args: list[list[str]], log: Path, script: bool = False) -> list[int]:
        """The same, each with arguments of its own."""
        count = len(args)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        where = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(count),
        }
        return [
            self.start(args[rank], Path(f"{log}.{rank}"), script, RANK=str(rank), LOCAL_RANK=str(rank), **where)
            for rank in range(count)
        ]

    def wait(self, pid: int) -> int:
        """The exit code, as subprocess gives it. Call it once for each process."""
        code = self._ask(wait=pid)
        self._running.discard(pid)
        return code

    def close(self) -> None:
        """Also ends what a failed test left running."""
        for pid in sorted(self._running):
            os.kill(pid, signal.SIGKILL)
            self.wait(pid)
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(30)
        self._folder.cleanup()

    def _ask(self, **wish: Any) -> int:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(wish) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())
