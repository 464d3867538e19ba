"""--resume auto: one command begins a run and goes on with it, whatever ended the processes before."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datafiles import pixels
from forge import Forge
from training import (
    SMALL,
    Quiet,
    arguments,
    assert_same_run,
    lines,
    often,
    run,
    wait_until,
    without_timing,
)

from fastdraw.cli.train import spelled
from fastdraw.runs.checkpoint import NAME, PREVIOUS
from fastdraw.train import CheckpointError, TrainOptions, load_checkpoint, train

LOST = "fastdraw: error: lost the connection to another process of this run, which says why itself"
distributed = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without torch.distributed")


@distributed
@pytest.mark.slow
@pytest.mark.parametrize("kills", [8])
def test_workers_killed_at_random_moments(forge: Forge, tmp_path: Path, kills: int) -> None:
    """Each in turn; the other one says in one line that it lost its peer. The end is that of the undisturbed run."""
    seed = random.randrange(1 << 30)
    moment, args = random.Random(seed), small(tmp_path, 15 * kills)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert [forge.wait(process) for process in forge.together(arguments(whole, **args), tmp_path / "log")] == [0, 0]
    done = 0
    while done < kills:
        before, victim = lines(killed), done % 2
        started = forge.together(arguments(killed, **args), tmp_path / "log")
        deadline = time.monotonic() + 60
        while moment.random() < 0.999 and lines(killed) <= before and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(moment.uniform(0, 0.1))
        os.kill(started[victim], signal.SIGKILL)
        # As torchrun does: who waits for a process that never was there at all hears nothing of its end.
        end = threading.Timer(5, os.kill, (started[1 - victim], signal.SIGTERM))
        end.start()
        codes = [forge.wait(process) for process in started]
        end.cancel()
        if codes == [0, 0]:
            break
        # Who was killed at the very end may have been waited for by nobody.
        assert codes[victim] in (0, -signal.SIGKILL), f"seed {seed}"
        assert codes[1 - victim] in (0, 1, -signal.SIGTERM), f"seed {seed}"
        if codes[1 - victim] == 1:
            said = (tmp_path / f"log.{1 - victim}").read_text().splitlines()
            assert said[-1] == LOST, f"seed {seed}"
            assert "Traceback" not in "".join(said), f"seed {seed}"
        done += 1
    assert [forge.wait(process) for process in forge.together(arguments(killed, **args), tmp_path / "log")] == [0, 0]
    assert_same_run(whole, killed)
    assert not [name for name in os.listdir(killed) if name.startswith(".")]


def small(folder: Path, steps: int) -> dict[str, Any]:
    return {**often(folder, steps), "resume": "auto"}


def assert_same_end(one: Path, other: Path) -> None:
    """The same bits and steps; where one was stopped it was evaluated, too."""
    a, b = load_checkpoint(one), load_checkpoint(other)
    assert all(torch.equal(a.model[name], b.model[name]) for name in a.model)
    trained = [[r for r in without_timing(folder) if r["split"] == "train"] for folder in (one, other)]
    assert trained[0] == trained[1]
    assert without_timing(one)[-2:] == without_timing(other)[-2:]


class Noted(Quiet):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


@pytest.mark.parametrize("resume", ["auto", True])
def test_a_checkpoint_cut_in_half(tmp_path: Path, resume: str | bool) -> None:
    """The one before it is gone on from, and the run ends as the undisturbed one."""
    args = small(tmp_path, 13)
    run(tmp_path / "whole", **args)
    assert run(tmp_path / "cut", **{**args, "steps": 9}).step == 9
    file = tmp_path / "cut" / NAME
    assert load_checkpoint(tmp_path / "cut" / PREVIOUS).step < 10
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    show = Noted()
    train(TrainOptions(**{**SMALL, **args, "out": str(tmp_path / "cut"), "resume": resume}), {"resume", "steps"}, show)
    (line,) = [line for line in show.lines if line.startswith(f"going on from {PREVIOUS}, of step ")]
    assert f"{file}: expected a whole safetensors file" in line
    assert load_checkpoint(tmp_path / "cut").step == 13
    assert_same_end(tmp_path / "whole", tmp_path / "cut")
    # With neither, the run begins again where that is asked for.
    for name in (NAME, PREVIOUS):
        whole = (tmp_path / "cut" / name).read_bytes()
        (tmp_path / "cut" / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=PREVIOUS):
        run(tmp_path / "cut", **{**args, "resume": resume})
    (tmp_path / "cut" / PREVIOUS).unlink()
    with pytest.raises(CheckpointError, match="whole safetensors file"):
        run(tmp_path / "cut", **{**args, "resume": True})
    assert run(tmp_path / "cut", **args).step == 13
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_another_programs_files_are_not_begun_over(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / NAME).write_bytes(b"something else")
    with pytest.raises(ValueError, match="of something else"):
        run(tmp_path / "run", resume="auto", steps=1)
    assert (tmp_path / "run" / NAME).read_bytes() == b"something else"


@distributed
def test_another_number_of_processes_goes_on(forge: Forge, tmp_path: Path) -> None:
    whole, changing = tmp_path / "whole", tmp_path / "changing"
    args = small(tmp_path, 12)
    run(whole, **args)
    for count, steps in ((2, 4), (1, 8), (4, 12)):
        started = forge.together(arguments(changing, **{**args, "steps": steps}), tmp_path / "log", count)
        assert [forge.wait(process) for process in started] == [0] * count, (tmp_path / "log.0").read_text()
    ours, theirs = without_timing(changing), without_timing(whole)
    last = {(r["step"], r["split"]): r for r in ours}
    for record in theirs:
        assert last[record["step"], record["split"]]["nats"] == pytest.approx(record["nats"], rel=2e-3)


#: `fastdraw ARGS`, of another version where that is the first argument.
OLDER = """
import os, sys
from fastdraw.cli import main
from fastdraw.train import setup
if sys.argv[1] == "older":
    del sys.argv[1]
    setup.__version__ = "0.0.1"
os._exit(main(sys.argv[1:]))
"""


@distributed
def test_a_process_that_differs_is_named(forge: Forge, tmp_path: Path) -> None:
    """Other options, other images under the same name, or another version: found before anything is trained."""
    args, (script, other, held_out) = small(tmp_path, 4), (tmp_path / name for name in ("older.py", "1.npz", "2.npz"))
    script.write_text(OLDER)
    np.savez(other, train=pixels(200, 9, 8) // 2, validation=pixels(20, 9, 8), test=pixels(10, 9, 8))
    np.savez(held_out, train=pixels(200, 9, 8), validation=pixels(20, 9, 8), test=pixels(10, 9, 8) // 2)
    own = arguments(tmp_path / "run", **args)
    for theirs, words in (
        ([*own, "--batch-size=40"], "--batch-size: expected the same in all processes of this run, 20 as in the first one"),
        ([*own, f"--data={other}"], "--data: expected the same in all processes of this run, training images"),
        ([*own, f"--data={held_out}"], "--data: expected the same in all processes of this run, training images"),
        (own, "version: expected the same in all processes of this run, fastdraw "),
    ):
        both = [[str(script), *own], [str(script), *(["older"] if theirs is own else []), *theirs]]
        started = forge.different(both, tmp_path / "log", script=True)
        assert [forge.wait(process) for process in started] == [2, 2]
        for rank in (0, 1):
            last = (tmp_path / f"log.{rank}").read_text().splitlines()[-1]
            assert words in last
            assert "in process 1 on " in last
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@distributed
def test_the_launcher_says_what_the_worker_says(tmp_path: Path) -> None:
    """torchrun ends with a table of failures: the reason stands in it, before the process that lost its peer."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m", "fastdraw"]
    args = [*torchrun, *arguments(tmp_path / "run", data=tmp_path / "none", resume="auto")]
    ended = subprocess.run(args, capture_output=True, text=True, timeout=120)
    reason = "fastdraw: error: --data: expected digits, mnist,"
    assert ended.returncode == 1
    # Once by the worker and once by the launcher.
    assert ended.stderr.count(reason) == 2
    assert f"traceback : {reason}" in ended.stderr.partition("Root Cause")[2]


def test_an_orphan_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker whose launcher was killed is nobody's: it saves and ends, so that the folder is free."""
    from fastdraw.runs.signals import Interruptions

    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    interruptions = Interruptions()
    assert interruptions.signum is None
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert interruptions.signum == signal.SIGTERM


def test_resume_on_the_command_line() -> None:
    assert spelled(["train", "--resume"]) == ["train", "--resume=yes"]
    assert spelled(["train", "--resume", "--out", "r"]) == ["train", "--resume=yes", "--out", "r"]
    assert spelled(["train", "--resume", "auto", "--out", "r"]) == ["train", "--resume=auto", "--out", "r"]
    assert spelled(["train", "--resume=auto"]) == ["train", "--resume=auto"]


@distributed
@pytest.mark.slow
def test_the_end_of_an_allocation(tmp_path: Path) -> None:
    """SIGTERM to torchrun, as a scheduler sends it: the workers save and end, and the run goes on."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m", "fastdraw"]
    args = {**small(tmp_path, 100000), "checkpoint_every": 100000, "evaluate_every": 100000}
    run_ = subprocess.Popen(
        [*torchrun, *arguments(tmp_path / "run", **args)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    wait_until(lambda: lines(tmp_path / "run") > 5)
    run_.terminate()
    assert run_.wait(60) != 0
    step = load_checkpoint(tmp_path / "run").step
    assert step >= 5
    assert run(tmp_path / "run", **{**args, "steps": step + 3}).step == step + 3
