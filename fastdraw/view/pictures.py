"""The pictures of a run: samples from the prior, and how they are drawn. The same noise each time, so they can be compared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastdraw import view
from fastdraw.checks import check_size
from fastdraw.outputs import Trajectory
from fastdraw.runs.parallel import ALONE, Processes
from fastdraw.runs.randomness import noise

#: Samples drawn at once: what drawing takes of memory does not grow with their number.
CHUNK = 256


def samples(model: Any, count: int, seed: int, path: Path) -> None:
    """A grid of `count` samples from the prior, as PNG; of a class-conditional model each column shows a class.

    Raises ValueError where a picture cannot show that many channels.
    """
    view.save_grid(draw(model, count, seed), path, columns=columns(model, count))


def drawing(model: Any, count: int, seed: int, path: Path) -> None:
    """`count` other samples coming to be, glimpse by glimpse, with the write window, as a film: GIF or MP4 by its suffix."""
    _, trajectory = draw_slowly(model, count, seed, "drawing")
    view.save_drawing(trajectory, path, write_size=model.config.write_size)


def draw(model: Any, count: int, seed: int, labels: Tensor | None = None) -> Tensor:
    """`count` samples [n, C, H, W] in [0, 1], on the CPU. labels: int64 [n]; None: each class in turn, where there are any."""
    return torch.cat(list(drawn(model, count, seed, labels)))


def drawn(model: Any, count: int, seed: int, labels: Tensor | None = None, together: Processes = ALONE) -> Iterator[Tensor]:
    """The same, CHUNK of them at a time. Of `together` each process draws every so many-th part; the first is given all."""
    labels = classes(model, count) if labels is None else labels
    starts = range(0, count, CHUNK)
    for several in range(0, len(starts), together.size):
        # None where there are fewer parts left than processes.
        own = several + together.rank
        part = None
        if own < len(starts):
            start = starts[own]
            n = min(CHUNK, count - start)
            chosen = None if labels is None else labels[start : start + n]
            with torch.inference_mode():
                part = model.sample(n, _noise(model, n, seed, "samples", start), **_given(model, chosen)).float().cpu()
        for images in together.to_first(part):
            if images is not None:
                yield images


@torch.inference_mode()
def draw_slowly(
    model: Any, count: int, seed: int, purpose: str = "samples", labels: Tensor | None = None
) -> tuple[Tensor, Trajectory]:
    """The same samples with every glimpse; with another purpose, others. At most CHUNK of them, for their memory."""
    count = min(check_size("n", count), CHUNK)
    labels = classes(model, count) if labels is None else labels[:count]
    return model.sample(count, _noise(model, count, seed, purpose, 0), return_trajectory=True, **_given(model, labels))


def classes(model: Any, count: int, chosen: list[int] | None = None) -> Tensor | None:
    """int64 [count]: `chosen` class numbers, by default all, again and again; None for a model that is given no classes."""
    number = getattr(model.config, "num_classes", None)
    if number is None:
        return None
    each = torch.tensor(chosen or range(number))
    return each[torch.arange(count) % len(each)]


def columns(model: Any, count: int, chosen: list[int] | None = None) -> int | None:
    """Columns of a grid in which each class has one; None where there are no classes, or too many."""
    number = len(chosen or ()) or getattr(model.config, "num_classes", None)
    return number if number is not None and 4 <= number <= min(count, 20) else None


def _noise(model: Any, count: int, seed: int, purpose: str, index: int) -> Tensor:
    device = model.initial_canvas.device
    shape = (model.config.glimpses, count, model.config.latent_size)
    return noise(seed, purpose, index, shape, device).to(model.initial_canvas.dtype)


def _given(model: Any, labels: Tensor | None) -> dict[str, Tensor]:
    return {} if labels is None else {"labels": labels.to(model.initial_canvas.device)}
