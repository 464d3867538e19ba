"""Runs that end early: they go on bit for bit, whatever ended them."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from forge import Forge
from training import after_step, arguments, assert_same_run, lines, run, wait_until, without_timing

from fastdraw.runs import checkpoint as checkpoint_module
from fastdraw.runs.checkpoint import save_checkpoint
from fastdraw.runs.signals import Interruptions
from fastdraw.train import CheckpointError, Interrupted, load_checkpoint
from fastdraw.train import loop as loop_module
from fastdraw.view import pictures as pictures_module


class Crash(BaseException):
    """Stands for SIGKILL: nothing of the program runs after it, as far as Python allows."""


#: Moments at which a kill would do the most harm: where, and the how many-th time that the program comes by.
MOMENTS = [
    ("between the metrics and the checkpoint", loop_module, "save_checkpoint", 3),
    ("before the new checkpoint takes its place", os, "replace", 9),
    ("before the new checkpoint is on the disk", os, "fsync", 14),
    ("before an evaluation", loop_module.Run, "_evaluate", 2),
    ("after an evaluation was written, before its checkpoint", pictures_module, "samples", 1),
    ("while drawing at the end", pictures_module, "drawing", 1),
]


@pytest.mark.parametrize(("module", "name", "count"), [m[1:] for m in MOMENTS], ids=[m[0] for m in MOMENTS])
def test_resuming_after_a_crash_at_a_bad_moment(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, count: int
) -> None:
    original, calls = getattr(module, name), 0

    def crashing(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count:
            raise Crash
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(module, name, crashing)
        with pytest.raises(Crash):
            run(tmp_path / "run", steps=70)
    run(tmp_path / "run", resume=True)
    assert_same_run(whole, tmp_path / "run")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_with_a_checkpoint(forge: Forge, tmp_path: Path, signum: signal.Signals) -> None:
    folder = tmp_path / "run"
    args = arguments(folder, epochs=10000, checkpoint_every=100000, evaluate_every=1000)
    process = forge.start(args, tmp_path / "log")
    wait_until(lambda: lines(folder) >= 4)
    os.kill(process, signum)
    assert forge.wait(process) == 128 + signum
    step = load_checkpoint(folder).step
    assert step >= 20
    said = (tmp_path / "log").read_text().splitlines()[-1]
    assert re.fullmatch(rf"stopped at step {step}; to go on: .*fastdraw train --out {re.escape(str(folder))} --resume", said)


def test_a_signal_between_two_steps(whole: Path, tmp_path: Path) -> None:
    """The checkpoint of an interruption lies within a line of metrics, and the run still ends with the same bits."""
    kill = lambda run: os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
    with after_step(33, kill), pytest.raises(Interrupted) as caught:
        run(tmp_path / "run", steps=70)
    assert caught.value.signum == signal.SIGTERM
    assert load_checkpoint(tmp_path / "run").step == 33
    run(tmp_path / "run", resume=True)
    assert_same_run(whole, tmp_path / "run")


def test_a_second_signal_is_not_held_back() -> None:
    def own(signum: int, frame: object) -> None:
        raise Crash

    before = signal.signal(signal.SIGTERM, own)
    try:
        with Interruptions() as interruptions:
            os.kill(os.getpid(), signal.SIGTERM)
            with pytest.raises(Interrupted):
                interruptions.check()
            with pytest.raises(Crash):
                os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path, no_space: Any) -> None:
    no_space(checkpoint_module, "write_atomically", after=4)
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path / "run", steps=70)
    assert load_checkpoint(tmp_path / "run").step == 14


def test_a_finished_run_goes_on_with_more_steps(whole: Path, tmp_path: Path) -> None:
    run(tmp_path / "run", steps=40)
    run(tmp_path / "run", resume=True, steps=70)
    one, other = load_checkpoint(whole), load_checkpoint(tmp_path / "run")
    assert all(torch.equal(one.model[name], other.model[name]) for name in one.model)
    training = [r for r in without_timing(whole) if r["split"] == "train"]
    assert [r for r in without_timing(tmp_path / "run") if r["split"] == "train"] == training


def test_a_run_from_before_there_were_such_defaults_goes_on_as_it_began(tmp_path: Path) -> None:
    """Its checkpoint says None for no average, 0 for no warm-up, and the rate and batch of then."""
    then = {"preset": "mnist", "learning_rate": 1e-3, "batch_size": 100, "warmup_steps": 0, "kl_warmup": 500, "ema": 0.0}
    run(tmp_path / "whole", steps=8, **then)
    run(tmp_path / "run", steps=5, **then)
    saved = load_checkpoint(tmp_path / "run")
    saved.training["options"]["ema"] = None
    save_checkpoint(tmp_path / "run", saved)
    run(tmp_path / "run", resume=True, steps=8)
    one, other = load_checkpoint(tmp_path / "whole"), load_checkpoint(tmp_path / "run")
    assert other.training["options"].items() >= then.items()
    assert all(torch.equal(one.model[name], other.model[name]) for name in one.model)
    assert not other.ema


def test_a_finished_run_resumed_stays_as_it_is(tmp_path: Path) -> None:
    first = run(tmp_path / "run", steps=10)
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    second = run(tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before
    assert (second.validation, second.test) == (first.validation, first.test)


def test_other_images_are_refused_on_resume(tmp_path: Path) -> None:
    run(tmp_path / "run", steps=5)
    saved = load_checkpoint(tmp_path / "run")
    saved.training["fingerprint"] = "0"
    save_checkpoint(tmp_path / "run", saved)
    with pytest.raises(ValueError, match="data: expected the training images that the run"):
        run(tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    "change",
    [
        {"options": {"wings": 2}},
        {"options": {"glimpses": "many"}},
        {"options": 3},
        {"progress": {"step": 5}},
        {"progress": None},
    ],
)
def test_a_hostile_checkpoint_is_refused_on_resume(tmp_path: Path, change: dict[str, Any]) -> None:
    if not (tmp_path / "run").exists():
        run(tmp_path / "run", steps=5)
    saved = load_checkpoint(tmp_path / "run")
    saved.training.update(change)
    save_checkpoint(tmp_path / "run", saved)
    with pytest.raises(CheckpointError, match="expected a checkpoint of `fastdraw train`"):
        run(tmp_path / "run", resume=True)
