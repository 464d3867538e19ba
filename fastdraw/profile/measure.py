"""The measuring: ceilings first, then each case's variants in turns, then one step of each under torch's profiler."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from fastdraw.profile import ceilings, machine, peers
from fastdraw.profile.cases import Case, Entry
from fastdraw.profile.figures import row
from fastdraw.profile.timing import Runner, runner
from fastdraw.profile.trace import Event, trace

#: Turns of a variant: at least, and at most however quick it is.
LEAST_TURNS, MOST_TURNS = 3, 60
#: Results of the same maths differ by rounding; beyond this share a variant computes something else.
SAME = {"float32": 1e-3, "bfloat16": 5e-2, "float16": 1e-2}

#: A case's figures as JSON holds them.
Result = dict[str, Any]


def roofs(cases: list[Case]) -> list[Result]:
    """Each case with its least cost and the least time that the ceilings allow it, measured here; nothing else is yet."""
    found = []
    for case in cases:
        least = case.cost
        floor, by = ceilings.floor(least, case.device, case.dtype)
        moved = least.bytes if case.device == "cpu" else ceilings.LARGE
        found.append(
            {
                "operator": case.operator,
                "shape": case.shape.text,
                "measured": case.measured,
                "dtype": case.dtype,
                "device": case.device,
                "backend": case.backend,
                "batch": case.shape.batch,
                "glimpses": case.glimpses,
                "bytes": least.bytes,
                "bytes_formula": least.bytes_formula,
                "operations": least.operations,
                "operations_formula": least.operations_formula,
                "copy_bytes_per_second": ceilings.copy_rate(case.device, moved),
                "operations_per_second": ceilings.product_rate(case.device, case.dtype),
                "floor": floor,
                "floor_by": by,
                "rows": [],
            }
        )
    return found


def measure(case: Case, result: Result, seconds: float) -> list[list[Event]]:
    """Fills in the rows of `result`: about `seconds` of turns for each variant. Gives the variants' traces.

    fastdraw's own errors are raised; a peer that fails gets a row that says why.
    """
    torch.manual_seed(0)
    entries, sets = case.entries()
    runners: list[Runner] = []
    failures: dict[str, str] = {}
    for entry in entries:
        ready = _try(entry, failures, runner, entry.variant, sets, case.device)
        runners += [] if ready is None else [ready]
    others = machine.Others()
    times = take_turns(runners, seconds)
    result["others_busy"] = others.cores()
    by_name = {r.name: r for r in runners}
    own = entries[0].variant.step(0)
    traces = []
    for entry in entries:
        name = entry.variant.name
        ran = by_name.get(name)
        figures = row(name, times.get(name, []), None if ran is None else ran.eager(), "" if ran is None else ran.note)
        figures |= {"approximate": entry.approximate, "launches": None, "peak_bytes": None, "difference": None}
        if ran is not None:
            traced = _try(entry, failures, trace, entry.variant, f"{case.title}: {name}", case.device)
            if traced is not None:
                traces.append(traced.events)
                figures["launches"] = traced.launches if entry.calls else None
                figures["peak_bytes"] = traced.peak_bytes if entry.memory else None
            if entry is not entries[0] and len(result_of := entry.variant.step(0)) == len(own):
                figures["difference"] = peers.difference(result_of, own)
        figures["note"] = failures.get(name, figures["note"])
        result["rows"].append(figures | rates(result, figures["median"]))
    return traces


def rates(result: Result, seconds: float | None) -> dict[str, float | None]:
    """What a time means: per second, of the least bytes and operations; and the share of the roof."""
    if seconds is None:
        names = ("images_per_second", "bytes_per_second", "operations_per_second", "share", "seconds_per_glimpse")
        return dict.fromkeys(names)
    return {
        "images_per_second": result["batch"] / seconds,
        "bytes_per_second": result["bytes"] / seconds,
        "operations_per_second": result["operations"] / seconds,
        "share": result["floor"] / seconds,
        "seconds_per_glimpse": seconds / result["glimpses"],
    }


def take_turns(runners: list[Runner], seconds: float) -> dict[str, list[float]]:
    """Seconds of one call by name, one figure a turn; turns alternate between the variants."""
    times: dict[str, list[float]] = {r.name: [] for r in runners}
    turns = math.ceil(seconds * len(runners) / max(sum(r.turn_seconds for r in runners), 1e-9))
    for _ in range(max(LEAST_TURNS, min(turns, MOST_TURNS))):
        for r in runners:
            times[r.name].append(r.turn())
    return times


def _try(entry: Entry, failures: dict[str, str], function: Callable[..., Any], *arguments: Any) -> Any:
    """What `function` gives for the arguments; None where a peer fails, with the reason among `failures`."""
    try:
        return function(*arguments)
    except Exception as error:
        if entry.variant.backend is not None:
            raise
        lines = str(error).strip().splitlines()
        failures[entry.variant.name] = f"{type(error).__name__}: {lines[0] if lines else ''}"[:160]
        return None
