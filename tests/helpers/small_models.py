"""Small models of each kind, the reference with the same weights, inputs, results and gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import fastdraw
from fastdraw import reference

_DRAW = {"image_shape": (2, 9, 7), "glimpses": 3, "hidden_size": 8, "latent_size": 4}
#: The class, and its small sizes.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "draw": ("DRAW", _DRAW),
    "conditional": ("DRAW", {**_DRAW, "num_classes": 3}),
    "classifier": (
        "DRAWClassifier",
        {"image_shape": (2, 9, 7), "glimpses": 3, "hidden_size": 8, "read_size": 3, "num_classes": 5},
    ),
}


def made(package: Any, kind: str, **changes: Any) -> Any:
    """package: fastdraw or its reference."""
    name, sizes = KINDS[kind]
    return getattr(package, name)(**{**sizes, **changes})


def pair(kind: str = "draw", dtype: torch.dtype = torch.float64, std: float = 0.3, **changes: Any) -> tuple[Any, Any]:
    """A model with weights large enough that every path matters, and the reference with the same ones."""
    model, other = (made(package, kind, **changes).to(dtype) for package in (fastdraw, reference))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=std)
    other.load_state_dict(model.state_dict())
    return model, other


def inputs(model: Any, batch: int = 3) -> dict[str, Tensor]:
    config, dtype = model.config, next(model.parameters()).dtype
    given = {"x": torch.rand(batch, *config.image_shape, dtype=dtype)}
    if hasattr(config, "latent_size"):
        given["noise"] = torch.randn(config.glimpses, batch, config.latent_size, dtype=dtype)
    if config.num_classes is not None:
        given["labels"] = torch.arange(batch) % config.num_classes
    return given


def results(model: Any, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Outputs, and the gradients of the loss to images, noise and every weight."""
    leaves = {name: value.clone().requires_grad_(value.is_floating_point()) for name, value in given.items()}
    out = model(**leaves)
    wanted = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad} | dict(model.named_parameters())
    grads = torch.autograd.grad(out.loss, list(wanted.values()))
    return {**out._asdict(), **{f"gradient to {name}": grad for name, grad in zip(wanted, grads, strict=True)}}


def converted(given: dict[str, Tensor], *to: Any) -> dict[str, Tensor]:
    """To another dtype, but for labels, or to a device."""
    return {
        name: value.to(*(one for one in to if value.is_floating_point() or not isinstance(one, torch.dtype)))
        for name, value in given.items()
    }
