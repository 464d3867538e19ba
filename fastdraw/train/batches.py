"""The batches of a run: each a function of the seed and the step alone."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastdraw import data
from fastdraw.runs.held_out import to_input
from fastdraw.runs.parallel import Processes
from fastdraw.runs.randomness import generator


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
        self._epoch, self._order = -1, torch.empty(0)

    def __call__(self, step: int) -> Batch:
        """This process's rows of the batch of a step."""
        epoch, i = divmod(step, self.steps_per_epoch)
        images, rows = self.images, self.processes.rows(self.batch_size)
        if epoch != self._epoch:
            # Where the images are: on CUDA nothing is copied there, and the host does not wait.
            random = generator(self.seed, "order", epoch, images.device)
            self._epoch, self._order = epoch, torch.randperm(len(images), generator=random, device=images.device)
        chosen = self._order[i * self.batch_size : (i + 1) * self.batch_size]
        batch = images[chosen]
        if self.make is not None:
            batch = self.make(batch, generator(self.seed, "making", step, batch.device))
        x = to_input(batch, self.device, self.seed if self.binarize else None, "images", step)
        labels = None if self.labels is None else self.labels[chosen][rows].to(self.device)
        return Batch(x[rows], labels)
