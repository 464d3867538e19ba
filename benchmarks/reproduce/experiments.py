"""The experiments: what each trains, what the paper reached, and what is to be reached."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Experiment:
    """options: of `fastdraw train`, on top of the preset's. paper: its figure on the test images, None where it has none.

    unit: of that figure. note: what else must be known to read the figure.
    """

    title: str
    options: dict[str, Any]
    unit: str = "nats per image"
    paper: float | None = None
    note: str = ""
    long: dict[str, Any] = field(default_factory=dict)

    def chosen(self, said: dict[str, Any]) -> dict[str, Any]:
        """The options of a run that was told `said`. Raises ValueError or TypeError, naming the option, for wrong ones."""
        # Not at the top: help needs none of it.
        from fastdraw.train.options import TrainOptions
        from fastdraw.train.recipes import FEW

        options = self.options | said
        known = TrainOptions(**options)
        glimpses = known.glimpses or known.recipe.config.glimpses
        return (self.long if glimpses > FEW else {}) | options


#: What all runs share: figures are read and checkpoints written seldom, since both wait for the device.
COMMON: dict[str, Any] = {
    "precision": "bf16",
    "schedule": "cosine",
    "log_every": 500,
    "checkpoint_every": 5000,
    "evaluate_every": 10,
    "eval_batch": 1000,
}
#: Drawing with more glimpses than a search covered. The best public reproduction took 3e-4 without decay. In short runs of few
#: glimpses (docs/results.md) more than their usual rate learned faster, with the average better than the weights, and at 32
#: only where the rate rose first. At 64 glimpses this rate is not yet tried.
LONG: dict[str, Any] = {"ema": 0.9995, "learning_rate": 1e-3, "warmup_steps": 1000}

EXPERIMENTS: dict[str, Experiment] = {
    "mnist": Experiment(
        "Binarised MNIST",
        {**COMMON, "data": "binarized-mnist", "preset": "mnist", "epochs": 300},
        paper=80.97,
        long=LONG,
    ),
    "mnist-no-attention": Experiment(
        "Binarised MNIST without attention",
        {**COMMON, "data": "binarized-mnist", "preset": "mnist-no-attention", "epochs": 300},
        paper=87.40,
        long=LONG,
    ),
    "cluttered": Experiment(
        "Cluttered MNIST, 100x100",
        {**COMMON, "data": "cluttered-mnist", "epochs": 200},
        unit="% error",
        paper=3.36,
    ),
    "two-digits": Experiment("Two digits, 60x60", {**COMMON, "data": "two-digits", "epochs": 100}, long=LONG),
    "svhn": Experiment(
        "SVHN, 54x54",
        {**COMMON, "ema": 0.9995, "data": "svhn", "epochs": 100},
        note="Intensities count as probabilities, as in the paper, whose training set has 231,053 images.",
    ),
    "cifar": Experiment(
        "CIFAR-10",
        {**COMMON, "data": "cifar10", "epochs": 100},
        note="Intensities count as probabilities, as in the paper.",
        long=LONG,
    ),
}
