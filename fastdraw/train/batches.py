"""The batches of a run: each a function of the seed and the step alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastdraw import data
from fastdraw.runs.parallel import Processes
from fastdraw.runs.randomness import blocks, generator, permuted, uniform_rows

#: Steps whose order is found at once, which takes little longer than one's.
AHEAD = 16


class Batch(NamedTuple):
    """images: float32 [B, C, H, W] in [0, 1]; labels: int64 [B], or None."""

    images: Tensor
    labels: Tensor | None


class Batches:
    """images uint8 [n, C, h, w] and labels [n] on any device; make: see `data.Splits`. Batches are on `device`."""

    def __init__(
        self,
        images: Tensor,
        labels: Tensor | None,
        make: data.Make | None,
        batch_size: int,
        binarize: bool,
        seed: int,
        device: torch.device,
        processes: Processes,
    ) -> None:
        self.images, self.labels, self.make, self.batch_size = images, labels, make, batch_size
        self.binarize, self.seed, self.device, self.processes = binarize, seed, device, processes
        self.steps_per_epoch = len(images) // batch_size
        # Of a process's rows, and with `make` of the blocks that they lie in.
        self._rows = processes.rows(batch_size)
        self._wide = self._rows
        if make is not None:
            some = list(blocks(self._rows, batch_size))
            self._wide = slice(some[0].rows.start, some[-1].rows.stop)
        self._first, self._chosen = -1, np.empty((0, 0), np.int64)

    def __call__(self, step: int) -> Batch:
        """This process's rows of the batch of a step."""
        rows, wide = self._rows, self._wide
        chosen = _onto(torch.from_numpy(self._order(step)), self.images.device)
        batch = self.images[chosen]
        if self.make is not None:
            made = []
            for block in blocks(rows, self.batch_size):
                some = batch[block.rows.start - wide.start : block.rows.stop - wide.start]
                random = generator(self.seed, "making", f"{step}/{block.number}", batch.device)
                made.append(self.make(some, random)[block.wanted])
            batch = torch.cat(made)
        batch = _onto(batch, self.device)
        if self.binarize:
            # Each pixel one with its intensity as probability.
            shape = tuple(batch.shape[1:])
            drawn = uniform_rows(self.seed, "images", step, rows, self.batch_size, shape, self.device)
            x = (drawn.mul_(255) < batch).float()
        else:
            x = data.images(batch)
        own = chosen[rows.start - wide.start : rows.stop - wide.start]
        labels = None if self.labels is None else _onto(self.labels[own], self.device)
        return Batch(x, labels)

    def _order(self, step: int) -> np.ndarray:
        """The numbers of the images at this process's places in the batch of a step, found for AHEAD steps at once."""
        first = step - step % AHEAD
        if first != self._first:
            places = np.arange(self._wide.start, self._wide.stop, dtype=np.int64)
            found: list[tuple[int, list[np.ndarray]]] = []
            for each in range(first, first + AHEAD):
                epoch, i = divmod(each, self.steps_per_epoch)
                if found and i:
                    found[-1][1].append(places + i * self.batch_size)
                else:
                    found.append((epoch, [places + i * self.batch_size]))
            orders = [permuted(self.seed, "order", epoch, np.concatenate(all), len(self.images)) for epoch, all in found]
            self._first, self._chosen = first, np.concatenate(orders).reshape(AHEAD, len(places))
        return self._chosen[step - first]


def _onto(tensor: Tensor, device: torch.device) -> Tensor:
    """On CUDA without waiting for what is going on there."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
