"""The pictures of a run: samples from the prior, and how they are drawn. The same noise each time, so they can be compared."""

from __future__ import annotations

import math
import os
from pathlib import Path

import torch

from fastdraw import view
from fastdraw.model import DRAW
from fastdraw.train.files import temporary
from fastdraw.train.randomness import noise


@torch.inference_mode()
def samples(model: DRAW, count: int, seed: int, path: Path) -> None:
    """A grid of `count` samples from the prior, as PNG."""
    shape = (model.config.glimpses, count, model.config.latent_size)
    images = model.sample(count, noise(seed, "samples", 0, shape, model.initial_canvas.device))
    part = temporary(path)
    view.save_grid(images, part, columns=math.ceil(math.sqrt(count)))
    os.replace(part, path)


@torch.inference_mode()
def drawing(model: DRAW, seed: int, path: Path, count: int = 16) -> None:
    """The same samples coming to be, glimpse by glimpse, with the write window, as GIF."""
    shape = (model.config.glimpses, count, model.config.latent_size)
    e = noise(seed, "drawing", 0, shape, model.initial_canvas.device)
    _, trajectory = model.sample(count, e, return_trajectory=True)
    part = temporary(path)
    view.save_drawing(trajectory, part)
    os.replace(part, path)
