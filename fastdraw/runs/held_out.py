"""Held-out images as every evaluation takes them, with the same noise each time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fastdraw import data
from fastdraw.checks import expected
from fastdraw.config import DRAWConfig
from fastdraw.runs.parallel import ALONE, Processes
from fastdraw.runs.randomness import generator, noise


def to_input(images: Tensor, device: torch.device, seed: int | None, purpose: str = "", index: int = 0) -> Tensor:
    """uint8 images [B, C, H, W] as the model takes them: float32 in [0, 1] on `device`.

    With a seed each pixel becomes 0 or 1, drawn with its intensity as probability; None keeps intensities.
    """
    images = images.to(device)
    return data.images(images) if seed is None else data.binarize(images, generator(seed, purpose, index, device))


def held_out(
    images: Tensor,
    batch_size: int,
    seed: int,
    binarize: bool,
    device: torch.device,
    labels: Tensor | None = None,
    together: Processes = ALONE,
) -> Iterator[tuple[int, Tensor, dict[str, Any]]]:
    """Batches as they are evaluated: where each starts, x [B, C, H, W], and {"labels": [B]} where labels are given.

    Binarisation depends on seed and batch_size alone. Of `together` each process is given every so many-th batch.
    """
    for start in range(together.rank * batch_size, len(images), together.size * batch_size):
        rows = slice(start, start + batch_size)
        x = to_input(images[rows], device, seed if binarize else None, "evaluation images", start)
        yield start, x, {} if labels is None else {"labels": labels[rows].to(device)}


def check_held_out(kind: type[nn.Module], model: Any, images: Any, labels: Any) -> None:
    """What every evaluation takes: a model of that kind, uint8 images [n, C, H, W] as it takes them, labels [n] or none.

    Raises TypeError or ValueError.
    """
    if not isinstance(model, kind):
        raise expected("model", f"a {kind.__name__}", model, TypeError)
    if not isinstance(images, Tensor) or images.dtype != torch.uint8:
        raise expected("images", "a uint8 tensor", images, TypeError)
    config: Any = model.config
    shape = tuple(config.image_shape)
    if images.dim() != 4 or len(images) == 0 or tuple(images.shape[1:]) != shape:
        raise expected("images", f"shape [n, {', '.join(map(str, shape))}], n at least 1", images)
    if labels is not None and not isinstance(labels, Tensor):
        raise expected("labels", "a tensor", labels, TypeError)
    if labels is not None and (tuple(labels.shape) != (len(images),) or labels.dtype != torch.int64):
        raise expected("labels", f"int64 of shape [{len(images)}]", labels)


def evaluation_noise(config: DRAWConfig, seed: int, start: int, images: int, device: torch.device, sample: int = 0) -> Tensor:
    """[T, images, Z] for the batch that starts at image `start`; each `sample` of the latents has its own."""
    purpose = f"evaluation noise {sample}" if sample else "evaluation noise"
    return noise(seed, purpose, start, (config.glimpses, images, config.latent_size), device)
