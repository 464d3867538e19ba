"""A moving average of the weights (EMA), which is smoother than the weights themselves."""

from __future__ import annotations

import copy

import torch
from torch import nn


class Average:
    """`model` is a copy whose weights are decay * themselves + (1 - decay) * those of the trained model, after each step.

    In the first steps the decay is (1 + step) / (10 + step) at most, so that the weights that training started from are soon
    forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.trained = decay, model
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self._to = [p.detach() for p in self.model.parameters()]
        self._from = [p.detach() for p in model.parameters()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After step number `step`, counted from 0."""
        torch._foreach_lerp_(self._to, self._from, 1.0 - min(self.decay, (1 + step) / (10 + step)))
