"""How the cost of a training step grows with batch, glimpses, hidden size, image and patch: figures and log-log plots.

`python -m benchmarks.scaling` takes a few minutes and writes docs/scaling.png and docs/scaling.json; `--out FOLDER` elsewhere.
One size is changed at a time, the others stay at those of BASE. Needs matplotlib (the extra `bench`).
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
from pathlib import Path
from typing import Any

import torch

import fastdraw
from benchmarks import checkout, environment, memory
from benchmarks.cases import DEVICE
from fastdraw import reference
from fastdraw.profile import machine, table
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
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import NullLocator
    from PIL import Image

    figure, axes = pyplot.subplots(2, 3, figsize=(11, 6.6), constrained_layout=True)
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
    pyplot.close(figure)
    Image.open(drawn).convert("RGB").quantize(48).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument(
        "--out", type=checkout.folder, default=checkout.ROOT / "docs", help="folder for scaling.png and scaling.json"
    )
    parser.add_argument("--plot-only", action="store_true", help="draw the figures that scaling.json holds")
    options = parser.parse_args()
    file = options.out / "scaling.json"
    options.out.mkdir(parents=True, exist_ok=True)
    if not options.plot_only:
        environment.warn()
        file.write_text(json.dumps(measure(), indent=1) + "\n")
    plot(json.loads(file.read_text()), options.out / "scaling.png")


if __name__ == "__main__":
    main()
