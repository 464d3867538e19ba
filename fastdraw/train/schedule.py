"""How the learning rate changes over a run, and the moving average of the weights (EMA), smoother than they are."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from fastdraw.train.values import SHAPES


def factor(name: str, warmup: int, total: int) -> Callable[[int], float]:
    """The rate of step 0, 1, ..., total - 1 as a multiple of --learning-rate: rising over `warmup` steps, then by `name`."""

    def at(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return SHAPES[name](min(1.0, (step - warmup) / max(1, total - warmup)))

    return at


def scheduler(optimizer: torch.optim.Optimizer, name: str, warmup: int, total: int, step: int = 0) -> LambdaLR:
    """torch's scheduler, standing before `step`: call its `step()` after each of the optimizer's.

    The rate is a function of the step and of `total` alone. So a checkpoint need hold no more than the step, and a run that
    goes on with more steps follows the curve of its new length.
    """
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", float(group["lr"]))
    return LambdaLR(optimizer, factor(name, warmup, total), last_epoch=step - 1)


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
