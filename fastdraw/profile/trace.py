"""One step under torch's profiler: its events, what was launched, and how much memory it took at its peak."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

from fastdraw.kernels import cpu
from fastdraw.kernels.cpu import pages, pieces
from fastdraw.profile.timing import Variant

Event = dict[str, Any]
#: How the calls of fastdraw's C++ library are named in a trace.
CPP = "C++ "
#: Operators of torch's that give memory or another view of it and compute nothing. contiguous and to compute where they find
#: that they must copy: then there is a copy inside them.
_IDLE = frozenset(
    f"aten::{name}"
    for name in (
        *("empty", "empty_like", "empty_strided", "new_empty", "resize_", "set_", "result_type", "lift_fresh"),
        *("alias", "as_strided", "chunk", "detach", "expand", "expand_as", "flatten", "movedim", "narrow", "permute"),
        *("select", "slice", "split", "split_with_sizes", "squeeze", "t", "transpose", "unbind", "unflatten", "unsqueeze"),
        *("view", "view_as", "_unsafe_view", "_reshape_alias", "reshape", "reshape_as", "resolve_conj", "resolve_neg"),
        *("contiguous", "to"),
    )
)


class Trace(NamedTuple):
    """events: of the Chrome trace format. launches: kernels, copies and fills on CUDA, on a CPU what `calls` counts."""

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
    if device == "cuda":
        launches = sum(event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset") for event in events)
    else:
        launches = sum(calls(e) for e in profiler.events() if e.cpu_parent is None and e.device_type == DeviceType.CPU)
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


def calls(event: FunctionEvent) -> int:
    """Those that compute: of fastdraw's C++ library, and of operators of torch's with no other such call inside them."""
    return sum(map(calls, event.cpu_children)) or int(_computes(event.name))


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
        first = min(event["ts"] for event in timed)
        # Names of processes and threads: once.
        events += [event for event in trace_events if event.get("ph") == "M" and number == 0]
        for event in timed:
            # What ties a launch to its kernel must not tie it to another trace's.
            tied = {"id": event["id"] + number * 10_000_000} if isinstance(event.get("id"), int) else {}
            events.append({**event, "ts": event["ts"] - first + start, **tied})
        start += max(event["ts"] + event.get("dur", 0.0) for event in timed) - first + 100.0
    return {"displayTimeUnit": "ms", "traceEvents": events}


@contextmanager
def _cpp_calls_named() -> Iterator[None]:
    """Every call of the C++ library becomes a span of the trace: ctypes calls are not seen by torch's profiler."""
    found = [(module, name, getattr(module, name)) for module, name in ((cpu, "kernels"), (pieces, "functions"))]

    def named(original: Callable[..., Any]) -> Callable[..., Any]:
        def functions(*arguments: Any) -> Any:
            given = original(*arguments)
            return given and type(given)(*(_spanned(f"{CPP}{n}", f) for n, f in given._asdict().items()))

        return functions

    for module, name, original in found:
        setattr(module, name, named(original))
    try:
        yield
    finally:
        for module, name, original in found:
            setattr(module, name, original)


def _spanned(name: str, function: Callable[..., int]) -> Callable[..., int]:
    def call(*arguments: Any) -> int:
        with record_function(name):
            return function(*arguments)

    return call
