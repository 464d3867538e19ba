"""Which kernels a training step consists of, how often each runs and how long: by torch's profiler, and by ncu's counters.

    python -m benchmarks.kernels [PATH]          every kernel of a step at the paper's MNIST setting, by torch's profiler
    python -m benchmarks.kernels --ncu [PATH]    the same kernels' shares of the chip's rates, registers and occupancy, by ncu

Launched one by one from Python: no kernel waits inside another's time, as dependent launches in a graph would.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import shutil
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import checkout

checkout.activate()

import torch  # noqa: E402

from benchmarks.probe import CANNOT_RUN  # noqa: E402

#: ncu's names, and ours.
METRICS = {
    "gpu__time_duration.sum": "us",
    "sm__throughput.avg.pct_of_peak_sustained_elapsed": "SM %",
    "sm__inst_executed_pipe_tensor.avg.pct_of_peak_sustained_active": "tensor %",
    "lts__throughput.avg.pct_of_peak_sustained_elapsed": "L2 %",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed": "DRAM %",
    "sm__warps_active.avg.pct_of_peak_sustained_active": "warps %",
    "launch__registers_per_thread": "registers",
    "launch__occupancy_limit_shared_mem": "blocks by shared memory",
}
Table = dict[str, dict[str, float]]


def step(batch: int, glimpses: int, precision: str, device: str) -> Any:
    """A training step of fastdraw without the optimiser, warmed up."""
    import fastdraw
    from benchmarks.models import mnist
    from benchmarks.steps import PRECISIONS

    model = fastdraw.DRAW.from_config(mnist(glimpses)).to(device)
    x = torch.rand(batch, 1, 28, 28, device=device)
    noise = torch.randn(glimpses, batch, 100, device=device)
    autocast, products, _ = PRECISIONS[precision]
    torch.set_float32_matmul_precision(products)

    def run() -> None:
        with torch.autocast(device, autocast, enabled=autocast is not None):
            loss = model(x, noise).loss
        loss.backward()
        if device == "cuda":
            torch.cuda.synchronize()

    for _ in range(2):
        run()
    return run


def profiled(run: Any, device: str) -> Table:
    """Calls, microseconds of one call at the median, and of all together, by the kernel's name; the longest first."""
    from torch.profiler import ProfilerActivity, profile

    activity = ProfilerActivity.CUDA if device == "cuda" else ProfilerActivity.CPU
    with profile(activities=[activity]) as profiler:
        run()
    times = defaultdict(list)
    for event in profiler.events():
        # On a CPU operators stand for kernels, so that this can be tried there.
        micros = event.device_time if device == "cuda" else event.cpu_time
        if micros:
            times[event.name].append(float(micros))
    return collected(times)


def collected(times: Mapping[str, list[float]]) -> Table:
    table = {name: {"calls": len(each), "us": statistics.median(each), "us in all": sum(each)} for name, each in times.items()}
    return dict(sorted(table.items(), key=lambda item: -item[1]["us in all"]))


def lines(table: Table, most: int = 20) -> list[str]:
    names = list(next(iter(table.values()), {}))
    head = f"{'kernel':<44} " + "  ".join(f"{name:>10}" for name in names)
    rows = [
        f"{name[:44]:<44} " + "  ".join(f"{row.get(key, float('nan')):>10.4g}" for key in names)
        for name, row in list(table.items())[:most]
    ]
    return [head, *rows]


def whole(title: str, table: Table) -> str:
    """All kernels of a step together."""
    micros, calls = (sum(row[key] for row in table.values()) for key in ("us in all", "calls"))
    return f"{title}: {micros:.0f} us in {calls:.0f} kernels"


def counters(text: str) -> Table:
    """ncu's lines of `--csv --page raw`: the median of each metric by the kernel's name."""
    # Other programs' words come before the header.
    start = text.find('"ID"')
    if start < 0:
        return {}
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    rows = csv.DictReader(io.StringIO(text[start:]))
    units = next(rows, {})
    for row in rows:
        for metric, name in METRICS.items():
            try:
                value = float(row[metric].replace(",", ""))
            except (KeyError, ValueError, AttributeError):
                continue
            # Times come in whatever unit suits them.
            scale = {"nsecond": 1e-3, "ns": 1e-3, "usecond": 1.0, "us": 1.0, "msecond": 1e3, "ms": 1e3}
            found[row["Kernel Name"]][name].append(value * (scale.get(units.get(metric, ""), 1.0) if name == "us" else 1.0))
    return {
        kernel: {"calls": len(values.get("us", [])), **{name: statistics.median(v) for name, v in values.items()}}
        for kernel, values in found.items()
    }


def ncu(path: str | None) -> int:
    tool = shutil.which("ncu") or shutil.which("ncu", path="/usr/local/cuda/bin")
    if tool is None:
        print("ncu was not found")
        return CANNOT_RUN
    # The profiled step marks itself, so that its warm-up is not measured.
    command = [tool, "--clock-control", "none", "--profile-from-start", "off", "--target-processes", "all", "--csv"]
    command += ["--page", "raw", "--metrics", ",".join(METRICS), "--kernel-name-base", "function"]
    command += [sys.executable, "-m", "benchmarks.kernels", "--once"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=checkout.ROOT)
    table = counters(done.stdout)
    if not table:
        last = (done.stderr + done.stdout).strip().splitlines()[-3:] or ["no reason given"]
        print("ncu measured nothing: " + " / ".join(last))
        return CANNOT_RUN
    print(*lines(table), sep="\n")
    if path is not None:
        Path(path).write_text(json.dumps(table, indent=1))
    return 0


def once() -> None:
    """One step of two glimpses, between the marks that ncu waits for."""
    run = step(128, 2, "bfloat16", "cuda")
    torch.cuda.cudart().cudaProfilerStart()
    run()
    torch.cuda.cudart().cudaProfilerStop()


def main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Which kernels a training step consists of, and how long each takes.")
    parser.add_argument("path", nargs="?", help="a file for the figures, as JSON")
    parser.add_argument("--ncu", action="store_true", help="by ncu's counters")
    parser.add_argument("--once", action="store_true", help="one step, for ncu to watch")
    options = parser.parse_args(None if arguments is None else list(arguments))
    if options.once:
        once()
        return 0
    if options.ncu:
        return ncu(options.path)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found = {}
    for batch, precision in (
        ((128, "bfloat16"), (128, "float32"), (2048, "bfloat16")) if device == "cuda" else ((4, "float32"),)
    ):
        title = f"B={batch}, {precision}"
        found[title] = profiled(step(batch, 64 if device == "cuda" else 2, precision, device), device)
        print(title, *lines(found[title]), "", sep="\n")
    if options.path is not None:
        Path(options.path).write_text(json.dumps(found, indent=1))
    print("; ".join(whole(title, table) for title, table in found.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
