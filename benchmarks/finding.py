"""Finding an object by the gradient to a crop's place:  python -m benchmarks.finding [--picture PATH]

No times: these figures are the same on every machine, and take seconds. An object, a disc of fine grain, lies on noise whose
amplitude falls as 1 / f, in an image of 512 x 512. A box of 128 x 128 pixels is cropped to 16 x 16; 24 to 40 pixels away from
the object, in 64 directions, Adam starts to move it so that its patch becomes that of the box around the object, of the same
method. After each step: the median distance, in pixels, and the median of the loss, as a share of its first value. `found` is
the share of starts that end within a pixel.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.aliasing import BOX, SIDE, SIZE, Crop, boxes_at, methods, texture

STEPS, RATE = 150, 1.0
METHODS = "grid_sample", "grid_sample, 2 x 2 points", "grid_sample, 8 x 8 points", "fastdraw.crop"


class Curve(NamedTuple):
    distance: list[float]
    loss: list[float]
    found: float


def scene() -> tuple[Tensor, Tensor]:
    """An image [1, 1, SIDE, SIDE], and the upper left corner [2] of the box around its object."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    corner = torch.tensor([190.3, 201.6])
    away = ((x - corner[0] - BOX / 2) ** 2 + (y - corner[1] - BOX / 2) ** 2).sqrt()
    grain = torch.randn(SIDE, SIDE, generator=generator) + 1.0
    return texture(generator) / 4 + torch.where(away < 32, grain, torch.zeros(())), corner


def descend(crop: Crop, count: int = 64) -> Curve:
    image, corner = scene()
    images = image.expand(count, -1, -1, -1)
    target = crop(image, boxes_at(corner[None]), SIZE)
    angle = torch.arange(count) * (2 * math.pi / count)
    radius = 24 + 16 * torch.rand(count, generator=torch.Generator().manual_seed(1))
    places = (corner + radius[:, None] * torch.stack([angle.cos(), angle.sin()], 1)).requires_grad_()
    optimizer = torch.optim.Adam([places], lr=RATE)
    distances, losses = [], []
    for step in range(STEPS + 1):
        # Less and less, so that the end is not the optimizer's own trembling.
        optimizer.param_groups[0]["lr"] = RATE * (1 - step / (STEPS + 1))
        optimizer.zero_grad()
        loss = (crop(images, boxes_at(places), SIZE) - target).square().mean((1, 2, 3))
        distances.append((places.detach() - corner).norm(dim=1))
        losses.append(loss.detach())
        loss.sum().backward()
        optimizer.step()
    shares = [float((loss / losses[0]).median()) for loss in losses]
    return Curve([float(d.median()) for d in distances], shares, float((distances[-1] < 1).float().mean()))


def picture(curves: dict[str, Curve], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, curve in curves.items():
        left.plot(curve.loss, label=name)
        right.plot(curve.distance, label=name)
    left.set(yscale="log", ylim=(1e-6, 3), xlabel="step of Adam", ylabel="loss, as a share of the first")
    right.set(xlabel="step of Adam", ylabel="pixels from the object")
    right.legend(fontsize=7)
    figure.savefig(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", type=Path, help="draw the curves into this PNG; needs matplotlib")
    arguments = parser.parse_args()
    curves = {name: descend(methods()[name]) for name in METHODS}
    print("| | found | pixels away at the end | loss at the end, of the first |\n|---|---|---|---|")
    for name, curve in curves.items():
        print(f"| {name} | {100 * curve.found:.0f} % | {curve.distance[-1]:.2g} | {curve.loss[-1]:.2g} |")
    if arguments.picture is not None:
        picture(curves, arguments.picture)
