"""Two torchruns of which one, or a worker of one, is killed: the run goes on by itself."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training import arguments, lines, often, records, wait_until

from fastdraw.train import load_checkpoint

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without torch.distributed"),
]


class Agents:
    """Two torchruns that meet on the loopback address, as two machines would, two processes each."""

    def __init__(self, folder: Path, *words: str, fixed: bool = False) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = str(free.getsockname()[1])
        self.folder, self.fixed, self.words = folder, fixed, words or ("--nnodes", "2")

    def start(self, log: str, *args: str) -> list[subprocess.Popen[bytes]]:
        environment, agents = {**os.environ, "OMP_NUM_THREADS": "1", "FASTDRAW_GEMM": "mkl"}, []
        for i in (0, 1):
            where = ["--rdzv-backend", "c10d", "--rdzv-id", "1", "--rdzv-endpoint", f"127.0.0.1:{self.port}"]
            if self.fixed:
                where = ["--node-rank", str(i), "--master-addr", "127.0.0.1", "--master-port", self.port]
            words = [*self.words, "--nproc-per-node", "2", *where, "-m", "fastdraw", *args]
            command = [sys.executable, "-m", "torch.distributed.run", *words]
            with open(self.folder / f"{log}.{i}", "wb") as file:
                agents.append(subprocess.Popen(command, stdout=file, stderr=file, env=environment))
            if not i:
                # Where the processes meet is the first one's, which outlives the other.
                wait_until(self._answers)
        return agents

    def _answers(self) -> bool:
        with socket.socket() as asking:
            return asking.connect_ex(("127.0.0.1", int(self.port))) == 0

    def said(self, log: str) -> list[str]:
        return [(self.folder / f"{log}.{i}").read_text() for i in (0, 1)]


@pytest.mark.parametrize(("fixed", "of"), [(False, 1), (True, 0)])
def test_a_worker_of_one_of_two_agents_is_killed(tmp_path: Path, fixed: bool, of: int) -> None:
    """By either rendezvous of torchrun: both agents start again, though each counts restarts of its own."""
    args = {**often(tmp_path, 60), "batch_size": 40, "resume": "auto"}
    two = Agents(tmp_path, "--nnodes", "2", "--max-restarts", "3", fixed=fixed)
    agents = two.start("killed", *arguments(tmp_path / "killed", **args))
    wait_until(lambda: lines(tmp_path / "killed") > 12)
    children = Path(f"/proc/{agents[of].pid}/task/{agents[of].pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    assert [agent.wait(300) for agent in agents] == [0, 0], two.said("killed")
    assert "".join(two.said("killed")).count("resuming") == 1
    trained = [r["step"] for r in records(tmp_path / "killed") if r["split"] == "train"]
    assert trained == list(range(1, 61))


def test_one_of_two_agents_is_killed_and_the_other_goes_on(tmp_path: Path) -> None:
    """With --nnodes 1:2, alone and with two processes where there were four."""
    args = {**often(tmp_path, 60), "batch_size": 40, "resume": "auto"}
    two = Agents(tmp_path, "--nnodes", "1:2", "--max-restarts", "3")
    agents = two.start("killed", *arguments(tmp_path / "killed", **args))
    wait_until(lambda: lines(tmp_path / "killed") > 12)
    agents[1].kill()
    assert agents[0].wait(300) == 0, two.said("killed")
    trained = [r["step"] for r in records(tmp_path / "killed") if r["split"] == "train"]
    assert trained == list(range(1, 61))
    assert load_checkpoint(tmp_path / "killed").training["processes"] == 2
