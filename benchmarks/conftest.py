"""The race: a case is proven, then its variants run in turns, and its figures go to pytest-benchmark, a file and a table."""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from benchmarks import environment, table
from benchmarks.cases import DEVICE, Case
from benchmarks.timing import advance
from budget import assert_errors_within_budget, error
from fastdraw.profile import ceilings, figures, machine
from fastdraw.profile.timing import Runner, Variant, runner

_RESULTS = pytest.StashKey[list[table.Result]]()
#: Turns of a variant: never more, however quick it is.
_MOST_TURNS = 40


def prove(case: Case) -> dict[str, str]:
    """Values and gradients of every variant against float64, by the tests' own error budget.

    Gives the names of those that exceed it or cannot run, each with the reason.
    """
    case = case.twin or case
    exact = case.exact()
    own = _values(next(variant for variant in case.variants if variant.name == "reference"))
    rivals_of: dict[torch.dtype, list[list[torch.Tensor]]] = {}
    failures = {}
    for variant in case.variants:
        if variant.products or not variant.proven:
            # Chooses the way to each product, which must not fall into a turn.
            variant.step(0)
            continue
        # tf32 keeps as many bits of a product's operands as float16 does.
        dtype = variant.dtype or (torch.float16 if case.precision == "tf32" else case.dtype)
        try:
            if dtype not in rivals_of:
                rivals_of[dtype] = [own, *case.rivals(dtype)]
            rivals = rivals_of[dtype]
            for index, (value, e) in enumerate(zip(_values(variant), exact, strict=True)):
                allowed = max(error(rival[index], e) for rival in rivals)
                assert_errors_within_budget(f"{variant.name}, result {index}", error(value, e), allowed, dtype)
        except Exception as reason:
            failures[variant.name] = _one_line(reason)
    return failures


def _values(variant: Variant) -> list[torch.Tensor]:
    """On a device, and in torch's hands: JAX's arrays are handed over here, where no clock runs."""
    with variant.in_force():
        return [value if isinstance(value, torch.Tensor) else torch.from_dlpack(value) for value in variant.step(0)]


def _one_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"[:160]


@pytest.fixture
def race(benchmark, pytestconfig: pytest.Config) -> Callable[[Case], None]:
    def run(case: Case) -> None:
        failures = prove(case)
        runners: list[Runner] = []
        for variant in case.variants:
            if variant.name in failures:
                continue
            try:
                runners.append(runner(variant, case.sets, DEVICE))
            except Exception as reason:
                failures[variant.name] = _one_line(reason)
        others = machine.Others()
        times = take_turns(benchmark, runners, pytestconfig) if runners else {}
        others_busy = others.cores()
        floor, floor_by = ceilings.floor(case.cost, DEVICE, case.precision)
        rows = [figures.row(r.name, times[r.name], r.eager(), r.note) for r in runners]
        add_compile_times(rows, case)
        add_shares_of_products(rows, case)
        rows += [figures.row(name, [], note=text) for name, text in failures.items()]
        # As the case has them: the first is fastdraw as it comes, measured or not.
        order = [variant.name for variant in case.variants]
        rows.sort(key=lambda row: order.index(row["name"]))
        result: table.Result = {
            "title": case.title,
            "measured": case.measured,
            "precision": case.precision,
            "device": DEVICE,
            **asdict(case.cost),
            "floor": floor,
            "floor_by": floor_by,
            "rotated_bytes": case.sets * case.input_bytes,
            "others busy": others_busy,
            "batch": case.batch,
            "glimpses": case.glimpses,
            "product operations": case.product_operations,
            "rows": rows,
        }
        record(result, benchmark, pytestconfig)
        # Not before the others' figures are written: on a lent machine there may be no second time.
        own = {variant.name for variant in case.variants if variant.backend is not None}
        wrong = [f"{name}: {text}" for name, text in failures.items() if name in own]
        assert not wrong, "; ".join(wrong)

    return run


def add_compile_times(rows: list[figures.Row], case: Case) -> None:
    """Seconds that a variant's first call took beyond a later one, where it compiles."""
    steps = {variant.name: variant.step for variant in case.variants}
    for row in rows:
        first = getattr(steps[row["name"]], "first_seconds", None)
        row["compile"] = None if first is None else first - row["median"]


def add_shares_of_products(rows: list[figures.Row], case: Case) -> None:
    """The time of the matrix products alone divided by the whole, for variants of the same dtype."""
    variants = {variant.name: variant for variant in case.variants}
    alone = {variants[r["name"]].dtype: r["median"] for r in rows if variants[r["name"]].products}
    for row in rows:
        products = alone.get(variants[row["name"]].dtype or case.dtype)
        row["products"] = None if products is None or variants[row["name"]].products else products / row["median"]


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

    seconds = float(config.getoption("benchmark_max_time")) * len(runners)
    rounds = math.ceil(seconds / sum(r.turn_seconds for r in runners))
    rounds = max(int(config.getoption("benchmark_min_rounds")), min(rounds, _MOST_TURNS))
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
            file.write(json.dumps(result) + "\n")


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
        terminalreporter.section("fastdraw's benchmarks")
        found = environment.describe()
        for text in table.terminal(results, environment.line(found)):
            terminalreporter.write_line(text)
        busy = [result["title"] for result in results if (result.get("others busy") or 0.0) > table.BUSY]
        if busy:
            # A thread that waits for a core keeps the others waiting, at the end of every parallel loop.
            warning = f"Other programs were busy during {len(busy)} of {len(results)} cases; measure again:"
            terminalreporter.write_line(f"{warning} {'; '.join(busy)}", red=True)
