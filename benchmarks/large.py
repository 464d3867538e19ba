"""Glimpses of large images: a window that sees a part of the image, against the dense form, and against the image's size.

`python -m benchmarks.large` times one window on images from 64 to 4096 pixels a side and writes docs/large.png and
docs/large.json; `--out FOLDER` elsewhere. Needs matplotlib (the extra `bench`). The operators against their peers are in
`pytest --benchmark benchmarks/test_large.py`.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import checkout

checkout.activate()

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

import fastdraw  # noqa: E402
from benchmarks import environment  # noqa: E402
from benchmarks.cases import DEVICE, Case, operator_case  # noqa: E402
from fastdraw import reference  # noqa: E402
from fastdraw.profile import cost  # noqa: E402
from fastdraw.profile.timing import Variant  # noqa: E402

#: Pixels further from a filter than this many sigma count for nothing in float32.
REACH = 6.3


def window(batch: int, windows: int, side: int, size: int, span: float) -> Tensor:
    """params [B, K, 5], or [B, 5] of one window: `span` pixels wide, near the middle, sigma half the stride."""
    stride = span / (size - 1)
    params = torch.tensor([0.1, -0.07, 2 * math.log(stride / 2), math.log(span / (side - 1)), 0.2], dtype=torch.float64)
    return params.repeat(batch, windows, 1) if windows > 1 else params.repeat(batch, 1)


def large_case(
    b: int, c: int, side: int, n: int, fraction: float, *, image: bool = False, windows: int = 1, channels_last: bool = False
) -> Case:
    """image: whether the image wants a gradient too."""
    span = side * fraction
    sigma = span / (n - 1) / 2
    seen, band = (min(side, math.ceil(length + 2 * REACH * sigma)) for length in (span, 1))
    form = torch.channels_last if channels_last else torch.contiguous_format

    def make() -> list[Tensor]:
        images = torch.rand(b, c, side, side, dtype=torch.float64).to(memory_format=form)
        return [images, window(b, windows, side, n, span)]

    def least(e: int) -> cost.Cost:
        return cost.large_read(b, c, windows, n, seen, band, e, side * side if image else 0)

    case = operator_case(
        f"read {b}x{c}x{side}x{side}, N={n}, window {fraction:g}"
        + (f", {windows} windows" if windows > 1 else "")
        + (", channels last" if channels_last else ""),
        f"forward and backward, {'gradients to image and params' if image else 'gradient to params'}",
        least,
        lambda x, params: fastdraw.read(x, params, n),
        lambda x, params: reference.read(x, params, n),
        {},
        make,
        "float32",
        keep_wide=[1],
        constants=[] if image else [0],
    )
    if image:
        like = torch.empty(b, c, side, side, device=DEVICE)
        zeros = Variant("torch.zeros_like(image)", lambda _: [torch.zeros_like(like)], proven=False)
        case.variants.append(zeros)
    return case


def seconds(step: Callable[[], Any]) -> float:
    start = time.perf_counter()
    step()
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


#: Name, backend, whether the image wants a gradient, colour and line. The dense form is left out where it takes too long.
LINES = [
    ("dense in ATen, to params", "aten", False, "#777777", "o-"),
    ("fastdraw, to params", "auto", False, "#1f5fa8", "s-"),
    ("dense in ATen, to the image too", "aten", True, "#777777", "o--"),
    ("fastdraw, to the image too", "auto", True, "#1f5fa8", "s--"),
    ("torch.zeros_like(image)", None, True, "#2c8a4b", ":"),
]
SIDES = [64, 128, 256, 512, 1024, 2048, 4096]
#: A window of 48 x 48 pixels of which 12 x 12 samples are taken.
SPAN, SIZE = 48.0, 12


def measure() -> dict[str, Any]:
    found: dict[str, Any] = {"machine": environment.line(environment.describe()), "times": {}}
    for side in SIDES:
        params = window(1, 1, side, SIZE, SPAN).float().to(DEVICE).requires_grad_()
        image = torch.rand(1, 3, side, side, device=DEVICE)

        def step(backend: str | None, wanted: bool, image: Tensor = image, params: Tensor = params) -> None:
            if backend is None:
                torch.zeros_like(image)
                return
            with fastdraw.backend(backend):
                source = image.requires_grad_(wanted)
                torch.autograd.grad(fastdraw.read(source, params, SIZE).sum(), [source, params] if wanted else [params])

        steps = {name: partial(step, backend, wanted) for name, backend, wanted, *_ in LINES}
        turns = 5 if side > 1024 else 15
        for run in steps.values():
            seconds(run)
        taken = [{name: seconds(run) for name, run in steps.items()} for _ in range(turns)]
        found["times"][str(side)] = {name: statistics.median(turn[name] for turn in taken) for name in steps}
        print(side, {name: f"{1e3 * t:.3g} ms" for name, t in found["times"][str(side)].items()}, flush=True)
    return found


def plot(found: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for name, _, _, colour, line in LINES:
        axes.loglog(SIDES, [1e3 * found["times"][str(side)][name] for side in SIDES], line, color=colour, label=name)
    axes.set_xlabel("side of the image, pixels")
    axes.set_ylabel("forward and backward, ms")
    axes.set_xticks(SIDES, map(str, SIDES))
    axes.minorticks_off()
    axes.set_title(f"One {SIZE} x {SIZE} glimpse of {SPAN:.0f} x {SPAN:.0f} pixels, 3 channels", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time of a glimpse against the size of its image.")
    parser.add_argument("--out", type=Path, default=checkout.ROOT / "docs", help="folder for large.png and large.json")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    found = measure()
    (out / "large.json").write_text(json.dumps(found, indent=1) + "\n")
    plot(found, out / "large.png")


if __name__ == "__main__":
    main()
