"""Metrics on disk: one JSON object a line in metrics.jsonl; the same figures for TensorBoard, and what is to be seen."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from fastdraw.files import append_to, utf8_name, write_atomically
from fastdraw.train.watched import Watched

NAME = "metrics.jsonl"
#: Ends the names of TensorBoard's files, which other programs may write to the same folder.
SUFFIX = ".fastdraw"


class Metrics:
    """Appends records to RUN/metrics.jsonl and RUN/events.*.

    A run that goes on from a checkpoint says how many `lines` were written when it was made: later ones belong to steps that
    will be taken again, and are cut off; TensorBoard is told to forget steps after `step`.
    """

    def __init__(self, folder: Path, lines: int = 0, step: int = 0) -> None:
        # Not at the top: it takes a while to import, and help needs none of it.
        from torch.utils.tensorboard import SummaryWriter

        path = folder / NAME
        written = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        kept = written[:lines]
        write_atomically(path, b"".join(kept))
        self.lines = len(kept)
        self._file = append_to(path)
        self._way = contextlib.ExitStack()
        self._board = SummaryWriter(
            self._way.enter_context(utf8_name(folder)), purge_step=step + 1 if step else None, filename_suffix=SUFFIX
        )

    def write(self, record: dict[str, Any]) -> None:
        """One record: step, epoch and split, and the figures that they mean."""
        self._file.write((json.dumps(record, allow_nan=False) + "\n").encode())
        self._file.flush()
        self.lines += 1
        for name, value in record.items():
            if name not in ("step", "epoch", "split", "images") and value is not None:
                self._board.add_scalar(f"{name}/{record['split']}", value, record["step"])

    def watch(self, step: int, seen: Watched) -> None:
        """Pictures and histograms of an evaluation, for TensorBoard alone."""
        for name, picture in seen.pictures.items():
            self._board.add_image(name, picture, step, dataformats="HWC")
        for name, values in seen.windows.items():
            self._board.add_histogram(name, values, step)

    def sync(self) -> None:
        """Makes what was written outlive a crash of the machine: before a checkpoint counts on it."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._board.flush()

    def close(self) -> None:
        self._file.close()
        self._board.close()
        self._way.close()
