"""Which kernels a training step consists of, how often each runs and how long: by torch's profiler.

    python -m benchmarks.gpu.kernels [PATH]    every kernel of a step at the paper's MNIST setting, B = 128 and 2048, bfloat16

Launched one by one from Python: no kernel waits inside another's time, as dependent launches in a graph would.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from benchmarks import checkout

Table = dict[str, dict[str, float]]


def step(batch: int, glimpses: int, precision: str, device: str) -> Any:
    """A training step of fastdraw without the optimiser, warmed up."""
    import fastdraw
    from benchmarks.cases.models import mnist
    from benchmarks.cases.steps import PRECISIONS

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
    wanted = torch.autograd.DeviceType.CUDA if device == "cuda" else torch.autograd.DeviceType.CPU
    for event in profiler.events():
        # What launches kernels has their time as well. On a CPU operators stand for kernels, so that this can be tried there.
        if event.device_type != wanted:
            continue
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


def main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python3 -m benchmarks.gpu.kernels",
        description="Which kernels a training step consists of, and how long each takes.",
    )
    parser.add_argument(
        "path", nargs="?", type=checkout.folder, help="a file that each case is appended to, as a line of JSON"
    )
    parser.add_argument("--tiny", action="store_true", help="sizes that a CPU carries")
    options = parser.parse_args(None if arguments is None else list(arguments))
    device, found = "cuda" if torch.cuda.is_available() else "cpu", {}
    for batch, precision in ((4, "float32"),) if options.tiny else ((128, "bfloat16"), (2048, "bfloat16")):
        title = f"B={batch}, {precision}"
        found[title] = profiled(step(batch, 2 if options.tiny else 64, precision, device), device)
        print(title, *lines(found[title]), "", sep="\n", flush=True)
        if options.path is not None:
            with options.path.open("a") as file:
                file.write(json.dumps({"case": title, "kernels": found[title]}) + "\n")
    print("; ".join(whole(title, table) for title, table in found.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
