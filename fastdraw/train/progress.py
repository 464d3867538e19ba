"""Where a run is, beside its weights: what a checkpoint carries so that the loop goes on from the very step."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

from fastdraw.train.checkpoint import Checkpoint

#: What each step adds up for the next line of metrics.
SUMS = ("nats", "reconstruction", "kl", "gradient_norm")


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

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Progress:
        """Raises ValueError where the checkpoint carries none, or one that cannot be."""
        saved, sums = checkpoint.training.get("progress"), checkpoint.progress.get("sums")
        if sums is None or tuple(sums.shape) != (len(SUMS),) or not torch.isfinite(sums).all():
            raise ValueError("the sums of the current line of metrics")
        if not isinstance(saved, dict) or saved.keys() != {f.name for f in fields(cls)}:
            raise ValueError("the run's progress")
        for f in fields(cls):
            if type(saved[f.name]) not in {type(f.default), int} or not saved[f.name] >= f.default:
                raise ValueError(f"a sound {f.name}")
        if saved["step"] != checkpoint.step:
            raise ValueError("one number of steps")
        return cls(**saved)
