"""Ctrl-C, `kill` and --minutes end training between two steps, with a checkpoint, and not in the middle of one."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

#: Stands for the end of --minutes where a signal's number is told.
TIME_IS_UP = int(signal.SIGALRM) if hasattr(signal, "SIGALRM") else 14


class Interrupted(Exception):
    """SIGINT or SIGTERM came, or --minutes are over (SIGALRM, which no other program has to send). `signum` says which; the
    run's checkpoint holds every step that was taken."""

    def __init__(self, signum: int, message: str = "") -> None:
        by = "the end of --minutes" if signum == TIME_IS_UP else signal.Signals(signum).name
        super().__init__(message or f"interrupted by {by}")
        self.signum = signum


class Interruptions:
    """Inside `with`, notes SIGINT and SIGTERM, the end of `minutes` from now, and as SIGTERM that torchrun, which started this
    process, is gone; `check()` raises Interrupted once one came.
    A second signal acts at once."""

    def __init__(self, minutes: float | None = None) -> None:
        self._came: int | None = None
        self._deadline = None if minutes is None else time.monotonic() + 60 * minutes
        self._before: dict[int, Any] = {}
        # torchrun's, which ends its workers unless it is killed itself.
        self._launcher = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None

    def __enter__(self) -> Interruptions:
        # Python lets only the main thread set handlers; elsewhere whoever owns it decides.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._came = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    @property
    def signum(self) -> int | None:
        """What came, if anything did."""
        if self._came is None and self._deadline is not None and time.monotonic() > self._deadline:
            self._came = TIME_IS_UP
        if self._came is None and self._launcher is not None and os.getppid() != self._launcher:
            self._came = signal.SIGTERM
        return self._came

    def check(self) -> None:
        if self.signum is not None:
            raise Interrupted(self.signum)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._restore()
