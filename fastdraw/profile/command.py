"""What `fastdraw profile` does."""

from __future__ import annotations

import datetime
import json
import sys
from pathlib import Path
from typing import Any

from fastdraw import dispatch
from fastdraw.checks import expected
from fastdraw.files import check_writable, write_in
from fastdraw.profile import compare, machine, roofline, shapes, table
from fastdraw.profile.cases import DTYPES, PEERS, STANDARD_PEERS, case, resolved
from fastdraw.profile.measure import Result, profile, roof
from fastdraw.profile.options import Options
from fastdraw.profile.shapes import Shape
from fastdraw.profile.trace import Event, merged
from fastdraw.runs.device import find_device


def run(options: Options) -> int:
    """Measures, prints and writes; 1 where --fail-slower was said and something got slower, otherwise 0.

    Raises ValueError or OSError for what a user can mend, before anything is measured.
    """
    from rich.console import Console

    old = None if options.compare is None else compare.load(options.compare)
    chosen, device, peers = _checked(options)
    if options.fail_slower and old is None:
        raise expected("fail_slower", "--compare with it", "none")
    _check_files(options)
    console = Console()
    if not console.is_terminal:
        # A file or a pipe has no width; rich would take 80.
        console.width = max(console.width, table.WIDTH)
    busy = f"{machine.BUSY:.1f} programs were busy before. " if machine.BUSY > 0.5 else ""
    found = machine.describe()
    itemsize = DTYPES[options.dtype].itemsize
    # The ceilings of all cases come first: they are measured on a machine that nothing has warmed up or filled.
    roofs = [roof(shape.cost(itemsize), device, options.dtype) | {"dtype": options.dtype} for shape in chosen]
    report: dict[str, Any] = {
        "fastdraw profile": compare.VERSION,
        "when": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": sys.argv,
        "machine": found,
        "about": f"{busy}{machine.line(found)}",
        "seconds": options.seconds,
        "cases": [],
    }
    table.show_head(console, report["about"], roofs)
    traces: list[list[Event]] = []
    for shape in chosen:
        result, events = _measured(shape, options, device, peers)
        report["cases"].append(result)
        # They are large, and wanted by few.
        traces += events if options.trace is not None else []
        table.show_case(console, result)
    console.print(table.explain(device), style="dim", highlight=False)
    for path in _written(options, report, traces):
        console.print(f"wrote {path}", highlight=False, markup=False, soft_wrap=True)
    if old is None:
        return 0
    changes = compare.changes(old, report)
    console.print()
    compare.show(console, changes, old, report, str(options.compare))
    return int(options.fail_slower and any(c.own and c.verdict == "slower" for c in changes))


def _measured(shape: Shape, options: Options, device: str, peers: tuple[str, ...]) -> tuple[Result, list[list[Event]]]:
    try:
        made = case(shape, options.dtype, device, [resolved(options.backend, device)], peers)
        result, events = profile(made, options.seconds)
    except (RuntimeError, MemoryError) as error:
        if "memory" not in str(error):
            raise
        raise expected("shape", "one that fits into memory", f"{shape.operator} {shape.text}") from None
    about = {"operator": shape.operator, "shape": shape.text, "backend": options.backend, "glimpses": shape.glimpses}
    return result | about, events


def _written(options: Options, report: dict[str, Any], traces: list[list[Event]]) -> list[Path]:
    """The files that were asked for."""
    if options.json is not None:
        write_in(options.json, (json.dumps(report, indent=1) + "\n").encode())
    if options.plot is not None:
        options.plot.absolute().parent.mkdir(parents=True, exist_ok=True)
        roofline.save(report, options.plot)
    if options.trace is not None:
        write_in(options.trace, json.dumps(merged(traces)).encode())
    return [path for path in (options.json, options.plot, options.trace) if path is not None]


def _checked(options: Options) -> tuple[list[Shape], str, tuple[str, ...]]:
    """What is measured, where, and beside whom."""
    if options.dtype not in table.SAME:
        raise expected("dtype", f"one of {', '.join(table.SAME)}", options.dtype)
    device = find_device(options.device).type
    if not 0 < options.seconds < 3600:
        raise expected("seconds", "a number above 0 and below 3600", options.seconds)
    _check_backend(options.backend, device)
    peers = _peers(options.peers)
    return shapes.chosen(options.operators or [], options.shape or [], options.of_shape), device, peers


def _check_backend(name: str, device: str) -> None:
    names = ("auto", *dispatch.backends())
    if name not in names:
        raise expected("backend", f"one of {', '.join(names)}", name)
    reason = dispatch.backends().get(name)
    if reason is None and name == {"cuda": "native", "cpu": "triton"}[device]:
        reason = f"its tensors do not live on the device {device}"
    if reason is not None:
        raise ValueError(f"backend: expected one that runs here, got {name}: {reason}")


def _peers(text: str) -> tuple[str, ...]:
    if text in ("all", "standard", "none"):
        return {"all": PEERS, "standard": STANDARD_PEERS, "none": ()}[text]
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in PEERS:
            raise expected("peers", f"standard, all, none, or some of {', '.join(PEERS)}", name)
    return names


def _check_files(options: Options) -> None:
    """Files that cannot be written are better found before the measuring than after it."""
    for name, path, suffix in (
        ("json", options.json, ".json"),
        ("plot", options.plot, ".png"),
        ("trace", options.trace, ".json"),
    ):
        if path is None:
            continue
        if path.suffix.lower() != suffix:
            raise expected(name, f"a name that ends in {suffix}", str(path))
        check_writable(name, path)
