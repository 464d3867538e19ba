"""A bar on stderr for what takes long, where one is wanted."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from fastdraw.installed import needs_extra

#: (how much is done, of how much in all; None where that is not known).
Report = Callable[[int, int | None], None]


@contextlib.contextmanager
def bar(text: str, wanted: bool, in_bytes: bool = False, lasting: bool = True) -> Iterator[Report]:
    """Within it, each call of what it yields moves the bar. in_bytes: whether sizes and their rate are shown, or counts.
    lasting: whether it stays once it is full."""
    if not wanted:
        yield lambda done, total: None
        return
    with needs_extra("a progress bar"):
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TransferSpeedColumn
    measures = (DownloadColumn(), TransferSpeedColumn()) if in_bytes else (MofNCompleteColumn(),)
    console, columns = Console(stderr=True), (TextColumn("{task.description}"), BarColumn(), *measures)
    with Progress(*columns, console=console, transient=not lasting) as progress:
        task = progress.add_task(text, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
