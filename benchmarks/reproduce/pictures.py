"""The pictures beside a report: the curves of all seeds, and what the first one draws, as the paper's figures 5 to 9 do."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from fastdraw.runs.run import Run
from fastdraw.view import gallery, picture, pictures
from fastdraw.view.attention import save_attention
from fastdraw.view.drawing import save_strip

#: Samples in a picture of samples, of those beside their nearest training images, and of those whose drawing is shown.
SAMPLES, PAIRS, DRAWN = 64, 24, 6


def draw(run: Run, folder: Path) -> list[Path]:
    """Writes PNGs of a finished seed's run into `folder`; gives their paths."""
    paths = [curve(folder)]
    if run.task == "classify":
        x, found, notes = gallery._attended(run, DRAWN)
        paths.append(folder / "attention.png")
        save_attention(x, found, paths[-1], run.config.read_size, notes)
        return paths
    paths += gallery.samples(run, folder, SAMPLES)
    paths.append(folder / "drawing.png")
    with torch.inference_mode():
        _, trajectory = pictures.draw_slowly(run.model, DRAWN, run.seed)
        save_strip(trajectory, paths[-1], write_size=run.config.write_size)
    for make, count in ((gallery.strip, DRAWN), (gallery.nearest_images, PAIRS), (gallery.kl, 1)):
        paths += make(run, folder, count)
    return paths


def curve(folder: Path) -> Path:
    """Nats (or error) by epoch: training as lines, validation as dots, a colour a seed; the axis leaves out the first fall."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6), dpi=110, layout="constrained")
    axes, low, high, name = figure.add_subplot(), [], [], "nats"
    for number, run in enumerate(sorted(folder.glob("seed-*"), key=lambda path: int(path.name.partition("-")[2]))):
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        per_epoch = _steps_per_epoch(run)
        name = "error" if "error" in lines[0] else "nats"
        for split, style in (("train", "-"), ("validation", "o")):
            points = [(line["step"] / per_epoch, line[name]) for line in lines if line["split"] == split]
            if points:
                label = f"{split}, seed {run.name.partition('-')[2]}"
                axes.plot(*zip(*points, strict=True), style, color=f"C{number}", lw=0.8, ms=3, label=label)
                values = [value for _, value in points]
                low.append(min(values))
                high.append(max(values[len(values) // 10 :]))
    if low and max(high) > min(low):
        margin = 0.05 * (max(high) - min(low))
        axes.set_ylim(min(low) - margin, max(high) + margin)
    axes.set(xlabel="epochs", ylabel="error, %" if name == "error" else "nats per image")
    axes.grid(alpha=0.25, lw=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    path = folder / "curve.png"
    picture.save(path, lambda file: figure.savefig(file, format="png"))
    return path


def _steps_per_epoch(run: Path) -> int:
    about = json.loads((run / "config.json").read_text())
    return max(1, about["images"]["train"] // about["options"]["batch_size"])
