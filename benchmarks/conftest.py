"""The race: a case is proven, then its variants run in turns, and its figures go to pytest-benchmark, a file and a table."""

from __future__ import annotations

import gc
import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch

from benchmarks import environment
from benchmarks.cases import DEVICE
from benchmarks.clock import advance, clock
from benchmarks.proof import prove
from fastdraw.profile import table
from fastdraw.profile.cases import Case
from fastdraw.profile.measure import measured, reason
from fastdraw.profile.timing import Runner, turns_in

_RESULTS = pytest.StashKey[list[table.Result]]()


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker(pytest.mark.benchmark(timer=clock))


@pytest.fixture
def race(benchmark, pytestconfig: pytest.Config) -> Callable[[Case], None]:
    def run(case: Case) -> None:
        failures = prove(case)
        record(measured(case, lambda runners: take_turns(benchmark, runners, pytestconfig), failures), benchmark, pytestconfig)
        # Not before the others' figures are written: on a lent machine there may be no second time.
        own = [variant.name for variant in case.variants if variant.backend is not None and variant.name in failures]
        assert not own, "; ".join(f"{name}: {reason(failures[name])}" for name in own)

    return run


def take_turns(benchmark, runners: Sequence[Runner], config: pytest.Config) -> dict[str, list[float]]:
    """Seconds by name, one figure a turn. The first runner is the one that pytest-benchmark keeps statistics of.

    Turns last pytest-benchmark's --benchmark-max-time for each variant, and are no fewer than its --benchmark-min-rounds.
    """
    first, *rest = runners
    times: dict[str, list[float]] = {r.name: [] for r in runners}

    def others() -> None:
        for r in rest:
            times[r.name].append(r.turn())

    def own() -> None:
        times[first.name].append(first.turn())
        advance(times[first.name][-1])

    seconds, least = float(config.getoption("benchmark_max_time")), int(config.getoption("benchmark_min_rounds"))
    rounds = turns_in(seconds, runners, least)
    benchmark.pedantic(own, setup=others, rounds=rounds)
    return times


def record(result: table.Result, benchmark, config: pytest.Config) -> None:
    """benchmark: pytest-benchmark's fixture, None for figures that are not times."""
    if benchmark is not None:
        benchmark.extra_info.update(result)
    config.stash.setdefault(_RESULTS, []).append(result)
    path = config.getoption("benchmark_log")
    if path:
        with Path(path).open("a") as file:
            file.write(json.dumps({**result, "machine": environment.line(environment.describe())}) + "\n")


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    """torch.compile gives up on a function that it has compiled for too many cases."""
    yield
    if DEVICE == "cuda":
        torch.compiler.reset()
        # Graphs are gone by now; the next case may want all of the memory.
        gc.collect()
        torch.cuda.empty_cache()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    results = config.stash.get(_RESULTS, [])
    if results:
        from rich.console import Console

        terminalreporter.section("fastdraw's benchmarks")
        console = Console(file=io.StringIO(), width=120)
        console.print(environment.line(environment.describe()), table.EXPLANATION, sep="\n", highlight=False, markup=False)
        console.print("x: the reference's time divided by this time.\n")
        console.print(table.empty(console, table.RACED, header=True))
        for result in results:
            table.show_case(console, result, table.RACED, formulas=True)
        terminalreporter.write_line(console.file.getvalue())
        busy = [result["title"] for result in results if (result.get("others_busy") or 0.0) > table.BUSY]
        if busy:
            # A thread that waits for a core keeps the others waiting, at the end of every parallel loop.
            warning = f"Other programs were busy during {len(busy)} of {len(results)} cases; measure again:"
            terminalreporter.write_line(f"{warning} {'; '.join(busy)}", red=True)
