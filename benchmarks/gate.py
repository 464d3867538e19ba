"""What looking at every tensor's memory costs a small glimpse: calls with ops/gate.py and checks.check_memory, and with both
taken out.

    python -m benchmarks.gate [--turns N]

One thread's processor time on one core, turns of many calls that alternate, medians of the turns and of the differences
between the two turns of a pair.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest import mock

from benchmarks import checkout

checkout.activate()

import torch  # noqa: E402

import fastdraw  # noqa: E402
from benchmarks import environment  # noqa: E402
from fastdraw import checks  # noqa: E402
from fastdraw.ops import gate  # noqa: E402

#: Microseconds that a turn is meant to take.
TURN = 20_000


def calls(batch: int) -> dict[str, Callable[[], Any]]:
    """Of a 5x5 glimpse of 28x28 pixels."""
    image, params = torch.rand(batch, 1, 28, 28), 0.1 * torch.randn(batch, 5)
    window, patch = params.clone().requires_grad_(), torch.rand(batch, 1, 5, 5)
    one = torch.ones(batch, 1, 5, 5)
    return {
        "read": lambda: fastdraw.read(image, params, 5),
        "read and its gradient": lambda: torch.autograd.grad(fastdraw.read(image, window, 5), window, one),
        "write": lambda: fastdraw.write(patch, params, (28, 28)),
    }


def nothing(*_: Any) -> None:
    """Plainly, since a Mock takes longer than what it stands for."""


def without() -> ExitStack:
    stack = ExitStack()
    for owner, name in ((checks, "check_memory"), (gate, "check")):
        stack.enter_context(mock.patch.object(owner, name, nothing))
    return stack


def turn(call: Callable[[], Any], number: int) -> float:
    """Microseconds a call."""
    start = time.thread_time_ns()
    for _ in range(number):
        call()
    return (time.thread_time_ns() - start) / 1000 / number


def main(turns: int) -> None:
    torch.set_num_threads(1)
    print("| | B | us a call | without | difference |\n|---|---|---|---|---|")
    for batch in (1, 128):
        for name, call in calls(batch).items():
            turn(call, 20)
            number = max(1, int(TURN / turn(call, 20)))
            pairs = []
            for i in range(turns):
                # Either goes first in half of the pairs.
                found = {}
                for looking in (i % 2 == 0, i % 2 == 1):
                    with ExitStack() if looking else without():
                        found[looking] = turn(call, number)
                pairs.append((found[True], found[False]))
            whole, bare = (statistics.median(column) for column in zip(*pairs, strict=True))
            difference = statistics.median(a - b for a, b in pairs)
            print(f"| {name} | {batch} | {whole:.1f} | {bare:.1f} | {difference:.2f} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=60)
    turns = parser.parse_args().turns
    environment.warn()
    main(turns)
