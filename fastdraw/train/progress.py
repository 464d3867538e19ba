"""Where a run is, beside its weights: what a checkpoint carries so that the loop goes on from the very step."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

from fastdraw.train.checkpoint import Checkpoint
from fastdraw.train.kinds import task_of

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
