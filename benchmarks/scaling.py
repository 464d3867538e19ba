"""How the cost of a training step grows with batch, glimpses, hidden size, image and patch, and that of one glimpse with the
image: figures and log-log plots.

`python -m benchmarks.scaling` takes a few minutes and writes docs/scaling.png and docs/scaling.json: one size is changed at a
time, the others stay at those of BASE. `python -m benchmarks.scaling large` times one window on images from 64 to 4096 pixels
a side, for docs/large.png and docs/large.json. `--out FOLDER`: elsewhere. Needs matplotlib (the extra `bench`).
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import torch

import fastdraw
from benchmarks import checkout, environment, memory
from benchmarks.cases import DEVICE
from fastdraw import reference
from fastdraw.profile import machine, table
from fastdraw.profile.shapes import Glimpses
from fastdraw.profile.timing import HostRunner, Variant, take_turns, turns_in

#: The paper's MNIST model with a quarter of its glimpses and read and write alike.
BASE = {"batch": 64, "glimpses": 16, "hidden": 256, "side": 28, "patch": 5}
SWEEPS: dict[str, tuple[str, list[int]]] = {
    "batch": ("batch B", [1, 4, 16, 64, 256]),
    "glimpses": ("glimpses T", [1, 4, 16, 64, 256]),
    "hidden": ("hidden units h", [32, 64, 128, 256, 512, 1024]),
    "side": ("image side, pixels", [14, 28, 56, 112, 224]),
    "patch": ("filters along a side N", [1, 2, 5, 12, 24]),
}
#: Name, kind of model, bfloat16 autocast, canvas_memory, colour and line.
VARIANTS = [
    ("reference", "reference", False, "keep", "#777777", "o-"),
    ("fastdraw, float32", "fastdraw", False, "keep", "#1f5fa8", "s-"),
    ("fastdraw, bfloat16", "fastdraw", True, "keep", "#c8501e", "^-"),
    ("fastdraw, bfloat16, rebuild", "fastdraw", True, "rebuild", "#2c8a4b", "v--"),
]
#: Glimpses at which peak memory is measured, each in a process of its own, at the paper's MNIST sizes.
MEMORY_GLIMPSES = [8, 16, 32, 64]
#: Seconds that a variant's turns at one size take at least, and turns that there are at least and at most.
_SECONDS, _FEWEST, _MOST = 0.5, 3, 15
#: How often a size is measured while other programs disturb it.
_TRIES = 4
#: Of a glimpse: name, backend, whether the image wants a gradient, colour and line.
LARGE = [
    ("dense in ATen, to params", "aten", False, "#777777", "o-"),
    ("fastdraw, to params", "auto", False, "#1f5fa8", "s-"),
    ("dense in ATen, to the image too", "aten", True, "#777777", "o--"),
    ("fastdraw, to the image too", "auto", True, "#1f5fa8", "s--"),
    ("torch.zeros_like(image)", None, None, "#2c8a4b", ":"),
]
SIDES = [64, 128, 256, 512, 1024, 2048, 4096]
#: A window of 48 x 48 pixels of which 12 x 12 samples are taken.
SPAN, SIZE = 48.0, 12


def steps(sizes: dict[str, int]) -> list[Variant]:
    """A training step, without the optimiser, of each variant for which a time is plotted."""
    torch.manual_seed(0)
    arguments: dict[str, Any] = {
        "image_shape": (1, sizes["side"], sizes["side"]),
        "glimpses": sizes["glimpses"],
        "hidden_size": sizes["hidden"],
        "read_size": sizes["patch"],
        "write_size": sizes["patch"],
    }
    x = torch.rand(sizes["batch"], *arguments["image_shape"], device=DEVICE)
    noise = torch.randn(sizes["glimpses"], sizes["batch"], 100, device=DEVICE)
    found = []
    for name, kind, autocast, canvas_memory, *_ in VARIANTS:
        if canvas_memory == "rebuild":
            continue
        model = (fastdraw.DRAW if kind == "fastdraw" else reference.DRAW)(**arguments).to(DEVICE)

        def step(_: int, model: reference.DRAW = model, autocast: bool = autocast) -> list[torch.Tensor]:
            with torch.autocast(DEVICE, torch.bfloat16, enabled=autocast):
                loss = model(x, noise).loss
            return list(torch.autograd.grad(loss, list(model.parameters())))

        found.append(Variant(name, step))
    return found


def times(sizes: dict[str, int]) -> dict[str, float]:
    """Medians in seconds; the variants' turns alternate."""
    runners = [HostRunner(variant, 1, DEVICE) for variant in steps(sizes)]
    taken = take_turns(runners, min(_MOST, turns_in(_SECONDS, runners, _FEWEST)))
    return {name: statistics.median(figures) for name, figures in taken.items()}


def undisturbed(sizes: dict[str, int]) -> tuple[dict[str, float], float]:
    """`times`, and the cores that other programs kept busy meanwhile: the least disturbed of a few tries."""
    best: tuple[dict[str, float], float] | None = None
    for _ in range(_TRIES):
        others = machine.Others()
        figures = times(sizes)
        busy = others.cores() or 0.0
        if best is None or busy < best[1]:
            best = figures, busy
        if busy <= table.BUSY:
            break
    assert best is not None
    return best


def measure() -> dict[str, Any]:
    """{"times": {sweep: {size: {variant: seconds}}}, "memory": {glimpses: {variant: bytes}}, ...}."""
    found: dict[str, Any] = {
        "machine": environment.line(environment.describe()),
        "base": BASE,
        "others busy": 0.0,
        "times": {},
    }
    for name, (_, values) in SWEEPS.items():
        found["times"][name] = {}
        for value in values:
            figures, others_busy = undisturbed({**BASE, name: value})
            found["times"][name][str(value)] = figures
            found["others busy"] = max(found["others busy"], others_busy)
            shown = {key: f"{1e3 * figure:.3g} ms" for key, figure in figures.items()}
            print(name, value, shown, f"others: {others_busy:.2f} cores", flush=True)
    if memory.unavailable() is None:
        found["memory"] = {}
        for glimpses in MEMORY_GLIMPSES:
            found["memory"][str(glimpses)] = added = {
                name: statistics.median(memory.peaks("MNIST", glimpses, *rest[:3])) for name, *rest in VARIANTS
            }
            print("memory", glimpses, {key: f"{figure / 2**20:.0f} MiB" for key, figure in added.items()}, flush=True)
    return found


def plot(found: dict[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator
    from PIL import Image

    figure = Figure(figsize=(11, 6.6), layout="constrained")
    axes = figure.subplots(2, 3)
    panels = [(SWEEPS[name][0], found["times"][name], "ms per training step", 1e3, BASE[name]) for name in found["times"]]
    if "memory" in found:
        panels.append(("glimpses T, at B = 128, h = 256, 28 x 28", found["memory"], "MiB added at the peak", 2.0**-20, None))
    for axis, (label, data, unit, scale, base) in zip(axes.flat, panels, strict=False):
        sizes = [int(size) for size in data]
        for name, _, _, _, colour, line in VARIANTS:
            values = [scale * data[str(size)][name] for size in sizes if name in data[str(size)]]
            if values:
                axis.loglog(sizes, values, line, color=colour, label=name, markersize=4, linewidth=1.4)
        # In proportion to the size, through the reference's last figure.
        last = scale * data[str(sizes[-1])]["reference"]
        axis.loglog(sizes, [last * size / sizes[-1] for size in sizes], ":", color="#bbbbbb", linewidth=1, label="slope 1")
        lowest = min(scale * figure for row in data.values() for figure in row.values())
        axis.set_ylim(bottom=0.6 * lowest)
        axis.set_xticks(sizes, [str(size) for size in sizes])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xlabel(label + ("" if base is None else f"  (elsewhere {base})"))
        axis.set_ylabel(unit)
        axis.grid(True, which="major", color="#eeeeee")
    axes.flat[0].legend(fontsize=8, frameon=False)
    if "memory" in found:
        axes.flat[5].legend(fontsize=8, frameon=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    # A few colours are enough, and make the file a third as large.
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=100)
    Image.open(drawn).convert("RGB").quantize(48).save(path, optimize=True)


def glimpses(side: int) -> list[Variant]:
    """One glimpse of an image of that side, in each of the ways of LARGE."""
    shape = Glimpses("read", 1, 3, side, side, SIZE, SPAN / (side - 1))
    params = shape.params().float().to(DEVICE).requires_grad_()
    image = torch.rand(1, 3, side, side, device=DEVICE)

    def step(wanted: bool | None, _: int) -> list[torch.Tensor]:
        if wanted is None:
            return [torch.zeros_like(image)]
        source = image.requires_grad_(wanted)
        return list(torch.autograd.grad(fastdraw.read(source, params, SIZE).sum(), [source, params] if wanted else [params]))

    return [Variant(name, partial(step, wanted), backend) for name, backend, wanted, *_ in LARGE]


def measure_large() -> dict[str, Any]:
    """{"machine": ..., "times": {side: {variant: seconds}}}."""
    found: dict[str, Any] = {"machine": environment.line(environment.describe()), "times": {}}
    for side in SIDES:
        taken = take_turns([HostRunner(variant, 1, DEVICE) for variant in glimpses(side)], 5 if side > 1024 else 15)
        found["times"][str(side)] = {name: statistics.median(each) for name, each in taken.items()}
        print(side, {name: f"{1e3 * t:.3g} ms" for name, t in found["times"][str(side)].items()}, flush=True)
    return found


def plot_large(found: dict[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name, _, _, colour, line in LARGE:
        axes.loglog(SIDES, [1e3 * found["times"][str(side)][name] for side in SIDES], line, color=colour, label=name)
    axes.set(xlabel="side of the image, pixels", ylabel="forward and backward, ms")
    axes.set_xticks(SIDES, map(str, SIDES))
    axes.minorticks_off()
    axes.set_title(f"One {SIZE} x {SIZE} glimpse of {SPAN:.0f} x {SPAN:.0f} pixels, 3 channels", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("what", nargs="?", choices=["scaling", "large"], default="scaling", help="which; default: scaling")
    parser.add_argument(
        "--out", type=checkout.folder, default=checkout.ROOT / "docs", help="folder for WHAT.png and WHAT.json"
    )
    parser.add_argument("--plot-only", action="store_true", help="draw the figures that are there")
    options = parser.parse_args()
    file = options.out / f"{options.what}.json"
    options.out.mkdir(parents=True, exist_ok=True)
    if not options.plot_only:
        environment.warn()
        file.write_text(json.dumps(measure() if options.what == "scaling" else measure_large(), indent=1) + "\n")
    draw = plot if options.what == "scaling" else plot_large
    draw(json.loads(file.read_text()), file.with_suffix(".png"))


if __name__ == "__main__":
    main()
