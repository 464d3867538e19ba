"""What a GPU is to reach, beside what it reached and what the chip allows: one line a goal, for the report of `make gpu`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks import wide
from fastdraw.profile.figures import digits, time_text
from fastdraw.profile.shapes import Glimpses

#: Kernels of fastdraw's in one glimpse, forward and backward: tests/test_triton_recurrence.py counts them.
FORWARD_LAUNCHES, BACKWARD_LAUNCHES = 5, 7
GLIMPSES = 64
STEP = "step of DRAW MNIST 128, T=64"
#: The cases that have a compiler's steps beside fastdraw's.
COMPILERS = [f"step of DRAW MNIST, {name} 128, T=64" for name in ("JAX", "torch.compile", "slow compilers")]
LARGE, FORWARD = "step of DRAW MNIST 2048, T=64", "forward of DRAW MNIST 128, T=64"
MEMORY = "memory of DRAW MNIST 128, T=64"
REDUCE_OVERHEAD = "torch.compile reduce-overhead"
#: Share of a copy's rate, and how many times as fast as dense products, of these cases of wide.py.
WIDE = {"read, megapixels": 8.0, "write, megapixels": 8.0, "read, many": 4.0, "write, many": 4.0}
COPY_SHARE = 0.7

Result = dict[str, Any]


class Goal(NamedTuple):
    """bound: the least that is asked for, or the most where `most`. figure: None where it was not measured."""

    name: str
    bound: float
    most: bool
    figure: float | None
    text: Callable[[float], str]
    floor: str

    @property
    def met(self) -> bool | None:
        if self.figure is None:
            return None
        return self.figure <= self.bound if self.most else self.figure >= self.bound

    @property
    def verdict(self) -> str:
        if self.figure is None:
            return "not measured"
        if self.met:
            return "met"
        missed = self.figure / self.bound - 1 if self.most else 1 - self.figure / self.bound
        return f"missed by {digits(100 * missed)} %"


class Measured:
    """Results by title and row; None where there is none."""

    def __init__(self, results: Sequence[Result]) -> None:
        self._rows = {result["title"]: {r["name"]: r["median"] for r in result["rows"]} for result in results}
        self._results = {result["title"]: result for result in results}

    def best(self, title: str, start: str) -> float | None:
        """The smallest median among the rows whose names begin so."""
        found = [m for name, m in self._rows.get(title, {}).items() if name.startswith(start) and m is not None]
        return min(found, default=None)

    def row(self, title: str, name: str) -> float | None:
        return self._rows.get(title, {}).get(name)

    def field(self, title: str, name: str) -> Any:
        return self._results.get(title, {}).get(name)


def _over(one: float | None, other: float | None) -> float | None:
    return None if one is None or not other else one / other


def _least(figures: Sequence[float | None]) -> float | None:
    return min((f for f in figures if f is not None), default=None)


def _times(figure: float) -> str:
    return f"{digits(figure)}x"


def _percent(figure: float) -> str:
    return f"{digits(100 * figure)} %"


def goals(results: Sequence[Result], ceilings: Mapping[str, float], limits: Mapping[str, float]) -> list[Goal]:
    """ceilings: what benchmarks.ceilings found; limits: the values of benchmarks.probe. Either may be empty."""
    measured = Measured(results)
    best = measured.best(STEP, "GraphedStep")
    # Of buffers that no cache holds, whoever copies them best.
    large = ("copy of 1 GiB", "copy of 1024 MiB")
    copy = max((value for name, value in {**ceilings, **limits}.items() if name.startswith(large)), default=None)
    node = limits.get("dependent node: waits, then lets the next begin, us")
    rate = ceilings.get("product in bfloat16, GFLOP/s")

    def launches(count: int) -> str:
        if node is None:
            return f"{count} launches"
        return f"{count} launches of {digits(node)} us each: {time_text(count * node * 1e-6)}"

    step_floor = launches((FORWARD_LAUNCHES + BACKWARD_LAUNCHES) * GLIMPSES)

    def against(start: str) -> float | None:
        """The least of the ratios of the cases in which both were measured: the peer at its best."""
        return _least([_over(measured.best(t, start), measured.best(t, "GraphedStep")) for t in COMPILERS])

    # "reference" by its full name: not in a graph, and not in half precision.
    eager = _over(measured.row(STEP, "reference"), best)
    forward = measured.best(FORWARD, "fastdraw")
    step = measured.best(LARGE, "GraphedStep, bfloat16")
    operations = measured.field(LARGE, "product operations")
    share = None if None in (step, operations, rate) else operations / step / (rate * 1e9)
    found = [
        Goal("training step against eager reference", 40.0, False, eager, _times, step_floor),
        Goal("against torch.compile reduce-overhead", 2.5, False, against(REDUCE_OVERHEAD), _times, step_floor),
        Goal("against jax.jit of lax.scan", 2.5, False, against("jax"), _times, step_floor),
        Goal(
            "forward per glimpse",
            8e-6,
            True,
            None if forward is None else forward / GLIMPSES,
            time_text,
            launches(FORWARD_LAUNCHES),
        ),
        Goal("training step, B=128", 1.6e-3, True, best, time_text, step_floor),
        Goal(
            "B=2048: share of the bfloat16 rate, of the whole step",
            0.4,
            False,
            share,
            _percent,
            "" if None in (rate, operations) else f"products alone {time_text(operations / (rate * 1e9))}",
        ),
    ]
    for name, ratio in WIDE.items():
        operator, shape, dtype, _ = wide.CASES[name]
        found += _of_a_wide_case(measured, operator, shape, dtype, ratio, copy)
    for row, bound in (("fastdraw", 0.5), ("fastdraw, bfloat16, rebuild", 0.25)):
        part = _over(measured.row(MEMORY, row), measured.row(MEMORY, "reference"))
        found.append(Goal(f"memory that a step adds, {row}, of eager's", bound, True, part, _percent, ""))
    return found


def _of_a_wide_case(
    measured: Measured, operator: str, shape: Glimpses, dtype: str, ratio: float, copy: float | None
) -> list[Goal]:
    title = wide.title(operator, shape, dtype)
    own, dense = measured.best(title, "fastdraw"), measured.row(title, "reference")
    moved = wide.least_bytes(operator, shape, dtype)
    least = None if copy is None else moved / (copy * 1e9)
    floor = "" if least is None else f"{digits(moved * 1e-9)} GB at {digits(copy or 0)} GB/s: {time_text(least)}"
    name = f"{operator} {shape.batch}x{shape.channels}x{shape.height}x{shape.width}, N={shape.size}"
    return [
        Goal(f"{name}: share of a copy's rate", COPY_SHARE, False, _over(least, own), _percent, floor),
        Goal(f"{name}: against dense products", ratio, False, _over(dense, own), _times, floor),
    ]


def markdown(found: Sequence[Goal]) -> str:
    lines = ["| goal | asked for | measured | | floor |", "| --- | --- | --- | --- | --- |"]
    for goal in found:
        asked = f"{'at most' if goal.most else 'at least'} {goal.text(goal.bound)}"
        figure = "" if goal.figure is None else goal.text(goal.figure)
        lines.append(f"| {goal.name} | {asked} | {figure} | {goal.verdict} | {goal.floor} |")
    return "\n".join(lines)


def summary(found: Sequence[Goal]) -> list[str]:
    """One line a goal, for the screen."""
    lines = []
    for goal in found:
        figure = "-" if goal.figure is None else goal.text(goal.figure)
        lines.append(f"{goal.name:<66} {figure:>9}  ({'<=' if goal.most else '>='} {goal.text(goal.bound)})  {goal.verdict}")
    return lines


def as_json(found: Sequence[Goal]) -> list[dict[str, Any]]:
    names = ("name", "bound", "most", "figure", "floor")
    return [{**{name: getattr(goal, name) for name in names}, "verdict": goal.verdict} for goal in found]
