"""What a run says: sentences at its start and end, and a progress bar on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import torch

from fastdraw.shell import own_command, quoted
from fastdraw.text import printable
from fastdraw.train.setup import Setup


def figures(record: dict[str, Any]) -> str:
    """The figures of a record of metrics, in one short text: nats, or the error and its cross-entropy."""
    spread = f" +- {record['standard_error']:.2f}" if record.get("standard_error") is not None else ""
    rate = f", {record['images_per_second']:,.0f} images/s" if "images_per_second" in record else ""
    if "error" in record:
        return f"error {record['error']:.2f}{spread} % (cross-entropy {record['cross_entropy']:.4f} nats){rate}"
    parts = f"(reconstruction {record['reconstruction']:.2f}, KL {record['kl']:.2f})"
    return f"{record['nats']:.2f}{spread} nats per image {parts}{rate}"


class Display:
    """Plain lines on `stream`, one for each line of metrics: for files, pipes and CI logs."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stdout

    def start(self, step: int, total: int) -> None:
        self.total = total

    def step(self, step: int, record: dict[str, Any] | None) -> None:
        """After each step; with the step's own figures where reading them costs nothing."""

    def metrics(self, record: dict[str, Any]) -> None:
        self.note(f"step {record['step']}/{self.total}  epoch {record['epoch']}  {record['split']:<10}  {figures(record)}")

    def note(self, text: str) -> None:
        print(printable(text), file=self.stream, flush=True)

    def stop(self) -> None:
        """Gives the terminal back. May be called twice."""


class TerminalDisplay(Display):
    """A bar with the latest nats and images/s; evaluations stay above it."""

    def __init__(self, stream: TextIO | None = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        super().__init__(stream)
        self._bar = Progress(
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=Console(file=self.stream, highlight=False),
        )
        self._task = self._bar.add_task("train", total=None, figures="")

    def start(self, step: int, total: int) -> None:
        super().start(step, total)
        self._bar.update(self._task, completed=step, total=total)
        self._bar.start()

    def step(self, step: int, record: dict[str, Any] | None) -> None:
        self._bar.update(self._task, completed=step)
        if record is not None:
            self._bar.update(self._task, figures=_short(record))

    def metrics(self, record: dict[str, Any]) -> None:
        if record["split"] == "train":
            self._bar.update(self._task, figures=_short(record))
        else:
            super().metrics(record)

    def note(self, text: str) -> None:
        self._bar.console.print(printable(text), markup=False, soft_wrap=True)

    def stop(self) -> None:
        self._bar.stop()


def _short(record: dict[str, Any]) -> str:
    """The same figures beside a bar, within 80 columns; reconstruction and KL add up to nats."""
    rate = f"{record['images_per_second']:,.0f} images/s"
    if "error" in record:
        return f"error {record['error']:.1f} %, cross-entropy {record['cross_entropy']:.3f}, {rate}"
    return f"{record['nats']:.1f} nats = {record['reconstruction']:.1f} + KL {record['kl']:.1f}, {rate}"


class Silent(Display):
    """For processes beside the first one, which speaks for all."""

    def metrics(self, record: dict[str, Any]) -> None: ...

    def note(self, text: str) -> None: ...


def display(stream: TextIO | None = None) -> Display:
    """The display that fits `stream`, standard output by default."""
    stream = stream or sys.stdout
    return TerminalDisplay(stream) if stream.isatty() else Display(stream)


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


def again(setup: Setup) -> str:
    """The command that goes on with a run; what else it was started with is in its checkpoint."""
    processes, start = setup.processes, own_command()
    if processes.size > 1:
        nodes = processes.size // processes.here
        many = f" --nnodes {nodes}" if nodes > 1 else ""
        start = f"torchrun{many} --nproc-per-node {processes.here} -m fastdraw"
    return f"{start} train --out {quoted(setup.folder)} --resume"


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
