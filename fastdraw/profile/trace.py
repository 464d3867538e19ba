"""One step under torch's profiler: its events, what was launched, and how much memory it took at its peak."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from fastdraw.kernels import cpu
from fastdraw.kernels.cpu import pages, pieces
from fastdraw.profile.timing import Variant

Event = dict[str, Any]
#: How the calls of fastdraw's C++ library are named in a trace.
CPP = "C++ "
#: Operators of torch's that give memory or another view of it and compute nothing.
_IDLE = frozenset(
    f"aten::{name}"
    for name in (
        *("empty", "empty_like", "empty_strided", "new_empty", "resize_", "set_", "result_type", "lift_fresh"),
        *("alias", "as_strided", "chunk", "detach", "expand", "expand_as", "flatten", "movedim", "narrow", "permute"),
        *("select", "slice", "split", "split_with_sizes", "squeeze", "t", "transpose", "unbind", "unflatten", "unsqueeze"),
        *("view", "view_as", "_unsafe_view", "_reshape_alias", "reshape", "reshape_as", "resolve_conj", "resolve_neg"),
        # These compute where they find that they must copy: then there is a copy inside them.
        *("contiguous", "to"),
    )
)


class Trace(NamedTuple):
    """events: of the Chrome trace format. launches: kernels on CUDA, on a CPU what `count_calls` counts."""

    events: list[Event]
    launches: int
    peak_bytes: int


def trace(variant: Variant, label: str, device: str) -> Trace:
    """Runs the variant once. It should have run before: first calls compile and allocate for good."""
    # The profiler tells stderr when it starts and stops, unless it is told to keep to errors.
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device == "cuda" else [])
    # The C++ kernels' large buffers are not the allocator's: those of this step alone must be counted.
    # What a plain call keeps for its gradient it does not keep while a profiler looks (fastdraw.ops.direct).
    plain = _kept_bytes(variant) if device == "cpu" else 0
    with _cpp_calls_named(), profile(activities=activities, profile_memory=True) as profiler:
        with record_function(label), variant.in_force():
            results = variant.step(0)
        if device == "cuda":
            torch.cuda.synchronize()
    kept = pages.kept_bytes() if device == "cpu" else 0
    # Held until here, so that what the step gives back counts.
    del results
    pages.release()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    launches = count_kernels(events) if device == "cuda" else count_calls(events)
    return Trace(events, launches, peak_bytes(events, device) + max(kept, plain))


def _kept_bytes(variant: Variant) -> int:
    """Of the large buffers that one call takes."""
    pages.release()
    with variant.in_force():
        results = variant.step(0)
    kept = pages.kept_bytes()
    del results
    pages.release()
    return kept


def count_kernels(events: list[Event]) -> int:
    return sum(event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset") for event in events)


def count_calls(events: list[Event]) -> int:
    """Calls that compute: of fastdraw's C++ library, and of operators of torch's with no other such call inside them."""
    spans = [event for event in events if event.get("ph") == "X" and event.get("cat") in ("cpu_op", "user_annotation")]
    total = 0
    for thread in {event["tid"] for event in spans}:
        own = sorted((e for e in spans if e["tid"] == thread), key=lambda e: (e["ts"], -e["dur"]))
        # Spans that are open, each with whether it computes by itself and the calls found inside it.
        open_spans: list[tuple[float, bool, list[int]]] = []
        top = [0]

        def close(until: float, open_spans: list[tuple[float, bool, list[int]]] = open_spans, top: list[int] = top) -> None:
            while open_spans and open_spans[-1][0] <= until:
                _, computes, inside = open_spans.pop()
                (open_spans[-1][2] if open_spans else top)[0] += inside[0] or int(computes)

        for event in own:
            close(event["ts"])
            open_spans.append((event["ts"] + event["dur"], _computes(event["name"]), [0]))
        close(float("inf"))
        total += top[0]
    return total


def _computes(name: str) -> bool:
    if name.startswith(CPP):
        return True
    return "::" in name and not name.startswith(("autograd::", "torch::")) and name not in _IDLE


def peak_bytes(events: list[Event], device: str) -> int:
    """The most that was allocated at one time beyond what was there at the start."""
    kind = 1 if device == "cuda" else 0
    changes = [e for e in events if e.get("name") == "[memory]" and e["args"].get("Device Type") == kind]
    total = most = 0
    for event in sorted(changes, key=lambda e: e["ts"]):
        total += event["args"]["Bytes"]
        most = max(most, total)
    return most


def merged(traces: list[list[Event]]) -> dict[str, Any]:
    """Traces one after another, as one that Perfetto opens: without the time that lay between them."""
    events: list[Event] = []
    start = 0.0
    for number, trace_events in enumerate(traces):
        timed = [event for event in trace_events if "ts" in event and event.get("ph") != "M"]
        if not timed:
            continue
        first = min(event["ts"] for event in timed)
        last = max(event["ts"] + event.get("dur", 0.0) for event in timed)
        for event in trace_events:
            if event.get("ph") == "M":
                # Names of processes and threads: once.
                if not events or number == 0:
                    events.append(event)
                continue
            # What ties a launch to its kernel must not tie it to another trace's.
            tied = {"id": event["id"] + number * 10_000_000} if isinstance(event.get("id"), int) else {}
            events.append({**event, "ts": event["ts"] - first + start, **tied} if "ts" in event else event)
        start += last - first + 100.0
    return {"displayTimeUnit": "ms", "traceEvents": events}


@contextmanager
def _cpp_calls_named() -> Iterator[None]:
    """Every call of the C++ library becomes a span of the trace: ctypes calls are not seen by torch's profiler."""

    def named(functions: Any) -> Any:
        return functions and type(functions)(*(_spanned(f"{CPP}{n}", f) for n, f in functions._asdict().items()))

    with ExitStack() as stack:
        for module, name in ((cpu, "kernels"), (pieces, "functions")):
            original = getattr(module, name)
            stack.enter_context(mock.patch.object(module, name, lambda *args, _f=original: named(_f(*args))))
        yield


def _spanned(name: str, function: Callable[..., int]) -> Callable[..., int]:
    def call(*arguments: Any) -> int:
        with record_function(name):
            return function(*arguments)

    return call
