"""Weights in safetensors files from anywhere: read whole, and checked against the configuration that they are said to be of.

Nothing is pickled, so opening a file never runs code. Each function takes the kind of ValueError that its caller raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def read(file: Path, error: type[ValueError] = ValueError) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A safetensors file's tensors, on the CPU, and its metadata. Raises `error` for a torn file or one of another kind."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt", device="cpu") as opened:
            # Cloned: the tensors would otherwise be views of a mapped file that somebody may cut short.
            tensors = {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118
            return tensors, opened.metadata() or {}
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, RuntimeError, AttributeError) as came:
        raise error(f"{file}: expected a whole safetensors file, got {short(came)}") from came


def shapes(file: Path, specification: Any, config: Any, error: type[ValueError] = ValueError) -> dict[str, tuple[int, ...]]:
    """The weights of `specification` that `config` means, made without memory: a hostile file may claim any size."""
    try:
        with torch.device("meta"):
            model = specification.from_config(config)
    except (RuntimeError, OverflowError, TypeError) as came:
        raise error(f"{file}: expected a model's configuration, got sizes that no memory holds") from came
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def check(
    file: Path,
    tensors: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    error: type[ValueError] = ValueError,
    what: str = "",
) -> None:
    """Raises `error` unless `tensors` are of exactly these names and shapes, and finite floats. `what` stands before names."""
    for name, shape in shapes.items():
        tensor, full = tensors.get(name), f"{what}.{name}" if what else name
        if tensor is None or tuple(tensor.shape) != shape or not tensor.is_floating_point():
            came = "nothing" if tensor is None else f"{tensor.dtype} of shape {tuple(tensor.shape)}"
            raise error(f"{file}: expected {full} to be floats of shape {shape}, got {came}")
        if not torch.isfinite(tensor).all():
            raise error(f"{file}: expected finite numbers in {full}, got NaN or infinity")
    if extra := tensors.keys() - shapes.keys():
        raise error(f"{file}: expected the {what or 'weights'} that its configuration means, got {short(min(extra))} as well")


def short(value: object) -> str:
    """One line of at most 120 characters."""
    text = " ".join(str(value).split())
    return text if len(text) <= 120 else f"{text[:117]}..."
