"""Many small pieces of work on several processes of this machine, each on every so many-th piece."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

from fastdraw.data.bar import Report
from fastdraw.data.splits import DataError

#: Pieces that a process is started for, at least.
LEAST = 64


def each(work: Callable[[int], Any], count: int, report: Report, workers: int | None = None) -> list[Any]:
    """What work(0) .. work(count - 1) give, which is pickled, or the DataError that they raise; other errors are raised here.

    The processes are forks, which may compute nothing by torch. `report` is called here, with how many pieces are done. Raises
    DataError where a process ends by itself.
    """
    workers = min(_cores() if workers is None else workers, count // LEAST)
    if workers < 2 or sys.platform != "linux":
        results = []
        for i in range(count):
            results.append(_of(work, i))
            report(i + 1, count)
        return results
    context = multiprocessing.get_context("fork")
    done = context.RawArray("q", workers)
    running: dict[Any, tuple[int, Any]] = {}
    found: dict[Any, Any] = {}
    try:
        for worker in range(workers):
            ours, its = context.Pipe(duplex=False)
            share = work, range(worker, count, workers), its, done, worker
            process = context.Process(target=_share, args=share, daemon=True)
            process.start()
            its.close()
            running[ours] = worker, process
        while len(found) < workers:
            ready: list[Any] = wait([pipe for pipe in running if pipe not in found], 0.2)
            for pipe in ready:
                worker, process = running[pipe]
                try:
                    found[pipe] = pipe.recv()
                except EOFError:
                    process.join()
                    raise DataError(
                        f"data: expected the processes that decode images to finish, got one that ended: {process.exitcode}"
                    ) from None
            report(sum(done), count)
    finally:
        for pipe, (_, process) in running.items():
            if pipe not in found:
                process.terminate()
            process.join()
            pipe.close()
    results = [None] * count
    for pipe, part in found.items():
        if isinstance(part, BaseException):
            raise part
        results[running[pipe][0] :: workers] = part
    return results


def _of(work: Callable[[int], Any], i: int) -> Any:
    try:
        return work(i)
    except DataError as error:
        return error


def _share(work: Callable[[int], Any], pieces: range, pipe: Connection, done: Any, worker: int) -> None:
    # Ctrl-C comes to all of a terminal's processes; the parent ends these.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = os.getppid()
    results: Any = []
    try:
        for i in pieces:
            results.append(_of(work, i))
            done[worker] += 1
            if os.getppid() != parent:
                os._exit(1)
    except BaseException as error:
        results = error
    pipe.send(results)
    pipe.close()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
