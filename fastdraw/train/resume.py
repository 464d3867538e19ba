"""A run that goes on: what its checkpoint must hold, where it is, and which options may be others than before."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import NamedTuple

import torch

from fastdraw.runs import checkpoint
from fastdraw.runs.checkpoint import Checkpoint, CheckpointError, Damaged
from fastdraw.runs.kinds import task_of
from fastdraw.runs.randomness import DRAWS
from fastdraw.text import short
from fastdraw.train.options import DEFAULTS, TrainOptions

#: What may change when a run goes on: where and how far, not what it computes. Data may move; its contents are compared.
MAY_CHANGE = frozenset(
    (
        *("data", "data_dir", "epochs", "steps", "patience", "device", "threads", "out", "resume", "overwrite"),
        *("checkpoint_every", "log_every", "evaluate_every", "samples", "minutes", "skip_test"),
    )
)


def saved_run(folder: Path, name: str = checkpoint.NAME) -> tuple[Checkpoint, TrainOptions]:
    """The checkpoint in a run's folder, and the options that the run was started with.

    Raises ValueError where there is none, CheckpointError where it was not made by `fastdraw train` or is damaged.
    """
    file = folder / name
    saved = checkpoint.load_checkpoint(file)
    try:
        options, _ = TrainOptions(**saved.training["options"]), Progress.of(saved)
        # Before there was a default, a run without an average said so by None.
        options = replace(options, ema=options.ema or 0.0)
        classes = getattr(saved.config, "num_classes", None)
        if options.config(saved.config.image_shape, classes) != saved.config or not saved.optimizer:
            raise ValueError("options that fit its weights")
        if bool(saved.ema) != bool(options.ema):
            raise ValueError("the moving average that its options ask for")
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{file}: expected a checkpoint of `fastdraw train`, got one without {short(error)}") from error
    if saved.training.get("draws") != DRAWS:
        raise CheckpointError(
            f"{file}: expected a run whose order and noise are drawn by blocks of rows, got one of an older fastdraw, which "
            "drew them for whole batches: finish it with that version, or begin anew elsewhere; its weights load as ever"
        )
    return saved, options


class Found(NamedTuple):
    """The run in a folder. notes: what its user should know of how it was found. whole: whether the last checkpoint was."""

    checkpoint: Checkpoint
    options: TrainOptions
    notes: tuple[str, ...] = ()
    whole: bool = True


def last_run(folder: Path) -> Found | None:
    """What `--resume` goes on from: the last checkpoint, or where that is damaged the one before it; None where there is
    none, and where the run's only one is damaged, so that nothing is lost where `--resume auto` begins again.

    Raises CheckpointError where what is there is whole, but none to go on from.
    """
    try:
        return Found(*saved_run(folder))
    except FileNotFoundError:
        damage: Damaged | None = None
    except Damaged as error:
        damage = error
    before = folder / checkpoint.PREVIOUS
    if not before.exists():
        return None
    saved, options = saved_run(folder, checkpoint.PREVIOUS)
    why = " ".join(str(damage or f"{folder / checkpoint.NAME} is not there").split())
    return Found(saved, options, (f"going on from {before.name}, of step {saved.step}: {why}",), whole=False)


def continued(said: TrainOptions, saved: TrainOptions, explicit: Collection[str] | None = None) -> TrainOptions:
    """The options of a run that goes on: the checkpoint's `saved` ones, and of `said` what may change.

    `explicit` names the fields of `said` that were given; None: those that differ from the defaults.
    Raises ValueError for a given option that would change what the run computes.
    """
    given = {name for name in DEFAULTS if getattr(said, name) != DEFAULTS[name]} if explicit is None else set(explicit)
    for name in sorted(given - MAY_CHANGE):
        if getattr(said, name) != getattr(saved, name):
            raise ValueError(
                f"{name}: expected {getattr(saved, name)}, as the run to resume was started with, got {getattr(said, name)}"
            )
    changes = {name: getattr(said, name) for name in given & MAY_CHANGE}
    if "epochs" in given and "steps" not in given:
        # More epochs were asked for: an earlier limit on steps would hide them.
        changes["steps"] = None
    return replace(saved, **{**changes, "out": said.out, "resume": True, "overwrite": False})


#: What each step of a task adds up for the next line of metrics.
SUMS = {
    "draw": ("nats", "reconstruction", "kl", "gradient_norm"),
    "classify": ("cross_entropy", "error", "gradient_norm"),
}


@dataclass
class Progress:
    """Counts are of steps, times in seconds of training."""

    step: int = 0
    # Steps since the last line of metrics, and the time that they took.
    count: int = 0
    window: float = 0.0
    seconds: float = 0.0
    # Lines of metrics.jsonl, and the steps at which the splits were last evaluated.
    lines: int = 0
    validated: int = -1
    tested: int = -1
    # The best nats (or error) on the validation images, the step that they were reached at, and evaluations since then.
    best: float = 0.0
    best_step: int = -1
    stale: int = 0

    def judge(self, score: float) -> bool:
        """Notes an evaluation; whether it is the best so far."""
        better = self.best_step < 0 or score < self.best
        if better:
            self.best, self.best_step = score, self.step
        self.stale = 0 if better else self.stale + 1
        return better

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Progress:
        """Raises ValueError where the checkpoint carries none, or one that cannot be."""
        saved, sums = checkpoint.training.get("progress"), checkpoint.progress.get("sums")
        if sums is None or tuple(sums.shape) != (len(SUMS[task_of(checkpoint.config)]),) or not torch.isfinite(sums).all():
            raise ValueError("the sums of the current line of metrics")
        if not isinstance(saved, dict) or saved.keys() != {f.name for f in fields(cls)}:
            raise ValueError("the run's progress")
        for f in fields(cls):
            if type(saved[f.name]) not in {type(f.default), int} or not f.default <= saved[f.name] < 1 << 53:
                raise ValueError(f"a sound {f.name}")
        if saved["step"] != checkpoint.step:
            raise ValueError("one number of steps")
        return cls(**saved)
