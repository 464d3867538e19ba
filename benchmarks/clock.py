"""The clock of pytest-benchmark. Time itself is taken by fastdraw.profile.timing."""

from __future__ import annotations

_shown = 0.0


def clock() -> float:
    """The timer handed to pytest-benchmark: it stands still but for what `advance` adds.

    pytest-benchmark takes the difference around a call as the time of the call. Here the call is a turn, whose figure is a
    mean, or comes from CUDA events; so the figure is shown to it, and its statistics, files and comparisons hold.
    """
    return _shown


def advance(seconds: float) -> None:
    global _shown
    _shown += seconds
