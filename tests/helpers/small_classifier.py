"""A small classifier, the reference with the same weights, inputs, results and gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from fastdraw import DRAWClassifier, reference

SMALL = {"image_shape": (2, 9, 7), "glimpses": 3, "hidden_size": 8, "read_size": 3, "num_classes": 5}


def pair(dtype: torch.dtype = torch.float64, std: float = 0.3, **changes) -> tuple[DRAWClassifier, reference.DRAWClassifier]:
    """A model with weights large enough that every path matters, and the reference with the same ones."""
    configuration = {**SMALL, **changes}
    model = DRAWClassifier(**configuration).to(dtype)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=std)
    other = reference.DRAWClassifier(**configuration).to(dtype)
    other.load_state_dict(model.state_dict())
    return model, other


def inputs(model: reference.DRAWClassifier, batch: int = 3) -> tuple[Tensor, Tensor]:
    config = model.config
    x = torch.rand(batch, *config.image_shape, dtype=model.initial_hidden.dtype)
    return x, torch.randint(config.num_classes, (batch,))


def results(model: reference.DRAWClassifier, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Loss, logits, and the loss's gradients to x and every weight."""
    x = x.clone().requires_grad_()
    out = model(x, labels)
    grads = torch.autograd.grad(out.loss, (x, *model.parameters()))
    names = ("x", *(name for name, _ in model.named_parameters()))
    return {"loss": out.loss, "logits": out.logits, **dict(zip(names, grads, strict=True))}
