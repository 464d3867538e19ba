"""README's plot: a training step at the paper's MNIST setting, by fastdraw and by other ways to compute it.

    pytest --benchmark -k "test_training_step and not whole" --benchmark-log=figures.jsonl
    python -m benchmarks.plot figures.jsonl      keeps that run's figures in docs/step.json, and draws docs/step.png
    python -m benchmarks.plot                    draws the figures that are there

Needs matplotlib (the extra `bench`).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks import checkout

TITLE = "DRAW MNIST 128, T=64"
#: The benchmark's names, from top to bottom: what the plot calls them, and the bar's colour.
BARS = {
    "reference": ("PyTorch, eager", "#8a8a8a"),
    "jax.jit of lax.scan": ("JAX, jit of lax.scan", "#8a8a8a"),
    "torch.compile, a glimpse": ("torch.compile, a glimpse", "#8a8a8a"),
    "fastdraw native": ("fastdraw, float32", "#1f5fa8"),
    "fastdraw native, bfloat16": ("fastdraw, bfloat16", "#c8501e"),
}


def kept(log: Path) -> dict[str, Any]:
    """What is plotted of a file that `--benchmark-log` wrote. Raises ValueError where it has no such case, or several."""
    logged = [json.loads(line) for line in log.read_text().splitlines()]
    steps = [result for result in logged if result["title"] == TITLE]
    if len(steps) != 1:
        raise ValueError(f"{log}: expected one case {TITLE!r}, got {len(steps)}")
    times = {row["name"]: 1e3 * row["median"] for row in steps[0]["rows"] if row["median"]}
    return {
        "machine": steps[0]["machine"],
        "milliseconds": {name: round(times[name], 1) for name in BARS if name in times},
    }


def plot(figures: dict[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure

    times = {name: time for name, time in figures["milliseconds"].items() if name in BARS}
    figure = Figure(figsize=(8, 0.45 * len(times) + 0.9), layout="constrained")
    axes = figure.add_subplot()
    names, colours = zip(*(BARS[name] for name in times), strict=True)
    bars = axes.barh(names, list(times.values()), color=colours, height=0.68)
    base = times["reference"]
    axes.bar_label(bars, [f"{time:.0f} ms, {base / time:.1f}x" for time in times.values()], padding=4)
    axes.invert_yaxis()
    axes.set(
        xlim=(0, 1.2 * max(times.values())),
        xlabel="ms for 128 images and 64 glimpses, forward and backward; shorter is better",
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.savefig(path, dpi=110)


def main(arguments: list[str] | None = None) -> None:
    about, *_ = (__doc__ or "").split("\n\n")
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plot", description=about)
    parser.add_argument("log", nargs="?", type=checkout.folder, help="what --benchmark-log wrote; default: the figures kept")
    parser.add_argument("--out", type=checkout.folder, default=checkout.ROOT / "docs", help="folder of step.json and step.png")
    said = parser.parse_args(arguments)
    file = said.out / "step.json"
    if said.log is not None:
        file.write_text(json.dumps(kept(said.log), indent=1) + "\n")
    plot(json.loads(file.read_text()), file.with_suffix(".png"))


if __name__ == "__main__":
    main()
