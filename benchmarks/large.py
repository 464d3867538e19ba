"""The time of a glimpse against the size of its image.

`python -m benchmarks.large` times one window on images from 64 to 4096 pixels a side and writes docs/large.png and
docs/large.json; `--out FOLDER` elsewhere. Needs matplotlib (the extra `bench`). The operators against their peers are in
`pytest --benchmark benchmarks/test_large.py`.
"""

from __future__ import annotations

import argparse
import json
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fastdraw
from benchmarks import checkout, environment
from benchmarks.cases import DEVICE
from fastdraw.profile.shapes import Glimpses
from fastdraw.profile.timing import HostRunner, Variant, take_turns

#: Name, backend, whether the image wants a gradient, colour and line. The dense form is left out where it takes too long.
LINES = [
    ("dense in ATen, to params", "aten", False, "#777777", "o-"),
    ("fastdraw, to params", "auto", False, "#1f5fa8", "s-"),
    ("dense in ATen, to the image too", "aten", True, "#777777", "o--"),
    ("fastdraw, to the image too", "auto", True, "#1f5fa8", "s--"),
    ("torch.zeros_like(image)", None, None, "#2c8a4b", ":"),
]
SIDES = [64, 128, 256, 512, 1024, 2048, 4096]
#: A window of 48 x 48 pixels of which 12 x 12 samples are taken.
SPAN, SIZE = 48.0, 12


def variants(side: int) -> list[Variant]:
    shape = Glimpses("read", 1, 3, side, side, SIZE, SPAN / (side - 1))
    params = shape.params().float().to(DEVICE).requires_grad_()
    image = torch.rand(1, 3, side, side, device=DEVICE)

    def step(wanted: bool | None, _: int) -> list[Tensor]:
        if wanted is None:
            return [torch.zeros_like(image)]
        source = image.requires_grad_(wanted)
        return list(torch.autograd.grad(fastdraw.read(source, params, SIZE).sum(), [source, params] if wanted else [params]))

    return [Variant(name, partial(step, wanted), backend) for name, backend, wanted, *_ in LINES]


def measure() -> dict[str, Any]:
    found: dict[str, Any] = {"machine": environment.line(environment.describe()), "times": {}}
    for side in SIDES:
        taken = take_turns([HostRunner(variant, 1, DEVICE) for variant in variants(side)], 5 if side > 1024 else 15)
        found["times"][str(side)] = {name: statistics.median(each) for name, each in taken.items()}
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
    parser.add_argument(
        "--out", type=checkout.folder, default=checkout.ROOT / "docs", help="folder for large.png and large.json"
    )
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    environment.warn()
    found = measure()
    (out / "large.json").write_text(json.dumps(found, indent=1) + "\n")
    plot(found, out / "large.png")


if __name__ == "__main__":
    main()
