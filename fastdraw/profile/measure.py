"""The measuring of a case: its least time by the measured ceilings, its variants in turns, one step of each traced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch

from fastdraw.profile import ceilings, machine, peers
from fastdraw.profile.cases import Case
from fastdraw.profile.cost import Cost
from fastdraw.profile.figures import Row, row
from fastdraw.profile.timing import Runner, runner, take_turns, turns_in
from fastdraw.profile.trace import Event, trace

#: Turns of a variant, at least.
LEAST_TURNS = 3

#: A case's figures as JSON holds them.
Result = dict[str, Any]
Turns = Callable[[Sequence[Runner]], dict[str, list[float]]]


def roof(cost: Cost, device: str, precision: str) -> Result:
    """The least cost, and the least time that the ceilings allow it, measured here."""
    floor, by = ceilings.floor(cost, device, precision)
    threads = (torch.get_num_threads(), 1) if device == "cpu" else ()
    peak, one = [ceilings.peak_rate(precision, count) for count in threads] or (None, None)
    return {
        **asdict(cost),
        "copy_bytes_per_second": ceilings.copy_rate(device, cost.bytes if device == "cpu" else ceilings.LARGE),
        "operations_per_second": ceilings.compute_rate(device, precision),
        "torch_product_per_second": ceilings.product_rate(device, precision),
        "multiply_adds_per_second": peak,
        "multiply_adds_of_a_thread": one,
        "floor": floor,
        "floor_by": by,
    }


def measured(case: Case, turns: Turns, failures: dict[str, Exception]) -> Result:
    """The case's figures, a row for each variant in their order. Those among `failures` are not measured; others that cannot
    run are added to it."""
    runners: list[Runner] = []
    for variant in case.variants:
        if variant.name not in failures:
            try:
                runners.append(runner(variant, case.sets, case.device))
            except Exception as error:
                failures[variant.name] = error
    others = machine.Others()
    times = turns(runners) if runners else {}
    busy = others.cores()
    found: Result = {
        "title": case.title,
        "measured": case.measured,
        "dtype": case.precision,
        "device": case.device,
        "batch": case.batch,
        "glimpses": case.glimpses,
        "product_operations": case.product_operations,
        "rotated_bytes": case.sets * case.input_bytes,
        **roof(case.cost, case.device, case.precision),
        "others_busy": busy,
    }
    ready = {r.name: row(r.name, times[r.name], r.eager(), r.note) for r in runners}
    failed = {name: row(name, [], note=reason(error)) for name, error in failures.items()}
    found["rows"] = [(ready | failed)[variant.name] for variant in case.variants]
    _add_what_the_variants_say(found["rows"], case)
    for r in found["rows"]:
        r |= rates(found, r["median"])
    return found


def rates(result: Result, seconds: float | None) -> dict[str, float | None]:
    """What a time means: per second, of the least bytes and operations; the share of the roof; the time of a glimpse."""
    per_second = {name: result[name] for name in ("bytes", "operations")} | {"images": result["batch"]}
    found = {f"{name}_per_second": seconds and number and number / seconds for name, number in per_second.items()}
    return found | {
        "share": seconds and result["floor"] / seconds,
        "seconds_per_glimpse": seconds and seconds / (result["glimpses"] or 1),
    }


def _add_what_the_variants_say(rows: list[Row], case: Case) -> None:
    """Seconds that a first call took beyond a later one, where it compiles; the time of the matrix products alone divided by
    the whole, for variants of the same dtype; why results are others."""
    variants = {variant.name: variant for variant in case.variants}
    alone = {variants[r["name"]].dtype: r["median"] for r in rows if variants[r["name"]].products}
    for r in rows:
        variant, median = variants[r["name"]], r["median"]
        first = getattr(variant.step, "first_seconds", None)
        products = None if variant.products else alone.get(variant.dtype or case.dtype)
        r["compile"] = first - median if first and median else None
        r["products"] = products / median if products and median else None
        r["approximate"] = variant.approximate


def profile(case: Case, seconds: float) -> tuple[Result, list[list[Event]]]:
    """As `measured`, with about `seconds` of turns for each variant; beside it launches, memory, how far results differ; and
    the variants' traces. fastdraw's own errors are raised; a peer that fails gets a row that says why."""
    failures: dict[str, Exception] = {}
    found = measured(case, lambda runners: take_turns(runners, turns_in(seconds, runners, LEAST_TURNS)), failures)
    traces = []
    own: Any = None
    for variant, r in zip(case.variants, found["rows"], strict=True):
        r |= {"launches": None, "peak_bytes": None, "difference": None}
        try:
            if variant.name in failures:
                raise failures[variant.name]
            traced = trace(variant, f"{case.title}: {variant.name}", case.device)
            traces.append(traced.events)
            results = variant.step(0)
        except Exception as error:
            if variant.backend is not None:
                raise
            r["note"] = reason(error)
            continue
        r["launches"] = traced.launches if variant.calls_seen else None
        r["peak_bytes"] = traced.peak_bytes if variant.memory_seen else None
        if own is None:
            own = results
        elif len(results) == len(own):
            r["difference"] = peers.difference(results, own)
    return found, traces


def reason(error: Exception) -> str:
    """One line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:160]
