"""An experiment from its first step to its report: seeds one after the other, each trained, measured on the test images once,
and drawn. What is there already is not done again, so the same command goes on where it was stopped, on any machine."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import environment
from benchmarks.reproduce import pictures, results
from benchmarks.reproduce.experiments import EXPERIMENTS
from fastdraw.checks import check_size, expected
from fastdraw.evaluation import evaluate_run
from fastdraw.files import write_atomically
from fastdraw.runs import checkpoint
from fastdraw.runs.run import Run
from fastdraw.runs.signals import TIME_IS_UP
from fastdraw.train import Interrupted, TrainOptions, train
from fastdraw.train.options import DEFAULTS
from fastdraw.train.resume import continued, saved_run

#: What a seed's folder has once its test images were evaluated.
TESTED = "test.json"


@dataclass(frozen=True)
class Said:
    """options: of `fastdraw train`, on top of the experiment's. minutes: of this call, all seeds together; None: to the end.

    samples: of the importance-weighted estimate. batch: images times samples at once in that evaluation.
    """

    experiment: str
    out: Path
    seeds: Sequence[int] = (0,)
    samples: int = 100
    batch: int | None = None
    minutes: float | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.experiment not in EXPERIMENTS:
            raise expected("experiment", f"one of {', '.join(EXPERIMENTS)}", self.experiment)
        for seed in self.seeds:
            check_size("seeds", seed, least=0)
        check_size("samples", self.samples)
        if self.minutes is not None and not self.minutes > 0:
            raise expected("minutes", "a number above 0", self.minutes)
        if unknown := sorted(set(self.options) - set(DEFAULTS)):
            raise expected("set", "options of `fastdraw train`", ", ".join(unknown))

    @property
    def folder(self) -> Path:
        return self.out / self.experiment


def reproduce(said: Said) -> list[Path]:
    """Runs what is left to do, and gives the files of the report. Raises Interrupted once `minutes` are over, and otherwise as
    `fastdraw.train.train`."""
    began, chosen = time.monotonic(), EXPERIMENTS[said.experiment].chosen(said.options)
    os.makedirs(said.folder, exist_ok=True)
    for seed in said.seeds:
        folder = said.folder / f"seed-{seed}"
        left = None if said.minutes is None else said.minutes - (time.monotonic() - began) / 60
        if left is not None and left <= 0:
            raise Interrupted(TIME_IS_UP)
        there = (folder / checkpoint.NAME).exists()
        now = {"out": str(folder), "seed": seed, "resume": there, "minutes": left, "skip_test": True}
        options = TrainOptions(**{**chosen, **now})
        # What the experiment adds by itself is no wish of the user's: an older run goes on as it began.
        explicit = {*said.options, *now}
        if not (there and _finished(folder, options, explicit)):
            train(options, explicit, unattended=True)
        _test(folder, said)
        results.write(said.folder, said.experiment)
    run = Run(said.folder / f"seed-{said.seeds[0]}", chosen["data"], chosen.get("data_dir"))
    return [*pictures.draw(run, said.folder), *results.write(said.folder, said.experiment)]


def _finished(folder: Path, said: TrainOptions, explicit: set[str]) -> bool:
    """Whether all steps were taken. A finished run is left as it is: its config.json names the machine it was trained on.

    Raises ValueError for options that would have made it another run.
    """
    saved, before = saved_run(folder)
    options = continued(said, before, explicit)
    about = folder / "config.json"
    if not about.exists():
        # Killed right after the first checkpoint.
        return False
    train_images = json.loads(about.read_text())["images"]["train"]
    total = (options.epochs or 1) * (train_images // (options.batch_size or 1))
    return saved.step >= min(total, options.steps or total)


def _test(folder: Path, said: Said) -> None:
    """Evaluates the test images, unless that was done for these very weights."""
    saved = checkpoint.load_checkpoint(folder)
    classifies = saved.training["options"]["task"] == "classify"
    samples = 1 if classifies else said.samples
    if (folder / TESTED).exists():
        before = json.loads((folder / TESTED).read_text())
        if (before["step"], before["samples"]) == (saved.step, samples):
            return
    began = time.perf_counter()
    found = evaluate_run(
        folder,
        data=saved.training["options"]["data"],
        data_dir=said.options.get("data_dir"),
        samples=samples,
        batch_size=said.batch,
        device=said.options.get("device", "auto"),
    )
    text = {
        "step": found.step,
        "samples": samples,
        "averaged": found.averaged,
        "batch_size": found.batch_size,
        "precision": found.precision,
        "seconds": round(time.perf_counter() - began, 1),
        "environment": environment.describe(),
        "result": asdict(found.result),
    }
    write_atomically(folder / TESTED, (json.dumps(text, indent=1) + "\n").encode())
