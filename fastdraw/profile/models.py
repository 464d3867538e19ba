"""A training step of a model: the weights and inputs that every way to compute it shares, and the exact results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fastdraw import reference
from fastdraw.config import DRAWConfig
from fastdraw.runs.kinds import KINDS, Config, task_of

#: Weights larger than initial ones, so that windows move and every gradient is of a size to be compared.
STD = 0.05
HALF = (torch.bfloat16, torch.float16)


def gradients(out: Any, weights: Sequence[Tensor]) -> list[Tensor]:
    """Loss, KL or logits, and the loss's gradients."""
    second = out.kl if isinstance(out, reference.DRAWOutput) else out.logits
    return [out.loss.detach(), second.detach(), *torch.autograd.grad(out.loss, weights)]


def with_weights(model: Any, state: dict[str, Tensor], device: str) -> Any:
    model.load_state_dict(state)
    return model.to(device)


def rounded(state: dict[str, Tensor], rounding: float) -> dict[str, Tensor]:
    """Every weight moved by this share of itself, up or down: what rounding it may do."""
    return {name: tensor * (1 + rounding * torch.randn_like(tensor).sign()) for name, tensor in state.items()}


class Problem:
    """noise: what the model takes beside x: noise for DRAW, labels for a classifier. labels: for a conditional DRAW. numel: of
    all weight matrices together."""

    def __init__(self, config: Config, batch: int, device: str) -> None:
        torch.manual_seed(0)
        self.config: Any = config
        self.batch, self.device, self.specification = batch, device, KINDS[task_of(config)].specification
        yardstick = self.specification.from_config(config)
        for parameter in yardstick.parameters():
            torch.nn.init.normal_(parameter, std=STD)
        self.state = yardstick.state_dict()
        self.numel = sum(parameter.numel() for parameter in yardstick.parameters() if parameter.dim() == 2)
        self.x = torch.rand(batch, *config.image_shape, device=device)
        self.labels: list[Tensor] = []
        if isinstance(config, DRAWConfig):
            self.noise = torch.randn(config.glimpses, batch, config.latent_size, device=device)
            if config.num_classes is not None:
                self.labels = [torch.arange(batch, device=device) % config.num_classes]
        else:
            self.noise = torch.randint(config.num_classes, (batch,), device=device)

    def step(
        self, model: torch.nn.Module, autocast: torch.dtype | None = None, state: dict[str, Tensor] | None = None
    ) -> Callable[[], list[Tensor]]:
        """Of the model in its own dtype, with the problem's weights or those of `state`."""
        weights = list(with_weights(model, state or self.state, self.device).parameters())
        inputs = [t.to(weights[0].dtype) if t.is_floating_point() else t for t in (self.x, self.noise, *self.labels)]

        def run() -> list[Tensor]:
            with torch.autocast(self.device, autocast, enabled=autocast is not None):
                out = model(*inputs)
            return gradients(out, weights)

        return run

    def jax_step(self) -> Callable[[], list[Tensor]]:
        from fastdraw.profile import jax_draw

        return jax_draw.training_step(self.config, self.state, self.x, self.noise)

    def exact(self, rounding: float = 0.0) -> list[Tensor]:
        state = rounded({name: tensor.double() for name, tensor in self.state.items()}, rounding)
        return self.step(self.specification.from_config(self.config).double(), state=state)()

    def rivals(self, dtype: torch.dtype) -> list[list[Tensor]]:
        if dtype not in HALF:
            return []
        eager = self.step(self.specification.from_config(self.config), dtype)()
        return [eager, *(self.exact(torch.finfo(dtype).eps / 2) for _ in range(3))]
