"""The pictures of a run: samples from the prior, and how they are drawn. The same noise each time, so they can be compared."""

from __future__ import annotations

from pathlib import Path

import torch

from fastdraw import view
from fastdraw.model import DRAW
from fastdraw.train.randomness import noise


@torch.inference_mode()
def samples(model: DRAW, count: int, seed: int, path: Path) -> None:
    """A grid of `count` samples from the prior, as PNG. Raises ValueError where a picture cannot show that many channels."""
    shape = (model.config.glimpses, count, model.config.latent_size)
    images = model.sample(count, noise(seed, "samples", 0, shape, model.initial_canvas.device))
    view.save_grid(images, path)


@torch.inference_mode()
def drawing(model: DRAW, count: int, seed: int, path: Path) -> None:
    """`count` other samples coming to be, glimpse by glimpse, with the write window, as GIF."""
    shape = (model.config.glimpses, count, model.config.latent_size)
    _, trajectory = model.sample(count, noise(seed, "drawing", 0, shape, model.initial_canvas.device), return_trajectory=True)
    view.save_drawing(trajectory, path, write_size=model.config.write_size)
