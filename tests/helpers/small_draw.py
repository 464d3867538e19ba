"""A small DRAW, the reference with the same weights, inputs and gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from fastdraw import DRAW, reference

SMALL = {"image_shape": (2, 9, 7), "glimpses": 3, "hidden_size": 8, "latent_size": 4}


def pair(dtype: torch.dtype = torch.float64, std: float = 0.3, **configuration) -> tuple[DRAW, reference.DRAW]:
    """A model with weights large enough that every path matters, and the reference with the same ones."""
    model = DRAW(**configuration).to(dtype)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=std)
    other = reference.DRAW(**configuration).to(dtype)
    other.load_state_dict(model.state_dict())
    return model, other


def inputs(model: reference.DRAW, batch: int = 3) -> tuple[Tensor, Tensor]:
    config, like = model.config, model.initial_canvas
    x = torch.rand(batch, *config.image_shape, dtype=like.dtype)
    return x, torch.randn(config.glimpses, batch, config.latent_size, dtype=like.dtype)


def gradients(model: reference.DRAW, x: Tensor, noise: Tensor) -> list[Tensor]:
    x, noise = x.clone().requires_grad_(), noise.clone().requires_grad_()
    return list(torch.autograd.grad(model(x, noise).loss, (x, noise, *model.parameters())))


def results(model: reference.DRAW, x: Tensor, noise: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
    """Loss, KL, canvas, and the gradients of the loss to x, noise and every weight."""
    x, noise = x.clone().requires_grad_(), noise.clone().requires_grad_()
    out = model(x, noise, labels)
    names = ("x", "noise", *(name for name, _ in model.named_parameters()))
    grads = torch.autograd.grad(out.loss, (x, noise, *model.parameters()))
    return {"loss": out.loss, "kl": out.kl, "canvas": out.canvas, **dict(zip(names, grads, strict=True))}
