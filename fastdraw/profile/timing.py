"""How time is taken: in turns, so that a slow moment of the machine falls on every variant alike.

A turn is one variant called a number of times in a row; its figure is the mean of one call. A call that is not timed comes
first: what the other variants left in caches and allocators is not this one's, whose calls follow each other where it is used.
Turns of all variants alternate, A B C A B C, in one process, and medians over turns are compared. On a CUDA device a turn
replays one graph that was captured over many sets of inputs, larger together than L2, and is timed by events: no launch from
Python is in it.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

import fastdraw

#: A turn lasts at least this long, in seconds; far above the resolution of the clock and of CUDA events. On a device a wait
#: and an idle pipeline, which begin and end a turn, are to be small beside it.
TURN = {"cpu": 5e-3, "cuda": 50e-3}
#: Turns of a variant: never more, however quick it is.
MOST_TURNS = 40


class Variant(NamedTuple):
    """One way to compute a case.

    step(k) runs forward and backward on the k-th set of inputs and gives outputs and gradients.
    backend: of fastdraw, in force while it runs; None for what is not fastdraw's, and may fail without a red test.
    """

    name: str
    step: Callable[[int], list[Tensor]]
    backend: str | None = None
    #: Switches of torch's that have to be set while it runs, entered anew each time.
    setting: Callable[[], AbstractContextManager[None]] = nullcontext
    #: Whose error budget it is held to, where that is not the case's.
    dtype: torch.dtype | None = None
    #: Some of the case's matrix products alone: a floor, with no results that could be proven.
    products: bool = False
    #: False for what has no results to be proven: the allocation of a result, as a floor.
    proven: bool = True
    #: On CUDA: may it be captured in a graph? Not what makes graphs of its own, or is not torch's.
    captured: bool = True
    #: Why its results are others than the case's; empty where they are the same to rounding.
    approximate: str = ""
    #: Whether torch's profiler sees what it launches, and its memory.
    calls_seen: bool = True
    memory_seen: bool = True

    @contextmanager
    def in_force(self):
        with self.setting(), fastdraw.backend(self.backend) if self.backend else nullcontext():
            yield


class Runner(Protocol):
    name: str
    #: How the figure came about, where that is worth a word in the table.
    note: str
    #: Seconds that a turn lasts.
    turn_seconds: float

    def turn(self) -> float:
        """Seconds of one call, averaged over a turn."""

    def eager(self) -> float | None:
        """Seconds of one call launched from Python, device included; None where `turn` says so already."""


class HostRunner:
    """Turns of plain calls by the wall clock; waits for the device where there is one."""

    def __init__(self, variant: Variant, sets: int, device: str, note: str = "") -> None:
        self.name, self.note = variant.name, note
        self._variant, self._sets, self._device = variant, sets, device
        self._calls = 1
        once = self._run(1)
        # A long call has warmed itself up.
        turn = TURN[device]
        if once < 20 * turn:
            once = min(self._run(1) for _ in range(3))
        self._calls = max(1, math.ceil(turn / once))
        self.turn_seconds = once * self._calls

    def _run(self, calls: int) -> float:
        with self._variant.in_force():
            self._wait()
            start = time.perf_counter()
            for k in range(calls):
                self._variant.step(k % self._sets)
            self._wait()
            return (time.perf_counter() - start) / calls

    def _wait(self) -> None:
        if self._device == "cuda":
            torch.cuda.synchronize()

    def turn(self) -> float:
        self._run(1)
        return self._run(self._calls)

    def eager(self) -> float | None:
        return None


class GraphRunner:
    """Turns of one CUDA graph that holds a call on every set of inputs."""

    def __init__(self, variant: Variant, sets: int) -> None:
        self.name, self.note = variant.name, ""
        self._variant, self._sets = variant, sets
        with variant.in_force():
            # A few calls compile kernels, and make the workspaces of libraries, before anything is captured.
            self._replayed = captured(lambda: self._call(sets), lambda: self._call(min(3, sets)))
        self._replays = 1
        self.turn()
        once = min(self.turn() for _ in range(3)) * sets
        self._replays = max(1, math.ceil(TURN["cuda"] / once))
        self.turn_seconds = once * self._replays

    def _call(self, sets: int) -> None:
        for k in range(sets):
            self._variant.step(k)

    def turn(self) -> float:
        return self._replayed(self._replays) / self._sets

    def eager(self) -> float | None:
        host = HostRunner(self._variant, self._sets, "cuda")
        return sorted(host.turn() for _ in range(5))[2]


def captured(work: Callable[[], Any], warm_up: Callable[[], Any] | None = None) -> Callable[[int], float]:
    """A graph of what `work` launches. The result, called with a number, replays it so often: seconds of one replay."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        (warm_up or work)()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        work()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def replayed(times: int) -> float:
        start.record()
        for _ in range(times):
            graph.replay()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) * 1e-3 / times

    return replayed


def runner(variant: Variant, sets: int, device: str) -> Runner:
    if device != "cuda":
        return HostRunner(variant, sets, device)
    reason = waits_for_device(variant) if variant.captured else "it launches by itself"
    if reason is None:
        return GraphRunner(variant, sets)
    return HostRunner(variant, sets, device, note=f"launched from Python, not from a graph: {reason}")


def waits_for_device(variant: Variant) -> str | None:
    """Why a variant cannot be captured: asked before capturing, since a capture that fails leaves its process in doubt."""
    with variant.in_force():
        variant.step(0)
        torch.cuda.synchronize()
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            variant.step(0)
        except RuntimeError as error:
            if "synchroniz" not in str(error):
                raise
            return "it waits for the device"
        finally:
            torch.cuda.set_sync_debug_mode(before)
    return None


def turns_in(seconds: float, runners: Sequence[Runner], least: int) -> int:
    """How many turns of all of them take `seconds` for each."""
    turns = math.ceil(seconds * len(runners) / max(sum(r.turn_seconds for r in runners), 1e-9))
    return max(least, min(turns, MOST_TURNS))


def take_turns(runners: Sequence[Runner], turns: int) -> dict[str, list[float]]:
    """Seconds of one call by name, one figure a turn; turns alternate between the variants."""
    times: dict[str, list[float]] = {r.name: [] for r in runners}
    for _ in range(turns):
        for r in runners:
            times[r.name].append(r.turn())
    return times


class Timed:
    """A step whose first call compiles: how long that call took is kept. Nothing is taken from caches of earlier runs.

    around: entered for every call, with whether it is the first.
    """

    #: Calls after the first that are no step's: what torch.compile puts into CUDA graphs is recorded in the second.
    SETTLING = 2

    def __init__(
        self,
        make: Callable[[], Callable[[], list[Any]]],
        around: Callable[[bool], AbstractContextManager[Any]] = lambda first: nullcontext(),
    ) -> None:
        self._make, self._around = make, around
        self._step: Callable[[], list[Any]] | None = None
        self.first_seconds: float | None = None

    def __call__(self, _: int) -> list[Any]:
        step = self._step or self._first()
        with self._around(False):
            return step()

    def _first(self) -> Callable[[], list[Any]]:
        with self._around(True):
            step = self._make()
            start = time.perf_counter()
            # Inductor keeps what it compiled on disk, so that a second run would show no compile time.
            with torch._inductor.config.patch(force_disable_caches=True), warnings.catch_warnings():
                # It warns that it keeps nothing.
                warnings.simplefilter("ignore")
                step()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.first_seconds = time.perf_counter() - start
            for _ in range(self.SETTLING):
                step()
        self._step = step
        return step
