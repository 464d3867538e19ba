"""A run killed at any moment: its checkpoint loads, only steps since then are lost, and it ends with the same bits."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
from forge import Forge
from training import arguments, assert_same_run, often, records

from fastdraw.runs.checkpoint import NAME
from fastdraw.train import load_checkpoint, load_model

EVERY = 3


def last_step(folder: Path) -> int:
    """The last step that metrics tell of; a kill may have cut the last line short."""
    if not (folder / "metrics.jsonl").exists():
        return 0
    whole = [line for line in (folder / "metrics.jsonl").read_text().splitlines(keepends=True) if line.endswith("\n")]
    steps = [int(line.split('"step": ')[1].split(",")[0]) for line in whole]
    return max(steps, default=0)


@pytest.mark.slow
@pytest.mark.parametrize("kills", [12])
def test_killed_at_random_moments(forge: Forge, tmp_path: Path, kills: int) -> None:
    """Each start is killed after a random time, counted from its first new line of metrics in half of the cases: those hit
    training, evaluations and checkpoints; the others also the start. Everything is written as often as can be."""
    seed = random.randrange(1 << 30)
    moment = random.Random(seed)
    steps = 30 * kills
    args = {**often(tmp_path, steps), "checkpoint_every": EVERY, "ema": 0.9, "schedule": "cosine", "warmup_steps": 5}
    args |= {"patience": 10**6, "binarize": "dynamic"}
    whole, killed, done = tmp_path / "whole", tmp_path / "killed", 0
    assert forge.wait(forge.start(arguments(whole, **args), tmp_path / "log")) == 0, (tmp_path / "log").read_text()
    starts = 0
    while done < kills:
        assert starts < 4 * kills, "runs end before they are killed"
        starts += 1
        before = last_step(killed)
        again = ("--resume",) if (killed / NAME).exists() else ("--overwrite",)
        process = forge.start(arguments(killed, *again, **args), tmp_path / "log")
        if moment.random() < 0.5:
            deadline = time.monotonic() + 60
            while last_step(killed) <= before and time.monotonic() < deadline:
                time.sleep(0.001)
        time.sleep(moment.uniform(0, 0.15))
        os.kill(process, signal.SIGKILL)
        code = forge.wait(process)
        assert code in (0, -signal.SIGKILL), (tmp_path / "log").read_text()
        done += code == -signal.SIGKILL
        reached = last_step(killed)
        if (killed / NAME).exists():
            # What was written before the last line: the checkpoint of the step before it, if one was due.
            step = load_checkpoint(killed).step
            assert step >= (reached - 1) // EVERY * EVERY, f"seed {seed}"
            load_model(killed)
        else:
            assert reached == 0, f"seed {seed}"
        if (killed / "best.safetensors").exists():
            load_model(killed / "best.safetensors")
        if code == 0:
            assert load_checkpoint(killed).step == steps
            break
    last = ("--resume",) if (killed / NAME).exists() else ("--overwrite",)
    assert forge.wait(forge.start(arguments(killed, *last, **args), tmp_path / "log")) == 0, (tmp_path / "log").read_text()
    assert_same_run(whole, killed)
    assert [r["step"] for r in records(killed) if r["split"] == "train"] == list(range(1, steps + 1))
    # Nothing piles up.
    assert not [name for name in os.listdir(killed) if name.startswith(".")]
