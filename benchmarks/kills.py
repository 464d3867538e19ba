"""Workers under torchrun, killed: each rank in turn, at any moment, and every third one while a checkpoint is written."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

KILLS = 30
WORKERS = 2
#: Steps of the run; a checkpoint comes after each.
STEPS = 600
WORDS = (
    "train --data digits --glimpses 4 --hidden-size 128 --latent-size 10 --read-size 2 --write-size 3 --batch-size 32 "
    f"--epochs 1000 --evaluate-every 1 --samples 4 --steps {STEPS} --checkpoint-every 1 --log-every 1 --resume auto --out"
)


def torchrun(folder: Path, restarts: int) -> subprocess.Popen[bytes]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(WORKERS)]
    command = [*launcher, "--max-restarts", str(restarts), "-m", "fastdraw", *WORDS.split(), str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "FASTDRAW_GEMM": "mkl"}
    with open(f"{folder}.log", "ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment)


def workers(launcher: int) -> dict[int, tuple[int, int]]:
    """By rank: the worker's number, and how often all were started again before it."""
    found, children = {}, ""
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text()
    for pid in map(int, children.split()):
        with contextlib.suppress(OSError, ValueError):
            pairs = (each.partition(b"=") for each in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
            its = {name: value for name, _, value in pairs}
            if b"RANK" in its:
                found[int(its[b"RANK"])] = pid, int(its[b"TORCHELASTIC_RESTART_COUNT"])
    return found


def lines(folder: Path) -> list[bytes]:
    with contextlib.suppress(OSError):
        return (folder / "metrics.jsonl").read_bytes().splitlines()
    return []


def under_torchrun(count: int = KILLS) -> tuple[int, int, int, bool]:
    """Workers killed, of `count` (fewer where the run ends before), how many of them the run outlived, restarts, and whether
    it ended as the undisturbed one."""
    moment, killed, outlived, restarts = random.Random(time.time_ns()), 0, 0, 0
    with tempfile.TemporaryDirectory() as place:
        whole, folder = Path(place) / "whole", Path(place) / "killed"
        run, began = torchrun(whole, 0), time.monotonic()
        _wait(run, lambda: len(lines(whole)) > 0)
        start = time.monotonic() - began
        assert run.wait() == 0, Path(f"{whole}.log").read_text()
        run = torchrun(folder, 2 * count)
        for kill in range(count):
            rank = kill % WORKERS
            before = len(lines(folder))
            _wait(run, lambda rank=rank: rank in workers(run.pid))
            if kill % 3 == 0:
                # At the start: imports, the meeting, the first steps.
                time.sleep(moment.uniform(0, 1.2 * start))
            else:
                _wait(run, lambda before=before: len(lines(folder)) > before)
                time.sleep(moment.uniform(0, 0.2))
            if kill % 3 == 1:
                _wait(run, lambda: any(folder.glob(".fastdraw-*")))
            _wait(run, lambda rank=rank: rank in workers(run.pid))
            victim = workers(run.pid).get(rank)
            if victim is None:
                break
            restarts = max(restarts, victim[1])
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim[0], signal.SIGKILL)
            killed += 1
            _wait(run, lambda rank=rank, of=victim[1]: workers(run.pid).get(rank, (0, of))[1] > of)
            outlived += run.poll() is None
        code = run.wait()
        if code:
            print(Path(f"{folder}.log").read_text()[-4000:], file=sys.stderr)
        return killed, outlived, restarts + 1, code == 0 and _figures(whole) == _figures(folder)


def _wait(run: subprocess.Popen[bytes], condition: Callable[[], bool]) -> None:
    """Until it holds, or the run is over."""
    until = time.monotonic() + 300
    while run.poll() is None and time.monotonic() < until and not condition():
        time.sleep(0.002)


def _figures(folder: Path) -> list[dict[str, object]]:
    of = (json.loads(line) for line in lines(folder))
    return [{name: value for name, value in each.items() if name not in ("seconds", "images_per_second")} for each in of]
