"""What a run says in sentences: at its start, at its end, and when it cannot go on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from fastdraw.train.display import figures
from fastdraw.train.setup import Setup


@dataclass(frozen=True)
class Result:
    """What a finished run says. validation and test: Evaluation or Classification; None where that split holds no images.

    rank: the number of the process that says so, 0 for the first one, and where there is only one.
    """

    folder: Path
    step: int
    validation: Any
    test: Any
    rank: int = 0


def headline(setup: Setup, step: int) -> str:
    """The first line of a run."""
    config, weights = setup.model.config, sum(p.numel() for p in setup.model.parameters())
    size, begin = "x".join(map(str, config.image_shape)), "resuming" if step else "training"
    many = f"{setup.processes.size} processes of " if setup.processes.size > 1 else ""
    return (
        f"{begin} {setup.folder}: {len(setup.splits.train)} images of {size}, "
        f"{config.glimpses} glimpses, {weights:,} weights, on {setup.device.type} with {many}{torch.get_num_threads()} threads"
    )


def diverged(setup: Setup, step: int, saved: int) -> str:
    """Of step number `step`, counted from 0; `saved` is the checkpoint's."""
    at = f"step {step + 1}" if setup.device.type == "cpu" else f"step {step + 1} or shortly before"
    return (
        f"nats or gradients are not finite at {at}: lower --learning-rate or --clip; the checkpoint of step "
        f"{saved} in {setup.folder} is good"
    )


def summary(result: Result) -> list[str]:
    """The last lines of a run: the held-out nats or error, and the files to look at."""
    lines = []
    for name, value in (("validation", result.validation), ("test", result.test)):
        if value is not None:
            lines.append(f"{name}: {figures(asdict(value))}, {value.images} held-out images")
    there = [result.folder / name for name in ("samples.png", "drawing.gif", "metrics.jsonl")]
    return [*lines, f"look at {', '.join(str(file) for file in there if file.exists())}"]
