"""What a person sees while training runs: a progress bar on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
from typing import Any, TextIO

from fastdraw.text import printable


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
