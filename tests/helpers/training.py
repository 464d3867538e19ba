"""Small runs of `fastdraw train`, and what is asked of them."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datafiles import pixels

from fastdraw.train import Interrupted, TrainOptions, load_checkpoint, loop, train
from fastdraw.train.display import Display

#: A model that takes a few milliseconds a step; 28 steps are an epoch of the 1,437 training digits or nearly so.
SMALL: dict[str, Any] = {
    "data": "digits",
    "glimpses": 3,
    "hidden_size": 16,
    "latent_size": 4,
    "read_size": "3",
    "write_size": "5",
    "batch_size": 50,
    "threads": 1,
    "evaluate_every": 1,
    "checkpoint_every": 7,
    "log_every": 5,
    "samples": 4,
}
#: Figures that are about the machine and not about the run.
TIMING = ("seconds", "images_per_second")


class Quiet(Display):
    def note(self, text: str) -> None: ...


def run(folder: Path, **changes: Any) -> Any:
    options = TrainOptions(**{**SMALL, "out": str(folder), **changes})
    given = {"out", *changes} if options.resume else None
    return train(options, given, Quiet())


def often(folder: Path, steps: int) -> dict[str, Any]:
    """Options of a run in `folder` on small images, which writes everything as often as can be."""
    images = folder / "images.npz"
    if not images.exists():
        np.savez(images, train=pixels(200, 9, 8), validation=pixels(20, 9, 8), test=pixels(10, 9, 8))
    rare = {"epochs": 1000, "checkpoint_every": 2, "log_every": 1, "evaluate_every": 2, "batch_size": 20}
    return {**rare, "data": images, "steps": steps}


@contextlib.contextmanager
def after_step(number: int, action: Callable[[Any], None]) -> Iterator[None]:
    """Has a run do something more at the end of a step."""
    original = loop.Run.step

    def step(self: Any) -> None:
        original(self)
        if self.progress.step == number:
            action(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Run, "step", step)
        yield


def stop(run: Any) -> None:
    raise Interrupted(signal.SIGTERM)


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def without_timing(folder: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in record.items() if name not in TIMING} for record in records(folder)]


def assert_same_run(a: Path, b: Path) -> None:
    """The same bits in weights and optimizer, and the same metrics."""
    one, other = load_checkpoint(a), load_checkpoint(b)
    assert one.step == other.step
    for part in ("model", "optimizer", "progress"):
        x, y = getattr(one, part), getattr(other, part)
        assert x.keys() == y.keys()
        for name in x:
            assert torch.equal(x[name], y[name]), name
    assert without_timing(a) == without_timing(b)


def arguments(folder: Path, *more: str, **changes: Any) -> list[str]:
    """The same run for the command line."""
    options = [f"--{name.replace('_', '-')}={value}" for name, value in {**SMALL, **changes}.items()]
    return ["train", *options, "--out", str(folder), *more]


def lines(folder: Path) -> int:
    """Lines of metrics that a run, which may be going on, has written."""
    with contextlib.suppress(OSError):
        return (folder / "metrics.jsonl").read_bytes().count(b"\n")
    return 0


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} seconds in vain"
        time.sleep(0.002)
