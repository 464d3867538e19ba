"""What the two tasks, draw and classify, do differently in a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from fastdraw.config import DRAWConfig
from fastdraw.evaluation.bound import likelihood
from fastdraw.evaluation.classes import class_errors
from fastdraw.graphed import GraphedStep
from fastdraw.runs.parallel import Processes
from fastdraw.runs.randomness import normal_rows
from fastdraw.train import watched
from fastdraw.train.batches import Batch
from fastdraw.train.options import TrainOptions
from fastdraw.train.watched import Watched
from fastdraw.view import pictures


@dataclass(frozen=True)
class Evaluation:
    """Nats per image, averaged over `images` images: nats = reconstruction + kl, an upper bound on -log p(x).

    standard_error: of nats, from the spread between images; None for a single one.
    """

    nats: float
    standard_error: float | None
    reconstruction: float
    kl: float
    images: int


@dataclass(frozen=True)
class Classification:
    """error: percent of `images` images told wrongly, and its standard error. cross_entropy: nats per image."""

    error: float
    standard_error: float | None
    cross_entropy: float
    images: int


class Task(Protocol):
    """score: the figure of an evaluation that says how good a model is; less is better."""

    score: str

    def step(self, graphed: GraphedStep, batch: Batch, step: int) -> Tensor:
        """Takes a step and gives its figures, in the order of SUMS."""

    def evaluate(self, model: Any, images: Tensor, labels: Tensor | None, between: Callable[[], None]) -> Any:
        """Shared by the processes. `between` is called between batches; what it raises ends the evaluation."""

    def samples(self, model: Any, folder: Path) -> None:
        """The pictures that go with each evaluation."""

    def watched(self, model: Any, images: Tensor, labels: Tensor | None) -> Watched:
        """What TensorBoard is shown of an evaluation on these images."""

    def finish(self, model: Any, folder: Path) -> None:
        """The pictures of a finished run."""


@dataclass
class Draw:
    options: TrainOptions
    processes: Processes
    device: torch.device
    autocast: torch.dtype | None
    score = "nats"

    def step(self, graphed: GraphedStep, batch: Batch, step: int) -> Tensor:
        config, warmup = graphed.model.config, self.options.kl_warmup or 0
        assert isinstance(config, DRAWConfig)
        rows, shape = len(batch.images) * self.processes.size, (config.glimpses, config.latent_size)
        where = self.processes.rows(rows), rows, shape, self.device
        e = normal_rows(self.options.seed, "noise", step, *where).transpose(0, 1)
        weight = 1.0 if step >= warmup else step / warmup
        out = graphed(batch.images, e, kl_weight=weight, labels=batch.labels)
        return torch.stack([out.loss, out.reconstruction.mean(), out.kl.sum(0).mean(), out.gradient_norm])

    def evaluate(self, model: Any, images: Tensor, labels: Tensor | None, between: Callable[[], None]) -> Evaluation:
        o, binarize = self.options, self.options.binarize == "dynamic"
        found = likelihood(
            model,
            images,
            o.eval_batch,
            o.seed,
            binarize,
            labels=labels,
            autocast=self.autocast,
            between=lambda done: between(),
            together=self.processes,
        )
        bound, parts = found.bound, (found.reconstruction.mean, found.kl.mean)
        return Evaluation(bound.mean, bound.standard_error, *parts, found.images)

    def samples(self, model: Any, folder: Path) -> None:
        pictures.samples(model, self.options.samples, self.options.seed, folder / "samples.png")

    def watched(self, model: Any, images: Tensor, labels: Tensor | None) -> Watched:
        o = self.options
        return watched.of_draw(model, o.samples, o.seed, o.binarize == "dynamic", images, labels)

    def finish(self, model: Any, folder: Path) -> None:
        pictures.drawing(model, min(16, self.options.samples), self.options.seed, folder / "drawing.gif")


@dataclass
class Classify:
    options: TrainOptions
    processes: Processes
    autocast: torch.dtype | None
    score = "error"

    def step(self, graphed: GraphedStep, batch: Batch, step: int) -> Tensor:
        out = graphed(batch.images, labels=batch.labels)
        error = 100 * (out.logits.argmax(1) != batch.labels).float().mean()
        return torch.stack([out.loss, error, out.gradient_norm])

    def evaluate(self, model: Any, images: Tensor, labels: Tensor | None, between: Callable[[], None]) -> Classification:
        assert labels is not None
        o, binarize = self.options, self.options.binarize == "dynamic"
        how = o.eval_batch, o.seed, binarize, self.autocast, lambda done: between(), self.processes
        found = class_errors(model, images, labels, *how)
        return Classification(found.error.mean, found.error.standard_error, found.cross_entropy.mean, found.images)

    def samples(self, model: Any, folder: Path) -> None: ...

    def watched(self, model: Any, images: Tensor, labels: Tensor | None) -> Watched:
        return watched.of_classifier(model, self.options.seed, self.options.binarize == "dynamic", images)

    def finish(self, model: Any, folder: Path) -> None: ...
