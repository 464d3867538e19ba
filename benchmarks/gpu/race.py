"""Rows that take turns, each in a process of its own; every figure is written down as it comes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.gpu.processes import Partner, python

#: Turns of each row, of at least 50 ms each.
TURNS = 15
#: The same of a dry run.
DRY_TURNS = 2
#: Seconds of a race that are kept for turns: what is not ready by then is left behind.
TAKING_TURNS = 15.0
#: Seconds after which a turn counts as hanging.
LONGEST_TURN = 20.0

Record = dict[str, Any]


def race(
    rows: Sequence[tuple[str, str]],
    limit: float,
    write: Callable[[Record], None],
    log: Callable[[str], None],
    *options: str,
    turns_each: int | None = None,
) -> int:
    """rows: (case, row). Starts them all, waits until they are ready, and takes turns for as long as `limit` allows.

    Gives the number of rows that failed, were wrong, or were not ready in time.
    """
    end = time.monotonic() + limit
    partners = {row: Partner(python("benchmarks.gpu.rows", *row, *options)) for row in rows}
    waiting, ready, red = list(rows), [], set()

    def note(row: tuple[str, str], found: Record) -> None:
        write({"case": row[0], "row": row[1], **found})
        if "failed" in found or found.get("wrong"):
            red.add(row)

    try:
        turns = end - min(TAKING_TURNS, limit / 2)
        while waiting and time.monotonic() < turns:
            for row in list(waiting):
                if (found := partners[row].answer(0.05)) is not None:
                    waiting.remove(row)
                    note(row, found)
                    ready += [] if "failed" in found else [row]
        for _ in range(turns_each or TURNS):
            for row in list(ready):
                if time.monotonic() > end:
                    break
                found = partners[row].ask(LONGEST_TURN) or {"failed": f"no answer after {LONGEST_TURN:.0f} s"}
                note(row, found)
                if "failed" in found:
                    ready.remove(row)
        for row in waiting:
            note(row, {"failed": f"not ready after {limit:.0f} s"})
        return len(red)
    finally:
        for (case, row), partner in partners.items():
            log(f"\n===== {case}: {row}\n{partner.close()}\n")
